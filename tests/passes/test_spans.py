"""Every op says which line of the user's text asks for it, whatever passes make of it.

An op of no line would be the zero gradient of a parameter that nothing reads; no cell has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import pytest

from rnncc.driver import Optimised, Programs
from rnncc.ir.program import Op
from rnncc.schedule.model import LaneStage
from tests.support import cases


def derived(programs: Programs) -> Iterator[tuple[str, Optimised]]:
    """Both directions, and those of second derivatives."""
    yield from (("forward", programs.forward), ("training", programs.training))
    yield "pullback", programs.pullback
    four = programs.second_order
    yield from ((f.name, Optimised(getattr(four, f.name))) for f in fields(four))


def every_op(optimised: Optimised) -> Iterator[tuple[str, Op]]:
    """After each pass, and as stages do them."""
    for name, program in optimised.passes:
        yield from ((name, op) for op in program.ops())
    for kernel in optimised.schedule.kernels:
        for stage in (s for level in kernel.levels for s in level.stages):
            ops = stage.all_ops if isinstance(stage, LaneStage) else [stage.op]
            yield from (("schedule", op) for op in ops)


@pytest.mark.parametrize(("name", "variant"), cases.variants(cases.NAMES))
def test_every_op_has_its_line(name: str, variant: str) -> None:
    lowered = cases.lowered(name, variant)
    asked = {op.span for op in lowered.ops()}
    for direction, optimised in derived(Programs(lowered)):
        for after, op in every_op(optimised):
            where = f"{name}, {variant}: {direction} after {after}: {op.opcode} {op.result.name}"
            assert op.span is not None, where
            assert op.span in asked, f"{where}: of no line of the cell's"
