"""A call of any length -> runs over blocks of steps, and results like those of one run.

    forward    each block starts from the carries the one before has left
    backward   last block first; a block that kept no residuals runs forward again from its carries

A loop that stops and goes on computes what it would have computed: values, and gradients of inputs
and states, have the same bits whatever the blocks. Gradients of what serves every step are sums of
the blocks' own, the last block's first.

    inference            blocks as long as their workspace is small: memory doesn't grow with time
    training             one block, its residuals kept
    checkpoints every K  blocks of K steps, their first carries kept
    rows that have ended blocks of the rows that go on (`row_blocks`), their residuals kept

Non-Goals: one run (`call`); checking arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rnncc.artifact.array_tables import BufferSpec
from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.result_roles import LAST, cotangent_name, final_name
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.common.allocators import Allocator
from rnncc.runtime.cpu.execution.job import Arrays, Job, Residuals
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.direction_tables import result_shape
from rnncc.runtime.planning.layouts import axes_of, pad

LEAST_STEPS = 64
BLOCK_BYTES = 4 * 2**20

TIMED = ("input", "valid")
CARRIED = ("state", "held")
OF_ROWS = (*TIMED, *CARRIED, "context", "restart")


@dataclass(slots=True)
class Block:
    """Some steps of a call: the carries they start from, of all rows; their residuals, if those
    were kept. rows: how many run, the first ones; None is all."""

    begin: int
    end: int
    carries: dict[str, Any]
    residuals: Residuals | None = None
    rows: int | None = None

    def call(self, whole: CallKey) -> CallKey:
        """Of a whole call, its own."""
        time, batch = self.end - self.begin, self.rows or whole.batch
        if (time, batch) == (whole.time, whole.batch):
            return whole
        return replace(whole, time=time, batch=batch)


@dataclass(slots=True)
class Saved:
    """What a pullback owns: parameters as they were, how the call was shaped, and its blocks."""

    arrays: dict[str, Any]
    call: CallKey
    version: object
    first_step: int
    blocks: list[Block]

    @property
    def is_whole(self) -> bool:
        """Whether its residuals are kept: then the arrays may be others with the same numbers."""
        return len(self.blocks) == 1 and self.blocks[0].residuals is not None


class Done(Protocol):
    """A job that was done."""

    @property
    def results(self) -> dict[str, Any]: ...

    def residuals(self) -> Residuals: ...


class Runs(Protocol):
    """One direction of a cell, on the CPU or on a GPU."""

    @property
    def direction(self) -> DirectionSpec: ...

    @property
    def buffers(self) -> Mapping[str, BufferSpec]: ...

    @property
    def item(self) -> int: ...

    def run(self, job: Job) -> Done:
        """The job, done."""
        ...

    def room(self, arrays: Arrays) -> Allocator:
        """Who makes arrays for a call."""
        ...


def carries_of(direction: DirectionSpec) -> list[str]:
    """Parameters a block starts from: the next one starts from their last values."""
    return [name for _, role, name in direction.params if role in CARRIED]


def last_carries(direction: DirectionSpec, results: Arrays) -> dict[str, Any]:
    """The last values of carries among some results, by the names of parameters that begin with
    them."""
    last = [p for p in direction.results if p.kind in LAST]
    return {p.of: results[p.name] for p in last if p.name in results}


def block_steps(side: Runs, call: CallKey, most: int | None = None) -> int:
    """How many steps at once need a workspace of at most so many bytes, or a small one."""
    sizes, row = dict(call.sizes), 0
    for buffer in side.direction.buffers:
        if "T" in buffer.axes and buffer.storage == "work" and not buffer.local:
            *outer, last = (1, *(evaluate(text, sizes) for text in buffer.shape))
            row += math.prod(outer) * pad(last) * (call.batch if "B" in buffer.axes else 1)
    bytes_ = BLOCK_BYTES if most is None else most
    return max(bytes_ // max(row * side.item, 1), LEAST_STEPS)


def borders(time: int, steps: int, every: int | None = None) -> Iterator[tuple[int, int]]:
    """Blocks of at most so many steps, none of them across a checkpoint.

    >>> list(borders(7, 4)), list(borders(7, 2, 3))
    ([(0, 4), (4, 7)], [(0, 2), (2, 3), (3, 5), (5, 6), (6, 7)])
    """
    begin = 0
    while begin < time:
        end = min(begin + steps, time)
        if every is not None:
            end = min(end, (begin // every + 1) * every)
        yield begin, end
        begin = end


def part_of(direction: DirectionSpec, arrays: Arrays, block: Block, time: int) -> dict[str, Any]:
    """The arrays of some of a call's steps and rows, from the block's carries."""
    part = {**arrays, **block.carries}
    if (block.begin, block.end) != (0, time):
        for _, role, name in direction.params:
            if role in TIMED and name in part:
                part[name] = part[name][:, block.begin : block.end]
    if block.rows is not None:
        for _, role, name in direction.params:
            if role in OF_ROWS and name in part:
                part[name] = part[name][: block.rows]
    return part


def sequences_of(
    side: Runs, kind: str, call: CallKey, out: Arrays, room: Allocator
) -> dict[str, Any]:
    """Results of a kind over all steps, whole: every block writes its own."""
    sequences = {}
    for place in side.direction.results:
        last_only = call.last_only and kind == "output"
        if place.kind == kind and not last_only:
            array = out.get(place.name)
            if array is None:
                array = room.empty(result_shape(place, side.buffers, call))
            sequences[place.name] = array
    return sequences


# ---- forward ---------------------------------------------------------------------------------


def forward(
    side: Runs, job: Job, steps: int, every: int | None, carry: bool = False
) -> tuple[dict[str, Any], list[Block]]:
    """Results by name, and the blocks a pullback needs if `job.call.save`. carry: with those of
    carries that callers don't see."""
    call, time = job.call, job.call.time
    if call.save and every is None:
        run = side.run(job)
        return run.results, [Block(0, time, {}, run.residuals())]
    is_one_run = not call.save and time <= steps
    if is_one_run and not carry:
        return side.run(job).results, []
    places = [p for p in side.direction.results if p.kind != "residual"]
    wanted = frozenset([p.name for p in places])
    if is_one_run:
        return side.run(replace(job, wanted=wanted)).results, []
    names = carries_of(side.direction)
    room = side.room(job.arrays)
    sequences = sequences_of(side, "output", call, job.out, room)
    blocks: list[Block] = []
    results: dict[str, Any] = {}
    carries = {n: room.copy(job.arrays[n]) for n in names if n in job.arrays}
    for begin, end in borders(time, steps, every):
        if every is not None and begin % every == 0:
            blocks.append(Block(begin, min(begin + every, time), carries))
        arrays = part_of(side.direction, job.arrays, Block(begin, end, carries), time)
        out = {} if end < time else dict(job.out)
        out |= {n: a[:, begin:end] for n, a in sequences.items()}
        own = replace(call, time=end - begin, save=False)
        first_step = job.first_step + begin
        part = Job(arrays, own, job.version, wanted=wanted, out=out, first_step=first_step)
        results = side.run(part).results
        carries = last_carries(side.direction, results)
    returned = [p.name for p in places if carry or p.kind != "held"]
    return {n: results[n] for n in returned} | sequences, blocks


