"""A LaneStage's epilogue as C statements over one lane `j`, each citing its equation.

Non-Goals: the loops around them; what the functions compute (templates/c).
"""

from __future__ import annotations

import re

from rnncc.emit.cuda.statements import ScalarStatements
from rnncc.ir.program import Op, Value
from rnncc.schedule.model import View

_NUMBER = re.compile(r"\bF\(([^()]*)\)")
_FUNCTION = re.compile(r"\bv\.(\w+)\(")


class CStatements(ScalarStatements):
    """prefix: of the file's functions. used: the functions that were called."""

    def __init__(self, prefix: str, used: set[str], *rest: object) -> None:
        super().__init__(*rest)  # type: ignore[arg-type]
        self.prefix, self.used_functions = prefix, used
        self.written: set[str] = set()  # pointers that are stored through
        self.last: list[str] = []  # stores of states, which others may still have to read

    def text(self, python: str) -> str:
        """An expression of the op table, in C."""

        def called(match: re.Match[str]) -> str:
            self.used_functions.add(match[1])
            return f"{self.prefix}_{match[1]}("

        text = _FUNCTION.sub(called, _NUMBER.sub(lambda m: c_number(m[1]), python))
        text = re.sub(r"\bnot ", "!", text).replace("~", "!")
        text = re.sub(r"\bTrue\b", "1", re.sub(r"\bFalse\b", "0", text))
        return text.replace("v.inf", "INFINITY")

    def _statement(self, op: Op, fused: set[Op], crossing: dict[Value, tuple[int, int]]) -> None:
        self._bind_operands(op)
        text = self.text(self._expression(op, fused))
        name = self._name(op.result)
        self.registers[op.result] = name
        kind = "int" if op.result.type.dtype == "bool" else "real"
        self.lines.append(f"const {kind} {name} = {text};{self._citation(op)}")
        self._store(op.result)

    def _name_register(self, value: Value) -> None:
        name = self._name(value)
        kind = "int" if value.type.dtype == "bool" else "real"
        self.lines.append(f"const {kind} {name} = {self.text(self.registers[value])};")
        self.registers[value] = name

    def _load(self, value: Value, view: View) -> str:
        lanes = bool(view.axes) and view.axes[-1] is not None
        text = f"{self.row_pointer(view)}[{'j' if lanes else '0'}]"
        return f"({text} != 0)" if value.type.dtype == "bool" else text

    def _store(self, value: Value) -> None:
        for store in self.stores:
            if store.value is not value:
                continue
            text = self.text(self.read(value))
            if value.type.dtype == "bool":
                text = f"{text} ? 1 : 0"
            if store.view.slot == "out":
                self.used_functions.add("flush")
                text = f"{self.prefix}_flush({text})"
            pointer = self.row_pointer(store.view)
            self.written.add(pointer)
            lines = self.last if store.view.slot == "out" else self.lines
            lines.append(f"{pointer}[j] = {text};")

    def _citation(self, op: Op) -> str:
        return f" /* line {op.span.line} */" if op.span else ""


def c_number(text: str) -> str:
    """A number of the op table as a constant of type `real`."""
    known = {"inf": "INFINITY", "-inf": "-INFINITY", "nan": "NAN"}
    return known.get(text.strip()) or f"R({float(text)!r})"
