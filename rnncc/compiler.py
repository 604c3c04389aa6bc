"""`rnncc.compile`: a cell's text, file or name -> a Layer class.

Constructing a layer binds its options; the module with its kernels is rendered, and compiled by
Numba, when a call first needs it. What was bound or rendered once is shared in the process.

Non-Goals: writing modules to a chosen path (`cli`).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from rnncc.artifact.cell import CellDescription, Variant
from rnncc.common.layer_keywords import Target
from rnncc.driver import Derivation
from rnncc.frontend.diagnostics import nearest
from rnncc.frontend.parse import parse_file
from rnncc.frontend.spec import CellSpec
from rnncc.lowering.cell_interface import check_file, check_text
from rnncc.lowering.traced import TracedSpec
from rnncc.runtime.api.layer import Layer, make_class
from rnncc.runtime.api.layer_options import BoundCell, Engine, SecondEngine, storing
from rnncc.runtime.api.validation import dtype_name
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.traces.traced_cell import TracedCell, TracedValue

CELLS = Path(__file__).parent / "cells"
TARGETS = ("cpu", "cuda")
# spec, bound cell, variant -> engine
EngineMaker = Callable[[CellSpec, CellDescription, Variant], Engine | SecondEngine]


def compile(  # the public name is rnncc.compile
    source: str | os.PathLike[str], target: Target = "cpu", dtype: Any = "float32"
) -> type[Layer]:
    """The layer class of a cell: the path of a .rnn file, or a built-in's name ("lstm").

    target: "cpu" or "cuda". dtype: float32 or float64. Raises SpecError with every mistake in the
    text, a file that can't be read among them; ValueError for an unknown name, target or dtype.
    """
    return layer_class(load_spec(source), target, dtype)


def compile_text(
    text: str, target: Target = "cpu", dtype: Any = "float32", *, filename: str = "<text>"
) -> type[Layer]:
    """The layer class of a cell given as text; `filename` is what diagnostics call it."""
    if not isinstance(text, str):
        raise TypeError(f"a cell's text is a str, not {type(text).__name__}")
    return layer_class(check_text(text, filename), target, dtype)


def load_spec(source: str | os.PathLike[str]) -> CellSpec:
    """The checked cell of a path or a built-in's name, upper or lower case, with or without _."""
    if isinstance(source, str):
        if "\n" in source:
            raise ValueError("a path or a cell's name has one line: compile_text takes text")
        if not source.endswith(".rnn") and not set(source) & {"/", "\\"}:
            return parse_file(_built_in(source))  # the tests check these under every option
    elif not isinstance(source, os.PathLike):
        raise TypeError(f"a path or a cell's name is a str or Path, not {type(source).__name__}")
    return check_file(Path(source))


def _built_in(name: str) -> Path:
    known = {path.stem: path for path in sorted(CELLS.glob("*.rnn"))}
    plain = {stem.replace("_", ""): path for stem, path in known.items()}
    found = plain.get(name.lower().replace("_", "").replace("-", ""))
    if found is None:
        hint = nearest(name.lower(), known) or f"the built-in cells are {', '.join(known)}"
        raise ValueError(f"no built-in cell is called {name!r}: {hint} (a path ends in .rnn)")
    return found


# ---- classes ---------------------------------------------------------------------------------


def kernel_engine(spec: CellSpec, cell: CellDescription, variant: Variant) -> Engine | SecondEngine:
    """The compiled kernels of one variant, for the CPU."""
    made: Engine | SecondEngine = _engine(spec, cell, variant, "cpu")
    return made


def cuda_engine(spec: CellSpec, cell: CellDescription, variant: Variant) -> Engine | SecondEngine:
    """The kernels of one variant, for a GPU."""
    made: Engine | SecondEngine = _engine(spec, cell, variant, "cuda")
    return made


def timed_engines(
    spec: CellSpec, cell: CellDescription, engines: EngineMaker, part: str
) -> Callable[[Variant], Engine | SecondEngine]:
    """Of kernels that also write when they did what. part: of the layer that they are of.
    ValueError where `engines` make other kernels than those of the CPU."""
    from rnncc.runtime.cpu.execution.timed import timed

    if engines is not kernel_engine:
        where = "a GPU" if engines is cuda_engine else "the interpreter"
        raise ValueError(
            f"a profile times kernels of the CPU, and this {cell.name} runs on {where}: "
            'give it a layer that was moved by .to("cpu")'
        )
    return lambda variant: timed(_engine(spec, cell, variant, "cpu", timed=True), part)


def _engine(
    spec: CellSpec, cell: CellDescription, variant: Variant, target: str, *, timed: bool = False
) -> Any:
    from rnncc.runtime.jit.module_cache import keyed_module

    def render() -> str:
        derivation = Derivation.of(spec, cell)
        return derivation.module(cell.dtype, (variant,), target=target, timed=timed)

    key = repr((spec.text, spec.filename, cell.options, cell.functions, cell.dtype, variant))
    stem = f"{cell.name.lower()}_{'timed_' * timed}{target}"
    return keyed_module(stem, key, render)._ENGINES[variant]


