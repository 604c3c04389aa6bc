"""All that a generated module for CUDA imports; see `generated.cpu`."""

from __future__ import annotations

from rnncc.artifact.array_tables import BufferView
from rnncc.artifact.cell import Array, CellDescription, Constraint, Rate, SizeDescription, Variant
from rnncc.artifact.kernel_tables import (
    CoreSpec,
    DirectionSpec,
    GradSpec,
    KernelSpec,
    OperandSpec,
    PackSpec,
    StageSpec,
    SummedSpec,
    gates,
)
from rnncc.generated.on_demand import cuda_layer_class as layer_class
from rnncc.runtime.cuda.execution.engine import CudaEngine, CudaSecondEngine
from rnncc.runtime.cuda.kernels.kernel import GroupShape, kernel, stationary, summed
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
    "BufferView",
    "CellDescription",
    "Constraint",
    "CoreSpec",
    "CudaEngine",
    "CudaSecondEngine",
    "DirectionSpec",
    "F",
    "GradSpec",
    "GroupShape",
    "KernelSpec",
    "OperandSpec",
    "PackSpec",
    "Rate",
    "SizeDescription",
    "StageSpec",
    "SummedSpec",
    "Variant",
    "anew",
    "cuda",
    "gates",
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
