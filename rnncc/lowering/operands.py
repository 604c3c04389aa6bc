"""What an expression is while it is evaluated: numbers, sizes, values, tuples; or a mistake.

Non-Goals: evaluating (`expressions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rnncc.ir.program import Span, Value
from rnncc.ir.sizes import Size


class Poison:
    """The value of an expression that was reported."""


POISON = Poison()
Operand = Any  # int | float | bool | str | Size | Value | tuple[Operand, ...] | Poison
Shape = tuple[Size, ...]


class Exhausted(Exception):
    """The cell asks for more than is evaluated of any."""


class Refusal(Exception):
    """A mistake in the expression being evaluated; becomes a diagnostic at its span."""

    def __init__(
        self,
        code: str,
        span: Span | None = None,
        notes: tuple[str, ...] = (),
        help: str = "",
        **fields: object,
    ) -> None:
        super().__init__(code)
        self.code, self.span, self.notes, self.help, self.fields = code, span, notes, help, fields


@dataclass(frozen=True, slots=True)
class SizeEquality:
    """Two sizes that must turn out equal once sizes are bound."""

    left: Size
    right: Size
    span: Span
    message: str


def show(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]" if shape else "a number"


def shape_of_operand(operand: Operand) -> Shape:
    return operand.type.shape if isinstance(operand, Value) else ()
