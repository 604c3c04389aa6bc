"""torch's OpenMP team for kernels: the threads its own operations run on.

They spin on for milliseconds after each of torch's operations; threads of our own beside them get
half a core each. So `torch.set_num_threads` says how many threads kernels have, too (never more
than RNNCC_NUM_THREADS). With a torch that has no OpenMP, workers of our own stay in use.

Non-Goals: the region itself (`openmp_team`).
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import torch

from rnncc.runtime.cpu.threads.dispatch import join
from rnncc.runtime.cpu.threads.openmp_team import Team


def _parallel() -> int | None:
    """The address of what starts a region of torch's team."""
    if not sys.platform.startswith("linux") or not torch.backends.openmp.is_available():
        return None
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    library = Path(torch.__file__).with_name("lib") / "libtorch_cpu.so"
    try:  # it is loaded, and finds the OpenMP it was linked with
        function = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value


def join_torch() -> None:
    """Kernels of this process run on torch's threads, where that can be."""
    address = _parallel()
    if address:
        join(Team(address, torch.get_num_threads, "torch's OpenMP team (torch.set_num_threads)"))