def engines_of_text(
    text: str, cell: CellDescription, target: str
) -> Callable[[Variant], Engine | SecondEngine]:
    """The engines of a generated module's cell, out of the text that the module holds.

    SpecError for a text that is no cell; ValueError for one that isn't the module's own.
    """
    return partial(_maker_of(target), own_text(text, cell), cell)


def traced_of_text(text: str, cell: CellDescription, target: str) -> TracedCell:
    """What a generated module's cell is traced by. Raises as `engines_of_text`."""
    return traced_cell(own_text(text, cell), cell, _maker_of(target))


def timer_of_text(
    text: str, cell: CellDescription, target: str
) -> Callable[[str], Callable[[Variant], Engine | SecondEngine]]:
    """`timed_engines` of a generated module's cell. Raises as `engines_of_text`."""
    return partial(timed_engines, own_text(text, cell), cell, _maker_of(target))


def own_text(text: str, cell: CellDescription) -> CellSpec:
    """The cell of a generated module's text. Raises as `engines_of_text`."""
    spec = check_text(text, cell.source)
    if Derivation.of(spec, cell).cell(cell.dtype) != cell:
        raise ValueError(
            f"this module of {cell.name} was changed: its SPEC is not the text that its kernels "
            f"were made of; run rnncc compile {cell.source} again"
        )
    return spec


def traced_cell(spec: CellSpec, cell: CellDescription, engines: EngineMaker) -> TracedCell:
    """The cell with all that it names among its outputs, compiled when a trace runs it."""
    options, functions = dict(cell.options), dict(cell.functions)
    traced = TracedSpec(spec, options, functions)
    description = Derivation(traced.spec, options, functions).cell(cell.dtype)
    outputs = description.outputs
    values = [
        TracedValue(v.name, outputs[traced.returned[v.name]].name, v.is_flag) for v in traced.values
    ]
    named = {v.result: v.name for v in values}
    taken = {v.name for v in values}
    for own in cell.outputs:  # an expression that is returned has no other name
        if own.name not in named:
            named[own.name] = own.name if own.name not in taken else f"{own.name}_returned"
            values.append(TracedValue(named[own.name], own.name))
    returned = tuple((o.name, named[o.name]) for o in cell.outputs)
    binding = BoundCell(description, storing(partial(engines, traced.spec, description)))
    return TracedCell(binding, tuple(values), returned, tuple(traced.left_out.items()))


class Compiler:
    """The maker of a compiled class: binds options by describing the cell with them."""

    def __init__(self, spec: CellSpec, dtype: str, engines: EngineMaker) -> None:
        self.spec, self.engines = spec, engines
        self.cell = Derivation(spec).cell(dtype)
        self._bindings: dict[tuple[CellDescription, str], BoundCell] = {}

    def bind(
        self, options: Mapping[str, object], functions: Mapping[str, object], dtype: str
    ) -> BoundCell:
        """ValueError and TypeError for a wrong option or function, SpecError for what it breaks."""
        own = not options and not functions and dtype == self.cell.dtype
        cell = self.cell if own else Derivation(self.spec, options, functions).cell(dtype)
        tracer = partial(traced_cell, self.spec, cell, self.engines)
        timer = partial(timed_engines, self.spec, cell, self.engines)
        made = BoundCell(cell, self._engines_of(cell), None, tracer, lambda: self.spec, timer)
        key = cell, repr(cell.options)  # True and 1 are equal, but not the same option
        return self._bindings.setdefault(key, made)

    def moved(self, target: str) -> Compiler:
        """The maker of the same class for another target. ValueError for an unknown one."""
        return Compiler(self.spec, self.cell.dtype, _maker_of(target))

    def _engines_of(self, cell: CellDescription) -> Callable[[Variant], Engine | SecondEngine]:
        return storing(lambda variant: self.engines(self.spec, cell, variant))


def _maker_of(target: str) -> EngineMaker:
    if target not in TARGETS:
        raise ValueError(f"target is one of {', '.join(TARGETS)}, not {target!r}")
    return cuda_engine if target == "cuda" else kernel_engine


# A class lives as long as somebody holds it or a layer of it.
_classes: WeakValueDictionary[tuple[Any, ...], type[Layer]] = WeakValueDictionary()
_lock = threading.Lock()
open_in_children(sys.modules[__name__], "_lock")


def layer_class(
    spec: CellSpec,
    target: str = "cpu",
    dtype: Any = "float32",
    engines: EngineMaker = kernel_engine,
) -> type[Layer]:
    """The class of a checked cell, the same one for the same text. Tests choose other `engines`."""
    made_for = _maker_of(target)
    engines = made_for if engines is kernel_engine else engines
    name = dtype_name(dtype)
    key = (spec.text, spec.filename, target, name, engines)
    with _lock:
        found = _classes.get(key)
        if found is None:
            maker = Compiler(spec, name, engines)
            found = _classes[key] = make_class(maker, "rnncc", (_remake, key))
        return found


def _remake(text: str, filename: str, target: str, dtype: str, engines: EngineMaker) -> type[Layer]:
    """A class out of a pickle."""
    return layer_class(check_text(text, filename), target, dtype, engines)
