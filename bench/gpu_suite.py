"""One GPU: is every cell right in every tier, what does a barrier cost, how fast are loops?

    python -m bench gpu --check

Right first: every built-in cell in every tier against the float64 interpreter, values and all
gradients. Then LSTM and GRU against torch (cuDNN) by CUDA events, most wanted sizes first, until
the time is up: the command ends within MINUTES. Without a GPU it says so, and nothing is timed.

Non-Goals: several GPUs; other libraries than torch. This has never run on a GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.harness import Effort, Timing
from bench.result import Bar, Result
from rnncc.cli.check import Probe
from rnncc.cli.probe import probe_sizes
from rnncc.cli.settings import builtin_cells, load
from rnncc.runtime.cuda.chosen import using
from rnncc.runtime.cuda.kernel import kernel
from rnncc.runtime.cuda.names import level_barrier
from rnncc.runtime.cuda.target import HostArrays, Target
from rnncc.schedule.tiers import TIERS

MINUTES = 7.5
CHECKED_UNTIL = 4.0  # minutes that checking may take before cells are left out, and said to be
ERROR = 1e-4  # values and gradients, float32, tiers forced where they don't pay
BATCHES = (8, 1, 16, 32, 64, 128)
UNITS = (256, 1024, 64, 512, 128, 768, 1536)
TIMES = (128, 1024)
BARRIERS = 2000
FMA_LANES = 128  # float32 multiply-adds of a multiprocessor a cycle


def gpu_suite(effort: Effort) -> Result:
    result, began = Result("gpu"), time.monotonic()
    try:
        from rnncc.runtime.cuda.device import device

        target = device()
    except RuntimeError as error:
        why = "no GPU"
        result.notes.append(f"nothing has run and nothing has been timed: {error}")
        result.bars.append(Bar("every cell in every tier against float64", None, ERROR, why=why))
        result.bars.append(Bar("LSTM and GRU against cuDNN float32", None, 1.0, why=why))
        return result
    clock = target.attribute("CLOCK_RATE") * 1e3
    peak = 2 * FMA_LANES * target.gpu.multiprocessors * clock
    result.notes.append(
        f"{target.name}, compute capability {target.capability}, "
        f"{target.gpu.multiprocessors} multiprocessors, {peak / 1e12:.1f} float32 TFLOP/s at best"
    )
    worst, left_out = checked(target, began + 60 * CHECKED_UNTIL, [*builtin_cells()])
    result.bars += worst
    if left_out:
        result.notes.append(f"not checked, for want of time: {', '.join(left_out)}")
    for blocks in (16, 128, target.gpu.resident):
        seconds = barrier_seconds(target, min(blocks, target.gpu.resident))
        result.notes.append(f"a barrier of {blocks} blocks: {seconds * 1e6:.2f} us")
    compare(result, began + 60 * MINUTES, effort, peak)
    return result


# ---- right? ----------------------------------------------------------------------------------


def checked(target: Target, until: float, cells: list[str]) -> tuple[list[Bar], list[str]]:
    """The largest error of each tier, and cells that weren't reached."""
    worst = dict.fromkeys(TIERS, 0.0)
    whose = dict.fromkeys(TIERS, "")
    left = list(cells)
    while left and time.monotonic() < until:
        name = left.pop(0)
        for tier, error in errors(target, name):
            if not error <= worst[tier]:
                worst[tier], whose[tier] = error, name
    bars = [
        Bar(f"tier {tier} against float64, worst cell {whose[tier]}", worst[tier], ERROR, "")
        for tier in TIERS
        if whose[tier]
    ]
    return bars, left


def errors(target: Target, name: str) -> Iterator[tuple[str, float]]:
    """The cell's largest error in each tier it can have."""
    settings = load(name, [])
    sizes = probe_sizes(settings)
    with using(target):
        for tier in TIERS:
            probe = Probe(settings, sizes, "float32", target="cuda")
            engine: Any = probe.layer._engine(False, False)[1]
            engine.use_tier(tier)
            try:
                found = [*probe.values(), *probe.gradients()]
            except ValueError as error:
                if "no tier" not in str(error):
                    raise
                continue
            finally:
                engine.use_tier(None)
            yield tier, max(f.error for f in found)


# ---- barriers --------------------------------------------------------------------------------


@kernel
def barriers(step_lo, step_hi, level_lo, level_hi, counter, waiting):
    for generation in range(step_lo + 1, step_hi + 1):
        level_barrier(counter, waiting, generation)


