"""Where NVIDIA's toolkit is, said to those who look for it in $CUDA_HOME.

cuda-pathfinder and numba-cuda find libraries in wheels, and else by $CUDA_PATH or $CUDA_HOME. A
machine's toolkit is at /usr/local/cuda, or its compiler on $PATH, often with neither variable set;
where one half of the libraries comes from wheels (torch brings NVRTC, no NVVM), the other half is
then not found.

Non-Goals: choosing between toolkits: what wheels have is taken from them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USUAL = Path("/usr/local/cuda")


def folder() -> Path | None:
    """A toolkit's, with its compilers; None where there is none, or a variable names one."""
    if os.environ.get("CUDA_PATH") or os.environ.get("CUDA_HOME"):
        return None
    compiler = shutil.which("nvcc")
    places = [Path(compiler).resolve().parent.parent] if compiler else []
    return next((p for p in (*places, USUAL) if (p / "nvvm").is_dir()), None)


@contextmanager
def named() -> Iterator[None]:
    """$CUDA_HOME names a toolkit in here, if there is one and no variable does already."""
    toolkit = folder()
    if toolkit is None:
        yield
        return
    old = os.environ.get("CUDA_HOME")
    os.environ["CUDA_HOME"] = str(toolkit)
    try:
        yield
    finally:
        if old is None:
            del os.environ["CUDA_HOME"]
        else:
            os.environ["CUDA_HOME"] = old
