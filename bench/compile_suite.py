"""How long compiling takes: every figure from a new process, with caches that only it has filled.

All machine code is in RNNCC_CACHE, the runtime's own too: what a run compiled is what it left.
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

# Prints seconds from before `import rnncc` to the end of each size's call.
SCRIPT = """
import json, sys, time
start = time.perf_counter()
import numpy as np
import rnncc
cell, training, sizes = json.loads(sys.argv[1])
marks = []
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
print(json.dumps(marks))
"""
SIZES = [(64, 28, 28, 64)]
OTHERS = [(1, 5, 3, 17), (33, 2, 7, 130), (5, 50, 1, 1), (8, 3, 300, 3)]


def compile_suite(effort: Effort) -> Result:
    """Three times each where the effort is full, since a first run also fills the disk's cache."""
    tries = 1 if effort.rounds < 10 else 3
    runs = [_once() for _ in range(tries)]
    best = {key: sorted(r[key] for r in runs)[len(runs) // 2] for key in runs[0]}
    rows = [
        ("LSTM forward, cold, with the cores", "forward", 4.0, "s"),
        ("LSTM forward + backward, cold, with the cores", "cold", 6.0, "s"),
        ("LSTM forward + backward, once another cell has compiled the cores", "second", 3.0, "s"),
        ("LSTM in a second process: import to first output", "warm", 0.5, "s"),
        ("functions compiled for four other sizes", "others", 0.0, "functions"),
    ]
    bars = [Bar(what, best[key], limit, unit) for what, key, limit, unit in rows]
    notes = [
        f"medians of {tries}, from before the imports",
        f"machine code of LSTM forward + backward: {best['own'] / 1024:.0f} KiB, "
        f"the cores and the runtime with it {best['all'] / 1024:.0f} KiB",
    ]
    return Result("compile", bars=bars, notes=notes)


def _once() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        forward = _run(Path(folder, "f"), "lstm", False, SIZES)
        cold = _run(Path(folder, "a"), "lstm", True, SIZES)
        warm = _run(Path(folder, "a"), "lstm", False, SIZES)
        before = _objects(Path(folder, "a"))
        _run(Path(folder, "a"), "lstm", True, OTHERS)
        after = _objects(Path(folder, "a"))
        _run(Path(folder, "b"), "gru", True, SIZES)
        shared = _bytes(Path(folder, "b"))
        second = _run(Path(folder, "b"), "lstm", True, SIZES)
        own = _bytes(Path(folder, "b")) - shared
        whole = _bytes(Path(folder, "a"))
    seconds = {"forward": forward, "cold": cold, "second": second, "warm": warm}
    return seconds | {"others": float(after - before), "own": float(own), "all": float(whole)}


def _objects(store: Path) -> int:
    return sum(1 for _ in store.glob("*.o"))


def _bytes(store: Path) -> int:
    return sum(path.stat().st_size for path in store.glob("*.o"))


def _run(store: Path, cell: str, training: bool, sizes: list[Any]) -> float:
    """Seconds to the end of the first size's call."""
    environment = {
        **os.environ,
        "RNNCC_CACHE": str(store),
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
    return float(json.loads(done.stdout)[0])
