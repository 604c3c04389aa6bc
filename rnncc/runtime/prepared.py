"""A Binding -> everything a call needs that doesn't change from call to call.

All blocks of a direction are one array; every word that is an address is a place in it, the
number of what it points at, and an offset. A call copies the array and adds the addresses of
this call's memory, once for all kernels.

Non-Goals: arrays and their lifetimes (`call`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rnncc.runtime.bind import Binding, BoundKernel, requests, result_shape, touched
from rnncc.runtime.bulk import contract_bulk, sum_bulk
from rnncc.runtime.cores import cores
from rnncc.runtime.machine import host
from rnncc.runtime.memory import ALIGNMENT
from rnncc.runtime.packing import Planner
from rnncc.runtime.pieces import copy_pieces
from rnncc.runtime.rows import rows
from rnncc.runtime.tables import Buffer, Direction, Place
from rnncc.runtime.threads import SYNC_WORDS

GLOBALS = ("scratch_base", "sync", "zeros", "ones")


def _round(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


@dataclass(slots=True)
class Arena:
    """Buffers one after another in one piece of memory."""

    points: np.ndarray  # numbers of the buffers
    offsets: np.ndarray
    size: int


@dataclass(slots=True)
class Step:
    """One launch: where its kernel is and its block begins."""

    bound: BoundKernel
    start: int  # words into the template

    @property
    def address(self) -> int:
        kernel = self.bound.kernel
        run = kernel.function or (sum_bulk if kernel.kind == "grads" else contract_bulk)
        return int(run.address)


@dataclass(slots=True)
class Needs:
    """What some results take: kernels that run; arrays by name of result, with their shape and the
    buffer that they are, if kernels write in place; results that are copied there."""

    kernels: set[str]
    results: list[str]
    copied: list[Place]
    arrays: list[tuple[str, tuple[int, ...], str | None]]


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
        self._write_template()
        self.packing = Planner(self, rows(self.dtype, host()).address("pack")).plan()
        self.pack_points = np.array([self._point(n) for n in self.packing.names], np.int64)
        self.pack_offsets = np.array(self.packing.offsets, np.int64)
        self._needs: dict[frozenset[str] | None, Needs] = {}

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

    def _write_template(self) -> None:
        pieces, words, whats = [], [], []
        self.seed_words: list[int] = []
        self.step_words: list[int] = []
        self.draws_weights = False  # packed weights differ from seed to seed
        self.before_weights: list[Step] = []
        self.steps: list[Step] = []
        self.keep: list[np.ndarray] = []  # descriptions the blocks point at
        start = 0
        for bound in self.binding.kernels:
            template = bound.template.copy()
            for index, name, offset in bound.addresses:
                template[index] = offset
                words.append(start + index)
                whats.append(self.points[name])
            for index, request in bound.others:
                point = self._resolve(template, index, request)
                if request[0] == "seed":
                    self.seed_words.append(start + index)
                elif request[0] == "first step":
                    self.step_words.append(start + index)
                if point is not None:
                    words.append(start + index)
                    whats.append(point)
            kernel = bound.kernel
            step = Step(bound, start)
            early = kernel.kind == "weights" and kernel.phase == "before"
            self.draws_weights |= early and any(r[0] == "seed" for _, r in bound.others)
            (self.before_weights if early else self.steps).append(step)
            pieces.append(template)
            start += len(template)
        self.template = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
        self.words = np.array(words, np.int64)
        self.whats = np.array(whats, np.int64)

    def _resolve(self, template: np.ndarray, index: int, request: tuple[str, ...]) -> int | None:
        """A constant is added to the block here; else what the word points at."""
        match request:
            case ("cores", stage, i):
                tiling = self.binding.tilings[stage]
                found = next(s for s in self.direction.stages if s.name == stage)
                vectors = found.cores[int(i)].gates * tiling.unit_blocks
                table = cores(self.dtype, host()).row_table(vectors)
                template[index] += table.ctypes.data
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

    def needs(self, wanted: frozenset[str] | None) -> Needs:
        """Of the results that were chosen; None is all but those of carries that nobody sees."""
        found = self._needs.get(wanted)
        if found is None:
            found = self._needs[wanted] = self._find_needs(wanted)
        return found

    def _find_needs(self, wanted: frozenset[str] | None) -> Needs:
        places = [
            p
            for p in self.direction.results
            if p.role != "residual"
            and (p.name.removeprefix("d_") in wanted if wanted is not None else p.role != "held")
        ]
        buffers = {s.buffer for p in places for s in (p.source, *p.parts)}
        kernels: set[str] = set()
        for kernel in reversed(self.direction.kernels):
            if wanted is None or kernel.phase != "after" or buffers.intersection(kernel.writes):
                kernels.add(kernel.name)
                buffers |= touched(self.direction, kernel)
        in_place, names = self.binding.in_place, {p.name for p in places}
        arrays = [
            (p.name, result_shape(p, self.buffers, self.binding.call), in_place.get(p.name))
            for p in self.direction.results
            if p.name in names or p.name in in_place
        ]
        copied = [p for p in places if p.name not in in_place]
        return Needs(kernels, [p.name for p in places], copied, arrays)
