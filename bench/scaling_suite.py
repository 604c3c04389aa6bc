"""How time grows with units, time, batch and threads; lines fitted where it should be linear.

Peers are timed beside it, forward only: where their time goes is in the plot.

Non-Goals: memory, which is the memory suite's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.case import FORWARD, TRAINING, Case
from bench.harness import Effort
from bench.race import OWN, Race, Raced, race_effort, run_races
from bench.races_suite import limits, settled
from bench.result import Bar, Fit, Result

PEERS = ("torch", "onnxruntime")
OFF = 0.15  # of the line, at most: caches end somewhere in between


@dataclass(frozen=True, slots=True)
class Sweep:
    """One size of a case that grows. quick: whether a quick run has it, with QUICK_VALUES."""

    field: str
    case: Case
    values: tuple[int, ...]
    linear: bool = True
    quick: bool = False
    peers: tuple[str, ...] = ()


TIMES, BATCHES, QUICK_VALUES = (25, 50, 100, 200, 400, 800), (8, 16, 32, 64, 128, 256), 3
SWEEPS = (
    Sweep("time", Case("lstm", FORWARD, 16, 0, 128, 128), TIMES, quick=True, peers=PEERS),
    Sweep("time", Case("lstm", TRAINING, 16, 0, 128, 128), TIMES),
    Sweep("batch", Case("lstm", FORWARD, 0, 50, 128, 128), BATCHES, quick=True, peers=PEERS),
    Sweep("batch", Case("lstm", TRAINING, 0, 50, 128, 128), BATCHES),
    Sweep(
        "units",
        Case("lstm", FORWARD, 1, 100, 0, 0),
        (32, 64, 128, 256, 512, 1024),
        linear=False,
        peers=PEERS,
    ),
)


def scaling_suite(effort: Effort) -> Result:
    effort.report("the roofline")
    roofline = limits(effort)
    sweeps = [*SWEEPS, _threads(roofline.cores)]
    if effort.quick:
        sweeps = [replace(s, values=s.values[:QUICK_VALUES]) for s in sweeps if s.quick]
    races = [Race(_grown(s, n), s.peers) for s in sweeps for n in s.values]
    outcome = run_races(races, race_effort(effort), roofline)
    found = outcome.found
    roofline = settled(found, roofline, effort)
    result = Result(
        "scaling",
        notes=outcome.notes,
        races=found,
        roofline=roofline,
        failures=outcome.failures,
    )
    for sweep in sweeps:
        own = [_grown(sweep, n) for n in sweep.values]
        points = {r.race.case: r for r in found if r.race.case in own}
        result.fits += _fits(sweep, list(points.values()))
    result.bars = [_bar(fit) for fit in result.fits if fit.linear and fit.contender == OWN]
    return result


def _threads(cores: int) -> Sweep:
    counts = (*(n for n in (1, 2, 4, 8, 16, 32, 64) if n < cores), cores)
    return Sweep("threads", Case("lstm", TRAINING, 64, 50, 256, 256), counts, linear=False)


def _grown(sweep: Sweep, n: int) -> Case:
    if sweep.field == "units":
        return replace(sweep.case, units=n, features=n)
    if sweep.field == "time":
        return replace(sweep.case, time=n)
    if sweep.field == "batch":
        return replace(sweep.case, batch=n)
    return replace(sweep.case, threads=n)


def _fits(sweep: Sweep, found: list[Raced]) -> list[Fit]:
    fits = []
    names = dict.fromkeys(t.contender for raced in found for t in raced.timings)
    for name in names:
        points = [
            (getattr(raced.race.case, sweep.field), timing.median)
            for raced in found
            for timing in raced.timings
            if timing.contender == name
        ]
        if len(points) > 1:
            n, seconds = zip(*points, strict=True)
            fits.append(Fit(_title(sweep), name, n, seconds, sweep.linear))
    return fits


def _title(sweep: Sweep) -> str:
    letters = {"batch": "B", "time": "T", "features": "D", "units": "H"}
    shown = [
        letters[f] if f == sweep.field or (sweep.field == "units" and f == "features") else str(n)
        for f, n in zip(letters, sweep.case.sizes, strict=True)
    ]
    return f"{sweep.field}: {sweep.case.name} {sweep.case.mode} ({', '.join(shown)})"


def _bar(fit: Fit) -> Bar:
    return Bar(f"linear in {fit.name}: farthest from the line", fit.worst, OFF, "of the line")
