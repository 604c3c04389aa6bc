"""Demands on races, as data, and whether they are met.

    Demand("inference: times faster than the best peer", "inference", "speedup", 1.2, over="mean")

speedup: the best peer's time over ours. roofline: the floor's time over ours. beside: the time of
our own case beside it over ours. per_flop: ours a FLOP over that of our own case beside it.

Non-Goals: measuring.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bench.race import Raced
from bench.result import Bar
from rnncc.common.machine import host


@dataclass(frozen=True, slots=True)
class Demand:
    """group: whose races, all where it is empty. over: the geometric mean, or each race.

    wide: the limit instead where vectors have 512 bits; None is the same one. least: the value
    has to reach the limit; else to stay below. units: only races with at least so many. against:
    only peers whose names begin so.
    """

    what: str
    group: str
    measure: str
    limit: float
    over: str = "each"
    least: bool = True
    units: int = 0
    against: str = ""
    wide: float | None = None

    @property
    def here(self) -> float:
        """The limit on this machine."""
        if self.wide is None or host().vector_bytes < 64:
            return self.limit
        return self.wide

    def bar(self, races: Iterable[Raced]) -> Bar:
        """Of each race, the worst one is shown."""
        chosen = [r for r in races if self._counts(r)]
        values = [(value, r) for r in chosen if (value := self._value(r)) is not None]
        if not values:
            return Bar(self.what, None, self.here, least=self.least, why=self._why(chosen))
        if self.over == "mean":
            value = geometric_mean([v for v, _ in values])
            more = f"geometric mean of {len(values)}"
        else:
            worst = min if self.least else max
            value, at = worst(values, key=lambda pair: pair[0])
            more = f"the worst of {len(values)}: {at.race.case.label}"
        if without := len(chosen) - len(values):
            more += f"; {without} without a value"
        return Bar(f"{self.what} ({more})", value, self.here, least=self.least)

    def _counts(self, raced: Raced) -> bool:
        return (not self.group or raced.race.group == self.group) and (
            raced.race.case.units >= self.units
        )

    def _value(self, raced: Raced) -> float | None:
        if self.measure == "speedup":
            return raced.speedup(self.against)
        if self.measure == "roofline":
            return raced.roofline()
        if self.measure == "per_flop":
            return raced.per_flop()
        if self.measure == "beside":
            return raced.beside.median / raced.own.median if raced.beside else None
        raise ValueError(f"no measure is called {self.measure!r}")

    def _why(self, chosen: list[Raced]) -> str:
        if not chosen:
            return "no such race ran"
        return (
            f"no {self.against or 'peer'} took part" if self.measure == "speedup" else "not timed"
        )


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
