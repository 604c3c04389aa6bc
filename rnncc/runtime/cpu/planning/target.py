"""What a direction runs on: whose machine code, whose memory, whose threads.

    HOST                         this machine
    tests.support.cpu_simulator  Python, over memory that knows who wrote it

Everything a plan is made of is made for a target, and what addresses a plan holds are its own.

Non-Goals: what is planned (`kernel_arguments`, `executable`); whose arrays they are (`run`).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Protocol

import numpy as np

from rnncc.common.machine import Machine, host
from rnncc.runtime.common import memory_pool
from rnncc.runtime.cpu.kernels.executor import Launch, Plan, perform, perform_again
from rnncc.runtime.cpu.kernels.microkernels import Cores
from rnncc.runtime.cpu.planning.bound_program import BoundProgram
from rnncc.runtime.cpu.threads.dispatch import joined_team, max_threads, pool_of_workers
from rnncc.runtime.cpu.threads.worker_pool import function_of, send_home, work
from rnncc.runtime.jit.kernel import CpuKernel

SHARED_BYTES = 1 << 18  # of copies, from which a second thread is worth waking


class CpuTarget(Protocol):
    """gap: bytes of nobody's behind each buffer. shared_bytes: of copies, from which threads share
    them. pool: of memory; None is this machine's. address_of: where an array's data begin; blank:
    the same of one that is to be written. stamps: where timed kernels write when they did what."""

    gap: int
    shared_bytes: int
    stamps: int
    pool: memory_pool.Pool | None
    address_of: Callable[[np.ndarray], int]
    blank: Callable[[np.ndarray], int]

    @property
    def machine(self) -> Machine: ...

    @property
    def threads(self) -> int:
        """Parts that can run at the same time."""

    def code(self, kernel: CpuKernel) -> int:
        """Where a kernel's code is."""

    def row_table(self, cores: Cores, vectors: int) -> int:
        """Where `Cores.row_table` is."""

    def watched(self, binding: BoundProgram, launches: Sequence[Launch]) -> Sequence[Launch]:
        """The launches of a plan, as they are run."""

    def run(self, plan: Plan, bases: list[int]) -> None:
        """Everything a plan says, with these addresses of its groups."""

    def repeated(self, plan: Plan, workspace: int) -> Callable[[], None]:
        """What does once more all that a `run` in this workspace has done."""

    def survey(self) -> Survey | None:
        """What plans on it are to be made for first, to see which kernels they run; None where
        nothing is compiled."""


class Host:
    """This machine."""

    gap, shared_bytes, stamps = 0, SHARED_BYTES, 0
    pool: memory_pool.Pool | None = None

    def __init__(self) -> None:
        self.address_of = self.blank = memory_pool.address_of
        self.run = run_plan

    @property
    def machine(self) -> Machine:
        return host()

    @property
    def threads(self) -> int:
        return max_threads()

    def code(self, kernel: CpuKernel) -> int:
        return kernel.address

    def row_table(self, cores: Cores, vectors: int) -> int:
        return memory_pool.address_of(cores.row_table(vectors))

    def watched(self, binding: BoundProgram, launches: Sequence[Launch]) -> Sequence[Launch]:
        return launches

    def survey(self) -> Survey:
        return Survey()

    def repeated(self, plan: Plan, workspace: int) -> Callable[[], None]:
        run, address = _perform_again(), plan.address
        pool = pool_of_workers() if plan.threads else None
        if pool is None:
            return partial(run, address, workspace, 0)

        def again() -> None:
            control = pool.lend()
            try:
                run(address, workspace, control)
            finally:
                if control:
                    pool.take_back()

        return again


class Survey(Host):
    """This machine, of which a plan is made that nobody runs: only the kernels in it are told."""

    def __init__(self) -> None:
        super().__init__()
        self._planned: list[CpuKernel] = []

    @property
    def kernels(self) -> list[CpuKernel]:
        """Those of the plan, then what runs them."""
        workers = [work, send_home] if self.threads > 1 and not joined_team() else []
        return [*self._planned, perform, *workers]

    def code(self, kernel: CpuKernel) -> int:
        self._planned.append(kernel)
        return 0

    def row_table(self, cores: Cores, vectors: int) -> int:
        rows = range(1, cores.max_rows(vectors) + 1)
        self._planned += [cores.kernel(count, vectors) for count in rows]
        return 0


@cache
def _perform_again() -> Callable[..., None]:
    return function_of(perform_again)


@cache
def _perform() -> Callable[[int, bytes, int], None]:
    """`perform` as Python calls it, the bases as bytes."""
    kinds = [ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64]
    function: Callable[[int, bytes, int], None]
    function = ctypes.CFUNCTYPE(None, *kinds)(perform.address)
    return function


@cache
def _packer(count: int) -> Callable[..., bytes]:
    return struct.Struct(f"{count}q").pack


def run_plan(plan: Plan, bases: Sequence[int]) -> None:
    """Everything a plan says, with these addresses of its groups."""
    team = joined_team() if plan.threads else None
    if team and team.run(perform.address, plan.address, bases, max_threads()):
        return
    words = _packer(len(bases))(*bases)
    pool = pool_of_workers() if plan.threads and not team else None
    control = pool.lend() if pool else 0
    try:
        _perform()(plan.address, words, control)
    finally:
        if control:
            assert pool is not None
            pool.take_back()


HOST: Any = Host()
