"""What a GPU does in one instruction, for numba-cuda to compile: memory, fma, shuffles, barriers.

Addresses are 64-bit integers of global memory, as words of a block hold them.

Non-Goals: arithmetic over them (`scalars`); launching (`device`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from rnncc.runtime.cuda.kernels.namespace_bindings import meanings

if not hasattr(np, "row_stack"):  # gone in NumPy 2.5; numba-cuda 0.30 asks for it
    np.row_stack = np.vstack  # type: ignore[attr-defined]

GLOBAL, SHARED = 1, 3  # address spaces
ALL_LANES = 0xFFFFFFFF
COPIES = (8, 0)  # the first capability with them


@cache
def names(dtype: str, copies: bool) -> dict[str, Any]:
    """The meanings of a kernel's names, in numba-cuda's terms. copies: the device copies into
    shared memory on the side (`COPIES`). ImportError without numba-cuda."""
    from numba import cuda
    from numba.cuda import types

    number = getattr(types, dtype)

    def compiled(function: Any) -> Any:
        return cuda.jit(function, device=True, inline="always")

    load = _load(number, number)
    lanes = {
        "load": load,
        "broadcast": load,
        "store": _store(number),
        "fma": _fma(number),
        "shuffle_xor": _shuffle_xor(),
        "shared_load": _shared_load(number, 1),
        "shared_load4": _shared_load(number, 4),
        "shared_store": _shared_store(number),
    }
    if copies:
        lanes |= {"copy": _copy(number, 1), "copy4": _copy(number, 4), "copied": _copied()}
    return meanings(
        {
            "cuda": cuda,
            "F": number,
            "SIZE": number.bitwidth // 8,
            "U": np.uint64,
            "I": np.int64,
            "math": math,
            "add_release": _asm("red.release.gpu.global.add.u64 [$0], $1;", None, 2),
            "anew": _asm("mov.u64 $0, $1;", "int64", 1, memory=False),
            "give_up": _asm("trap;", None, 0),
            "load_acquire": _asm("ld.acquire.gpu.global.u64 $0, [$1];", "int64", 1),
        },
        lanes,
        compiled,
    )


def _shuffle_xor() -> Any:
    from numba import cuda

    @cuda.jit(device=True, inline="always")
    def shuffle_xor(x: float, width: int) -> float:
        return cuda.shfl_xor_sync(ALL_LANES, x, width)

    return shuffle_xor


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    from llvmlite import ir

    return builder.inttoptr(address, ir.PointerType(kind, GLOBAL))


def _load(number: Any, result: Any) -> Any:
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def load(context: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = context.cast(builder, args[0], sig.args[0], types.int64)
            kind = context.get_data_type(number)
            return builder.load(_pointer(builder, at, kind))

        return result(types.int64), codegen

    return load


def _store(number: Any) -> Any:
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def store(context: Any, address: Any, x: Any) -> Any:
        if x != number:  # a double that slipped in would be slow, not wrong: nobody would notice
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = context.get_data_type(number)
            builder.store(args[1], _pointer(builder, args[0], kind))
            return context.get_dummy_value()

        return types.void(types.int64, number), codegen

    return store


def _shared(context: Any, builder: Any, index: Any, kind: Any, count: int) -> Any:
    """Element `index` of the block's own memory, which a launch gives its size."""
    from llvmlite import ir
    from numba.core import cgutils

    name = "rnncc_shared"
    array = ir.ArrayType(ir.IntType(8), 0)
    memory = builder.module.globals.get(name)
    if memory is None:
        memory = cgutils.add_global_variable(builder.module, array, name, addrspace=SHARED)
        memory.linkage, memory.align = "external", 16
    base = builder.bitcast(memory, ir.PointerType(kind, SHARED))
    place = builder.gep(base, [index])
    if count == 1:
        return place
    return builder.bitcast(place, ir.PointerType(ir.VectorType(kind, count), SHARED))


def _shared_load(number: Any, count: int) -> Any:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    result = number if count == 1 else types.UniTuple(number, count)

    @intrinsic
    def load(context: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = context.get_data_type(number)
            found = builder.load(_shared(context, builder, args[0], kind, count))
            if count == 1:
                return found
            found.align = 16
            places = [ir.Constant(ir.IntType(32), i) for i in range(count)]
            parts = [builder.extract_element(found, i) for i in places]
            return context.make_tuple(builder, result, parts)

        return result(types.int64), codegen

    return load


def _shared_store(number: Any) -> Any:
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def store(context: Any, index: Any, x: Any) -> Any:
        if x != number:
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = context.get_data_type(number)
            builder.store(args[1], _shared(context, builder, args[0], kind, 1))
            return context.get_dummy_value()

        return types.void(types.int64, number), codegen

    return store


def _copy(number: Any, count: int) -> Any:
    """So many elements from global to shared memory, or zeros, without waiting for them."""
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    size = count * number.bitwidth // 8
    how = f"{'cg' if size == 16 else 'ca'}.shared.global"
    short = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [short, ir.IntType(64), short])
    text = f"cp.async.{how} [$0], [$1], {size}, $2;"

    @intrinsic
    def copy(context: Any, index: Any, address: Any, inside: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = _shared(context, builder, args[0], context.get_data_type(number), 1)
            read = builder.select(args[2], ir.Constant(short, size), ir.Constant(short, 0))
            asm = ir.InlineAsm(kind, text, "r,l,r,~{memory}", side_effect=True)
            builder.call(asm, [builder.ptrtoint(place, short), args[1], read])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.boolean), codegen

    return copy


def _copied() -> Any:
    """Waits until a thread's copies are there."""
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    kind = ir.FunctionType(ir.VoidType(), [])

    @intrinsic
    def copied(context: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            asm = ir.InlineAsm(kind, "cp.async.wait_all;", "~{memory}", side_effect=True)
            builder.call(asm, [])
            return context.get_dummy_value()

        return types.void(), codegen

    return copied


def _fma(number: Any) -> Any:
    from numba.cuda.extending import intrinsic

    @intrinsic
    def fma(context: Any, a: Any, b: Any, c: Any) -> Any:
        if not a == b == c == number:
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.fma(*args)

        return number(number, number, number), codegen

    return fma


def _asm(
    text: str, result: str | None, arguments: int, *, memory: bool = True
) -> Callable[..., Any]:
    """An instruction over 64-bit integers, made as often as it is written. memory: other accesses
    don't move across it."""
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    word = ir.IntType(64)
    clobbers = ["~{memory}"] if memory else []
    constraints = ",".join([*(["=l"] if result else []), *["l"] * arguments, *clobbers])
    kind = ir.FunctionType(word if result else ir.VoidType(), [word] * arguments)
    returned = getattr(types, result) if result else types.void

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = [
            context.cast(builder, a, t, types.int64) for a, t in zip(args, sig.args, strict=True)
        ]
        found = builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), values)
        return found if result else context.get_dummy_value()

    # Numba reads the number of arguments off the signature.
    if arguments == 0:

        @intrinsic
        def none(context: Any) -> Any:
            return returned(), codegen

        return none

    if arguments == 1:

        @intrinsic
        def one(context: Any, a: Any) -> Any:
            return returned(types.int64), codegen

        return one

    @intrinsic
    def two(context: Any, a: Any, b: Any) -> Any:
        return returned(types.int64, types.int64), codegen

    return two