# ---- backward --------------------------------------------------------------------------------


def backward(
    ahead: Runs,
    back: Runs,
    saved: Saved,
    cotangents: Arrays,
    wanted: frozenset[str],
    out: Arrays,
) -> dict[str, Any]:
    """Gradients by parameter. Cotangents by result, those of outputs of every step or as they were
    returned; a missing one is zero."""
    call, names = saved.call, carries_of(ahead.direction)
    sequences: dict[str, Any] = {}
    room = back.room(saved.arrays)
    is_cut = len(saved.blocks) > 1 or saved.blocks[0].rows is not None
    if is_cut:
        every = sequences_of(back, "grad_input", call, out, room)
        sequences = {n: a for n, a in every.items() if n in wanted}
    handed = dict(cotangents)
    steps = _of_every_step(ahead, cotangents) if is_cut else []
    totals: dict[str, Any] = {}
    for block in reversed(saved.blocks):
        begin, end, rows = block.begin, block.end, block.rows
        first_step = saved.first_step + begin
        arrays = part_of(ahead.direction, saved.arrays, block, call.time)
        own = block.call(call)
        residuals = block.residuals
        if residuals is None:
            job = Job(arrays, replace(own, last_only=True), saved.version, first_step=first_step)
            residuals = ahead.run(job).residuals()
        going = handed if rows is None else {n: d[:rows] for n, d in handed.items()}
        arrays |= cotangents_of(back, going, own, block, room)
        asked = wanted.union(names) if begin else wanted
        part = {n: a[:rows, begin:end] for n, a in sequences.items()} or out
        run = back.run(Job(arrays, own, saved.version, residuals, asked, part, first_step))
        gradients = dict(run.results)
        if rows is not None:
            _ended(back, gradients, sequences, handed, block, call.batch, room)
        if begin:
            handed = {n: d for n, d in handed.items() if n in steps}
            handed |= {final_name(n): gradients.pop(n) for n in names if n in gradients}
        for name, array in gradients.items():
            if name not in sequences:
                if name in totals:
                    totals[name] += array  # a block's own: nobody else has it
                else:
                    totals[name] = array
    return sequences | totals


