"""One line of a Program's text, read from left to right: names, sizes, types, attributes.

    >>> line = Line(7, "  x : float[B, T, 2 * units]")
    >>> line.need(NAME), line.need(":"), str(line.type())
    ('x', ':', 'float[B, T, 2 * units]')
    >>> line.need(",", "a comma")
    Traceback (most recent call last):
    rnncc.ir.line_reader.ReadError: 7:29: expected a comma, found the line's end

Non-Goals: which lines there are (`reader`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rnncc.ir.opdef import IRError
from rnncc.ir.program import Type
from rnncc.ir.sizes import Size, TooLarge

NAME = r"[A-Za-z_][\w.]*"


class ReadError(IRError):
    """The text is no Program; where, in its own lines and columns, from 1."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"{line}:{column}: {message}")
        self.line, self.column = line, column


class Line:
    """A line, and how far it has been read; spaces between its words are passed over."""

    def __init__(self, line: int, text: str) -> None:
        self.line, self.text, self.at = line, text, 0
        self.began = 0  # where what was read last begins
        self.indent = len(text) - len(text.lstrip(" "))

    def fail(self, message: str, at: int | None = None) -> ReadError:
        return ReadError(self.line, (self.began if at is None else at) + 1, message)

    def get(self, pattern: str) -> str | None:
        """What comes next, if it is this."""
        match = re.compile(f" *({pattern})").match(self.text, self.at)
        if match is None:
            return None
        self.began, self.at = match.start(1), match.end()
        return match[1]

    def need(self, pattern: str, what: str = "") -> str:
        found = self.get(pattern)
        if found is None:
            self.get("")
            rest = self.text[self.at :] or "the line's end"
            raise self.fail(f"expected {what or pattern}, found {rest}")
        return found

    def listed(self, item: Callable[[], Any], close: str) -> tuple[Any, ...]:
        """Items up to a bracket, with commas between them."""
        items: list[Any] = []
        while not self.get(close):
            if items:
                self.need(",", "a comma or a bracket")
            items.append(item())
        return tuple(items)

    def size(self) -> Size:
        self.get("")
        at = self.at
        try:
            total = self._product()
            while sign := self.get("[+-]"):
                total = total + self._product() if sign == "+" else total - self._product()
        except (TooLarge, ZeroDivisionError, RecursionError) as error:
            raise self.fail(f"no size: {error}", at) from None
        return total

    def _product(self) -> Size:
        total = self._factor()
        while sign := self.get(r"\*|//"):
            total = total * self._factor() if sign == "*" else total // self._factor()
        return total

    def _factor(self) -> Size:
        if self.get(r"\("):
            inner = self.size()
            self.need(r"\)", "a bracket")
            return inner
        found = self.need(r"-?\d+|[A-Za-z_]\w*", "a size")
        return Size.name(found) if found.isidentifier() else Size.of(int(found))

    def type(self) -> Type:
        dtype, at = self.need("float|bool|int", "a type"), self.began
        self.need(r"\[", "axes and sizes")
        axes = ""
        while found := self.get(r"B(?= *[],])|T(?= *[],])"):
            axes += found
            if not self.get(","):
                break
        if axes not in ("", "B", "T", "BT"):
            raise self.fail(f"a type over {axes}", at)
        return Type(self.listed(self.size, r"\]"), axes, dtype)

    def attribute(self, name: str) -> Any:
        """The value of an op's attribute of this name, which was read last, with its `=`."""
        at = self.began
        self.need("=")
        match name:
            case "start" | "size":
                return self.size()
            case "axis" | "site" | "ahead" | "step":
                return self.whole()
            case "over" | "axes" | "per":
                return self.need(r"\w+")
            case "reverse" | "apart":
                return self.need("True|False") == "True"
            case "value":
                return self._number()
            case "shape" | "perm" | "dims" | "labels":
                self.need(r"\(", "a tuple")
                special = {"shape": self.size, "labels": lambda: self.need(r"\w*")}
                return self.listed(special.get(name, self.whole), r"\)")
        raise self.fail(f"no op has {name}", at)

    def whole(self) -> int:
        return int(self.need(r"-?\d+", "a whole number"))

    def _number(self) -> float | bool:
        found = self.need(r"True|False|-?(?:inf|nan|\d+(?:\.\d*)?(?:e[+-]?\d+)?)", "a number")
        if found in ("True", "False"):
            return found == "True"
        return int(found) if found.lstrip("-").isdecimal() else float(found)
