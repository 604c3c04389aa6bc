"""Text -> CellSpec: one `ast.parse` a logical line, never executed.

Every mistake of reading and naming is collected into one `SpecError`, which also carries what
could be read (`partial`), so that later checks can add theirs
(`lowering.cell_interface.check_text`).

Non-Goals: shapes and types; cycles, which depend on options (`lowering.lower`).
"""

from __future__ import annotations

import ast
import re
import warnings
from keyword import iskeyword
from pathlib import Path

from rnncc.frontend.declarations import KINDS, read_declaration
from rnncc.frontend.diagnostics import Diagnostic, Reporter, SpecError
from rnncc.frontend.expressions import Reader, symbol
from rnncc.frontend.limits import (
    CHARACTERS,
    DECLARATIONS,
    EQUATIONS,
    EXPRESSIONS,
    LEVELS,
    LINE_CHARACTERS,
)
from rnncc.frontend.logical_lines import LogicalLine, logical_lines
from rnncc.frontend.names import check_names
from rnncc.frontend.spec import Bad, CellSpec, Declaration, Equation, Expr, Lambda, Target
from rnncc.ir.program import Span

_STATEMENTS = {
    "for": "a for loop",
    "while": "a while loop",
    "if": "an if statement",
    "elif": "elif",
    "else": "else",
    "def": "a function definition",
    "class": "a class",
    "import": "import",
    "from": "import",
    "with": "with",
    "del": "del",
    "assert": "assert",
    "raise": "raise",
    "try": "try",
    "except": "except",
    "finally": "finally",
    "global": "global",
    "nonlocal": "nonlocal",
    "pass": "pass",
    "async": "async",
    "break": "break",
    "continue": "continue",
}
_HINTS = {"if": "write a if option else b", "def": "declare it: f: function = lambda v: ..."}
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # no file of UTF-8 holds half a pair
_BOUND = re.compile(r"[A-Za-z_]\w*")
# What a line declares, sets, or calls the cell, whatever Python takes that for.
_NAMED = re.compile(
    rf"cell\s*:\s*(?P<cell>\w+)\s*$"
    rf"|(?P<name>\w+)\s*(?::\s*(?:{'|'.join(KINDS)})\b|(?:\[t\]\s*)?=(?!=))"
)


def parse(text: str, filename: str = "<text>") -> CellSpec:
    """The cell a text describes; SpecError with all its mistakes otherwise."""
    errors = Reporter()
    if len(text) > CHARACTERS:
        errors.too_many(Span(1, 1, 2), len(text), "characters of a text", CHARACTERS)
        raise SpecError(errors.diagnostics, text[:CHARACTERS], filename)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        errors.add("E005", Span(1, 1, 2))
        raise SpecError(errors.diagnostics, text, filename)
    wrong = _NO_TEXT.search(text)
    if wrong:
        _not_text(errors, text[: wrong.start()])
        raise SpecError(errors.diagnostics, _NO_TEXT.sub("\ufffd", text), filename)
    spec = _Parser(text, filename, errors).parse()
    if errors.stopped:
        raise SpecError(errors.diagnostics, text, filename)
    check_names(spec, errors)
    if errors.diagnostics:
        raise SpecError(errors.diagnostics, text, filename, spec)
    return spec


def parse_file(path: str | Path) -> CellSpec:
    """The cell a .rnn file describes; a file that can't be read is a SpecError, too."""
    return parse(read_text(path), str(path))


