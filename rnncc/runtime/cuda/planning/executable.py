"""A CudaBoundProgram -> what a call launches, in order: blocks of words, without addresses.

All words of a call are one array; every word that is an address is a place in it, what it points
at, and an offset. A call copies the array and adds the addresses of its own memory.

Non-Goals: arrays and their lifetimes (`run`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from rnncc.artifact.array_tables import BufferSpec
from rnncc.artifact.grid_sync import WARP, Gpu
from rnncc.artifact.kernel_args import (
    CopiedOperands,
    Counters,
    FirstStep,
    KernelArgument,
    PartialSums,
    Place,
    ResultArray,
    Seed,
)
from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.runtime.cuda.driver.graphs import Graphs
from rnncc.runtime.cuda.kernels.copies import move, words_of
from rnncc.runtime.cuda.kernels.gemm_tiles import THREADS as TILE_THREADS
from rnncc.runtime.cuda.kernels.gemm_tiles import Contraction, add_parts, contract, launch_of
from rnncc.runtime.cuda.kernels.kernel import RANGES, CudaKernel
from rnncc.runtime.cuda.kernels.kernel_namespace import COUNTER_BYTES
from rnncc.runtime.cuda.kernels.matmuls import Multiply, Product, Work
from rnncc.runtime.cuda.planning.gemm_choice import Bulk
from rnncc.runtime.cuda.planning.kernel_arguments import CudaBoundKernel, CudaBoundProgram, round_up
from rnncc.runtime.cuda.planning.step_matmuls import SUMS
from rnncc.runtime.planning.copies import Move, Mover, Point
from rnncc.runtime.planning.direction_tables import chosen_results, needed_kernels, result_shape

Patch = tuple[int, Point, int]  # word, what it points at, bytes from there


@dataclass(frozen=True, slots=True)
class CudaLaunch:
    """One launch: its words are those from `start` to `end`. ranges: steps and levels it runs."""

    kernel: CudaKernel
    start: int
    end: int
    grid: int
    threads: int
    ranges: tuple[int, int, int, int]
    cooperative: bool = False
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Multiplication:
    """A product of the library; its three addresses are the words from `start` to `end`."""

    product: Product
    precision: str
    start: int
    end: int


NOWHERE = (np.zeros(0, np.int64),) * 3


@dataclass(slots=True)
class CudaPlan:
    """What one choice of results runs. results: name, shape, and what the array is pointed at."""

    template: np.ndarray
    patches: list[Patch] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    first_steps: list[int] = field(default_factory=list)
    launches: list[CudaLaunch | Multiplication] = field(default_factory=list)
    results: list[tuple[str, tuple[int, ...], Point]] = field(default_factory=list)
    counters: int = COUNTER_BYTES  # bytes of them
    parts: int = 0  # bytes of sums that are added up later
    copies: int = 0  # bytes of operands in another order
    ones: int = 1
    sums: int = 0  # bytes of products between launches
    points: tuple[Point, ...] = ()  # what patches point at
    scratch: dict[Point, int] = field(default_factory=dict)  # where in it the points of these are
    scratch_bytes: int = 0
    where: tuple[np.ndarray, np.ndarray, np.ndarray] = NOWHERE  # their words, points and offsets
    graphs: Graphs = field(default_factory=Graphs)


@dataclass
class CudaExecutable:
    binding: CudaBoundProgram
    direction: DirectionSpec
    buffers: dict[str, BufferSpec]
    dtype: str
    gpu: Gpu

    def __post_init__(self) -> None:
        saved = {p.source.buffer: None for p in self.direction.results if p.kind == "residual"}
        self.saved = [n for n in saved if n in self.binding.bytes and self.binding.call.save]
        self.shared = [n for n in self.binding.bytes if n not in self.saved]
        self.shared_arena, self.saved_arena = self.arena(self.shared), self.arena(self.saved)
        self.mover = Mover(self.direction, self.binding, self.buffers, self.dtype)
        self._plans: dict[frozenset[str] | None, CudaPlan] = {}
        self.last: CudaPlan | None = None

    def arena(self, names: Iterable[str]) -> tuple[dict[str, int], int]:
        """Buffers one after another: where each begins, and the size of all."""
        places, at = {}, 0
        for name in names:
            places[name], at = at, at + round_up(self.binding.bytes[name])
        return places, round_up(max(at, 1))

    def plan(self, wanted: frozenset[str] | None) -> CudaPlan:
        """For these results; None is all but those of carries that callers don't see."""
        plan = self._plans.get(wanted)
        if plan is None:
            plan = self._plans[wanted] = self._plan(wanted)
        self.last = plan
        return plan

    def _plan(self, wanted: frozenset[str] | None) -> CudaPlan:
        places = chosen_results(self.direction, wanted)
        needed = needed_kernels(self.direction, places, wanted)
        in_place = self.binding.in_place
        shapes = {
            p.name: result_shape(p, self.buffers, self.binding.call)
            for p in self.direction.results
            if p in places or p.name in in_place
        }
        moved = [p for p in places if p.name not in in_place]
        moves = [m for p in moved for m in self.mover.results(p, shapes[p.name])]
        writer = _Writer(self.binding, self.gpu, ITEMSIZE[self.dtype], self.direction.reverse)
        kernels = [k for k in self.binding.kernels if k.kernel.name in needed]
        for item in self._in_order(kernels, moves):
            writer.moves(item) if isinstance(item, list) else writer.kernel(item)
        plan = writer.plan()
        plan.results = [
            (name, shape, in_place.get(name) or ResultArray(name)) for name, shape in shapes.items()
        ]
        return plan

    def _in_order(
        self, kernels: list[CudaBoundKernel], results: list[Move]
    ) -> Iterator[CudaBoundKernel | list[Move]]:
        by_phase = {phase: list(ks) for phase, ks in groupby(kernels, lambda k: k.kernel.phase)}
        yield self.mover.starts(computed=False)
        yield from by_phase.get("before", [])
        yield self.mover.starts(computed=True)
        yield from by_phase.get("scan", [])
        yield self.mover.ends()
        yield from by_phase.get("after", [])
        yield results


