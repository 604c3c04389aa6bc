"""Contenders' processes, bursts in turns, medians.

A contender's process serves all cases of a suite, so that a library is loaded once. One that is
far behind gets fewer turns than the others: its median needs no third digit.

Non-Goals: what is compared with what (`suites`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bench.case import Case, draw
from bench.reference import expected, worst_error

ROOT = Path(__file__).parent.parent
TOLERANCE = 1e-4  # float32, gradients summed over thousands of rows included
STORED_TOLERANCE = 5e-2  # weights kept in fewer bits; the error is in the table
PAUSE = 0.05  # pools spin on for a while after their last call: onnxruntime for about so long
BEHIND = 4.0  # times the quickest one's median: no more turns after ENOUGH rounds
ENOUGH = 3
SLOW = 0.02  # seconds a call from which on a turn is one call, and there are fewer of them


@dataclass(frozen=True, slots=True)
class Effort:
    """rounds: times every contender has its turn; a turn is `seconds`, and `calls` at least.

    What else a run was asked for: quick: a smoke test's cases only. only: these contenders, or
    all. spec: a user's cell. cap: seconds a shape may take where a suite has one. report: told
    what runs. partial: given what a long suite has found so far.
    """

    rounds: int = 15
    seconds: float = 0.15
    calls: int = 3
    quick: bool = False
    only: tuple[str, ...] = ()
    spec: str | None = None
    cap: float = 5.0
    report: Callable[[str], object] = len
    partial: Callable[[Any], object] = id

    def shaped(self, call: float) -> Effort:
        """What is enough for calls of so many seconds."""
        if call < SLOW:
            return self
        return replace(self, rounds=min(self.rounds, 7), calls=1)


QUICK = Effort(rounds=5, seconds=0.05, calls=2, quick=True)


@dataclass(slots=True)
class Timing:
    """One contender's times of one case, in seconds. memory: its process's peak, in bytes.

    peer: whether it is one of those to be beaten.
    """

    contender: str
    path: str
    error: float
    times: list[float] = field(default_factory=list)
    memory: int | None = None
    peer: bool = True

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
            "peak_mib": None if self.memory is None else self.memory / 2**20,
            "peer": self.peer,
        }


class BenchError(Exception):
    """A contender failed, its outputs are wrong, or what was asked for can't be measured.

    details: what a process had to say, of many lines.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class Process:
    """A worker: `process.ask("burst", seconds=0.2, calls=3)`. threads: how many it may use."""

    def __init__(self, contender: str, threads: int | None = None) -> None:
        self.contender = contender
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (what libraries have to say)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", contender],
            cwd=ROOT,
            env=_environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
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
            code = self._process.wait()
            self._log.seek(0)
            last = "\n".join(self._log.read().splitlines()[-20:])
            raise BenchError(f"{self.contender}: its process ended ({code})", last)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            message = f"{self.contender}: {reply['error']}"
            raise BenchError(message, reply.get("trace", ""))
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
        self._log.close()


def _environment(threads: int | None) -> dict[str, str]:
    names = ("RNNCC_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    limits = dict.fromkeys(names, str(threads)) if threads else {}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KINETO_LOG_LEVEL": "99", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **quiet, "JAX_PLATFORMS": "cpu", **limits}


class Crew:
    """Processes by contender, started when they are first asked for, ended together."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._processes: dict[tuple[str, int, int | None], Process] = {}
        self._reasons: dict[str, str] = {}

    def process(self, contender: str, number: int = 0, threads: int | None = None) -> Process:
        """number: of several that take part in one comparison."""
        key = (contender, number, threads)
        if key not in self._processes:
            self._processes[key] = self._stack.enter_context(Process(contender, threads))
        return self._processes[key]

    def dismiss(self, contender: str, number: int = 0, threads: int | None = None) -> None:
        """Its next process is a new one."""
        self._processes.pop((contender, number, threads), None)

    def unavailable(self, contender: str) -> str:
        """Why a contender can't run here, or nothing."""
        if contender not in self._reasons:
            self._reasons[contender] = self.process(contender).ask("hello")["unavailable"]
        return self._reasons[contender]

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: Any) -> None:
        self._processes.clear()
        self._stack.close()


def compare(
    entries: Iterable[tuple[str, Case]],
    effort: Effort,
    crew: Crew | None = None,
    dropped: dict[str, str] | None = None,
) -> list[Timing]:
    """The contenders, each at its case, checked and then timed in turns.

    dropped: takes the names of those who fail or are wrong, and why; without it that is an error.
    rnncc itself may never fail.
    """
    entries = list(entries)
    with ExitStack() as stack:
        own = crew or stack.enter_context(Crew())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running: list[tuple[Process, Timing]] = []
        right: dict[tuple[Case, bool], dict[str, np.ndarray]] = {}
        for place, (contender, case) in enumerate(entries):
            number = sum(c == contender for c, _ in entries[:place])
            process = own.process(contender, number, case.threads)
            try:
                timing = _checked(process, case, folder / f"{place}.npz", right)
            except BenchError as error:
                if dropped is None or contender == "rnncc":
                    raise
                dropped[contender] = str(error)
                own.dismiss(contender, number, case.threads)
                continue
            running.append((process, timing))
        _take_turns(running, effort)
        return [timing for _, timing in running]


def _checked(
    process: Process, case: Case, outputs: Path, right: dict[tuple[Case, bool], Any]
) -> Timing:
    """Prepared for the case, its outputs held against the interpreter's."""
    reply = process.ask("prepare", case=case.as_json(), outputs=str(outputs))
    key = (replace(case, threads=None), reply["undropped"])
    if key not in right:
        right[key] = expected(case, draw(case), undropped=reply["undropped"])
    with np.load(outputs) as found:
        error = worst_error(dict(found), right[key])
    limit = STORED_TOLERANCE if case.option("weights") else TOLERANCE
    if not error <= limit:
        raise BenchError(f"{process.contender}: {case.label} is wrong: error {error:.2g}")
    return Timing(process.contender, reply["path"], error)


def _take_turns(running: list[tuple[Process, Timing]], effort: Effort) -> None:
    for round_ in range(effort.rounds if running else 0):
        first = round_ % len(running)
        best = min(t.median for _, t in running) if round_ >= ENOUGH else float("inf")
        for process, timing in running[first:] + running[:first]:
            if timing.times and timing.median > BEHIND * best:
                continue
            time.sleep(PAUSE)
            reply = process.ask("burst", seconds=effort.seconds, calls=effort.calls)
            timing.times += reply["times"]
            timing.memory = reply["memory"]


def unavailable(contender: str) -> str:
    """Why a contender can't run here, or nothing."""
    with Crew() as crew:
        return crew.unavailable(contender)
