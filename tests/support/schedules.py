"""Schedules of a cell: both directions, and the loop over steps."""

from __future__ import annotations

from functools import cache

from rnncc.ir.program import Program
from rnncc.passes.pipeline import gradient, optimise
from rnncc.schedule.build import schedule
from rnncc.schedule.model import (
    Kernel,
    Schedule,
)
from tests.support import cases

PARTS = ("inference", "forward", "backward")


def schedules_of(program: Program) -> dict[str, Schedule]:
    wrt = [p.value.name for p in program.params if p.role in cases.DIFFERENTIABLE]
    parts = (program, *gradient(program, wrt))
    return {n: schedule(optimise(p)) for n, p in zip(PARTS, parts, strict=True)}


@cache
def schedules(name: str, variant: str = "plain") -> dict[str, Schedule]:
    return schedules_of(cases.lowered(name, variant))


def scan_of(made: Schedule) -> Kernel:
    (kernel,) = [k for k in made.kernels if k.kind == "scan"]
    return kernel
