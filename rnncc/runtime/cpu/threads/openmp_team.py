"""Kernels on the threads of another runtime's team: its threads are awake, ours would fight them.

Threads of OpenMP spin on after each of their regions, milliseconds long, on cores that workers of
our own would want. So where a framework brings a team, a call is one region of it: whoever comes
first leads, as a caller does otherwise (`worker_pool`), the others take parts until the leader is
done.

Non-Goals: which team that is (`rnncc.torch.threads`); workers of our own (`worker_pool`).
"""

from __future__ import annotations

import ctypes
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.cpu.intrinsics.kernel_namespace import (
    atomic_add,
    atomic_load,
    atomic_store,
    call_core,
    give_way,
    pause,
    word,
)
from rnncc.runtime.cpu.threads.sleep import CONTROL_WORDS, JOB
from rnncc.runtime.cpu.threads.worker_pool import TICKET, started, take_parts
from rnncc.runtime.jit.helper import helper
from rnncc.runtime.jit.kernel import entry

# Words of a block: how many came, what they run; then the control block, then addresses of groups.
_CAME, _FUNCTION, _PLAN = 0, 1, 2
_CONTROL, _BASES = 64, 64 + CONTROL_WORDS * 8
_SPINS_BEFORE_GIVING_WAY = 4000


@helper
def _help(control):
    """Takes parts of every job until the leader sends its helpers home."""
    seen = 0
    while True:
        spins = 0
        job = atomic_load(control + JOB)
        while job == seen:
            pause()
            spins += 1
            if spins > _SPINS_BEFORE_GIVING_WAY:
                give_way()
            job = atomic_load(control + JOB)
        if job < 0:
            return
        seen = job
        take_parts(control)


@entry
def take_part(block):
    """What each thread of the team does."""
    control = block + _CONTROL
    if atomic_add(block + _CAME * 8, 1) == 0:
        call_core(
            word(block, _FUNCTION), word(block, _PLAN), block + _BASES, control, 0, 0, 0, 0, 0
        )
        atomic_store(control + JOB, -1)
    else:
        _help(control)


@cache
def _packer(count: int) -> Callable[..., None]:
    return struct.Struct(f"{count}q").pack_into


class Team:
    """Threads of another runtime.

    parallel: the address of its `GOMP_parallel(function, data, threads, flags)`. count: how many
    threads it has now. name: whose it is, for `plan()`.
    """

    def __init__(self, parallel: int, count: Callable[[], int], name: str) -> None:
        kinds = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._parallel = ctypes.CFUNCTYPE(None, *kinds)(parallel)
        self._count, self.name = count, name
        self._busy = threading.Lock()
        open_in_children(self, "_busy")
        self._words = aligned((1024,), np.int64, zero=True)
        self._tried, self._limit = 1, sys.maxsize

    def size(self, most: int) -> int:
        """How many threads a call has now."""
        return min(self._count(), most, self._limit)

    def _try(self, threads: int) -> int:
        """As many of these as the system lets this process have. An OpenMP that can't start one
        ends the process, so that threads of ours have to come and go first."""
        self._tried, come = threads, threading.Event()
        workers = started(threads - 1, come.wait, ())
        come.set()
        for thread in workers:
            thread.join()
        if len(workers) + 1 < threads:
            self._limit = len(workers) + 1
        return len(workers) + 1

    def run(self, function: int, plan: int, bases: Sequence[int], most: int) -> bool:
        """function(plan, addresses, control) on so many threads at most; False, and nothing
        done, where there is one, or while another Python thread has them."""
        words, threads = self._words, self.size(most)
        if threads == 1 or len(bases) > len(words) - _BASES // 8:
            return False
        if not self._busy.acquire(blocking=False):
            return False
        try:
            if threads > self._tried:
                threads = self._try(threads)
            words[_CAME], words[_FUNCTION], words[_PLAN] = 0, function, plan
            words[(_CONTROL + JOB) // 8] = words[(_CONTROL + TICKET) // 8] = 0
            _packer(len(bases))(words, _BASES, *bases)
            self._parallel(take_part.address, words.ctypes.data, threads, 0)
        finally:
            self._busy.release()
        return True
