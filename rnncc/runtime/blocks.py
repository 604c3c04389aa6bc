"""A call of any length -> runs over blocks of steps, and results like those of one run.

    forward    each block starts from the carries the one before has left
    backward   last block first; a block that kept no residuals runs forward again from its carries

A loop that stops and goes on computes what it would have computed: values, and gradients of inputs
and states, have the same bits whatever the blocks. Gradients of what serves every step are sums of
the blocks' own, the last block's first.

    inference            blocks as long as their workspace is small: memory doesn't grow with time
    training             one block, its residuals kept
    checkpoints every K  blocks of K steps, their first carries kept

Non-Goals: one run (`call`); checking arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncc.runtime.bind import Call, pad
from rnncc.runtime.call import Arrays, Job, Memory, Run
from rnncc.runtime.memory import Lease
from rnncc.runtime.sizes import evaluate
from rnncc.runtime.tables import Direction

if TYPE_CHECKING:
    from rnncc.runtime.engine import Side

LEAST_STEPS = 64
BLOCK_BYTES = 4 * 2**20

TIMED = ("input", "valid")
CARRIED = ("state", "held")


@dataclass(slots=True)
class Block:
    """Some steps of a call: the carries they start from; their residuals, if those were kept."""

    begin: int
    end: int
    carries: dict[str, np.ndarray]
    residuals: dict[str, Memory] | None = None
    lease: Lease | None = None  # of the memory the residuals lie in


@dataclass(slots=True)
class Saved:
    """What a pullback owns: parameters as they were, how the call was shaped, and its blocks."""

    arrays: dict[str, Any]
    call: Call
    version: object
    first_step: int
    blocks: list[Block]


def carries_of(direction: Direction) -> list[str]:
    """Parameters a block starts from; its results `final_<name>` are where the next one starts."""
    return [name for _, role, name in direction.params if role in CARRIED]


def block_steps(side: Side, call: Call) -> int:
    """How many steps at once need a small workspace."""
    sizes, row = dict(call.sizes), 0
    for buffer in side.direction.buffers:
        if "T" in buffer.axes and buffer.storage == "work":
            *outer, last = (1, *(evaluate(text, sizes) for text in buffer.shape))
            row += math.prod(outer) * pad(last) * (call.batch if "B" in buffer.axes else 1)
    return max(BLOCK_BYTES // max(row * side.item, 1), LEAST_STEPS)


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


def _part(direction: Direction, job: Job, begin: int, end: int, carries: Arrays) -> Job:
    """The job of some of its steps, from these carries; results where its own runs want them."""
    timed = [name for _, role, name in direction.params if role in TIMED and name in job.arrays]
    return replace(
        job,
        arrays={**job.arrays, **{n: job.arrays[n][:, begin:end] for n in timed}, **carries},
        call=replace(job.call, time=end - begin),
        first_step=job.first_step + begin,
        out={},
    )


# ---- forward ---------------------------------------------------------------------------------


def forward(
    side: Side, job: Job, steps: int, every: int | None
) -> tuple[dict[str, np.ndarray], list[Block]]:
    """Results by name, and the blocks a pullback needs if `job.call.save`."""
    call, direction = job.call, side.direction
    if call.save and every is None:
        run = Run(side, job)
        results = run.go()
        return results, [Block(0, call.time, {}, run.residuals(), run.saved_arena)]
    if not call.save and call.time <= steps:
        return Run(side, job).go(), []
    names, places = carries_of(direction), [p for p in direction.results if p.role != "residual"]
    sequences = {
        p.name: side.target(p, call, job.out)
        for p in places
        if p.role == "output" and not call.last_only
    }
    job = replace(job, wanted=frozenset(p.name.removeprefix("d_") for p in places))
    blocks: list[Block] = []
    carries: dict[str, np.ndarray] = {}
    found: dict[str, np.ndarray] = {}
    for begin, end in borders(call.time, steps, every):
        if every is not None and begin % every == 0:
            start = carries or {n: np.array(job.arrays[n]) for n in names if n in job.arrays}
            blocks.append(Block(begin, min(begin + every, call.time), start))
        part = _part(direction, job, begin, end, carries)
        out = {} if end < call.time else dict(job.out)
        out |= {n: a[:, begin:end] for n, a in sequences.items()}
        found = Run(side, replace(part, call=replace(part.call, save=False), out=out)).go()
        carries = {n: found[f"final_{n}"] for n in names}
    return {p.name: found[p.name] for p in places if p.role != "held"} | sequences, blocks


# ---- backward --------------------------------------------------------------------------------


def backward(
    ahead: Side,
    back: Side,
    saved: Saved,
    cotangents: Arrays,
    wanted: frozenset[str],
    out: Arrays,
) -> dict[str, np.ndarray]:
    """Gradients by parameter. Cotangents by result, those of outputs of every step or as they were
    returned; a missing one is zero."""
    call, direction = saved.call, ahead.direction
    job = Job(saved.arrays, call, saved.version, first_step=saved.first_step)
    names, places = carries_of(direction), {p.name: p for p in back.direction.results}
    timed = [n for _, role, n in direction.params if role == "input" and n in wanted]
    sequences = {
        n: back.target(places[f"d_{n}"], replace(call, last_only=False), {f"d_{n}": out.get(n)})
        for n in timed
        if f"d_{n}" in places
    }
    rest = wanted.intersection(n.removeprefix("d_") for n in places) - sequences.keys()
    handed = dict(cotangents)
    found: dict[str, np.ndarray] = {}
    totals: dict[str, np.ndarray] = {}
    for block in reversed(saved.blocks):
        part = _part(direction, job, block.begin, block.end, block.carries)
        residuals = block.residuals
        if residuals is None:
            again = Run(ahead, replace(part, call=replace(part.call, last_only=True)))
            again.go()
            residuals = again.residuals()  # in memory that `again` holds on to
        given = _cotangents(back, handed, call, block)
        first = block.begin == 0
        run = Run(
            back,
            replace(
                part,
                arrays={**part.arrays, **given},
                call=replace(part.call, last_only=False),
                residuals=residuals,
                wanted=wanted if first else wanted.union(names),
                out={f"d_{n}": a[:, block.begin : block.end] for n, a in sequences.items()},
            ),
        )
        found = {n.removeprefix("d_"): a for n, a in run.go().items()}
        for name in rest.difference(names):
            totals[name] = totals[name] + found[name] if name in totals else found[name]
        handed = {f"final_{n}": found[n] for n in names if n in found}
    return sequences | totals | {n: found[n] for n in rest.intersection(names)}


def _cotangents(
    side: Side, handed: Mapping[str, np.ndarray], call: Call, block: Block
) -> dict[str, np.ndarray]:
    """What comes into a block from behind: cotangents of its steps and of its last carries."""
    sizes, time = dict(call.sizes), block.end - block.begin
    found = {}
    for name, role, caller in side.direction.params:
        if role != "cotangent":
            continue
        buffer, given = side.buffers[name], handed.get(caller.removeprefix("d_"))
        shape = tuple(evaluate(s, sizes) for s in buffer.shape)
        if given is None:
            lead = tuple({"B": call.batch, "T": time}[a] for a in buffer.axes)
            given = np.broadcast_to(np.zeros(shape, side.dtype), (*lead, *shape))
        elif "T" in buffer.axes and given.ndim == 2 + len(shape):
            given = given[:, block.begin : block.end]
        elif "T" in buffer.axes:
            last, given = given, np.zeros((call.batch, time, *shape), side.dtype)
            given[:, -1] = last
        found[caller] = given
    return found
