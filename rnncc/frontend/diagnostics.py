"""Mistakes in a cell's text, as data, and how they read.

    lstm.rnn:14:13: error[E404]: matmul inner sizes differ: features and units
       14 | i = sigmoid(x[t] @ W_i + h[t-1] @ U_i + b_i)
          |             ^^^^^^^^^^
            x[t] : [features]  (line 5)     W_i : [units, units]  (line 9)     help: ...

Non-Goals: finding the mistakes; the causes and their examples, which are rows of `causes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rnncc.common.spelling import nearest_name
from rnncc.frontend.causes import CAUSES
from rnncc.frontend.limits import FIELD_CHARACTERS, HINTS, KNOWN, MISTAKES, NAME_CHARACTERS
from rnncc.ir.program import Span

WIDEST = 160  # longer lines are shown in part

# What would move a terminal's cursor or turn the text around.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Diagnostic:
    code: str
    span: Span
    message: str
    notes: tuple[str, ...] = ()
    help: str = ""

    def render(self, filename: str, lines: list[str]) -> str:
        span = self.span
        head = f"{filename}:{span.line}:{span.col}: error[{self.code}]: {self.message}"
        out = [_harmless(head)]
        if 0 < span.line <= len(lines):
            line, at = _around(lines[span.line - 1], span.col - 1)
            # A tab stays a tab under a tab, so that the caret stands where the eye expects it.
            lead = "".join("\t" if c == "\t" else " " for c in line[:at])
            carets = "^" * max(1, min(span.end - span.col, len(line) - at))
            out.append(f"{span.line:>5} | {_harmless(line)}")
            out.append(f"      | {lead}{carets}")
        extra = [*self.notes, *([f"help: {self.help}"] if self.help else [])]
        if extra:
            out.append(" " * 8 + _harmless("     ".join(extra)))
        return "\n".join(out)


def _harmless(text: str) -> str:
    return _UNSAFE.sub("\ufffd", text)


def _around(line: str, at: int) -> tuple[str, int]:
    """Of a very long line the part around a column, and where the column is in it."""
    if len(line) <= WIDEST:
        return line, at
    begin = min(max(0, at - WIDEST // 4), len(line) - WIDEST)
    part = line[begin : begin + WIDEST]
    before = "..." if begin else ""
    after = "..." if begin + WIDEST < len(line) else ""
    return before + part + after, at - begin + len(before)


class SpecError(Exception):
    """Every mistake found in one text, in its order; as text, the first of them and how many more.

    `partial`: what could be read all the same.
    """

    def __init__(
        self, diagnostics: Iterable[Diagnostic], text: str, filename: str, partial: Any = None
    ) -> None:
        unique = {(d.code, d.span, d.message): d for d in diagnostics}
        self.diagnostics = sorted(
            unique.values(), key=lambda d: (d.span.line, d.span.col, d.span.end, d.code)
        )
        self.text, self.filename, self.partial = text, filename, partial
        super().__init__(self.diagnostics, text, filename, partial)

    def __str__(self) -> str:
        lines = self.text.split("\n")
        shown = [d.render(self.filename, lines) for d in self.diagnostics[:MISTAKES]]
        if len(self.diagnostics) > MISTAKES:
            shown.append(f"and {len(self.diagnostics) - MISTAKES:,} more")
        return "\n".join(shown)


class Reporter:
    """Collects diagnostics; a message is its cause's template filled in."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.stopped = False  # reading ended early: what follows isn't known
        self._hints = 0

    def add(
        self, code: str, span: Span, notes: Iterable[str] = (), help: str = "", **fields: object
    ) -> None:
        message = CAUSES[code].message.format(**{k: _short(str(v)) for k, v in fields.items()})
        self.diagnostics.append(
            Diagnostic(code, span, message, tuple(map(_short, notes)), _short(help))
        )

    def too_many(self, span: Span, n: int, what: str, most: int) -> None:
        self.add("E119", span, n=f"{n:,}", what=what, most=f"{most:,}")

    def nearest(self, name: str, known: Iterable[str]) -> str:
        """`nearest`, for the first unknown names: a long text may hold as many as it likes."""
        self._hints += 1
        return nearest(name, known) if self._hints <= HINTS else ""


def _short(text: str) -> str:
    return text if len(text) <= FIELD_CHARACTERS else text[: FIELD_CHARACTERS - 3] + "..."


def an(word: str) -> str:
    """The word after its article."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?`, or nothing when no known name is near."""
    names = [*known]
    if len(names) > KNOWN or len(name) > NAME_CHARACTERS:
        return ""
    match = nearest_name(name, sorted(set(names)))
    return f"did you mean {match}?" if match else ""
