"""Contenders' processes, bursts in turns, medians.

Non-Goals: what is compared with what (`suites`).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bench.case import Case, draw
from bench.reference import expected, worst_error

ROOT = Path(__file__).parent.parent
TOLERANCE = 1e-4  # float32, gradients summed over thousands of rows included
PAUSE = 0.03  # pools spin on for a while after their last call


@dataclass(frozen=True, slots=True)
class Effort:
    """rounds: times every contender has its turn; a turn is `seconds`, and `calls` at least."""

    rounds: int = 15
    seconds: float = 0.15
    calls: int = 3


QUICK = Effort(rounds=5, seconds=0.05, calls=2)


@dataclass(slots=True)
class Timing:
    """One contender's times of one case, in seconds."""

    contender: str
    path: str
    error: float
    times: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def spread(self) -> tuple[float, float]:
        """The first and the last tenth."""
        low, high = np.percentile(self.times, [10, 90])
        return float(low), float(high)

    def as_json(self) -> dict[str, Any]:
        low, high = self.spread
        return {
            "contender": self.contender,
            "path": self.path,
            "error": self.error,
            "median_ms": self.median * 1e3,
            "p10_ms": low * 1e3,
            "p90_ms": high * 1e3,
            "calls": len(self.times),
        }


class BenchError(Exception):
    """A contender failed, or its outputs are wrong."""


class Process:
    """A worker: `process.ask("burst", seconds=0.2, calls=3)`."""

    def __init__(self, contender: str) -> None:
        self.contender = contender
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", contender],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, what: str, **arguments: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": what, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(f"{self.contender}: its process ended ({self._process.wait()})")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            print(reply.get("trace", ""), file=sys.stderr)
            raise BenchError(f"{self.contender}: {reply['error']}")
        return reply

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


def unavailable(contender: str) -> str:
    """Why a contender can't run here, or nothing."""
    with Process(contender) as process:
        reason: str = process.ask("hello")["unavailable"]
        return reason


def compare(entries: Iterable[tuple[str, Case]], effort: Effort) -> list[Timing]:
    """The contenders, each at its case, checked and then timed in turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running: list[tuple[Process, Timing]] = []
        for number, (contender, case) in enumerate(entries):
            process = stack.enter_context(Process(contender))
            outputs = folder / f"{number}.npz"
            reply = process.ask("prepare", case=case.as_json(), outputs=str(outputs))
            with np.load(outputs) as found:
                error = worst_error(dict(found), expected(case, draw(case)))
            if not error <= TOLERANCE:
                raise BenchError(f"{contender}: {case.label} is wrong: error {error:.2g}")
            running.append((process, Timing(contender, reply["path"], error)))
        for round_ in range(effort.rounds):
            first = round_ % len(running)
            for process, timing in running[first:] + running[:first]:
                time.sleep(PAUSE)
                reply = process.ask("burst", seconds=effort.seconds, calls=effort.calls)
                timing.times += reply["times"]
        return [timing for _, timing in running]
