"""Threads of a simulated machine, and who of them has seen what.

A plan is run by its caller, and by workers that come when they like or not at all: greenlets that a
seeded scheduler lets go on wherever one looks at what another may write. Each part of a launch is
on its own, though one thread may run several: two that touch one place are a race unless a barrier
lies between them, in whatever order they ran.

Non-Goals: weak memory beyond what is acquired and released.
"""

from __future__ import annotations

import contextvars
import random
from typing import Any

import greenlet
import numpy as np

from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.cpu.kernels.executor import (
    FIXUPS,
    HEAD_WORDS,
    LAUNCH_WORDS,
    LAUNCHES,
    WORDS,
    WORDS_AT,
    Plan,
)
from rnncc.runtime.cpu.threads.sleep import (
    ACQUIRE,
    CONTROL_WORDS,
    LINE_WORDS,
    LOCK,
    RELEASE,
    SEATS,
    WAYS,
)
from rnncc.runtime.cpu.threads.worker_pool import work
from rnncc.runtime.jit.kernel import CpuKernel
from tests.support.cpu_simulator.memory import Space
from tests.support.cpu_simulator.words import Words

TURNS = 1 << 20  # of a plan, after which nobody goes on
LAZY = (0.3, 0.6, 0.9)  # how often a thread that lets others go on goes on itself


class Threads:
    """Runs plans."""

    def __init__(self, space: Space, words: Words, seed: int, helpers: int) -> None:
        self.helpers = helpers
        self.space, self.words, self.random = space, words, random.Random(seed)
        self.released: dict[int, np.ndarray] = {}
        self.launch: tuple[int, int] | None = None
        self.active = 0  # parts that are being run
        self.parts: dict[int, int] = {}  # of a launch, by where its block is
        self.held: list[bool] = []  # of each lock
        self.turns, self.lazy = 0, LAZY[0]
        self.control: np.ndarray | None = None
        words.call_part, words.acquire, words.release = self.call_part, self.acquire, self.release
        words.turn = self.turn
        self.ways = {ACQUIRE: words.code(self._acquire), RELEASE: words.code(self._release)}

    # ---- parts -----------------------------------------------------------------------------------

    def call_part(self, function: int, block: int, part: int) -> None:
        space, key = self.space, (function, block)
        if key != self.launch:
            if self.active:
                raise space.fault("a kernel begins while parts of the last one run")
            self.launch, space.launch = key, space.launch + 1
            space.clocks[...] = 0
            np.fill_diagonal(space.clocks, 1)
            self.released.clear()
        several = self.parts.get(block, 1) > 1
        before, space.part = space.part, part if several else -1
        self.active += 1
        try:
            if several:
                self.turn()  # claimed, and not begun
            self.words.call(function, block, part)
        finally:
            self.active -= 1
            space.part = before

    def acquire(self, address: int) -> None:
        space, me = self.space, self.space.part
        seen = self.released.get(address)
        if me >= 0 and seen is not None:
            np.maximum(space.clocks[me], seen, out=space.clocks[me])

    def release(self, address: int) -> None:
        space, me = self.space, self.space.part
        if me >= 0:
            clock, old = space.clocks[me], self.released.get(address)
            self.released[address] = clock.copy() if old is None else np.maximum(clock, old)
            clock[me] += 1

    # ---- turns -----------------------------------------------------------------------------------

    def turn(self) -> None:
        """Somebody else may go on."""
        current = greenlet.getcurrent()
        if current.parent is None:
            return
        self.turns += 1
        if self.turns > TURNS:
            raise self.space.fault("nobody goes on")
        if self.random.random() > self.lazy:
            self._switch(current)

    def _switch(self, current: Any) -> None:
        space = self.space
        part = space.part
        current.parent.switch()
        space.part = part

    def _acquire(self, lock: int, *_: int) -> None:
        while self.held[lock]:
            self._switch(greenlet.getcurrent())
        self.held[lock] = True

    def _release(self, lock: int, *_: int) -> None:
        if not self.held[lock]:
            raise self.space.fault("a lock is released that nobody holds")
        self.held[lock] = False

    # ---- plans -----------------------------------------------------------------------------------

    def run(self, entry: CpuKernel, plan: Plan, address: int, second: int, workspace: int) -> None:
        """entry(address, second, control), the workers helping if they come."""
        head = plan.array[:HEAD_WORDS]
        table = plan.array[HEAD_WORDS + head[WORDS] + 2 * head[FIXUPS] :].reshape(-1, LAUNCH_WORDS)
        assert len(table) == head[LAUNCHES]
        words_at = workspace + int(head[WORDS_AT])
        self.parts = {words_at + int(at): int(parts) for _, at, parts in table}
        self.launch, self.turns, self.lazy = None, 0, self.random.choice(LAZY)
        function = self.words.function(entry.function)
        helpers = self.helpers if plan.threads else 0
        with np.errstate(all="ignore"):
            if not helpers:
                function(address, second, 0)
                return
            self.control = self._control_block(helpers)
            piece = self.space.enter(self.control, ours=True)
            piece.states[...], piece.writable = 1, True
            piece.name = "the workers' control block"
            control = piece.address
            worker = self.words.function(work.function)
            leader = greenlet.greenlet(lambda: function(address, second, control))
            others = [greenlet.greenlet(lambda: worker(control)) for _ in range(helpers)]
            self._schedule(leader, others)

    def _control_block(self, helpers: int) -> np.ndarray:
        words = aligned((CONTROL_WORDS + helpers * LINE_WORDS,), np.int64, zero=True)
        for way, code in self.ways.items():
            words[WAYS // 8 + way] = code
        words[WAYS // 8 + SEATS] = helpers
        words[CONTROL_WORDS + LOCK :: LINE_WORDS] = range(helpers)
        self.held = [True] * helpers
        return words

    def _schedule(self, leader: Any, others: list[Any]) -> None:
        """Unfair: whoever is chosen goes on for as long as it likes."""
        every = [leader, *others]
        for one in every:
            one.gr_context = contextvars.copy_context()
        try:
            while not leader.dead:
                self.random.choice([one for one in every if not one.dead]).switch()
        finally:
            self.space.part, self.active = -1, 0
            for one in every:
                if one and not one.dead:
                    one.throw(greenlet.GreenletExit)
