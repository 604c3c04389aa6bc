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

from rnncc.runtime.cuda.meanings import meanings

if not hasattr(np, "row_stack"):  # gone in NumPy 2.5; numba-cuda 0.30 asks for it
    np.row_stack = np.vstack  # type: ignore[attr-defined]

GLOBAL = 1  # the address space
ALL_LANES = 0xFFFFFFFF


@cache
def names(dtype: str) -> dict[str, Any]:
    """The meanings of a kernel's names, in numba-cuda's terms. ImportError without it."""
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
    }
    return meanings(
        {
            "cuda": cuda,
            "F": number,
            "U": np.uint64,
            "I": np.int64,
            "math": math,
            "add_release": _asm("red.release.gpu.global.add.u64 [$0], $1;", None, 2),
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


def _asm(text: str, result: str | None, arguments: int) -> Callable[..., Any]:
    """An instruction over 64-bit integers that other memory accesses don't move across."""
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    word = ir.IntType(64)
    constraints = ",".join([*(["=l"] if result else []), *["l"] * arguments, "~{memory}"])
    kind = ir.FunctionType(word if result else ir.VoidType(), [word] * arguments)
    returned = getattr(types, result) if result else types.void

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = [
            context.cast(builder, a, t, types.int64) for a, t in zip(args, sig.args, strict=True)
        ]
        found = builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), values)
        return found if result else context.get_dummy_value()

    # Numba reads the number of arguments off the signature.
    if arguments == 1:

        @intrinsic
        def one(context: Any, a: Any) -> Any:
            return returned(types.int64), codegen

        return one

    @intrinsic
    def two(context: Any, a: Any, b: Any) -> Any:
        return returned(types.int64, types.int64), codegen

    return two
