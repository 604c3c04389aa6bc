"""Cells as people write them for jax.lax.scan: a training step with rnncc.jax.scan in its place.

value_and_grad under jit, the parameters as arguments, at (64, 28, 28, 64). A process for each cell
and scan; bursts of steps in turns, outputs and gradients compared first.

Non-Goals: cells (`tests.support.in_jax.cells`).
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

from bench.harness import ROOT, BenchError, Effort, Timing
from bench.result import Bar, Result

CELLS = (
    "ltc", "cfc", "lif", "lmu", "min_gru", "mlstm", "mogrifier", "layer_norm_lstm", "attention",
    "gru_d",
)  # fmt: skip
QUICK = ("cfc", "min_gru")
SCRIPT = """
import json, os, sys, time
name, which = sys.argv[1:3]
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import jax, jax.numpy as jnp, numpy as np
import rnncc.jax
from tests.support.in_jax.cells import CELLS, Sizes

problem = CELLS[name](Sizes(64, 28, 28, 64))
single = lambda a: jnp.asarray(a, "float32" if np.asarray(a).dtype.kind == "f" else None)
params, carry, xs = jax.tree.map(single, (problem.params, problem.carry, problem.xs))

def made(scan):
    def loss(params, carry, xs):
        carry, ys = scan(problem.step(params), carry, xs)
        return sum((leaf ** 2).mean() for leaf in jax.tree.leaves((carry, ys)))
    return jax.jit(jax.value_and_grad(loss))

step = made({"ours": rnncc.jax.scan, "jax": jax.lax.scan}[which])
theirs = made(jax.lax.scan)
error = 0.0
if which == "ours":
    found, expected = (jax.tree.leaves(s(params, carry, xs)) for s in (step, theirs))
    apart = (float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in zip(found, expected))
    error = max(apart)
for _ in range(3):
    jax.block_until_ready(step(params, carry, xs))
print(json.dumps({"path": "jax " + jax.__version__, "error": error}), file=answers, flush=True)
for line in sys.stdin:
    times, end = [], time.perf_counter() + float(line)
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        jax.block_until_ready(step(params, carry, xs))
        times.append(time.perf_counter() - begin)
    print(json.dumps(times), file=answers, flush=True)
"""


class _Steps:
    """A process that runs steps of one cell by one scan."""

    def __init__(self, cell: str, which: str) -> None:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.what = f"{cell}, {which}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, cell, which],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self.what}: its process ended ({self._process.wait()})")
        return json.loads(line)

    def go(self, seconds: float) -> list[float]:
        """Seconds of each step."""
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        return [float(t) for t in self.answer()]

    def __enter__(self) -> _Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def bring_jax_suite(effort: Effort) -> Result:
    """Medians over bursts, and their geometric mean."""
    result = Result("bring_jax", notes=["value_and_grad under jit, 64 rows, 28 steps, 28 -> 64"])
    what = "a cell of jax.lax.scan, training: times faster than jax"
    if importlib.util.find_spec("jax") is None:
        result.bars.append(Bar(what, None, 2.0, least=True, why="no jax"))
        return result
    ratios = []
    for cell in QUICK if effort.quick else CELLS:
        ours, theirs = _timings(cell, effort)
        result.timings[f"{cell}, training"] = [ours, theirs]
        ratios.append(theirs.median / ours.median)
        result.bars.append(Bar(f"{cell}: times faster than jax", ratios[-1], 1.0, least=True))
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    result.bars.append(Bar(f"{what}, in the mean", mean, 2.0, least=True))
    return result


def _timings(cell: str, effort: Effort) -> tuple[Timing, Timing]:
    rounds = 3 if effort.rounds < 10 else 7
    with ExitStack() as stack:
        steps = [stack.enter_context(_Steps(cell, which)) for which in ("ours", "jax")]
        found = []
        for process, which in zip(steps, ("rnncc", "jax"), strict=True):
            told = process.answer()
            if not told["error"] <= 1e-3:
                raise BenchError(f"{process.what} is wrong: error {told['error']:.2g}")
            found.append(Timing(which, told["path"], told["error"]))
        for _ in range(rounds):
            for process, timing in zip(steps, found, strict=True):
                timing.times += process.go(effort.seconds)
    return found[0], found[1]
