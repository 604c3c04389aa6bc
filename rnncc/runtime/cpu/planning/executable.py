"""A BoundProgram -> everything a call needs that doesn't change from call to call.

Every buffer has its place: a group of addresses (`groups`) and an offset. So what a call runs,
kernels and the copies around them, is a plan over those groups (`perform`), and so is what is done
once for a version of the weights.

Non-Goals: arrays and their lifetimes (`call`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

import numpy as np

from rnncc.artifact.array_tables import BufferSpec
from rnncc.artifact.kernel_args import (
    CallersArray,
    CoreTable,
    FirstStep,
    HelperCode,
    KernelArgument,
    OneRow,
    PieceTable,
    Place,
    ResultArray,
    ScratchBase,
    Seed,
    StampBase,
    SyncWords,
    ZeroRow,
    addresses,
)
from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.runtime.common.memory_pool import ALIGNMENT
from rnncc.runtime.common.weight_formats import FULL
from rnncc.runtime.cpu.kernels.barrier import sync_words
from rnncc.runtime.cpu.kernels.executor import (
    COPIES,
    FIRST_STEP,
    GIVEN,
    PACKED,
    SAVED,
    SEED,
    WORKSPACE,
    ArgumentBlock,
    Launch,
    Plan,
    Region,
    SpaceOffset,
    Workspace,
    plan_of,
)
from rnncc.runtime.cpu.kernels.gemm import contract_bulk, sum_bulk
from rnncc.runtime.cpu.kernels.microkernels import cores
from rnncc.runtime.cpu.kernels.row_kernels import rows
from rnncc.runtime.cpu.planning.bound_program import BoundKernel, BoundProgram
from rnncc.runtime.cpu.planning.copies import SHARE_WORDS, PaddedMover, move_all, words_of
from rnncc.runtime.cpu.planning.strided_copies import copy_pieces
from rnncc.runtime.cpu.planning.target import CpuTarget
from rnncc.runtime.cpu.planning.weight_packing import Packing, Planner
from rnncc.runtime.jit.kernel import CpuKernel
from rnncc.runtime.planning.copies import Move, Point
from rnncc.runtime.planning.direction_tables import chosen_results, needed_kernels, result_shape
from rnncc.runtime.planning.layouts import REACH, Layout, slot_offset

WEIGHTS = ("weight", "constant")
COLOURED_BYTES = 1 << 14
PAGE, COLOUR = 4096, 320
NOTHING: Mapping[int, str] = MappingProxyType({})
ONE = {"float32": 0x3F800000, "float64": 0x3FF0000000000000}


def _round(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class Params:
    """A direction's parameters by how a call brings them: (buffer, name callers use)."""

    given: tuple[tuple[BufferSpec, str], ...]
    residuals: tuple[tuple[BufferSpec, str], ...]
    weights: tuple[tuple[BufferSpec, str], ...]

    @classmethod
    def of(cls, direction: DirectionSpec) -> Params:
        buffers = {b.name: b for b in direction.buffers}
        pairs_by_kind: dict[str, list[tuple[BufferSpec, str]]] = {
            "given": [],
            "residuals": [],
            "weights": [],
        }
        for buffer, role, name in direction.params:
            if role != "seed":
                kind = "residuals" if role == "residual" else "given"
                pairs_by_kind["weights" if role in WEIGHTS else kind].append(
                    (buffers[buffer], name)
                )
        return cls(**{kind: tuple(pairs) for kind, pairs in pairs_by_kind.items()})

    @property
    def serving_all(self) -> list[BufferSpec]:
        """Of all rows and steps: weights, rates, cotangents of gradients of weights."""
        return [b for b, _ in (*self.given, *self.weights) if not b.axes]

    @property
    def results_at(self) -> int:
        """The first group of results."""
        return GIVEN + len(self.given) + len(self.residuals) + len(self.weights)


@dataclass(frozen=True, slots=True)
class ResultChoice:
    """What some results take. arrays: those kernels or copies write, by name of result, with their
    shape; results: those that were chosen."""

    plan: Plan
    results: tuple[str, ...]
    arrays: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Residual:
    """Where a forward leaves one."""

    name: str
    place: SpaceOffset
    layout: Layout


