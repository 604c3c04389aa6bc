"""Trees <-> the text of a `.rnn` file; a case is a text whose first comment is its call.

    # call: {'sizes': {'units': 3}, 'given': ['units'], 'shapes': [[2, 3]]}
    cell: Found
    ...

Non-Goals: mistakes: what is read here was written here, or by hand.
"""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tests.attack.cells.tree import (
    Apply,
    Array,
    Call,
    Case,
    Cell,
    Cut,
    Declaration,
    Equation,
    Expr,
    Function,
    Group,
    If,
    Item,
    Num,
    Ref,
    Scalar,
    Shape,
    Size,
    Word,
)

# Signs by how tightly they bind; "neg" and "not" are signs of one operand.
_LEVELS = (("or",), ("and",), ("not",), ("<", "<=", ">", ">=", "==", "!="), ("+", "-"))
_LEVELS = (*_LEVELS, ("*", "/", "//", "%", "@"), ("neg",), ("**",))
_LEVEL = {sign: level for level, signs in enumerate(_LEVELS) for sign in signs}
SIGNS = frozenset(_LEVEL)
_ATOM = len(_LEVELS)
_COMPARISON = _LEVEL["<"]


# ---- tree -> text ----------------------------------------------------------------------------


def text_of(cell: Cell) -> str:
    lines = [f"cell: {cell.name}", "", *map(_declaration, cell.declarations), ""]
    for equation in cell.equations:
        targets = ", ".join(f"{n}[t]" if timed else n for n, timed in equation.targets)
        lines.append(f"{targets} = {show(equation.value)}")
    lines.append(f"return {', '.join(map(show, cell.returns))}")
    return "\n".join(lines) + "\n"


def case_text(case: Case) -> str:
    return f"# call: {case.call.unlike_default()}\n{text_of(case.cell)}"


def normal(case: Case) -> Case:
    """The same, every node an object of its own."""
    return replace(case, cell=read_cell(text_of(case.cell)))


def show(expr: Expr) -> str:
    return _show(expr)[0]


def _show(expr: Expr) -> tuple[str, int]:
    """The text, and how tightly it binds."""
    match expr:
        case Num(value):
            return repr(value), _ATOM if value >= 0 else _LEVEL["neg"]
        case Word(value):
            return f'"{value}"', _ATOM
        case Ref(name, None):
            return name, _ATOM
        case Ref(name, back):
            return f"{name}[t-{back}]" if back else f"{name}[t]", _ATOM
        case Apply(function="neg" | "not", args=(operand,)):
            sign = "-" if expr.function == "neg" else "not "
            level = _LEVEL[expr.function]
            return sign + _within(operand, level), level
        case Apply(function=sign, args=(left, right)) if sign in SIGNS:
            level = _LEVEL[sign]
            # ** binds to the right, comparisons don't chain, all others bind to the left.
            strict = level in (_COMPARISON, _LEVEL["**"])
            first, second = _within(left, level + strict), _within(right, level + 1)
            return f"{first} {sign} {second}", level
        case Apply(function, args, keywords):
            given = [*map(show, args), *(f"{name}={show(value)}" for name, value in keywords)]
            return f"{function}({', '.join(given)})", _ATOM
        case Group(items):
            inner = ", ".join(map(show, items))
            return f"({inner},)" if len(items) == 1 else f"({inner})", _ATOM
        case If(condition, yes, no):
            return f"({show(yes)} if {show(condition)} else {show(no)})", _ATOM
        case Item(value, indices):
            return f"{_within(value, _ATOM)}[{', '.join(map(show, indices))}]", _ATOM
        case Cut(begin, end, step):
            text = ":".join("" if x is None else show(x) for x in (begin, end))
            return text if step is None else f"{text}:{show(step)}", _ATOM
    raise TypeError(expr)


def _within(expr: Expr, level: int) -> str:
    text, own = _show(expr)
    return text if own >= level else f"({text})"


def _declaration(d: Declaration) -> str:
    match d:
        case Size(name, default):
            return f"{name}: size" + (f" = {show(default)}" if default else "")
        case Function(name, params, body):
            if not params:
                return f"{name}: function = {show(body)}"
            return f"{name}: function = lambda {', '.join(params)}: {show(body)}"
        case Scalar(kind, name, default):
            value = default.name if isinstance(default, Ref) else _literal(default)
            return f"{name}: {kind} = {value}"
        case Array(kind, name, shape, start, other):
            layout = kind + _shape(shape)
            if other:
                layout += f" if {show(other[0])} else {kind}{_shape(other[1])}"
            return f"{name}: {layout}" + (f" = {show(start)}" if start else "")
    raise TypeError(d)


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _shape(shape: Shape) -> str:
    return f"[{', '.join(map(show, shape))}]" if shape else ""


# ---- text -> tree ----------------------------------------------------------------------------

