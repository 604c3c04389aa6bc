"""A Binding -> everything a call needs that doesn't change from call to call.

All blocks of a call, of kernels and of the copies around them, are one array; every word that is an
address is a place in it, the number of what it points at, and an offset. A call copies the array,
adds the addresses of its own memory and launches what is listed.

Non-Goals: arrays and their lifetimes (`call`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from rnncc.runtime.bind import Binding, BoundKernel, requests, result_shape, touched
from rnncc.runtime.bulk import contract_bulk, sum_bulk
from rnncc.runtime.cores import cores
from rnncc.runtime.kernel import Kernel
from rnncc.runtime.machine import host
from rnncc.runtime.memory import ALIGNMENT
from rnncc.runtime.moves import Move, Mover, move_all, result_point
from rnncc.runtime.packing import Planner
from rnncc.runtime.pieces import copy_pieces
from rnncc.runtime.rows import rows
from rnncc.runtime.tables import Buffer, Direction
from rnncc.runtime.threads import SYNC_WORDS

GLOBALS = ("scratch_base", "sync", "zeros", "ones")
WEIGHTS = ("weight", "constant")


def _round(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


@dataclass(slots=True)
class Arena:
    """Buffers one after another in one piece of memory."""

    points: np.ndarray  # numbers of the buffers
    offsets: np.ndarray
    size: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch: of what, over how many parts, and where its block begins among the words."""

    entry: Kernel
    parts: int
    start: int


@dataclass(slots=True)
class Blocks:
    """The blocks of some launches as one array: a call copies it, adds the addresses of what
    `words` point at (`points`, by number), and runs them in order."""

    launches: list[Launch] = field(default_factory=list)
    template: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    words: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    points: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    seed_words: list[int] = field(default_factory=list)
    step_words: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Choice:
    """What some results take. arrays: those kernels or copies write, by name of result, with their
    shape and number; results: those that were chosen."""

    blocks: Blocks
    results: list[str]
    arrays: list[tuple[str, tuple[int, ...], int]]


