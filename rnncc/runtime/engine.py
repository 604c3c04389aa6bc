"""A generated module's tables + arrays -> results: binds, packs weights, fills blocks, launches.

One call is: look up (or make) the Binding for these sizes; look up (or make) the packed weights of
this version; take a workspace; fill each kernel's block; launch the kernels in order.

Non-Goals: checking what users give (`doors`): arrays arrive C-contiguous, of the right shape and
dtype; initial values, options, layers (`layer`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnncc.runtime.bind import LANE_PAD, Binder, Binding, BoundKernel, Call, Layout, pad, requests, touched
from rnncc.runtime.bulk import contract_bulk, sum_bulk
from rnncc.runtime.cores import cores
from rnncc.runtime.launch import launch, max_threads, threading_reason
from rnncc.runtime.machine import host
from rnncc.runtime.memory import ALIGNMENT, Pool, aligned
from rnncc.runtime.packing import Packed, pack_weights
from rnncc.runtime.sizes import evaluate
from rnncc.runtime.tables import Buffer, Direction, Place
from rnncc.runtime.threads import SYNC_WORDS

KEPT_BINDINGS = 32
KEPT_PACKS = 4
_POOL = Pool()

Arrays = Mapping[str, Any]


@dataclass(slots=True)
class Memory:
    """A buffer's bytes: an owner that keeps them alive, the address of its first row, layout."""

    owner: np.ndarray
    address: int
    layout: Layout


@dataclass(slots=True)
class Saved:
    """What a pullback owns: parameters as they were, residuals, and how the call was shaped."""

    arrays: dict[str, Any]
    residuals: dict[str, Memory]
    sizes: dict[str, int]
    batch: int
    time: int
    version: object


