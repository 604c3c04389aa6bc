"""Equations of a `.rnn` text -> MathML, which browsers lay out by themselves.

    h[t] = f * h[t-1] + W @ g        hₜ = f ⊙ hₜ₋₁ + W g

`*` of two values is the product of their elements, `@` stands as writers of papers do it, side by
side.

Non-Goals: LaTeX; declarations.
"""

from __future__ import annotations

import ast
import contextlib
import unicodedata
from html import escape

from defaults import at_defaults  # mkdocs puts this folder on the path

SIGNS: dict[type[ast.AST], tuple[str, int]] = {
    ast.Or: ("∨", 1),
    ast.And: ("∧", 2),
    ast.Lt: ("&lt;", 4),
    ast.LtE: ("≤", 4),
    ast.Gt: ("&gt;", 4),
    ast.GtE: ("≥", 4),
    ast.Eq: ("=", 4),
    ast.NotEq: ("≠", 4),
    ast.Add: ("+", 5),
    ast.Sub: ("−", 5),
    ast.Mult: ("⊙", 6),
    ast.MatMult: ("", 7),
    ast.Mod: ("mod", 6),
    ast.FloorDiv: ("÷", 6),
}
CHOICE, UNARY, POWER, WHOLE = 0, 8, 9, 10  # how closely parts hold together


def equations(text: str) -> str:
    """One table, a row an equation, in the order of the text, at its defaults."""
    rows = []
    for node in at_defaults(text):
        if isinstance(node, ast.Assign):
            rows.append((shown(node.targets[0]), "=", shown(node.value)))
        elif isinstance(node, ast.Return) and node.value:
            rows.append((word("return"), "", shown(node.value)))
    cells = "".join(
        f'<mtr><mtd style="text-align:right">{left}</mtd><mtd><mo>{sign}</mo></mtd>'
        f'<mtd style="text-align:left">{right}</mtd></mtr>'
        for left, sign, right in rows
    )
    table = f'<math display="block"><mtable displaystyle="true">{cells}</mtable></math>'
    return f'<div style="overflow-x:auto">{table}</div>'


def word(text: str) -> str:
    return f"<mtext>{escape(text).replace(' ', '&nbsp;')}</mtext>"


def name(text: str) -> str:
    """x, z_f, beta, s_0: what follows a letter and an underscore is a subscript."""
    base, _, below = text.partition("_")
    with contextlib.suppress(KeyError):
        base = unicodedata.lookup(f"GREEK SMALL LETTER {base}")
    if not below:
        return f"<mi>{base}</mi>"
    if len(base) > 1:
        return f"<mi>{text.replace('_', '&nbsp;')}</mi>"
    return f"<msub><mi>{base}</mi><mi>{below.replace('_', ',')}</mi></msub>"


def shown(node: ast.AST, around: int = CHOICE) -> str:
    """In parentheses where what is around it holds closer together."""
    text, own = _parts(node)
    return f"<mrow><mo>(</mo>{text}<mo>)</mo></mrow>" if own < around else text


def _parts(node: ast.AST) -> tuple[str, int]:
    match node:
        case ast.Name(id=text):
            return name(text), WHOLE
        case ast.Constant(value=str(text)):
            return word(f'"{text}"'), WHOLE
        case ast.Constant(value=value):
            return f"<mn>{escape(str(value))}</mn>", WHOLE
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return "<mo>,</mo>".join(map(shown, parts)), CHOICE
        case ast.Subscript():
            return _subscript(node), WHOLE
        case ast.Call():
            return _call(node), WHOLE
        case ast.IfExp(test=test, body=yes, orelse=no):
            middle = f"{word(' if ')}{shown(test, 1)}{word(', else ')}"
            return f"<mrow>{shown(yes, 1)}{middle}{shown(no, 1)}</mrow>", CHOICE
        case ast.UnaryOp(op=ast.Not(), operand=value):
            return f"<mrow><mo>¬</mo>{shown(value, UNARY)}</mrow>", UNARY
        case ast.UnaryOp(operand=value):
            return f"<mrow><mo>−</mo>{shown(value, UNARY)}</mrow>", 5
        case _:
            return _operation(node)


def _operation(node: ast.AST) -> tuple[str, int]:
    match node:
        case ast.BinOp(left=a, op=ast.Div(), right=b):
            return f"<mfrac>{shown(a)}{shown(b)}</mfrac>", UNARY
        case ast.BinOp(left=a, op=ast.Pow(), right=b):
            return f"<msup>{shown(a, POWER)}{shown(b)}</msup>", POWER
        case ast.BinOp(left=a, op=op, right=b):
            sign, own = SIGNS[type(op)]
            if isinstance(op, ast.Mult) and any(isinstance(v, ast.Constant) for v in (a, b)):
                sign = "·"
            between = f"<mo>{sign}</mo>" if sign else '<mspace width="0.3em"/>'
            return f"<mrow>{shown(a, own)}{between}{shown(b, own + 1)}</mrow>", own
        case ast.Compare(left=a, ops=[op], comparators=[b]):
            sign, own = SIGNS[type(op)]
            return f"<mrow>{shown(a, own)}<mo>{sign}</mo>{shown(b, own)}</mrow>", own
        case ast.BoolOp(op=op, values=values):
            sign, own = SIGNS[type(op)]
            return f"<mo>{sign}</mo>".join(shown(v, own) for v in values), own
    raise ValueError(f"no picture of {ast.dump(node)}")


def _subscript(node: ast.Subscript) -> str:
    """Steps as subscripts, elements and parts in brackets."""
    if any(isinstance(n, ast.Name) and n.id == "t" for n in ast.walk(node.slice)):
        return f"<msub><mrow>{shown(node.value)}</mrow><mrow>{shown(node.slice)}</mrow></msub>"
    part = escape(ast.unparse(node.slice))
    return f"<mrow>{shown(node.value, WHOLE)}<mo>[</mo>{word(part)}<mo>]</mo></mrow>"


def _call(node: ast.Call) -> str:
    function = ast.unparse(node.func)
    given = [shown(a) for a in node.args]
    if function == "sqrt":
        return f"<msqrt>{given[0]}</msqrt>"
    if function == "abs":
        return f"<mrow><mo>|</mo>{given[0]}<mo>|</mo></mrow>"
    given += [word(f"{k.arg}={ast.unparse(k.value)}") for k in node.keywords]
    head = "<mi>σ</mi>" if function == "sigmoid" else name(function)
    return f"<mrow>{head}<mo>(</mo>{'<mo>,</mo>'.join(given)}<mo>)</mo></mrow>"
