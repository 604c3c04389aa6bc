"""What long sequences need: bytes of residuals and workspace at most, and what saving them costs.

Every figure is from a new process. Counted is what the runtime takes of its pool at the same time,
and the carries that checkpoints keep: not the caller's arrays, nor the copy of x a pullback owns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import prod
from typing import Any

from bench.case import TRAINING, Case, all_sizes
from bench.case import program as program_of
from bench.harness import ROOT, BenchError, Effort
from bench.result import Bar, Result
from rnncc.passes.pipeline import gradient

LANES = 16

SCRIPT = """
import json, sys, time
import numpy as np
import rnncc
from rnncc.runtime.common import memory_pool
from rnncc.runtime.common.memory_pool import Pool

class Counting(Pool):
    out = most = 0
    asked = {}  # bytes by address: a workspace may be larger than what was asked for

    def take(self, size):
        found = super().take(size)
        self.asked[found.ctypes.data] = size
        self.out += found.nbytes
        self.most = max(self.most, self.out)
        return found

    def give(self, workspace):
        self.out -= workspace.nbytes
        del self.asked[workspace.ctypes.data]
        super().give(workspace)

    def array(self, shape, dtype):
        return np.empty(shape, dtype)  # the caller's, not counted

cell, training, every, batch, steps, units = json.loads(sys.argv[1])
pool = memory_pool.POOL = Counting()
layer = rnncc.compile(cell)(
    units=units, return_sequences=True, checkpoint_every=every, seed=1
)
x = np.random.default_rng(0).standard_normal((batch, steps, units), dtype="float32")
seconds, kept, saved = [], 0, 0
for _ in range(2):
    start = time.perf_counter()
    if training:
        y, pullback = layer.vjp(x)
        kept = sum(a.nbytes for b in pullback._saved.saved.blocks for a in b.carries.values())
        saved = sum(pool.asked.values()) + kept
        pullback(y, consume=True)
        del pullback
    else:
        layer(x)
    seconds.append(time.perf_counter() - start)
print(json.dumps({"bytes": pool.most + kept, "saved": saved, "seconds": min(seconds)}))
"""
BATCH, UNITS, EVERY = 16, 256, 100
CELLS = ("lstm", "gru", "layer_norm_lstm")
GROWTH = (100, 200)  # steps between which residuals are counted


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
    bars += [_growth(cell) for cell in CELLS]
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


def _growth(cell: str) -> Bar:
    """What a pullback keeps a step more, beside the residuals that the passes have chosen."""
    first, last = (_run(True, None, steps, cell)["saved"] for steps in GROWTH)
    measured = (last - first) / (GROWTH[1] - GROWTH[0])
    off = abs(measured / residual_bytes(cell, BATCH, UNITS) - 1)
    what = f"{cell}: bytes kept a step, distance from its residuals'"
    return Bar(f"{what} ({measured:.0f} bytes)", off, 0.1, "of them")


def residual_bytes(cell: str, batch: int, units: int) -> int:
    """Bytes a step of a cell's residuals, rows padded to 16 lanes; c and c[t-1] are one array."""
    case = Case(cell, TRAINING, batch, 1, units, units)
    program, sizes = program_of(case), all_sizes(case)
    wrt = [p.value.name for p in program.params if p.role in ("input", "state", "weight")]
    forward, _ = gradient(program, wrt)
    found = [r for r in forward.results if r.role.kind == "residual" and "T" in r.value.type.axes]
    names = {r.name.rpartition(".")[0] for r in found}
    total = 0
    for result in found:
        name = result.name.rpartition(".")[0]
        if name.startswith("_") and name[1:].rpartition("_")[0] in names:
            continue  # of the step before: the same rows, one further
        shape = [s.evaluate(sizes) for s in result.value.type.shape] or [1]
        total += batch * prod(shape[:-1]) * -(-shape[-1] // LANES) * LANES * 4
    return total


def _ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(one["bytes"]) / float(other["bytes"])


def _run(training: bool, every: int | None, steps: int, cell: str = "lstm") -> dict[str, Any]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([cell, training, every, BATCH, steps, UNITS])],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{steps} steps: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
