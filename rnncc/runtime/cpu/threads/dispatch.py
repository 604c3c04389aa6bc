"""Which threads run the parts of a call's kernels: the process's workers, or a framework's team.

One thread runs all the parts where there is one to be had, and where the workers are busy for
another Python thread. A forked child gets workers of its own. Where a framework has brought its
threads they are used instead (`openmp_team`).
`threading_reason()` says how many threads there are, and why.

Non-Goals: how work is divided; barriers (`barrier`); workers (`worker_pool`).
"""

import os
import threading
from functools import cache

from rnncc.common.machine import NUM_THREADS, host
from rnncc.runtime.cpu.threads.openmp_team import Team
from rnncc.runtime.cpu.threads.worker_pool import WorkerPool

_lock = threading.Lock()
_pool: WorkerPool | None = None
_team: Team | None = None


def _after_fork() -> None:
    global _lock, _pool, _team
    _lock, _pool, _team = threading.Lock(), None, None  # threads don't survive a fork


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _decide() -> tuple[int, str]:
    """(threads at most, why)."""
    threads = host().threads
    if threads == 1:
        return 1, f"one thread: there is one core, or {NUM_THREADS} is 1"
    return threads, f"{threads} threads: the caller and {threads - 1} that help if they are free"


def max_threads() -> int:
    """Parts that can run at the same time."""
    return _decide()[0]


def threading_reason() -> str:
    """How many threads run kernels and why, in one sentence."""
    if _team is not None and max_threads() > 1:
        count = _team.size(max_threads())
        return f"{count} thread{'s' if count > 1 else ''} of {_team.name}"
    most, why = _decide()
    if _pool is not None and _pool.size < most - 1:
        return f"{_pool.size + 1} of {most} threads: the system let this process start no more"
    return why


def join(team: Team) -> None:
    """From now on calls of this process run on a team's threads."""
    global _team
    if max_threads() > 1:
        _team = team


def joined_team() -> Team | None:
    """The team that stands in for workers."""
    return _team


def _workers() -> WorkerPool:
    global _pool
    if _pool is None:
        with _lock:
            if _pool is None:
                _pool = WorkerPool(max_threads() - 1)
    return _pool


def pool_of_workers() -> WorkerPool | None:
    """The workers, if there are any; those who want them `lend` and `take_back`."""
    return _workers() if max_threads() > 1 else None
