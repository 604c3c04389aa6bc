"""value[indices] -> slices: places along an axis, and parts of one (`v[2:5]`, `m[:, ::-1]`).

A part lies within its axis and isn't empty. What only sizes can tell becomes a constraint, so that
an end beyond the axis is refused and not cut off, as NumPy does.

Non-Goals: times (`x[t]`), which the reader tells apart.
"""

from __future__ import annotations

from rnncc.frontend.spec import Cut, Expr, Item
from rnncc.ir.program import Span, Value
from rnncc.ir.sizes import Size, at_least
from rnncc.lowering.expressions import Evaluator
from rnncc.lowering.operands import POISON, Operand, Refusal, Shape, SizeEquality, show

_Bounds = tuple[Operand, Operand, Operand]


def item(ev: Evaluator, node: Item) -> Operand:
    value = ev.evaluate(node.value)
    indices = [_index(ev, i) for i in node.indices]
    if value is POISON or any(i is POISON for i in indices):
        return POISON
    for index, expr in zip(indices, node.indices, strict=True):
        whole = type(index) is int or isinstance(index, Size)
        if not whole and (not isinstance(expr, Cut) or isinstance(value, tuple)):
            raise Refusal("E409", expr.span)
    if isinstance(value, tuple):
        return _of_several(value, indices)
    value = ev.value(value)
    shape = value.type.shape
    if len(indices) > len(shape):
        text = ", ".join(":" if isinstance(i, tuple) else str(i) for i in indices)
        raise Refusal("E408", shape=show(shape), index=text)
    axis = 0
    for index, expr in zip(indices, node.indices, strict=True):
        if isinstance(expr, Cut):
            value = _part(ev, value, axis, index, expr)
            axis += 1
        else:
            value = take(ev, value, axis, index, expr.span)
    return value


def _index(ev: Evaluator, node: Expr) -> Operand:
    """A place, or the three bounds of a part; None where one isn't given."""
    if not isinstance(node, Cut):
        return ev.evaluate(node)
    bounds = []
    for bound in (node.begin, node.end, node.step):
        operand = None if bound is None else ev.evaluate(bound)
        if operand is POISON:
            return POISON
        if bound is not None and type(operand) is not int and not isinstance(operand, Size):
            raise Refusal("E409", bound.span)
        bounds.append(operand)
    return tuple(bounds)


def _of_several(value: tuple[Operand, ...], indices: list[Operand]) -> Operand:
    (index, *rest) = indices
    if rest or not isinstance(index, int) or not -len(value) <= index < len(value):
        raise Refusal("E408", shape=f"{len(value)} values", index=index)
    return value[index]


def take(ev: Evaluator, value: Value, axis: int, index: int | Size, span: Span) -> Value:
    """The place `index` along an axis, which is gone then."""
    shape = value.type.shape
    size, at = shape[axis], Size.of(index)
    if isinstance(index, int):
        if size.is_constant and not -size.constant <= index < size.constant:
            raise Refusal("E408", span, shape=show(shape), index=index)
        at = size + index if index < 0 else at
    _within(ev, at, shape, axis, index, span)
    part = ev.b.slice(value, axis, at, Size.of(1))
    return ev.b.reshape(part, (*shape[:axis], *shape[axis + 1 :]))


def _within(
    ev: Evaluator, at: Size, shape: Shape, axis: int, index: int | Size, span: Span
) -> None:
    """An index that only sizes can tell to be one of its axis becomes a constraint."""
    over = at // shape[axis]  # 0 where it is
    if over.is_constant and over.constant:
        raise Refusal("E408", span, shape=show(shape), index=index)
    if not over.is_constant and index != -1:
        message = f"{show(shape)} has no element {index}"
        ev.constraints.append(SizeEquality(over, Size.of(0), span, message))


def _part(ev: Evaluator, value: Value, axis: int, bounds: _Bounds, node: Cut) -> Value:
    """value[begin:end:step] along an axis."""
    size = value.type.shape[axis]
    begin, end, step = bounds
    step = 1 if step is None else step
    if type(step) is not int or step == 0:
        assert node.step is not None
        raise Refusal("E426", node.step.span)
    first = _counted(begin, size) if begin is not None else (size - 1 if step < 0 else Size.of(0))
    behind = _counted(end, size) if end is not None else (Size.of(-1) if step < 0 else size)
    length = behind - first if step > 0 else first - behind
    text = f"{_written(begin)}:{_written(end)}" + ("" if step == 1 else f":{step}")
    for room in (first, size - 1 - first, length - 1, size - behind if step > 0 else behind + 1):
        _not_negative(ev, room, value.type.shape, text, node.span)
    count = _steps(length, abs(step))
    if count == size and step == 1:
        return value
    return ev.b.strided_slice(value, axis, first, step, count)


def _steps(length: Size, step: int) -> Size:
    """How many steps a length has, the last one perhaps not whole."""
    whole = Size(tuple((m, c // step) for m, c in length.terms if c % step == 0))
    rest = length - whole * step
    if rest.is_constant:
        return whole + -(-rest.constant // step)
    return (length + (step - 1)) // step


def _counted(bound: int | Size, size: Size) -> Size:
    """Counted from the axis's beginning: what is less than 0 whatever the sizes, from its end."""
    place = Size.of(bound)
    return size + place if (most := at_least(-place)) is not None and most > 0 else place


def _written(bound: int | Size | None) -> str:
    return "" if bound is None else str(bound)


def _not_negative(ev: Evaluator, room: Size, shape: Shape, part: str, span: Span) -> None:
    most = at_least(-room)
    if most is not None and most > 0:
        raise Refusal("E425", span, shape=show(shape), part=part)
    ev.positive(room + 1, f"{show(shape)} has no part [{part}]")