def barrier_seconds(target: Target, blocks: int) -> float:
    """Of one barrier among so many blocks."""
    carrier = HostArrays(target)
    counter, times = carrier.empty(256), []
    for _ in range(4):
        target.clear(counter, 256)
        target.download(counter.address, np.zeros(1, np.int64))  # everything before is done
        words = np.array([0, BARRIERS, 0, 1, counter.address, blocks], np.int64)
        began = time.perf_counter()
        target.launch(barriers, "float32", blocks, 256, words, cooperative=True)
        target.download(counter.address, np.zeros(1, np.int64))
        times.append(time.perf_counter() - began)
    return min(times) / BARRIERS


# ---- fast? -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    cell: str
    batch: int
    time: int
    units: int
    training: bool

    @property
    def label(self) -> str:
        mode = "training" if self.training else "forward"
        return f"{self.cell} {mode} ({self.batch}, {self.time}, {self.units})"

    @property
    def limit(self) -> float:
        """How much longer than cuDNN it may take."""
        return 1.0 if self.batch <= 16 and self.units <= 1024 else 1.3

    @property
    def work(self) -> float:
        """Floating point operations, features as many as units."""
        gates = {"LSTM": 4, "GRU": 3}[self.cell]
        once = 2 * 2 * gates * self.units**2 * self.batch * self.time
        return once * (3 if self.training else 1)


def cases() -> Iterator[Case]:
    """The most wanted first."""
    for steps in TIMES:
        for batch in BATCHES:
            for units in UNITS:
                for cell in ("LSTM", "GRU"):
                    for training in (False, True):
                        yield Case(cell, batch, steps, units, training)


def compare(result: Result, until: float, effort: Effort, peak: float) -> None:
    """Ours against torch's, in turns, until the time is up."""
    try:
        import torch
    except ImportError:
        result.notes.append("torch isn't installed: nothing was timed")
        return
    if not torch.cuda.is_available():
        result.notes.append("this torch has no CUDA: nothing was timed")
        return
    left = 0
    for case in cases():
        if time.monotonic() > until:
            left += 1
            continue
        try:
            timings, ratio = timed(case, effort)
        except (RuntimeError, MemoryError) as error:
            result.notes.append(f"{case.label}: {error}")
            continue
        fraction = case.work / timings[0].median / peak
        timings[0].path += f", {fraction:.0%} of the arithmetic peak"
        result.timings[case.label] = timings
        result.bars.append(Bar(f"{case.label} against cuDNN float32", ratio, case.limit))
    if left:
        result.notes.append(f"{left} sizes were left out when the time was up")


def timed(case: Case, effort: Effort) -> tuple[list[Timing], float]:
    """Ours, and cuDNN in float32, tf32 and bfloat16; ours by cuDNN's float32."""
    import torch

    import rnncc.torch as ours

    torch.manual_seed(0)
    theirs = getattr(torch.nn, case.cell)(case.units, case.units).cuda()
    mine = getattr(ours, case.cell)(case.units, case.units).cuda()
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(case.time, case.batch, case.units, device="cuda")
    half = getattr(torch.nn, case.cell)(case.units, case.units).cuda().bfloat16()
    runs: dict[str, tuple[Any, Any, bool]] = {
        "rnncc": (mine, x, False),
        "torch float32": (theirs, x, False),
        "torch tf32": (theirs, x, True),
        "torch bfloat16": (half, x.bfloat16(), False),
    }
    wanted = call(*runs["torch float32"], case)()
    error = float((call(*runs["rnncc"], case)() - wanted).abs().max() / wanted.abs().max())
    timings = [Timing(name, "CUDA events", error if name == "rnncc" else 0.0) for name in runs]
    calls = [call(*run, case) for run in runs.values()]
    for each in calls:
        each()
    for _ in range(min(effort.rounds, 7)):
        for timing, each in zip(timings, calls, strict=True):
            timing.times.append(seconds_of(each))
    return timings, timings[0].median / timings[1].median


def call(module: Any, x: Any, tf32: bool, case: Case) -> Callable[[], Any]:
    import torch

    def forward() -> Any:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        with torch.no_grad():
            return module(x)[0]

    def training() -> Any:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        module.zero_grad(set_to_none=True)
        given = x.clone().requires_grad_()
        y = module(given)[0]
        y.sum().backward()
        return y.detach()

    return training if case.training else forward


def seconds_of(run: Callable[[], Any]) -> float:
    """The median of three calls between two events."""
    import torch

    found = []
    for _ in range(3):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        run()
        last.record()
        last.synchronize()
        found.append(first.elapsed_time(last) * 1e-3)
    return statistics.median(found)
