"""The words kernels are written in, as names: what one stands for is imported when a kernel that
uses it is compiled.

    from rnncc.runtime.cpu.intrinsics.kernel_namespace import host_vectors, word

    v = host_vectors("float32")        # v.load, v.fma, v.exp …; v.width and v.bytes are numbers

So a module of kernels can be imported, and its stored machine code run, without Numba.

Non-Goals: the meanings (`scalar_intrinsics`: integers, calls, atomics; `simd`: vectors).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rnncc.common.machine import ITEMSIZE, host
from rnncc.runtime.jit.helper import Word


@dataclass(frozen=True)
class Raw(Word):
    """A function of `scalar_intrinsics`."""

    name: str

    def meaning(self) -> Any:
        from rnncc.runtime.cpu.intrinsics import scalar_intrinsics

        return getattr(scalar_intrinsics, self.name)

    def __call__(self, *args: Any) -> Any:
        raise TypeError(f"{self.name} is an operation of compiled functions")


@dataclass(frozen=True)
class Vectors(Word):
    """The operations on `width` lanes of `dtype`."""

    dtype: str
    width: int

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is an operation of compiled functions")

    @property
    def bytes(self) -> int:
        return self.width * ITEMSIZE[self.dtype]

    def meaning(self) -> Any:
        from rnncc.runtime.cpu.intrinsics import simd

        return simd.vectors(self.dtype, self.width)


vectors = Vectors


class HostVectors(Vectors):
    """Operations at the width of whatever machine runs them."""


def host_vectors(dtype: str) -> HostVectors:
    """The operations at this machine's width: what generated modules use."""
    return HostVectors(dtype, host().width(dtype))


word, set_word = Raw("word"), Raw("set_word")
words, set_words = Raw("words"), Raw("set_words")
call_core, call_kernel = Raw("call_core"), Raw("call_kernel")
atomic_add, atomic_or = Raw("atomic_add"), Raw("atomic_or")
atomic_swap = Raw("atomic_swap")
atomic_load, atomic_store = Raw("atomic_load"), Raw("atomic_store")
fence, pause = Raw("fence"), Raw("pause")
give_way, prefetch = Raw("give_way"), Raw("prefetch")
opaque = Raw("opaque")
ticks, stack_place = Raw("ticks"), Raw("stack_place")
flush_denormals, restore_denormals = Raw("flush_denormals"), Raw("restore_denormals")
