"""A tile of accumulators, rows x vectors, as one Numba value: what the cores are written with.

    acc = v.load_tile(3, 4, init, init_rs)
    acc = v.fma_tile(acc, a, a_rs, w)
    acc = v.add_tile(acc, out, out_rs)
    v.store_tile(acc, out, out_rs)
    v.fetch_row(w + 4096, 256)

Each is one statement to Numba's front end and rows x vectors instructions to LLVM, which keeps the
tile in registers.

Non-Goals: loops over k, which cores write; choosing a tile's size (`microkernels`).
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.extending import models, register_model

from rnncc.runtime.cpu.intrinsics.scalar_intrinsics import IS_X86, ask_for, laundered
from rnncc.runtime.cpu.intrinsics.vector_types import VecType, load, splat, store, vector_of
from rnncc.runtime.jit.intrinsics import primitive

I32, I64 = ir.IntType(32), ir.IntType(64)
CACHE_LINE = 64
# Rows from which LLVM's chain of addresses is slower than the multiply-adds.
CHAINED_ROWS = 4


class TileType(types.Type):
    """`rows` x `vectors` accumulators."""

    def __init__(self, vec: VecType, rows: int, vectors: int):
        self.vec, self.rows, self.vectors = vec, rows, vectors
        super().__init__(name=f"tile({vec}, {rows}, {vectors})")

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return self.vec.element.bitwidth // 8

    @property
    def vector_bytes(self) -> int:
        return self.vec.width * self.size


@register_model(TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        row = ir.ArrayType(vector_of(kind.vec), kind.vectors)
        super().__init__(manager, kind, ir.ArrayType(row, kind.rows))


def offset(builder: ir.IRBuilder, address: ir.Value, *terms: ir.Value | int) -> ir.Value:
    for term in terms:
        if isinstance(term, int):
            term = ir.Constant(I64, term)
        address = builder.add(address, term)
    return address


def _rows(builder: ir.IRBuilder, start: ir.Value, stride: ir.Value, rows: int) -> list[ir.Value]:
    """Each row's address."""
    multiples = [builder.mul(stride, ir.Constant(I64, row)) for row in range(rows)]
    if rows > CHAINED_ROWS and IS_X86:
        for row in range(3, rows):
            # Twice and four times the stride are addressing modes.
            if row != 4:
                multiples[row] = _hidden_product(builder, stride, row)
    return [builder.add(start, multiple) for multiple in multiples]


def _hidden_product(builder: ir.IRBuilder, stride: ir.Value, row: int) -> ir.Value:
    """stride * row, in a way that LLVM's loop passes can't see through.

    They would otherwise make each row's address from the last row's: a chain of one addition a row
    in the loop over k, which takes as long as the multiply-adds (6 x 2 tiles ran at 0.75 of the
    peak). As it is, the products are made once before the loop.
    """
    return laundered(builder, builder.mul(stride, ir.Constant(I64, row)))


def load_tile_of(vec: VecType):
    """`load_tile` for one vector type."""

    @primitive(literal=True)
    def load_tile(context, rows, vectors, start, stride):
        """Row m, vector v from start + m * stride + v * vector bytes; rows and vectors literal."""
        if not isinstance(rows, types.IntegerLiteral) or not isinstance(
            vectors, types.IntegerLiteral
        ):
            return None
        tile = TileType(vec, rows.literal_value, vectors.literal_value)
        kind = vector_of(vec)

        def emit(context, builder, sig, args):
            value = ir.Constant(context.get_value_type(tile), ir.Undefined)
            for m, row in enumerate(_rows(builder, args[2], args[3], tile.rows)):
                for v in range(tile.vectors):
                    place = offset(builder, row, v * tile.vector_bytes)
                    value = builder.insert_value(
                        value, load(builder, place, kind, tile.size), [m, v]
                    )
            return value

        return tile(rows, vectors, types.intp, types.intp), emit

    return load_tile


