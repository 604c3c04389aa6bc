"""kill -9 of one of two processes that fill a cache at the same time; then a third that uses it.

Non-Goals: power that fails (files are synced, which no test of ours can see).
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from tests.attack import Attack
from tests.attack.cache import broken, finish, start, warm


def attempt(index: int, seed: int) -> str | None:
    rng = random.Random(f"kills {seed} {index}")
    _, right, usual = warm()
    with tempfile.TemporaryDirectory(prefix="rnncc-attack-") as above:
        folder = Path(above) / "cache"
        killed, other = start(folder), start(folder)
        try:
            # Both compile, each takes longer: most of the time entries are being written.
            time.sleep(usual * rng.uniform(0.3, 1.8))
            killed.kill()
            killed.communicate()
            if folder.exists() and (wrong := broken(folder)):
                return f"half an entry: {wrong}"
            found = finish(other)
            if found[0] != right or found[1]:
                return f"the process beside it: {found}"
            found = finish(start(folder))
            if found != (right, [], False):
                return f"the next process: {found}"
        except RuntimeError as error:
            return str(error)
        finally:
            for process in (killed, other):
                process.kill()
                process.communicate()
    return None


ATTACK = Attack(
    name="kills",
    about="kill -9 of one of two processes that compile",
    count=30,
    short=1,
    attempt=attempt,
)
