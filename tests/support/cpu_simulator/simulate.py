"""Layers whose kernels run in Python: the text that is compiled otherwise, over checked memory.

    layer = simulated_class(spec, vector_bytes=16, threads=3)(units=5)
    layer(x)

Everything between a Program and its numbers is what runs on a CPU: passes, Schedule, text, the
planning of a call, its copies and packing. What is another is the meaning of a kernel's words
(`words`, `lanes`), the memory (`memory`) and the threads (`threads`). No compiler is asked.

A `KernelFault` says what a kernel did that it mustn't, and in which line.

Non-Goals: the last bit; speed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from rnncc.artifact.cell import CellDescription, Variant
from rnncc.artifact.kernel_tables import KernelSpec
from rnncc.common.machine import Machine
from rnncc.compiler import Compiler
from rnncc.frontend.spec import CellSpec
from rnncc.lowering.cell_interface import check_text
from rnncc.runtime.api.layer import Layer, make_class
from rnncc.runtime.api.validation import dtype_name
from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.cpu.execution.engine import CpuEngine
from rnncc.runtime.cpu.execution.run import ANYWHERE, Direction
from rnncc.runtime.cpu.execution.second_engine import CpuSecondEngine
from rnncc.runtime.cpu.kernels.executor import (
    PACKED,
    SAVED,
    WORDS_AT,
    WORKSPACE,
    Launch,
    Plan,
    Region,
    SpaceOffset,
    perform,
    perform_again,
)
from rnncc.runtime.cpu.kernels.loop_helpers import TURN_AT
from rnncc.runtime.cpu.kernels.microkernels import Cores
from rnncc.runtime.cpu.planning.executable import Executable
from rnncc.runtime.cpu.planning.kernel_arguments import ArgumentBinder
from rnncc.runtime.jit.kernel import CpuKernel
from rnncc.runtime.planning.layouts import REACH, Layout
from tests.support.cases import render_module
from tests.support.cpu_simulator.memory import UNWRITTEN, KernelFault, Piece, Pool, Space
from tests.support.cpu_simulator.places import TEXT
from tests.support.cpu_simulator.threads import Threads
from tests.support.cpu_simulator.words import Words

__all__ = ["KernelFault", "Simulator", "simulated_class"]

GAP = 4096
REGISTERS = {16: 16, 32: 16, 64: 32}


@dataclass(frozen=True)
class Ways:
    """What is chosen for speed alone, so that small cells go all the ways of large ones.

    l2: bytes of a cache; with a small one threads share units rather than rows. work: how much
    more of it there seems to be. fuse: whether loops make x @ W themselves; None as ever.
    shared_bytes: see `Target`. helpers: workers that come to help. block: rows that go through all
    levels together, at most; None as ever. copied: whether gradients' operands always are.
    """

    l2: int
    work: int
    fuse: bool | None
    shared_bytes: int
    helpers: int
    block: int | None = None
    copied: bool = False

    @staticmethod
    def drawn(threads: int, seed: object) -> Ways:
        choose = random.Random(f"{seed}")
        return Ways(
            choose.choice([256, 256, 1 << 19]),
            choose.choice([1, 10**6, 10**6, 10**6]),
            choose.choice([None, True, False]),
            choose.choice([1, 1 << 18]),
            choose.choice([threads - 1, threads - 1, threads - 1, 0]),
            choose.choice([None, 1, 2, 5]),
            choose.choice([True, False]),
        )


class Simulator:
    """A `cpu.target.Target`. seed: of the order of threads, and of `ways` if none are given."""

    gap, stamps = GAP, 0

    def __init__(
        self, vector_bytes: int = 32, threads: int = 2, seed: int = 0, ways: Ways | None = None
    ) -> None:
        self.ways = ways = ways or Ways.drawn(threads, seed)
        registers = REGISTERS[vector_bytes]
        self.machine = Machine(vector_bytes, registers, threads, l2=ways.l2)
        self.threads, self.shared_bytes = threads, ways.shared_bytes
        self.space = Space(threads)
        self.pool = Pool(self.space)
        self.words = Words(self.space, self.machine)
        self.scheduler = Threads(self.space, self.words, seed, ways.helpers)
        self.turns = partial(random.Random(seed).randrange, 1 << 40)
        self.tables: dict[tuple[Cores, int], np.ndarray] = {}
        self.address_of, self.blank = self.space.given, self.space.blank

    def code(self, kernel: CpuKernel) -> int:
        return self.words.code(kernel)

    def row_table(self, cores: Cores, vectors: int) -> int:
        table = self.tables.get((cores, vectors))
        if table is None:
            limit = cores.max_rows(vectors)
            table = self.tables[cores, vectors] = aligned((limit + 1,), np.int64, zero=True)
            table[0] = cores.storage.word
            table[1:] = [self.code(cores.kernel(m, vectors)) for m in range(1, limit + 1)]
        return self.address_of(table)

    # ---- plans -----------------------------------------------------------------------------------

    def watched(self, binding: object, launches: list[Launch]) -> list[Launch]:
        return launches

    def run(self, plan: Plan, bases: list[int]) -> None:
        space = self.space
        words = Region("words of blocks", SpaceOffset(WORKSPACE, int(plan.array[WORDS_AT])), 0)
        words = Region(words.name, words.place, plan.workspace_bytes - words.place.offset)
        for group, title in ((WORKSPACE, "workspace"), (SAVED, "saved"), (PACKED, "packed")):
            own = [r for r in plan.regions if r.place.group == group and r.size]
            if not own or bases[group] == ANYWHERE:
                continue
            piece = space.at(bases[group])
            piece.name = title
            laid = [*own, *([words] if group == WORKSPACE else [])]
            space.lay_out(piece, laid, 0 if group == WORKSPACE else REACH)
            for region in own:
                # What earlier calls left: any number is right.
                if region.name.startswith("our scratch "):
                    space.set_word(piece.address + region.place.offset + TURN_AT, self.turns())
        for group, name in plan.results.items():
            space.at(bases[group]).name = f"result {name}"
        table = np.array(bases, np.int64)
        at = self.address_of(table)
        self.scheduler.run(perform, plan, self.address_of(plan.array), at, bases[WORKSPACE])
        self._finish(plan, bases)

    def survey(self) -> None:
        """Nothing is compiled."""

    def repeated(self, plan: Plan, workspace: int) -> Callable[[], None]:
        def again() -> None:
            self.scheduler.run(
                perform_again, plan, self.address_of(plan.array), workspace, workspace
            )

        return again

    def _finish(self, plan: Plan, bases: list[int]) -> None:
        """Results are whole, and made of what was written."""
        space = self.space
        for group, name in plan.results.items():
            piece = space.at(bases[group])
            left = self._unwritten(piece)
            if left is not None:
                raise KernelFault(f"result {name}{left}")
        space.run += 1

    def _unwritten(self, piece: Piece) -> str | None:
        array = piece.ref()
        if array is None or not array.size:
            return None
        states = piece.elements(array.itemsize)[1]
        wrong = (states == UNWRITTEN).any(-1)
        if not wrong.any():
            return None
        index = tuple(int(n[0]) for n in np.nonzero(wrong)) if wrong.ndim else ()
        at = piece.start + sum(i * s for i, s in zip(index, array.strides))
        origin = int(piece.origins[at]) if len(piece.origins) else 0
        what = f" of shape {list(array.shape)}, at {list(index)} and {int(wrong.sum()) - 1} more, "
        if not origin:
            return f"{what}was never written"
        return f"{what}is made of what nobody wrote: {self.space.sites[origin]}"


class _Binder(ArgumentBinder):
    """Chooses as for work of any size: what results never depend on."""

    def __init__(self, ways: Ways, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ways = ways
        self.copied_from = 1 if ways.copied else self.copied_from

    def work_of(self, kernel: KernelSpec) -> tuple[int, int]:
        work, rows = super().work_of(kernel)
        return work * self.ways.work, rows

    def most_rows(self, kernel: KernelSpec) -> int:
        return self.ways.block or super().most_rows(kernel)

    def choose_starts(self, kernel: KernelSpec) -> None:
        if self.ways.fuse is None:
            super().choose_starts(kernel)
        elif self.ways.fuse and kernel.kind == "scan":
            for stage in (self.stages[n] for n in kernel.stages):
                self.out.fused |= {core.start for core in stage.cores if core.start}


class _Side(Direction):
    target: Simulator

    def prepare(self, call: Any, given: dict[str, Layout]) -> Executable:
        sim = self.target
        machine = sim.machine, self.dtype, sim.threads
        binder = _Binder(sim.ways, self.direction, call, *machine, given)
        return Executable(binder.bind(), self.direction, self.params, self.buffers, sim)


def simulated_module(spec: CellSpec, cell: CellDescription, variant: Variant) -> ModuleType:
    """The generated module, without a file."""
    text = render_module(
        spec, dict(cell.options), dict(cell.functions), cell.dtype, (variant,), target="cpu"
    )
    module = ModuleType(f"simulated_{cell.name}")
    module.__dict__[TEXT] = text.splitlines()
    exec(compile(text, f"<simulated {cell.name}>", "exec"), module.__dict__)
    return module


def _engine(
    sim: Simulator, spec: CellSpec, cell: CellDescription, variant: Variant
) -> CpuEngine | CpuSecondEngine:
    made = simulated_module(spec, cell, variant)._ENGINES[variant]
    side = partial(_Side, target=sim)
    if isinstance(made, CpuSecondEngine):
        sides = (made._forward, made._backward, made._backward_pullback, made._forward_pullback)
        return CpuSecondEngine(made.cell, *(s.direction for s in sides), side)
    return CpuEngine(made.cell, made._forward.direction, made._backward.direction, side)


def simulated_class(
    spec: CellSpec,
    dtype: Any = "float64",
    *,
    vector_bytes: int = 32,
    threads: int = 2,
    seed: int = 0,
    simulator: Simulator | None = None,
) -> type[Layer]:
    """The layer class of a checked cell on simulated kernels. seed: of the order of threads, and of
    the choices that are made for speed. simulator: one of the caller's own, in place of these."""
    sim = simulator or Simulator(vector_bytes, threads, seed)
    name = dtype_name(dtype)
    maker = Compiler(spec, name, partial(_engine, sim))
    key = (spec.text, spec.filename, name, vector_bytes, threads, seed)
    return make_class(maker, __name__, (_remake, key))


def _remake(text: str, filename: str, dtype: str, *machine: int) -> type[Layer]:
    """A class out of a pickle."""
    vector_bytes, threads, seed = machine
    spec = check_text(text, filename)
    return simulated_class(spec, dtype, vector_bytes=vector_bytes, threads=threads, seed=seed)
