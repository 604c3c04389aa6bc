"""A cell's text -> the same text as the built-in cells are laid out.

    z=tanh(x[t]@W+h[t - 1] @U)#new    ->    z = tanh(x[t] @ W + h[t-1] @ U)  # new

Spaces, blank lines and indents are the formatter's; comments, strings, the order of lines and where
an author breaks a line stay. Times are written tight, `x[t-1]`, everything else as PEP 8 has it.
What comes out has the tokens, the comments and the spec of what went in, or nothing comes out.

Non-Goals: breaking long lines; mistakes of names and shapes, which stay as they are.
"""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from rnncc.frontend.diagnostics import Reporter, SpecError
from rnncc.frontend.logical_lines import LogicalLine, logical_lines
from rnncc.frontend.parse import parse
from rnncc.frontend.spec import CellSpec
from rnncc.ir.program import Span

INDENT = "    "  # of a line that goes on, for each bracket that is open
_UNREADABLE = ("E0", "E1", "E2")  # codes of lines that no one can lay out
_OPENS, _CLOSES = "([{", ")]}"
_SIGNS = ("+", "-", "~")
_LAYOUT = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def formatted(text: str, filename: str = "<text>") -> str:
    """The text, laid out; SpecError where a line can't be read. Names may be wrong."""
    before = _read(text, filename)
    made = _whole(before.text)
    _hold_together(before, made)
    return made


def _whole(text: str) -> str:
    return "\n".join(_tidy(_laid_out(text.split("\n")))) + "\n"


def _read(text: str, filename: str) -> CellSpec:
    """What the text says, as far as names go; SpecError for lines that aren't of the language."""
    try:
        return parse(text, filename)
    except SpecError as error:
        wrong = [d for d in error.diagnostics if d.code.startswith(_UNREADABLE)]
        if wrong or error.partial is None:
            raise SpecError(wrong or error.diagnostics, error.text, filename) from None
        partial: CellSpec = error.partial
        return partial


# ---- lines -----------------------------------------------------------------------------------


def _laid_out(lines: list[str]) -> Iterator[str]:
    """Physical lines of the result; blank ones as they were."""
    at = 0
    for line in logical_lines(lines, Reporter()):
        yield from map(_comment_or_blank, lines[at : line.first - 1])
        yield from _line(line)
        at = line.first + line.text.count("\n")
    yield from map(_comment_or_blank, lines[at:])


def _comment_or_blank(line: str) -> str:
    return _comment(line.strip()) if line.strip() else ""


def _comment(text: str) -> str:
    """`#word` -> `# word`; rulers such as #### stay, as do indents."""
    rest = text.lstrip("#")
    marks = text[: len(text) - len(rest)]
    return f"{marks} {rest}" if rest[:1].isalnum() else text


def _tidy(lines: Iterator[str]) -> Iterator[str]:
    """One blank line where there are several, none at either end."""
    blank = began = False
    for line in lines:
        if not line:
            blank = began
            continue
        if blank:
            yield ""
        blank, began = False, True
        yield line


# ---- one logical line ------------------------------------------------------------------------


@dataclass
class _Bracket:
    mark: str
    slices: bool = False  # holds a colon of its own: begin:end
    wide: bool = False  # and operators: begin + 1 : end


@dataclass
class _Writer:
    """Tokens in, physical lines out."""

    lines: list[str] = field(default_factory=lambda: [""])
    open: list[_Bracket] = field(default_factory=list)
    before: list[str] = field(default_factory=list)  # tokens written, without comments
    unary: bool = False  # the last token is a sign
    lambdas: int = 0  # whose colon is still to come

    def new_line(self, end: str = "") -> None:
        self.lines[-1] += end
        self.lines.append("")

    def write(self, text: str, apart: bool, *, goes_on: bool = False) -> None:
        if self.lines[-1]:
            self.lines[-1] += " " * apart
        elif len(self.lines) > 1:
            depth = len(self.open) - (text in _CLOSES)
            self.lines[-1] = INDENT * (depth + goes_on)
        self.lines[-1] += text


def _line(line: LogicalLine) -> list[str]:
    tokens = [t for t in _tokens(line.text) if t.type not in _LAYOUT[1:]]
    writer, row = _Writer(), 1
    brackets = _brackets(tokens)
    for i, token in enumerate(tokens):
        if token.type == tokenize.NL:
            if writer.lines[-1]:
                writer.new_line()
            row = token.start[0] + 1
            continue
        broken = token.start[0] > row and bool(writer.before)  # by a backslash
        if broken:
            writer.new_line(" \\")
        row = token.end[0]
        if token.type == tokenize.COMMENT:
            if writer.lines[-1]:
                writer.lines[-1] += "  "
            writer.write(_comment(token.string.strip()), False)
            continue
        _write(writer, tokens, i, brackets, goes_on=broken and not writer.open)
    return [*"\n".join(writer.lines).rstrip("\n").split("\n")]


def _tokens(text: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(text).readline))


