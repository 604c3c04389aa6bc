"""A Program as text, the form `rnncc explain` shows and golden tests hold; `reader` reads it.

`printed_lines` says of each line what it tells of, for whoever wants to know where it came from.

What is the rule isn't said: what a result is of, where it has its name of that; empty attributes;
the type of a stack that is its value's over all steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from rnncc.common.unrolling import ALL_STEPS
from rnncc.ir.program import Op, Program, Scan, Type, Value


class PrintedLine(NamedTuple):
    """`about`: the op that it is, or the values that it names; of a heading, all ops below."""

    text: str
    about: tuple[Op | Value, ...] = ()

    def within(self, indent: str) -> PrintedLine:
        return PrintedLine(indent + self.text, self.about)


class ValueNames:
    """The user's name for the first value that bears it, a numbered one for the rest; each once."""

    def __init__(self) -> None:
        self._given: dict[Value, str] = {}
        self._count: dict[str, int] = {}
        self._taken: set[str] = set()

    def __call__(self, value: Value) -> str:
        name = self._given.get(value)
        if name is None:
            name = self._given[value] = self._next(value.name)
        return name

    def _next(self, wanted: str) -> str:
        while True:
            count = self._count.get(wanted, 0)
            self._count[wanted] = count + 1
            bare = wanted and wanted != "_" and count == 0
            name = wanted if bare else f"{wanted.rstrip('_')}_{count}"
            if name not in self._taken:
                self._taken.add(name)
                return name


def _attr(value: object) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_attr, value)) + ")"
    return str(value)


@lru_cache(maxsize=256)
def _type(type_: Type) -> str:
    return str(type_)


def _op(op: Op, names: ValueNames) -> str:
    parts = list(map(names, op.operands))
    if op.attrs:
        parts += [f"{k}={_attr(v)}" for k, v in op.attrs.items() if k != "type" and v != ""]
    inside = ", ".join(parts)
    text = f"{names(op.result)} = {op.opcode}({inside})"
    where = f"  # line {op.span.line}" if op.span else ""
    return f"{text:<58} : {_type(op.result.type)}{where}"


def _block(title: str, ops: Iterable[Op], names: ValueNames, indent: str) -> Iterator[PrintedLine]:
    ops = tuple(ops)
    if ops:
        yield PrintedLine(f"{indent}{title}:", ops)
    for op in ops:
        yield PrintedLine(f"{indent}  {_op(op, names)}", (op,))


def _turn(unroll: int) -> str:
    return "all steps a turn" if unroll == ALL_STEPS else f"{unroll} steps a turn"


def print_program(program: Program) -> str:
    """Deterministic text: the same program prints the same, whatever was built before it."""
    return "".join(f"{line.text}\n" for line in printed_lines(program))


def printed_lines(program: Program) -> Iterator[PrintedLine]:
    """The lines of `print_program`."""
    names = ValueNames()
    yield PrintedLine(f"program {program.name}")
    for param in program.params:
        of = f", of {param.of}" if param.of else ""
        text = f"  {param.role:<9} {names(param.value)} : {param.value.type}{of}"
        yield PrintedLine(text, (param.value,))
    yield from _block("before", program.before, names, "")
    if program.scan:
        yield from _scan_lines(program.scan, program.unroll, names)
    yield from _block("after", program.after, names, "")
    for result in program.results:
        kind, of = result.role
        kind = kind if of == result.name else f"{kind} of {of}"
        text = f"  result {result.name} ({kind}) = {names(result.value)}"
        yield PrintedLine(text, (result.value,))


def _scan_lines(scan: Scan, unroll: int, names: ValueNames) -> Iterator[PrintedLine]:
    turns = "" if unroll == 1 else f", {_turn(unroll)}"
    yield PrintedLine(f"scan{', backwards in time' if scan.reverse else ''}{turns}:", scan.body)
    for c in scan.carries:
        text = f"  carry {names(c.value)} : {c.value.type}, from {names(c.init)}"
        yield PrintedLine(text, (c.value, c.init))
    for xs in scan.xs:
        text = f"  {names(xs.value)} = {names(xs.source)}[t]"
        yield PrintedLine(text, (xs.value, xs.source))
    for op in scan.body:
        yield PrintedLine(f"    {_op(op, names)}", (op,))
    for c in scan.carries:
        text = f"  next {names(c.value)} = {names(c.next)}; last is {names(c.final)}"
        yield PrintedLine(text, (c.value, c.next))
    for ys in scan.ys:
        type_ = ys.target.type
        same = type_ == ys.value.type.with_axes(ys.value.type.axes + "T")
        wide = "" if same else f" : {type_}"
        text = f"  {names(ys.target)}[t] = {names(ys.value)}{wide}"
        yield PrintedLine(text, (ys.target, ys.value))
