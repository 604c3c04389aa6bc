"""A case to what it has to do at least: FLOPs of contractions, bytes of weights read every step.

    work = work_of(case)
    work.seconds(roofline)     # nothing that computes the same is quicker on this machine

Counted on the optimised Program, so any cell's work is counted alike. Training is three times the
forward's contractions: the step's weights are read once more on the way back, gradients of weights
are contractions over all steps.

Non-Goals: activations, which is why a tiny cell is far from this limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from math import prod

from bench.case import TRAINING, Case, all_sizes, program, sizeless
from rnncc.ir.program import Op, Program
from rnncc.passes.pipeline import optimise
from rnncc.runtime.profiles.roofline import Roofline

ITEMSIZE = {"float32": 4, "float64": 8}


@dataclass(frozen=True, slots=True)
class Work:
    """before: FLOPs outside the loop; step: FLOPs of one step; weights: bytes each step reads."""

    before: float
    step: float
    weights: int
    steps: int
    training: bool

    @property
    def flops(self) -> float:
        return (self.before + self.step * self.steps) * (3 if self.training else 1)

    def seconds(self, roofline: Roofline) -> float:
        """The time below which no machine with these limits gets."""
        peak = roofline.fma
        step = max(self.step / peak, self.weights / roofline.read_at(self.weights))
        if not self.training:
            return self.before / peak + self.steps * step
        return 3 * self.before / peak + self.steps * (2 * step + self.step / peak)


@cache
def _optimised(case: Case) -> Program:
    return optimise(program(case))


@cache
def work_of(case: Case) -> Work:
    optimised = _optimised(sizeless(case))
    sizes = all_sizes(case)
    body = optimised.scan.body if optimised.scan else ()
    before = _flops(optimised.before, case, sizes) + _flops(optimised.after, case, sizes)
    weights = sum(
        prod(s.evaluate(sizes) for s in operand.type.shape) * ITEMSIZE[case.dtype]
        for op in body
        if op.opcode == "contract"
        for operand in op.operands
        if not operand.type.axes
    )
    step = _flops(body, case, sizes)
    return Work(before, step, weights, case.time, case.mode == TRAINING)


def _flops(ops: Iterable[Op], case: Case, sizes: dict[str, int]) -> float:
    total = 0.0
    for op in ops:
        if op.opcode != "contract":
            continue
        labels: dict[str, int] = {}
        axes = set()
        for names, operand in zip(op.attrs["labels"], op.operands, strict=False):
            axes |= set(operand.type.axes)
            for name, size in zip(names, operand.type.shape, strict=True):
                labels[name] = size.evaluate(sizes)
        rows = (case.batch if "B" in axes else 1) * (case.time if "T" in axes else 1)
        total += 2.0 * prod(labels.values()) * rows
    return total
