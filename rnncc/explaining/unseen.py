"""Why a stage has no line of an equation: what its value is, if nobody computes it.

Non-Goals: which stages have none (templates/page/script.jinja sees that where it lights lines).
"""

from __future__ import annotations

from rnncc.drawing.chosen import chosen_cell
from rnncc.driver import Derivation
from rnncc.explaining.origins import TextPieces
from rnncc.frontend.spec import Name, Number, Timed
from rnncc.ir.ops import OPS, Kind

UNREAD = "nothing reads it under these options"
ALIAS = "under these options it is another name for what it reads"
KNOWN = "it is known before any step runs"
MOVED = "it moves numbers and computes nothing: what reads it reads them where they lie"
TAKEN = "what reads it has taken it in"


def reasons(derivation: Derivation, pieces: TextPieces) -> dict[int, str]:
    """By the first line of each equation."""
    cell = chosen_cell(derivation.spec, derivation.options, derivation.functions)
    kinds: dict[int, set[Kind]] = {}
    for op in derivation.plain.lowered.ops():
        if op.span:
            kinds.setdefault(pieces.of(op.span.line), set()).add(OPS[op.opcode].kind)
    shown = {e.span for e in cell.equations}
    found: dict[int, str] = {}
    for equation in derivation.spec.equations:
        line = pieces.of(equation.span.line)
        own = kinds.get(line, set())
        value = cell.resolved(equation.value)
        if own - {Kind.LAYOUT, Kind.LEAF}:
            found[line] = TAKEN
        elif Kind.LAYOUT in own:
            found[line] = MOVED
        elif isinstance(value, Name | Timed):
            found[line] = ALIAS
        else:
            known = own or equation.span in shown or isinstance(value, Number)
            found[line] = KNOWN if known else UNREAD
    return found