_BINARY = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Pow: "**",
    ast.Mod: "%",
    ast.MatMult: "@", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==",
    ast.NotEq: "!=", ast.And: "and", ast.Or: "or",
}  # fmt: skip


def read_case(path: Path) -> Case:
    text = path.read_text(encoding="utf-8")
    first = text.splitlines()[0].removeprefix("# call: ")
    given: dict[str, Any] = ast.literal_eval(first)
    known = {f.name for f in fields(Call)}
    assert given.keys() <= known, (path.name, given.keys() - known)
    given["given"] = tuple(given["given"])
    given["shapes"] = tuple(map(tuple, given["shapes"]))
    return Case(read_cell(text), Call(**given))


def read_cell(text: str) -> Cell:
    name, returns = "", ()
    declarations: list[Declaration] = []
    equations: list[Equation] = []
    for node in ast.parse(text).body:
        match node:
            case ast.AnnAssign(target=ast.Name(id="cell"), annotation=ast.Name(id=name)):
                pass
            case ast.AnnAssign(target=ast.Name(id=declared)):
                declarations.append(_read_declaration(declared, node))
            case ast.Assign(targets=[target]):
                targets = target.elts if isinstance(target, ast.Tuple) else [target]
                names = tuple(_target(t) for t in targets)
                equations.append(Equation(names, read(node.value)))
            case ast.Return(value=ast.Tuple(elts=values)):
                returns = tuple(map(read, values))
            case ast.Return(value=value):
                returns = (read(value),)
            case ast.Expr(value=ast.Constant()):  # the docstring
                pass
            case _:
                raise ValueError(ast.unparse(node))
    return Cell(name, tuple(declarations), tuple(equations), returns)


def _target(node: ast.expr) -> tuple[str, bool]:
    if isinstance(node, ast.Subscript):
        return node.value.id, True
    return node.id, False


def _read_declaration(name: str, node: ast.AnnAssign) -> Declaration:
    kind = node.annotation
    start = node.value
    if isinstance(kind, ast.IfExp):
        (word, yes), (_, no) = _layout(kind.body), _layout(kind.orelse)
        return Array(word, name, yes, read(start) if start else None, (read(kind.test), no))
    word, shape = _layout(kind)
    if word == "size":
        return Size(name, read(start) if start else None)
    if word == "function":
        if isinstance(start, ast.Lambda):
            return read_function(name, start)
        return Function(name, (), read(start))
    if word in ("option", "rate"):
        default = read(start)
        return Scalar(word, name, default if isinstance(default, Ref) else default.value)
    return Array(word, name, shape, read(start) if start else None)


def read_function(name: str, given: ast.Lambda | str) -> Function:
    if isinstance(given, str):
        given = ast.parse(given, mode="eval").body
    if isinstance(given, ast.Lambda):
        return Function(name, tuple(a.arg for a in given.args.args), read(given.body))
    return Function(name, (), read(given))


def _layout(node: ast.expr) -> tuple[str, Shape]:
    if isinstance(node, ast.Name):
        return node.id, ()
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return node.value.id, tuple(map(read, items))


def read(node: ast.expr) -> Expr:
    match node:
        case ast.Constant(value=str(text)):
            return Word(text)
        case ast.Constant(value=value):
            return Num(value)
        case ast.Name(id=name):
            return Ref(name)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)):
            return Num(-value)
        case ast.UnaryOp(op=op, operand=operand):
            return Apply("not" if isinstance(op, ast.Not) else "neg", (read(operand),))
        case ast.BinOp(left=left, op=op, right=right):
            return Apply(_BINARY[type(op)], (read(left), read(right)))
        case ast.BoolOp(op=op, values=[first, *rest]):
            result = read(first)
            for value in rest:
                result = Apply(_BINARY[type(op)], (result, read(value)))
            return result
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return Apply(_BINARY[type(op)], (read(left), read(right)))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return If(read(test), read(body), read(orelse))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            named = tuple((k.arg, read(k.value)) for k in keywords)
            return Apply(name, tuple(map(read, args)), named)
        case ast.Tuple(elts=items):
            return Group(tuple(map(read, items)))
        case ast.Subscript(value=ast.Name(id=name), slice=index) if _is_time(index):
            back = index.right.value if isinstance(index, ast.BinOp) else 0
            return Ref(name, back)
        case ast.Subscript(value=value, slice=ast.Tuple(elts=indices)):
            return Item(read(value), tuple(map(read, indices)))
        case ast.Subscript(value=value, slice=index):
            return Item(read(value), (read(index),))
        case ast.Slice(lower=lower, upper=upper, step=step):
            return Cut(*(None if x is None else read(x) for x in (lower, upper, step)))
    raise ValueError(ast.unparse(node))


def _is_time(node: ast.expr) -> bool:
    return any(isinstance(n, ast.Name) and n.id == "t" for n in ast.walk(node))
