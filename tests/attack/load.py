"""A hundred streaming sessions at once: no state of one in another.

Sessions take their steps in a random order, from four threads, blocks of one step and of several
side by side; sessions end and begin meanwhile. Each output has the bits of its own sequence in one
call.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from rnncc.runtime.api.layer import Layer
from tests.attack import Attack
from tests.attack.guard import layer_class

CELLS = ("lstm", "gru", "delays")
SESSIONS, THREADS, SECONDS = 100, 4, 6.0
STEPS = 24
WIDTHS = (1, 1, 3)  # steps of a block, of sessions in turn


class Session:
    """One sequence, step by step, and what comes out of it in one call."""

    def __init__(self, layer: Layer, rng: np.random.Generator, width: int) -> None:
        self.x = rng.standard_normal((1, STEPS, 3)).astype("float32")
        self.right = layer(self.x)
        self.width, self.at = width, 0
        self.stream = layer.stream(self.x[:, :width])

    def step(self) -> str | None:
        begin, end = self.at, self.at + self.width
        found = self.stream(self.x[:, begin:end])
        self.at = end
        wrong = found.tobytes() != self.right[:, begin:end].tobytes()
        return f"steps {begin} to {end} are another session's" if wrong else None

    @property
    def is_over(self) -> bool:
        return self.at >= STEPS


def attempt(index: int, seed: int) -> str | None:
    rng = np.random.default_rng([seed, index])
    name = CELLS[index % len(CELLS)]
    sizes: dict[str, Any] = {"units": int(rng.integers(3, 40))}
    layer = layer_class(name, "float32")(**sizes, return_sequences=True, seed=1)
    findings: list[str] = []
    until = time.monotonic() + SECONDS

    def serve(number: int) -> None:
        own = np.random.default_rng([seed, index, number])
        mine = SESSIONS // THREADS
        try:
            sessions = [Session(layer, own, WIDTHS[n % 3]) for n in range(mine)]
            while time.monotonic() < until and not findings:
                n = int(own.integers(mine))
                wrong = sessions[n].step()
                if wrong:
                    findings.append(f"{name} {sizes}: {wrong}")
                if sessions[n].is_over:
                    sessions[n] = Session(layer, own, sessions[n].width)
        except BaseException as error:
            findings.append(f"{name} {sizes}: {error!r}")

    team = [threading.Thread(target=serve, args=(n,)) for n in range(THREADS)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    return findings[0] if findings else None


ATTACK = Attack(
    name="load",
    about="100 streaming sessions at once for 6 s: no state of one in another",
    count=10,
    short=1,
    attempt=attempt,
)
