"""Copies around a direction's kernels, as launches of one kernel that copies any rows anywhere.

Non-Goals: which copies there are (`runtime.planning.copies`).
"""

from __future__ import annotations

import math

from rnncc.runtime.cuda.kernels.kernel import kernel
from rnncc.runtime.cuda.kernels.kernel_namespace import cuda, v
from rnncc.runtime.planning.copies import MAX_RANK, Move


def words_of(move: Move) -> list[int]:
    """A piece as words, but for its two addresses."""
    spare = MAX_RANK - len(move.shape)
    axes = [
        [1] * spare + [*move.shape],
        [0] * spare + [*move.source.strides],
        [0] * spare + [*move.target.strides],
    ]
    return [0, 0, math.prod(move.shape), *(n for axis in zip(*axes, strict=True) for n in axis)]


@kernel
def move(
    step_lo, step_hi, level_lo, level_hi, source, target, count,
    n0, s0, t0,
    n1, s1, t1,
    n2, s2, t2,
    n3, s3, t3,
    n4, s4, t4,
    n5, s5, t5,
):  # fmt: skip
    """target[i0, ..., i5] = source[i0, ..., i5], an item an element; axes: n long, strides s, t."""
    item = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    while item < count:
        i5 = item % n5
        left = item // n5
        i4 = left % n4
        left = left // n4
        i3 = left % n3
        left = left // n3
        i2 = left % n2
        left = left // n2
        i1 = left % n1
        left = left // n1
        i0 = left
        source_at = source + i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3 + i4 * s4 + i5 * s5
        target_at = target + i0 * t0 + i1 * t1 + i2 * t2 + i3 * t3 + i4 * t4 + i5 * t5
        v.store(target_at, v.load(source_at))
        item += cuda.gridDim.x * cuda.blockDim.x
