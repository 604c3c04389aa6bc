"""A dtype and a width to a module of vector operations for Numba kernels.

    v = vectors("float32", 8)
    v.store(out, v.fma(v.broadcast(a), v.load(w), 1.0 / (1.0 + v.exp(-x))))

Addresses are byte addresses (intp). Vectors take Python's operators with each other and with
scalars on either side; a comparison gives a mask. Everything is one LLVM instruction sequence
emitted in place: typing is `infer_global`/`lower_builtin`, because Numba's `@overload` costs
compile time on every statement that uses it.

Non-Goals: formulas (`vector_math`); integers and atomics (`scalar_intrinsics`); NumPy arrays.
"""

import math
import operator
import sys
from types import ModuleType

from llvmlite import ir
from numba import types
from numba.core.extending import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from rnncc.runtime.common.one_for_all import one_for_all
from rnncc.runtime.cpu.intrinsics import quantized_tiles, rounding, trigonometry, vector_math
from rnncc.runtime.cpu.intrinsics.tile_intrinsics import (
    add_tile,
    fetch_row,
    fma_tile,
    load_tile_of,
    store_tile,
    transpose_tile,
)
from rnncc.runtime.cpu.intrinsics.vector_math import LIBRARY, Lanes
from rnncc.runtime.cpu.intrinsics.vector_types import (
    I32,
    MaskType,
    VecType,
    load,
    pointer,
    splat,
    store,
    vector_of,
)
from rnncc.runtime.jit.intrinsics import primitive

ELEMENTS = {"float32": types.float32, "float64": types.float64}


def _vec_among(args) -> VecType | None:
    """The one vector type among the arguments, where all the others are it or scalars."""
    vec_type = None
    for arg in args:
        if isinstance(arg, VecType):
            if vec_type is not None and arg != vec_type:
                return None
            vec_type = arg
        elif not isinstance(types.unliteral(arg), (types.Number, types.Boolean)):
            return None
    return vec_type


def _scalars_as(vec: VecType, args) -> list[types.Type]:
    return [arg if isinstance(arg, VecType) else vec.element for arg in args]


def _lanes(builder, vec: VecType, kinds, values) -> list[Lanes]:
    """Arguments as lanes, scalars splatted."""
    return [
        Lanes(builder, value if isinstance(kind, VecType) else splat(builder, value, vec.width))
        for kind, value in zip(kinds, values, strict=True)
    ]


# Operators. Templates that return None leave the operator to Numba's own.


class _Arithmetic(AbstractTemplate):
    def generic(self, args, kws):
        vec = _vec_among(args)
        return signature(vec, *_scalars_as(vec, args)) if vec is not None else None


class _Comparison(AbstractTemplate):
    def generic(self, args, kws):
        vec = _vec_among(args)
        if vec is not None:
            return signature(MaskType(vec.width), *_scalars_as(vec, args))
        return None


class _Logic(AbstractTemplate):
    def generic(self, args, kws):
        if all(isinstance(arg, MaskType) and arg == args[0] for arg in args):
            return signature(args[0], *args)
        return None


def _register(key, template, apply, arity: int = 2, kind=VecType) -> None:
    """One operator for vectors (or masks), `apply` working on lanes."""

    def lower(context, builder, sig, args):
        vec = next(arg for arg in sig.args if isinstance(arg, kind))
        return apply(*_lanes(builder, vec, sig.args, args)).value

    def lower_masks(context, builder, sig, args):
        return apply(*(Lanes(builder, arg) for arg in args)).value

    infer_global(key)(type(f"_{key.__name__}", (template,), {}))
    if kind is MaskType:
        lower_builtin(key, *[MaskType] * arity)(lower_masks)
    elif arity == 1:
        lower_builtin(key, VecType)(lower)
    else:
        for pattern in ((VecType, VecType), (VecType, types.Float), (types.Float, VecType)):
            lower_builtin(key, *pattern)(lower)


for _name in ("add", "sub", "mul", "truediv"):
    _register(getattr(operator, _name), _Arithmetic, getattr(operator, _name))
    _register(getattr(operator, f"i{_name}"), _Arithmetic, getattr(operator, _name))
