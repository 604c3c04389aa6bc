"""What readers call for every operation they meet: arrays with a batch in, arrays with a batch out.

    r = Recorder("LTCCell")
    x, h = r.input("x", (BATCH, 28)), r.state("h", (BATCH, 64))
    w = r.weight("kernel", (28, 64), key=parameter)
    with r.at(Origin("aten.tanh", "cell.py", 12, "h = torch.tanh(x @ w)")):
        after = r.pointwise("tanh", r.matmul(x, w))
    r.result([after], [after])                     r.graph: a StepGraph

Axes, shapes and subscripts are the framework's, the batch's axis among them; broadcasting is
NumPy's. Unreadable says why something can't be; who catches it names `origin`.

Non-Goals: what frameworks' operations are (their readers); text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from rnncc.reading.einsum import row_subscripts
from rnncc.reading.graph import Kind, Leaf, Node, Operand, Origin, RowArray, StepGraph, Unreadable
from rnncc.reading.traced import BEFORE, BEHIND, Length, Merged, Traced, lengths

_COMPARE = frozenset(("<", "<=", ">", ">=", "==", "!="))
_LOGIC = frozenset(("and", "or", "not"))
_WHOLE = frozenset(
    ("+", "-", "*", "maximum", "minimum", "abs", "sign", "neg", "mod", "clip", "square")
)


class Recorder:
    """Makes one StepGraph."""

    def __init__(self, name: str) -> None:
        self.graph = StepGraph(name)
        self.origin = Origin("")
        self._constants: dict[Any, Traced] = {}
        self._made: dict[Operand, Node] = {}  # by what nodes gave

    @contextmanager
    def at(self, origin: Origin) -> Iterator[None]:
        """Operations in here come from there."""
        before, self.origin = self.origin, origin
        yield
        self.origin = before  # an error keeps the origin it came from

    # ---- leaves ----

    def input(self, name: str, shape: Sequence[Length], kind: Kind = "float") -> Traced:
        """An array of each step."""
        traced = _whole(shape, kind, rows=True)
        self.graph.inputs.append(Leaf(_value(traced), name))
        return traced

    def context(self, name: str, shape: Sequence[Length], kind: Kind = "float") -> Traced:
        """An array that is the same at every step, each row of the batch its own."""
        traced = _whole(shape, kind, rows=True)
        self.graph.contexts.append(Leaf(_value(traced), name))
        return traced

    def state(self, name: str, shape: Sequence[Length], kind: Kind = "float") -> Traced:
        """What the step before left."""
        traced = _whole(shape, kind, rows=True)
        self.graph.states.append(Leaf(_value(traced), name))
        return traced

    def weight(
        self,
        name: str,
        shape: Sequence[int],
        key: Any,
        trained: bool = True,
        kind: Kind = "float",
    ) -> Traced:
        """A parameter, or with trained=False a buffer whose numbers are the reader's to give."""
        value = RowArray(tuple(shape), kind=kind)
        leaves = self.graph.weights if trained else self.graph.constants
        leaves.append(Leaf(value, name, key))
        return Traced(value)

    def constant(self, array: Any, name: str = "table") -> Traced:
        """Numbers known now: one number where they are all the same."""
        array = np.asarray(array)
        if array.dtype.kind not in "biuf":
            raise Unreadable(f"reads an array of {array.dtype}: equations count in floats")
        if array.ndim == 0:
            return Traced(array.item())
        key = array.shape, array.dtype.str, array.tobytes()
        if key not in self._constants:
            kind: Kind = {"b": "bool", "f": "float"}.get(array.dtype.kind, "int")  # type: ignore[assignment]
            one = array.flat[0].item() if array.size else 0.0
            if not array.size or (array == one).all():
                traced = self._node("broadcast", [Traced(one)], array.shape, kind)
            else:
                value = RowArray(array.shape, kind=kind)
                numbers = array.astype(np.float64)
                self.graph.constants.append(Leaf(value, name, array=numbers))
                traced = Traced(value)
            self._constants[key] = traced
        return self._constants[key]

    def result(self, outputs: Sequence[Traced], after: Sequence[Traced]) -> None:
        """What the step gives."""
        for traced in (*outputs, *after):
            traced.plain()
            if traced.at not in (0, None):
                raise Unreadable(f"gives the batch as axis {traced.at}, it was axis 0")
        self.graph.outputs = [t.value for t in outputs]
        self.graph.after = [t.value for t in after]

    # ---- element by element ----

    def pointwise(self, op: str, *operands: Traced, **attributes: Any) -> Traced:
        """A function or a sign of two, broadcast as NumPy does it."""
        kinds = [o.kind for o in operands]
        kind = _kind_of(op, kinds)
        wants_conditions = op in _LOGIC
        own = []
        for number, operand in enumerate(operands):
            if wants_conditions or (op == "where" and number == 0):
                operand = self.convert(operand, "bool")
            elif operand.kind == "bool" and (op != "where" or kind != "bool"):
                operand = self.convert(operand, "int")
            own.append(operand)
        if op == "where" and kind == "bool":  # conditions are chosen by conditions
            c, a, b = own
            chosen = self.pointwise("and", c, a), self.pointwise("not", c)
            return self.pointwise("or", chosen[0], self.pointwise("and", chosen[1], b))
        own, at, merged = self._aligned(own)
        shape = np.broadcast_shapes(*(o.row for o in own))
        return self._node(op, own, shape, kind, at, merged, **attributes)

    def _aligned(self, operands: list[Traced]) -> tuple[list[Traced], int | None, int]:
        """Operands whose rows broadcast as the arrays do, and where the batch of the result is."""
        rank = max(o.rank for o in operands)
        places = {(o.at + rank - o.rank, o.merged) for o in operands if o.at is not None}
        if not places:
            return operands, None, 0
        if len(places) > 1:
            raise Unreadable("puts the axis of the batch beside another axis")
        ((at, merged),) = places
        counts = {o.row[o.at] for o in operands if o.at is not None and o.merged}
        if len(counts) > 1:
            raise Unreadable("puts rows of a batch beside others of other lengths")
        aligned = []
        for operand in operands:
            place = at - (rank - operand.rank)  # of the batch's axis, in this operand
            if operand.at is None and place >= 0:
                if operand.row[place] != 1:
                    raise Unreadable("puts the axis of the batch beside another axis")
                without = (*operand.row[:place], *[1] * abs(merged), *operand.row[place + 1 :])
                operand = self._reshaped(operand, without, None)
            aligned.append(operand)
        return aligned, at, merged

    def convert(self, x: Traced, kind: Kind) -> Traced:
        """As a cast does: conditions are 0 and 1, floats made whole lose what is behind the point,
        numbers are a condition where they aren't 0."""
        if x.kind == kind or (x.kind == "int" and kind == "float"):
            return x if x.kind == kind else _as_kind(x, kind)
        if not isinstance(x.value, RowArray):
            number = {"bool": bool, "int": int, "float": float}[kind](x.value)
            return Traced(number, x.at, x.merged)
        return self._node("convert", [x], x.row, kind, x.at, x.merged)

    def stop_gradient(self, x: Traced) -> Traced:
        """The same numbers, which no gradient goes through."""
        return self._like("stop_gradient", x)

    def drop(self, x: Traced, rate: str, value: float) -> Traced:
        """Dropout of its own draws each step. rate: its name."""
        self.graph.rates[rate] = value
        return self._like("drop", x, rate=rate)

    def surrogate(self, x: Traced, value: Traced, derivative: Traced) -> Traced:
        """`value`, whose derivative by x, element by element, is said to be `derivative`."""
        own, at, merged = self._aligned([x, value, derivative])
        if len({o.row for o in own}) > 1:
            raise Unreadable("has a gradient that isn't of its argument's shape")
        return self._node("surrogate", own, x.row, "float", at, merged)

    def _like(self, op: str, x: Traced, **attributes: Any) -> Traced:
        return self._node(op, [x], x.row, x.kind, x.at, x.merged, **attributes)

    # ---- along axes ----

    def reduce(
        self, op: str, x: Traced, axes: Sequence[int] | None = None, keepdims: bool = False
    ) -> Traced:
        """sum, mean, max, min, prod, any, all; over all axes without `axes`."""
        x = self.convert(x, "bool" if op in ("any", "all") else x.kind)
        if x.kind == "bool" and op not in ("any", "all"):
            x = self.convert(x, "int")
        axes = [x.positive(a) for a in (range(x.rank) if axes is None else axes)]
        kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
        own = sorted((x.own_axis(a) for a in axes), reverse=True)
        kind: Kind = "float" if op == "mean" else x.kind
        gone = 0 if x.at is None else sum(a < x.at for a in axes)
        at = None if x.at is None else x.at - gone
        for axis in own:
            shape = (*x.row[:axis], *x.row[axis + 1 :])
            x = self._node(op, [x], shape, kind, at, x.merged, axis=axis)
        return self.reshape(x, kept) if keepdims else x

    def along(self, op: str, x: Traced, axis: int, **attributes: Any) -> Traced:
        """softmax, log_softmax, cumsum, cumax, layer_norm, rms_norm, flip, roll: shapes stay."""
        return self._like(op, x, axis=x.own_axis(axis), **attributes)

    # ---- products ----

    def matmul(self, a: Traced, b: Traced) -> Traced:
        """As NumPy's matmul, stacks of matrices broadcast."""
        if not (a.rank and b.rank):
            raise Unreadable("multiplies a number as a matrix")
        stack = max(a.rank, b.rank) - 2
        letters = [chr(ord("c") + i) for i in range(max(stack, 0))]
        left = [*letters[len(letters) - max(a.rank - 2, 0) :], *("i" * (a.rank > 1)), "k"]
        right = [*letters[len(letters) - max(b.rank - 2, 0) :], "k", *("j" * (b.rank > 1))]
        out = [*letters, *("i" * (a.rank > 1)), *("j" * (b.rank > 1))]
        text = f"{''.join(_capped(left))},{''.join(_capped(right))}->{''.join(_capped(out))}"
        return self.einsum(text, a, b)

    def einsum(self, subscripts: str, *operands: Traced) -> Traced:
        """With `->` and a letter an axis; axes of one number broadcast."""
        plan = row_subscripts(subscripts, operands)
        own = [self._reshaped(o, shape, None) for o, shape in zip(operands, plan.rows, strict=True)]
        kind: Kind = "float" if any(o.kind == "float" for o in own) else "int"
        own = [self.convert(o, "int") if o.kind == "bool" else o for o in own]
        return self._node(
            "einsum", own, plan.shape, kind, plan.at, plan.merged, subscripts=plan.text
        )

    # ---- shapes ----

    def reshape(self, x: Traced, shape: Sequence[Length]) -> Traced:
        """BATCH or Merged stand for the batch's axis; rows keep their order."""
        before, batch, after = lengths(shape)
        if (batch is None) != (x.at is None):
            raise Unreadable("gives the axis of the batch away, or makes one")
        if batch is None:
            return self._reshaped(x, tuple(before), None)
        assert x.at is not None
        count = batch.count if isinstance(batch, Merged) else 1
        ahead = math.prod(x.row[: x.at + (x.merged == BEFORE)])  # numbers of a row before the batch
        own = math.prod(before)
        if ahead not in (own, own * count):
            raise Unreadable("puts the axis of the batch together with some of those beside it")
        merged = 0 if count == 1 else BEHIND if ahead == own else BEFORE
        row = (*before, *([count] if merged else []), *after)
        return self._reshaped(x, row, len(before), merged)

    def _reshaped(self, x: Traced, row: tuple[int, ...], at: int | None, merged: int = 0) -> Traced:
        if math.prod(row) != math.prod(x.row):
            raise Unreadable(f"gives {list(x.row)} the shape {list(row)}")
        made = self._made.get(x.value)
        if made is not None and made.op == "reshape":  # of a reshape: one, or none
            x = Traced(made.operands[0])
        if row == x.row:
            return Traced(x.value, at, merged)
        return self._node("reshape", [x], row, x.kind, at, merged)

    def transpose(self, x: Traced, order: Sequence[int]) -> Traced:
        """Axis i of the result is axis order[i] of x."""
        order = [x.positive(a) for a in order]
        if sorted(order) != [*range(x.rank)]:
            raise Unreadable(f"orders the axes of an array of rank {x.rank} as {order}")
        own = [a if a == x.at else x.own_axis(a) for a in order if a != x.at or x.merged]
        at, merged = None if x.at is None else order.index(x.at), x.merged
        made = self._made.get(x.value)
        if made is not None and made.op == "transpose":  # of a transpose: one, or none
            x, own = Traced(made.operands[0]), [made.attributes["order"][a] for a in own]
        row, wide = tuple(x.row[a] for a in own), [a for a in own if x.row[a] != 1]
        if wide == sorted(wide):  # axes of one number alone move
            return self._reshaped(x, row, at, merged)
        return self._node("transpose", [x], row, x.kind, at, merged, order=tuple(own))

    def broadcast(self, x: Traced, shape: Sequence[Length]) -> Traced:
        """To a shape, which may have a batch that x has not: then all rows are the same."""
        before, batch, after = lengths(shape)
        at = None if batch is None else len(before)
        if isinstance(batch, Merged):
            raise Unreadable("makes an array whose axis of the batch holds others, too")
        like = Traced(RowArray((*before, *after)), at)
        (x, _), at, merged = self._aligned([x, like])
        if x.rank > len(shape) or merged:
            raise Unreadable(f"gives an array of rank {x.rank} the shape {list(shape)}")
        if np.broadcast_shapes(x.row, like.row) != like.row:
            raise Unreadable(f"gives {list(x.row)} the shape {list(like.row)}")
        if x.row == like.row:
            return Traced(x.value, at)
        return self._node("broadcast", [x], like.row, x.kind, at)

    def slice(self, x: Traced, axis: int, key: slice) -> Traced:
        """x[..., key, ...]; steps may go backwards."""
        axis = x.positive(axis)
        if key == slice(None):
            return x
        own = x.own_axis(axis)
        start, stop, step = key.indices(x.row[own])
        count = len(range(start, stop, step))
        if (start, step, count) == (0, 1, x.row[own]):
            return x
        shape = (*x.row[:own], count, *x.row[own + 1 :])
        return self._node(
            "slice",
            [x],
            shape,
            x.kind,
            x.at,
            x.merged,
            axis=own,
            start=start,
            step=step,
            count=count,
        )

    def take(self, x: Traced, axis: int, index: int) -> Traced:
        """x[..., index, ...]: without the axis."""
        axis = x.positive(axis)
        n = x.row[x.own_axis(axis)]
        if not -n <= index < n:
            raise Unreadable(f"takes number {index} of {n}")
        part = self.slice(x, axis, slice(index % n, index % n + 1))
        return self.reshape(part, (*part.shape[:axis], *part.shape[axis + 1 :]))

    def concat(self, parts: Sequence[Traced], axis: int) -> Traced:
        """One behind the other."""
        axis = parts[0].positive(axis)
        if len({(p.at, p.rank, p.merged) for p in parts}) > 1:
            raise Unreadable("puts arrays with a batch behind others without")
        first = parts[0]
        own = first.own_axis(axis)
        kind = _promoted([p.kind for p in parts])
        parts = [self.convert(p, kind) for p in parts]
        total = sum(p.row[own] for p in parts)
        shape = (*first.row[:own], total, *first.row[own + 1 :])
        return self._node("concat", parts, shape, kind, first.at, first.merged, axis=own)

    def stack(self, parts: Sequence[Traced], axis: int) -> Traced:
        """Beside one another, along a new axis."""
        axis = axis % (parts[0].rank + 1)
        return self.concat([self.expand(p, axis) for p in parts], axis)

    def expand(self, x: Traced, axis: int) -> Traced:
        """With an axis of one number there."""
        axis = axis % (x.rank + 1)
        return self.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))

    # ---- nodes ----

    def _node(
        self,
        op: str,
        operands: Sequence[Traced],
        shape: Sequence[int],
        kind: Kind,
        at: int | None = None,
        merged: int = 0,
        **attributes: Any,
    ) -> Traced:
        rows = any(o.rows for o in operands)
        value = RowArray(tuple(int(n) for n in shape), rows, kind)
        own: tuple[Operand, ...] = tuple(o.value for o in operands)
        node = Node(op, own, value, MappingProxyType(attributes), self.origin)
        self.graph.nodes.append(node)
        self._made[value] = node
        return Traced(value, at, merged)


