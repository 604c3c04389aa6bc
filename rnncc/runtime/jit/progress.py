"""A line on a terminal for whoever waits: "compiling LSTM, forward: 3 of 5 kernels".

It comes after a second, so whoever finds machine code in the cache never sees it, and goes when all
is there. Nothing is written where stderr is no terminal, in notebooks and logs, or where the
environment variable RNNCC_PROGRESS is 0.

Non-Goals: other things that take time (`rnncc check` has its own).
"""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType
from typing import Any

PROGRESS = "RNNCC_PROGRESS"
AFTER = 1.0  # seconds


class Progress:
    """How many of a number of kernels are ready. `advance` may be called from any thread."""

    def __init__(self, what: str, count: int) -> None:
        self.what, self.count, self.ready = what, count, 0
        self._timer: threading.Timer | None = None
        self._status: Any = None
        self._lock = threading.Lock()
        self._over = False

    def __enter__(self) -> Progress:
        if wanted():
            self._timer = threading.Timer(AFTER, self._show)
            self._timer.daemon = True
            try:
                self._timer.start()
            except RuntimeError:  # no more threads
                self._timer = None
        return self

    def advance(self) -> None:
        with self._lock:
            self.ready += 1
            if self._status is not None:
                self._status.update(self.text)

    @property
    def text(self) -> str:
        kernels = "kernel" if self.count == 1 else "kernels"
        return f"compiling {self.what}: {self.ready} of {self.count} {kernels}"

    def _show(self) -> None:
        from rich.console import Console
        from rich.status import Status

        with self._lock:
            if not self._over:
                self._status = Status(self.text, console=Console(stderr=True))
                self._status.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._over = True
            if self._status is not None:
                self._status.stop()


def wanted() -> bool:
    """Whether anybody is there to read."""
    if os.environ.get(PROGRESS, "").strip() == "0":
        return False
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False