class _Writer:
    """Launches in order, and their blocks side by side."""

    def __init__(self, binding: CudaBoundProgram, gpu: Gpu, item: int, reverse: bool) -> None:
        self.binding, self.gpu, self.item, self.reverse = binding, gpu, item, reverse
        self.pieces: list[np.ndarray] = []
        self.at = 0
        self.out = CudaPlan(np.zeros(0, np.int64))

    def add(self, words: np.ndarray) -> tuple[int, int]:
        """Words of a launch, behind room for its ranges: where the words begin, and all of it."""
        start = self.at
        self.pieces += [np.zeros(RANGES, np.int64), words]
        self.at += RANGES + len(words)
        return start + RANGES, start

    def grid(self, items: int) -> int:
        """Blocks for so many items: a thread has one, or several where the device is full."""
        return max(1, min(-(-items // self.gpu.threads), 8 * max(self.gpu.multiprocessors, 1)))

    def moves(self, moves: list[Move]) -> None:
        for piece in (p for m in moves for p in m.pieces()):
            words = words_of(piece)
            first, start = self.add(np.array(words, np.int64))
            self.out.patches.append((first, piece.source.point, piece.source.offset))
            self.out.patches.append((first + 1, piece.target.point, piece.target.offset))
            size = self.grid(words[2]), self.threads(words[2])
            self.out.launches.append(CudaLaunch(move, start, self.at, *size, (0, 1, 0, 1)))

    def threads(self, items: int) -> int:
        return min(-(-max(items, 1) // WARP) * WARP, self.gpu.threads)

    def bulk(self, bulk: Bulk) -> None:
        self.out.copies = max(self.out.copies, bulk.copies)
        self.out.ones = max(self.out.ones, bulk.ones)
        for piece in bulk.pieces:
            if isinstance(piece, Work):
                self.moves(piece.moves)
                self.multiply(piece.multiply, bulk.precision)
            else:
                self.tiles(piece)

    def multiply(self, made: Multiply, precision: str) -> None:
        start = self.at
        self.pieces.append(np.zeros(3, np.int64))
        self.at += 3
        for i, (point, offset) in enumerate((made.left, made.right, made.out)):
            self.out.patches.append((start + i, point, offset))
        self.out.launches.append(Multiplication(made.product, precision, start, self.at))

    def tiles(self, contraction: Contraction) -> None:
        tiles = launch_of(contraction, self.item, self.gpu.multiprocessors)
        self.out.parts = max(self.out.parts, tiles.part_bytes)
        shared = tiles.shared * self.item
        for function, words, patches, blocks, bytes_ in (
            (contract, tiles.words, tiles.patches, tiles.blocks, shared),
            (add_parts, tiles.adds, tiles.add_patches, self.grid(tiles.part_bytes), 0),
        ):
            if function is add_parts and tiles.parts == 1:
                continue
            first, start = self.add(np.array(words, np.int64))
            self.out.patches += [(first + i, point, at) for i, point, at in patches]
            size = blocks, TILE_THREADS
            launch = CudaLaunch(function, start, self.at, *size, (0, 1, 0, 1), False, bytes_)
            self.out.launches.append(launch)

    def kernel(self, bound: CudaBoundKernel) -> None:
        bulk = self.binding.bulk.get(bound.kernel.name)
        if bulk is not None:
            self.bulk(bulk)
            return
        first, start = self.add(bound.template)
        for index, name, offset in bound.addresses:
            self.out.patches.append((first + index, name, offset))
        own: dict[KernelArgument, list[int]] = {
            Seed(): self.out.seeds,
            FirstStep(): self.out.first_steps,
        }
        for index, argument in bound.others:
            where = own.get(argument)
            if where is not None:
                where.append(first + index)
            elif isinstance(argument, Place):
                self.out.patches.append((first + index, argument, 0))
            else:
                raise TypeError(f"nobody here knows {argument!r}")
        kernel, levels = bound.kernel, bound.kernel.levels
        if kernel.kind == "scan":
            self.scan(kernel.function, start, levels)
            return
        for level in range(levels):  # a level reads what the one before has written
            ranges = (0, 1, level, level + 1)
            grid, threads = self.grid(bound.items), self.threads(bound.items)
            self.out.launches.append(
                CudaLaunch(kernel.function, start, self.at, grid, threads, ranges)
            )

    def scan(self, function: CudaKernel, start: int, levels: int) -> None:
        tier, time = self.binding.tier, self.binding.call.time
        assert tier is not None
        size, launches = (tier.blocks, tier.threads), self.out.launches
        end, numbers = self.at, self.binding.numbers
        if numbers is not None:
            assert function.twin is not None
            twin, ranges = function.twin.built(numbers.constants), (0, time, 0, levels)
            waits = tier.waiting > 1
            launches.append(CudaLaunch(twin, start, self.at, *size, ranges, waits, numbers.shared))
            return
        if tier.name != "launches":
            ranges = (0, time, 0, levels)
            launches.append(CudaLaunch(function, start, self.at, *size, ranges, tier.waiting > 1))
            return
        steps, reads = self.binding.steps, function
        if steps is not None:
            assert function.summed is not None
            reads, self.out.sums = function.summed, steps.bytes
        for step in range(time):
            t = time - 1 - step if self.reverse else step
            for level in range(levels):
                for product in steps.at(t, level) if steps is not None else ():
                    self.multiply(product, self.binding.precision)
                ranges = (step, step + 1, level, level + 1)
                launches.append(CudaLaunch(reads, start, end, *size, ranges))

    def plan(self) -> CudaPlan:
        tier = self.binding.tier
        self.out.counters = COUNTER_BYTES * (tier.groups if tier else 1)
        if self.pieces:
            self.out.template = np.concatenate(self.pieces)
        plan, patches = self.out, self.out.patches
        sizes: dict[Point, int] = {
            Counters(): plan.counters,
            PartialSums(): plan.parts,
            CopiedOperands(): plan.copies,
            SUMS: plan.sums,
        }
        for point, size in sizes.items():
            plan.scratch[point] = plan.scratch_bytes
            plan.scratch_bytes += round_up(max(size, 1))
        plan.points = tuple(dict.fromkeys(name for _, name, _ in patches))
        number = {name: i for i, name in enumerate(plan.points)}
        rows = [(word, number[name], offset) for word, name, offset in patches]
        if rows:
            words, points, offsets = np.array(rows, np.int64).T.copy()
            plan.where = words, points, offsets
        return plan
