"""Everyone at the same case: who may take part, the turns, and what came out beside the roofline.

Non-Goals: which cases (`suites`); what is demanded (`bars`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from bench.case import Case
from bench.contenders import contender
from bench.harness import BenchError, Crew, Effort, Timing, compare
from bench.work import work_of
from rnncc.runtime.profiles.roofline import Roofline

OWN = "rnncc"
SLOW_TO_START = ("keras-", "torch-compile")  # left out of --quick


@dataclass(frozen=True, slots=True)
class Race:
    """contenders: after rnncc itself. group: which bars it counts for.

    beside: a case of our own, timed in the same turns. quick: whether --quick runs it.
    optional: a layer that rnncc may not have yet.
    """

    case: Case
    contenders: tuple[str, ...] = ()
    group: str = ""
    beside: Case | None = None
    quick: bool = False
    optional: bool = False


@dataclass(slots=True)
class Raced:
    """What a race found, beside the machine's limits."""

    race: Race
    timings: list[Timing]
    limits: Roofline

    @property
    def floor(self) -> float:
        """The roofline's seconds."""
        return floor_of(self.race.case, self.limits)

    @property
    def flops(self) -> float:
        return work_of(self.race.case).flops

    @property
    def own(self) -> Timing:
        return self.timings[0]

    def best_peer(self, prefix: str = "") -> Timing | None:
        """The quickest of the others whose names begin so."""
        peers = [t for t in self.timings[1:] if t.peer and t.contender.startswith(prefix)]
        return min(peers, key=lambda t: t.median, default=None)

    def speedup(self, prefix: str = "") -> float | None:
        best = self.best_peer(prefix)
        return best.median / self.own.median if best else None

    def roofline(self, timing: Timing | None = None) -> float:
        return self.floor / (timing or self.own).median

    @property
    def beside(self) -> Timing | None:
        return next((t for t in self.timings[1:] if not t.peer), None)

    def per_flop(self) -> float | None:
        """Our time a FLOP over that of our own case beside it."""
        if self.beside is None or self.race.beside is None:
            return None
        other = self.beside.median / work_of(self.race.beside).flops
        return self.own.median / self.flops / other

    def as_json(self) -> dict[str, Any]:
        best = self.best_peer()
        return {
            "case": self.race.case.as_json(),
            "label": self.race.case.label,
            "group": self.race.group,
            "timings": [t.as_json() | {"roofline": self.roofline(t)} for t in self.timings],
            "floor_ms": self.floor * 1e3,
            "gflop": self.flops / 1e9,
            "best_peer": best.contender if best else None,
            "speedup": self.speedup(),
        }


@dataclass(slots=True)
class Outcome:
    """found: the races that were run, in order. notes: who was skipped, and why.

    failures: of rnncc itself. The rest of a long run goes on, and the command ends with 2.
    """

    found: list[Raced] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def run_races(races: Iterable[Race], effort: Effort, roofline: Roofline) -> Outcome:
    races, notes, outcome = list(races), Notes(), Outcome()
    with Crew() as crew:
        for number, race in enumerate(races, 1):
            effort.report(f"{number} of {len(races)}: {race.case.label}")
            try:
                outcome.found.append(_run(race, effort, roofline, crew, notes))
            except BenchError as error:
                crew.dismiss(OWN)
                crew.dismiss(OWN, 1)
                if race.optional:
                    notes.add(OWN, f"skipped {race.case.name}: {error}")
                else:
                    outcome.failures.append(f"{race.case.label}: {error}\n{error.details}".strip())
    outcome.notes = notes.lines()
    return outcome


def _run(race: Race, effort: Effort, roofline: Roofline, crew: Crew, notes: Notes) -> Raced:
    case = race.case
    entries = [(OWN, case)] + ([(OWN, race.beside)] if race.beside else [])
    entries += [(n, case) for n in race.contenders if _takes_part(n, case, effort, crew, notes)]
    dropped: dict[str, str] = {}
    timings = compare(entries, effort.shaped(2 * floor_of(case, roofline)), crew, dropped)
    for name, why in dropped.items():
        notes.add(name, f"dropped from {case.label}: {why}")
    if race.beside:
        timings[1].peer = False
        timings[1].contender += f" {race.beside.name}"
    return Raced(race, timings, roofline)


def _takes_part(name: str, case: Case, effort: Effort, crew: Crew, notes: Notes) -> bool:
    if effort.only and name not in effort.only:
        return False
    if effort.quick and name.startswith(SLOW_TO_START):
        notes.add(name, "skipped: --quick leaves it out")
        return False
    if reason := contender(name).refuses(case):
        notes.add(name, f"not in every race: {reason}")
        return False
    if reason := crew.unavailable(name):
        notes.add(name, f"skipped: {reason}")
        return False
    return True


class Notes:
    """Lines by contender, each once, with how often it was said."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], int] = {}

    def add(self, name: str, line: str) -> None:
        self._said[name, line] = self._said.get((name, line), 0) + 1

    def lines(self) -> list[str]:
        return [
            f"{name}: {line}" + (f" ({times} races)" if times > 1 else "")
            for (name, line), times in self._said.items()
        ]


def floor_of(case: Case, roofline: Roofline) -> float:
    return work_of(case).seconds(roofline.of(case.threads))


def affordable(race: Race, effort: Effort, roofline: Roofline) -> float:
    """About how many seconds a race takes: its calls at half the roofline, and its check."""
    work = work_of(race.case)
    call = 2 * floor_of(race.case, roofline)
    turns = effort.shaped(call)
    warm = min(6, 1 + 1 / call)
    one = turns.rounds * max(turns.seconds, (turns.calls + 1) * call) + warm * call
    check = work.flops / (roofline.fma / 8)  # the interpreter: float64, one step after another
    return check + one * (1 + len(race.contenders))


def limited(races: Iterable[Race], effort: Effort) -> list[Race]:
    """The races a quick run has, all of them otherwise."""
    return [r for r in races if r.quick or not effort.quick]


def race_effort(effort: Effort) -> Effort:
    """Many cases and contenders: shorter turns than a comparison of two takes."""
    return replace(effort, rounds=min(effort.rounds, 9), seconds=min(effort.seconds, 0.06))
