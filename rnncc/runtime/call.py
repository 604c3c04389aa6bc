"""One direction, once: memory, initial states, launches, results.

Non-Goals: what stays the same between calls (`prepared`); packing (`packing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncc.runtime.bind import LANE_PAD, Layout, pad
from rnncc.runtime.launch import launch
from rnncc.runtime.memory import Lease, Pool, address_of, aligned
from rnncc.runtime.packing import Packed, pack_all
from rnncc.runtime.tables import Buffer, Place

if TYPE_CHECKING:
    from rnncc.runtime.engine import Side

_POOL = Pool()

Arrays = Mapping[str, Any]


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
class Saved:
    """What a pullback owns: parameters as they were, residuals, and how the call was shaped."""

    arrays: dict[str, Any]
    residuals: dict[str, Memory]
    sizes: dict[str, int]
    batch: int
    time: int
    version: object
    lease: Lease | None  # of the memory the residuals lie in


class Run:
    """`wanted` chooses among results; None is all of them."""

    def __init__(
        self,
        side: Side,
        arrays: Arrays,
        sizes: dict[str, int],
        batch: int,
        time: int,
        version: object,
        save: bool,
        last_only: bool,
        residuals: Mapping[str, Memory],
        wanted: frozenset[str] | None = None,
    ) -> None:
        self.side, self.arrays = side, arrays
        self.batch, self.time, self.version = batch, time, version
        self.residuals, self.wanted = residuals, wanted
        self.item = side.item
        self.prepared = side.prepared(sizes, batch, time, save, last_only, residuals)
        self.binding = self.prepared.binding
        self.memory: dict[str, Memory] = {}
        self.bases = np.zeros(len(self.prepared.points), np.int64)
        for buffer, role, name in side.direction.params:
            if role != "seed":
                self.put(buffer, self.parameter(side.buffers[buffer], role, name))

    def put(self, name: str, memory: Memory) -> None:
        self.memory[name] = memory
        self.bases[self.prepared.points[name]] = memory.address

    # ---- memory -------------------------------------------------------------------------------

    def parameter(self, buffer: Buffer, role: str, name: str) -> Memory:
        """Where a parameter is. What is read vector by vector is padded first, if need be."""
        if role == "residual":
            return self.residuals[name]
        layout = self.binding.layouts[buffer.name]
        array = self.arrays[name]
        if role in ("weight", "constant"):
            return self.side.weight(self.version, name, array, layout)
        array = np.ascontiguousarray(array, self.side.dtype)
        if layout.padded:
            array = padded(array)
        elif address_of(array) % self.item:
            array = array.copy()
        return Memory.of(array, layout)

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
        for name in made.result_names:
            array = aligned((max(self.binding.bytes[name], 1),), np.uint8)
            self.put(name, Memory.of(array, self.binding.layouts[name]))

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

    def own_arrays(self) -> dict[str, Any]:
        """Parameters for the pullback, with the caller's own arrays copied: they may change."""
        owned = dict(self.arrays)
        for _, role, name in self.side.direction.params:
            if role in ("input", "context", "state", "valid") and isinstance(
                owned[name], np.ndarray
            ):
                copied = aligned(owned[name].shape, owned[name].dtype)
                copied[...] = owned[name]
                owned[name] = copied
        return owned

    # ---- the call -----------------------------------------------------------------------------

    def go(self) -> dict[str, np.ndarray]:
        made = self.prepared
        needed = made.needed(self.wanted)
        with _POOL.borrow(made.workspace_bytes) as workspace:
            self.place(workspace)
            self.use(self.packed())
            blocks = self.blocks()
            base = address_of(blocks)
            self.start_carries(computed=False)
            ended = False
            for step in made.steps:
                kernel = step.bound.kernel
                if kernel.name not in needed:
                    continue
                if kernel.phase == "scan":
                    self.start_carries(computed=True)
                elif kernel.phase == "after" and not ended:
                    self.end_entries()
                    ended = True
                launch(step.address, base + step.start * 8, step.bound.parts)
            if not ended:
                self.end_entries()
            return {
                p.name: self.result(p)
                for p in self.side.direction.results
                if made.is_wanted(p, self.wanted)
            }

    def blocks(self) -> np.ndarray:
        made = self.prepared
        blocks = made.template.copy()
        blocks[made.words] += self.bases[made.whats]
        for index in made.seed_words:
            blocks[index] = int(self.arrays["seed"])
        return blocks

    # ---- weights --------------------------------------------------------------------------------

    def packed(self) -> Packed:
        """Packed weights of this version, for these tiles."""
        side = self.side
        rates = tuple(float(np.asarray(self.arrays[name])) for name in side.rate_names)
        seed = self.arrays.get("seed") if self.prepared.seed_words else None
        key = (self.version, rates, seed, self.prepared.binding.tile_key)
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
        packed = Packed(memory, arena, address_of(arena))
        self.use(packed)
        for step in made.before_weights:
            self.pack_stages(step.bound.kernel.name, packed)
            blocks = self.blocks()
            launch(step.address, address_of(blocks) + step.start * 8, 1)
        self.pack_stages("", packed)
        return packed

    def pack_stages(self, name: str, packed: Packed) -> None:
        plan = self.prepared.packing.plans[name]
        block = plan.template.copy()
        block[plan.words] += np.where(plan.points < 0, packed.base, self.bases[plan.points])
        launch(pack_all.address, address_of(block), 1)

    def use(self, packed: Packed) -> None:
        self.in_use = packed  # alive as long as its addresses are, whoever else keeps it
        for name, memory in packed.memory.items():
            self.put(name, memory)
        self.bases[self.prepared.pack_points] = packed.base + self.prepared.pack_offsets

    # ---- carries --------------------------------------------------------------------------------

    def start_carries(self, computed: bool) -> None:
        """The slot of the first step: zeros, the initial state, or what `before` computed."""
        roles = self.side.roles
        for carry in self.side.direction.carries:
            if (bool(carry.init) and carry.init not in roles) == computed:
                self.start(carry.buffer, carry.init)

    def end_entries(self) -> None:
        """A carry that only enters at the first step leaves nothing."""
        last = 0 if self.side.direction.reverse else self.time
        for carry in self.side.direction.carries:
            if carry.entry and self.time:
                self.rows(carry.buffer, last & self.binding.layouts[carry.buffer].ring)[...] = 0

    def start(self, buffer: str, init: str) -> None:
        layout = self.binding.layouts[buffer]
        slot = (self.time if self.side.direction.reverse else 0) & layout.ring
        target = self.rows(buffer, slot)
        if not init:
            target[...] = 0
            return
        source = self.view(self.find(init), self.side.buffers[init].axes)
        if not layout.shape:
            source = source.reshape(-1, 1)
        target[..., : source.shape[-1]] = source

    def rows(self, buffer: str, slot: int) -> np.ndarray:
        """[B, outer..., padded last] of one slot of a carry."""
        memory = self.find(buffer)
        layout = memory.layout
        shape = (*layout.shape[:-1], pad(layout.last)) if layout.shape else (LANE_PAD,)
        strides = layout.strides if layout.shape else (self.item,)
        offset = memory.address - memory.base + slot * layout.t
        return np.ndarray(
            (self.batch, *shape), self.side.dtype, memory.owner, offset, (layout.b, *strides)
        )

    def view(self, memory: Memory, axes: str, shift: int = 0) -> np.ndarray:
        """A buffer as the array it stands for: [B?, T?, features], without padding."""
        layout = memory.layout
        shape, strides = layout.shape, layout.strides
        if "T" in axes:
            shape, strides = (self.time, *shape), (layout.t, *strides)
        if "B" in axes:
            shape, strides = (self.batch, *shape), (layout.b, *strides)
        raw = memory.owner if memory.owner.dtype == np.uint8 else _bytes(memory.owner)
        offset = memory.address - memory.base + shift
        return np.ndarray(shape, self.side.dtype, raw, offset, strides)

    # ---- results --------------------------------------------------------------------------------

    def residual(self, place: Place) -> Memory:
        """A residual's rows: its address already at the slot it means."""
        memory = self.find(place.source.buffer)
        return Memory(
            memory.owner, memory.base, memory.address + self.slot_shift(place), memory.layout
        )

    def slot_shift(self, place: Place) -> int:
        slot = place.source.slot
        if not slot:
            return 0
        layout = self.binding.layouts[place.source.buffer]
        if slot == "final":
            last = 0 if self.side.direction.reverse else self.time
            return (last & layout.ring) * layout.t
        return layout.t * int((slot == "in") == self.side.direction.reverse)

    def result(self, place: Place) -> np.ndarray:
        """The caller's own array: the buffer itself where it has no gaps, else a copy."""
        name = place.source.buffer
        axes = "B" if place.source.slot else self.side.buffers[name].axes
        if place.parts:
            views = [self.view(self.find(s.buffer), axes) for s in place.parts]
            return np.concatenate(views, axis=place.axis + len(axes))
        memory = self.find(name)
        last_only = self.binding.call.last_only and place.role == "output"
        whole = memory.layout.slots != 1 or self.time == 1
        if last_only and "T" in axes and not whole:
            axes = axes.replace("T", "")
        array = self.view(memory, axes, self.slot_shift(place))
        if last_only and "T" in axes:
            return np.ascontiguousarray(array[:, -1])
        owned = name in self.prepared.result_names
        return array if owned and array.flags.c_contiguous else np.array(array, order="C")


def padded(array: np.ndarray) -> np.ndarray:
    """The array with its last axis padded to LANE_PAD, zeros in the padding."""
    if array.ndim == 0:
        out = aligned((LANE_PAD,), array.dtype, zero=True)
        out[0] = array
        return out
    out = aligned((*array.shape[:-1], pad(array.shape[-1])), array.dtype, zero=True)
    out[..., : array.shape[-1]] = array
    return out


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
