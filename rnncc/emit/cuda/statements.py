"""A LaneStage's epilogue as statements over one lane: those of the CPU, on scalars.

A bare number in Python is a double, and one double makes all that touches it double: numbers are
`F(1.0)`, of the module's own precision.

Non-Goals: the loops around them; what the functions of `v` do (`scalars`).
"""

from __future__ import annotations

import re

from rnncc.emit.shared.statements import Statements
from rnncc.ir.program import Op, Value
from rnncc.schedule.model import View

_NUMBER = re.compile(r"(?<![\w.(\-])(\d+\.\d+(?:e[+-]?\d+)?)")


class ScalarStatements(Statements):
    def literal(self, value: Value) -> str | None:
        leaf = self.leaves.get(value)
        if leaf is None:
            return None
        if leaf.opcode == "extent":
            return f"F({self.at.size(leaf.attrs['size'])})"
        number = leaf.attrs["value"]
        return repr(number) if isinstance(number, bool) else f"F({float(number)!r})"

    def _expression(self, op: Op, fused: set[Op]) -> str:
        if op.opcode == "not":  # Python's ~True is -2
            return f"not {self.read(op.operands[0])}"
        return _NUMBER.sub(r"F(\1)", super()._expression(op, fused))

    def _load(self, value: Value, view: View) -> str:
        text = super()._load(value, view)
        return text.replace(" != 0.0)", " != F(0.0))")

    def _stored(self, view: View, address: str, text: str) -> str:
        return f"v.store({address}, {text})"  # a lane is in its part