class Executable:
    """What doesn't change between calls of one BoundProgram."""

    def __init__(
        self,
        binding: BoundProgram,
        direction: DirectionSpec,
        params: Params,
        buffers: dict[str, BufferSpec],
        target: CpuTarget,
    ) -> None:
        self.binding, self.direction, self.params = binding, direction, params
        self.target, self.machine = target, binding.machine
        self.regions: list[Region] = []
        self.buffers, self.dtype = buffers, binding.dtype
        self._places: dict[Point, SpaceOffset] = {}
        for number, (buffer, _) in enumerate(
            (*params.given, *params.residuals, *params.weights), GIVEN
        ):
            self._places[buffer.name] = SpaceOffset(number)
        # Parameters that are copied first have two places: the caller's, and ours.
        copied = [n for n in binding.bytes if n in self._places]
        self._places |= {CallersArray(n): self._places[n] for n in copied}
        saved = self._saved() if binding.call.save else []
        early = self._weight_buffers()
        shared = [n for n in binding.bytes if n not in (*early, *saved)]
        workspace = self._lay_out(WORKSPACE, shared)
        self.saved_bytes = self._lay_out(SAVED, saved) + (REACH if saved else 0)
        self.workspace = self._globals(workspace)
        self.keep: list[np.ndarray] = []  # descriptions the blocks point at
        self.mover = PaddedMover(direction, binding, buffers, self.dtype)
        self.draws_weights = False  # packed weights differ from seed to seed
        self.pack_plan, self.packed_bytes = self._pack(early)
        self.tile_key = binding.tile_key
        self._choices: dict[frozenset[str] | None, ResultChoice] = {}
        self.residuals = [*self._residuals()] if binding.call.save else []

    # ---- places -------------------------------------------------------------------------------

    def place(self, point: Point) -> SpaceOffset:
        """Where a buffer, a result, or anything else a block points at is."""
        return self._places[point]

    def _lay_out(self, group: int, names: Iterable[str], at: int = 0) -> int:
        """Buffers one after another; where they end.

        Large ones begin at different places of a page: rows of the same number, which an epilogue
        reads and writes together, would else share the few sets of the first cache that their
        addresses' low bits name, and loads would wait for stores to other buffers.
        """
        colour = 0
        for name in names:
            size = self.binding.bytes[name]
            if size >= COLOURED_BYTES:
                at += (colour - at) % PAGE
                colour = (colour + COLOUR) % PAGE
            at = self._reserve(name, SpaceOffset(group, at), size)
        return at

    def _reserve(self, point: Point, place: SpaceOffset, size: int) -> int:
        """Gives a point its place; where the next one may begin."""
        self._places[point] = place
        name = point if isinstance(point, str) else f"our {point.described}"
        self.regions.append(Region(name, place, size))
        return place.offset + _round(size) + self.target.gap

    def _globals(self, at: int) -> Workspace:
        parts = max((k.parts for k in self.binding.kernels), default=1)
        scratch, zero_bytes = self.binding.scratch_bytes, _round(self.binding.zero_bytes)
        self._places[ScratchBase()] = SpaceOffset(WORKSPACE, at)
        for part in range(parts):
            place = SpaceOffset(WORKSPACE, at + part * scratch)
            self.regions.append(Region(f"our scratch of part {part}", place, scratch))
        sync = at + _round(scratch * parts) + self.target.gap
        # Copies and packing have as many parts as there are threads.
        words = sync_words(max(parts, self.binding.threads))
        zeros = self._reserve(SyncWords(), SpaceOffset(WORKSPACE, sync), words * 8)
        ones = zeros + zero_bytes  # `perform` clears all that lies between them
        self._reserve(ZeroRow(), SpaceOffset(WORKSPACE, zeros), zero_bytes)
        end = self._reserve(OneRow(), SpaceOffset(WORKSPACE, ones), ALIGNMENT)
        return Workspace(sync, zeros, ones, end)

    def _weight_buffers(self) -> list[str]:
        """Buffers that depend on weights alone, or on what stands in their place: made once a
        version."""
        names: dict[str, None] = dict.fromkeys(
            b.name for b in self.params.serving_all if b.name in self.binding.bytes
        )
        for kernel in self.direction.kernels:
            if kernel.kind == "weights" and kernel.phase == "before":
                addressed = addresses(kernel.words)
                names |= {n: None for n in addressed if self.buffers[n].storage == "work"}
        return list(names)

    def _saved(self) -> list[str]:
        """Buffers the pullback keeps."""
        names = {p.source.buffer: None for p in self.direction.results if p.kind == "residual"}
        return [n for n in names if n in self.binding.bytes]

    def _residuals(self) -> Iterator[Residual]:
        """At the slots they mean."""
        time, reverse = self.binding.call.time, self.direction.reverse
        for result in self.direction.results:
            if result.kind == "residual":
                layout, at = self.binding.layouts[result.source.buffer], self._places
                place = at[result.source.buffer]
                # Never in what a caller gave: that may be gone, or handed over again elsewhere.
                assert place.group in (SAVED, PACKED), result
                moved = slot_offset(result.source.slot, layout, time, reverse)
                yield Residual(result.name, SpaceOffset(place.group, place.offset + moved), layout)

    # ---- blocks -------------------------------------------------------------------------------

    def helper(self, name: str) -> int:
        """Where the code of a row helper is."""
        return self.target.code(rows(self.dtype, self.machine).kernel(name))

    def _plan(self, launches: Iterable[Launch], results: Mapping[int, str] = NOTHING) -> Plan:
        one = ONE[self.dtype]
        launches = self.target.watched(self.binding, [*launches])
        return plan_of(launches, self.workspace, one, self.regions, results)

    def _kernel(self, bound: BoundKernel) -> Launch:
        piece = ArgumentBlock(bound.template.copy(), [])
        for index, name, offset in bound.addresses:
            piece.words[index] = offset
            piece.addresses.append((index, self._places[name]))
        for index, argument in bound.others:
            place = self._resolve(piece.words, index, argument)
            if place is not None:
                piece.addresses.append((index, place))
        code = self.target.code(_entry(bound))
        return Launch(code, piece, bound.parts, bound.kernel.name)

    def _moves(self, moves: list[Move], parts: int = 1) -> Iterator[Launch]:
        """parts: among so many threads, of moves none of which reads what another writes."""
        pieces = [p for move in moves for p in move.pieces()]
        if not pieces:
            return
        copied = sum(math.prod(p.shape) for p in pieces) * ITEMSIZE[self.dtype]
        if copied < self.target.shared_bytes:
            parts = 1
        words = [self.helper("copy_strided"), *[0] * (SHARE_WORDS * parts)]
        addresses = []
        for part in range(parts):
            own = [q for p in pieces for q in p.share(part, parts)]
            at = 1 + part * SHARE_WORDS
            words[at : at + SHARE_WORDS] = [len(own), len(words) * 8]
            for piece in own:
                addresses.append((len(words), self._places[piece.source.point]))
                addresses.append((len(words) + 1, self._places[piece.target.point]))
                words += words_of(piece)
        block = ArgumentBlock(np.array(words, np.int64), addresses)
        yield Launch(self.target.code(move_all), block, parts, COPIES, copied)

    def _callers_copies(self, buffers: Iterable[BufferSpec]) -> list[Move]:
        """Of parameters that kernels can't read as the caller has them."""
        return self.mover.copies(buffers, self.binding.copied)

    def _resolve(
        self, words: np.ndarray, index: int, argument: KernelArgument
    ) -> SpaceOffset | None:
        """Code is added to the block here; else where what the word points at is."""
        match argument:
            case CoreTable(stage, group):
                tiling = self.binding.tilings[stage]
                stage_spec = next(s for s in self.direction.stages if s.name == stage)
                core = stage_spec.cores[group]
                # What differs from row to row isn't packed.
                packed = any(p is not None for p in core.packs)
                storage = self.binding.storage(stage_spec) if packed else FULL
                far = stage in self.binding.far
                core_set = cores(self.dtype, self.machine, storage, far)
                if storage is FULL and not far:  # so that another size finds its own
                    for vectors in core_set.vector_counts(core.gates):
                        self.target.row_table(core_set, vectors)
                words[index] += self.target.row_table(core_set, core.gates * tiling.unit_blocks)
            case HelperCode(name):
                words[index] += self.helper(name)
            case StampBase():
                words[index] += self.target.stamps
            case PieceTable(stage, kind, number):
                copy = next(
                    c
                    for c in self.direction.copies
                    if (c.stage, c.kind, c.index) == (stage, kind, number)
                )
                table = np.array(copy_pieces(copy, self.binding), np.int64)
                self.keep.append(table)
                words[index] += self.target.address_of(table)
            case Seed():
                return SpaceOffset(SEED)
            case FirstStep():
                return SpaceOffset(FIRST_STEP)
            case Place():
                return self._places[argument]
            case _:
                raise TypeError(f"nobody here knows {argument!r}")
        return None

    # ---- what is done once a version ------------------------------------------------------------

    def _pack(self, buffers: list[str]) -> tuple[Plan, int]:
        """What depends on weights alone, and how many bytes it takes: kernels of weights come
        after what is packed for them and before the rest."""
        packing = Packing(size=self._lay_out(PACKED, buffers), gap=self.target.gap)
        planner = Planner(self, packing, self.helper("pack"))
        stages = {s.name: s for s in self.direction.stages if s.grad is None}
        launches = [*self._moves(self._callers_copies(self.params.serving_all))]

        def pack(names: Iterable[str]) -> None:
            own = [stages.pop(n) for n in names if n in stages]
            launches.append(planner.launch(own))
            for packed, (offset, size) in packing.places.items():
                if packed not in self._places:
                    self._reserve(packed, SpaceOffset(PACKED, offset), size)

        for bound in filter(_is_early, self.binding.kernels):
            pack(bound.kernel.stages)
            launches.append(self._kernel(bound))
            self.draws_weights |= any(isinstance(a, Seed) for _, a in bound.others)
        pack([*stages])
        return self._plan(launches), packing.size + REACH

    # ---- what a call runs -----------------------------------------------------------------------

    def choice(self, wanted: frozenset[str] | None) -> ResultChoice:
        """Of the results that were chosen; None is all but those of carries that nobody sees. Not
        for two threads at once: results are numbered anew for each choice."""
        choice = self._choices.get(wanted)
        if choice is None:
            choice = self._choices[wanted] = self._choose(wanted)
        return choice

    def _choose(self, wanted: frozenset[str] | None) -> ResultChoice:
        places = chosen_results(self.direction, wanted)
        needed = needed_kernels(self.direction, places, wanted)
        in_place, names = self.binding.in_place, {p.name for p in places}
        in_parts = self.binding.parts_in_place
        shapes = {
            p.name: result_shape(p, self.buffers, self.binding.call)
            for p in self.direction.results
            if p.name in names or p.name in in_place or p.name in in_parts
        }
        for number, name in enumerate(shapes, self.params.results_at):
            self._places[in_place.get(name) or ResultArray(name)] = SpaceOffset(number)
            for buffer, offset in in_parts.get(name, ()):
                self._places[buffer] = SpaceOffset(number, offset)
        copied = [p for p in places if p.name not in in_place and p.name not in in_parts]
        moves = [m for p in copied for m in self.mover.results(p, shapes[p.name])]
        own = [k for k in self.binding.kernels if not _is_early(k) and k.kernel.name in needed]
        results = {
            n: name for n, name in enumerate(shapes, self.params.results_at) if name in names
        }
        plan = self._plan(self._in_order(own, moves), results)
        return ResultChoice(plan, tuple(p.name for p in places), tuple(shapes.items()))

    def _in_order(self, kernels: list[BoundKernel], results: list[Move]) -> Iterator[Launch]:
        """Kernels with the copies around them."""
        by_phase = {phase: list(ks) for phase, ks in groupby(kernels, lambda k: k.kernel.phase)}
        copies = self._callers_copies(b for b, _ in self.params.given if b.axes)
        yield from self._moves(copies + self.mover.starts(computed=False))
        yield from map(self._kernel, by_phase.get("before", []))
        yield from self._moves(self.mover.starts(computed=True))
        yield from map(self._kernel, by_phase.get("scan", []))
        yield from self._moves(self.mover.ends())
        yield from map(self._kernel, by_phase.get("after", []))
        yield from self._moves(results, self.binding.threads)


def _is_early(bound: BoundKernel) -> bool:
    """Whether it is run once a version of the weights."""
    return bound.kernel.kind == "weights" and bound.kernel.phase == "before"


def _entry(bound: BoundKernel) -> CpuKernel:
    entry: CpuKernel | None = bound.kernel.function
    twin = entry.one_row if entry and bound.one_row else None
    if twin and bound.inlined:
        assert twin.inlined is not None
        return twin.inlined.built(dict(bound.inlined))
    return twin or entry or (sum_bulk if bound.kernel.kind == "grads" else contract_bulk)
