"""Worker threads that help with one kernel at a time, whoever shows up.

    part = next unclaimed part of the job      each thread, the caller too, until none is left

The caller never waits for a thread that didn't come: it takes what is unclaimed itself, so on a
busy machine a call costs what one thread needs, not what the scheduler lets a second one wait.
(An OpenMP region waits for every thread of its team: measured, 16 ms for a call of 2 ms when one
other process was busy.) Workers wait for the next job with their eyes open for a while, giving way
to others, then sleep.

One control block, words a cache line apart:
    JOB      number of the latest job; negative: go home
    WHAT     its kernel and block, stable until all its parts are done
    TICKET   job number << 32 | its parts << 16 | next part to claim: one word, so that a slow
             worker's claim is of the job it was made for, or of none
    DONE     parts finished
    SLEEPING, WAYS, and seats behind the block: how workers sleep (`sleep`)

Non-Goals: dividing work (kernels do); barriers (`barrier`).
"""

import atexit
import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache

from rnncc.runtime.cpu.intrinsics.kernel_namespace import (
    atomic_add,
    atomic_load,
    atomic_store,
    call_kernel,
    give_way,
    pause,
    set_word,
    word,
)
from rnncc.runtime.cpu.threads.sleep import JOB, SEATS, WAYS, control_block, doze, take_seat, wake
from rnncc.runtime.jit.helper import helper
from rnncc.runtime.jit.kernel import CpuKernel, entry

WHAT, TICKET, DONE = 64, 128, 192  # JOB is in front of them, SLEEPING behind
_PART_BITS = 16
_PART_MASK = (1 << _PART_BITS) - 1
# 1.5 to 7 milliseconds, as processors pause: the next kernel or call comes sooner. A worker whose
# part of a kernel was the smaller one must not be asleep when the next one begins, which runs
# without it then (with a fifth of this 7 of 10 calls of 40 ms did, on a virtual machine).
_SPINS_BEFORE_SLEEP = 150_000
_SPINS_BEFORE_GIVING_WAY = 4000
_SPINS_BETWEEN_TURNS = 256  # whoever waits for this core has its turn: a framework's own threads


@helper
def take_parts(control):
    """Runs parts of the current job until none is unclaimed."""
    while True:
        ticket = atomic_add(control + TICKET, 1)
        part = ticket & _PART_MASK
        if part >= (ticket >> _PART_BITS) & _PART_MASK:
            return
        call_kernel(word(control + WHAT, 0), word(control + WHAT, 1), part)
        atomic_add(control + DONE, 1)


@helper
def lead(control, kernel, block, parts):
    """Publishes a job, does what nobody else claims, waits for what others did claim."""
    set_word(control + WHAT, 0, kernel)
    set_word(control + WHAT, 1, block)
    atomic_store(control + DONE, 0)
    job = atomic_load(control + JOB) + 1
    atomic_store(control + TICKET, job << 32 | parts << _PART_BITS)
    atomic_store(control + JOB, job)
    wake(control, parts - 1)
    take_parts(control)
    spins = 0
    while atomic_load(control + DONE) < parts:
        pause()
        spins += 1
        if spins > _SPINS_BEFORE_GIVING_WAY:
            give_way()


@entry
def work(control):
    """A worker's life."""
    seat, seen = take_seat(control), 0
    while True:
        spins = 0
        while atomic_load(control + JOB) == seen:
            pause()
            spins += 1
            if spins % _SPINS_BETWEEN_TURNS == 0:
                give_way()
            if spins > _SPINS_BEFORE_SLEEP:
                doze(control, seat, seen)
                spins = 0
        seen = atomic_load(control + JOB)
        if seen < 0:
            return
        take_parts(control)


@entry
def send_home(control):
    """The last thing workers are told."""
    atomic_store(control + JOB, -1)
    wake(control, word(control + WAYS, SEATS))


@cache
def function_of(entry: CpuKernel) -> Callable[..., None]:
    """An entry as Python calls it: without the interpreter's lock."""
    arguments = [ctypes.c_int64] * entry.arguments
    function: Callable[..., None] = ctypes.CFUNCTYPE(None, *arguments)(entry.address)
    return function


def started(
    count: int, life: Callable[..., object], words: tuple[object, ...]
) -> list[threading.Thread]:
    """So many threads, or as many as the system lets a process have: callers do what is left."""
    running: list[threading.Thread] = []
    for i in range(count):
        thread = threading.Thread(target=life, args=words, daemon=True, name=f"rnncc-{i}")
        try:
            thread.start()
        except RuntimeError:  # a limit on threads, or the interpreter is going home
            break
        running.append(thread)
    return running


class WorkerPool:
    """`workers` threads, or fewer where no more can start, and the control block they watch."""

    def __init__(self, workers: int):
        self._words = control_block(workers)
        # Workers may look at it until the process is gone.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._words.base))
        self._control = self._words.ctypes.data
        self._send_home = function_of(send_home)
        self._busy = threading.Lock()
        self._threads = started(workers, function_of(work), (self._control,))
        self._pid = os.getpid()
        atexit.register(self.close)

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self._threads)

    def lend(self) -> int:
        """The control block, for jobs of one Python thread; 0 while another one has it. Who is lent
        it calls `take_back`."""
        return self._control if self._busy.acquire(blocking=False) else 0

    def take_back(self) -> None:
        self._busy.release()

    def close(self) -> None:
        """Sends the workers home, before the machine code they run is unloaded."""
        if os.getpid() != self._pid:
            return
        with self._busy:
            self._send_home(self._control)
            for thread in self._threads:
                thread.join(timeout=1.0)
