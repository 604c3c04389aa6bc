"""Nodes of Python's `ast` -> `Expr`, by a whitelist; everything else is refused by name.

Columns are characters of the user's line, not the bytes `ast` counts.

Non-Goals: names and shapes; nothing is ever executed.
"""

from __future__ import annotations

import ast
import math

from rnncc.frontend.diagnostics import Reporter
from rnncc.frontend.limits import NAME_CHARACTERS, STEPS, WHOLE
from rnncc.frontend.logical_lines import LogicalLine
from rnncc.frontend.spec import (
    Bad,
    Binary,
    Call,
    Conditional,
    Cut,
    Expr,
    Item,
    Keyword,
    Lambda,
    Name,
    Number,
    Text,
    Timed,
    TupleExpr,
    Unary,
)
from rnncc.ir.program import Span

# fmt: off
_BINARY: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Pow: "**",
    ast.Mod: "%", ast.MatMult: "@", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.Eq: "==", ast.NotEq: "!=", ast.And: "and", ast.Or: "or",
}
_REFUSED_OPS: dict[type, str] = {
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<",
    ast.RShift: ">>", ast.Invert: "~", ast.Is: "is", ast.IsNot: "is not", ast.In: "in",
    ast.NotIn: "not in",
}
_UNARY: dict[type, str] = {ast.USub: "-", ast.UAdd: "+", ast.Not: "not"}
_REFUSED: dict[type, tuple[str, str]] = {
    ast.NamedExpr: ("the walrus :=", "give it an equation of its own"),
    ast.JoinedStr: ("an f-string", ""),
    ast.Attribute: ("an attribute (a.b)", "functions are called by their bare names"),
    ast.ListComp: ("a comprehension", ""), ast.SetComp: ("a comprehension", ""),
    ast.DictComp: ("a comprehension", ""), ast.GeneratorExp: ("a comprehension", ""),
    ast.List: ("a list", "write (a, b)"), ast.Dict: ("a dict", ""), ast.Set: ("a set", ""),
    ast.Starred: ("unpacking with *", ""), ast.Await: ("await", ""), ast.Yield: ("yield", ""),
    ast.YieldFrom: ("yield", ""),
    ast.Lambda: ("a lambda here", "declare it: act: function = lambda v: ..."),
}
# fmt: on


def symbol(op: ast.AST) -> str:
    """How an operator is written."""
    return _BINARY.get(type(op)) or _REFUSED_OPS[type(op)]


