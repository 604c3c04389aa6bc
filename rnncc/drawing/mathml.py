"""Equations as MathML, which browsers lay out by themselves.

Non-Goals: what is written (`walk`).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rnncc.drawing.names import decimal, greek, parted
from rnncc.drawing.walk import Part, Script, ShownRow

SPACE = "\u00a0"  # that stays
SIGNS = {
    "or": "∨",
    "and": "∧",
    "not": "¬",
    "<": "&lt;",
    "<=": "≤",
    ">": "&gt;",
    ">=": "≥",
    "==": "=",
    "!=": "≠",
    "-": "−",
    "*": "⊙",
    ".": "·",
    "//": "÷",
    "%": "mod",
}


class MathML(Script):
    def name(self, text: str) -> str:
        base, below = parted(text)
        letters = f"<mi>{escape(greek(base) or base).replace('_', SPACE)}</mi>"
        if not below:
            return letters
        return self.below(letters, f"<mi>{escape(below).replace('_', ',')}</mi>")

    def number(self, value: int | float | bool) -> str:
        if isinstance(value, bool):
            return self.words(str(value))
        digits, exponent = decimal(value)
        if not exponent:
            return f"<mn>{digits.replace('-', '−')}</mn>"
        ten = f"<msup><mn>10</mn><mn>{exponent.replace('-', '−')}</mn></msup>"
        return ten if digits == "1" else f"<mrow><mn>{digits}</mn><mo>·</mo>{ten}</mrow>"

    def words(self, text: str) -> str:
        return f"<mtext>{escape(text).replace(' ', SPACE)}</mtext>"

    def quoted(self, text: str) -> str:
        return self.words(f'"{text}"')

    def infix(self, first: str, rest: Sequence[Part]) -> str:
        return f"<mrow>{first}{''.join(self._sign(s) + part for s, part in rest)}</mrow>"

    def _sign(self, sign: str) -> str:
        return '<mspace width="0.3em"/>' if sign == "@" else f"<mo>{SIGNS.get(sign, sign)}</mo>"

    def prefix(self, sign: str, value: str) -> str:
        return f"<mrow>{self._sign(sign)}{value}</mrow>"

    def fraction(self, above: str, below: str) -> str:
        return f"<mfrac>{_one(above)}{_one(below)}</mfrac>"

    def power(self, base: str, exponent: str) -> str:
        return f"<msup>{_one(base)}{_one(exponent)}</msup>"

    def below(self, base: str, subscript: str) -> str:
        return f"<msub>{_one(base)}{_one(subscript)}</msub>"

    def root(self, value: str) -> str:
        return f"<msqrt>{value}</msqrt>"

    def bars(self, value: str) -> str:
        return f"<mrow><mo>|</mo>{value}<mo>|</mo></mrow>"

    def parentheses(self, value: str) -> str:
        return f"<mrow><mo>(</mo>{value}<mo>)</mo></mrow>"

    def brackets(self, value: str, parts: str) -> str:
        return f"<mrow>{value}<mo>[</mo>{parts}<mo>]</mo></mrow>"

    def commas(self, parts: Sequence[str]) -> str:
        return "<mo>,</mo>".join(parts)

    def colons(self, parts: Sequence[str]) -> str:
        return "<mo>:</mo>".join(parts)

    def function(self, name: str) -> str:
        return "<mi>σ</mi>" if name == "sigmoid" else self.name(name)

    def table(self, rows: Sequence[ShownRow]) -> str:
        cells = "".join(
            f'<mtr><mtd style="text-align:right">{r.left}</mtd><mtd><mo>{r.sign}</mo></mtd>'
            f'<mtd style="text-align:left">{r.right}</mtd></mtr>'
            for r in rows
        )
        return f'<math display="block"><mtable displaystyle="true">{cells}</mtable></math>'


def _one(parts: str) -> str:
    """What stands in a fraction or below is one element."""
    return f"<mrow>{parts}</mrow>" if parts.count("<") > 2 else parts
