"""Cells as people write them in torch: a training step of Recurrent(cell) and of torch's own loop.

Forward, mean square of all outputs, backward, at (64, 28, 28, 64), in one process, whose threads
both run on; bursts of steps in turns, outputs and gradients compared first.

Non-Goals: cells (`tests.support.torch_cells`).
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable
from typing import Any

from bench.harness import BenchError, Effort, Timing
from bench.result import Bar, Result

SHAPE = (64, 28, 28, 64)  # batch, steps, features, units
QUICK = ("cfc", "mingru")


def bring_torch_suite(effort: Effort) -> Result:
    """Medians over bursts, and their geometric mean."""
    result = Result("bring_torch", notes=["forward and backward, 64 rows, 28 steps, 28 -> 64"])
    if importlib.util.find_spec("torch") is None:
        what = "cells written in torch, training: times faster than a loop"
        result.bars.append(Bar(what, None, 5.0, least=True, why="no torch"))
        return result
    from tests.support.torch_cells import CELLS

    ratios = []
    for name in QUICK if effort.quick else CELLS:
        ours, theirs = _timings(name, effort)
        result.timings[f"{name}, training"] = [ours, theirs]
        ratios.append(theirs.median / ours.median)
        least = 2.0 if CELLS[name].matrix else 5.0
        result.bars.append(Bar(f"{name}: times faster than a loop", ratios[-1], least, least=True))
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    what = "cells written in torch, training: times faster than a loop, in the mean"
    result.bars.append(Bar(what, mean, 5.0, least=True))
    return result


def _steps(name: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Training steps, ours and the loop's: each gives all it has computed."""
    import torch
    from torch.utils import _pytree as pytree

    from rnncc.torch import Recurrent
    from tests.support.torch_cells import CELLS

    batch, steps, features, units = SHAPE
    torch.manual_seed(0)
    own = CELLS[name]
    cell = own.make(features, units).eval()
    layer = Recurrent(cell, return_sequences=True, **own.keywords(features, units)).eval()
    inputs = own.inputs(batch, steps, features, torch.float32)
    parameters = [*cell.parameters()]

    def loop() -> Any:
        state, ys = own.zeros(batch, units, features, torch.float32), []
        for t in range(steps):
            x, *more = own.step(inputs, t)
            returned = cell(x, state, *more)
            y, state = (None, returned) if own.state_alone else returned
            ys.append(pytree.tree_leaves(state)[0] if y is None else y)
        return torch.stack(ys, 1)

    def step(run: Callable[[], Any]) -> Any:
        y = run()
        return [y, *torch.autograd.grad(y.square().mean(), parameters, allow_unused=True)]

    return lambda: step(lambda: layer(inputs)), lambda: step(loop)


def _timings(name: str, effort: Effort) -> tuple[Timing, Timing]:
    steps = _steps(name)
    error = _apart(*(step() for step in steps))
    if not error <= 1e-3:
        raise BenchError(f"{name} is wrong: error {error:.2g}")
    found = Timing("rnncc", "Recurrent(cell)", error), Timing("torch", "a loop", 0.0)
    for step in steps:
        step()
    for _ in range(3 if effort.rounds < 10 else 7):
        for step, timing in zip(steps, found, strict=True):
            timing.times += _burst(step, effort.seconds)
    return found


def _burst(step: Callable[[], Any], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return times


def _apart(ours: Any, theirs: Any) -> float:
    """Of all arrays, as a part of each one's largest; zeros as a part of the largest of all."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b is not None]
    least = 1e-6 * max(float(b.abs().max()) for _, b in pairs)
    return max(float((a - b).abs().max()) / max(float(b.abs().max()), least) for a, b in pairs)
