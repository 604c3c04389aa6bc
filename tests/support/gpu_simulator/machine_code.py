"""Kernels of cells, to PTX and machine code, and what is wrong with those."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rnncc import compiler
from rnncc.artifact.cell import Variant
from rnncc.artifact.stationary_weights import BlockCapacity, numbers
from rnncc.common.size_expressions import evaluate
from rnncc.lowering.describe import describe
from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from tests.support import cases

CAPABILITIES = ((8, 0), (9, 0))
BUILT_IN = [n for n in cases.NAMES if "tests" not in cases.FILES[n].parts]


def kernels_of(name: str, variant: str) -> list[CudaKernel]:
    """Both directions' kernels."""
    return [k.function for k in tables_of(name, variant)]


def tables_of(name: str, variant: str) -> list[Any]:
    """What a module says of both directions' kernels."""
    spec = cases.spec_of(name)
    rates = frozenset(r.name for r in spec.rates)
    asked = {
        "plain": Variant(),
        "mask": Variant(mask=True),
        "drawn": Variant(training=True, active_rates=rates),
    }[variant]
    engine: Any = compiler.cuda_engine(spec, describe(spec), asked)
    sides = (engine._forward, engine._backward)
    return [k for side in sides for k in side.direction.kernels]


def compiled(kernel: CudaKernel, capability: tuple[int, int], dtype: str = "float32") -> Any:
    """PTX and the assembler's report."""
    from rnncc.runtime.cuda.kernels import ptx

    text = ptx.ptx(kernel, dtype, capability)
    assert f".target sm_{capability[0]}{capability[1]}" in text
    return text, ptx.assemble(text, capability)[1]


@contextmanager
def typed_once() -> Iterator[None]:
    """One kernel is compiled in here: numba types it once, whatever the architectures."""
    from numba.cuda import compiler

    whole, made = compiler._compile_pyfunc_with_fixup, []

    def first(*given: Any, **more: Any) -> Any:
        if not made:
            made.append(whole(*given, **more))
        return made[0]

    compiler._compile_pyfunc_with_fixup = first
    try:
        yield
    finally:
        compiler._compile_pyfunc_with_fixup = whole


# What is in no kernel of single precision, and why.
FORBIDDEN = {
    ".f64": "a double slipped in",
    ".local": "an array isn't in registers",
    "ld.global.nc": "a read that barriers don't order",
}
# What sin and cos of numbers above 1e5 are reduced by: libdevice's table, array and doubles.
REDUCTION = "__cudart_i2opi_f"


def faults(text: str, report: Any) -> list[str]:
    found = [f"{word}: {why}" for word, why in FORBIDDEN.items() if word in text]
    found = [] if REDUCTION in text else found
    return found + [f"{report.spilled} bytes spilled"] * bool(report.spilled)


def twins_of(
    name: str, units: int, rows: int, variant: str = "plain", warps: int = 8, shared: int = 227
) -> list[CudaKernel]:
    """The loops whose weights can stay on the chip, for that size; where there are stages between
    their sums, not in blocks of more warps than usual."""
    sizes = cases.sizes_for(cases.spec_of(name), units, units)
    room = BlockCapacity(shared * 1024)
    found = []
    for table in tables_of(name, variant):
        twin = table.function.twin
        if twin is not None and (table.levels == 1 or warps == 8):
            made = numbers(
                twin.shapes,
                lambda text: evaluate(text, sizes),
                *(rows, warps, room, twin.words, table.levels),
            )
            assert not isinstance(made, str), made
            found.append(twin.built(made.constants))
    return found
