"""Launching, check-in and barriers: right for any number of threads that shows up; no hangs."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from functools import cache

import numpy as np
import pytest

from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.cpu.kernels.barrier import sync_words
from rnncc.runtime.cpu.threads import dispatch, openmp_team, worker_pool
from rnncc.runtime.jit import kernel, object_cache
from rnncc.runtime.jit.module_cache import text_module
from tests.support.launching import launch
from tests.support.paths import ROOT

MODULE = '''"""Threads that hand a vector round: each step reads all of what the last step wrote."""

from rnncc.runtime.jit.kernel import core, kernel
from rnncc.runtime.cpu.kernels.barrier import barrier, check_in
from rnncc.runtime.cpu.intrinsics.kernel_namespace import (
    atomic_add, flush_denormals, restore_denormals, set_word, vectors, word,
)

v = vectors("float64", 1)


@kernel
def ring(block, part):
    """Word j of row t + 1 = sum of row t + j; rows are shared by unit."""
    sync, wanted, data = word(block, 0), word(block, 1), word(block, 2)
    steps, n, counts = word(block, 3), word(block, 4), word(block, 5)
    index, count = check_in(sync, wanted, 2000)
    if index >= 0:
        atomic_add(counts, 1)
        for t in range(steps):
            row = data + t * n * 8
            for j in range(n * index // count, n * (index + 1) // count):
                total = 0
                for i in range(n):
                    total += word(row, i)
                set_word(row + n * 8, j, total % 1000003 + j)
            barrier(sync, index, count, t)


@kernel
def count_parts(block, part):
    atomic_add(block + part * 8, part + 1)


@kernel
def denormal(block, part):
    """The smallest normal divided by two, with and without denormals."""
    v.store(block + 16, v.load(block) * 0.5)
    old = flush_denormals()
    v.store(block + 8, v.load(block) * 0.5)
    restore_denormals(old)
    v.store(block + 16, v.load(block) * 0.5)


@core
def set_seven(plan, bases, control, post, a, b, c, d):
    set_word(plan, 0, 7)
'''
STEPS, N = 50, 37


@cache
def module():
    """Kept: its machine code goes with it."""
    return text_module("test_threads", MODULE)


def run_ring(parts, wanted):
    sync = aligned((sync_words(64),), np.int64, zero=True)
    data = aligned((STEPS + 1, N), np.int64, zero=True)
    data[0] = np.arange(N)
    counts = aligned((8,), np.int64, zero=True)
    block = aligned((8,), np.int64)
    block[:6] = sync.ctypes.data, wanted, data.ctypes.data, STEPS, N, counts.ctypes.data
    launch(module().ring.address, block, parts)
    return data, counts[0]


def expected():
    data = np.zeros((STEPS + 1, N), np.int64)
    data[0] = np.arange(N)
    for t in range(STEPS):
        data[t + 1] = data[t].sum() % 1000003 + np.arange(N)
    return data


@pytest.mark.parametrize("parts, wanted", [(1, 1), (2, 2), (4, 4), (2, 1), (1, 2), (3, 2)])
def test_ring(parts, wanted):
    for _ in range(20):
        data, present = run_ring(parts, wanted)
        assert 1 <= present <= wanted
        assert (data == expected()).all()


def test_every_part_runs_once():
    for parts in (1, 2, 7):
        counts = launch(module().count_parts.address, np.zeros(8, np.int64), parts)
        assert list(counts[:parts]) == list(range(1, parts + 1)) and not counts[parts:].any()


def test_two_python_threads_launch_at_once():
    failures = []

    def work():
        for _ in range(50):
            data, _ = run_ring(2, 2)
            if not (data == expected()).all():
                failures.append(data)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures


def test_denormals_are_flushed_and_restored():
    given = np.array([np.finfo("d").tiny, 0, 0])
    values = launch(module().denormal.address, given.view(np.int64)).view(np.float64)
    assert values[2] == np.finfo("d").tiny / 2
    from rnncc.runtime.cpu.intrinsics.scalar_intrinsics import FLUSHES

    assert values[1] == (0 if FLUSHES else np.finfo("d").tiny / 2)


SCRIPT = """
import sys
from {module} import expected, run_ring
from rnncc.runtime.cpu.threads import dispatch
for parts, wanted in ((2, 2), (4, 4), (1, 1)):
    data, present = run_ring(parts, wanted)
    assert (data == expected()).all()
