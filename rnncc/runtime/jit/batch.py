"""All kernels that a call needs and nobody has compiled yet, at once.

    make_ready(kernels, "LSTM, forward")

While LLVM makes machine code of one, Python types the next: LLVM runs on a thread of its own and
holds no lock that Python wants. Objects are those that one after another would give.

Non-Goals: kernels that are asked for one by one (`kernel`).
"""

from __future__ import annotations

import gc
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rnncc.runtime.jit.compiler_import import compiler
from rnncc.runtime.jit.kernel import COMPILING, CpuKernel
from rnncc.runtime.jit.progress import Progress

SOON = 1e-4  # seconds


def make_ready(kernels: Iterable[CpuKernel], what: str) -> None:
    """Their machine code is loaded: out of the cache, or compiled and put there.

    what: is told whoever waits for it at a terminal. Raises what compiling any of them raised; what
    was ready by then is loaded.
    """
    with COMPILING:
        wanted = [k for k in dict.fromkeys(kernels) if not k.loaded and not k.load_cached()]
        if not wanted:
            return
        with _two_at_work(), Progress(what, len(wanted)) as progress:
            _compile(wanted, progress)


def _compile(kernels: list[CpuKernel], progress: Progress) -> None:
    typed = compiler().typed
    finisher = Finisher(progress)
    try:
        for kernel in kernels:
            if finisher.error is not None:
                break
            finisher.take(kernel, typed(kernel.function, kernel.signature))
        finisher.finish()
    finally:
        finisher.stop()
    if finisher.error is not None:
        raise finisher.error
    for kernel in kernels:
        assert kernel.address  # of those that a forked child's thread is not there to make


class Finisher:
    """A thread that makes, keeps and loads machine code of what was typed; where the system starts
    none, whoever hands it over does."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.error: BaseException | None = None
        self._stopped = False
        self._queue: queue.SimpleQueue[tuple[CpuKernel, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None
        self._thread = threading.Thread(target=self._run, name="rnncc-llvm", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None

    def take(self, kernel: CpuKernel, unit: Any) -> None:
        if self._thread is None:
            self._make(kernel, unit)
        else:
            self._queue.put((kernel, unit))

    def finish(self) -> None:
        """All that was taken is made, or the first error is there."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """What hasn't begun is left; nobody is inside of LLVM behind it."""
        self._stopped = True
        self.finish()

    def _run(self) -> None:
        while (taken := self._queue.get()) is not None:
            if not self._stopped and self.error is None:
                try:
                    self._make(*taken)
                except BaseException as error:  # raised again where it was handed over
                    self.error = error

    def _make(self, kernel: CpuKernel, unit: Any) -> None:
        kernel.finish(unit)
        self.progress.advance()


@contextmanager
def _two_at_work() -> Iterator[None]:
    """LLVM's thread wants Python's lock some hundred times a kernel, each time for microseconds: it
    is given it soon, or it would do next to nothing while another types. And Numba's hundred
    thousands of objects would be looked through for garbage again and again, a tenth of the time,
    and next to none be found."""
    enabled, interval = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(min(interval, SOON))
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if enabled:
            gc.enable()
