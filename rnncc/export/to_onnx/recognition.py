"""Cells that ONNX has a node for: LSTM, GRU, RNN.

The cells that read those nodes (`models/onnx/*.rnn`) say what they compute. Each is lowered with
weights that are codes and functions that stand for others, and its sums are held against the
sums of the cell that is exported: what stands where a code is, is that weight.

    gate(x @ 1003 + h @ 1103 + 1203)   against   sigmoid(x @ W_f + h @ U_f + b_f)

Non-Goals: names of cells, which say nothing; the node itself (`standard_node`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import rnncc.models.onnx.activations as reader
from rnncc.driver import Derivation
from rnncc.export.to_onnx.linear import LinearForms, LinearSum, Unlike
from rnncc.export.to_onnx.matching import (
    ALPHA,
    BETA,
    BOUND,
    FIRST_CODE,
    Bindings,
    Function,
    Matcher,
)
from rnncc.frontend.parse import parse, parse_file
from rnncc.ir.program import Program, Value
from rnncc.models.onnx.settings import OPERATORS
from rnncc.passes.settle import settle
from rnncc.passes.simplify import simplify

SPECS = Path(reader.__file__).parent
# Functions of the patterns' cells that stand for any: by the roles of a node, and for its bound.
STAND_FOR = {"gate": "sin", "candidate": "cos", "output": "tan", "bounded": "arcsin"}
MOST_OPS = 150  # of a cell that is looked at; a node's own have 40
SIZES = {"features": 2, "units": 3}  # of patterns: unlike each other, and no 1
FLAGS = {
    "RNN": ((),),
    "GRU": (("linear_before_reset",), ()),
    "LSTM": ((), ("input_forget",)),
}
SPLIT = {"W": -1, "R": -1, "B": -1, "P": 0, "B_reset": -1}  # along which axis gates lie
# Ways of writing functions beside those of `models.onnx.activations`; with its numbers, if said.
ALSO: tuple[tuple[str, str, float | None, float | None], ...] = (
    ("HardSigmoid", "hard_sigmoid", 1 / 6, 0.5),
    ("Relu", "lambda v: maximum(v, 0.0)", None, None),
    ("LeakyRelu", "lambda v: where(v <= 0.0, {a} * v, v)", None, None),
    ("LeakyRelu", "lambda v: where(v > 0.0, v, {a} * v)", None, None),
    ("Elu", "elu", 1.0, None),
)


@dataclass(frozen=True)
class NodeFunction:
    """As a node says it. alpha, beta: None where its function takes none."""

    name: str
    alpha: float | None = None
    beta: float | None = None


@dataclass(frozen=True)
class Recognised:
    """A cell as a node. arrays: of its direction, as the node has them (`models.onnx.node_weights`
    without the axis of directions), float64. states: the cell's names of h, and of c."""

    operator: str
    flags: tuple[str, ...]
    activations: tuple[NodeFunction, ...]
    clip: float | None
    arrays: Mapping[str, np.ndarray]
    states: tuple[str, ...]


def recognised(
    program: Program, sizes: Mapping[str, int], arrays: Mapping[str, np.ndarray]
) -> Recognised | None:
    """program: as it was lowered, for inference. None: ONNX has no node that computes this."""
    program = simplify(settle(program))
    if program.scan is None or len(program.scan.body) > MOST_OPS or not _has_ends(program):
        return None
    sums = LinearForms(program, sizes, arrays)
    x, carries = program.scan.xs[0].value, program.scan.carries
    if len(sums.shape(x)) != 1:
        return None
    try:
        following = {c.value: sums.of(c.next) for c in carries}
        shown = sums.of(program.scan.ys[0].value)
    except Unlike:
        return None
    for operator, flags in ((o, f) for o in FLAGS for f in FLAGS[o]):
        pattern = _pattern(operator, flags)
        if len(pattern.states) != len(carries):
            continue
        for chosen in itertools.permutations(carries):
            if shown is not following[chosen[0].value]:
                continue
            entering = zip(pattern.states, (c.value for c in chosen), strict=True)
            values = {pattern.x: x, **dict(entering)}
            behind = (following[c.value] for c in chosen)
            pairs = [*zip(pattern.following, behind, strict=True)]
            bound = next(_all(pairs, Bindings(values)), None)
            if bound is not None:
                names = tuple(c.name for c in chosen)
                return _node(operator, flags, bound, names, sums, x)
    return None


