"""A kernel -> its machine code: out of the store, or compiled by numba-cuda and NVIDIA's toolkit.

The store's key has all that decides what a kernel computes, so a process that finds its kernels
there imports no compiler.

Non-Goals: compiling (`offline`); loading (`device`).
"""

from __future__ import annotations

import hashlib
import inspect

from rnncc.runtime.cuda.kernel import Kernel
from rnncc.runtime.machine import Missing
from rnncc.runtime.store import compiler_hash, store_dir, write_file
from rnncc.schedule.tiers import THREADS

INSTALL = "pip install 'rnncc[cuda]'"


def machine_code(
    kernel: Kernel, dtype: str, capability: tuple[int, int], *, anew: bool = False
) -> tuple[str, bytes]:
    """The kernel's name on a device, and its cubin (without nvJitLink: PTX, for the driver).

    Code in the store may come from another machine, whose compilers were others: a folder that was
    filled where there is a compiler serves where there is none. anew: what is there was no good.
    """
    path = store_dir() / f"{kernel.name}_{_key(kernel, dtype, capability)}.cubin"
    if not anew and path.exists():
        known, _, code = path.read_bytes().partition(b"\n")
        return known.decode(), code
    try:
        from rnncc.runtime.cuda import offline

        text = offline.ptx(kernel, dtype, capability)
    except (ImportError, RuntimeError) as error:
        # The second is what cuda-pathfinder says of a library, such as libnvrtc.
        if not isinstance(error, ImportError) and "NotFound" not in type(error).__name__:
            raise
        said = str(error).splitlines()[0]
        raise Missing(
            f"kernels for a GPU are compiled by numba-cuda and NVIDIA's toolkit, and part of them "
            f"is missing ({said}): {INSTALL}"
        ) from error
    name = offline.entry_name(text)
    code = text.encode() + b"\0"
    if offline.can_assemble():
        try:
            code, _ = offline.assemble(text, capability)
        except Exception as error:  # an assembler that is older than the compiler
            if not type(error).__name__.startswith("nvJitLink"):
                raise
    write_file(path, name.encode() + b"\n" + code)
    return name, code


def _key(kernel: Kernel, dtype: str, capability: tuple[int, int]) -> str:
    text = inspect.getsource(kernel.function)
    what = repr((text, kernel.constants, dtype, capability, THREADS))
    return hashlib.sha256(f"{what}{compiler_hash()}".encode()).hexdigest()[:16]
