"""Programs: what the language lowers to and every pass rewrites.

    Program = before   ops over all rows and steps at once
            | scan     one step: consts, carry, xs -> carry', ys; forwards or backwards in time
            | after    ops over all rows and steps at once

A value's type says which of the axes B (rows of the batch) and T (steps) it varies over, then its
feature shape. Inside a scan no value has T. Values are compared by identity and keep the names of
the user's text. The words are the field's: carry, xs, ys, residual, cotangent, vjp.

Non-Goals: strides, padding, storage; a numeric precision (that is the Schedule's).

Grammar, checked by `verify`:

    program := params before:op* scan? after:op* results
    op      := result+ "=" opcode(operand*) attrs span?
    scan    := carries xs body:op* ys reverse:bool
    carry   := name init:outer value:inner next:inner final:outer
    slice   := value:inner source:outer            xs: value = source at this step
    stack   := value:inner target:outer            ys: target collects value of every step
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rnncc.common.result_roles import ResultRole
from rnncc.ir.sizes import Size

_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the user's text: 1-based line, 1-based columns in characters, end exclusive."""

    line: int
    col: int
    end: int


@dataclass(frozen=True, slots=True)
class Type:
    """Axes it varies over (a sorted subset of "BT"), feature shape, and kind of element."""

    shape: tuple[Size, ...] = ()
    axes: str = ""
    dtype: str = "float"  # float | bool | int

    def __str__(self) -> str:
        sizes = map(str, self.shape)
        dims = [*self.axes, *(f"({s})" if s in ("B", "T") else s for s in sizes)]
        return f"{self.dtype}[{', '.join(dims)}]"

    def with_axes(self, axes: str) -> Type:
        return Type(self.shape, "".join(sorted(set(axes))), self.dtype)

    def inner(self) -> Type:
        """This type as one step of a scan sees it."""
        return self.with_axes(self.axes.replace("T", ""))


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One SSA value. Identity is the object; the name is for people."""

    name: str
    type: Type
    serial: int = field(default_factory=lambda: next(_serial))

    def __repr__(self) -> str:
        return f"%{self.name}.{self.serial}: {self.type}"


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    opcode: str
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    attrs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    span: Span | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.attrs, MappingProxyType):
            object.__setattr__(self, "attrs", MappingProxyType(self.attrs))

    @property
    def result(self) -> Value:
        (only,) = self.results
        return only


def line_of(op: Op | None) -> str:
    """Where the user's text asks for an op, for messages."""
    return f" (line {op.span.line})" if op is not None and op.span else ""


@dataclass(frozen=True, slots=True, eq=False)
class Carry:
    name: str
    init: Value  # outer, no T
    value: Value  # inner: what this step receives
    next: Value  # inner: what it hands on
    final: Value  # outer, no T: what the last step handed on


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    value: Value  # inner
    source: Value  # outer, with T


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    value: Value  # inner
    target: Value  # outer, with T


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    carries: tuple[Carry, ...]
    xs: tuple[Slice, ...]
    body: tuple[Op, ...]
    ys: tuple[Stack, ...]
    reverse: bool = False

    def entering(self) -> Iterator[Value]:
        """The inner values that exist before the body runs."""
        yield from (c.value for c in self.carries)
        yield from (s.value for s in self.xs)


@dataclass(frozen=True, slots=True, eq=False)
class Param:
    """role: input context weight constant state restart held rate seed valid residual cotangent.

    restart: what a state starts anew from where a row does. held: what a masked first step puts
    out: the last output of the steps before, zeros at first. valid: bools of every row and step.
    of: of a cotangent, the name of the result that it is for.
    """

    value: Value
    role: str
    of: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    role: ResultRole
    value: Value

    @property
    def name(self) -> str:
        return self.role.name


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """unroll: steps of the scan that are written out a turn (`common.unrolling`): a wish of who
    runs it, which changes nothing of what it means."""

    name: str
    params: tuple[Param, ...]
    before: tuple[Op, ...]
    scan: Scan | None
    after: tuple[Op, ...]
    results: tuple[Result, ...]
    unroll: int = 1

    def param(self, name: str) -> Param:
        for param in self.params:
            if param.value.name == name:
                return param
        raise KeyError(name)

    def ops(self) -> Iterator[Op]:
        yield from self.before
        if self.scan:
            yield from self.scan.body
        yield from self.after


def uses(program: Program) -> dict[Value, list[Op | Carry | Slice | Stack | Result]]:
    """Who reads each value: ops, carries (init and next), slices, stacks and results."""
    users: dict[Value, list[Op | Carry | Slice | Stack | Result]] = {}

    def add(value: Value, user: Op | Carry | Slice | Stack | Result) -> None:
        users.setdefault(value, []).append(user)

    for op in program.ops():
        for operand in op.operands:
            add(operand, op)
    if program.scan:
        for carry in program.scan.carries:
            add(carry.init, carry)
            add(carry.next, carry)
        for xs in program.scan.xs:
            add(xs.source, xs)
        for ys in program.scan.ys:
            add(ys.value, ys)
    for result in program.results:
        add(result.value, result)
    return users
