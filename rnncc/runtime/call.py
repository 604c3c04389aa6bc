"""One direction, once: memory, initial states, launches, results.

Non-Goals: what stays the same between calls (`prepared`); packing (`packing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncc.runtime.bind import Call, Layout, axes_of, needs_padding, pad
from rnncc.runtime.launch import launch
from rnncc.runtime.memory import Lease, Pool, address_of, aligned, write_into
from rnncc.runtime.moves import slot_offset
from rnncc.runtime.packing import Packed, pack_all
from rnncc.runtime.sizes import evaluate
from rnncc.runtime.strides import has_dense_rows, repeated, row_strides
from rnncc.runtime.tables import Buffer

if TYPE_CHECKING:
    from rnncc.runtime.engine import Side
    from rnncc.runtime.prepared import Blocks

_POOL = Pool()

Arrays = Mapping[str, Any]
WEIGHTS = ("weight", "constant")


@dataclass(slots=True)
class Memory:
    """A buffer's bytes: an owner that keeps them alive, where its first row is in it, layout."""

    owner: np.ndarray
    base: int  # the owner's address
    address: int
    layout: Layout

    @classmethod
    def of(cls, array: np.ndarray, layout: Layout) -> Memory:
        """An array that begins with the buffer's first row."""
        base = address_of(array)
        return cls(array, base, base, layout)


@dataclass(slots=True)
class Job:
    """What is asked of one direction.

    wanted: the results to give; None is all of them but those of carries that callers don't see.
    out: arrays to write results into. first_step: what draws count steps from.
    """

    arrays: Arrays
    call: Call
    version: object
    residuals: Mapping[str, Memory] = field(default_factory=dict)
    wanted: frozenset[str] | None = None
    out: Arrays = field(default_factory=dict)
    first_step: int = 0


