"""`name: kind[shape] = value` -> a Declaration.

Non-Goals: whether the names in shapes exist (`names`), their values (`elaborate`).
"""

from __future__ import annotations

import ast

from rnncc.common.unrolling import fits_unroll
from rnncc.frontend.expressions import Reader
from rnncc.frontend.library import INITIALIZERS, RESERVED
from rnncc.frontend.spec import (
    ArrayDecl,
    Bad,
    Call,
    Declaration,
    FunctionDecl,
    Initializer,
    Layout,
    LayoutChoice,
    Name,
    Number,
    OptionDecl,
    RateDecl,
    Shape,
    SizeDecl,
    Text,
    Unary,
)
from rnncc.ir.program import Span

ARRAYS = ("input", "context", "state", "weight", "constant")
KINDS = ("size", *ARRAYS, "function", "option", "rate")


def read_declaration(node: ast.AnnAssign, reader: Reader) -> Declaration | None:
    """The declaration, or None when it was too wrong to be one; mistakes are reported."""
    target = node.target
    if not isinstance(target, ast.Name):
        reader.bad("E217", target)
        return None
    name, span = target.id, reader.span(target)
    if not reader.name(name, span):
        return None
    if name in RESERVED:
        reader.bad("E205", target, name=name)
    layouts = _layout(node.annotation, reader)
    if layouts is None:
        return None
    kind, layout = layouts
    if kind in ARRAYS:
        return _array(kind, name, span, layout or Shape((), span), node, reader)
    if layout is not None:
        reader.bad("E206", node.annotation, kind=kind)
    if kind == "size":
        return SizeDecl(name, span, reader.read(node.value) if node.value else None)
    if node.value is None:
        examples = {"function": "tanh", "option": "True", "rate": "0"}
        reader.bad(
            "E208", target, kind=kind, name=name, help=f"as in {name}: {kind} = {examples[kind]}"
        )
        return None
    return _scalar(kind, name, span, node.value, reader)


def _layout(node: ast.expr, reader: Reader) -> tuple[str, Layout | None] | None:
    """The kind and shape an annotation names; shape None when it is written without brackets."""
    match node:
        case ast.Name():
            return (node.id, None) if _known(node.id, node, reader) else None
        case ast.Subscript(value=ast.Name(id=kind)):
            if not _known(kind, node.value, reader):
                return None
            items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return kind, Shape(tuple(map(reader.read, items)), reader.span(node))
        case ast.IfExp():
            yes, no = _layout(node.body, reader), _layout(node.orelse, reader)
            condition = reader.read(node.test)
            if yes is None or no is None:
                return None
            if yes[0] != no[0]:
                reader.bad("E215", node, yes=yes[0], no=no[0])
                return None
            if yes[0] not in ARRAYS:
                return yes
            span = reader.span(node)
            empty = Shape((), span)
            return yes[0], LayoutChoice(condition, yes[1] or empty, no[1] or empty, span)
    reader.bad("E217", node, help="as in x: input[features]")
    return None


def _known(kind: str, node: ast.AST, reader: Reader) -> bool:
    if kind in KINDS:
        return True
    reader.bad(
        "E201",
        node,
        kind=kind,
        help=reader.errors.nearest(kind, KINDS) or f"one of {', '.join(KINDS)}",
    )
    return False


def _array(
    kind: str, name: str, span: Span, layout: Layout, node: ast.AnnAssign, reader: Reader
) -> Declaration:
    if node.value is None:
        return ArrayDecl(kind, name, span, layout)
    if kind in ("input", "context"):
        reader.bad("E207", node.value, kind=kind)
        return ArrayDecl(kind, name, span, layout)
    value = reader.read(node.value)
    if kind == "state":
        if isinstance(value, Name):
            return ArrayDecl(kind, name, span, layout, initial=value)
        if not isinstance(value, Bad):
            reader.bad("E212", node.value)
        return ArrayDecl(kind, name, span, layout)
    return ArrayDecl(kind, name, span, layout, _initializer(value, node.value, reader))


def _literal(value: object) -> int | float | bool | str | None:
    match value:
        case Number() | Text():
            return value.value
        case Unary(op="-", operand=Number(value=number)):
            return -number
    return None


def _initializer(value: object, node: ast.expr, reader: Reader) -> Initializer | None:
    span = reader.span(node)
    number = _literal(value)
    if isinstance(number, int | float):
        return Initializer("constant", ((None, number),), span)
    if isinstance(value, Name):
        name, arguments = value.name, []
    elif isinstance(value, Call):
        name = value.function
        arguments = [(None, a) for a in value.args] + [(k.name, k.value) for k in value.keywords]
    else:
        if not isinstance(value, Bad):
            reader.bad("E211", node, name=reader.text(node))
        return None
    if name not in INITIALIZERS:
        reader.bad("E211", node, name=name, help=reader.errors.nearest(name, INITIALIZERS))
        return None
    args = [(k, _literal(v), v) for k, v in arguments]
    for _, literal, v in args:
        if literal is None and not isinstance(v, Bad):
            reader.errors.add("E214", v.span)
    return Initializer(name, tuple((k, a) for k, a, _ in args if a is not None), span)


def _scalar(kind: str, name: str, span: Span, node: ast.expr, reader: Reader) -> Declaration | None:
    if kind == "function":
        if isinstance(node, ast.Lambda):
            return FunctionDecl(name, span, reader.function(node))
        value = reader.read(node)
        if isinstance(value, Name | Bad):
            return FunctionDecl(name, span, value)
        reader.bad("E213", node)
        return None
    value = reader.read(node)
    literal = _literal(value)
    if kind == "option":
        if name == "unroll" and not (isinstance(value, Bad) or fits_unroll(literal)):
            reader.bad("E219", node)
            return None
        if isinstance(value, Name):
            return OptionDecl(name, span, False, rate=value)
        if literal is None:
            if not isinstance(value, Bad):
                reader.bad("E209", node)
            return None
        return OptionDecl(name, span, literal)
    numeric = isinstance(literal, int | float) and not isinstance(literal, bool)
    if not numeric or not 0 <= literal < 1:  # type: ignore[operator]
        if not isinstance(value, Bad):
            reader.bad("E210", node, text=reader.text(node))
        return None
    return RateDecl(name, span, float(literal))  # type: ignore[arg-type]
