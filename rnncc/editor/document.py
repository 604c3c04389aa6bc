"""One text of a cell as an editor has it: what is wrong, and what stands at a place.

Lines and columns count from 1, columns in characters, as those of diagnostics. A text that can't
be read whole is answered for as far as it could be.

Non-Goals: the protocol (`server`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from rnncc.editor.words import CONSTANTS, DECLARES, KEYWORDS, KIND_MEANINGS
from rnncc.frontend import meanings
from rnncc.frontend.diagnostics import Diagnostic, SpecError
from rnncc.frontend.library import INITIALIZERS, SIGNATURES
from rnncc.frontend.spec import ArrayDecl, CellSpec, Equation
from rnncc.ir.program import Span, Value
from rnncc.lowering.cell_interface import check_text
from rnncc.lowering.equations import Equations
from rnncc.lowering.lower import Whole

_PIECE = re.compile(r'"[^"\n]*"|\'[^\'\n]*\'|#.*|[A-Za-z_]\w*')
_DOCSTRING = re.compile(r'\s*("""|\'\'\')[\s\S]*?(\1|\Z)')
_KIND_WANTED = re.compile(r"^[A-Za-z]\w*\s*:\s*\w*$")
_INITIALIZER_WANTED = re.compile(r"^[A-Za-z]\w*\s*:\s*(weight|constant)\b[^=]*=\s*\w*$")
_FUNCTION_WANTED = re.compile(r"^[A-Za-z]\w*\s*:\s*function\s*=\s*\w*$")
_SIZE_WANTED = re.compile(r"^[A-Za-z]\w*\s*:\s*(input|context|state|weight|constant)\[[^\]]*$")
_MEANT = re.compile(r"did you mean (\w+)\?")
_WRITTEN = re.compile(r"write (\S+)(?: or (\S+))?$")
_DECLARED = re.compile(r"declare (\w+: \w+(?: = 0)?)$")
_REPLACED = ("E105", "E303", "E304", "E309")  # whose `write ...` stands in place of the span


@dataclass(frozen=True, slots=True)
class PointedAt:
    """A name of a text, and where."""

    text: str
    span: Span
    called: bool = False  # a bracket follows


@dataclass(frozen=True, slots=True)
class Offer:
    """A completion: `kind` is kind, function, initializer, keyword, or what a name is declared."""

    name: str
    kind: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Mend:
    """What would take a mistake away: text in place of a piece of a line."""

    title: str
    diagnostic: Diagnostic
    span: Span
    text: str