def _brackets(tokens: list[tokenize.TokenInfo]) -> dict[int, _Bracket]:
    """Each opening bracket, by its place among the tokens."""
    found: dict[int, _Bracket] = {}
    inside: list[_Bracket] = []
    lambdas = 0
    for i, token in enumerate(tokens):
        text = token.string
        if token.type == tokenize.NAME:
            lambdas += text == "lambda"
        if token.type != tokenize.OP:
            continue
        if text in _OPENS:
            found[i] = _Bracket(text)
            inside.append(found[i])
        elif text in _CLOSES:
            inside.pop()
        elif text == ":" and lambdas:
            lambdas -= 1
        elif inside and inside[-1].mark == "[":
            inside[-1].slices |= text == ":"
            inside[-1].wide |= text not in (":", ",") and not _is_sign(tokens, i)
    return found


def _write(
    writer: _Writer,
    tokens: list[tokenize.TokenInfo],
    i: int,
    brackets: dict[int, _Bracket],
    *,
    goes_on: bool,
) -> None:
    text = tokens[i].string
    is_sign = _is_sign(tokens, i)
    if text in _CLOSES and tokens[i].type == tokenize.OP:
        writer.write(text, False, goes_on=goes_on)
        writer.open.pop()
    else:
        writer.write(text, _is_apart(writer, tokens, i, brackets), goes_on=goes_on)
    if i in brackets:
        writer.open.append(brackets[i])
    if tokens[i].type == tokenize.NAME and text == "lambda":
        writer.lambdas += 1
    elif text == ":" and writer.lambdas:
        writer.lambdas -= 1
    writer.before.append(text)
    writer.unary = is_sign


def _is_sign(tokens: list[tokenize.TokenInfo], i: int) -> bool:
    """Whether a + or - has nothing to its left."""
    if tokens[i].string not in _SIGNS or tokens[i].type != tokenize.OP:
        return False
    last = _previous(tokens, i)
    if last is None or (last.type == tokenize.OP and last.string not in _CLOSES):
        return True
    return last.type == tokenize.NAME and keyword.iskeyword(last.string)


def _previous(tokens: list[tokenize.TokenInfo], i: int) -> tokenize.TokenInfo | None:
    said = (tokens[k] for k in range(i - 1, -1, -1))
    return next((t for t in said if t.type not in (tokenize.NL, tokenize.COMMENT)), None)


def _is_apart(
    writer: _Writer, tokens: list[tokenize.TokenInfo], i: int, brackets: dict[int, _Bracket]
) -> bool:
    """Whether a space stands before a token that isn't the first of its line."""
    token, last = tokens[i], writer.before[-1] if writer.before else ""
    text, is_op = token.string, token.type == tokenize.OP
    inside = writer.open[-1] if writer.open else None
    if not last or last in _OPENS or writer.unary or (is_op and text in (",", ";")):
        return False
    if _is_time(tokens, i):
        return False
    in_call = inside is not None and inside.mark == "(" and not writer.lambdas
    if in_call and "=" in (last, text):
        return False
    if ":" in (last, text) and (is_op or last == ":"):
        return _is_apart_at_colon(writer, text, last, inside)
    if i in brackets and text in "([":  # a call, an index
        return not (_ends_value(last) or last in _CLOSES)
    return True


def _is_apart_at_colon(writer: _Writer, text: str, last: str, inside: _Bracket | None) -> bool:
    if inside is not None and inside.slices and not writer.lambdas:
        tight = last in (",", ":") and text in (",", ":")
        return (inside.wide and not tight) or (last == "," and text == ":")
    return last == ":"


def _ends_value(text: str) -> bool:
    return (text.isidentifier() and not keyword.iskeyword(text)) or text[-1] in "\"'"


def _is_time(tokens: list[tokenize.TokenInfo], i: int) -> bool:
    """Whether a token is the sign or the number of `[t-1]`."""
    for begin in (i - 2, i - 3):
        if begin < 0:
            continue
        words = [t.string for t in tokens[begin : begin + 5]]
        if len(words) == 5 and words[:2] == ["[", "t"] and words[2] in "+-" and words[4] == "]":
            return tokens[begin + 3].type == tokenize.NUMBER
    return False


# ---- the same meaning ------------------------------------------------------------------------


def _hold_together(before: CellSpec, made: str) -> None:
    """RuntimeError where the laid out text isn't the one that was given, or isn't at rest."""
    try:
        same = _meaning(before) == _meaning(_read(made, before.filename))
    except SpecError:
        same = False
    if not same or _said(before.text) != _said(made) or _whole(made) != made:
        raise RuntimeError(
            f"{before.filename}: laying it out would change what it says, so it is left as it is; "
            "please report the text"
        )


def _meaning(value: Any) -> Any:
    """A spec without its places and its text."""
    if isinstance(value, Span):
        return None
    if isinstance(value, tuple):
        return tuple(map(_meaning, value))
    if is_dataclass(value):
        left_out = ("text", "filename")
        kept = (f.name for f in fields(value) if f.name not in left_out)
        return (type(value).__name__, *(_meaning(getattr(value, n)) for n in kept))
    return (type(value).__name__, value)


def _said(text: str) -> list[str]:
    """Every token and comment, in order."""
    found: list[str] = []
    lines, at = text.split("\n"), 0
    for line in logical_lines(lines, Reporter()):
        found += [_comment(c.strip()) for c in lines[at : line.first - 1] if c.strip()]
        for token in _tokens(line.text):
            if token.type == tokenize.COMMENT:
                found.append(_comment(token.string.strip()))
            elif token.type not in _LAYOUT:
                found.append(token.string)
        at = line.first + line.text.count("\n")
    return found + [_comment(c.strip()) for c in lines[at:] if c.strip()]
