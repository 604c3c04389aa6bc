"""What a suite finds: timings, and bars they are held against; as tables and as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.harness import Timing

PACKAGES = ("numpy", "numba", "llvmlite", "torch", "onnx", "onnxruntime")


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

    def as_json(self) -> dict[str, Any]:
        sign = ">=" if self.least else "<="
        return {
            "what": self.what,
            "value": self.value,
            "bar": f"{sign} {self.limit:g} {self.unit}",
            "passed": self.passed,
            "why": self.why,
        }


@dataclass(slots=True)
class Result:
    """timings: by what was timed."""

    suite: str
    timings: dict[str, list[Timing]] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "suite": self.suite,
            "machine": machine(),
            "timings": {k: [t.as_json() for t in ts] for k, ts in self.timings.items()},
            "bars": [b.as_json() for b in self.bars],
            "notes": self.notes,
        }

    def show(self, console: Console) -> None:
        if self.timings:
            console.print(self._timings())
        console.print(self._bars())
        for note in self.notes:
            console.print(note, markup=False)

    def _timings(self) -> Table:
        table = Table(title=f"{self.suite}: milliseconds, in turns", title_justify="left")
        for heading in ("what", "contender", "path"):
            table.add_column(heading)
        for heading in ("median", "p10-p90", "ratio", "error"):
            table.add_column(heading, justify="right", no_wrap=True)
        for label, timings in self.timings.items():
            first = timings[0].median
            for timing in timings:
                low, high = timing.spread
                table.add_row(
                    label,
                    timing.contender,
                    timing.path,
                    f"{timing.median * 1e3:.3f}",
                    f"{low * 1e3:.3f}-{high * 1e3:.3f}",
                    f"{timing.median / first:.2f}",
                    f"{timing.error:.1e}",
                )
            table.add_section()
        return table

    def _bars(self) -> Table:
        table = Table(title=f"{self.suite}: bars", title_justify="left")
        table.add_column("what")
        for heading in ("measured", "bar", ""):
            table.add_column(heading, justify="right", no_wrap=True)
        words = {True: "[green]pass[/]", False: "[red]MISS[/]", None: "skipped"}
        for bar in self.bars:
            measured = bar.why if bar.value is None else f"{bar.value:.2f} {bar.unit}"
            table.add_row(bar.what, measured, bar.as_json()["bar"], words[bar.passed])
        return table


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
