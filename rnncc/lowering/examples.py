"""Small cells for the passes' documentation, and Programs printed short enough for it.

>>> outline(example("h[t] = tanh(x[t] @ W + h[t-1] @ U)"))
scan:
  carry _h_1, from h
  x_1 = x[t]
    _0 = contract(x_1, W, labels=(k, kl, l))
    _1 = contract(_h_1, U, labels=(k, kl, l))
    _2 = add(_0, _1)
    h_1 = tanh(_2)
  next _h_1 = h_1; last is final_h
  h_2[t] = h_1
"""

from __future__ import annotations

import re

from rnncc.frontend.parse import parse
from rnncc.ir.printer import print_program
from rnncc.ir.program import Program
from rnncc.lowering.lower import lower

WEIGHTS = {"W": "features, units", "U": "units, units", "b": "units"}


def example(*equations: str, **shapes: str) -> Program:
    """A lowered cell from x[features] to h[units], with the weights its equations read: W, U
    and b, of other shapes if given."""
    text = "\n".join(equations)
    lines = ["cell: Example", "features: size", "units: size", "x: input[features]"]
    lines.append("h: state[units]")
    for name, shape in (WEIGHTS | shapes).items():
        if re.search(rf"\b{name}\b", text):
            lines.append(f"{name}: weight[{shape}]")
    return lower(parse("\n".join([*lines, text, "return h[t]\n"])))


def outline(program: Program) -> None:
    """Prints the regions of a program without types and lines of the text."""
    lines = print_program(program).splitlines()
    count = 1 + len(program.params)
    for line in lines[count : len(lines) - len(program.results)]:
        print(re.sub(r" +: \w+\[[^]]*\]", "", line.split("  # line")[0]))
