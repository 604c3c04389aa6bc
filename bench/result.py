"""What a suite finds: races or timings, fits, and bars they are held against; and as JSON.

Non-Goals: tables (`tables`), plots (`plot`), markdown (`markdown`).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.harness import Timing
from bench.race import Raced
from rnncc.runtime.profiles.roofline import Roofline

PACKAGES = (
    *("numpy", "numba", "llvmlite", "torch", "jax", "onnx", "onnxruntime", "openvino"),
    *("keras", "tensorflow", "tensorflow-cpu"),
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A demand and what was measured. least: the value has to reach the limit, not stay below."""

    what: str
    value: float | None  # None: skipped
    limit: float
    unit: str = "x"
    least: bool = False
    why: str = ""

    @property
    def passed(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.limit if self.least else self.value <= self.limit

    @property
    def demand(self) -> str:
        return f"{'>=' if self.least else '<='} {self.limit:g} {self.unit}"

    @property
    def measured(self) -> str:
        return self.why if self.value is None else f"{self.value:.3g} {self.unit}"

    @property
    def verdict(self) -> str:
        return {True: "pass", False: "MISS", None: "skipped"}[self.passed]

    def as_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "value": self.value,
            "bar": self.demand,
            "passed": self.passed,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Fit:
    """seconds = start + each * n, fitted to what was measured over n so that ratios are closest.

    name: what grows; contender: whose times.
    """

    name: str
    contender: str
    n: tuple[int, ...]
    seconds: tuple[float, ...]
    linear: bool = True

    @property
    def line(self) -> tuple[float, float]:
        """(start, each)."""
        n, seconds = np.array(self.n, float), np.array(self.seconds)
        each, start = np.polyfit(n, seconds, 1, w=1 / seconds)
        return float(start), float(each)

    @property
    def worst(self) -> float:
        """The largest distance of a measured time from the line, as a part of it."""
        start, each = self.line
        there = start + each * np.array(self.n, float)
        return float(np.abs(np.array(self.seconds) / there - 1).max())

    def as_json(self) -> dict[str, Any]:
        start, each = self.line
        return {
            "name": self.name,
            "contender": self.contender,
            "n": list(self.n),
            "ms": [s * 1e3 for s in self.seconds],
            "start_ms": start * 1e3,
            "each_ms": each * 1e3,
            "worst": self.worst,
        }


@dataclass(slots=True)
class Result:
    """timings: by what was timed. unit: of tables and plots, and how many seconds it is.

    failures: what rnncc couldn't run, or got wrong.
    """

    suite: str
    timings: dict[str, list[Timing]] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    races: list[Raced] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)
    roofline: Roofline | None = None
    unit: tuple[str, float] = ("ms", 1e-3)
    failures: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, list[Timing], Raced | None]]:
        """Everything timed: what, whose, and the race it was."""
        for raced in self.races:
            yield raced.race.case.label, raced.timings, raced
        for label, timings in self.timings.items():
            yield label, timings, None

    def as_json(self) -> dict[str, Any]:
        return {
            "suite": self.suite,
            "machine": machine(),
            "roofline": self.roofline.as_json() if self.roofline else None,
            "races": [r.as_json() for r in self.races],
            "timings": {k: [t.as_json() for t in ts] for k, ts in self.timings.items()},
            "fits": [f.as_json() for f in self.fits],
            "bars": [b.as_json() for b in self.bars],
            "notes": self.notes,
            "failures": self.failures,
        }

    def show(self, console: Console) -> None:
        from bench.tables import show

        show(self, console)


def best_of_others(timings: list[Timing]) -> Timing | None:
    """The quickest but the first, among those to be beaten."""
    return min((t for t in timings[1:] if t.peer), key=lambda t: t.median, default=None)


def machine() -> dict[str, Any]:
    """What the numbers were measured on, without a host's name."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": model,
        "cores": cores,
        "load": load(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def load() -> float | None:
    """Processes that wanted a core in the last minute, on average; None where nobody counts."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
