"""One GPU: is every cell right in every tier, what does a barrier cost, how fast are loops?

    python -m bench gpu --check --json FILE

Right first: every built-in cell in every tier against the float64 interpreter, values and all
gradients, by several processes, which compile kernels on the way (or find them in the store, where
`bench.gpu_ahead` has been). Then one process times what `gpu_cases` lists until the time is up:
the command ends within MINUTES. A process that fails, hangs or leaves its device broken costs its
own task, no other. Each finding is printed when it is made, and the file is written anew after
each case, so that a command that was cut short leaves what it had found.

Non-Goals: several GPUs; other libraries than torch. This has never run on a GPU.
"""

from __future__ import annotations

import math
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from bench.gpu_cases import GATES, Case, cases
from bench.gpu_check import installed
from bench.gpu_worker import Lost, Task, Worker
from bench.harness import Effort, Timing
from bench.result import Bar, Result
from rnncc.cli.settings import builtin_cells
from rnncc.schedule.tiers import TIERS

MINUTES = 7.5
READY_BY = 3.2  # minutes until which kernels are checked and compiled ahead
TASK_SECONDS = 45.0  # of a check, its compiling included
CASE_SECONDS = 45.0
ERROR = 1e-4  # values and gradients, float32, tiers forced where they don't pay
FULL_ERROR = 1e-3  # at full size, against a library's float32: sums over thousands of steps
FAILED_IN_A_ROW = 6  # cases, after which no more are tried
PEERS = ("torch float32", "torch loop", "torch.compile")
TRACES = 6  # failures that are printed with all that is known of them
WORKERS = 10
FIRST = ("lstm", "gru", "simple_rnn", "peephole_lstm", "layer_norm_lstm")
MASKED = ("lstm", "gru")
WIDE = ("lstm", "gru", "layer_norm_lstm")  # checked with so many units, too, that blocks wait
WIDE_UNITS = 256
BARRIER_BLOCKS = (8, 32, 128)
LOOP, COMPILE, PER_WORK, OPTION = 20.0, 5.0, 1.15, 1.1  # what the issue asks of each


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


def gpu_suite(effort: Effort, session: Session | None = None) -> Result:
    s = session or Session(effort)
    result, one = s.result, s.worker()
    try:
        if not _looked(s, one):
            return result
        ready(s)
        effort.partial(result)
        with s.apart("costs"):
            _costs(s, one)
        _compare(s, one)
    finally:
        one.end()
    return result


def _looked(s: Session, worker: Any) -> bool:
    """Whether there is a device."""
    s.say(", ".join(f"{p} {v}" for p, v in installed().items() if v), note=True)
    try:
        found = worker.ask({"do": "look"}, 120)
    except Lost as lost:
        found = {"failed": str(lost)}
    if "failed" in found:
        why = found["failed"].removeprefix("rnncc.runtime.machine.Missing: ")
        if "Missing" not in found["failed"]:  # there is a device, and it didn't do as it was told
            s.fail(f"the first launch: {why}\n{found.get('trace', '')}")
        s.say(f"nothing has run and nothing has been timed: {why}", note=True)
        s.result.bars += [
            Bar("every cell in every tier against float64", None, ERROR, why="no GPU"),
            Bar("LSTM and GRU against cuDNN float32", None, 1.0, why="no GPU"),
        ]
        return False
    s.peak = found["peak"]
    s.say(
        f"{found['name']}, compute capability {found['capability']}, {found['multiprocessors']} "
        f"multiprocessors, driver {found['driver']}, {s.peak / 1e12:.1f} float32 TFLOP/s at best, "
        f"{found['library']}; the first launch took {found['first launch']:.1f} s",
        note=True,
    )
    return True


# ---- right? ----------------------------------------------------------------------------------


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


# ---- costs -----------------------------------------------------------------------------------


def _costs(s: Session, worker: Any) -> None:
    """Of products, and of barriers; and whether graphs do what their launches do."""
    found = s.ask(worker, {"do": "graph"}, 60)
    for tier, each in (found or {}).items():
        s.say(f"graphs, tier {tier}: off by {each['error']:.1e}; {each['said']}", note=True)
        if not each["error"] <= ERROR:
            s.fail(f"graphs, tier {tier}: other results than of the same launches")
    found = s.ask(worker, {"do": "bulk"}, 60)
    for name, each in (found or {}).items():
        speed = 2 * math.prod((1536, 1024, 512)) / each["seconds"] / 1e12
        s.say(f"product by {name}: off by {each['error']:.1e}, {speed:.1f} TFLOP/s", note=True)
    for blocks in BARRIER_BLOCKS:
        found = s.ask(worker, {"do": "barrier", "blocks": blocks}, 30)
        if found is not None:
            s.say(f"a barrier of {blocks} blocks: {found['seconds'] * 1e6:.2f} us", note=True)