@dataclass
class _Side:
    """One direction with its caches."""

    direction: Direction
    dtype: str
    bindings: OrderedDict[Call, Binding] = field(default_factory=OrderedDict)
    packs: OrderedDict[Any, Packed] = field(default_factory=OrderedDict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    last: Binding | None = None

    def __post_init__(self) -> None:
        self.buffers = {b.name: b for b in self.direction.buffers}
        self.roles = {name: role for name, role, _ in self.direction.params}
        self.seeded = any(
            r[0] == "seed" for k in self.direction.kernels for r in requests(k)
        )

    def binding(self, call: Call) -> Binding:
        with self.lock:
            found = self.bindings.get(call)
            if found is None:
                binder = Binder(self.direction, call, host(), self.dtype, max_threads())
                found = self.bindings[call] = binder.bind()
                if len(self.bindings) > KEPT_BINDINGS:
                    self.bindings.popitem(last=False)
            else:
                self.bindings.move_to_end(call)
            self.last = found
            return found


class Engine:
    """Both directions of one compiled cell. Thread-safe; owns no layer's state."""

    def __init__(self, cell: Any, forward: Direction, backward: Direction) -> None:
        self.cell = cell
        self.dtype = np.dtype(cell.dtype)
        self._forward = _Side(forward, cell.dtype)
        self._backward = _Side(backward, cell.dtype)

    # ---- calls --------------------------------------------------------------------------------

    def forward(
        self, arrays: Arrays, sizes: Mapping[str, int], batch: int, time: int, *,
        version: object, save: bool, last_only: bool,
    ) -> tuple[dict[str, np.ndarray], Saved | None]:
        """Results by name, freshly owned; with `save`, what `backward` needs.

        `arrays` holds every parameter by name: inputs [B, T, ...], contexts and states [B, ...],
        weights, constants, rates (floats), seed (an int). With `last_only` an output is its last
        step, [B, ...].
        """
        run = _Run(self._forward, arrays, dict(sizes), batch, time, version, save, last_only, {})
        results = run.go()
        if not save:
            return results, None
        residuals = {
            p.name: run.memory_of(p) for p in self._forward.direction.results
            if p.role == "residual"
        }
        owned = run.own_arrays()
        return results, Saved(owned, residuals, dict(sizes), batch, time, version)

    def backward(
        self, saved: Saved, cotangents: Arrays, wanted: frozenset[str]
    ) -> dict[str, np.ndarray]:
        """Gradients by parameter name; a missing cotangent is zero."""
        arrays = dict(saved.arrays)
        for buffer, role, name in self._backward.direction.params:
            if role == "cotangent":
                given = cotangents.get(name.removeprefix("d_"))
                arrays[name] = self._zeros(buffer, saved) if given is None else given
        run = _Run(
            self._backward, arrays, saved.sizes, saved.batch, saved.time, saved.version,
            True, False, saved.residuals, wanted,
        )
        return {k.removeprefix("d_"): v for k, v in run.go().items()}

    def _zeros(self, buffer: str, saved: Saved) -> np.ndarray:
        decl = self._backward.buffers[buffer]
        lead = [{"B": saved.batch, "T": saved.time}[a] for a in decl.axes]
        shape = [evaluate(s, saved.sizes) for s in decl.shape]
        return aligned((*lead, *shape), self.dtype, zero=True)

    # ---- what ran -------------------------------------------------------------------------------

    def plan(self) -> str:
        """The kernels of the last calls, their threads and tiles, and why."""
        lines = [
            f"{self.cell.name}, {self.dtype}, {host().vector_bytes * 8}-bit vectors, "
            f"{threading_reason()}"
        ]
        for title, side in (("forward", self._forward), ("backward", self._backward)):
            lines += _plan_side(title, side)
        return "\n".join(lines)

    @property
    def compiled(self) -> dict[str, float | None]:
        """Seconds each kernel took to compile; None for those that have not run."""
        sides = (self._forward, self._backward)
        kernels = [k for s in sides for k in s.direction.kernels if k.function]
        return {k.name: k.function.seconds for k in kernels}


def _plan_side(title: str, side: _Side) -> list[str]:
    binding = side.last
    if binding is None:
        return [f"{title}: has not run"]
    call = binding.call
    lines = [f"{title}: batch {call.batch}, time {call.time}, {dict(call.sizes)}"]
    for bound in binding.kernels:
        kernel = bound.kernel
        levels = f", {kernel.levels} level{'s' if kernel.levels > 1 else ''}" + (
            " a step" if kernel.kind == "scan" else ""
        )
        lines.append(f"  {kernel.name}: {kernel.kind}{levels}; {bound.why}")
        for name in kernel.stages:
            tiling = binding.tilings[name]
            stage = next(s for s in side.direction.stages if s.name == name)
            gates = "+".join(str(c.gates) for c in stage.cores)
            lines.append(
                f"    {name}: contraction fused with its epilogue, gates {gates}, tile "
                f"{tiling.row_tile} rows x {tiling.unit_blocks} blocks of units"
                if stage.kind == "lanes"
                else f"    {name}: contraction over rows and steps, tile {tiling.row_tile} rows x "
                f"{tiling.unit_blocks} vectors"
            )
    return lines


class _Run:
    """One direction, once."""

    def __init__(
        self, side: _Side, arrays: Arrays, sizes: dict[str, int], batch: int, time: int,
        version: object, save: bool, last_only: bool, residuals: Mapping[str, Memory],
        wanted: frozenset[str] | None = None,
    ) -> None:
        self.side = side
        self.arrays = arrays
        self.batch, self.time = batch, time
        self.version = version
        self.residuals = residuals
        self.wanted = wanted
        self.ended = False
        self.item = 4 if side.dtype == "float32" else 8
        self.memory: dict[str, Memory] = {}
        layouts = []
        for buffer, role, name in side.direction.params:
            if role == "seed":
                continue
            self.memory[buffer] = self.parameter(side.buffers[buffer], role, name, sizes)
            layout = self.memory[buffer].layout
            layouts.append((buffer, layout.t, layout.b, role != "residual" and layout.slots == 0))
        call = Call(
            tuple(sorted(sizes.items())), batch, time, save, last_only, tuple(layouts)
        )
        self.binding = side.binding(call)

    # ---- parameters -----------------------------------------------------------------------------

    def parameter(self, buffer: Buffer, role: str, name: str, sizes: dict[str, int]) -> Memory:
        """Where a parameter is. What is read vector by vector is padded first, if need be."""
        if role == "residual":
            return self.residuals[name]
        array = self.arrays[name]
        if role in ("rate", "valid") or not isinstance(array, np.ndarray):
            array = np.ascontiguousarray(array, self.side.dtype)
        lead = len(buffer.axes)
        shape = tuple(array.shape[lead:])
        dense = not buffer.lanes or (
            bool(shape) and shape[-1] % LANE_PAD == 0 and array.ctypes.data % self.item == 0
        )
        if not dense:
            array = _padded(array)
        elif not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        padded = tuple(array.shape[lead:])
        row = self.item
        strides = []
        for n in reversed(padded):
            strides.insert(0, row)
            row *= n
        layout = Layout(shape, tuple(strides), row, slots=0 if dense else 1)
        if "T" in buffer.axes:
            layout.t = row
        if "B" in buffer.axes:
            layout.b = row * (self.time if "T" in buffer.axes else 1)
        return Memory(array, array.ctypes.data, layout)

    def own_arrays(self) -> dict[str, Any]:
        """Parameters for the pullback, with the caller's own arrays copied: they may change."""
        owned = dict(self.arrays)
        for _, role, name in self.side.direction.params:
            if role in ("input", "context") and isinstance(owned[name], np.ndarray):
                copied = aligned(owned[name].shape, owned[name].dtype)
                copied[...] = owned[name]
                owned[name] = copied
        return owned

    # ---- the call -------------------------------------------------------------------------------

    def go(self) -> dict[str, np.ndarray]:
        binding, direction = self.binding, self.side.direction
        needed = self.needed_kernels()
        shared = sum(-(-n // ALIGNMENT) * ALIGNMENT for n in self.shared_sizes().values())
        parts = max((k.parts for k in binding.kernels), default=1)
        scratch_at = shared
        sync_at = scratch_at + binding.scratch_bytes * parts
        zeros_at = sync_at + SYNC_WORDS * 8
        total = zeros_at + binding.zero_bytes + ALIGNMENT
        with _POOL.borrow(total) as workspace:
            base = workspace.ctypes.data
            workspace[sync_at:] = 0
            one = aligned((1,), self.side.dtype)
            one[0] = 1
            self.globals = {
                "scratch_base": base + scratch_at, "sync": base + sync_at,
                "zeros": base + zeros_at, "ones": one.ctypes.data,
            }
            self.place_shared(workspace)
            self.place_owned()
            packed = self.packed()
            self.memory.update(packed.memory)
            self.start_carries()
            for bound in binding.kernels:
                if bound.kernel.kind == "weights" and bound.kernel.phase == "before":
                    continue
                if bound.kernel.name not in needed:
                    continue
                if bound.kernel.phase == "scan":
                    self.start_computed_carries()
                elif bound.kernel.phase == "after":
                    self.end_entries()
                workspace[sync_at:zeros_at] = 0
                self.launch(bound, packed)
            return {p.name: self.result(p) for p in direction.results if self.is_wanted(p)}

    def is_wanted(self, place: Place) -> bool:
        if place.role == "residual":
            return False
        return self.wanted is None or place.name.removeprefix("d_") in self.wanted

    def needed_kernels(self) -> set[str]:
        """Kernels some wanted result depends on; all of them unless results were chosen."""
        kernels = self.side.direction.kernels
        if self.wanted is None:
            return {k.name for k in kernels}
        wanted = {
            s.buffer for p in self.side.direction.results if self.is_wanted(p)
            for s in (p.source, *p.parts)
        }
        needed: set[str] = set()
        for kernel in reversed(kernels):
            buffers = touched(self.side.direction, kernel)
            if kernel.phase != "after" or buffers & wanted:
                needed.add(kernel.name)
                wanted |= buffers
        return needed

    def shared_sizes(self) -> dict[str, int]:
        """Buffers of the workspace; the rest is owned by results or the pullback."""
        owned = self.owned_names()
        weights = self.weight_buffers()
        return {
            n: size for n, size in self.binding.bytes.items() if n not in owned | weights
        }

    def owned_names(self) -> set[str]:
        results = self.side.direction.results
        names = {
            p.source.buffer for p in results
            if self.side.buffers[p.source.buffer].storage == "result"
            and (p.role != "residual" or self.binding.call.save)
        }
        if self.binding.call.save:
            names |= {p.source.buffer for p in results if p.role == "residual"}
        return names & set(self.binding.bytes)

    def weight_buffers(self) -> set[str]:
        """Buffers that depend on weights alone: computed once a version."""
        found = set()
        for kernel in self.side.direction.kernels:
            if kernel.kind == "weights" and kernel.phase == "before":
                found |= {
                    r[1] for r in requests(kernel)
                    if r[0] == "address" and self.side.buffers[r[1]].storage == "work"
                }
        return found

    def place_shared(self, workspace: np.ndarray) -> None:
        at = 0
        base = workspace.ctypes.data
        for name, size in self.shared_sizes().items():
            self.memory[name] = Memory(workspace, base + at, self.binding.layouts[name])
            at += -(-size // ALIGNMENT) * ALIGNMENT

    def place_owned(self) -> None:
        for name in self.owned_names():
            array = aligned((max(self.binding.bytes[name], 1),), np.uint8)
            self.memory[name] = Memory(array, array.ctypes.data, self.binding.layouts[name])

    # ---- weights ----------------------------------------------------------------------------------

    def packed(self) -> Packed:
        """Packed weights of this version, for these tiles."""
        rates = tuple(
            float(np.asarray(self.arrays[name])) for _, role, name in self.side.direction.params
            if role == "rate"
        )
        seed = self.arrays.get("seed") if self.side.seeded else None
        tiles = tuple((n, t.unit_blocks) for n, t in self.binding.tilings.items())
        key = (self.version, rates, seed, tiles, self.binding.call.sizes)
        with self.side.lock:
            found = self.side.packs.get(key)
            if found is None:
                found = self.pack()
                self.side.packs[key] = found
                if len(self.side.packs) > KEPT_PACKS:
                    self.side.packs.popitem(last=False)
            else:
                self.side.packs.move_to_end(key)
            return found

    def pack(self) -> Packed:
        memory: dict[str, Memory] = {}
        for name in self.weight_buffers():
            array = aligned((max(self.binding.bytes[name], 1),), np.uint8)
            memory[name] = Memory(array, array.ctypes.data, self.binding.layouts[name])
        self.memory.update(memory)
        packed = Packed(memory)
        for bound in self.binding.kernels:
            if bound.kernel.kind == "weights" and bound.kernel.phase == "before":
                pack_weights(self, packed, bound.kernel.stages)
                self.launch(bound, packed)
        pack_weights(self, packed, tuple(s.name for s in self.side.direction.stages), True)
        return packed

    # ---- carries ----------------------------------------------------------------------------------

    def start_carries(self) -> None:
        """Slot of the first step: zeros, or the initial state."""
        computed = self.computed_starts()
        for carry in self.side.direction.carries:
            if carry.init in computed:
                continue
            self.start(carry.buffer, carry.init)

    def computed_starts(self) -> set[str]:
        return {
            c.init for c in self.side.direction.carries
            if c.init and c.init not in self.side.roles
        }

    def start_computed_carries(self) -> None:
        computed = self.computed_starts()
        for carry in self.side.direction.carries:
            if carry.init in computed:
                self.start(carry.buffer, carry.init)

    def end_entries(self) -> None:
        """A carry that only enters at the first step leaves nothing."""
        if self.ended or self.time == 0:
            return
        self.ended = True
        last = 0 if self.side.direction.reverse else self.time
        for carry in self.side.direction.carries:
            if carry.entry:
                self.rows(carry.buffer, last & self.binding.layouts[carry.buffer].ring)[...] = 0

    def start(self, buffer: str, init: str) -> None:
        layout = self.binding.layouts[buffer]
        slot = (self.time if self.side.direction.reverse else 0) & layout.ring
        target = self.rows(buffer, slot)
        if not init:
            target[...] = 0
            return
        memory = self.memory[init]
        source = self.view(memory, self.side.buffers[init].axes)
        target[..., : source.shape[-1] if source.ndim > 1 else 1] = (
            source if memory.layout.shape else source.reshape(-1, 1)
        )

    def rows(self, buffer: str, slot: int) -> np.ndarray:
        """[B, outer..., padded last] of one slot of a carry."""
        memory = self.memory[buffer]
        layout = memory.layout
        shape = (*layout.shape[:-1], pad(layout.last)) if layout.shape else (LANE_PAD,)
        strides = layout.strides if layout.shape else (self.item,)
        offset = memory.address - memory.owner.ctypes.data + slot * layout.t
        return np.ndarray(
            (self.batch, *shape), self.side.dtype, memory.owner.reshape(-1).view(np.uint8),
            offset, (layout.b, *strides),
        )

    def view(self, memory: Memory, axes: str, shift: int = 0) -> np.ndarray:
        """A buffer as the array it stands for: [B?, T?, features], without padding."""
        layout = memory.layout
        lead = [(self.batch, layout.b)] if "B" in axes else []
        if "T" in axes:
            lead.append((self.time, layout.t))
        shape = (*(n for n, _ in lead), *layout.shape)
        strides = (*(s for _, s in lead), *layout.strides)
        raw = memory.owner.reshape(-1).view(np.uint8)
        offset = memory.address - memory.owner.ctypes.data + shift
        return np.ndarray(shape, self.side.dtype, raw, offset, strides)

    # ---- kernels ----------------------------------------------------------------------------------

    def launch(self, bound: BoundKernel, packed: Packed) -> None:
        block = bound.template.copy()
        for index, name, offset in bound.addresses:
            block[index] = self.memory[name].address + offset
        for index, request in bound.others:
            block[index] += self.word(request, packed)
        kernel = bound.kernel
        run = kernel.function or (sum_bulk if kernel.kind == "grads" else contract_bulk)
        launch(run.address, block.ctypes.data, bound.parts)

    def word(self, request: tuple[str, ...], packed: Packed) -> int:
        match request:
            case ("scratch_base",) | ("sync",) | ("zeros",) | ("ones",):
                return self.globals[request[0]]
            case ("seed",):
                return int(self.arrays["seed"])
            case ("cores", stage, i):
                tiling = self.binding.tilings[stage]
                found = next(s for s in self.side.direction.stages if s.name == stage)
                vectors = found.cores[int(i)].gates * tiling.unit_blocks
                return cores(self.side.dtype, host()).row_table(vectors).ctypes.data
            case ("init", stage, i):
                return packed.init[stage, int(i)].ctypes.data
            case ("pack", stage, i, k):
                return packed.packs[stage, int(i), int(k)].ctypes.data
            case ("desc", stage, kind, i):
                return self.descs(stage, kind, i).ctypes.data
        raise KeyError(request)

    def descs(self, stage: str, kind: str, i: str) -> np.ndarray:
        from rnncc.runtime.pieces import copy_pieces

        cache = self.binding.descs
        key = (stage, kind, i)
        if key not in cache:
            copy = next(
                c for c in self.side.direction.copies
                if (c.stage, c.kind, str(c.index)) == key
            )
            cache[key] = np.array(copy_pieces(copy, self.binding), np.int64)
        return cache[key]

    # ---- results ----------------------------------------------------------------------------------

    def memory_of(self, place: Place) -> Memory:
        """A residual's rows: its address already at the slot it means."""
        memory = self.memory[place.source.buffer]
        layout = memory.layout
        shift = self.slot_shift(place)
        return Memory(memory.owner, memory.address + shift, layout)

    def slot_shift(self, place: Place) -> int:
        layout = self.binding.layouts[place.source.buffer]
        slot, reverse = place.source.slot, self.side.direction.reverse
        if slot == "final":
            last = 0 if reverse else self.time
            return (last & layout.ring) * layout.t
        if slot:
            return layout.t * int((slot == "in") == reverse)
        return 0

    def result(self, place: Place) -> np.ndarray:
        """The caller's own array: the buffer itself where it has no padding, else a copy."""
        buffer = self.side.buffers[place.source.buffer]
        memory = self.memory[buffer.name]
        if place.parts:
            views = [self.view(self.memory[s.buffer], buffer.axes) for s in place.parts]
            return np.concatenate(views, axis=place.axis + len(buffer.axes))
        axes = "B" if place.source.slot else buffer.axes
        if "T" in axes and memory.layout.slots == 1 and self.binding.call.last_only:
            axes = axes.replace("T", "")
        array = self.view(memory, axes, self.slot_shift(place))
        if buffer.storage == "result" and array.flags.c_contiguous:
            return array
        return np.ascontiguousarray(array) if array.flags.c_contiguous is False else array.copy()


def _padded(array: np.ndarray) -> np.ndarray:
    """The array with its last axis padded to LANE_PAD, zeros in the padding."""
    if array.ndim == 0:
        out = aligned((LANE_PAD,), array.dtype, zero=True)
        out[0] = array
        return out
    out = aligned((*array.shape[:-1], pad(array.shape[-1])), array.dtype, zero=True)
    out[..., : array.shape[-1]] = array
    return out



def layer_class(cell: Any, engine: Engine, module: str) -> Any:
    """The Layer class a generated module offers; its options are frozen."""
    from rnncc.runtime.layer import frozen_layer_class

    return frozen_layer_class(cell, engine, module)
