"""One thing to time, and the same numbers for every contender to time it on.

Arrays are drawn from a seed, so that nothing but a description crosses between processes.
Weights are in the layout of the cell's spec: gates in its order, bias last.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rnncc.compiler import load_spec
from rnncc.frontend.elaborate import sizes_of
from rnncc.frontend.spec import CellSpec
from rnncc.ir.program import Program
from rnncc.ir.random import uniform
from rnncc.lowering.cell_interface import CellInterface
from rnncc.lowering.lower import lower

FORWARD, TRAINING = "forward", "training"
SEED = 1  # of what dropout draws
TITLES = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "SimpleRNN", "slstm": "sLSTM"}


class CaseError(Exception):
    """A spec that no case can be made of."""


@dataclass(frozen=True, slots=True)
class Case:
    """A cell at one size. mode: forward, or training = forward and all gradients.

    cell: a built-in one's name, or a path. options: keywords of the layer. masked: a random third
    of the steps doesn't count. resets: rows start anew before a random tenth of the
    steps. lengths: "near" or "any", how long sequences are: within three
    steps of the longest, or anything from one on; the longest comes first. stateful: a call starts
    where the last one ended. threads: how many a process may use; None is all.
    """

    cell: str
    mode: str
    batch: int
    time: int
    features: int
    units: int
    dtype: str = "float32"
    options: tuple[tuple[str, Any], ...] = ()
    masked: bool = False
    resets: bool = False
    lengths: str = ""
    stateful: bool = False
    threads: int | None = None

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return self.batch, self.time, self.features, self.units

    @property
    def label(self) -> str:
        threads = f" threads={self.threads}" if self.threads else ""
        return f"{self.name} {self.mode} {self.sizes}{threads}"

    @property
    def name(self) -> str:
        """The cell and what its layer is asked for."""
        words = [*(f"{k}={v}" for k, v in self.options), *(["random mask"] if self.masked else [])]
        words += [f"{self.lengths} lengths"] if self.lengths else []
        words += ["resets"] if self.resets else []
        kept = ["state kept"] if self.stateful else []
        cell = Path(self.cell).stem
        return " ".join([TITLES.get(cell, cell), *words, *kept])

    def option(self, name: str, default: Any = None) -> Any:
        return dict(self.options).get(name, default)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Data:
    """x: [batch, time, features]; dy: like the output; weights by name; mask, resets: bools
    [batch, time].

    kept: [batch, units], what recurrent dropout multiplies states by: what rnncc draws itself.
    """

    x: np.ndarray
    dy: np.ndarray
    weights: dict[str, np.ndarray]
    mask: np.ndarray
    kept: np.ndarray | None = None
    resets: np.ndarray | None = None


def draw(case: Case) -> Data:
    """The case's arrays: the same in every process."""
    rng = np.random.default_rng(20240607)
    spec, sizes = spec_of(case), all_sizes(case)
    options, functions, _ = bound(case)
    bound_ = 1 / np.sqrt(case.units)

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(case.dtype)

    interface = CellInterface(spec, options, functions)
    (width,) = next(iter(interface.outputs.values()))
    x = array(case.batch, case.time, case.features)
    dy = array(case.batch, case.time, width.evaluate(sizes))
    weights = {
        name: np.asarray(
            rng.uniform(-bound_, bound_, [s.evaluate(sizes) for s in shape]), case.dtype
        )
        for name, (shape, _) in interface.weights.items()
    }
    mask = rng.random((case.batch, case.time)) >= 1 / 3
    if case.lengths:
        least = max(case.time - 3, 1) if case.lengths == "near" else 1
        lengths = rng.integers(least, case.time + 1, case.batch)
        lengths[0] = case.time
        mask = np.arange(case.time) < np.sort(lengths)[::-1, None]
    resets = rng.random((case.batch, case.time)) < 0.1 if case.resets else None
    return Data(x, dy, weights, mask, _kept(case), resets)


def _kept(case: Case) -> np.ndarray | None:
    rate = case.option("recurrent_dropout", 0)
    sites = [op.attrs["site"] for op in _ops(program(case)) if op.opcode == "uniform"]
    if not rate or case.mode != TRAINING or len(sites) != 1:
        return None
    rows, lanes = np.arange(case.batch)[:, None], np.arange(case.units)
    drawn = uniform(SEED, sites[0], rows, np.zeros((1, 1), int), lanes)
    return ((drawn >= rate) / (1 - rate)).astype(case.dtype)


# ---- specs -----------------------------------------------------------------------------------


@cache
def _spec(cell: str) -> CellSpec:
    return load_spec(cell)


def spec_of(case: Case) -> CellSpec:
    return _spec(case.cell)


def bound(case: Case) -> tuple[dict[str, Any], dict[str, Any], frozenset[str]]:
    """The case's options by what they are to the cell: options, functions, rates above zero."""
    kinds = {d.name: d.kind for d in spec_of(case).declarations}
    given = dict(case.options)
    options = {n: v for n, v in given.items() if kinds.get(n) == "option"}
    functions = {n: v for n, v in given.items() if kinds.get(n) == "function"}
    rates = frozenset(n for n, v in given.items() if kinds.get(n) == "rate" and v)
    for decl in spec_of(case).options:
        if decl.rate is not None and decl.rate.name in rates:
            options.setdefault(decl.name, True)  # as a layer that is made with that rate
    return options, functions, rates


def all_sizes(case: Case) -> dict[str, int]:
    """Every size of the cell by name."""
    sizes = {"features": case.features, "units": case.units}
    for name, default in sizes_of(spec_of(case), bound(case)[0]).items():
        if name not in sizes and default is not None:
            sizes[name] = default.evaluate(sizes)
    return sizes


def program(case: Case) -> Program:
    """What the case computes, before any pass."""
    return _program(sizeless(case))


def sizeless(case: Case) -> Case:
    """The same case at one size: Programs don't know sizes."""
    return replace(case, batch=1, time=1, features=1, units=1, threads=None)


@cache
def _program(case: Case) -> Program:
    options, functions, rates = bound(case)
    training = case.mode == TRAINING
    return lower(spec_of(case), options, functions, training=training, active_rates=rates)


def _ops(found: Program) -> list[Any]:
    return [*found.before, *(found.scan.body if found.scan else ()), *found.after]


def check_drivable(cell: str) -> str:
    """A user's spec, or CaseError with what cases need: x: input[features], units, one output."""
    spec = _spec(cell)
    interface = CellInterface(spec)
    inputs, free = interface.inputs, [n for n, d in sizes_of(spec, {}).items() if d is None]
    outputs = list(interface.outputs.values())
    if [str(s) for shape in inputs.values() for s in shape] != ["features"]:
        shown = ", ".join(f"{n}[{', '.join(map(str, s))}]" for n, s in inputs.items())
        raise CaseError(f"{cell}: it takes one input[features]; {spec.name} has {shown}")
    if sorted(free) != ["features", "units"]:
        raise CaseError(f"{cell}: its free sizes have to be features and units, not {free}")
    if len(outputs) != 1 or len(outputs[0]) != 1:
        raise CaseError(f"{cell}: it takes one output of rank 1; {spec.name} has {len(outputs)}")
    return cell