def _ended(
    side: Runs,
    gradients: dict[str, Any],
    sequences: Arrays,
    handed: Arrays,
    block: Block,
    batch: int,
    room: Allocator,
) -> None:
    """Gradients of a block of some rows, of all of them: what came in behind a state goes on to
    what it was, and the rest depends on nothing."""
    for array in sequences.values():
        array[block.rows :, block.begin : block.end] = 0
    for place in side.direction.results:
        found = gradients.get(place.of)
        if found is None or place.of in sequences or "B" not in axes_of(place, side.buffers):
            continue
        behind = handed.get(final_name(place.of))
        whole = gradients[place.of] = room.zeros((batch, *found.shape[1:]))
        whole[: block.rows] = found
        if behind is not None:
            whole[block.rows :] = behind[block.rows :]


def _of_every_step(side: Runs, cotangents: Arrays) -> list[str]:
    """Cotangents that enter at more than the last step."""
    lead = {p.name: 2 for p in side.direction.results if p.kind == "output"}
    buffers = {p.name: side.buffers[p.source.buffer] for p in side.direction.results}
    return [n for n, d in cotangents.items() if d.ndim == lead.get(n, 0) + len(buffers[n].shape)]


def cotangents_of(
    side: Runs, handed: Arrays, call: CallKey, block: Block, room: Allocator
) -> dict[str, Any]:
    """What comes into a block from behind: cotangents of its steps and of its last carries."""
    cotangents = {}
    brought = {cotangent_name(n): d for n, d in handed.items()}
    for name, role, caller in side.direction.params:
        if role != "cotangent":
            continue
        buffer, cotangent = side.buffers[name], brought.get(caller)
        lead = len(buffer.axes)
        if cotangent is None or ("T" in buffer.axes and cotangent.ndim < lead + len(buffer.shape)):
            sizes, last = dict(call.sizes), cotangent
            shape = [evaluate(s, sizes) for s in buffer.shape]
            rows = tuple({"B": call.batch, "T": call.time}[a] for a in buffer.axes)
            if last is None:
                cotangent = room.nothing((*rows, *shape), len(rows))
            else:
                cotangent = room.zeros((*rows, *shape))
                cotangent[:, -1] = last
        elif "T" in buffer.axes and cotangent.shape[1] != call.time:
            cotangent = cotangent[:, block.begin : block.end]
        cotangents[caller] = cotangent
    return cotangents