def _has_ends(program: Program) -> bool:
    """One input that is a vector's sequence, one output, and states of one width."""
    scan = program.scan
    assert scan is not None
    shapes = {c.value.type.shape for c in scan.carries}
    return (
        len(scan.xs) == len(scan.ys) == 1
        and len([p for p in program.params if p.role in ("input", "context")]) == 1
        and len(shapes) == 1
        and all(len(s) == 1 for s in shapes)
    )


def _all(pairs: list[tuple[LinearSum, LinearSum]], bound: Bindings) -> Iterator[Bindings]:
    if not pairs:
        yield bound
        return
    (pattern, found), *rest = pairs
    for known in Matcher(_functions()).sums(pattern, found, bound):
        yield from _all(rest, known)


# ---- what stands for what ------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern:
    x: Value
    states: tuple[Value, ...]
    following: tuple[LinearSum, ...]


@cache
def _pattern(operator: str, flags: tuple[str, ...]) -> Pattern:
    """Of the cell that reads such a node, with every weight that it may have."""
    kind = OPERATORS[operator]
    spec = parse_file(SPECS / f"{operator.lower()}.rnn")
    options: dict[str, object] = {name: name in flags for name in kind.attributes}
    if operator == "LSTM":
        options["peepholes"] = True
    functions = {role: STAND_FOR[role] for role in (*kind.roles, "bounded")}
    program = simplify(Derivation(spec, options, functions).plain.lowered)
    scan = program.scan
    assert scan is not None
    arrays = {}
    for i, (name, axis) in enumerate(SPLIT.items()):
        param = next((p for p in program.params if p.value.name == name), None)
        if param is not None:
            shape = [s.evaluate(SIZES) for s in param.value.type.shape]
            parts = 3 if name == "P" else 1 if name == "B_reset" else kind.gates
            codes = np.repeat(np.arange(parts), shape[axis] // parts) + FIRST_CODE + 100 * i
            codes = codes[:, None] if axis == 0 else codes
            arrays[name] = np.broadcast_to(codes, shape)
    sums = LinearForms(program, SIZES, arrays)
    states = {c.name: c for c in scan.carries}
    ordered = [states[n] for n in kind.states]
    following = tuple(sums.of(c.next) for c in ordered)
    return Pattern(scan.xs[0].value, tuple(c.value for c in ordered), following)


@cache
def _functions() -> Mapping[str, Function]:
    return {
        opcode: _bounded if role == "bounded" else _activated for role, opcode in STAND_FOR.items()
    }


@dataclass(frozen=True)
class WayOfWriting:
    """A way of writing a function. pattern: its sum; hole: what stands for its argument there."""

    function: NodeFunction
    pattern: LinearSum
    hole: Value


@cache
def _written() -> tuple[WayOfWriting, ...]:
    ways = [(n, f.text, None, None) for n, f in reader.ACTIVATIONS.items()]
    ways.sort(key=lambda way: way[0] == "Affine")  # which anything is: the last to be tried
    made = []
    for name, text, alpha, beta in (*ALSO, *ways):
        pattern, hole = _of_text(text.format(a=f"({ALPHA!r})", b=f"({BETA!r})"))
        made.append(WayOfWriting(NodeFunction(name, alpha, beta), pattern, hole))
    return tuple(made)


@cache
def _of_text(text: str) -> tuple[LinearSum, Value]:
    spec = parse("cell: Any\nunits: size\nx: input[units]\nf: function = linear\nreturn f(x[t])\n")
    program = simplify(Derivation(spec, {}, {"f": text}).plain.lowered)
    assert program.scan is not None
    sums = LinearForms(program, SIZES, {})
    return sums.of(program.scan.ys[0].value), program.scan.xs[0].value


def _activated(
    marker: str, argument: LinearSum, found: LinearSum, bound: Bindings
) -> Iterator[Bindings]:
    """Of a gate: any function that nodes have, of what may be bounded."""
    outer = Matcher(_functions())
    for way in _written():
        # Numbers and arguments of this function are its own.
        apart = Bindings({}, {}, {}, {}, None)
        for inside in Matcher({}, way.hole).sums(way.pattern, found, apart):
            assert inside.hole is not None
            function = _with_numbers(way.function, inside)
            if bound.functions.get(marker, function) == function:
                yield from outer.sums(argument, inside.hole, bound.with_function(marker, function))


def _with_numbers(function: NodeFunction, bound: Bindings) -> NodeFunction:
    kind = reader.ACTIVATIONS[function.name]
    alpha = function.alpha if function.alpha is not None else bound.numbers.get(ALPHA)
    beta = function.beta if function.beta is not None else bound.numbers.get(BETA)
    return NodeFunction(
        function.name, alpha if kind.takes_alpha else None, beta if kind.takes_beta else None
    )


def _bounded(
    marker: str, argument: LinearSum, found: LinearSum, bound: Bindings
) -> Iterator[Bindings]:
    """All of a node's functions are given what is between -clip and clip, or nothing is."""
    outer = Matcher(_functions())
    pattern, hole = _of_text(f"lambda v: clip(v, -({BOUND!r}), {BOUND!r})")
    for inside in Matcher({}, hole).sums(pattern, found, Bindings({})):
        assert inside.hole is not None
        clip = inside.numbers[BOUND]
        if clip >= 0 and bound.functions.get(marker, clip) == clip:
            yield from outer.sums(argument, inside.hole, bound.with_function(marker, clip))
    if bound.functions.get(marker) is None:
        yield from outer.sums(argument, found, bound.with_function(marker, None))


# ---- the node ------------------------------------------------------------------------------------


def _node(
    operator: str,
    flags: tuple[str, ...],
    bound: Bindings,
    states: tuple[str, ...],
    sums: LinearForms,
    x: Value,
) -> Recognised:
    kind = OPERATORS[operator]
    features, units = sums.count(x), sums.count(sums.scan.carries[0].value)
    codes = {name: FIRST_CODE + 100 * i for i, name in enumerate(SPLIT)}

    def gates(name: str, parts: int, nothing: np.ndarray) -> list[np.ndarray]:
        found = [bound.arrays.get(codes[name] + k, nothing) for k in range(parts)]
        return [f if f.size else nothing for f in found]

    zeros = np.zeros(units)
    w = gates("W", kind.gates, np.zeros((features, units)))
    r = gates("R", kind.gates, np.zeros((units, units)))
    b = gates("B", kind.gates, zeros)
    arrays = {"W": np.concatenate(w, 1).T, "R": np.concatenate(r, 1).T}
    behind = [zeros] * (kind.gates - 1) + gates("B_reset", 1, zeros)
    bias = np.concatenate([*b, *behind])
    if bias.any():
        arrays["B"] = bias
    peepholes = np.concatenate(gates("P", 3, zeros))
    if peepholes.any():
        arrays["P"] = peepholes
    activations = []
    for role in kind.roles:
        chosen = bound.functions[STAND_FOR[role]]
        assert isinstance(chosen, NodeFunction)
        activations.append(chosen)
    clip = bound.functions.get(STAND_FOR["bounded"])
    assert clip is None or isinstance(clip, float)
    return Recognised(operator, flags, tuple(activations), clip, arrays, states)
