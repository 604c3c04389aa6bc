"""What cores and packers of narrow weights are written with, beside `tile_intrinsics`.

    acc = v.fma_low(acc, a, a_rs, w)        weights are the lower halves of words: bfloat16
    acc = v.fma_high(acc, a, a_rs, w)       the upper halves
    part = v.fma_bytes(part, a, a_rs, q)    bytes
    acc = v.add_scaled(acc, part, scales)
    v.store_halves(to, low, high)
    v.store_bytes(to, x)

Non-Goals: loops over k, which cores write; where weights lie (`weight_formats`).
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from rnncc.runtime.cpu.intrinsics.tile_intrinsics import (
    TileType,
    fma_of,
    fma_tile_by,
    offset,
    vector_at,
)
from rnncc.runtime.cpu.intrinsics.vector_types import I32, VecType, load, store, vector_of
from rnncc.runtime.jit.intrinsics import primitive

I8 = ir.IntType(8)
UPPER = 0xFFFF0000


def _words(kind: ir.VectorType) -> ir.VectorType:
    return ir.VectorType(I32, kind.count)


def _all(kind: ir.VectorType, number: int) -> ir.Constant:
    return ir.Constant(kind, [number] * kind.count)


def _word_vector(builder: ir.IRBuilder, tile: TileType, start: ir.Value, v: int) -> ir.Value:
    place = offset(builder, start, v * tile.vector_bytes)
    return load(builder, place, _words(vector_of(tile.vec)), tile.size)


def _low(builder: ir.IRBuilder, tile: TileType, start: ir.Value, v: int) -> ir.Value:
    word = _word_vector(builder, tile, start, v)
    return builder.bitcast(builder.shl(word, _all(word.type, 16)), vector_of(tile.vec))


def _high(builder: ir.IRBuilder, tile: TileType, start: ir.Value, v: int) -> ir.Value:
    word = _word_vector(builder, tile, start, v)
    return builder.bitcast(builder.and_(word, _all(word.type, UPPER)), vector_of(tile.vec))


def _bytes(builder: ir.IRBuilder, tile: TileType, start: ir.Value, v: int) -> ir.Value:
    kind = vector_of(tile.vec)
    place = offset(builder, start, v * kind.count)
    return builder.sitofp(load(builder, place, ir.VectorType(I8, kind.count), 1), kind)


fma_low = fma_tile_by(_low, "As fma_tile, weights being the lower halves of words.")
fma_high = fma_tile_by(_high, "As fma_tile, weights being the upper halves of words.")
fma_bytes = fma_tile_by(_bytes, "As fma_tile, weights being bytes.")


def zero_tile_of(vec: VecType):
    """`zero_tile` for one vector type."""

    @primitive(literal=True)
    def zero_tile(context, rows, vectors):
        """rows x vectors zeros; both literal."""
        if not isinstance(rows, types.IntegerLiteral) or not isinstance(
            vectors, types.IntegerLiteral
        ):
            return None
        tile = TileType(vec, rows.literal_value, vectors.literal_value)

        def emit(context, builder, sig, args):
            return ir.Constant(context.get_value_type(tile), None)

        return tile(rows, vectors), emit

    return zero_tile


@primitive
def add_scaled(context, acc, part, scales):
    """acc[m][v] += part[m][v] * vector v of the scales."""
    if not isinstance(acc, TileType) or acc != part:
        return None
    tile = acc

    def emit(context, builder, sig, args):
        acc, part, start = args
        fma = fma_of(builder, tile)
        for v in range(tile.vectors):
            scale = vector_at(builder, tile, start, v)
            for m in range(tile.rows):
                parts = [builder.extract_value(value, [m, v]) for value in (part, acc)]
                new = builder.call(fma, [parts[0], scale, parts[1]])
                acc = builder.insert_value(acc, new, [m, v])
        return acc

    return tile(tile, tile, types.intp), emit


# ---- packing -----------------------------------------------------------------------------------


def _rounded(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """Words whose upper halves are x in bfloat16: to the nearest, to even between two.

    Half of the last place is added, less one bit where that place is even; NaN would be carried
    over into infinity, so it is made quiet instead.
    """
    kind = _words(x.type)
    word = builder.bitcast(x, kind)
    odd = builder.and_(builder.lshr(word, _all(kind, 16)), _all(kind, 1))
    nearest = builder.add(word, builder.add(odd, _all(kind, 0x7FFF)))
    quiet = builder.or_(word, _all(kind, 0x00400000))
    return builder.select(builder.fcmp_unordered("uno", x, x), quiet, nearest)


@primitive
def store_halves(context, address, low, high):
    """One word a lane: `low` in bfloat16 in its lower half, `high` in its upper one."""
    if not isinstance(low, VecType) or low != high:
        return None

    def emit(context, builder, sig, args):
        address, low, high = args
        kind = _words(low.type)
        lower = builder.lshr(_rounded(builder, low), _all(kind, 16))
        upper = builder.and_(_rounded(builder, high), _all(kind, UPPER))
        store(builder, address, builder.or_(lower, upper), 4)
        return context.get_dummy_value()

    return types.void(types.intp, low, low), emit


@primitive
def store_bytes(context, address, x):
    """One byte a lane: the nearest integer, at most 127 from zero but for -128; NaN is 0."""
    if not isinstance(x, VecType):
        return None

    def emit(context, builder, sig, args):
        address, x = args
        count = x.type.count
        whole = ir.VectorType(I8, count)
        module = builder.module
        name = f"llvm.rint.v{count}f32"
        rint = cgutils.get_or_insert_function(module, ir.FunctionType(x.type, [x.type]), name)
        name = f"llvm.fptosi.sat.v{count}i8.v{count}f32"
        cut = cgutils.get_or_insert_function(module, ir.FunctionType(whole, [x.type]), name)
        store(builder, address, builder.call(cut, [builder.call(rint, [x])]), 1)
        return context.get_dummy_value()

    return types.void(types.intp, x), emit


def operations(vec: VecType) -> dict:
    """By name, for vectors of float32."""
    every = (fma_low, fma_high, fma_bytes, add_scaled, store_halves, store_bytes)
    names = ("fma_low", "fma_high", "fma_bytes", "add_scaled", "store_halves", "store_bytes")
    return {**dict(zip(names, every, strict=True)), "zero_tile": zero_tile_of(vec)}
