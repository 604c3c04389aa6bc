"""Before anything is timed: every cell in every tier against float64, and kernels compiled.

Several processes do it, each a job of tasks after the other. What is in the store already, as
`bench.gpu.ahead` leaves it, is compiled no more.

Non-Goals: how far off a cell is (`check`).
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.gpu.cases import Case, cases
from bench.gpu.session import Session
from bench.gpu.worker import Task
from bench.result import Bar
from rnncc.artifact.grid_sync import TIERS
from rnncc.cli.settings import builtin_cells

READY_BY = 3.2  # minutes until which kernels are checked and compiled ahead
TASK_SECONDS = 45.0  # of a check, its compiling included
ERROR = 1e-4  # values and gradients, float32, tiers forced where they don't pay
WORKERS = 10
FIRST = ("lstm", "gru", "simple_rnn", "peephole_lstm", "layer_norm_lstm")
MASKED = ("lstm", "gru")
WIDE = ("lstm", "gru", "layer_norm_lstm")  # checked with so many units, too, that blocks wait
WIDE_UNITS = 256


def ready(s: Session) -> None:
    """Every cell checked in every tier, and kernels of the cases to come compiled."""
    checks, warm = to_do(s.cells or builtin_cells())
    wanted = sum(Case(**t["case"]).kind in ("bars", "custom") for t in warm)
    ahead = [[t] for t in warm]
    few = len(checks) - sum(job[0]["cell"] not in FIRST for job in checks)
    jobs: deque[list[Task]] = deque(
        [*checks[:few], *ahead[:wanted], *checks[few:], *ahead[wanted:]]
    )
    errors: dict[str, dict[str, float]] = {tier: {} for tier in TIERS}
    done = {"warm": 0, "check": 0}
    few = min(WORKERS, max((os.cpu_count() or 2) - 2, 1))
    with ThreadPoolExecutor(few) as pool:
        list(pool.map(lambda _: _work(s, jobs, errors, done), range(few)))
    for tier, found in errors.items():
        if found:
            cell = max(found, key=lambda n: _number(found[n]))
            what = f"tier {tier} against float64, {len(found)} cells, worst {cell}"
            s.result.bars.append(Bar(what, found[cell], ERROR, ""))
    left_out = [f"{t['cell']} {t['tier']}" for job in jobs for t in job if t["do"] == "check"]
    if left_out:
        s.say(f"not checked, for want of time: {', '.join(left_out)}", note=True)
    s.say(f"{done['check']} checks, {done['warm']} of {len(warm)} sizes compiled", note=True)


def to_do(cells: Iterable[str]) -> tuple[list[list[Task]], list[Task]]:
    """Checks, a list for each cell, the most telling cells first; and what compiles the kernels of
    the cases to come."""
    names = [*cells]
    first = [n for n in FIRST if n in names]
    rest = [n for n in names if n not in FIRST]
    warm: dict[Any, Case] = {}
    for case in cases():  # another time is no other kernel
        key = case.cell, case.batch, case.units, case.training, case.option, case.kind == "tiers"
        warm.setdefault(key, case)
    checks = [_checks(n) for n in (*first, *rest)]
    return checks, [{"do": "warm", "case": c.as_json()} for c in warm.values()]


def _number(error: float) -> float:
    return math.inf if math.isnan(error) else error


def _checks(cell: str) -> list[Task]:
    plain = [{"do": "check", "cell": cell, "tier": tier} for tier in TIERS]
    masked = [{**t, "masked": True} for t in plain] if cell in MASKED else []
    wide = [{**t, "units": WIDE_UNITS} for t in plain] if cell in WIDE else []
    return [*plain, *wide, *masked]


def _work(
    s: Session,
    jobs: deque[list[Task]],
    errors: dict[str, dict[str, float]],
    done: dict[str, int],
) -> None:
    """Jobs, one after the other, until none or no time is left."""
    worker = s.worker()
    try:
        while s.left(READY_BY) > 0:
            try:
                job = jobs.popleft()
            except IndexError:
                return
            for at, task in enumerate(job):
                if s.left(READY_BY) <= 0:
                    jobs.append(job[at:])
                    return
                found = s.ask(worker, task, TASK_SECONDS)
                if found is None:
                    continue
                with s.lock:
                    done[task["do"]] += 1
                with s.apart(str(task)):
                    if task["do"] == "check":
                        _checked(s, task, found, errors)
    finally:
        worker.end()


def _checked(
    s: Session, task: Task, found: dict[str, Any], errors: dict[str, dict[str, float]]
) -> None:
    name = task["cell"] + " masked" * bool(task.get("masked"))
    name += f" of {task['units']} units" if "units" in task else ""
    if "no tier" in found:
        s.say(f"{name} {task['tier']}: {found['no tier']}")
        return
    with s.lock:
        errors[task["tier"]][name] = found["error"]
        s.effort.partial(s.result)
    if found["error"] <= ERROR:
        s.say(f"{name} {task['tier']}: right, {found['error']:.1e}")
    else:
        s.fail(f"{name} {task['tier']}: off by {found['error']:.1e}, {found['whose']}")
