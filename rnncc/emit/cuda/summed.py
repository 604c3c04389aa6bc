"""A LaneStage whose sums are products of matrices, made between launches: its items read them.

    sums_0    [B, gates, lanes]   of the first such group, row by row

Which stages those are is asked of `stationary.fits`: one axis of lanes, one of k, weights that
nobody changes. Non-Goals: the products (`step_matmuls`); the statements.
"""

from __future__ import annotations

from collections.abc import Iterator

from rnncc.artifact.kernel_args import StepSums
from rnncc.emit.cuda.contractions import start_of
from rnncc.emit.cuda.stationary import fits
from rnncc.emit.shared.addresses import Addresses
from rnncc.schedule.model import Group, Kernel, LaneStage, Segment


def own_segments(group: Group, g: int = 0) -> tuple[Segment, ...]:
    """What the loop adds itself."""
    acc = group.accs[g]
    return acc.segments[acc.ahead :] if group.start is not None else acc.segments


def summed_groups(kernel: Kernel) -> Iterator[tuple[int, LaneStage, Group]]:
    """(level, stage, group) of every group with a product, in the order of their sums; none where
    an operand is one at the first step and nothing afterwards."""
    groups = [
        (number, stage, group)
        for number, level in enumerate(kernel.levels)
        for stage in level.stages
        if isinstance(stage, LaneStage) and fits(stage, kernel)
        for group in stage.groups
        if own_segments(group)
    ]
    if not any(s.a.first_only for _, _, group in groups for s in own_segments(group)):
        yield from groups


class SummedGroups:
    """The groups of one kernel, numbered."""

    def __init__(self, at: Addresses) -> None:
        self.at = at
        self.numbers: dict[int, int] = {
            id(g): n for n, (_, _, g) in enumerate(summed_groups(at.kernel))
        }

    def sums(self, stage: LaneStage) -> dict[tuple[int, int], str]:
        """Each sum, as an item reads it."""
        at, lanes = self.at, self.at.size(stage.shape[0])
        result: dict[tuple[int, int], str] = {}
        for i, group in enumerate(stage.groups):
            n, count = self.numbers.get(id(group)), len(group.accs)
            for g, acc in enumerate(group.accs):
                if n is None:  # all of it was added before the loop
                    result[i, g] = start_of(at, group, g, [])
                    continue
                base = at.words(f"sums_{n}", StepSums(n))
                row = "r" if count == 1 else f"({count} * r + {g})"
                place = f"{row} * {lanes} * SIZE"
                total = f"v.load({base} + {place} + q)"
                if group.start is not None or acc.init is not None:
                    total = f"{start_of(at, group, g, [])} + {total}"
                result[i, g] = total
        return result
