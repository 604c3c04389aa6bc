"""Integers, function pointers, atomics and the FP control word, for Numba functions over addresses.

Every address is an intp counted in bytes. Nothing here depends on a dtype or a width.

Non-Goals: floats (`simd`); protocols built on the atomics (`threads`).
"""

import os
import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils

from rnncc.runtime.jit.intrinsics import primitive
from rnncc.runtime.jit.kernel import CORE_ARGUMENTS

I32, I64, VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()
IS_X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
IS_ARM = platform.machine().lower() in ("aarch64", "arm64")

FLUSHES = IS_X86 or IS_ARM  # `flush_denormals` does
# MXCSR bit 15 flushes denormal results to zero, bit 6 reads denormal operands as zero; bit 24 of
# FPCR does both.
_MXCSR_FLUSH, _FPCR_FLUSH = 1 << 15 | 1 << 6, 1 << 24


def _word_pointer(builder: ir.IRBuilder, address: ir.Value, index: ir.Value) -> ir.Value:
    return builder.gep(builder.inttoptr(address, I64.as_pointer()), [index])


@primitive
def word(context, address, index):
    """The int64 at address[index]."""

    def emit(context, builder, sig, args):
        return builder.load(_word_pointer(builder, *args))

    return types.int64(types.intp, types.intp), emit


@primitive(literal=True)
def words(context, address, count):
    """The first `count` int64 at an address, as a tuple; count is a number in the text."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    kind = types.UniTuple(types.int64, count.literal_value)

    def emit(context, builder, sig, args):
        numbers = range(count.literal_value)
        places = [_word_pointer(builder, args[0], ir.Constant(I64, n)) for n in numbers]
        return context.make_tuple(builder, kind, [builder.load(p) for p in places])

    return kind(types.intp, count), emit


@primitive
def set_words(context, address, *values):
    """The values, int64, one behind another from an address on."""

    def emit(context, builder, sig, args):
        for n, value in enumerate(args[1:]):
            builder.store(value, _word_pointer(builder, args[0], ir.Constant(I64, n)))
        return context.get_dummy_value()

    return types.void(types.intp, *[types.int64] * len(values)), emit


@primitive
def set_word(context, address, index, value):
    """address[index] = value, an int64."""

    def emit(context, builder, sig, args):
        builder.store(args[2], _word_pointer(builder, args[0], args[1]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.int64), emit


def _call_pointer(builder: ir.IRBuilder, address: ir.Value, args) -> None:
    kind = ir.FunctionType(VOID, [I64] * len(args))
    builder.call(builder.inttoptr(address, kind.as_pointer()), args)


@primitive
def call_core(context, function, a0, a1, a2, a3, a4, a5, a6, a7):
    """function(a0, …, a7), a C function of eight int64."""

    def emit(context, builder, sig, args):
        _call_pointer(builder, args[0], args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, *[types.int64] * CORE_ARGUMENTS), emit


@primitive
def call_kernel(context, function, block, part):
    """function(block, part), a C function of two int64."""

    def emit(context, builder, sig, args):
        _call_pointer(builder, args[0], args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.int64, types.int64), emit


@primitive
def atomic_add(context, address, value):
    """Adds to the int64 at the address; returns what was there."""

    def emit(context, builder, sig, args):
        place = builder.inttoptr(args[0], I64.as_pointer())
        return builder.atomic_rmw("add", place, args[1], "seq_cst")

    return types.int64(types.intp, types.int64), emit


@primitive
def atomic_or(context, address, value):
    """Sets bits of the int64 at the address; returns what was there."""

    def emit(context, builder, sig, args):
        place = builder.inttoptr(args[0], I64.as_pointer())
        return builder.atomic_rmw("or", place, args[1], "seq_cst")

    return types.int64(types.intp, types.int64), emit


@primitive
def atomic_swap(context, address, value):
    """Writes the int64; returns what was there."""

    def emit(context, builder, sig, args):
        place = builder.inttoptr(args[0], I64.as_pointer())
        return builder.atomic_rmw("xchg", place, args[1], "seq_cst")

    return types.int64(types.intp, types.int64), emit


@primitive
def atomic_load(context, address):
    """The int64 at the address, with all that was written before it (acquire)."""

    def emit(context, builder, sig, args):
        return builder.load_atomic(builder.inttoptr(args[0], I64.as_pointer()), "acquire", 8)

    return types.int64(types.intp), emit


@primitive
def atomic_store(context, address, value):
    """Writes the int64, after all that was written before it (release)."""

    def emit(context, builder, sig, args):
        place = builder.inttoptr(args[0], I64.as_pointer())
        builder.store_atomic(args[1], place, "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), emit


@primitive
def fence(context):
    """What was written before is seen before anything is read after (sequentially consistent):
    acquire and release alone let a later load go first, on x86, too."""

    def emit(context, builder, sig, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit


def _call_intrinsic(builder: ir.IRBuilder, name: str, args=(), result: ir.Type = VOID) -> ir.Value:
    # LLVM's own intrinsics and no inline assembly: Numba's LLVM has no assembler.
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _control_word(builder: ir.IRBuilder) -> ir.Value:
    """MXCSR or FPCR, as an int64."""
    if IS_ARM:
        return _call_intrinsic(builder, "llvm.aarch64.get.fpcr", result=I64)
    slot = cgutils.alloca_once(builder, I32)
    _call_intrinsic(builder, "llvm.x86.sse.stmxcsr", [slot])
    return builder.zext(builder.load(slot), I64)


def _set_control_word(builder: ir.IRBuilder, word: ir.Value) -> None:
    if IS_ARM:
        _call_intrinsic(builder, "llvm.aarch64.set.fpcr", [word])
        return
    slot = cgutils.alloca_once(builder, I32)
    builder.store(builder.trunc(word, I32), slot)
    _call_intrinsic(builder, "llvm.x86.sse.ldmxcsr", [slot])


def ask_for(builder: ir.IRBuilder, address: ir.Value) -> None:
    """The instruction behind `prefetch`."""
    pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(VOID, [pointer.type, I32, I32, I32])
    callee = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(callee, [pointer, *(ir.Constant(I32, n) for n in (0, 3, 1))])


def laundered(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The int64, in a way that LLVM's loop passes can't see through."""
    pointer = ir.IntType(8).as_pointer()
    launder = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(pointer, [pointer]), "llvm.launder.invariant.group.p0"
    )
    return builder.ptrtoint(builder.call(launder, [builder.inttoptr(value, pointer)]), I64)


