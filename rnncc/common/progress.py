"""A line on a terminal for whoever waits: "compiling LSTM, forward: 3 of 5 kernels".

    with working("reading voice.onnx") as line:
        line.say("reading voice.onnx: 3 of 9 parts")

It comes after a second, of a command or of the work, so what is quick is done in silence, and goes
when all is there. Of works inside works, the innermost that has taken a second is said. Nothing is
written where stderr is no terminal, in notebooks and logs, or where the environment variable
RNNCC_PROGRESS is 0.

Non-Goals: what is printed in the end; it is printed behind the line, not while it stands there.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

from rnncc.common.user_text import comment

PROGRESS = "RNNCC_PROGRESS"
AFTER = 1.0  # seconds
LEAST = 0.2  # that a work takes which is said after others


class working:
    """A work, said by `text` once it takes long. `say` may be called from any thread."""

    def __init__(self, text: str) -> None:
        self.text, self.takes_long = text, False
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if wanted():
            self._timer = threading.Timer(_patience(), self._is_long)
            self._timer.daemon = True
            try:
                self._timer.start()
            except RuntimeError:  # no more threads
                self._timer = None
            else:
                _line.begin(self)
        return self

    def say(self, text: str) -> None:
        """Another text, from here on."""
        self.text = text
        if self._timer is not None:
            _line.show()

    def _is_long(self) -> None:
        self.takes_long = True
        _line.show()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            _line.end(self)


_since: float | None = None  # when a command began


def command_begins() -> None:
    """From here on somebody waits: a second later every work is said that isn't over at once."""
    global _since
    _since = time.monotonic()


def _patience() -> float:
    """How long a work has to take, in seconds."""
    if _since is None:
        return AFTER
    return min(AFTER, max(LEAST, AFTER + _since - time.monotonic()))


class _Line:
    """The one line that a terminal has for all works."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._works: list[working] = []
        self._shown: Any = None

    def begin(self, work: working) -> None:
        with self._lock:
            self._works.append(work)

    def end(self, work: working) -> None:
        with self._lock:
            if work in self._works:  # not so in a child that was forked meanwhile
                self._works.remove(work)
            self.show()

    def show(self) -> None:
        """What is to be read now."""
        with self._lock:
            texts = [work.text for work in self._works if work.takes_long]
            if not texts:
                if self._shown is not None:
                    self._shown.stop()
                    self._shown = None
                return
            from rich.console import Console
            from rich.live import Live
            from rich.spinner import Spinner
            from rich.text import Text

            console = Console(stderr=True)
            said = Text(comment(texts[-1]))
            said.truncate(max(console.width - 3, 1), overflow="ellipsis")  # the spinner has two
            spinner = Spinner("dots", said)
            if self._shown is not None:
                self._shown.update(spinner, refresh=True)
                return
            # What others print meanwhile stays where they print it, which may be a file.
            self._shown = Live(
                spinner,
                console=console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                refresh_per_second=12.5,
            )
            self._shown.start()


_line = _Line()


def _forget() -> None:
    """A child that was forked has none of its parent's threads: nobody would let a lock go."""
    global _line
    _line = _Line()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def wanted() -> bool:
    """Whether anybody is there to read."""
    if os.environ.get(PROGRESS, "").strip() == "0":
        return False
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False