def read_text(path: str | Path) -> str:
    """What a .rnn file holds; SpecError where that can't be read, or is no text."""
    path = Path(path)
    errors = Reporter()
    start = Span(1, 1, 2)
    if path.is_dir():
        errors.add("E002", start, path=path)
    elif path.exists() and not path.is_file():  # reading a pipe may wait for ever
        errors.add("E001", start, path=path, reason="it is not a file")
    elif path.suffix != ".rnn":
        errors.add("E003", start, path=path, help="cells are files called *.rnn")
    if errors.diagnostics:
        raise SpecError(errors.diagnostics, "", str(path))
    try:
        with path.open("rb") as file:
            data = file.read(4 * CHARACTERS + 4)  # of UTF-8, with a mark in front
    except OSError as error:
        errors.add("E001", start, path=path, reason=error.strerror or str(error))
        raise SpecError(errors.diagnostics, "", str(path)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _not_text(errors, data[: error.start].decode("utf-8-sig", errors="replace"))
        readable = data.decode("utf-8-sig", errors="replace")
        raise SpecError(errors.diagnostics, readable, str(path)) from None


def _not_text(errors: Reporter, before: str) -> None:
    """Reports the character behind these."""
    line, col = before.count("\n") + 1, len(before) - before.rfind("\n")
    errors.add("E004", Span(line, col, col + 1))


def parse_function(text: str, name: str = "function") -> Lambda:
    """A `lambda v: ...` given as text in place of a declared function."""
    errors = Reporter()
    if len(text) > LINE_CHARACTERS:
        errors.too_many(Span(1, 1, 2), len(text), "characters of a line", LINE_CHARACTERS)
        raise SpecError(errors.diagnostics, text[:LINE_CHARACTERS], f"<{name}>")
    line = LogicalLine(1, text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        node = _syntax(line, errors)
    result: Lambda | Bad | None = None
    if len(node) == 1 and isinstance(node[0], ast.Expr):
        value = node[0].value
        reader = Reader(line, errors)
        if _levels(value) > LEVELS:
            errors.add("E118", Span(1, 1, 2))
        elif isinstance(value, ast.Lambda):
            result = reader.function(value)
        else:
            reader.bad("E213", value)
    elif not errors.diagnostics:
        errors.add("E213", Span(1, 1, 1 + max(1, len(text))))
    if errors.diagnostics or not isinstance(result, Lambda):
        raise SpecError(errors.diagnostics, text, f"<{name}>")
    return result


def _syntax(line: LogicalLine, errors: Reporter) -> list[ast.stmt]:
    """The statements of a logical line; none when it isn't Python."""
    try:
        return ast.parse(line.text).body
    except SyntaxError as error:
        physical = line.text.split("\n")
        number = min(max(error.lineno or 1, 1), len(physical))
        col = min(max(error.offset or 1, 1), len(physical[number - 1]) + 1)
        end = error.end_offset or 0
        same = (error.end_lineno or number) == number
        span = line.span(number, col, end if same and end > col else col + 1)
        errors.add("E101", span, reason=_reason(error.msg))
    except (RecursionError, MemoryError):
        errors.add("E118", line.span(1, 1, 2))
    except ValueError as error:
        errors.add("E101", line.span(1, 1, 2), reason=_reason(str(error)))
    return []


def _reason(message: str) -> str:
    """Python's, without what it advises those to do who write Python."""
    return "a number has too many digits" if "integer string conversion" in message else message


def _levels(node: ast.AST) -> int:
    """How many levels of expressions there are in a statement or an expression."""
    levels, nodes = -1, [node]
    while nodes:
        nodes = [c for n in nodes for c in ast.iter_child_nodes(n)]
        levels += 1
    return levels


class _Parser:
    def __init__(self, text: str, filename: str, errors: Reporter) -> None:
        self.text, self.filename, self.errors = text, filename, errors
        self.name, self.doc = "", ""
        self.declarations: list[Declaration] = []
        self.equations: list[Equation] = []
        self.returns: tuple[Expr, ...] | None = None
        self.returns_span = Span(1, 1, 2)
        self.poisoned: set[str] = set()
        self.mentioned: set[str] = set()
        self.named: Span | None = None
        self.in_refused_block = False
        self.first = True
        self.expressions = 0

    def parse(self) -> CellSpec:
        lines = self.text.split("\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, of what the language refuses anyway
            self._lines(lines)
        if self.errors.stopped:
            return CellSpec("cell", "", self.text, self.filename, (), (), (), Span(1, 1, 2))
        last = len(lines) if lines[-1].strip() or len(lines) == 1 else len(lines) - 1
        if not self.named:
            if not {"cell"} & self.poisoned:
                self.errors.add("E202", Span(1, 1, 2), help="write cell: Name")
            self.name = "cell"
        if self.returns is None and "return" not in self.poisoned:
            self.errors.add(
                "E601",
                Span(last, 1, max(2, len(lines[last - 1].rstrip()) + 1)),
                help="the last line is return h[t]",
            )
        return CellSpec(
            self.name,
            self.doc,
            self.text,
            self.filename,
            tuple(self.declarations),
            tuple(self.equations),
            self.returns or (),
            self.returns_span,
            frozenset(self.poisoned),
            frozenset(self.mentioned),
        )

    def _lines(self, lines: list[str]) -> None:
        for line in logical_lines(lines, self.errors):
            before = len(self.errors.diagnostics)
            self._line(line)
            if self.errors.stopped:
                break
            if line.broken or len(self.errors.diagnostics) > before:
                self._poison(line)
            self.first = False

    def _poison(self, line: LogicalLine) -> None:
        """Remember what a wrong line would have named, so that its uses aren't reported too."""
        head = re.split(r"[:=]", line.text, maxsplit=1)[0]
        self.poisoned |= set(_BOUND.findall(head))
        self.mentioned |= set(_BOUND.findall(line.text))

    def _line(self, line: LogicalLine) -> None:
        if line.indent:
            if self.in_refused_block:
                return
            self.errors.add("E102", Span(line.first, 1, line.indent + 1))
        self.in_refused_block = False
        named = _NAMED.match(line.text)
        if named and iskeyword(named["name"] or named["cell"]):
            group = "name" if named["name"] else "cell"
            start, end = named.span(group)
            self.errors.add("E218", line.span(1, start + 1, end + 1), name=named[group])
            return
        word = re.match(r"[a-z]+\b(?!\s*[=:,\[(])", line.text)
        keyword = word.group() if word else line.text.split(":")[0].strip()
        if _STATEMENTS.get(keyword):
            self.in_refused_block = True
            self.errors.add(
                "E103",
                line.span(1, 1, 1 + len(keyword)),
                what=_STATEMENTS[keyword],
                help=_HINTS.get(keyword, ""),
            )
            return
        if line.broken:
            return
        if (length := len(line.text)) > LINE_CHARACTERS:
            here = line.span(1, 1, 2)
            self.errors.too_many(here, length, "characters of a line", LINE_CHARACTERS)
            return
        body = _syntax(line, self.errors)
        reader = Reader(line, self.errors)
        for extra in body[1:2]:
            self.errors.add("E108", reader.span(extra))
        for node in body[:1]:
            if not self._is_too_much(node, line, reader):
                self._statement(node, reader)
                self.expressions += reader.count

    def _is_too_much(self, node: ast.stmt, line: LogicalLine, reader: Reader) -> bool:
        """Whether the line goes beyond a limit; reported."""
        if len(line.text) > LEVELS and _levels(node) > LEVELS:
            # Where Python's own limit, which is another one in every process, would say it.
            self.errors.add("E118", reader.span(getattr(node, "targets", [node])[0]))
            return True
        declares = isinstance(node, ast.AnnAssign)
        for count, what, most in (
            (self.expressions, "expressions", EXPRESSIONS),
            (len(self.declarations) + declares, "declarations", DECLARATIONS),
            (len(self.equations) + (not declares), "equations", EQUATIONS),
        ):
            if count > most:
                self.errors.too_many(line.span(1, 1, 2), count, what, most)
                self.errors.stopped = True
        return self.errors.stopped

    def _statement(self, node: ast.stmt, reader: Reader) -> None:
        span = reader.span(node)
        if self.returns is not None and not isinstance(node, ast.Return):
            reader.bad("E603", node)
        match node:
            case ast.Expr(value=ast.Constant(value=str() as doc)) if self.first:
                self.doc = doc
            case ast.Expr():
                reader.read(node.value)
                reader.bad("E114", node, help="name it: y = ...")
            case ast.AnnAssign():
                self._declaration(node, reader)
            case ast.Assign(targets=[target]):
                targets = self._targets(target, reader)
                value = reader.read(node.value)
                if targets:
                    self.equations.append(Equation(targets, value, span))
            case ast.Assign():
                reader.bad("E106", node)
            case ast.AugAssign():
                reader.bad("E107", node, op=f"{symbol(node.op)}=")
            case ast.Return():
                self._return(node, reader, span)
            case _:
                reader.bad("E103", node, what=type(node).__name__.lower())

    def _declaration(self, node: ast.AnnAssign, reader: Reader) -> None:
        if isinstance(node.target, ast.Name) and node.target.id == "cell":
            if self.named:
                reader.bad("E203", node)
            elif not isinstance(node.annotation, ast.Name) or node.value:
                reader.bad("E216", node.annotation, help="as in cell: LSTM")
            elif reader.name(node.annotation.id, reader.span(node.annotation)):
                self.name, self.named = node.annotation.id, reader.span(node)
            return
        declaration = read_declaration(node, reader)
        if declaration is not None:
            self.declarations.append(declaration)

    def _targets(self, node: ast.expr, reader: Reader) -> tuple[Target, ...]:
        nodes = node.elts if isinstance(node, ast.Tuple) and node.elts else [node]
        targets = [self._target(n, reader) for n in nodes]
        return tuple(t for t in targets if t) if all(targets) else ()

    def _target(self, node: ast.expr, reader: Reader) -> Target | None:
        span = reader.span(node)
        match node:
            case ast.Name():
                return Target(node.id, None, span) if reader.name(node.id, span) else None
            case ast.Subscript(value=ast.Name(id=name), slice=index):
                before = len(self.errors.diagnostics)
                back = reader.time(index)
                if back is not None:
                    ok = reader.name(name, reader.span(node.value))
                    return Target(name, back, span) if ok else None
                if len(self.errors.diagnostics) > before:
                    return None
        reader.bad("E115", node, text=reader.text(node), help="set a name, or a state as in h[t]")
        return None

    def _return(self, node: ast.Return, reader: Reader, span: Span) -> None:
        if self.returns is not None:
            reader.bad("E602", node)
            return
        self.returns_span = span
        if node.value is None:
            self.returns = ()
            reader.bad("E601", node, help="as in return h[t]")
            return
        value = node.value
        items = value.elts if isinstance(value, ast.Tuple) and value.elts else [value]
        self.returns = tuple(map(reader.read, items))


__all__ = ["Diagnostic", "SpecError", "parse", "parse_file", "parse_function", "read_text"]
