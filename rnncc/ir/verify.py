"""Checks a Program against its grammar after every pass: a broken pass is caught where it broke."""

from __future__ import annotations

from collections.abc import Iterable

from rnncc.ir.ops import OPS, IRError
from rnncc.ir.program import Op, Program, Type, Value


def verify(program: Program) -> Program:
    """The program itself, or IRError naming the first op that doesn't hold."""
    known: set[Value] = set()
    for param in program.params:
        _define(known, param.value)
    _check(program.before, known)
    scan = program.scan
    if scan:
        inner = set(known)
        for carry in scan.carries:
            _need(known, carry.init, f"the start of {carry.name}")
            _define(inner, carry.value)
            for other, what in ((carry.init, "starts from"), (carry.final, "ends as")):
                if other.type != carry.value.type:
                    raise IRError(f"carry {carry.name}: {carry.value} {what} {other}")
            if not _fits(carry.next.type, carry.value.type):
                raise IRError(f"carry {carry.name}: {carry.value} becomes {carry.next}")
        for xs in scan.xs:
            _need(known, xs.source, "a slice")
            if "T" not in xs.source.type.axes or xs.value.type != xs.source.type.inner():
                raise IRError(f"slice of {xs.source} can't be {xs.value}")
            _define(inner, xs.value)
        for value in known:
            if "T" in value.type.axes:
                inner.discard(value)  # a whole sequence is not visible inside a step
        _check(scan.body, inner)
        for carry in scan.carries:
            _need(inner, carry.next, f"the next {carry.name}")
            _define(known, carry.final)
        for ys in scan.ys:
            _need(inner, ys.value, "a stack")
            if "T" not in ys.target.type.axes or not _fits(ys.value.type, ys.target.type):
                raise IRError(f"stack of {ys.value} can't be {ys.target}")
            _define(known, ys.target)
    _check(program.after, known)
    names = [r.name for r in program.results]
    if len(set(names)) != len(names):
        raise IRError(f"results share a name: {names}")
    for result in program.results:
        _need(known, result.value, f"result {result.name}")
    return program


def _check(ops: Iterable[Op], known: set[Value]) -> None:
    for op in ops:
        if op.opcode not in OPS:
            raise IRError(f"no op is called {op.opcode}")
        if not known.issuperset(op.operands):
            for operand in op.operands:
                _need(known, operand, op.opcode)
        wanted = OPS[op.opcode].infer(op.attrs, *(o.type for o in op.operands))
        result = op.result
        if wanted is not result.type and wanted != result.type:
            raise IRError(f"{op.opcode} gives {wanted}, its result says {result}")
        _define(known, result)


def _fits(narrow: Type, wide: Type) -> bool:
    """Whether a value can be kept as the other type: it may be the same along more axes."""
    return narrow.with_axes(wide.axes) == wide and set(narrow.axes) <= set(wide.axes)


def _define(known: set[Value], value: Value) -> None:
    if value in known:
        raise IRError(f"{value} is defined twice")
    known.add(value)


def _need(known: set[Value], value: Value, who: str) -> None:
    if value not in known:
        raise IRError(f"{who} reads {value}, which is not defined there")
