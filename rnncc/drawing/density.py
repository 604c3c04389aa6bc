"""What is dense and what isn't: one answer for all pictures, out of the ops that are computed.

    x[t] @ W, einsum("k,kl->l", x[t], W)     dense: a contraction of the IR, whatever is written
    einsum("kl->k", x[t])                    over a row: a sum, which nothing is multiplied for

Non-Goals: how it is drawn (`picture`, `explaining`).
"""

from __future__ import annotations

from collections.abc import Iterable

from rnncc.drawing.chosen import ChosenCell
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Span
from rnncc.lowering.lower import elaborate

DENSE, ROW, POINTWISE = "dense", "row", "pointwise"


def kind_of(ops: Iterable[Op]) -> str:
    """dense: they multiply matrices; row: lanes of a row meet; pointwise: they don't."""
    kinds = {OPS[op.opcode].kind for op in ops}
    if Kind.CONTRACTION in kinds:
        return DENSE
    return ROW if Kind.REDUCTION in kinds else POINTWISE


def dense_places(cell: ChosenCell) -> frozenset[Span]:
    """Where in the text the cell's dense products are written. SpecError for a cell that is wrong
    under its options."""
    rates = frozenset(n for n, value in cell.rates.items() if value)
    program, _ = elaborate(
        cell.spec, cell.options, cell.functions, training=bool(rates), active_rates=rates
    )
    return frozenset(op.span for op in program.ops() if op.span and kind_of([op]) == DENSE)