class Reader:
    """Reads the expressions of one logical line."""

    def __init__(self, line: LogicalLine, errors: Reporter) -> None:
        self.line = line
        self.errors = errors
        self.count = 0  # of expressions read
        self._physical = line.text.split("\n")
        self._plain = len(self._physical) == 1 and line.text.isascii()
        self._columns: dict[int, list[int]] = {}  # of lines that aren't ASCII, by byte

    def _col(self, line: int, offset: int) -> int:
        text = self._physical[line - 1]
        if text.isascii():
            return offset + 1
        if line not in self._columns:
            widths = (len(c.encode(errors="surrogatepass")) for c in text)
            at = [i for i, width in enumerate(widths) for _ in range(width)]
            self._columns[line] = [*at, len(text)]
        return self._columns[line][offset] + 1

    def span(self, node: ast.AST) -> Span:
        if self._plain:
            shift = self.line.indent + 1
            begin, end = node.col_offset, node.end_col_offset  # type: ignore[attr-defined]
            return Span(self.line.first, begin + shift, max(end, begin + 1) + shift)
        line, end_line = node.lineno, node.end_lineno  # type: ignore[attr-defined]
        col = self._col(line, node.col_offset)  # type: ignore[attr-defined]
        if end_line != line:
            return self.line.span(line, col, len(self._physical[line - 1].rstrip()) + 1)
        return self.line.span(line, col, self._col(line, node.end_col_offset))  # type: ignore[attr-defined]

    def text(self, node: ast.AST) -> str:
        """What a node is written as; of more than one line, the first."""
        line = node.lineno  # type: ignore[attr-defined]
        begin = self._col(line, node.col_offset) - 1  # type: ignore[attr-defined]
        text = self._physical[line - 1]
        if node.end_lineno != line:  # type: ignore[attr-defined]
            return text[begin:]
        return text[begin : self._col(line, node.end_col_offset) - 1]  # type: ignore[attr-defined]

    def bad(self, code: str, node: ast.AST, help: str = "", **fields: object) -> Bad:
        span = self.span(node)
        self.errors.add(code, span, (), help, **fields)
        return Bad(span)

    def name(self, name: str, span: Span) -> bool:
        """True when the name is one a user may use."""
        if name == "t":
            self.errors.add("E117", span)
        elif name.startswith("_"):
            self.errors.add("E116", span, name=name)
        elif len(name) > NAME_CHARACTERS:
            self.errors.too_many(span, len(name), "characters of a name", NAME_CHARACTERS)
        else:
            return True
        return False

    def read(self, node: ast.expr) -> Expr:
        self.count += 1
        span = self.span(node)
        match node:
            case ast.Constant():
                return self._constant(node, span)
            case ast.Name():
                return Name(node.id, span) if self.name(node.id, span) else Bad(span)
            case ast.UnaryOp():
                if type(node.op) not in _UNARY:
                    return self.bad("E112", node, op=_REFUSED_OPS[type(node.op)])
                return Unary(_UNARY[type(node.op)], self.read(node.operand), span)
            case ast.BinOp():
                return self._binary(node, node.op, self.read(node.left), self.read(node.right))
            case ast.BoolOp():
                result = self.read(node.values[0])
                for value in node.values[1:]:
                    result = Binary(_BINARY[type(node.op)], result, self.read(value), span)
                return result
            case ast.Compare():
                if len(node.ops) > 1:
                    return self.bad("E109", node, help="write a < b and b < c")
                left, right = self.read(node.left), self.read(node.comparators[0])
                return self._binary(node, node.ops[0], left, right)
            case ast.IfExp():
                # In the order of the text, so that mistakes are, too.
                yes, condition, no = map(self.read, (node.body, node.test, node.orelse))
                return Conditional(condition, yes, no, span)
            case ast.Call():
                return self._call(node, span)
            case ast.Subscript():
                return self._subscript(node, span)
            case ast.Tuple():
                return TupleExpr(tuple(map(self.read, node.elts)), span)
        what, help = _REFUSED.get(type(node), (type(node).__name__, ""))
        return self.bad("E110", node, what=what, help=help)

    def _constant(self, node: ast.Constant, span: Span) -> Expr:
        value = node.value
        if isinstance(value, str):
            return Text(value, span)
        if isinstance(value, float) and not math.isfinite(value):
            return self.bad("E111", node, text=self.text(node))
        if isinstance(value, int) and abs(value) > WHOLE:
            return self.bad("E111", node, text=self.text(node)[:40], help="at most 2**53")
        if isinstance(value, bool | int | float):
            return Number(value, span)
        return self.bad("E113", node, text=self.text(node))

    def _binary(self, node: ast.expr, op: ast.AST, left: Expr, right: Expr) -> Expr:
        if type(op) not in _BINARY:
            return self.bad("E112", node, op=_REFUSED_OPS[type(op)])
        return Binary(_BINARY[type(op)], left, right, self.span(node))

    def _call(self, node: ast.Call, span: Span) -> Expr:
        if not isinstance(node.func, ast.Name):
            if isinstance(node.func, ast.Attribute):
                return self.read(node.func)
            return self.bad("E110", node.func, what="a call of anything but a name")
        where = self.span(node.func)
        named = self.name(node.func.id, where)
        args = tuple(map(self.read, node.args))
        keywords = []
        for keyword in node.keywords:
            value = self.read(keyword.value)
            if keyword.arg is None:
                return self.bad("E110", keyword.value, what="unpacking with **")
            keywords.append(Keyword(keyword.arg, value, self.span(keyword)))
        if not named:
            return Bad(span)
        return Call(node.func.id, args, tuple(keywords), span, where)

    def time(self, node: ast.expr) -> int | None:
        """How many steps back an index goes, or None when it is no time; reports odd times."""
        if isinstance(node, ast.Name) and node.id == "t":
            return 0
        if not any(isinstance(n, ast.Name) and n.id == "t" for n in ast.walk(node)):
            return None
        match node:
            case ast.BinOp(
                left=ast.Name(id="t"),
                op=ast.Sub() | ast.Add() as op,
                right=ast.Constant(value=k) as right,
            ) if type(k) is int and (k > 0):
                if k > STEPS:
                    self.bad("E317", node, k=self.text(right)[:20], most=STEPS)
                    return None
                return k if isinstance(op, ast.Sub) else -k
        self.bad("E306", node, help="as in x[t] or h[t-1]")
        return None

    def _subscript(self, node: ast.Subscript, span: Span) -> Expr:
        before = len(self.errors.diagnostics)
        back = self.time(node.slice)
        if len(self.errors.diagnostics) > before:
            return Bad(span)
        if back is not None:
            if isinstance(node.value, ast.Name):
                return self._timed(node.value, back, span)
            return self.bad("E306", node.slice, help="a time stands right after a name: h[t][0]")
        value = self.read(node.value)
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return Item(value, tuple(map(self._index, items)), span)

    def _index(self, node: ast.expr) -> Expr:
        if not isinstance(node, ast.Slice):
            return self.read(node)
        begin, end, step = (
            None if part is None else self.read(part)
            for part in (node.lower, node.upper, node.step)
        )
        return Cut(begin, end, step, self.span(node))

    def _timed(self, node: ast.Name, back: int, span: Span) -> Expr:
        return Timed(node.id, back, span) if self.name(node.id, self.span(node)) else Bad(span)

    def function(self, node: ast.Lambda) -> Lambda | Bad:
        """A declared lambda: plain parameters and one expression."""
        a = node.args
        if a.vararg or a.kwarg or a.kwonlyargs or a.defaults or a.posonlyargs or not a.args:
            return self.bad("E110", node, what="a lambda with anything but plain arguments")
        ok = [self.name(arg.arg, self.span(arg)) for arg in a.args]
        body = self.read(node.body)
        if not all(ok):
            return Bad(self.span(node))
        return Lambda(tuple(arg.arg for arg in a.args), body, self.span(node))