# ---- fast? -----------------------------------------------------------------------------------


def _compare(s: Session, worker: Any) -> None:
    """Cases in their order, until the time is up."""
    waiting, failed = [*cases()], 0
    while waiting and s.left() > 0 and failed < FAILED_IN_A_ROW:
        case = waiting.pop(0)
        task = {"do": "time", "case": case.as_json()}
        longest = CASE_SECONDS * (2 if case.compiled else 1)
        found = s.ask(worker, task, min(longest, s.left() + 5))
        ran = False
        with s.apart(case.label):
            ran = found is not None and _found(s, case, found)
        failed = 0 if ran else failed + 1
        s.effort.partial(s.result)
    if waiting:
        why = "after so many failures" if failed else "when the time was up"
        s.say(f"{len(waiting)} sizes were left out {why}", note=True)


def _found(s: Session, case: Case, found: dict[str, Any]) -> bool:
    """A case's timings, into tables and bars; whether ours is among them."""
    timings = []
    for each in found["timings"]:
        if each["why"] and each["name"] in ("rnncc", "as chosen"):
            s.fail(f"{case.label}: {each['why']}")
        elif each["why"]:
            s.say(f"{case.label}: {each['name']}: {each['why']}", note=True)
        elif each["times"]:
            own = Timing(each["name"], "CUDA events", each["error"], each["times"])
            own.peer = each["name"] in PEERS
            timings.append(own)
    by_name = {t.contender: t for t in timings}
    ours = by_name.get("rnncc") or by_name.get("as chosen")
    if ours is None:
        return False
    # Ours first, as tables have it.
    s.result.timings[case.label] = [ours, *(t for t in timings if t is not ours)]
    ours.path += f", {case.work(found['weights']) / ours.median / s.peak:.0%} of the peak"
    lines = [line.strip() for line in found["plan"].splitlines()]
    plan = "; ".join(x for x in lines if "tier " in x or "launches a call" in x)
    _hold(s, case, by_name, found["weights"])
    wrong = [t for t in s.result.timings[case.label] if _is_wrong(case, t)]
    for t in wrong:
        s.fail(f"{case.label}: {t.contender} is off by {t.error:.1e}")
    shown = ", ".join(f"{t.contender} {t.median * 1e3:.3f}" for t in s.result.timings[case.label])
    s.say(f"{case.label}: {shown} ms; off by {ours.error:.1e}; {plan}")
    return True


def _allowed(case: Case, contender: str) -> float:
    """How far off a contender may be: those that compute the same, in float32."""
    rounds = any(word in contender for word in ("tf32", "bfloat16", "LSTM"))
    return math.inf if rounds or case.kind == "options" else FULL_ERROR


def _is_wrong(case: Case, timing: Timing) -> bool:
    allowed = _allowed(case, timing.contender)
    return allowed < math.inf and not timing.error <= allowed  # NaN: other shapes, or no number


def _hold(s: Session, case: Case, by_name: dict[str, Timing], weights: int) -> None:
    """The case's bars."""
    ours = by_name.get("rnncc")
    if ours is None:
        return

    def against(name: str, what: str, limit: float, *, least: bool = False) -> None:
        other = by_name.get(name)
        if other is not None:
            ratio = other.median / ours.median if least else ours.median / other.median
            s.result.bars.append(Bar(f"{case.label} {what}", ratio, limit, least=least))

    against("torch float32", "against cuDNN float32", case.limit)
    against("torch loop", "quicker than a torch loop", LOOP, least=True)
    against("torch.compile", "quicker than a loop of torch.compile", COMPILE, least=True)
    against("rnncc without", f"against without {case.option}", OPTION)
    lstm = by_name.get("rnncc LSTM")
    if lstm is not None:
        own = ours.median / weights
        theirs = lstm.median / (2 * GATES["LSTM"] * case.units**2)
        s.result.bars.append(Bar(f"{case.label} per FLOP of our LSTM", own / theirs, PER_WORK))
