"""Two calls, one of which writes stamps -> a Profile.

Calls take turns, so that what else the machine does meets both alike.

Non-Goals: which calls (`profiled`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeVar

import numpy as np

from rnncc.runtime.cpu.execution.timed import CALL, CALLER, RETURNED, STAMPS
from rnncc.runtime.profiles.pieces import Threads, TimedCall
from rnncc.runtime.profiles.profile import Profile
from rnncc.runtime.profiles.roofline import Roofline, measure
from rnncc.runtime.profiles.rows import rows_of

T = TypeVar("T")
Call = Callable[[], object]
FRESH_CALLS = 12  # at most, whose weights are packed anew
MOST_LOOKS = 4  # at the machine's limits
LEAST_NS = 10_000_000  # between two looks at both clocks


_looks: list[Roofline] = []


def machine_limits() -> Roofline:
    """The best of what was seen around the first profiles of a process, a quarter of a second each:
    what disturbs the machine makes it look slower than it is."""
    if len(_looks) < MOST_LOOKS:
        _looks.append(measure(0.005, 5))
    return reduce(Roofline.best, tuple(_looks))


def measured(
    name: str, plain: Call, timed: Call, renew: Call, *, fresh: bool, repeats: int
) -> Profile:
    """renew: makes weights count as changed. fresh: before each call."""
    machine_limits()  # before all that warms the machine up, and behind it
    plain()
    with STAMPS.held():
        timed()  # compiled and planned, all that the first call does
        before = _both_clocks()
        calls, seconds = [], []
        for _ in range(repeats):
            if fresh:
                renew()
            began = time.perf_counter()
            plain()
            seconds.append(time.perf_counter() - began)
            calls.append(_timed(timed))
        packing = []
        for _ in range(0 if fresh else min(repeats, FRESH_CALLS)):
            renew()
            packing.append(_timed(timed))
        while time.perf_counter_ns() - before[0] < LEAST_NS:
            time.sleep(0.001)
        after = _both_clocks()
    tick = (after[0] - before[0]) / (after[1] - before[1]) / 1e9
    roofline = machine_limits()
    threads = Threads.of_calls([*calls, *packing])
    limits = roofline.of(threads.count)
    once = {n for call in packing for n, one in call.launches.items() if one.once}
    packed = middle_half([call.only(once) for call in packing], TimedCall.in_parts)
    half = middle_half(calls, lambda call: call.ticks)
    return Profile(
        name,
        fresh,
        rows_of(half, threads, roofline, tick),
        tuple(r for r in rows_of(packed, threads, roofline, tick) if r.kernel),
        float(np.mean([call.ticks for call in half])) * tick,
        float(np.mean(middle_half(seconds, lambda one: one))),
        repeats,
        threads,
        limits,
        half[(len(half) - 1) // 2],
        tick,
    )


def middle_half(calls: Sequence[T], time_of: Callable[[T], float]) -> list[T]:
    """But for the quickest and slowest quarter, from the quickest on."""
    quarter = len(calls) // 4
    return sorted(calls, key=time_of)[quarter : len(calls) - quarter]


def _timed(call: Call) -> TimedCall:
    """One call's stamps."""
    while True:
        STAMPS.start()
        STAMPS.now(CALL)
        call()
        STAMPS.now(RETURNED)
        lines = STAMPS.read()
        if lines is not None:
            return TimedCall(lines, dict(STAMPS.launches))


def _both_clocks() -> tuple[int, int]:
    """Nanoseconds of Python's, and ticks."""
    STAMPS.start()
    now = time.perf_counter_ns()
    STAMPS.now(CALL)
    lines = STAMPS.read()
    assert lines is not None
    return now, int(lines[CALLER][0, 1])
