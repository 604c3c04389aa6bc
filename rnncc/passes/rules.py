"""What the rules of `simplify` are made of: a builder that shares equal ops, the table of rules.

A rule takes an op whose operands are already simplified, and gives the value to read instead of
its result, or None where it has nothing to say.

    >>> from rnncc.lowering.examples import example
    >>> h = example("h[t] = tanh(h[t-1] + x[t] @ W)").param("h").value
    >>> b = Context({})
    >>> b.tanh(h) is b.tanh(h), b.op(b.tanh(h), "tanh").operands == (h,)
    (True, True)
    >>> b.constant(b.like(2.0, h)), b.constant(h)
    (2.0, None)

Non-Goals: the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from rnncc.ir.builder import Builder
from rnncc.ir.ops import OPS
from rnncc.ir.program import Op, Value


class Context(Builder):
    """A builder that shares equal ops and knows how values were made and who reads them."""

    def __init__(self, readers: Mapping[Value, Sequence[object]]) -> None:
        super().__init__()
        self.defs: dict[Value, Op] = {}
        self.readers = readers
        self._table: dict[Any, Value] = {}

    def emit(
        self, opcode: str, *operands: Value, name: str | None = None, span: Any = None, **attrs: Any
    ) -> Value:
        key = (opcode, operands, _in_order(attrs))
        if key not in self._table:
            value = super().emit(opcode, *operands, name=name, span=span, **attrs)
            self.defs[value] = self.ops[-1]
            self._table[key] = value
        return self._table[key]

    def keep(self, op: Op) -> Value:
        """The op as it is, or the value of an equal one. Its type follows its operands."""
        key = (op.opcode, op.operands, _in_order(op.attrs))
        if key not in self._table:
            type_ = OPS[op.opcode].infer(op.attrs, *(o.type for o in op.operands))
            if type_ is not op.result.type and type_ != op.result.type:
                op = replace(op, results=(Value(op.result.name, type_),))
            self.ops.append(op)
            self.defs[op.result] = op
            self._table[key] = op.result
        return self._table[key]

    def scope(self) -> Context:
        """A context for a region that also sees this one's values."""
        inner = Context(self.readers)
        inner.defs = dict(self.defs)
        inner._table = dict(self._table)
        return inner

    def op(self, value: Value, opcode: str) -> Op | None:
        """The op that made a value, if it is of this opcode."""
        producer = self.defs.get(value)
        return producer if producer is not None and producer.opcode == opcode else None

    def constant(self, value: Value) -> Any:
        """The number a value is filled with, or None."""
        full = self.op(value, "full")
        return full.attrs["value"] if full else None

    def single(self, op: Op) -> bool:
        """True when only one reader waits for this result."""
        return len(self.readers.get(op.result, ())) <= 1


Rule = Callable[[Context, Op], Value | None]
RULES: dict[str, list[Rule]] = {}


def rule(*opcodes: str) -> Callable[[Rule], Rule]:
    def register(fn: Rule) -> Rule:
        for opcode in opcodes:
            RULES.setdefault(opcode, []).append(fn)
        return fn

    return register


def _in_order(attrs: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(attrs.items(), key=itemgetter(0))) if attrs else ()
