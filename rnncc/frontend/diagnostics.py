"""Mistakes in a cell's text, as data, and how they read.

    lstm.rnn:14:13: error[E404]: matmul inner sizes differ: features and units
       14 | i = sigmoid(x[t] @ W_i + h[t-1] @ U_i + b_i)
          |             ^^^^^^^^^^
            x[t] : [features]  (line 5)     W_i : [units, units]  (line 9)     help: ...

Non-Goals: finding the mistakes; the causes and their examples, which are rows of `causes`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rnncc.frontend.causes import CAUSES
from rnncc.ir.program import Span

# What would move a terminal's cursor or turn the text around.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Diagnostic:
    code: str
    span: Span
    message: str
    notes: tuple[str, ...] = ()
    help: str = ""

    def render(self, filename: str, lines: list[str]) -> str:
        span = self.span
        out = [f"{filename}:{span.line}:{span.col}: error[{self.code}]: {self.message}"]
        if 0 < span.line <= len(lines):
            line = lines[span.line - 1]
            # A tab stays a tab under a tab, so that the caret stands where the eye expects it.
            lead = "".join("\t" if c == "\t" else " " for c in line[: span.col - 1])
            out.append(f"{span.line:>5} | {_UNSAFE.sub(chr(0xFFFD), line)}")
            out.append(f"      | {lead}{'^' * max(1, span.end - span.col)}")
        extra = [*self.notes, *([f"help: {self.help}"] if self.help else [])]
        if extra:
            out.append(" " * 8 + "     ".join(extra))
        return "\n".join(out)


class SpecError(Exception):
    """Every mistake found in one text, in its order. `partial`: what could be read all the same."""

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
        return "\n".join(d.render(self.filename, lines) for d in self.diagnostics)


class Reporter:
    """Collects diagnostics; a message is its cause's template filled in."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []

    def add(
        self, code: str, span: Span, notes: Iterable[str] = (), help: str = "", **fields: object
    ) -> None:
        message = CAUSES[code].message.format(**fields)
        self.diagnostics.append(Diagnostic(code, span, message, tuple(notes), help))


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?`, or nothing when no known name is near."""
    pool = sorted(set(known))
    found = difflib.get_close_matches(name, pool, n=1, cutoff=0.6)
    if not found:
        found = [k for k in pool if k.lower() == name.lower()]
    return f"did you mean {found[0]}?" if found else ""
