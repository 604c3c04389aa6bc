"""Every name of our own, of Python's and of what rnncc stands on, as a name of the user's.

A cell is renamed: its sizes, arrays, values, options, functions and the cell itself get names that
mean something to somebody else. What comes out of it on simulated kernels, with all gradients, is
bit for bit what comes out with names that mean nothing, or the name is refused on its line.

Over all attempts every name is had in every role.

Non-Goals: names that two things of one cell share, which are mistakes.
"""

from __future__ import annotations

import builtins
import importlib
import keyword
import math
import random
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import jinja2
import numpy as np

from rnncc.common.template_loader import template_root
from rnncc.frontend.diagnostics import SpecError
from rnncc.frontend.library import INITIALIZERS, SIGNATURES
from rnncc.frontend.spec import CellSpec
from rnncc.lowering.cell_interface import check_text
from rnncc.runtime.api.layer import Layer
from tests.attack import Attack
from tests.support.cpu_simulator.simulate import simulated_class

CELL = """\
cell: q_cell
q_features: size
q_units: size
q_double: size = 2 * q_units
q_choice: option = True
q_rate: rate = 0
q_act: function = tanh
q_own: function = lambda q_arg: q_arg * sigmoid(q_arg)
q_input: input[q_features]
q_context: context[q_units]
q_kernel: weight[q_features, q_double]
q_recurrent: weight[q_units, q_units]
q_bias: weight[q_units]
q_start: weight[q_units]
q_fixed: constant[q_units] = 0.5
q_state: state[q_units] = q_start
q_other: state[q_units]
q_left, q_right = split(q_input[t] @ q_kernel, 2)
q_sum = q_left + drop(q_state[t-1], q_rate) @ q_recurrent + q_bias * q_context
q_value = q_act(q_sum) if q_choice else q_sum
q_other[t] = q_fixed * q_other[t-1] + q_own(q_value) * q_other[t-2]
q_state[t] = sum(q_value) * q_act(q_right + q_other[t])
return q_state[t], q_value
"""
ROLES = tuple(dict.fromkeys(re.findall(r"q_\w+", CELL)))
# A function of the user's that is called like one that the cell calls, too, is called instead.
FUNCTIONS = ("q_act", "q_own")
CALLED = {*re.findall(r"\b(?!q_)(\w+)\(", CELL), "tanh"}
REFUSED = ("E203", "E205", "E218", "E117", "E116", "E314", "E312")  # of cells, layers, Python, time


def _words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", text))


@cache
def names() -> tuple[str, ...]:
    """All of them, without those a name can't look like."""
    found = {*dir(builtins), *keyword.kwlist, *keyword.softkwlist, *dir(math)}
    found |= {f"{k}_" for k in (*keyword.kwlist, *keyword.softkwlist)}
    found |= {*SIGNATURES, *INITIALIZERS, "self", "cls", "cell", "t", "np", "numpy"}
    for path in template_root().rglob("*.jinja"):
        found |= _words(path.read_text(encoding="utf-8"))
    for module in (
        *(
            "artifact.cell",
            "artifact.array_tables",
            "artifact.kernel_tables",
            "runtime.jit.kernel",
            "runtime.api.layer_base",
        ),
        "runtime.jit.helper",
        *(f"runtime.cpu.intrinsics.{m}" for m in ("kernel_namespace", "scalar_intrinsics", "simd")),
        *(f"runtime.cpu.kernels.{m}" for m in ("loop_helpers", "barrier", "executor")),
        *(f"runtime.cpu.planning.{m}" for m in ("kernel_arguments", "bound_program", "copies")),
        *("runtime.cpu.planning.executable", "runtime.cpu.execution.engine", "runtime.api.layer"),
        *(f"runtime.cuda.kernels.{m}" for m in ("kernel_namespace", "kernel")),
        *(f"runtime.cuda.planning.{m}" for m in ("kernel_arguments", "executable")),
        "runtime.cuda.execution.engine",
    ):
        found |= {*dir(importlib.import_module(f"rnncc.{module}"))}
    found |= {*dir(importlib.import_module("rnncc.runtime.api.layer").Layer)}
    for package in ("numba", "jinja2"):  # without what of it happens to be imported by now
        public = dir(importlib.import_module(package))
        found |= {n for n in public if f"{package}.{n}" not in sys.modules}
    found |= {*jinja2.defaults.DEFAULT_FILTERS}
    made = check_text(CELL)
    from tests.support.cases import render_module

    for target in ("cpu", "cuda"):
        text = render_module(made, variants=(), target=target)
        found |= {w.removeprefix("q_") for w in _words(text)} | _words(text)
    # What passes and layers call what they make of a name.
    for role in ("q_state", "q_input", "q_kernel", "q_value", "q_sum", "q_units"):
        found |= {f"final_{role}", f"d_{role}", f"d_d_{role}", f"d_final_{role}", f"{role}_1"}
        found |= {f"{role}_", f"{role}_ptr", f"{role}_size", f"{role}_ring", f"{role}_r"}
    return tuple(sorted(n for n in found - {*ROLES} if not n.startswith("_")))


