"""Numba types for vectors and masks, and the LLVM loads, stores and splats under everything.

Non-Goals: operations on them (`simd`, `tile_intrinsics`, `vector_math`).
"""

from llvmlite import ir
from numba import types
from numba.core.extending import models, register_model

I32 = ir.IntType(32)


class VecType(types.Type):
    """`width` floats in a register."""

    def __init__(self, element: types.Float, width: int):
        self.element, self.width = element, width
        super().__init__(name=f"vec({element}x{width})")


class MaskType(types.Type):
    """`width` truth values, as a comparison of vectors gives them."""

    def __init__(self, width: int):
        self.width = width
        super().__init__(name=f"mask({width})")


@register_model(VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, vector_of(kind))


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), kind.width))


def vector_of(kind: VecType) -> ir.VectorType:
    """The LLVM type behind a VecType."""
    element = ir.DoubleType() if kind.element is types.float64 else ir.FloatType()
    return ir.VectorType(element, kind.width)


def splat(builder: ir.IRBuilder, scalar: ir.Value, width: int) -> ir.Value:
    """The scalar in every lane."""
    kind = ir.VectorType(scalar.type, width)
    undefined = ir.Constant(kind, ir.Undefined)
    if isinstance(scalar, ir.Constant):
        return ir.Constant(kind, [scalar.constant] * width)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, width), [0] * width)
    return builder.shuffle_vector(first, undefined, zeros)


def pointer(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    return builder.inttoptr(address, kind.as_pointer())


def load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
    value = builder.load(pointer(builder, address, kind))
    value.align = align
    return value


def store(builder: ir.IRBuilder, address: ir.Value, value: ir.Value, align: int) -> None:
    builder.store(value, pointer(builder, address, value.type)).align = align
