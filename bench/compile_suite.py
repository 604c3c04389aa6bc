"""How long compiling takes: every figure from a new process, with caches that only it has filled.

NUMBA_CACHE_DIR is set as well as RNNCC_CACHE, so that the runtime's own machine code is cold, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.harness import ROOT, BenchError, Effort
from bench.result import Bar, Result

# Prints seconds from before `import rnncc`, and how many functions Numba compiled after `mark`.
SCRIPT = """
import json, sys, time
start = time.perf_counter()
import numpy as np
import rnncc
from numba.core import event
cell, training, sizes = json.loads(sys.argv[1])
compiled = event.RecordingListener()
event.register("numba:compile", compiled)
counts, marks = [], []
layer_class = rnncc.compile(cell)
for batch, time_, features, units in sizes:
    layer = layer_class(units=units, return_sequences=True)
    x = np.zeros((batch, time_, features), "float32")
    if training:
        y, pullback = layer.vjp(x)
        pullback(np.ones_like(y))
    else:
        layer(x)
    marks.append(time.perf_counter() - start)
    counts.append(sum(e.is_start for _, e in compiled.buffer))
print(json.dumps({"seconds": marks, "compiled": counts}))
"""
SIZES = [(64, 28, 28, 64)]
OTHERS = [(1, 5, 3, 17), (33, 2, 7, 130), (5, 50, 1, 1), (8, 3, 300, 3)]


def compile_suite(effort: Effort) -> Result:
    """Three times each where the effort is full, since a first run also fills the disk's cache."""
    tries = 1 if effort.rounds < 10 else 3
    runs = [_once() for _ in range(tries)]
    best = {key: sorted(r[key] for r in runs)[len(runs) // 2] for key in runs[0]}
    rows = [
        ("LSTM forward + backward, cold, with the cores", "cold", 6.0, "s"),
        ("LSTM forward + backward, once another cell has compiled the cores", "second", 3.0, "s"),
        ("LSTM in a second process: import to first output", "warm", 1.0, "s"),
        ("functions compiled for four other sizes", "others", 0.0, "functions"),
    ]
    bars = [Bar(what, best[key], limit, unit) for what, key, limit, unit in rows]
    return Result("compile", bars=bars, notes=[f"medians of {tries}, from before the imports"])


def _once() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        cold = _run(Path(folder, "a"), "lstm", True, SIZES)
        warm = _run(Path(folder, "a"), "lstm", False, SIZES)
        others = _run(Path(folder, "a"), "lstm", True, [*SIZES, *OTHERS])
        _run(Path(folder, "b"), "gru", True, SIZES)
        second = _run(Path(folder, "b"), "lstm", True, SIZES)
    return {
        "cold": cold["seconds"][0],
        "second": second["seconds"][0],
        "warm": warm["seconds"][0],
        "others": float(others["compiled"][-1] - others["compiled"][0]),
    }


def _run(store: Path, cell: str, training: bool, sizes: list[Any]) -> dict[str, Any]:
    environment = {
        **os.environ,
        "RNNCC_CACHE": str(store / "rnncc"),
        "NUMBA_CACHE_DIR": str(store / "numba"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([cell, training, sizes])],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"compiling {cell}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
