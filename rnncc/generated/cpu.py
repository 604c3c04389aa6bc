"""All that a generated module for the CPU imports.

Its text names this module alone, so what lies behind may move without changing any text.

Non-Goals: what the names mean; each is documented where it comes from.
"""

from __future__ import annotations

from rnncc.artifact.array_tables import BufferView
from rnncc.artifact.cell import Array, CellDescription, Constraint, Rate, SizeDescription, Variant
from rnncc.artifact.kernel_tables import (
    CopySpec,
    CoreSpec,
    DirectionSpec,
    GradSpec,
    KernelSpec,
    OperandSpec,
    PackSpec,
    PieceSpec,
    StageSpec,
    gates,
)
from rnncc.generated.on_demand import cpu_layer_class as layer_class
from rnncc.runtime.cpu.execution.engine import CpuEngine
from rnncc.runtime.cpu.execution.second_engine import CpuSecondEngine
from rnncc.runtime.cpu.intrinsics.kernel_namespace import (
    call_core,
    flush_denormals,
    host_vectors,
    opaque,
    restore_denormals,
    set_word,
    set_words,
    ticks,
    word,
    words,
)
from rnncc.runtime.cpu.kernels.barrier import barrier, enter
from rnncc.runtime.cpu.kernels.loop_helpers import (
    POINTER_BYTES,
    POINTERS_AT,
    SPILLS_AT,
    TILE_BYTES,
    TURN_AT,
    block_rows,
    contract_rows,
    copy_pieces,
    draw_float32,
    draw_float64,
    fetch_tile,
    lane_range,
    own_part,
    own_rows,
    row_key,
    row_range,
    segment,
    segment_if,
    share,
    tile_rows,
)
from rnncc.runtime.cpu.kernels.stamps import STAMP_LINE, stamp
from rnncc.runtime.jit.kernel import inlined, kernel, one_row

__all__ = [
    "POINTERS_AT",
    "POINTER_BYTES",
    "SPILLS_AT",
    "STAMP_LINE",
    "TILE_BYTES",
    "TURN_AT",
    "Array",
    "BufferView",
    "CellDescription",
    "Constraint",
    "CopySpec",
    "CoreSpec",
    "CpuEngine",
    "CpuSecondEngine",
    "DirectionSpec",
    "GradSpec",
    "KernelSpec",
    "OperandSpec",
    "PackSpec",
    "PieceSpec",
    "Rate",
    "SizeDescription",
    "StageSpec",
    "Variant",
    "barrier",
    "block_rows",
    "call_core",
    "contract_rows",
    "copy_pieces",
    "draw_float32",
    "draw_float64",
    "enter",
    "fetch_tile",
    "flush_denormals",
    "gates",
    "host_vectors",
    "inlined",
    "kernel",
    "lane_range",
    "layer_class",
    "one_row",
    "opaque",
    "own_part",
    "own_rows",
    "restore_denormals",
    "row_key",
    "row_range",
    "segment",
    "segment_if",
    "set_word",
    "set_words",
    "share",
    "stamp",
    "ticks",
    "tile_rows",
    "word",
    "words",
]