@dataclass
class Prepared:
    binding: Binding
    direction: Direction
    dtype: str
    buffers: dict[str, Buffer]
    points: dict[str, int] = field(default_factory=dict)  # what can be pointed at, numbered

    def __post_init__(self) -> None:
        for buffer in self.direction.buffers:
            self._point(buffer.name)
        for name in GLOBALS:
            self._point(name)
        self.weight_names = self._weight_buffers()
        self.saved_names = self._saved() if self.binding.call.save else []
        kept = {*self.weight_names, *self.saved_names}
        self.shared = self._arena([n for n in self.binding.bytes if n not in kept])
        self.saved = self._arena(self.saved_names)
        self._lay_out_globals()
        self.keep: list[np.ndarray] = []  # descriptions the blocks point at
        self.mover = Mover(self.direction, self.binding, self.buffers, self.dtype)
        early = [k for k in self.binding.kernels if _is_early(k)]
        self.runs = [k for k in self.binding.kernels if not _is_early(k)]
        self.early = {k.kernel.name: self._write([k]) for k in early}
        # Packed weights differ from seed to seed.
        self.draws_weights = any(blocks.seed_words for blocks in self.early.values())
        self.tile_key = self.binding.tile_key
        self.weight_points = np.array(
            [self.points[b] for b, role, _ in self.direction.params if role in WEIGHTS], np.int64
        )
        self.packing = Planner(self, rows(self.dtype, host()).address("pack")).plan()
        self.pack_points = np.array([self._point(n) for n in self.packing.names], np.int64)
        self.pack_offsets = np.array(self.packing.offsets, np.int64)
        self._choices: dict[frozenset[str] | None, Choice] = {}

    def _point(self, name: str) -> int:
        return self.points.setdefault(name, len(self.points))

    def _weight_buffers(self) -> list[str]:
        """Buffers that depend on weights alone: computed once a version."""
        found: dict[str, None] = {}
        for kernel in self.direction.kernels:
            if kernel.kind == "weights" and kernel.phase == "before":
                for request in requests(kernel):
                    if request[0] == "address" and self.buffers[request[1]].storage == "work":
                        found[request[1]] = None
        return list(found)

    def _saved(self) -> list[str]:
        """Buffers the pullback keeps."""
        found = {p.source.buffer: None for p in self.direction.results if p.role == "residual"}
        return [n for n in found if n in self.binding.bytes]

    def _arena(self, names: list[str]) -> Arena:
        offsets, at = [], 0
        for name in names:
            offsets.append(at)
            at += _round(self.binding.bytes[name])
        points = np.array([self.points[n] for n in names], np.int64)
        return Arena(points, np.array(offsets, np.int64), at)

    def _lay_out_globals(self) -> None:
        parts = max((k.parts for k in self.binding.kernels), default=1)
        scratch = self.shared.size
        self.sync_at = scratch + _round(self.binding.scratch_bytes * parts)
        self.zeros_at = self.sync_at + SYNC_WORDS * 8
        self.ones_at = self.zeros_at + _round(self.binding.zero_bytes)
        self.workspace_bytes = self.ones_at + ALIGNMENT
        self.global_points = np.array([self.points[n] for n in GLOBALS], np.int64)
        self.global_offsets = np.array(
            [scratch, self.sync_at, self.zeros_at, self.ones_at], np.int64
        )

    # ---- blocks -------------------------------------------------------------------------------

    def _write(self, items: Iterable[BoundKernel | list[Move]]) -> Blocks:
        """Kernels, and copies between them, one after another."""
        made, pieces = Blocks(), []
        words: list[int] = []
        points: list[int] = []
        start = 0
        for item in items:
            if isinstance(item, list):
                if not item:
                    continue
                piece, addresses = self._moves(item)
                made.launches.append(Launch(move_all, 1, start))
            else:
                piece, addresses = self._kernel(item, made, start)
                made.launches.append(Launch(_entry(item), item.parts, start))
            words += [start + index for index, _ in addresses]
            points += [point for _, point in addresses]
            pieces.append(piece)
            start += len(piece)
        if pieces:
            made.template = np.concatenate(pieces)
        made.words, made.points = np.array(words, np.int64), np.array(points, np.int64)
        return made

    def _kernel(
        self, bound: BoundKernel, made: Blocks, start: int
    ) -> tuple[np.ndarray, list[tuple[int, int]]]:
        template, found = bound.template.copy(), []
        for index, name, offset in bound.addresses:
            template[index] = offset
            found.append((index, self.points[name]))
        for index, request in bound.others:
            point = self._resolve(template, index, request)
            if request[0] == "seed":
                made.seed_words.append(start + index)
            elif request[0] == "first step":
                made.step_words.append(start + index)
            if point is not None:
                found.append((index, point))
        return template, found

    def _moves(self, moves: list[Move]) -> tuple[np.ndarray, list[tuple[int, int]]]:
        pieces = [p for move in moves for p in move.pieces()]
        words = [len(pieces), rows(self.dtype, host()).address("copy_strided")]
        found = []
        for piece in pieces:
            found.append((len(words), self._point(piece.source.point)))
            found.append((len(words) + 1, self._point(piece.target.point)))
            words += piece.words()
        return np.array(words, np.int64), found

    def _resolve(self, template: np.ndarray, index: int, request: tuple[str, ...]) -> int | None:
        """A constant is added to the block here; else what the word points at."""
        match request:
            case ("cores", stage, i):
                tiling = self.binding.tilings[stage]
                found = next(s for s in self.direction.stages if s.name == stage)
                gates, made = found.cores[int(i)].gates, cores(self.dtype, host())
                for vectors in made.vector_counts(gates):  # so that another size finds its own
                    made.row_table(vectors)
                template[index] += made.row_table(gates * tiling.unit_blocks).ctypes.data
            case ("desc", stage, kind, i):
                copy = next(
                    c
                    for c in self.direction.copies
                    if (c.stage, c.kind, str(c.index)) == (stage, kind, i)
                )
                self.keep.append(np.array(copy_pieces(copy, self.binding), np.int64))
                template[index] += self.keep[-1].ctypes.data
            case ("init" | "pack", *_):
                return self._point("|".join(request))
            case (name,) if name in GLOBALS:
                return self.points[name]
        return None

    # ---- what a call runs -----------------------------------------------------------------------

    def choice(self, wanted: frozenset[str] | None) -> Choice:
        """Of the results that were chosen; None is all but those of carries that nobody sees."""
        found = self._choices.get(wanted)
        if found is None:
            found = self._choices[wanted] = self._choose(wanted)
        return found

    def _choose(self, wanted: frozenset[str] | None) -> Choice:
        places = [
            p
            for p in self.direction.results
            if p.role != "residual"
            and (p.name.removeprefix("d_") in wanted if wanted is not None else p.role != "held")
        ]
        kept = [p for p in self.direction.results if p.role == "residual"]
        buffers = {s.buffer for p in (*places, *kept) for s in (p.source, *p.parts)}
        needed: set[str] = set()
        for kernel in reversed(self.direction.kernels):
            if wanted is None or kernel.phase != "after" or buffers.intersection(kernel.writes):
                needed.add(kernel.name)
                buffers |= touched(self.direction, kernel)
        in_place, names = self.binding.in_place, {p.name for p in places}
        shapes = {
            p.name: result_shape(p, self.buffers, self.binding.call)
            for p in self.direction.results
            if p.name in names or p.name in in_place
        }
        arrays = [
            (name, shape, self._point(in_place.get(name) or result_point(name)))
            for name, shape in shapes.items()
        ]
        copied = [p for p in places if p.name not in in_place]
        moves = [m for p in copied for m in self.mover.results(p, shapes[p.name])]
        blocks = self._write(
            self._in_order([k for k in self.runs if k.kernel.name in needed], moves)
        )
        return Choice(blocks, [p.name for p in places], arrays)

    def _in_order(
        self, kernels: list[BoundKernel], results: list[Move]
    ) -> Iterator[BoundKernel | list[Move]]:
        """Kernels with the copies around them."""
        by_phase = {phase: list(ks) for phase, ks in groupby(kernels, lambda k: k.kernel.phase)}
        yield self.mover.starts(computed=False)
        yield from by_phase.get("before", [])
        yield self.mover.starts(computed=True)
        yield from by_phase.get("scan", [])
        yield self.mover.ends()
        yield from by_phase.get("after", [])
        yield results


def _is_early(bound: BoundKernel) -> bool:
    """Whether it is run once a version of the weights."""
    return bound.kernel.kind == "weights" and bound.kernel.phase == "before"


def _entry(bound: BoundKernel) -> Kernel:
    entry: Kernel | None = bound.kernel.function
    return entry or (sum_bulk if bound.kernel.kind == "grads" else contract_bulk)
