"""A contender's process: JSON lines in, JSON lines out.

    {"do": "hello"}                       -> {"unavailable": ""}
    {"do": "prepare", "case": {...}, "outputs": PATH}  -> {"path": ..., "undropped": false}
    {"do": "burst", "seconds": 0.2, "calls": 3}        -> {"times": [seconds, ...], "memory": bytes}

Arrays go to PATH (npz). Memory is the process's peak since the case was prepared, the library it
loaded included.

Whatever a library prints goes to stderr, so that it can't be taken for an answer.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from bench.case import Case, draw
from bench.contenders import Run, contender

WARM_CALLS, WARM_SECONDS = 5, 1.0
PATIENCE = 1.0  # seconds after which a turn ends whatever it was to have


class Worker:
    def __init__(self, name: str) -> None:
        self.contender = contender(name)
        self.current: Run | None = None

    def hello(self) -> dict[str, Any]:
        return {"unavailable": self.contender.unavailable()}

    def prepare(self, case: dict[str, Any], outputs: str) -> dict[str, Any]:
        self.current = None
        gc.collect()
        _forget_peak()
        options = tuple((name, value) for name, value in case["options"])
        wanted = Case(**case | {"options": options})
        made = self.contender.prepare(wanted, draw(wanted))
        np.savez(outputs, **made.outputs())  # type: ignore[arg-type]
        start = time.perf_counter()
        for _ in range(WARM_CALLS):
            made.call()
            if time.perf_counter() - start > WARM_SECONDS:
                break
        self.current = made
        return {"path": made.path, "undropped": made.undropped}

    def burst(self, seconds: float, calls: int) -> dict[str, Any]:
        """At least `calls` calls, and as many as begin within `seconds`; the first is not kept.

        Of calls that try one's patience there is one, and it is kept.
        """
        assert self.current is not None
        call, clock = self.current.call, time.perf_counter
        begin = clock()
        call()
        times = [first] if (first := clock() - begin) > PATIENCE else []
        end, last = clock() + seconds, begin + PATIENCE
        while (len(times) < calls and clock() < last) or clock() < end or not times:
            if times and times[-1] > PATIENCE:
                break
            start = clock()
            call()
            times.append(clock() - start)
        return {"times": times, "memory": _peak()}


def _peak() -> int | None:
    """The process's peak of resident bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _forget_peak() -> None:
    """From here on, the peak is that of what follows, where Linux lets a process say so."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(name)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(worker, request.pop("do"))(**request)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
