"""Builds ops one after another, with their types inferred and Python numbers accepted.

>>> from rnncc.ir.program import Type, Value
>>> from rnncc.ir.sizes import Size
>>> b = Builder()
>>> x = Value("x", Type((Size.name("units"),), "B"))
>>> str(b.mul(2.0, b.tanh(x)).type), [op.opcode for op in b.ops]
('float[B, units]', ['tanh', 'full', 'mul'])
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from rnncc.ir.ops import OPS
from rnncc.ir.program import Op, Span, Type, Value
from rnncc.ir.sizes import Size

Scalar = float | int | bool


class Builder:
    """`ops` grows by one op a call; `span` is stamped on each. Every pointwise op of the table is
    a method: `b.add(x, 1.0)`, `b.where(c, x, y)`."""

    def __init__(self, span: Span | None = None, name: str = "_") -> None:
        self.ops: list[Op] = []
        self.span = span
        self.name = name

    def emit(
        self,
        opcode: str,
        *operands: Value,
        name: str | None = None,
        span: Span | None = None,
        **attrs: Any,
    ) -> Value:
        """Append an op and return its result; IRError when the types don't fit."""
        result_type = OPS[opcode].infer(attrs, *(o.type for o in operands))
        value = Value(name or self.name, result_type)
        self.ops.append(Op(opcode, operands, (value,), MappingProxyType(attrs), span or self.span))
        return value

    def like(self, value: Scalar, model: Value) -> Value:
        """A constant of the model's feature shape; it varies over no axis."""
        dtype = "bool" if isinstance(value, bool) else "float"
        return self.full(value, model.type.shape, dtype)

    def full(self, value: Scalar, shape: tuple[Size, ...] = (), dtype: str = "float") -> Value:
        return self.emit("full", value=value, type=Type(shape, "", dtype))

    def pointwise(self, opcode: str, *operands: Value | Scalar, name: str | None = None) -> Value:
        model = next(o for o in operands if isinstance(o, Value))
        values = [o if isinstance(o, Value) else self.like(o, model) for o in operands]
        return self.emit(opcode, *values, name=name)

    def __getattr__(self, opcode: str) -> Any:
        if opcode.rstrip("_") not in OPS:
            raise AttributeError(opcode)
        return lambda *operands, **kw: self.pointwise(opcode.rstrip("_"), *operands, **kw)

    def contract(
        self,
        a: Value,
        b: Value,
        labels: tuple[str, str, str],
        over: str = "",
        name: str | None = None,
        span: Span | None = None,
    ) -> Value:
        return self.emit("contract", a, b, labels=labels, over=over, name=name, span=span)

    def sum_over(self, x: Value, over: str) -> Value:
        """Sum over rows ("B") and steps ("T"); the value itself when there is nothing to sum."""
        over = "".join(a for a in x.type.axes if a in over)
        return self.emit("sum_over", x, over=over) if over else x

    def reduce(self, kind: str, x: Value, axis: int) -> Value:
        return self.emit(kind, x, axis=axis)

    def cumsum(self, x: Value, axis: int, reverse: bool = False) -> Value:
        return self.emit("cumsum", x, axis=axis, reverse=reverse)

    def extent(self, size: Size, shape: tuple[Size, ...] = ()) -> Value:
        """A size as a number, the same in every lane."""
        return self.emit("extent", size=size, shape=shape)

    def reshape(self, x: Value, shape: tuple[Size, ...]) -> Value:
        return self.emit("reshape", x, shape=shape) if shape != x.type.shape else x

    def transpose(self, x: Value, perm: tuple[int, ...]) -> Value:
        return self.emit("transpose", x, perm=perm) if list(perm) != sorted(perm) else x

    def slice(self, x: Value, axis: int, start: Size, size: Size) -> Value:
        return self.emit("slice", x, axis=axis, start=start, size=size)

    def strided_slice(self, x: Value, axis: int, start: Size, step: int, size: Size) -> Value:
        """x[start], x[start + step] ... along an axis, `size` of them: a copy."""
        if step == 1:
            return self.slice(x, axis, start, size)
        return self.emit("strided_slice", x, axis=axis, start=start, step=step, size=size)

    def pad(self, x: Value, axis: int, start: Size, size: Size) -> Value:
        """x placed at `start` of an axis of length `size`, zeros around it."""
        return self.emit("pad", x, axis=axis, start=start, size=size)

    def concat(self, xs: tuple[Value, ...], axis: int) -> Value:
        return self.emit("concat", *xs, axis=axis) if len(xs) > 1 else xs[0]

    def broadcast(self, x: Value, shape: tuple[Size, ...], dims: tuple[int, ...]) -> Value:
        return self.emit("broadcast", x, shape=shape, dims=dims) if shape != x.type.shape else x

    def uniform(
        self, seed: Value, site: int, shape: tuple[Size, ...], per: str, axes: str = "B"
    ) -> Value:
        return self.emit("uniform", seed, site=site, shape=shape, per=per, axes=axes)
