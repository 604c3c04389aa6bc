"""Layers on the interpreter whose programs went through all passes: between `oracle` and kernels.

Non-Goals: schedules and what comes after them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncc.artifact.cell import CellDescription, Variant
from rnncc.compiler import layer_class
from rnncc.frontend.spec import CellSpec
from rnncc.oracle import OracleEngine, OracleSecondEngine, oracle_engine
from rnncc.passes.pipeline import optimise
from rnncc.schedule.legalize import legalize


def optimised_engine(
    spec: CellSpec, cell: CellDescription, variant: Variant
) -> OracleEngine | OracleSecondEngine:
    engine = oracle_engine(spec, cell, variant)
    if isinstance(engine, OracleEngine):
        engine.program = legalize(optimise(engine.program))
        engine.training = legalize(optimise(engine.training))
        engine.pullback = legalize(optimise(engine.pullback))
    else:
        whole = engine.programs
        engine.programs = type(whole)(*(legalize(optimise(p)) for p in whole))
    return engine


def optimised_class(spec: CellSpec, dtype: Any = np.float64) -> type[Any]:
    return layer_class(spec, "cpu", dtype, optimised_engine)