def text_with(chosen: dict[str, str]) -> str:
    return re.sub(r"q_\w+", lambda m: chosen.get(m.group(), m.group()), CELL)


def _flat(value: Any) -> list[np.ndarray]:
    if isinstance(value, tuple | list):
        return [a for part in value for a in _flat(part)]
    return [np.asarray(value)]


def simulated(spec: CellSpec) -> type[Layer]:
    return simulated_class(spec, "float64")


def outcome(
    chosen: dict[str, str],
    mask: bool,
    again: bool,
    made: Callable[[CellSpec], type[Layer]] = simulated,
) -> list[np.ndarray]:
    """Results, every gradient and, if asked for, second derivatives, in the cell's order."""

    def name(role: str) -> str:
        return chosen.get(role, role)

    rng = np.random.default_rng(7)
    layer = made(check_text(text_with(chosen)))(
        **{name("q_units"): 3, name("q_choice"): True, name("q_act"): "tanh", name("q_rate"): 0.0},
        return_sequences=True,
        return_state=True,
        seed=1,
    )
    given = {name("q_input"): rng.standard_normal((2, 3, 2))}
    given[name("q_context")] = rng.standard_normal((2, 3))
    layer.build({n: a.shape for n, a in given.items()})
    weights = [name(r) for r in ("q_kernel", "q_recurrent", "q_bias", "q_start")]
    for weight in weights:
        layer.weights[weight] = rng.standard_normal(layer.weights[weight].shape)
    shown = np.array([[True, True, True], [True, False, True]]) if mask else None
    initial = {name("q_other"): rng.standard_normal((2, 3))}
    y, pullback = layer.vjp(given, mask=shown, initial_state=initial)
    d = _like(y, rng)
    gradients = pullback(d)
    found = [*_flat(y), *(gradients.weights[w] for w in weights)]
    found += [gradients.inputs[n] for n in given]
    found.append(gradients.initial_state[name("q_other")])
    if again:
        _, second = pullback.vjp(d)
        twice = second({"weights": {w: np.ones_like(layer.weights[w]) for w in weights}})
        found += [twice.weights[w] for w in weights]
    return found


def _like(value: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, tuple):
        return tuple(_like(part, rng) for part in value)
    return rng.standard_normal(value.shape)


@cache
def expected(mask: bool, again: bool) -> list[np.ndarray]:
    return outcome({}, mask, again)


def choice(index: int, seed: int) -> dict[str, str]:
    """Names for all roles; over as many attempts as there are names, each name in each role."""
    every = list(names())
    random.Random(seed).shuffle(every)
    step = len(every) // len(ROLES)
    chosen = {role: every[(index + i * step) % len(every)] for i, role in enumerate(ROLES)}
    return {r: n for r, n in chosen.items() if not (r in FUNCTIONS and n in CALLED)}


def attempt(index: int, seed: int) -> str | None:
    chosen = choice(index, seed)
    mask, again = index % 3 == 1, index % 5 == 2
    while True:
        try:
            check_text(text_with(chosen))
            break
        except SpecError as error:
            wrong = _refused(chosen, error)
            if isinstance(wrong, str):
                return wrong
            for role in wrong:
                del chosen[role]
    try:
        found = outcome(chosen, mask, again)
    except Exception as error:
        return f"{chosen}: {type(error).__name__}: {error}"
    pairs = zip(found, expected(mask, again), strict=True)
    wrong_ones = [i for i, (a, b) in enumerate(pairs) if not np.array_equal(a, b)]
    return f"{chosen}: results {wrong_ones} differ" if wrong_ones else None


def _refused(chosen: dict[str, str], error: SpecError) -> list[str] | str:
    """The roles whose names are refused, or what is wrong with the refusal."""
    roles = [r for r, n in chosen.items() if keyword.iskeyword(n)]
    if not roles:  # a word of Python's breaks every line it stands on
        for d in error.diagnostics:
            line = error.text.split("\n")[d.span.line - 1]
            named = _words(line[d.span.col - 1 : d.span.end - 1]) | _words(d.message)
            own = [r for r, n in chosen.items() if n in named]
            if d.code not in REFUSED or not own:
                return f"{chosen}: {error}"
            roles += own
    return list(dict.fromkeys(roles))


ATTACK = Attack(
    "names",
    "names of ours, of Python, Numba and jinja for every thing of a cell",
    count=2800,
    short=6,
    attempt=attempt,
)
