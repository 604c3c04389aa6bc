"""drop and zoneout -> uniform draws and choices. Each textual use is one site.

Training: a lane is kept where its uniform draw is at least the rate. At inference `drop` is the
identity and `zoneout` its expectation.

Non-Goals: the generator (`ir.random`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rnncc.ir.program import Value
from rnncc.lowering.expressions import Evaluator
from rnncc.lowering.operands import Operand, Refusal, Shape


@dataclass(frozen=True, slots=True)
class Site:
    """One use: its number in the text, its rate (None: nothing is ever drawn), its seed."""

    number: int
    rate: Value | float | None
    seed: Callable[[], Value]
    training: bool


@dataclass(frozen=True, slots=True)
class SiteDraw:
    """What one use made of its operand.

    rated: its rate is one of the cell's, which may be zero, and no number of the text.
    constraints: which of the equations' it asked for.
    """

    function: str
    rated: bool
    without: Operand
    drawn: Value
    constraints: range

    @property
    def can_be_left_out(self) -> bool:
        """Whether its operand may stand in its place: all that follows is evaluated alike."""
        return isinstance(self.without, Value) and self.without.type == self.drawn.type


def _per(per: Operand) -> str:
    if per not in ("step", "sequence"):
        raise Refusal("E507")
    assert isinstance(per, str)
    return per


def _kept(ev: Evaluator, site: Site, shape: Shape, axes: str, per: str) -> Value:
    """Where the draw is at least the rate."""
    draw = ev.b.uniform(site.seed(), site.number, shape, per, axes)
    kept: Value = ev.b.ge(*ev.broadcast(draw, site.rate))
    return kept


def drop(ev: Evaluator, site: Site, v: Operand, per: Operand = "sequence") -> Operand:
    per = _per(per)
    if site.rate is None or not site.training or not isinstance(v, Value):
        return v
    x = ev.value(v)
    axes = "B" if "B" in x.type.axes else ""
    if not axes and per == "step":
        raise Refusal("E513")
    kept = _kept(ev, site, x.type.shape, axes, per)
    rate = site.rate
    scale = ev.b.div(1.0, ev.b.sub(1.0, rate)) if isinstance(rate, Value) else 1 / (1 - rate)
    return ev.b.mul(x, ev.b.where(*ev.broadcast(kept, scale, 0.0)))


def zoneout(
    ev: Evaluator, site: Site, new: Operand, old: Operand, per: Operand = "sequence"
) -> Operand:
    """Krueger et al. 2017: a lane keeps its old value with the probability of the rate."""
    per = _per(per)
    if site.rate is None:
        return new
    fresh, stale = ev.broadcast(ev.value(new), ev.value(old))
    assert isinstance(fresh, Value) and isinstance(stale, Value)
    if site.training:
        axes = "B" if "B" in fresh.type.axes + stale.type.axes else ""
        if not axes and per == "step":
            raise Refusal("E513")
        kept = _kept(ev, site, fresh.type.shape, axes, per)
        return ev.b.where(kept, fresh, stale)
    rate = site.rate
    rest = ev.b.sub(1.0, rate) if isinstance(rate, Value) else 1.0 - rate
    x, r = ev.broadcast(stale, rate)
    y, s = ev.broadcast(fresh, rest)
    return ev.b.add(ev.b.mul(r, x), ev.b.mul(s, y))
