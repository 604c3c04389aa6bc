"""How workers sleep until there is something to do: one way for every system.

    doze(control, seat, seen)    a worker: sleeps while the latest job is `seen`, until it is woken
    wake(control, most)          a leader, behind the job it has published

A worker has a seat, with a lock of Python's to wait for. Those are wherever Python is, made of what
a system has (semaphores on Linux, a mutex and a condition on macOS and Windows), are C functions
that want no interpreter's lock, and are the same code for us on all of them. A lock may be released
only while it is held: whoever takes ASLEEP off a seat releases its lock, once, and nobody else.

Non-Goals: how long a worker stays awake, what it wakes up for (`worker_pool`).
"""

import ctypes

import numpy as np

from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.cpu.intrinsics.kernel_namespace import (
    atomic_add,
    atomic_load,
    atomic_store,
    atomic_swap,
    call_core,
    fence,
    word,
)
from rnncc.runtime.jit.helper import helper

# Lines of a control block: the latest job's number; how many seats are or were just asleep; the
# ways, words of their own. Between them are lines of `worker_pool`.
JOB, SLEEPING, WAYS = 0, 256, 320
ACQUIRE, RELEASE, SEATS, TAKEN = range(4)
CONTROL_WORDS = 48
LINE_WORDS = 8
# A seat is a line behind the control block.
FIRST_SEAT, SEAT_BYTES = CONTROL_WORDS * 8, LINE_WORDS * 8
ASLEEP, LOCK = range(2)


def control_block(seats: int) -> np.ndarray:
    """A control block with that many seats, int64, zeros but for the ways and the locks. Locks are
    never given back: a thread that can't be joined may look at its own until the process is gone.
    """
    python = ctypes.pythonapi
    python.PyThread_allocate_lock.restype = ctypes.c_void_p
    words = aligned((CONTROL_WORDS + seats * LINE_WORDS,), np.int64, zero=True)
    words[WAYS // 8 + ACQUIRE] = _address(python.PyThread_acquire_lock)
    words[WAYS // 8 + RELEASE] = _address(python.PyThread_release_lock)
    words[WAYS // 8 + SEATS] = seats
    for seat in words[CONTROL_WORDS:].reshape(-1, LINE_WORDS):
        lock = ctypes.c_void_p(python.PyThread_allocate_lock())
        if not lock.value:
            raise MemoryError("no lock for a worker to sleep on")
        python.PyThread_acquire_lock(lock, 1)
        seat[LOCK] = lock.value
    return words


def _address(function: object) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None
    return address


@helper(returns="int64")
def take_seat(control):
    """The address of a seat that is nobody's yet."""
    return control + FIRST_SEAT + SEAT_BYTES * atomic_add(control + WAYS + TAKEN * 8, 1)


@helper
def doze(control, seat, seen):
    """Sleeps while `seen` is the latest job. May return early; a caller looks again."""
    # Never fewer than there are seats to wake.
    atomic_add(control + SLEEPING, 1)
    atomic_store(seat + ASLEEP * 8, 1)
    # Announced, then looked again, as `wake` looks for sleepers behind its job: with a fence on
    # either side one sees the other. Without, a leader's look may go before its job is seen.
    fence()
    # A seat that can't be taken back has been woken: its lock is released, or will be.
    if atomic_load(control + JOB) == seen or atomic_swap(seat + ASLEEP * 8, 0) == 0:
        call_core(word(control + WAYS, ACQUIRE), word(seat, LOCK), 1, 0, 0, 0, 0, 0, 0)
    atomic_add(control + SLEEPING, -1)


@helper
def wake(control, most):
    """Wakes so many sleepers, where there are as many."""
    fence()
    left = min(atomic_load(control + SLEEPING), most)
    seat = control + FIRST_SEAT
    end = seat + word(control + WAYS, SEATS) * SEAT_BYTES
    while left > 0 and seat < end:
        if atomic_load(seat + ASLEEP * 8) != 0 and atomic_swap(seat + ASLEEP * 8, 0) != 0:
            call_core(word(control + WAYS, RELEASE), word(seat, LOCK), 0, 0, 0, 0, 0, 0, 0)
            left -= 1
        seat += SEAT_BYTES
