"""Sleeping and waking in any order, and with stores that others see late.

The functions' own text runs over a memory where each thread's stores wait in a queue until it says
a fence or changes a word atomically, or until they go by themselves: what x86 does, and what ARM
does with a release and an acquire behind it where its loads are `ldapr`.
"""

import random
from types import FunctionType

import greenlet
import pytest

from rnncc.runtime.cpu.threads import sleep

CONTROL, WORKERS, JOBS = 1 << 20, 2, 3
ACQUIRE, RELEASE = 1, 2


class Machine:
    """Threads that take turns at every word they share, chosen by a seed."""

    def __init__(self, seed):
        self.random, self.memory, self.late = random.Random(seed), {}, {}
        self.held, self.blocked = [True] * WORKERS, {}
        ways = CONTROL + sleep.WAYS
        for way, value in (
            (sleep.ACQUIRE, ACQUIRE),
            (sleep.RELEASE, RELEASE),
            (sleep.SEATS, WORKERS),
        ):
            self.memory[ways + way * 8] = value
        for n in range(WORKERS):
            self.memory[CONTROL + sleep.FIRST_SEAT + n * sleep.SEAT_BYTES + sleep.LOCK * 8] = n
        self.meanings = {
            "atomic_load": self.load,
            "atomic_store": self.store,
            "atomic_add": lambda place, n: self.change(place, lambda old: old + n),
            "atomic_swap": lambda place, n: self.change(place, lambda old: n),
            "fence": self.fence,
            "word": lambda place, n: self.memory.get(place + 8 * n, 0),
            "call_core": self.call,
        }
        self.doze, self.wake, self.take_seat = (
            self.bound(helper.function) for helper in (sleep.doze, sleep.wake, sleep.take_seat)
        )

    def bound(self, function):
        return FunctionType(function.__code__, {**function.__globals__, **self.meanings})

    # ---- words -----------------------------------------------------------------------------------

    def turn(self):
        greenlet.getcurrent().parent.switch()

    def queue(self):
        return self.late.setdefault(greenlet.getcurrent(), [])

    def load(self, place):
        self.turn()
        own = [value for where, value in self.queue() if where == place]
        return own[-1] if own else self.memory.get(place, 0)

    def store(self, place, value):
        self.turn()
        self.queue().append((place, value))

    def drain(self):
        self.memory.update(self.queue())
        self.queue().clear()

    def fence(self):
        self.turn()
        self.drain()

    def change(self, place, function):
        self.fence()
        old = self.memory.get(place, 0)
        self.memory[place] = function(old)
        return old

    def call(self, function, lock, *_):
        self.fence()
        if function == ACQUIRE:
            while self.held[lock]:
                self.blocked[greenlet.getcurrent()] = lock
                self.turn()
            self.held[lock] = True
        else:
            assert self.held[lock], "a lock is released that nobody holds"
            self.held[lock] = False

    # ---- threads ---------------------------------------------------------------------------------

    def leader(self, most):
        """Wakes as many as it may, then waits for none, as leaders do."""
        for job in [*range(1, JOBS), -1]:
            self.store(CONTROL + sleep.JOB, job)
            self.wake(CONTROL, WORKERS if job < 0 else most)

    def worker(self):
        seat, seen = self.take_seat(CONTROL), 0
        while seen >= 0:
            self.doze(CONTROL, seat, seen)
            seen = self.load(CONTROL + sleep.JOB)

    def run(self, most):
        threads = [greenlet.greenlet(lambda: self.leader(most))]
        threads += [greenlet.greenlet(self.worker) for _ in range(WORKERS)]
        for thread in threads:
            thread.switch()  # up to its first word
        while any(not thread.dead for thread in threads):
            late = [thread for thread, queue in self.late.items() if queue]
            if late and self.random.random() < 0.2:
                place, value = self.late[self.random.choice(late)].pop(0)
                self.memory[place] = value
                continue
            able = [
                thread
                for thread in threads
                if not thread.dead
                and not (thread in self.blocked and self.held[self.blocked[thread]])
            ]
            assert able or late, "a worker sleeps on, and nobody will wake it"
            if able:
                thread = self.random.choice(able)
                self.blocked.pop(thread, None)
                thread.switch()
        assert self.memory[CONTROL + sleep.SLEEPING] == 0


@pytest.mark.parametrize("most", [1, WORKERS])
def test_no_order_loses_a_wake_or_releases_twice(most):
    for seed in range(1500):
        Machine(seed).run(most)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"fence": lambda: None}, "sleeps on"),
        ({"atomic_swap": lambda place, n: 1}, "nobody holds|sleeps on"),
    ],
    ids=["no fences", "seats that two take"],
)
def test_orders_are_found_that_lose_one(monkeypatch, changed, message):
    """With what would be wrong, so that the above isn't right by chance."""
    bound = Machine.bound

    def wrong(self, function):
        self.meanings.update(changed)
        return bound(self, function)

    monkeypatch.setattr(Machine, "bound", wrong)
    with pytest.raises(AssertionError, match=message):
        test_no_order_loses_a_wake_or_releases_twice(WORKERS)