print(dispatch.threading_reason())
{more}
"""
FORK = """
import os
sys.stdout.flush()  # else the child says its parent's lines again
child = os.fork()
if child == 0:
    data, _ = run_ring(2, 2)
    assert (data == expected()).all()
    print(dispatch.threading_reason())
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def in_a_process(more="", **environment):
    script = SCRIPT.format(module=run_ring.__module__, more=more)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "variable, value",
    [
        ("NUMBA_NUM_THREADS", "1"),
        ("OMP_THREAD_LIMIT", "1"),
        ("RNNCC_NUM_THREADS", "1"),
    ],
)
def test_nothing_hangs_with_fewer_threads(variable, value):
    reason = in_a_process(**{variable: value})
    assert "thread" in reason
    if variable != "OMP_THREAD_LIMIT":
        assert reason.startswith("one thread")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif("one thread" in dispatch.threading_reason(), reason="one thread here")
def test_a_forked_child_has_workers_of_its_own():
    reasons = in_a_process(FORK, RNNCC_NUM_THREADS="2", NUMBA_NUM_THREADS="2").splitlines()
    assert len(reasons) == 2 and len(set(reasons)) == 1


def test_a_second_caller_does_its_own_work():
    """Workers serve one caller at a time; nobody waits for them."""
    with dispatch._workers()._busy:
        data, _ = run_ring(2, 2)
    assert (data == expected()).all()


class TooMany(threading.Thread):
    """A system that lets a process start one thread more, and then no other."""

    left = 1

    def start(self) -> None:
        if TooMany.left < 1:
            raise RuntimeError("can't start new thread")
        TooMany.left -= 1
        super().start()


@pytest.mark.parametrize("left", [0, 1])
def test_a_thread_that_cannot_start_is_one_less(monkeypatch, left):
    monkeypatch.setattr(TooMany, "left", left)
    monkeypatch.setattr(threading, "Thread", TooMany)
    before = threading.active_count()
    made = worker_pool.WorkerPool(3)
    assert made.size == left and threading.active_count() == before + left
    monkeypatch.setattr(dispatch, "_pool", made)
    monkeypatch.setattr(dispatch, "_decide", lambda: (4, "four threads"))
    data, _ = run_ring(4, 4)
    assert (data == expected()).all()
    if dispatch.joined_team() is None:
        assert dispatch.threading_reason().startswith(f"{left + 1} of 4 threads")
    made.close()
    assert threading.active_count() == before


def test_a_team_has_no_more_threads_than_can_start(monkeypatch):
    """libgomp ends the process where it can't start one."""
    asked = []

    def region(function, data, threads, flags):
        asked.append(threads)
        ctypes.CFUNCTYPE(None, ctypes.c_int64)(function)(data)

    parallel = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
    )(region)
    address = ctypes.cast(parallel, ctypes.c_void_p).value
    made = openmp_team.Team(address, lambda: 8, "a team")
    word = aligned((1,), np.int64, zero=True)
    seven = module().set_seven.address
    monkeypatch.setattr(TooMany, "left", 2)
    monkeypatch.setattr(threading, "Thread", TooMany)
    before = threading.active_count()
    assert made.run(seven, word.ctypes.data, [0], 4) and made.run(seven, word.ctypes.data, [0], 4)
    assert word[0] == 7
    assert asked == [3, 3] and made.size(4) == 3
    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "lock", [kernel.COMPILING, object_cache.llvm_lock()], ids=["ours", "LLVM's"]
)
def test_a_fork_waits_until_nobody_compiles(lock):
    """A child would find LLVM in the middle of something, and its lock taken for good."""
    taken, steps = threading.Event(), []

    def compile_something():
        with lock:
            taken.set()
            time.sleep(0.2)
            steps.append("done")

    thread = threading.Thread(target=compile_something)
    thread.start()
    taken.wait()
    pid = os.fork()
    if not pid:
        os._exit(0 if steps == ["done"] and lock.acquire(timeout=1) else 1)
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0
    assert lock.acquire(timeout=1)
    lock.release()