_register(operator.neg, _Arithmetic, operator.neg, arity=1)
_register(operator.pos, _Arithmetic, operator.pos, arity=1)
for _key, _relation in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _register(_key, _Comparison, lambda a, b, relation=_relation: a.compare(relation, b))
for _name in ("and_", "or_"):
    _register(getattr(operator, _name), _Logic, getattr(operator, _name), kind=MaskType)
_register(operator.xor, _Logic, lambda a, b: a._emit("xor", b), kind=MaskType)
_register(operator.invert, _Logic, operator.invert, arity=1, kind=MaskType)


# Functions of vectors: one set for all types.


def _pointwise(formula, arity: int):
    """`formula` as a primitive of `arity` vectors, of which some may be scalars."""

    def typed(args):
        vec = _vec_among(args)
        if vec is None:
            return None

        def emit(context, builder, sig, values):
            return formula(*_lanes(builder, vec, sig.args, values)).value

        return signature(vec, *_scalars_as(vec, args)), emit

    # Numba reads the number of arguments off the signature, so each arity is spelled out.
    if arity == 1:
        return primitive(lambda context, a: typed((a,)))
    if arity == 2:
        return primitive(lambda context, a, b: typed((a, b)))
    return primitive(lambda context, a, b, c: typed((a, b, c)))


FUNCTIONS = {
    name: _pointwise(formula, arity)
    for formulas in (vector_math.FORMULAS, rounding.FORMULAS, trigonometry.FORMULAS)
    for name, (formula, arity) in formulas.items()
}


@primitive
def select(context, mask, a, b):
    """a where the mask is true, else b."""
    vec = _vec_among((a, b))
    if not isinstance(mask, MaskType) or vec is None:
        return None

    def emit(context, builder, sig, values):
        a, b = _lanes(builder, vec, sig.args[1:], values[1:])
        return builder.select(values[0], a.value, b.value)

    return signature(vec, mask, *_scalars_as(vec, (a, b))), emit


def _reduce_mask(name: str):
    @primitive
    def reduce(context, mask):
        def emit(context, builder, sig, values):
            kind = ir.FunctionType(ir.IntType(1), [values[0].type])
            title = f"llvm.vector.reduce.{name}.v{mask.width}i1"
            module = builder.module
            callee = module.globals.get(title) or ir.Function(module, kind, title)
            return builder.call(callee, values)

        return signature(types.boolean, mask), emit

    return reduce


def _fold(combine):
    """All lanes to one scalar: halves are combined until one lane is left, a fixed tree."""

    @primitive
    def fold(context, vec):
        if not isinstance(vec, VecType):
            return None

        def emit(context, builder, sig, values):
            value, width = values[0], vec.width
            while width > 1:
                width //= 2
                low, high = (
                    builder.shuffle_vector(
                        value,
                        ir.Constant(value.type, ir.Undefined),
                        ir.Constant(ir.VectorType(I32, width), list(range(start, start + width))),
                    )
                    for start in (0, width)
                )
                value = combine(Lanes(builder, low), Lanes(builder, high)).value
            return builder.extract_element(value, ir.Constant(I32, 0))

        return vec.element(vec), emit

    return fold


FOLDS = {
    "fold_add": _fold(operator.add),
    "fold_mul": _fold(operator.mul),
    "fold_max": _fold(vector_math.maximum),
    "fold_min": _fold(vector_math.minimum),
}


# Operations that name the type: made once for each.


def _memory(vec: VecType) -> dict:
    """Loads, stores and constants of one vector type."""
    element, width, kind = vec.element, vec.width, vector_of(vec)
    size = element.bitwidth // 8

    @primitive
    def load_(context, address):
        def emit(context, builder, sig, args):
            return load(builder, args[0], kind, size)

        return vec(types.intp), emit

    @primitive
    def store_(context, address, value):
        def emit(context, builder, sig, args):
            store(builder, args[0], args[1], size)
            return context.get_dummy_value()

        return types.void(types.intp, vec), emit

    @primitive
    def broadcast(context, address):
        def emit(context, builder, sig, args):
            return splat(builder, load(builder, args[0], kind.element, size), width)

        return vec(types.intp), emit

    @primitive
    def splat_(context, scalar):
        def emit(context, builder, sig, args):
            return splat(builder, args[0], width)

        return vec(element), emit

    @primitive
    def lane(context):
        def emit(context, builder, sig, args):
            return ir.Constant(kind, [float(i) for i in range(width)])

        return vec(), emit

    @primitive
    def get(context, address):
        def emit(context, builder, sig, args):
            return load(builder, args[0], kind.element, size)

        return element(types.intp), emit

    @primitive
    def put(context, address, scalar):
        def emit(context, builder, sig, args):
            store(builder, args[0], args[1], size)
            return context.get_dummy_value()

        return types.void(types.intp, element), emit

    named = (load_, store_, broadcast, splat_, lane, get, put)
    return {function.__name__.rstrip("_"): function for function in named}