class Document:
    """A text, looked at once."""

    def __init__(self, text: str, filename: str = "<text>") -> None:
        self.text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        self.lines = self.text.split("\n")
        self.diagnostics: list[Diagnostic] = []
        self.spec: CellSpec | None = None
        try:
            self.spec = check_text(text, filename)
        except SpecError as error:
            self.diagnostics, self.spec = error.diagnostics, error.partial

    @cached_property
    def _documented(self) -> int:
        """The lines of the docstring."""
        found = _DOCSTRING.match(self.text)
        return found[0].count("\n") + 1 if found else 0

    @cached_property
    def _equations(self) -> Equations | None:
        """Under the defaults of its options."""
        return Whole(self.spec).equations if self.spec is not None else None

    @cached_property
    def _setters(self) -> dict[str, tuple[Equation, Span]]:
        """The equation of each name that one sets, and where the name stands in it."""
        equations = self.spec.equations if self.spec is not None else ()
        return {t.name: (e, t.span) for e in reversed(equations) for t in e.targets}

    def word(self, line: int, col: int) -> PointedAt | None:
        """The name at a place, or right before it; none in comments and texts."""
        if not self._documented < line <= len(self.lines):
            return None
        text = self.lines[line - 1]
        for found in _PIECE.finditer(text):
            if found.start() < col <= found.end() + 1 and found[0][0] not in "\"'#":
                called = text[found.end() :].lstrip().startswith("(")
                return PointedAt(found[0], Span(line, found.start() + 1, found.end() + 1), called)
        return None

    # ---- what it is --------------------------------------------------------------------------

    def hover(self, word: PointedAt) -> str:
        """Markdown: how it is declared or set, its shape, what it means; "" for nothing."""
        own = self._own(word.text)
        library = _of_library(word.text)
        if word.called and word.text in SIGNATURES and not self._is_declared(word.text):
            return library
        return own or library

    def _own(self, name: str) -> str:
        if self.spec is None:
            return ""
        if name == self.spec.name:
            return f"```rnn\ncell: {name}\n```\n{self.spec.doc.strip()}".strip()
        parts: list[str] = []
        declaration = self.spec.find(name)
        setter = self._setters.get(name)
        spans = [declaration.span] if declaration is not None else []
        if setter is not None:
            spans.append(setter[1])
        for span in spans:
            parts += self._logical(span.line)
        if not parts:
            return ""
        said = ["\n".join(["```rnn", *parts, "```"])]
        shape = self._shape(name)
        if shape:
            said.append(f"{declaration.kind if declaration else 'value'} of shape `{shape}`")
        if isinstance(declaration, ArrayDecl) and declaration.initializer is not None:
            initializer = declaration.initializer.name
            said.append(f"`{initializer}`: {meanings.INITIALIZERS.get(initializer, '')}")
        return "\n\n".join(said)

    def _logical(self, line: int) -> list[str]:
        """The line, with those it goes on in: as long as brackets are open."""
        taken: list[str] = []
        depth = 0
        for text in self.lines[line - 1 : line + 19]:
            taken.append(text)
            plain = re.sub(r"#.*|\"[^\"]*\"|'[^']*'", "", text)
            depth += sum((c in "([{") - (c in ")]}") for c in plain)
            if depth <= 0:
                break
        return taken

    def _shape(self, name: str) -> str:
        """As [features, 4 * units], where it is known."""
        equations = self._equations
        if equations is None:
            return ""
        shape = equations.shapes.get(name)
        if shape is None:
            found = [v for (n, _), v in equations.values.items() if n == name]
            if not found or not isinstance(found[0], Value):
                return ""
            shape = found[0].type.shape
        return f"[{', '.join(map(str, shape))}]"

    def _is_declared(self, name: str) -> bool:
        return self.spec is not None and self.spec.find(name) is not None

    # ---- where it comes from -------------------------------------------------------------------

    def definitions(self, word: PointedAt) -> list[Span]:
        """Where a name is declared, and where it is set."""
        if self.spec is None:
            return []
        found = [d.span for d in self.spec.declarations if d.name == word.text][:1]
        if word.text in self._setters:
            found.append(self._setters[word.text][1])
        return found

    # ---- what may stand there ------------------------------------------------------------------

    def offers(self, line: int, col: int) -> list[Offer]:
        """What may be written at a place; the editor picks those that begin as the word does."""
        if not self._documented < line <= len(self.lines):
            return []
        before = self.lines[line - 1][: col - 1]
        if "#" in re.sub(r'"[^"]*"|\'[^\']*\'', "", before):
            return []
        if _KIND_WANTED.match(before):
            named = before.split(":")[0].strip() == "cell"
            return [] if named else [Offer(k, "kind", KIND_MEANINGS[k]) for k in DECLARES[1:]]
        if _INITIALIZER_WANTED.match(before):
            return [
                Offer(n, "initializer", meanings.INITIALIZERS.get(n, ""))
                for n in sorted(INITIALIZERS)
            ]
        if _FUNCTION_WANTED.match(before):
            return [*_functions(), Offer("lambda", "keyword")]
        declared = [Offer(n, k) for n, k in self._names()]
        if _SIZE_WANTED.match(before):
            return [o for o in declared if o.kind == "size"]
        return [*declared, *_functions(), *(Offer(w, "keyword") for w in (*KEYWORDS, *CONSTANTS))]

    def _names(self) -> Iterator[tuple[str, str]]:
        if self.spec is None:
            return
        kinds = {d.name: d.kind for d in self.spec.declarations}
        yield from kinds.items()
        yield from ((name, "value") for name in self._setters if name not in kinds)

    # ---- what would mend it --------------------------------------------------------------------

    def mends(self, first: int, last: int) -> list[Mend]:
        """Of the mistakes on these lines that say how."""
        wanted = (d for d in self.diagnostics if first <= d.span.line <= last)
        return [mend for d in wanted for mend in self._mends(d)]

    def _mends(self, d: Diagnostic) -> Iterator[Mend]:
        span = d.span
        meant = _MEANT.search(d.help)
        if meant:
            name = re.match(r"\w+", self.lines[span.line - 1][span.col - 1 :])
            if name:
                place = Span(span.line, span.col, span.col + len(name[0]))
                yield Mend(f"write {meant[1]}", d, place, meant[1])
            return
        written = _WRITTEN.search(d.help) if d.code in _REPLACED else None
        if written:
            for text in filter(None, written.groups()):
                yield Mend(f"write {text}", d, span, text)
        declared = _DECLARED.search(d.help)
        if declared:
            at = self._first_declaration()
            yield Mend(f"declare {declared[1]}", d, Span(at, 1, 1), f"{declared[1]}\n")

    def _first_declaration(self) -> int:
        """The line that a new declaration is put before."""
        lines = [d.span.line for d in self.spec.declarations] if self.spec is not None else []
        return min(lines, default=len(self.lines))


def _functions() -> list[Offer]:
    return [Offer(n, "function", meanings.FUNCTIONS.get(n, "")) for n in sorted(SIGNATURES)]


def _of_library(name: str) -> str:
    """A function's, an initializer's or a kind's line."""
    if name in SIGNATURES:
        return f"```rnn\n{name}{SIGNATURES[name]}\n```\n{meanings.FUNCTIONS.get(name, '')}"
    if name in INITIALIZERS:
        return f"```rnn\n{name}\n```\n{meanings.INITIALIZERS.get(name, '')}"
    if name in KIND_MEANINGS:
        return f"```rnn\n{name}\n```\n{KIND_MEANINGS[name]}"
    return ""
