"""A model's parts in the order they run. Values have places in a list: looking names up takes
microseconds, and so may a step.

Non-Goals: what goes in and comes out (`model`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.models.component import Arrays, Wired

NOT_GIVEN, UNREAD = 0, 1  # places of what isn't given, and of what nobody reads
Step = Callable[..., Arrays]


class PlacedRun:
    """nodes: in order. constants: values that no part makes. inputs, outputs: values by name."""

    def __init__(
        self,
        nodes: Sequence[Wired],
        constants: Mapping[str, np.ndarray],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        made = [v for node in nodes for v in node.outputs if v]
        names = dict.fromkeys([*constants, *inputs, *made])
        place = {"": NOT_GIVEN} | {name: i for i, name in enumerate(names, UNREAD + 1)}
        self._empty: list[Any] = [None] * (len(place) + 1)
        for name, array in constants.items():
            self._empty[place[name]] = array
        self._inputs = [place[v] for v in inputs]
        self._outputs = [place[v] for v in outputs]
        last = {v: i for i, node in enumerate(nodes) for v in node.inputs if v}
        frees: list[list[int]] = [[] for _ in nodes]
        for name, i in last.items():
            if name not in outputs:
                frees[i].append(place[name])
        self._lines = [
            ([place[v] for v in node.inputs], [place[v] or UNREAD for v in node.outputs], free)
            for node, free in zip(nodes, frees, strict=True)
        ]
        self._names = [node.part.name for node in nodes]

    def run(self, steps: Sequence[Step], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs. steps: what each node does. A value is let go behind its last reader."""
        values = self._empty.copy()
        for place, array in zip(self._inputs, inputs, strict=True):
            values[place] = array
        for i, (reads, makes, frees) in enumerate(self._lines):
            made = steps[i](*[values[place] for place in reads])
            if len(made) < len(makes):
                raise ValueError(f"{self._names[i]} made {len(made)} values of {len(makes)}")
            for place, array in zip(makes, made, strict=False):
                values[place] = array
            for place in frees:
                values[place] = None
        return [values[place] for place in self._outputs]
