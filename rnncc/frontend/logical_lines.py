"""Text -> logical lines, each to be read by itself, so that one mistake hides nothing.

A logical line goes on while a bracket or a triple-quoted string is open, or after a backslash. A
bracket that is never closed is reported where it opens, and ends before the next line that looks
like the start of a declaration or an equation.

Non-Goals: meaning; what is inside strings and comments.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from rnncc.frontend.diagnostics import Reporter
from rnncc.frontend.limits import LINE_CHARACTERS, LINES, UNCLOSED
from rnncc.ir.program import Span

_STARTS = re.compile(r"(return\b|[^\W\d]\w*(\[t\])?(\s*,\s*[^\W\d]\w*(\[t\])?)*\s*[:=](?!=))")
_CLOSES = {")": "(", "]": "[", "}": "{"}
_TOLD = re.compile(r"[^ !$-&*-Z^-z|~\t]")  # characters that a scan has to look at
_FOREIGN = 20  # of a line; more say nothing new


@dataclass
class LogicalLine:
    """`text` starts at line `first`, column 1 + `indent`; `broken`: already reported."""

    first: int
    text: str
    indent: int = 0
    broken: bool = False

    def span(self, line: int, col: int, end: int) -> Span:
        """From 1-based lines and columns within the text to those of the file."""
        shift = self.indent if line == 1 else 0
        return Span(self.first + line - 1, col + shift, max(end, col + 1) + shift)


@dataclass
class _Scan:
    """Where a scan over physical lines stands: open brackets, an open triple quote."""

    brackets: list[tuple[str, int, int]] = field(default_factory=list)
    quote: str = ""
    continued: bool = False
    foreign: list[tuple[int, int, str]] = field(default_factory=list)
    length: int = 0  # in characters
    last: int = 0  # the last line seen

    @property
    def open(self) -> bool:
        return bool(self.brackets or self.quote or self.continued)

    def line(self, number: int, text: str) -> None:
        self.continued = False
        self.length += len(text) + 1
        self.last = number
        i = 0
        while i < len(text):
            if self.quote:
                i = self._in_quote(text, i)
                continue
            match = _TOLD.search(text, i)
            if match is None:
                return
            i = match.start()
            char = text[i]
            if char == "#":
                return
            if char in "\"'":
                i = self._quote(text, i)
                continue
            if char == "\\" and i == len(text) - 1:
                self.continued = True
            elif char in "([{":
                self.brackets.append((char, number, i + 1))
            elif char in ")]}":
                if self.brackets and self.brackets[-1][0] == _CLOSES[char]:
                    self.brackets.pop()
            elif ord(char) > 126 or ord(char) < 32:
                if len(self.foreign) < _FOREIGN:
                    self.foreign.append((number, i + 1, char))
            i += 1

    def _in_quote(self, text: str, i: int) -> int:
        if text[i] == "\\":
            return i + 2
        if text.startswith(self.quote, i):
            i += len(self.quote)
            self.quote = ""
            return i
        return i + 1

    def _quote(self, text: str, i: int) -> int:
        """Past a string that ends on this line; opens a triple-quoted one."""
        if text.startswith(text[i] * 3, i):
            self.quote = text[i] * 3
            return i + 3
        end = i + 1
        while end < len(text) and text[end] != text[i]:
            end += 2 if text[end] == "\\" else 1
        return end + 1


def logical_lines(lines: list[str], errors: Reporter) -> list[LogicalLine]:
    """The logical lines of a text given as physical lines; blank and comment lines left out."""
    logical: list[LogicalLine] = []
    at = unclosed = 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].lstrip().startswith("#"):
            at += 1
            continue
        if len(logical) >= LINES or unclosed >= UNCLOSED:
            few = len(logical) < LINES
            what = "brackets and strings that are never closed" if few else "lines"
            n = unclosed if few else len(logical)
            errors.too_many(Span(at + 1, 1, 2), n + 1, what, UNCLOSED if few else LINES)
            errors.stopped = True
            break
        end, scan = _extent(lines, at)
        if scan.open:
            unclosed += 1
            end, scan = _cut(lines, at, scan, errors)
        logical.append(_logical(lines, at, end, scan, errors))
        at = end
    return logical


def _extent(lines: list[str], at: int) -> tuple[int, _Scan]:
    scan, end = _Scan(), at
    while end == at or (scan.open and end < len(lines) and scan.length <= LINE_CHARACTERS):
        scan.line(end + 1, lines[end])
        end += 1
    return end, scan


def _cut(lines: list[str], at: int, scan: _Scan, errors: Reporter) -> tuple[int, _Scan]:
    """The end of a line whose bracket or quote stays open as far as anyone looks."""
    end, length = at + 1, len(lines[at])
    while end < len(lines) and lines[end].strip() and not _STARTS.match(lines[end]):
        length += len(lines[end]) + 1
        end += 1
    if scan.quote and scan.last < len(lines):
        errors.too_many(Span(at + 1, 1, 2), scan.length, "characters of a line", LINE_CHARACTERS)
    elif length > LINE_CHARACTERS:
        errors.too_many(Span(at + 1, 1, 2), length, "characters of a line", LINE_CHARACTERS)
    elif scan.quote:
        errors.add(
            "E101",
            Span(at + 1, 1, 2 + len(lines[at].rstrip()) - 1),
            reason="a string is never closed",
        )
    elif scan.brackets:
        bracket, line, col = scan.brackets[0]
        errors.add("E104", Span(line, col, col + 1), bracket=bracket)
    else:
        errors.add("E101", Span(at + 1, 1, 2), reason="nothing follows the backslash")
    return end, scan


def _logical(lines: list[str], at: int, end: int, scan: _Scan, errors: Reporter) -> LogicalLine:
    text = "\n".join(lines[at:end])
    indent = len(text) - len(text.lstrip())
    line = LogicalLine(at + 1, text[indent:], indent, broken=scan.open)
    for number, col, char in scan.foreign:
        if number > end:
            break
        plain = unicodedata.normalize("NFKC", char)
        what = f"{char} (U+{ord(char):04X})" if char.isprintable() else f"U+{ord(char):04X}"
        known = plain.isascii() and plain.isprintable() and plain.strip()
        errors.add(
            "E105",
            Span(number, col, col + 1),
            character=what,
            help=f"write {plain}" if known else "names and operators are ASCII",
        )
        line.broken = True
    return line
