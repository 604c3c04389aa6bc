"""A layer on simulated CUDA kernels and its twin on the interpreter.

Non-Goals: asserting anything.
"""

from __future__ import annotations

from typing import Any

from rnncc import compiler
from rnncc.runtime.cuda.driver.current_target import using
from tests.support import cases
from tests.support.gpu_simulator.grid import Simulator
from tests.support.twins import LayerAndReference, Shape


class Twins(LayerAndReference):
    @classmethod
    def of(
        cls, name: str, variant: str, shape: Shape, dtype: str = "float32", **chosen: Any
    ) -> Twins:
        compiled = compiler.layer_class(cases.spec_of(name), "cuda", dtype)
        return cls.between(compiled, name, variant, shape, dtype, **chosen)

    def worst(self, simulator: Simulator, tier: str | None = None) -> tuple[float, str]:
        """The largest error of the kernels, and whose it is."""
        right = self.results(self.reference)
        with using(simulator):
            key = bool(self.call["training"]), "mask" in self.call
            engine = self.layer._engine(*key)[1]
            engine.use_tier(tier)
            try:
                found = self.results(self.layer)
            finally:
                engine.use_tier(None)
        return cases.worst(found, right)
