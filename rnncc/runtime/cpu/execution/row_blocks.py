"""Rows that end before others do: blocks of steps over those that go on.

A call's kernels run every row of every step, and a masked step keeps what was there. Where the last
rows are masked for many steps at once, as they are in a PackedSequence, those steps run as a block
of the first rows alone:

    valid, a row a line            blocks: (begin, end, rows)
    1 1 1 1 1 1 1 1
    1 1 1 1 1 1 1 0                (0, 2, 4), (2, 8, 2)
    1 1 . . . . . .
    1 0 . . . . . .

First rows only, since what a row draws is of its number. Outputs of the others are zeros there: a
call that repeats outputs runs whole. What runs has the bits of the whole call; sums over steps, the
gradients of weights, are taken block by block.

Non-Goals: the order of rows, which is the caller's; the way back (`time_chunks`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from rnncc.artifact.cell import MASKS, RESTART
from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.common.memory_pool import write_into
from rnncc.runtime.cpu.execution.job import Arrays, Job
from rnncc.runtime.cpu.execution.time_chunks import (
    Block,
    Runs,
    borders,
    carries_of,
    last_carries,
    part_of,
    sequences_of,
)
from rnncc.runtime.planning.call_key import CallKey

# What a block more costs: so many multiply-adds of a forward, and, of training, for the sum of its
# weights' gradients so many rows and steps.
BLOCK_WORK, BLOCK_STEPS = 16_000_000, 24
PIECES = 8  # steps, and rows, are counted in pieces of an eighth or more: shapes come again

Span = tuple[int, int, int]  # steps from, to, and how many rows


def spans_of(direction: DirectionSpec, call: CallKey, arrays: Arrays) -> list[Span]:
    """What blocks a masked call is worth; none where it had better run whole."""
    valid, shown = (arrays.get(name) for name in MASKS)
    if valid is None or call.last_only or call.batch < 2 or call.time < 2:
        return []
    sizes = dict(call.sizes)
    work = sum(
        math.prod(evaluate(s, sizes) for s in buffer.shape)
        for buffer, role in _parameters(direction)
        if role == "weight"
    )
    # Rows and steps that a block has to save.
    least = BLOCK_WORK // max(work, 1) + BLOCK_STEPS * call.save
    if call.batch * call.time <= least:
        return []
    counts = valid != 0
    if RESTART in arrays:  # a row that starts anew behind a masked step does so there
        counts = counts | (arrays[RESTART] != 0)
    spans = cut(going_on(counts), call.batch, least)
    if all(rows == call.batch for _, _, rows in spans):
        return []
    hidden = (shown is not None and not shown[rows:, a:b].any() for a, b, rows in spans)
    return spans if all(hidden) else []


def _parameters(direction: DirectionSpec) -> Iterator[tuple[Any, str]]:
    buffers = {b.name: b for b in direction.buffers}
    return ((buffers[name], role) for name, role, _ in direction.params)


def going_on(counts: np.ndarray) -> list[int]:
    """How many of the first rows of each step hold all that count in it, of bools [batch, steps].

    >>> going_on(np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0]], bool))
    [2, 3, 1]
    """
    rows: list[int] = (len(counts) - counts[::-1].argmax(axis=0)).tolist()
    some: list[bool] = np.any(counts, axis=0).tolist()
    return [n if any_ else 0 for n, any_ in zip(rows, some, strict=True)]


def cut(rows: Sequence[int], batch: int, least: int) -> list[Span]:
    """Blocks of steps, each of as many rows as go on in it, none that saves fewer rows and steps
    than `least`.

    >>> cut([4, 4, 2, 2, 1, 1, 1, 1], 4, 2)
    [(0, 2, 4), (2, 4, 2), (4, 8, 1)]
    """
    time = len(rows)
    step, row = _quantum(time), _quantum(batch)
    pieces: list[Span] = []
    for begin in range(0, time, step):
        end = min(begin + step, time)
        most = max(rows[begin:end])
        count = min(max(-(-most // row) * row, row), batch)
        if pieces and pieces[-1][2] == count:
            begin = pieces.pop()[0]
        pieces.append((begin, end, count))
    return _joined(pieces, least)


def _quantum(count: int) -> int:
    """A power of two, so that calls that are a little longer have the same blocks."""
    return 1 << max((count // PIECES).bit_length() - 1, 0)


def _joined(pieces: list[Span], least: int) -> list[Span]:
    """Neighbours together where apart they would save too little, those that save least first."""
    pieces = [*pieces]
    while len(pieces) > 1:
        saved = [
            abs(a[2] - b[2]) * (a[1] - a[0] if a[2] < b[2] else b[1] - b[0])
            for a, b in pairwise(pieces)
        ]
        at = min(range(len(saved)), key=saved.__getitem__)
        if saved[at] >= least:
            break
        one, other = pieces[at : at + 2]
        pieces[at : at + 2] = [(one[0], other[1], max(one[2], other[2]))]
    return pieces


# ---- forward ---------------------------------------------------------------------------------


def forward_in_spans(
    side: Runs, job: Job, spans: Sequence[Span], steps: int, carry: bool
) -> tuple[dict[str, Any], list[Block]]:
    """See `time_chunks.forward`."""
    call, time, room = job.call, job.call.time, side.room(job.arrays)
    places = [p for p in side.direction.results if p.kind != "residual"]
    wanted = frozenset([p.name for p in places])
    sequences = sequences_of(side, "output", call, job.out, room)
    blocks: list[Block] = []
    carries = {n: job.arrays[n] for n in carries_of(side.direction) if n in job.arrays}
    if call.save:  # a pullback reads what the first block began with
        carries = {n: room.copy(a) for n, a in carries.items()}
    for begin, end, rows in _within(spans, time if call.save else steps):
        block = Block(begin, end, carries, rows=rows if rows < call.batch else None)
        arrays = part_of(side.direction, job.arrays, block, time)
        for array in sequences.values():
            array[rows:, begin:end] = 0
        out = {n: a[:rows, begin:end] for n, a in sequences.items()}
        part = Job(arrays, block.call(call), job.version, wanted=wanted, out=out)
        run = side.run(replace(part, first_step=job.first_step + begin))
        if call.save:
            block.residuals = run.residuals()
            blocks.append(block)
        last = last_carries(side.direction, run.results)
        carries = last if rows == call.batch else _kept(last, carries, rows, call.batch, room)
    finals = {p.name: carries[p.of] for p in places if p.of in carries and p.name not in sequences}
    returned = {p.name for p in places if carry or p.kind != "held"}
    results = {n: a for n, a in finals.items() if n in returned} | sequences
    return write_into(job.out, results), blocks


def _within(spans: Sequence[Span], steps: int) -> Iterator[Span]:
    """None longer than so many steps."""
    for begin, end, rows in spans:
        for first, last in borders(end - begin, steps):
            yield begin + first, begin + last, rows


def _kept(last: Arrays, before: Arrays, rows: int, batch: int, room: Any) -> dict[str, Any]:
    """The last carries of all rows: those that didn't run have what they had."""
    carries = {}
    for name, array in last.items():
        whole = carries[name] = room.empty((batch, *array.shape[1:]))
        whole[:rows] = array
        whole[rows:] = before[name][rows:] if name in before else 0
    return carries
