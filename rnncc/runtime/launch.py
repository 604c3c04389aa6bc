"""A kernel's address, a block and a number of parts to a run: the one parallel region of a call.

Numba's `parallel=True` costs about a second a function, so no generated function uses it: this
launcher does, compiled once a machine.

One thread runs all the parts where OpenMP isn't there, where another Numba layer that can't be
entered by two threads at once is running, and in a child forked from a process that used OpenMP
(GNU's kills such a child). `threading_reason()` says which.

Non-Goals: how work is divided; barriers (`threads`).
"""

import os
import threading
from functools import cache

import numba
from numba import njit, prange

from .machine import NUM_THREADS, host
from .raw import call_kernel

_LOCK = threading.Lock()
_pool_started = False
_forked = False


def _after_fork() -> None:
    global _forked, _LOCK
    _LOCK = threading.Lock()
    _forked = _pool_started
    _decide.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@njit(cache=True, parallel=True, nogil=True)
def _run_parts(kernel, block, parts):
    for part in prange(parts):
        call_kernel(kernel, block, part)


@njit(cache=True, nogil=True)
def _run_in_turn(kernel, block, parts):
    for part in range(parts):
        call_kernel(kernel, block, part)


@cache
def _decide() -> tuple[int, str]:
    """(threads at most, why), and Numba's layer chosen if nobody has."""
    threads = host().threads
    if threads == 1:
        return 1, f"one thread: {NUM_THREADS} or Numba's thread count is 1"
    if _forked:
        return 1, "one thread: forked from a process that used OpenMP, which can't run in its child"
    try:
        layer = numba.threading_layer()
    except ValueError:
        layer = None  # not started yet
    if layer is None:
        chosen = str(numba.config.THREADING_LAYER).lower()
        if chosen in ("default", "safe", "forksafe", "threadsafe", "omp"):
            try:
                from numba.np.ufunc import omppool  # noqa: F401
            except ImportError:
                return 1, "one thread: Numba has no OpenMP layer here"
            if chosen != "omp":
                numba.config.THREADING_LAYER = "omp"
            layer = "omp"
        else:
            layer = chosen
    if layer == "workqueue":
        return 1, "one thread: Numba's workqueue layer can't be entered by two threads at once"
    return threads, f"{threads} threads: Numba's {layer} layer"


def max_threads() -> int:
    """Parts that can run at the same time."""
    return _decide()[0]


def threading_reason() -> str:
    """How many threads run kernels and why, in one sentence."""
    return _decide()[1]


def launch(kernel: int, block: int, parts: int = 1) -> None:
    """Runs kernel(block, part) for each part; in parallel where threads are to be had."""
    global _pool_started
    if parts == 1 or max_threads() == 1:
        _run_in_turn(kernel, block, parts)
    else:
        if not _pool_started:
            with _LOCK:
                _run_parts(kernel, block, 0)  # compiles, and starts the pool, once
                _pool_started = True
        _run_parts(kernel, block, parts)
