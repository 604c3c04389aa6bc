"""Check-in and barrier: how threads that share one step's units find and wait for each other.

    index, count = enter(sync, part, parts, spins)   # in every part; index is -1 in a latecomer
    if index >= 0:
        for t in range(steps):
            ...                               # share `index` of `count`
            barrier(sync, index, count, t)    # t barriers were passed before; t + 1 with it

Right for any number of threads that shows up: the first closes registration after so many spins,
as many as the others' help is worth; those present share the work, latecomers return. So nothing
hangs where one thread runs all parts in turn (NUMBA_NUM_THREADS=1, OMP_THREAD_LIMIT=1), which a
barrier over all parts would.

`sync` is the address of sync_words(parts) int64, 64-byte aligned, zeroed before each launch.

Non-Goals: starting threads (`dispatch`); dividing the work.
"""

from rnncc.runtime.cpu.intrinsics.kernel_namespace import (
    atomic_add,
    atomic_load,
    atomic_or,
    atomic_store,
    give_way,
    pause,
)
from rnncc.runtime.jit.helper import PAIR, helper

# A cache line each, so that those who wait for one word don't slow down those who write another.
REGISTERED, PUBLISHED, ARRIVED = 0, 64, 128  # then a line for every thread
HEAD_WORDS, LINE_WORDS = 16, 8
_CLOSED = 1 << 32
# 20 to 90 microseconds of `pause`, as processors have it: a sleeping thread takes as long to wake
# up, on a virtual machine a few times as long.
MOST_SPINS = 2000
# A barrier's wait is bounded by the slowest share, unless its thread lost its core: then give way.
_SPINS_BEFORE_GIVING_WAY = 4000


def sync_words(parts: int) -> int:
    """Words a region of so many threads needs."""
    return HEAD_WORDS + LINE_WORDS * parts


@helper(returns=PAIR)
def check_in(sync, wanted, most_spins):
    """(index, count) of this thread among those that share the region; (-1, 0) for a latecomer.

    most_spins: how often the first looks whether the others are here.
    """
    if wanted <= 1:
        # Registered nonetheless: a second part must not do the work again.
        if atomic_add(sync + REGISTERED, 1) == 0:
            return 0, 1
        return -1, 0
    index = atomic_add(sync + REGISTERED, 1)
    if index >= _CLOSED or index >= wanted:
        return -1, 0
    if index == 0:
        spins = 0
        while atomic_load(sync + REGISTERED) < wanted and spins < most_spins:
            pause()
            spins += 1
        count = min(atomic_or(sync + REGISTERED, _CLOSED), wanted)
        atomic_store(sync + PUBLISHED, count)
        return 0, count
    spins = 0
    count = atomic_load(sync + PUBLISHED)
    while count == 0:
        pause()
        spins += 1
        if spins > _SPINS_BEFORE_GIVING_WAY:
            give_way()
        count = atomic_load(sync + PUBLISHED)
    return index, count


@helper(returns=PAIR)
def enter(sync, part, parts, most_spins):
    """(index, count) of a part: as it was numbered where parts have rows of their own, which
    most_spins 0 says; else in the order in which they come, as `check_in`."""
    if most_spins == 0:
        return part, parts
    return check_in(sync, parts, most_spins)


@helper(returns="int64")
def barrier(sync, index, count, generation):
    """Waits until all `count` threads are here; `generation` barriers were passed before. How many
    are now.

    Each writes a line of its own and reads those of the others: one way from core to core, where a
    counter they all add to goes back and forth.
    """
    if count > 1:
        atomic_store(sync + ARRIVED + index * 64, generation + 1)
        for other in range(count):
            spins = 0
            while atomic_load(sync + ARRIVED + other * 64) <= generation:
                pause()
                spins += 1
                if spins > _SPINS_BEFORE_GIVING_WAY:
                    give_way()
    return generation + 1