class Run:
    """One Job, once."""

    def __init__(self, side: Side, job: Job) -> None:
        self.side, self.job, self.arrays = side, job, job.arrays
        self.batch, self.time, self.item = job.call.batch, job.call.time, side.item
        self.later: dict[str, np.ndarray] = {}  # results copied to where their caller wants them
        given = {
            buffer: self.as_read(side.buffers[buffer], role, name)
            for buffer, role, name in side.direction.params
            if role not in (*WEIGHTS, "residual", "seed")
        }
        self.prepared = side.prepared(self.strided(given), job.residuals)
        self.binding = self.prepared.binding
        self.choice = self.prepared.choice(job.wanted)
        self.memory: dict[str, Memory] = {}
        self.bases = np.zeros(len(self.prepared.points), np.int64)
        for buffer, role, name in side.direction.params:
            if role == "residual":
                self.put(buffer, job.residuals[name])
            elif buffer in given:
                self.put(buffer, Memory.of(given[buffer], self.binding.layouts[buffer]))

    def put(self, name: str, memory: Memory) -> None:
        self.memory[name] = memory
        self.bases[self.prepared.points[name]] = memory.address

    # ---- memory -------------------------------------------------------------------------------

    def as_read(self, buffer: Buffer, role: str, name: str) -> np.ndarray:
        """A parameter as kernels read it: rows anywhere, without gaps inside them; what is read
        vector by vector is padded by a copy, if need be."""
        lead = len(buffer.axes)
        if role == "held" and name not in self.arrays:  # nothing has been put out yet
            rest = [evaluate(s, dict(self.job.call.sizes)) for s in buffer.shape]
            array = repeated(np.zeros(rest, self.side.dtype), (self.batch,))
        else:
            array = np.asarray(self.arrays[name], self.side.dtype)
        if buffer.lanes and needs_padding(array.shape[lead:]):
            return padded(array, lead)
        return array if has_dense_rows(array, lead) else np.array(array, order="C")

    def strided(self, given: Mapping[str, np.ndarray]) -> Call:
        """The call with the strides of rows that don't lie one after another."""
        job, buffers = self.job, self.side.buffers
        strides = [(n, *s) for n, a in given.items() if (s := row_strides(a, buffers[n].axes))]
        if not job.out:
            return replace(job.call, strides=tuple(strides)) if strides else job.call
        found = []
        for place in self.side.direction.results:
            array = job.out.get(place.name)
            if array is None:
                continue
            axes = axes_of(place, buffers)[: array.ndim - len(buffers[place.source.buffer].shape)]
            if not has_dense_rows(array, len(axes)):
                self.later[place.name] = array
            elif own := row_strides(array, axes):
                found.append((place.name, *own))
        return replace(job.call, strides=tuple(strides), result_strides=tuple(found))

    def place(self, workspace: np.ndarray) -> None:
        """Addresses of this call's memory."""
        made = self.prepared
        base = address_of(workspace)
        workspace[made.sync_at : made.ones_at] = 0
        workspace[made.ones_at : made.ones_at + self.item].view(self.side.dtype)[0] = 1
        self.bases[made.shared.points] = base + made.shared.offsets
        self.bases[made.global_points] = base + made.global_offsets
        self.workspace, self.workspace_base = workspace, base
        self.saved_arena: Lease | None = None
        if made.saved_names:
            self.saved_arena = _POOL.lease(max(made.saved.size, 1))
            self.saved_base = address_of(self.saved_arena.array)
            self.bases[made.saved.points] = self.saved_base + made.saved.offsets
        self.results: dict[str, np.ndarray] = {}
        for name, shape, point in self.choice.arrays:
            array = self.job.out.get(name)
            if array is None or name in self.later:
                array = aligned(shape, self.side.dtype)
            self.results[name] = array
            self.bases[point] = address_of(array)

    def find(self, name: str) -> Memory:
        """A buffer's memory; those in the workspace or saved are looked up when asked for."""
        if name not in self.memory:
            made = self.prepared
            owner, base = self.workspace, self.workspace_base
            if name in made.saved_names:
                assert self.saved_arena is not None
                owner, base = self.saved_arena.array, self.saved_base
            address = int(self.bases[made.points[name]])
            self.memory[name] = Memory(owner, base, address, self.binding.layouts[name])
        return self.memory[name]

    # ---- the call -----------------------------------------------------------------------------

    def go(self) -> dict[str, np.ndarray]:
        with _POOL.borrow(self.prepared.workspace_bytes) as workspace:
            self.place(workspace)
            self.use(self.packed())
            self.launch(self.choice.blocks)
        write_into(self.later, self.results)
        return {name: self.results[name] for name in self.choice.results}

    def launch(self, blocks: Blocks) -> None:
        """Kernels and copies, with the addresses of this call."""
        words = blocks.template.copy()
        words[blocks.words] += self.bases[blocks.points]
        for index in blocks.seed_words:
            words[index] = int(self.arrays["seed"])
        for index in blocks.step_words:
            words[index] = self.job.first_step
        base = address_of(words)
        for each in blocks.launches:
            launch(each.entry.address, base + each.start * 8, each.parts)

    # ---- weights --------------------------------------------------------------------------------

    def packed(self) -> Packed:
        """Packed weights of this version, for these tiles."""
        side = self.side
        rates = tuple([float(np.asarray(self.arrays[name])) for name in side.rate_names])
        seed = self.arrays.get("seed") if self.prepared.draws_weights else None
        key = (self.job.version, rates, seed, self.prepared.tile_key)
        with side.lock:
            found = side.packs.get(key)
            if found is None:
                found = side.packs[key] = self.pack()
                while len(side.packs) > side.kept_packs:
                    side.packs.popitem(last=False)
            else:
                side.packs.move_to_end(key)
            return found

    def pack(self) -> Packed:
        made = self.prepared
        memory: dict[str, Memory] = {}
        for name in made.weight_names:
            array = aligned((max(self.binding.bytes[name], 1),), np.uint8)
            memory[name] = Memory.of(array, self.binding.layouts[name])
        arena = aligned((max(made.packing.size, 1),), np.uint8)
        weights = {
            buffer: self.side.weight(
                self.job.version, name, self.arrays[name], self.binding.layouts[buffer]
            )
            for buffer, role, name in self.side.direction.params
            if role in WEIGHTS
        }
        addresses = np.array([m.address for m in weights.values()], np.int64)
        packed = Packed(memory, weights, addresses, arena, address_of(arena))
        self.use(packed)
        for name, blocks in made.early.items():
            self.pack_stages(name, packed)
            self.launch(blocks)
        self.pack_stages("", packed)
        return packed

    def pack_stages(self, name: str, packed: Packed) -> None:
        plan = self.prepared.packing.plans[name]
        block = plan.template.copy()
        block[plan.words] += np.where(plan.points < 0, packed.base, self.bases[plan.points])
        launch(pack_all.address, address_of(block), 1)

    def use(self, packed: Packed) -> None:
        self.in_use = packed  # alive as long as its addresses are, whoever else keeps it
        self.memory |= packed.weights
        self.bases[self.prepared.weight_points] = packed.addresses
        for name, memory in packed.memory.items():
            self.put(name, memory)
        self.bases[self.prepared.pack_points] = packed.base + self.prepared.pack_offsets

    # ---- results --------------------------------------------------------------------------------

    def residuals(self) -> dict[str, Memory]:
        """By name: their addresses are already at the slots they mean."""
        found = {}
        for place in self.side.direction.results:
            if place.role == "residual":
                memory = self.find(place.source.buffer)
                reverse = self.side.direction.reverse
                address = memory.address + slot_offset(place, memory.layout, self.time, reverse)
                found[place.name] = Memory(memory.owner, memory.base, address, memory.layout)
        return found


def padded(array: np.ndarray, lead: int = 0) -> np.ndarray:
    """The array with its last axis padded to LANE_PAD, zeros in the padding; an axis among the
    first `lead` that repeats one row goes on doing so."""
    shape = array.shape[:lead]
    array = array[tuple(slice(None) if s else slice(1) for s in array.strides[:lead])]
    if array.ndim == lead:
        array = array[..., None]
    out = aligned((*array.shape[:-1], pad(array.shape[-1])), array.dtype, zero=True)
    out[..., : array.shape[-1]] = array
    return out if out.shape[:lead] == shape else np.broadcast_to(out, (*shape, *out.shape[lead:]))
