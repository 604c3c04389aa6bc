"""A layer's call whose arrays lie on a GPU: who carries them, and who makes more of them.

Non-Goals: knowing such arrays (`device_arrays`); reading them (`cell_interface`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnncc.runtime.api.layer_options import Engine
from rnncc.runtime.common.device_arrays import CARRIER, is_on_gpu


def bring(arrays: dict[str, Any], engine: Engine, cell: str) -> None:
    """Names the carrier of a call whose arrays lie on a GPU, if some do. TypeError where the
    engine doesn't read them."""
    for like in arrays.values():
        if is_on_gpu(like):
            break
    else:
        return
    if not engine.reads_gpu_arrays:
        if engine.on_gpu:
            raise TypeError(
                f"{cell} is made of layers and is given arrays on a GPU: it reads NumPy's, give "
                "its layers the arrays one after the other"
            )
        raise TypeError(
            f"{cell} is given arrays on a GPU, and its kernels run on the CPU: layer.to('cuda') "
            "moves it there"
        )
    from rnncc.runtime.cuda.arrays.cupy import (
        InterfaceArrays,  # the driver's side, when it's needed
    )

    arrays[CARRIER] = InterfaceArrays.of(like)


def room_of(arrays: Mapping[str, Any], dtype: np.dtype[Any]) -> Any:
    """Who makes arrays of a call's own kind, or None where that is NumPy."""
    carrier = arrays.get(CARRIER)
    if carrier is None:
        return None
    from rnncc.runtime.cuda.driver.target import CarriedAllocator

    return CarriedAllocator(carrier, dtype)
