"""One run of `bench gpu`: its clock, what it has found, and whoever it asks.

Non-Goals: what is asked (`ready`, `suite`).
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from bench.gpu.cases import Case
from bench.gpu.worker import Lost, Task, Worker
from bench.harness import Effort
from bench.result import Result

MINUTES = 7.5
TRACES = 6  # failures that are printed with all that is known of them


@dataclass
class Session:
    """One run: what was found, and who is asked."""

    effort: Effort
    result: Result = field(default_factory=lambda: Result("gpu"))
    began: float = field(default_factory=time.monotonic)
    worker: Callable[[], Any] = Worker
    cells: tuple[str, ...] = ()
    peak: float = math.nan
    lock: Any = field(default_factory=Lock)
    traces: int = 0
    per_work: dict[tuple[Any, ...], float] = field(default_factory=dict)

    def left(self, minutes: float = MINUTES) -> float:
        """Seconds until so many minutes have passed."""
        return self.began + 60 * minutes - time.monotonic()

    def say(self, what: str, *, note: bool = False) -> None:
        with self.lock:
            self.effort.report(f"{time.monotonic() - self.began:5.0f} s  {what}")
            if note:
                self.result.notes.append(what)

    def fail(self, what: str) -> None:
        self.say(f"FAILED {what}")
        with self.lock:
            self.result.failures.append(what)

    @contextmanager
    def apart(self, what: str) -> Iterator[None]:
        """What goes wrong in here costs nothing but what is in here."""
        try:
            yield
        except Exception as error:
            self.fail(f"{what}: {''.join(traceback.format_exception(error))[-600:]}")

    def ask(self, worker: Any, task: Task, seconds: float) -> dict[str, Any] | None:
        """The answer, or None where there is none: it is said why."""
        what = " ".join(str(v) for k, v in task.items() if k != "case")
        if "case" in task:
            what += f" {Case(**task['case']).label}"
        try:
            found: dict[str, Any] = worker.ask(task, seconds)
        except Lost as lost:
            self.fail(f"{what}: {lost}")
            return None
        if "broken" in found:
            self.fail(f"{what}: its process's device is broken: {found['broken']}")
        if "failed" in found:
            self.fail(f"{what}: {found['failed']} ({found.get('where', '')})")
            self.traces += 1
            if self.traces <= TRACES and "trace" in found:
                self.say(found["trace"])
            return None
        return found