def _partial(vec: VecType) -> dict:
    """Loads and stores of a vector's first n lanes, for the tails of arrays that aren't ours."""
    width, kind = vec.width, vector_of(vec)
    size = vec.element.bitwidth // 8
    suffix = f"v{width}f{size * 8}.p0"

    def first(builder, count):
        lanes = ir.Constant(ir.VectorType(ir.IntType(64), width), list(range(width)))
        return builder.icmp_signed("<", lanes, splat(builder, count, width))

    def call(builder, name, result, args):
        module, title = builder.module, f"llvm.masked.{name}.{suffix}"
        kinds = ir.FunctionType(result, [arg.type for arg in args])
        return builder.call(module.globals.get(title) or ir.Function(module, kinds, title), args)

    @primitive
    def load_first(context, address, count):
        """The first `count` lanes; the others are zero and not read."""

        def emit(context, builder, sig, args):
            place = pointer(builder, args[0], kind)
            zero = ir.Constant(kind, [0.0] * width)
            align = ir.Constant(I32, size)
            return call(builder, "load", kind, [place, align, first(builder, args[1]), zero])

        return vec(types.intp, types.intp), emit

    @primitive
    def store_first(context, address, value, count):
        """The first `count` lanes; what lies behind them stays."""

        def emit(context, builder, sig, args):
            place = pointer(builder, args[0], kind)
            align = ir.Constant(I32, size)
            mask = first(builder, args[2])
            call(builder, "store", ir.VoidType(), [args[1], place, align, mask])
            return context.get_dummy_value()

        return types.void(types.intp, vec, types.intp), emit

    @primitive
    def store_part(context, address, value, left):
        """The lanes in front of a part's end, which is `left` bytes away: mostly all of them."""

        def emit(context, builder, sig, args):
            address, value, left = args
            whole = builder.icmp_signed(">=", left, ir.Constant(left.type, width * size))
            with builder.if_else(whole, likely=True) as (then, otherwise):
                with then:
                    store(builder, address, value, size)
                with otherwise:
                    count = builder.sdiv(left, ir.Constant(left.type, size))
                    mask = first(builder, count)
                    rest = [value, pointer(builder, address, kind), ir.Constant(I32, size), mask]
                    call(builder, "store", ir.VoidType(), rest)
            return context.get_dummy_value()

        return types.void(types.intp, vec, types.intp), emit

    return {"load_first": load_first, "store_first": store_first, "store_part": store_part}


@one_for_all
def vectors(dtype: str, width: int) -> ModuleType:
    """The operations on `width` lanes of `dtype`, as a module that Numba resolves attributes of."""
    if dtype not in ELEMENTS:
        raise ValueError(f"dtype must be one of {', '.join(ELEMENTS)}, not {dtype!r}")
    if width < 1 or width & (width - 1):
        raise ValueError(f"width must be a power of two, not {width!r}")
    vec = VecType(ELEMENTS[dtype], width)
    name = f"{__package__}.vectors_{dtype}x{width}"
    module = ModuleType(name, f"{width} lanes of {dtype}; see {__name__}.")
    module.__dict__.update(
        FUNCTIONS,
        **FOLDS,
        **_memory(vec),
        **_partial(vec),
        select=select,
        load_tile=load_tile_of(vec),
        fma_tile=fma_tile,
        add_tile=add_tile,
        store_tile=store_tile,
        transpose_tile=transpose_tile,
        fetch_row=fetch_row,
        **quantized_tiles.operations(vec),
        any=_reduce_mask("or"),
        all=_reduce_mask("and"),
        dtype=dtype,
        width=width,
        size=vec.element.bitwidth // 8,
        bytes=width * vec.element.bitwidth // 8,
        inf=math.inf,
        Vec=vec,
        LIBRARY=LIBRARY,
    )
    sys.modules[name] = module
    return module
