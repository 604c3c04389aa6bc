"""What is asked of one direction, on the CPU or on a GPU.

Non-Goals: how it is done (`run`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.layouts import Layout

Arrays = Mapping[str, Any]


@dataclass(frozen=True, eq=False, slots=True)
class Residuals:
    """What forwards have saved, by name: addresses and layouts. owners: keep the memory alive."""

    places: dict[str, tuple[int, Layout]] = field(default_factory=dict)
    owners: tuple[object, ...] = ()

    def joined(self, others: Residuals) -> Residuals:
        return Residuals(self.places | others.places, self.owners + others.owners)


NO_RESIDUALS = Residuals()


@dataclass(slots=True)
class Job:
    """What is asked of one direction.

    wanted: the results to give; None is all of them but those of carries that callers don't see.
    out: arrays to write results into. first_step: what draws count steps from.
    """

    arrays: Arrays
    call: CallKey
    version: object
    residuals: Residuals = NO_RESIDUALS
    wanted: frozenset[str] | None = None
    out: Arrays = field(default_factory=dict)
    first_step: int = 0
