"""A suite of races: the machine's limits, the turns, the bars.

Non-Goals: which races (`suites`).
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.case import CaseError, check_drivable
from bench.contenders import NAMES
from bench.harness import BenchError, Effort
from bench.race import OWN, Race, Raced, affordable, limited, race_effort, run_races
from bench.result import Result
from bench.suites import PER_FLOP, Suite, custom_races
from rnncc.runtime.profiles.roofline import Roofline, measure


def races_suite(name: str, suite: Suite, effort: Effort) -> Result:
    if effort.spec is not None:
        suite = of_spec(effort.spec)
    effort.report("the roofline")
    roofline = limits(effort)
    chosen, skipped = _affordable(
        suite, limited(suite.races, effort), race_effort(effort), roofline
    )
    outcome = run_races(chosen, race_effort(effort), roofline)
    races = outcome.found
    roofline = settled(races, roofline, effort)
    return Result(
        name,
        bars=[demand.bar(races) for demand in suite.demands],
        notes=[*suite.notes, *skipped, *outcome.notes],
        races=races,
        roofline=roofline,
        unit=suite.unit,
        failures=outcome.failures,
    )


def limits(effort: Effort) -> Roofline:
    """The machine's, measured now."""
    return measure(0.005, 3) if effort.quick else measure()


def settled(races: Sequence[Raced], before: Roofline, effort: Effort) -> Roofline:
    """The limits, measured once more behind the races; the races are held against these."""
    effort.report("the roofline again")
    roofline = before.best(limits(effort))
    for raced in races:
        raced.limits = roofline
    return roofline


def of_spec(cell: str) -> Suite:
    """The suite of a user's own cell: beside our own LSTM, and beside the roofline.

    Raises BenchError for what can't be driven; SpecError says what is wrong with the file.
    """
    try:
        check_drivable(cell)
    except CaseError as error:
        raise BenchError(str(error)) from None
    note = f"nobody else has {cell}; LSTM at the same sizes is beside it"
    return Suite(tuple(custom_races(cell, contenders=())), (PER_FLOP,), notes=(note,))


def _affordable(
    suite: Suite, races: Sequence[Race], effort: Effort, roofline: Roofline
) -> tuple[list[Race], list[str]]:
    """The races within the cap, and notes that name the others."""
    if not suite.capped:
        return list(races), []
    kept: list[Race] = []
    skipped: dict[str, list[str]] = {}
    for race in races:
        estimate = affordable(race, effort, roofline)
        if estimate <= effort.cap:
            kept.append(race)
            continue
        case = race.case
        shape = f"({case.batch}, {case.time}, {case.features}, {case.units})"
        skipped.setdefault(f"{case.name} {case.mode}", []).append(f"{shape} {estimate:.0f}")
    head = f"skipped, more than {effort.cap:g} s a shape (--cap), with about how many seconds: "
    return kept, [f"{head}{kind} {', '.join(shapes)}" for kind, shapes in skipped.items()]


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Contenders asked for by name; BenchError for one that doesn't exist."""
    for name in names:
        if name not in NAMES:
            raise BenchError(f"no contender is called {name!r}; there are {', '.join(NAMES)}")
    return tuple(n for n in names if n != OWN)
