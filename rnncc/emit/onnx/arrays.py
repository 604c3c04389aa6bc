"""Ops that move or add elements -> operators of ONNX.

An array has its axes of steps and rows first, [T, B, ...]: those that its type varies over. What
has steps but no rows has one row, [T, 1, ...], so that it lines up with what has both.

Non-Goals: pointwise ops (`pointwise`); ops that only gradients have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rnncc.emit.onnx.graph import GraphWriter
from rnncc.ir.opdef import union
from rnncc.ir.program import Op, Type, Value
from rnncc.ir.sizes import Size


class GraphAround(Protocol):
    """What the emission of an op asks of the program around it."""

    writer: GraphWriter
    sizes: Mapping[str, int]

    def read(self, value: Value) -> str: ...

    def rows(self) -> str: ...

    def steps(self) -> str: ...


def lead(axes: str) -> int:
    """How many axes stand before the features."""
    return {"": 0, "B": 1, "T": 2, "BT": 2}[axes]


@dataclass(frozen=True)
class Emission:
    """One op on its way."""

    op: Op
    program: GraphAround

    @property
    def w(self) -> GraphWriter:
        return self.program.writer

    @property
    def axes(self) -> str:
        return self.op.result.type.axes

    @property
    def like(self) -> str:
        return self.op.result.name

    def x(self, i: int = 0) -> str:
        return self.program.read(self.op.operands[i])

    def numbers(self, shape: Sequence[Size]) -> list[int]:
        return [s.evaluate(self.program.sizes) for s in shape]

    def number(self, attribute: str) -> int:
        return int(self.op.attrs[attribute].evaluate(self.program.sizes))

    def along(self, i: int = 0) -> int:
        """The op's feature axis as an axis of the operand."""
        return int(self.op.attrs["axis"]) + lead(self.op.operands[i].type.axes)

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        return self.w.node(op, *inputs, like=self.like, **attributes)


# ---- the same for more rows and steps ------------------------------------------------------------


def spread(program: GraphAround, name: str, type_: Type, axes: str) -> str:
    """The value for every row and step of `axes`, which has its own among them."""
    w, shape = program.writer, [s.evaluate(program.sizes) for s in type_.shape]
    if union(type_.axes) == union(axes):
        return name
    if lead(axes) > lead(type_.axes) and type_.axes:  # [B, ...] -> [1, B, ...]
        name = w.node("Unsqueeze", name, w.whole(0))
    parts = [program.steps() if "T" in axes else w.whole(1)] if lead(axes) == 2 else []
    parts.append(program.rows() if "B" in axes else w.whole(1))
    return w.node("Expand", name, w.shaped(*parts, *([w.whole(*shape)] if shape else [])))


def _spread(e: Emission) -> str:
    return spread(e.program, e.x(), e.op.operands[0].type, e.axes)


# ---- layout --------------------------------------------------------------------------------------


def _reshape(e: Emission) -> str:
    # 0: as it is.
    sizes = [0] * lead(e.axes) + e.numbers(e.op.attrs["shape"])
    return e.node("Reshape", e.x(), e.w.whole(*sizes))


def _transpose(e: Emission) -> str:
    first = lead(e.axes)
    perm = [*range(first), *(first + p for p in e.op.attrs["perm"])]
    return e.node("Transpose", e.x(), perm=perm)


def _slice(e: Emission) -> str:
    start, size = e.number("start"), e.number("size")
    axes = e.w.whole(e.along())
    return e.node("Slice", e.x(), e.w.whole(start), e.w.whole(start + size), axes)


def _strided_slice(e: Emission) -> str:
    places = e.number("start") + e.op.attrs["step"] * np.arange(e.number("size"))
    chosen = e.w.constant(places.astype(np.int64), "places")
    return e.node("Gather", e.x(), chosen, axis=e.along())


