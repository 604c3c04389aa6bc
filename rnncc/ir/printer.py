"""A Program as text, the form `rnncc explain` shows and golden tests hold."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from rnncc.ir.program import Op, Program, Type, Value


class ValueNames:
    """The user's name for the first value that bears it, a numbered one for the rest."""

    def __init__(self) -> None:
        self._given: dict[Value, str] = {}
        self._taken: dict[str, int] = {}

    def __call__(self, value: Value) -> str:
        name = self._given.get(value)
        if name is None:
            count = self._taken.get(value.name, 0)
            self._taken[value.name] = count + 1
            bare = value.name and value.name != "_" and count == 0
            name = value.name if bare else f"{value.name.rstrip('_')}_{count}"
            self._given[value] = name
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


def _block(title: str, ops: Iterable[Op], names: ValueNames, indent: str) -> list[str]:
    body = [f"{indent}  {_op(op, names)}" for op in ops]
    return [f"{indent}{title}:", *body] if body else []


def print_program(program: Program) -> str:
    """Deterministic text: the same program prints the same, whatever was built before it."""
    names = ValueNames()
    out = [f"program {program.name}"]
    for param in program.params:
        out.append(f"  {param.role:<9} {names(param.value)} : {param.value.type}")
    out += _block("before", program.before, names, "")
    scan = program.scan
    if scan:
        out.append("scan, backwards in time:" if scan.reverse else "scan:")
        for c in scan.carries:
            out.append(f"  carry {names(c.value)} : {c.value.type}, from {names(c.init)}")
        for xs in scan.xs:
            out.append(f"  {names(xs.value)} = {names(xs.source)}[t]")
        out += [f"    {_op(op, names)}" for op in scan.body]
        for c in scan.carries:
            out.append(f"  next {names(c.value)} = {names(c.next)}; last is {names(c.final)}")
        for ys in scan.ys:
            out.append(f"  {names(ys.target)}[t] = {names(ys.value)}")
    out += _block("after", program.after, names, "")
    for result in program.results:
        out.append(f"  result {result.name} ({result.role.kind}) = {names(result.value)}")
    return "\n".join(out) + "\n"
