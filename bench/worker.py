"""A contender's process: JSON lines in, JSON lines out.

    {"do": "hello"}                       -> {"unavailable": ""}
    {"do": "prepare", "case": {...}, "outputs": PATH}  -> {"path": ...}; arrays go to PATH (npz)
    {"do": "burst", "seconds": 0.2, "calls": 3}        -> {"times": [seconds, ...]}

Whatever a library prints goes to stderr, so that it can't be taken for an answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import Any

import numpy as np

from bench.case import Case, draw
from bench.contenders import Run, module

WARM_CALLS = 5


class Worker:
    def __init__(self, name: str) -> None:
        self.name = name
        self.current: Run | None = None

    def hello(self) -> dict[str, Any]:
        return {"unavailable": module(self.name).unavailable()}

    def prepare(self, case: dict[str, Any], outputs: str) -> dict[str, Any]:
        self.current = None
        wanted = Case(**case | {"options": tuple(map(tuple, case["options"]))})
        made: Run = module(self.name).prepare(wanted, draw(wanted))
        np.savez(outputs, **made.outputs())  # type: ignore[arg-type]
        for _ in range(WARM_CALLS):
            made.call()
        self.current = made
        return {"path": made.path}

    def burst(self, seconds: float, calls: int) -> dict[str, Any]:
        """At least `calls` calls, and as many as begin within `seconds`; the first is not kept."""
        assert self.current is not None
        call, clock = self.current.call, time.perf_counter
        call()
        times: list[float] = []
        end = clock() + seconds
        while len(times) < calls or clock() < end:
            start = clock()
            call()
            times.append(clock() - start)
        return {"times": times}


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
