"""All that a generated module for CUDA imports; see `generated.cpu`."""

from __future__ import annotations

from rnncc.artifact.cell import Array, Cell, Constraint, Rate, SizeDecl, Variant
from rnncc.artifact.kernel_tables import (
    Buffer,
    Carry,
    Core,
    Direction,
    Grad,
    Kernel,
    Operand,
    Pack,
    Place,
    Source,
    Stage,
    Summed,
)
from rnncc.runtime.api.layer import frozen_layer_class as layer_class
from rnncc.runtime.cuda.execution.engine import CudaEngine, CudaSecondEngine
from rnncc.runtime.cuda.kernels.kernel import Shape, kernel, stationary, summed
from rnncc.runtime.cuda.kernels.kernel_namespace import (
    COUNTER_BYTES,
    F,
    anew,
    cuda,
    level_barrier,
    row_key,
    share,
    team_sum,
    uniform,
    v,
)

__all__ = [
    "COUNTER_BYTES",
    "Array",
    "Buffer",
    "Carry",
    "Cell",
    "Constraint",
    "Core",
    "CudaEngine",
    "CudaSecondEngine",
    "Direction",
    "F",
    "Grad",
    "Kernel",
    "Operand",
    "Pack",
    "Place",
    "Rate",
    "Shape",
    "SizeDecl",
    "Source",
    "Stage",
    "Summed",
    "Variant",
    "anew",
    "cuda",
    "kernel",
    "layer_class",
    "level_barrier",
    "row_key",
    "share",
    "stationary",
    "summed",
    "team_sum",
    "uniform",
    "v",
]
