"""A layer on simulated CPU kernels and its twin on the interpreter.

Non-Goals: asserting anything.
"""

from __future__ import annotations

from typing import Any

from tests.support import cases
from tests.support.cpu_simulator.simulate import Simulator, simulated_class
from tests.support.twins import LayerAndReference, Shape


class Twins(LayerAndReference):
    @classmethod
    def of(
        cls,
        name: str,
        variant: str,
        shape: Shape,
        simulator: Simulator,
        dtype: str = "float64",
        **chosen: Any,
    ) -> Twins:
        simulated = simulated_class(cases.spec_of(name), dtype, simulator=simulator)
        return cls.between(simulated, name, variant, shape, dtype, **chosen)

    def worst(self) -> tuple[float, str]:
        """The largest error of the kernels, and whose it is."""
        return cases.worst(self.results(self.layer), self.results(self.reference))
