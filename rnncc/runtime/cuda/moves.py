"""Copies around a direction's kernels, as launches of one kernel that copies any rows anywhere.

Non-Goals: which copies there are (`runtime.moves`).
"""

from __future__ import annotations

import math

from rnncc.runtime.cuda.kernel import kernel
from rnncc.runtime.cuda.names import cuda, v, word
from rnncc.runtime.moves import MAX_RANK, Move, Mover, Side


class DenseMover(Mover):
    """The copies, of rows without padding."""

    def _cleared(self, buffer: str, step: int) -> Move:
        layout = self.binding.layouts[buffer]
        row = layout.shape or (1,)
        zeros = Side("zeros", 0, (0,) * (1 + len(row)))
        return Move((self.call.batch, *row), zeros, self._slot(buffer, step))


HEAD = 2  # words before the axes: source, target


def words_of(move: Move) -> list[int]:
    """A piece as a block, but for its two addresses."""
    spare = MAX_RANK - len(move.shape)
    axes = [
        [1] * spare + [*move.shape],
        [0] * spare + [*move.source.strides],
        [0] * spare + [*move.target.strides],
    ]
    return [0, 0, math.prod(move.shape), *(n for axis in axes for n in axis)]


@kernel
def move(block, step_lo, step_hi, level_lo, level_hi):
    """target[i0, ..., i5] = source[i0, ..., i5], an item an element."""
    source = word(block, 0)
    target = word(block, 1)
    count = word(block, 2)
    first = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    for item in range(first, count, cuda.gridDim.x * cuda.blockDim.x):
        left = item
        source_at = source
        target_at = target
        for n in range(6):
            axis = 5 - n
            size = word(block, 3 + axis)
            index = left % size
            left = left // size
            source_at += index * word(block, 9 + axis)
            target_at += index * word(block, 15 + axis)
        v.store(target_at, v.load(source_at))
