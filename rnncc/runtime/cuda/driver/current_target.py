"""Which target is in use: the first device, or the one a `with using(target):` names.

Non-Goals: targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rnncc.runtime.cuda.driver.device import device
from rnncc.runtime.cuda.driver.target import CudaTarget

_chosen: list[CudaTarget] = []


@contextmanager
def using(target: CudaTarget) -> Iterator[CudaTarget]:
    """Kernels of this process run there."""
    _chosen.append(target)
    try:
        yield target
    finally:
        _chosen.remove(target)


def current() -> CudaTarget:
    """The target in use, else the first device. RuntimeError says what a device is missing."""
    if _chosen:
        return _chosen[-1]
    return device()
