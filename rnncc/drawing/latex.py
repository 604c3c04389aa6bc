r"""Equations as LaTeX, for MathJax, KaTeX, LaTeX with amsmath; a row by itself for matplotlib, too.

    c_{t} &= f \odot c_{t - 1} + i \odot g

Non-Goals: what is written (`walk`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rnncc.drawing.names import decimal, greek, parted
from rnncc.drawing.walk import Part, Script, ShownRow

SIGNS = {
    "or": r"\vee",
    "and": r"\wedge",
    "not": r"\neg",
    "<=": r"\leq",
    ">=": r"\geq",
    "==": "=",
    "!=": r"\neq",
    "*": r"\odot",
    ".": r"\cdot",
    "@": r"\,",
    "//": r"\div",
    "%": r"\;\mathrm{mod}\;",
}
HAVE_COMMANDS = frozenset({"tanh", "exp", "log", "sin", "cos", "tan", "sinh", "cosh", "max", "min"})


class Latex(Script):
    def name(self, text: str) -> str:
        base, below = parted(text)
        if greek(base):
            letters = "o" if base == "omicron" else rf"\{base}"
        else:
            letters = base if len(base) == 1 else rf"\mathrm{{{_escaped(base)}}}"
        return self.below(letters, self._below(below)) if below else letters

    def _below(self, text: str) -> str:
        parts = [p for p in text.split("_") if p]
        return ",".join(p if len(p) == 1 or p.isdigit() else rf"\mathrm{{{p}}}" for p in parts)

    def number(self, value: int | float | bool) -> str:
        if isinstance(value, bool):
            return self.words(str(value))
        digits, exponent = decimal(value)
        if not exponent:
            return digits
        return f"10^{{{exponent}}}" if digits == "1" else rf"{digits} \cdot 10^{{{exponent}}}"

    def words(self, text: str) -> str:
        return rf"\mathrm{{{_escaped(text)}}}"

    def quoted(self, text: str) -> str:
        return rf'\text{{"{_escaped(text, " ")}"}}'

    def infix(self, first: str, rest: Sequence[Part]) -> str:
        return " ".join([first, *(f"{SIGNS.get(sign, sign)} {part}" for sign, part in rest)])

    def prefix(self, sign: str, value: str) -> str:
        return f"{SIGNS.get(sign, sign)} {value}"

    def fraction(self, above: str, below: str) -> str:
        return rf"\frac{{{above}}}{{{below}}}"

    def power(self, base: str, exponent: str) -> str:
        return f"{{{base}}}^{{{exponent}}}"

    def below(self, base: str, subscript: str) -> str:
        held = f"{{{base}}}" if "_" in base else base
        return f"{held}_{{{subscript}}}"

    def root(self, value: str) -> str:
        return rf"\sqrt{{{value}}}"

    def bars(self, value: str) -> str:
        return rf"\left| {value} \right|"

    def parentheses(self, value: str) -> str:
        return rf"\left( {value} \right)"

    def brackets(self, value: str, parts: str) -> str:
        return f"{value}[{parts}]"

    def commas(self, parts: Sequence[str]) -> str:
        return r",\, ".join(parts)

    def colons(self, parts: Sequence[str]) -> str:
        return "{:}".join(parts)

    def function(self, name: str) -> str:
        if name == "sigmoid":
            return r"\sigma"
        if name in HAVE_COMMANDS:
            return rf"\{name}"
        return rf"\operatorname{{{_escaped(name)}}}" if len(name) > 1 else name

    def table(self, rows: Sequence[ShownRow]) -> str:
        lines = (f"{r.left} &{r.sign} {r.right}" for r in rows)
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _escaped(text: str, space: str = r"\ ") -> str:
    r"""As letters of \mathrm: what LaTeX takes for a command is not one."""
    text = text.replace("\\", "∖").replace("^", "ˆ").replace("~", "∼").replace("\n", " ")
    return re.sub(r"([_{}$&#%])", r"\\\1", text).replace(" ", space)
