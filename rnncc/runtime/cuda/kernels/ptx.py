"""Kernels -> PTX and machine code where there is no GPU and no driver: for tests and for reading.

Wheels are enough (numba-cuda and NVIDIA's compilers). Numba asks the current device for its
capability while it types; here a stand-in answers.

Non-Goals: launching (`device`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

from rnncc.artifact.grid_sync import THREADS, WARP
from rnncc.runtime.cuda.kernels.instructions import COPIES, names
from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from rnncc.runtime.cuda.kernels.toolkit import named
from rnncc.runtime.jit.kernel import rebound

Capability = tuple[int, int]
ENTRY = re.compile(r"\.visible \.entry (\w+)")
REGISTERS = re.compile(r"Used (\d+) registers")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")


@dataclass(frozen=True, slots=True)
class Report:
    """What ptxas says of a kernel."""

    registers: int
    spilled: int  # bytes, stored and loaded
    size: int  # bytes of machine code, headers and all


@contextmanager
def stand_in(capability: Capability) -> Iterator[None]:
    """A device that is asked, and never used."""
    import numba.cuda.api as api
    import numba.cuda.cudadrv.devices as devices

    device = SimpleNamespace(
        compute_capability=capability, id=0, name=b"none", supports_bfloat16=True, supports_fp8=True
    )
    context = SimpleNamespace(device=device)
    old = api.current_context, devices.get_context
    api.current_context = devices.get_context = lambda number=None: context
    try:
        yield
    finally:
        api.current_context, devices.get_context = old


def function_of(kernel: CudaKernel, dtype: str, capability: Capability) -> Any:
    """The kernel's function as numba-cuda compiles it."""
    known = names(dtype, capability >= COPIES)
    return rebound(kernel.function, {**known, **dict(kernel.constants)})


def signature(kernel: CudaKernel) -> Any:
    from numba.cuda import types

    return types.void(*[types.int64] * kernel.words)


def threads_of(kernel: CudaKernel) -> int:
    """The most a block of it has."""
    return WARP * dict(kernel.constants).get("WARPS", THREADS // WARP)


def ptx(kernel: CudaKernel, dtype: str, capability: Capability = (9, 0)) -> str:
    """The kernel's PTX. numba's TypingError where the text is no kernel."""
    with named():
        from numba import cuda

        return _ptx(cuda, kernel, dtype, capability)


def _ptx(cuda: Any, kernel: CudaKernel, dtype: str, capability: Capability) -> str:
    with stand_in(capability):
        text, _ = cuda.compile_ptx(
            function_of(kernel, dtype, capability),
            signature(kernel),
            cc=capability,
            launch_bounds=threads_of(kernel),
        )
    return str(text)


def entry_name(text: str) -> str:
    """What the kernel is called in its PTX."""
    match = ENTRY.search(text)
    assert match is not None, "PTX has an entry"
    return match[1]


@cache
def can_assemble() -> bool:
    """Whether NVIDIA's assembler is there: its bindings, and the library they look for."""
    try:
        from cuda.bindings import nvjitlink

        with named():
            nvjitlink.version()
    except Exception:  # each release of the bindings has an error of its own for it
        return False
    return True


def assemble(text: str, capability: Capability = (9, 0)) -> tuple[bytes, Report]:
    """PTX through nvJitLink's assembler: machine code. ImportError without NVIDIA's wheel of it."""
    from cuda.bindings import nvjitlink

    major, minor = capability
    handle = nvjitlink.create(2, [f"-arch=sm_{major}{minor}", "-Xptxas=-v"])
    try:
        data = text.encode() + b"\0"
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, data, len(data), "kernel.ptx")
        nvjitlink.complete(handle)
        code = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, code)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
    finally:
        nvjitlink.destroy(handle)
    said = log.decode().strip("\0")
    registers = [int(n) for n in REGISTERS.findall(said)]
    spilled = sum(int(a) + int(b) for a, b in SPILLS.findall(said))
    return bytes(code), Report(max(registers, default=0), spilled, len(code))
