"""`python -m bench.gpu.worker`: one task a line, one answer a line; and whoever asks it.

A kernel that reads where it may not takes its whole process with it, and one that waits for ever
takes a device. So whatever touches the device runs in a process that can be ended and begun anew.

Non-Goals: which tasks there are, and in what order (`suite`).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Task = dict[str, Any]
TAIL = 600  # characters of what a process had to say
TRACE = 1500  # of where it failed: there may be no second try
COMMAND = ("-m", "bench.gpu.worker")
PATIENCE = 10.0  # seconds in which a process that was ended is gone


def handle(task: Task) -> dict[str, Any]:
    """Does a task. Whatever it raises is an answer, too: `failed`."""
    from bench.gpu import arrays as gpu_arrays
    from bench.gpu import check as gpu_check
    from bench.gpu import timing as gpu_time
    from bench.gpu.cases import Case

    try:
        match task["do"]:
            case "look":
                return gpu_check.look()
            case "check":
                more = {k: task[k] for k in ("masked", "units") if k in task}
                return gpu_check.cell_error(task["cell"], task["tier"], **more)
            case "bulk":
                return gpu_check.bulk_errors()
            case "barrier":
                return {"seconds": gpu_check.barrier_seconds(task["blocks"])}
            case "graph":
                return gpu_check.graph_errors()
            case "arrays":
                return gpu_arrays.array_errors()
            case "warm":
                gpu_time.warmed(Case(**task["case"]), gpu_time.Where(task.get("device", "cuda")))
                return {}
            case "time":
                where = gpu_time.Where(task.get("device", "cuda"))
                return gpu_time.timed(Case(**task["case"]), where)
        raise ValueError(f"no task is called {task['do']!r}")
    except Exception as error:
        traceback.print_exc()
        said = "".join(traceback.format_exception_only(error)).strip()
        trace = "".join(traceback.format_exception(error))[-TRACE:]
        return {"failed": said[:TAIL], "where": _innermost(error), "trace": trace}


def broken() -> str:
    """What the device says of all that was launched, if something is wrong; nothing after it in
    this process can be right."""
    from rnncc.common.machine import Missing
    from rnncc.runtime.cuda.driver import current_target

    try:
        target: Any = current_target.current()
        if hasattr(target, "ask"):
            target.enter()
            target.ask("cuCtxSynchronize")
    except Missing:  # there is none to be broken
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:TAIL]
    return ""


def _innermost(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def main() -> None:
    """Answers until nobody asks any more."""
    # Answers have a stream to themselves: libraries print what they like.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        task = json.loads(line)
        found = handle(task)
        if task.get("device", "cuda") == "cuda" and (why := broken()):
            found["broken"] = why
        print(json.dumps(found), file=answers, flush=True)


class Lost(Exception):
    """A process ended, or gave no answer in time."""


class Worker:
    """A process that does tasks; made when it is first asked, and again after it was lost."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.answers: queue.Queue[str | None] = queue.Queue()

    def start(self) -> subprocess.Popen[str]:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.answers = queue.Queue()
        self.process = made = subprocess.Popen(
            [sys.executable, *COMMAND],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        threading.Thread(target=self._listen, args=(made, self.answers), daemon=True).start()
        return made

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line)
        answers.put(None)

    def ask(self, task: Task, seconds: float) -> dict[str, Any]:
        """The answer. Lost: after so many seconds, or when the process has ended; it is ended."""
        process = self.process or self.start()
        assert process.stdin is not None
        try:
            print(json.dumps(task), file=process.stdin, flush=True)
            line = self.answers.get(timeout=max(seconds, 1.0))
        except (BrokenPipeError, queue.Empty) as error:
            why = "no answer in time" if isinstance(error, queue.Empty) else "the process ended"
            raise Lost(f"{why}: {self.end()}") from None
        if line is None:
            raise Lost(f"the process ended: {self.end()}")
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:
            raise Lost(f"no answer but {line[:TAIL]!r}: {self.end()}") from None
        if "broken" in found:  # the next task begins in a new process
            self.end()
        return found

    def end(self) -> str:
        """Ends the process; the last that it said."""
        process, self.process = self.process, None
        if process is None:
            return ""
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a driver can hold it for a while
            process.wait(PATIENCE)
        with contextlib.suppress(OSError, ValueError):
            self.log.seek(0)
            return " ".join(self.log.read()[-TAIL:].split())
        return ""


Ask = Callable[[Task, float], dict[str, Any]]

if __name__ == "__main__":
    main()
