"""Sleeping and waking: nobody sleeps through a job, no lock is released that nobody holds."""

import ctypes
import re
import threading
import time
from functools import cache

import numpy as np
import pytest

from rnncc.runtime.cpu.threads import sleep
from rnncc.runtime.cpu.threads.worker_pool import function_of, send_home
from rnncc.runtime.jit.module_cache import text_module

MODULE = '''"""Workers that sleep at once, and a leader that wants all of them."""

from rnncc.runtime.cpu.intrinsics.kernel_namespace import atomic_add, atomic_load, atomic_store
from rnncc.runtime.cpu.threads.sleep import JOB, doze, take_seat, wake
from rnncc.runtime.jit.kernel import entry


@entry
def sleepy(control, awake):
    seat, seen = take_seat(control), 0
    while seen >= 0:
        doze(control, seat, seen)
        job = atomic_load(control + JOB)
        if job != seen:
            atomic_add(awake, 1)
            seen = job


@entry
def publish(control, job, most):
    atomic_store(control + JOB, job)
    wake(control, most)
'''
SECONDS = 60


@cache
def module():
    return text_module("test_sleep", MODULE)


class StrictLocks:
    """What a system may offer at least: a lock has two states."""

    def __init__(self, count):
        self.held, self.changed, self.wrong = [True] * count, threading.Condition(), []
        kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int)
        self.acquire, self.release = kind(self._acquire), kind(self._release)

    def _acquire(self, lock, wait):
        with self.changed:
            if not (wait and self.changed.wait_for(lambda: not self.held[lock], SECONDS)):
                self.wrong.append("nobody woke a sleeper")
            self.held[lock] = True

    def _release(self, lock, _):
        with self.changed:
            if not self.held[lock]:
                self.wrong.append("a lock was released that nobody held")
            self.held[lock] = False
            self.changed.notify_all()

    def put_into(self, control):
        ways = control[sleep.WAYS // 8 :]
        for way, function in ((sleep.ACQUIRE, self.acquire), (sleep.RELEASE, self.release)):
            ways[way] = ctypes.cast(function, ctypes.c_void_p).value
        control[sleep.CONTROL_WORDS + sleep.LOCK :: sleep.LINE_WORDS] = range(len(self.held))


def wait_for(true):
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "somebody sleeps through a job"
        time.sleep(0)


@pytest.mark.parametrize("strict", [False, True], ids=["Python's", "strict"])
def test_all_are_woken_by_every_job(strict):
    workers, jobs = 3, 300
    control, awake = sleep.control_block(workers), np.zeros(1, np.int64)
    locks = StrictLocks(workers)
    if strict:
        locks.put_into(control)
    sleepy, publish = function_of(module().sleepy), function_of(module().publish)
    where = control.ctypes.data
    threads = [
        threading.Thread(target=sleepy, args=(where, awake.ctypes.data), daemon=True)
        for _ in range(workers)
    ]
    for thread in threads:
        thread.start()
    for job in [*range(1, jobs), -1]:
        expected = awake[0] + workers
        publish(where, job, workers)
        wait_for(lambda expected=expected: awake[0] == expected)
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert not locks.wrong and control[sleep.SLEEPING // 8] == 0


def test_only_so_many_are_woken():
    """And those who sleep on are woken later, to go home."""
    workers = 3
    control, awake = sleep.control_block(workers), np.zeros(1, np.int64)
    where = control.ctypes.data
    sleepy, publish = function_of(module().sleepy), function_of(module().publish)
    threads = [
        threading.Thread(target=sleepy, args=(where, awake.ctypes.data), daemon=True)
        for _ in range(workers)
    ]
    for thread in threads:
        thread.start()
    seats = control[sleep.CONTROL_WORDS :].reshape(workers, -1)
    wait_for(lambda: seats[:, sleep.ASLEEP].sum() == workers)
    publish(where, 1, 1)
    wait_for(lambda: awake[0] == 1)
    wait_for(lambda: seats[:, sleep.ASLEEP].sum() == workers)  # it sleeps again
    assert awake[0] == 1
    function_of(send_home)(where)
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_a_fence_stands_between_a_job_and_the_look_for_sleepers():
    """Read off the machine code: nothing that runs here shows a missing one for certain."""
    fence = r"mfence|lock\s+orl\s+\$0|dmb\s+ish\n"
    for entry in (module().sleepy, module().publish):
        assert re.search(fence, entry.assembly()), entry
