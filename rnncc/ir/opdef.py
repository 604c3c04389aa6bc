"""What an op is: its kind, its types, its NumPy meaning, its vector expression, its vjp.

Non-Goals: the ops (`ops`, `sum_ops`, `layout_ops`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np

from rnncc.ir.program import Op, Type, Value

Attrs = Mapping[str, Any]


class Emits(Protocol):
    """What a vjp is written with: it makes ops, as a `Builder` does. Every pointwise op of the
    table is a method."""

    def emit(self, opcode: str, *operands: Value, **attrs: Any) -> Value: ...

    def like(self, value: Any, model: Value) -> Value: ...

    def __getattr__(self, opcode: str) -> Any: ...


Vjp = Callable[[Emits, Op, Value], tuple[Value | None, ...]]


class Kind(Enum):
    LEAF = "leaf"  # no operands: constants, extents
    POINTWISE = "pointwise"  # lane by lane
    CONTRACTION = "contraction"  # sums products over labels, rows or steps
    REDUCTION = "reduction"  # over one feature axis
    LAYOUT = "layout"  # moves elements, computes nothing
    RANDOM = "random"  # drawn from a counter


class IRError(Exception):
    """An op applied to types it doesn't take: a defect of a pass, never of the user's text."""


@dataclass(frozen=True, slots=True)
class OpDef:
    name: str
    kind: Kind
    infer: Callable[..., Type]  # (attrs, *types) -> type
    numpy: Callable[..., np.ndarray]  # pointwise: (*arrays); others: (op, env, *arrays)
    expr: str = ""  # "v.exp({0})"
    vjp: Vjp | None = None  # None: the gradient is zero
    cost: int = 1  # rough cycles a vector, so that residuals know what is cheap to recompute


def union(*axes: str) -> str:
    return "".join(sorted(set("".join(axes))))


OPS: dict[str, OpDef] = {}


def define(opdef: OpDef) -> None:
    OPS[opdef.name] = opdef
