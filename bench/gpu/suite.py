"""One GPU: is every cell right in every tier, what does a barrier cost, how fast are loops?

    python -m bench gpu --check --json FILE

Right first: every built-in cell in every tier against the float64 interpreter, values and all
gradients, by several processes, which compile kernels on the way (or find them in the store, where
`bench.gpu.ahead` has been). Then one process times what `cases` lists until the time is up:
the command ends within MINUTES (`session`). A process that fails, hangs or leaves its device
broken costs its own task, no other. Each finding is printed when it is made, and the file is
written anew after each check and case, so that a command that was cut short leaves what it had
found.

Non-Goals: several GPUs; other libraries than torch. This has never run on a GPU.
"""

from __future__ import annotations

import math
from typing import Any

from bench.gpu.cases import GATES, Case, cases
from bench.gpu.check import installed
from bench.gpu.ready import ERROR, ready
from bench.gpu.session import Session
from bench.gpu.worker import Lost
from bench.harness import Effort, Timing
from bench.result import Bar, Result

CASE_SECONDS = 45.0
FULL_ERROR = 1e-3  # at full size, against a library's float32: sums over thousands of steps
FAILED_IN_A_ROW = 6  # cases, after which no more are tried
PEERS = ("torch float32", "torch loop", "torch.compile")
BARRIER_BLOCKS = (8, 32, 128)
LOOP, COMPILE, PER_WORK, OPTION = 20.0, 5.0, 1.15, 1.1  # what the issue asks of each


def gpu_suite(effort: Effort, session: Session | None = None) -> Result:
    s = session or Session(effort)
    result, one = s.result, s.worker()
    try:
        if not _looked(s, one):
            return result
        with s.apart("checks"):
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
        why = found["failed"].removeprefix("rnncc.common.machine.Missing: ")
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


# ---- costs -----------------------------------------------------------------------------------


def _costs(s: Session, worker: Any) -> None:
    """Of products, and of barriers; and whether graphs do what their launches do, and arrays that
    lie on a GPU what NumPy's do."""
    found = s.ask(worker, {"do": "graph"}, 60)
    for tier, each in (found or {}).items():
        s.say(f"graphs, tier {tier}: off by {each['error']:.1e}; {each['said']}", note=True)
        if not each["error"] <= ERROR:
            s.fail(f"graphs, tier {tier}: other results than of the same launches")
    found = s.ask(worker, {"do": "arrays"}, 60)
    for way, each in (found or {}).items():
        if "why" in each:
            s.say(f"arrays, {way}: {each['why']}", note=True)
        elif each["error"] <= ERROR:
            s.say(f"arrays, {way}: right, {each['error']:.1e}", note=True)
        else:
            s.fail(f"arrays, {way}: off by {each['error']:.1e}")
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
    verdicts = [bar.verdict for bar in s.result.bars]
    s.say(", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)) + ", of all bars")
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