def _whole(shape: Sequence[Length], kind: Kind, rows: bool) -> Traced:
    before, batch, after = lengths(shape)
    if isinstance(batch, Merged):
        raise Unreadable("reads an array whose axis of the batch holds others, too")
    at = None if batch is None else len(before)
    return Traced(RowArray((*before, *after), rows, kind), at)


def _value(traced: Traced) -> RowArray:
    assert isinstance(traced.value, RowArray)
    return traced.value


def _as_kind(x: Traced, kind: Kind) -> Traced:
    """Numbers that are the same in that kind."""
    return x if isinstance(x.value, RowArray) else Traced(float(x.value), x.at, x.merged)


def _promoted(kinds: Sequence[Kind]) -> Kind:
    order: tuple[Kind, ...] = ("bool", "int", "float")
    return max(kinds, key=order.index)


def _kind_of(op: str, kinds: Sequence[Kind]) -> Kind:
    """What kind of numbers it gives."""
    if op in _COMPARE or op in _LOGIC:
        return "bool"
    if op == "where":
        return _promoted(kinds[1:])
    kind = _promoted(kinds)
    if kind == "float":
        return kind
    if op == "**":
        raise Unreadable("takes whole numbers to a power: make one of them a float")
    return "int" if op in _WHOLE else "float"


def _capped(letters: Sequence[str]) -> list[str]:
    if any(not "a" <= x <= "z" for x in letters):
        raise Unreadable("has too many axes")
    return [*letters]
