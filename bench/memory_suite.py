"""What long sequences need: bytes of residuals and workspace at most, and what saving them costs.

Every figure is from a new process. Counted is what the runtime takes of its pool at the same time,
and the carries that checkpoints keep: not the caller's arrays, nor the copy of x a pullback owns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from bench.harness import ROOT, BenchError, Effort
from bench.result import Bar, Result

SCRIPT = """
import json, sys, time
import numpy as np
import rnncc
from rnncc.runtime import memory
from rnncc.runtime.memory import Pool

class Counting(Pool):
    out = most = 0

    def take(self, size):
        found = super().take(size)
        self.out += found.nbytes
        self.most = max(self.most, self.out)
        return found

    def give(self, workspace):
        self.out -= workspace.nbytes
        super().give(workspace)

    def array(self, shape, dtype):
        return np.empty(shape, dtype)  # the caller's, not counted

training, every, batch, steps, units = json.loads(sys.argv[1])
pool = memory.POOL = Counting()
layer = rnncc.compile("lstm")(
    units=units, return_sequences=True, checkpoint_every=every, seed=1
)
x = np.random.default_rng(0).standard_normal((batch, steps, units), dtype="float32")
seconds, kept = [], 0
for _ in range(2):
    start = time.perf_counter()
    if training:
        y, pullback = layer.vjp(x)
        kept = sum(a.nbytes for b in pullback._saved.blocks for a in b.carries.values())
        pullback(y, consume=True)
        del pullback
    else:
        layer(x)
    seconds.append(time.perf_counter() - start)
print(json.dumps({"bytes": pool.most + kept, "seconds": min(seconds)}))
"""
BATCH, UNITS, EVERY = 16, 256, 100


def memory_suite(effort: Effort) -> Result:
    steps = 1000 if effort.rounds < 10 else 10_000
    whole = _run(True, None, steps)
    parts = _run(True, EVERY, steps)
    short, long = _run(False, None, steps // 10), _run(False, None, steps)
    what = f"LSTM ({BATCH}, {steps}, {UNITS}, {UNITS})"
    bars = [
        Bar(
            f"{what}: memory with checkpoints every {EVERY} steps / without",
            _ratio(parts, whole),
            1 / 8,
        ),
        Bar(f"{what}: memory of inference / of a tenth of the steps", _ratio(long, short), 1.0),
    ]
    notes = [
        f"{title}: {found['bytes'] / 2**20:.1f} MiB, {found['seconds']:.2f} s"
        for title, found in (
            ("training", whole),
            (f"training, checkpoints every {EVERY} steps", parts),
            ("inference", long),
            ("inference of a tenth", short),
        )
    ]
    return Result("memory", bars=bars, notes=notes)


def _ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(one["bytes"]) / float(other["bytes"])


def _run(training: bool, every: int | None, steps: int) -> dict[str, Any]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([training, every, BATCH, steps, UNITS])],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{steps} steps: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
