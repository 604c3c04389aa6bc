"""What an op is: its kind, its types, its NumPy meaning, its vector expression, its vjp.

Non-Goals: the ops (`ops`, `sum_ops`, `layout_ops`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncc.ir.program import Op, Type, Value

if TYPE_CHECKING:
    from rnncc.ir.builder import Builder

Attrs = Mapping[str, Any]
Vjp = Callable[["Builder", Op, Value], tuple[Value | None, ...]]


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
