"""One step of a cell: operations of arrays, in order, each on one row of the batch.

A RowArray's shape is that of one row: its batch is `rows`, no axis. So an operation here can't mix
rows; what would is refused where operations come from (`recorder`).

    op            operands                attributes
    a function    numbers or values       its keywords          tanh, leaky_relu, where, ...
    + - * / **    two; neg one
    > >= < <= == !=  and or not           give conditions
    sum mean max min prod any all norm    one                   axis
    softmax log_softmax cumsum cumax      one                   axis
    layer_norm rms_norm                   one                   axis, eps
    flip roll                             one                   axis, shift (roll)
    reshape       one                     (its output's shape)
    broadcast     one                     (its output's shape)
    transpose     one                     order
    slice         one                     axis, start, step, count
    concat        several                 axis
    einsum        several                 subscripts
    convert       one                     (its output's kind): as a cast does
    stop_gradient one
    drop          one                     rate: of step's own draws, a key of StepGraph.rates
    surrogate     x, value, derivative    value, whose derivative by x is the last, lane by lane

Non-Goals: full arrays and where their batch lies (`recorder`); text (`text`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

Kind = Literal["float", "int", "bool"]
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an operation comes from. operation: the framework's name of it; file, line, text: the
    user's line that asked for it, where one is known."""

    operation: str
    file: str = ""
    line: int = 0
    text: str = ""

    def __str__(self) -> str:
        where = f" ({self.file}:{self.line}: {self.text})" if self.line else ""
        return f"{self.operation}{where}"


class Unreadable(Exception):
    """Why something can't be read; a sentence that goes on from the operation's name."""


@dataclass(frozen=True, slots=True, eq=False)
class RowArray:
    """An array, as one row of the batch has it. rows: whether rows of the batch differ in it."""

    shape: tuple[int, ...] = ()
    rows: bool = False
    kind: Kind = "float"


Operand = RowArray | bool | int | float


@dataclass(frozen=True, slots=True)
class Node:
    """outputs = op(*operands, **attributes)."""

    op: str
    operands: tuple[Operand, ...]
    output: RowArray
    attributes: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    origin: Origin = field(default_factory=lambda: Origin(""))


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a step is given. name: what it would like to be called.

    key: of a weight, what the reader finds it by again. array: of a constant, its numbers."""

    value: RowArray
    name: str
    key: Any = None
    array: np.ndarray | None = None


@dataclass(slots=True)
class StepGraph:
    """contexts: the same at every step, rows of their own. states and after: before and after the
    step, in the same order. weights: trained ones; constants: not trained. rates: of dropout, by
    name."""

    name: str
    inputs: list[Leaf] = field(default_factory=list)
    contexts: list[Leaf] = field(default_factory=list)
    states: list[Leaf] = field(default_factory=list)
    weights: list[Leaf] = field(default_factory=list)
    constants: list[Leaf] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    outputs: list[Operand] = field(default_factory=list)
    after: list[Operand] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
