"""A kernel -> its machine code: out of the cache, or compiled by numba-cuda and NVIDIA's toolkit.

An entry is about all that decides what a kernel computes, so a process that finds its kernels
there imports no compiler.

Non-Goals: compiling (`ptx`); loading (`device`).
"""

from __future__ import annotations

import hashlib

from rnncc.artifact.grid_sync import THREADS
from rnncc.common.machine import Missing
from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from rnncc.runtime.jit.cache_folder import entry_name, read, write, written_by
from rnncc.runtime.jit.fingerprint import spelt_code
from rnncc.runtime.jit.module_cache import compiler_hash, python_version

INSTALL = "pip install 'rnncc[cuda]'"


def machine_code(
    kernel: CudaKernel, dtype: str, capability: tuple[int, int], *, anew: bool = False
) -> tuple[str, bytes]:
    """The kernel's name on a device, and its cubin (without nvJitLink: PTX, for the driver).

    Code in the cache may come from another machine, whose compilers were others: a folder that was
    filled where there is a compiler serves where there is none. anew: what is there was no good.
    """
    about = _about(kernel, dtype, capability)
    entry = entry_name(kernel.name, about, "cubin")
    cached = None if anew else read(entry, about)
    if cached is not None:
        known, _, code = cached.partition(b"\n")
        return known.decode(), code
    try:
        from rnncc.runtime.cuda.kernels import ptx

        text = ptx.ptx(kernel, dtype, capability)
    except (ImportError, RuntimeError) as error:
        # The second is what cuda-pathfinder says of a library, such as libnvrtc.
        if not isinstance(error, ImportError) and "NotFound" not in type(error).__name__:
            raise
        said = str(error).splitlines()[0]
        raise Missing(
            f"kernels for a GPU are compiled by numba-cuda and NVIDIA's toolkit, and part of them "
            f"is missing ({said}): {INSTALL}"
        ) from error
    name = ptx.entry_name(text)
    code = text.encode() + b"\0"
    if ptx.can_assemble():
        try:
            code, _ = ptx.assemble(text, capability)
        except Exception as error:  # an assembler that is older than the compiler
            if not type(error).__name__.startswith("nvJitLink"):
                raise
    write(entry, about, name.encode() + b"\n" + code)
    return name, code


def _about(kernel: CudaKernel, dtype: str, capability: tuple[int, int]) -> str:
    """All that decides what a kernel computes."""
    code = spelt_code(kernel.function.__code__)  # type: ignore[attr-defined]
    what = repr((code, kernel.constants, dtype, capability, THREADS))
    return "\n".join(
        [
            f"{written_by()} {compiler_hash()}, {python_version()}",
            f"compute capability {capability[0]}.{capability[1]}",
            f"kernel {hashlib.sha256(what.encode()).hexdigest()}",
        ]
    )
