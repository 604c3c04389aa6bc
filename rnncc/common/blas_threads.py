"""NumPy's linear algebra on one thread, for as long as a block of code takes.

    with one_blas_thread():
        q, r = np.linalg.qr(a)

A BLAS divides what is small, too, and its threads wait with their eyes open: where another process
has a core, the factors of 256 x 64 numbers took 0.5 s and of 4096 x 1024 took 13 s, on one thread
0.001 s and 1 s. The bits of large ones depend on how many threads there are.

Non-Goals: BLAS libraries other than OpenBLAS and MKL, which stay as they are.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

# The number is one of the whole process: whoever reads it is to find the one that was there before.
_changing = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_changing.acquire,
        after_in_parent=_changing.release,
        after_in_child=_changing.release,
    )


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Other threads that multiply matrices meanwhile have one, too, and the same results."""
    with _changing:
        set_threads = _setter()
        before = set_threads(1)
        try:
            yield
        finally:
            set_threads(before)


@cache
def _setter() -> Callable[[int], int]:
    """What sets the number of threads of the library behind `numpy.linalg`, and returns the number
    before; where nobody knows how, it does nothing."""
    from numpy.linalg import _umath_linalg

    # A symbol is looked for in the libraries that this one needs, too.
    try:
        library = ctypes.CDLL(_umath_linalg.__file__)
    except OSError:
        return lambda count: count
    # NumPy's own wheels rename OpenBLAS's functions; others leave them as they are.
    for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
        get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
        put = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
        if get and put:
            return partial(_exchange, get, put)
    # MKL's is of this thread alone; 0 is what the process says.
    return getattr(library, "MKL_Set_Num_Threads_Local", None) or (lambda count: count)


def _exchange(get: Callable[[], int], put: Callable[[int], None], count: int) -> int:
    before = get()
    put(count)
    return before