def _pad(e: Emission) -> str:
    (x,) = e.op.operands
    axis, start = e.along(), e.number("start")
    behind = e.number("size") - start - e.numbers(x.type.shape)[e.op.attrs["axis"]]
    rank = lead(x.type.axes) + len(x.type.shape)
    widths = [0] * (2 * rank)
    widths[axis], widths[rank + axis] = start, behind
    return e.node("Pad", e.x(), e.w.whole(*widths))


def _concat(e: Emission) -> str:
    parts = [spread(e.program, e.program.read(v), v.type, e.axes) for v in e.op.operands]
    return e.node("Concat", *parts, axis=e.op.attrs["axis"] + lead(e.axes))


def _broadcast(e: Emission) -> str:
    shape, dims = e.numbers(e.op.attrs["shape"]), e.op.attrs["dims"]
    first = lead(e.axes)
    new = [first + i for i in range(len(shape)) if i not in dims]
    x = e.node("Unsqueeze", e.x(), e.w.whole(*new)) if new else e.x()
    return e.node("Expand", x, e.w.whole(*[1] * first, *shape)) if shape else x


# ---- sums ----------------------------------------------------------------------------------------


def _reduced(op: str) -> Callable[[Emission], str]:
    def emit(e: Emission) -> str:
        return e.node(op, e.x(), e.w.whole(e.along()), keepdims=0)

    return emit


def _cumsum(e: Emission) -> str:
    axis = e.w.constant(np.array(e.along(), np.int64), "axis")
    return e.node("CumSum", e.x(), axis, reverse=int(e.op.attrs["reverse"]))


def _contract(e: Emission) -> str:
    (a, b), (la, lb, out) = e.op.operands, e.op.attrs["labels"]
    if b.type.axes and not a.type.axes:
        a, b, la, lb = b, a, lb, la
    kept = [label for label in out if label not in la]
    product = (
        not b.type.axes
        and la[-1:] == next((x for x in lb if x not in out), "")
        and set(lb) == {la[-1:], *kept}
        and [*out] == [*la[:-1], *kept]
        and len(lb) <= 2
    )
    if not product:
        return _einsum(e, a, b, la, lb, out)
    w = e.program.read(b)
    if len(lb) == 2 and lb[0] != la[-1]:
        w = e.w.node("Transpose", w, like=b.name, perm=[1, 0])
    return e.node("MatMul", e.program.read(a), w)


def _einsum(e: Emission, a: Value, b: Value, la: str, lb: str, out: str) -> str:
    letters = dict(zip(dict.fromkeys([*la, *lb]), "cdefghijklmnopqrsuvwxyz", strict=False))

    def term(axes: str, labels: str) -> str:
        return _lead_letters(axes) + "".join(letters[x] for x in labels)

    read = [_without_one_row(e, v) for v in (a, b)]
    equation = f"{term(a.type.axes, la)},{term(b.type.axes, lb)}->{term(e.axes, out)}"
    y = e.node("Einsum", *read, equation=equation)
    return e.w.node("Unsqueeze", y, e.w.whole(1)) if e.axes == "T" else y


def _lead_letters(axes: str) -> str:
    return {"": "", "B": "b", "T": "t", "BT": "tb"}[axes]


def _without_one_row(e: Emission, value: Value) -> str:
    name = e.program.read(value)
    return e.w.node("Squeeze", name, e.w.whole(1)) if value.type.axes == "T" else name


# `sum_over` and `strided_pad` are of gradients alone, `uniform` draws.
ARRAYS: dict[str, Callable[[Emission], str]] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "strided_slice": _strided_slice,
    "pad": _pad,
    "concat": _concat,
    "broadcast": _broadcast,
    "spread": _spread,
    "copy": lambda e: e.x(),
    "sum": _reduced("ReduceSum"),
    "max": _reduced("ReduceMax"),
    "min": _reduced("ReduceMin"),
    "prod": _reduced("ReduceProd"),
    "cumsum": _cumsum,
    "contract": _contract,
}