def fma_tile_by(widen: Callable[[ir.IRBuilder, "TileType", ir.Value, int], ir.Value], doc: str):
    """acc[m][v] += operand element of row m * weight vector v, each a fused multiply-add.

    widen: the vector v of weights that begin at an address, as lanes of the tile's element.
    """

    def fma_tile(context, acc, operand, stride, weight):
        if not isinstance(acc, TileType):
            return None
        tile, kind = acc, vector_of(acc.vec)

        def emit(context, builder, sig, args):
            acc, operand, stride, weight = args
            fma = fma_of(builder, tile)
            elements, weights = {}, {}
            # The longer side is read one at a time, so that a tile needs the fewest registers.
            order = [(m, v) for m in range(tile.rows) for v in range(tile.vectors)]
            if tile.rows <= tile.vectors:
                order.sort(key=lambda place: place[1])
            starts = _rows(builder, operand, stride, tile.rows)
            for m, v in order:
                if m not in elements:
                    element = load(builder, starts[m], kind.element, tile.size)
                    elements[m] = splat(builder, element, kind.count)
                if v not in weights:
                    weights[v] = widen(builder, tile, weight, v)
                old = builder.extract_value(acc, [m, v])
                new = builder.call(fma, [elements[m], weights[v], old])
                acc = builder.insert_value(acc, new, [m, v])
            return acc

        return tile(tile, types.intp, types.intp, types.intp), emit

    fma_tile.__doc__ = doc
    return primitive(fma_tile)


def fma_of(builder: ir.IRBuilder, tile: TileType) -> ir.Function:
    """The multiply-add of a tile's vectors."""
    kind = vector_of(tile.vec)
    name = f"llvm.fma.v{kind.count}f{tile.size * 8}"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)


def vector_at(builder: ir.IRBuilder, tile: TileType, start: ir.Value, v: int) -> ir.Value:
    """The vector v of a row."""
    place = offset(builder, start, v * tile.vector_bytes)
    return load(builder, place, vector_of(tile.vec), tile.size)


fma_tile = fma_tile_by(vector_at, "acc[m][v] += operand element of row m * weight vector v.")


@primitive(literal=True)
def fetch_row(context, start, size):
    """Asks for `size` bytes, literal, a cache line at a time; the address may be anything."""
    if not isinstance(size, types.IntegerLiteral):
        return None

    def emit(context, builder, sig, args):
        for at in range(0, size.literal_value, CACHE_LINE):
            ask_for(builder, offset(builder, args[0], at))
        return context.get_dummy_value()

    return types.void(types.intp, size), emit


@primitive
def add_tile(context, acc, start, stride):
    """The tile plus what lies in memory as `load_tile` reads it, a vector at a time: there are no
    registers for two tiles."""
    if not isinstance(acc, TileType):
        return None
    tile = acc

    def emit(context, builder, sig, args):
        acc, start, stride = args
        for m, row in enumerate(_rows(builder, start, stride, tile.rows)):
            for v in range(tile.vectors):
                there = vector_at(builder, tile, row, v)
                total = builder.fadd(builder.extract_value(acc, [m, v]), there)
                acc = builder.insert_value(acc, total, [m, v])
        return acc

    return tile(tile, types.intp, types.intp), emit


@primitive
def store_tile(context, acc, start, stride):
    """Writes the tile as `load_tile` reads it."""
    if not isinstance(acc, TileType):
        return None
    tile = acc

    def emit(context, builder, sig, args):
        for m, row in enumerate(_rows(builder, args[1], args[2], tile.rows)):
            for v in range(tile.vectors):
                place = offset(builder, row, v * tile.vector_bytes)
                store(builder, place, builder.extract_value(args[0], [m, v]), tile.size)
        return context.get_dummy_value()

    return types.void(tile, types.intp, types.intp), emit


@primitive
def transpose_tile(context, square):
    """Row m, lane n to row n, lane m, of a tile of one vector a row and as many rows as lanes."""
    if not isinstance(square, TileType) or (square.rows, 1) != (square.vec.width, square.vectors):
        return None
    tile = square

    def emit(context, builder, sig, args):
        rows = [builder.extract_value(args[0], [m, 0]) for m in range(tile.rows)]
        block = 1
        while block < tile.rows:  # off-diagonal blocks change places, each size in its turn
            for m in (m for m in range(tile.rows) if not m & block):
                a, b = rows[m], rows[m + block]
                rows[m] = builder.shuffle_vector(a, b, _swapped(tile.rows, block, 0))
                rows[m + block] = builder.shuffle_vector(a, b, _swapped(tile.rows, block, block))
            block *= 2
        value = ir.Constant(context.get_value_type(tile), ir.Undefined)
        for m, row in enumerate(rows):
            value = builder.insert_value(value, row, [m, 0])
        return value

    return tile(tile), emit


def _swapped(width: int, block: int, offset: int) -> ir.Constant:
    """Which lanes of two rows, numbered one after the other, make one row of the next size."""
    lanes = [(n & ~block) + offset + (width if n & block else 0) for n in range(width)]
    return ir.Constant(ir.VectorType(I32, width), lanes)
