"""What cuBLAS does with a product, in NumPy over a simulated device's memory.

Non-Goals: its rounding, beyond that of operands.
"""

from __future__ import annotations

import numpy as np

from rnncc.runtime.cuda.kernels.matmuls import Product
from tests.support.gpu_simulator.memory import Fault, Space

KEPT_BITS = {"float32": 23, "tf32": 10, "bfloat16": 7}  # behind the point


def rounded(array: np.ndarray, precision: str) -> np.ndarray:
    """Single precision with fewer bits, to the nearest."""
    if array.dtype != np.float32 or precision == "float32":
        return array
    gone = 23 - KEPT_BITS[precision]
    bits = array.view(np.uint32).astype(np.uint64)
    bits += (1 << (gone - 1)) - 1 + ((bits >> np.uint64(gone)) & np.uint64(1))
    return (bits >> np.uint64(gone) << np.uint64(gone)).astype(np.uint32).view(np.float32)


def columns(
    space: Space, address: int, dtype: str, shape: tuple[int, int], lead: int, what: str
) -> np.ndarray:
    """Indices, into the view of the dtype, of a matrix whose columns are `lead` elements apart.
    Fault where an element is outside of what is allocated, or is read before it was written."""
    rows, count = shape
    if lead < max(rows, 1):
        raise Fault(f"{what}: columns of {rows} that are {lead} apart")
    item = np.dtype(dtype).itemsize
    if address % item:
        raise Fault(f"{what}: misaligned")
    at = (address - space.base) // item + np.arange(count)[None] * lead + np.arange(rows)[:, None]
    if at.min() < 0 or at.max() >= space.data.size // item:
        raise Fault(f"{what}: outside the device")
    state = space.state[at * item // 4]
    if not state.all() or (what != "a result" and (state != 2).any()):
        raise Fault(f"{what}: outside every allocation, or never written")
    return at


def multiply(
    space: Space, product: Product, places: tuple[int, int, int], dtype: str, precision: str
) -> None:
    p, view, item = product, space.views[dtype], np.dtype(dtype).itemsize
    shapes = [
        (p.k, p.rows) if p.left_t else (p.rows, p.k),
        (p.columns, p.k) if p.right_t else (p.k, p.columns),
        (p.rows, p.columns),
    ]
    last = "what it adds to" if p.adds else "a result"
    for n in range(p.count):
        left, right, out = (
            columns(space, place + n * step * item, dtype, shape, lead, what)
            for place, step, shape, lead, what in zip(
                places, p.steps, shapes, p.leads, ("left", "right", last)
            )
        )
        a, b = rounded(view[left], precision), rounded(view[right], precision)
        a, b = a.T if p.left_t else a, b.T if p.right_t else b
        total = a.astype(float) @ b.astype(float)
        view[out] = total + view[out] if p.adds else total
        space.state[out * item // 4] = 2
        if item == 8:
            space.state[out * 2 + 1] = 2
        for word in (out * item // 4).ravel().tolist():
            space.written.pop(word, None)
            space.read.pop(word, None)