@primitive
def opaque(context, number):
    """The number, of which LLVM doesn't know that a loop counts it.

    It would otherwise count each address that it is added to: dozens of them in a loop over lanes
    with as many arrays, most of them in memory, where base plus number is an addressing mode.
    """

    def emit(context, builder, sig, args):
        return laundered(builder, args[0])

    return types.int64(types.int64), emit


@primitive
def prefetch(context, address):
    """Asks for the cache line at the address, which may be anything."""

    def emit(context, builder, sig, args):
        ask_for(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.intp), emit


@primitive
def pause(context):
    """A hint to the CPU that this is a spin loop."""

    def emit(context, builder, sig, args):
        if IS_X86:
            _call_intrinsic(builder, "llvm.x86.sse2.pause")
        elif IS_ARM:
            # isb takes about as long as x86's pause; yield takes no time on most cores.
            _call_intrinsic(builder, "llvm.aarch64.isb", [ir.Constant(I32, 15)])
        return context.get_dummy_value()

    return types.void(), emit


@primitive
def ticks(context):
    """A counter that goes at one pace on all cores: x86's time stamp, ARM's virtual counter."""

    def emit(context, builder, sig, args):
        return _call_intrinsic(builder, "llvm.readcyclecounter", result=I64)

    return types.int64(), emit


@primitive
def stack_place(context):
    """An address on this thread's stack, which tells threads apart."""

    def emit(context, builder, sig, args):
        pointer = ir.IntType(8).as_pointer()
        frame = _call_intrinsic(
            builder, "llvm.frameaddress.p0", [ir.Constant(I32, 0)], result=pointer
        )
        return builder.ptrtoint(frame, I64)

    return types.int64(), emit


@primitive
def give_way(context):
    """Lets another thread have this core, where the system has a call for it."""

    def emit(context, builder, sig, args):
        if os.name == "posix":
            kind = ir.FunctionType(I32, [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), emit


@primitive
def flush_denormals(context):
    """Lets denormals be zero in this thread; returns the control word to restore."""

    def emit(context, builder, sig, args):
        if not FLUSHES:
            return ir.Constant(I64, 0)
        old = _control_word(builder)
        flush = _FPCR_FLUSH if IS_ARM else _MXCSR_FLUSH
        _set_control_word(builder, builder.or_(old, ir.Constant(I64, flush)))
        return old

    return types.int64(), emit


@primitive
def restore_denormals(context, old):
    """Puts back what `flush_denormals` returned."""

    def emit(context, builder, sig, args):
        if FLUSHES:
            _set_control_word(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), emit
