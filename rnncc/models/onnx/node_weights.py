"""W, R, B and P of a node RNN, GRU or LSTM <-> the weights of the layers it is.

    W [directions, gates * units, features]    R [directions, gates * units, units]
    B [directions, 2 * gates * units]          P [directions, 3 * units]

Gates stay in ONNX's order. Both halves of B are added in float64 and rounded once, except where a
GRU's reset gate stands between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnncc.models.onnx.settings import NodeSettings
from rnncc.runtime.api.layer import Layer

# What an array's layer computes in; half precision is widened.
COMPUTED = {"float16": "float32", "float32": "float32", "float64": "float64"}


class ArrayError(ValueError):
    """An array that doesn't fit. array: which one, by its place in the operator."""

    def __init__(self, array: str, what: str) -> None:
        super().__init__(f"{array} {what}")
        self.array, self.what = array, what

    def __reduce__(self) -> tuple[type[ArrayError], tuple[str, str]]:
        return type(self), (self.array, self.what)


@dataclass(frozen=True, slots=True)
class NodeArrays:
    """As the node has them."""

    w: np.ndarray
    r: np.ndarray
    b: np.ndarray | None = None
    p: np.ndarray | None = None


def layers_of(settings: NodeSettings, arrays: NodeArrays) -> tuple[Layer, ...]:
    """A layer for each direction. ArrayError for shapes and dtypes that don't fit."""
    units, features = _check(settings, arrays)
    dtype = COMPUTED[arrays.w.dtype.name]
    made = []
    for i in range(len(settings.directions)):
        layer = settings.layer(i, units, dtype, arrays.b is not None, arrays.p is not None)
        own = {n: np.asarray(a, dtype) for n, a in _own(settings, arrays, i, units).items()}
        layer.build_with({"features": features, "units": units}, own)
        made.append(layer)
    return tuple(made)


def _own(settings: NodeSettings, arrays: NodeArrays, i: int, units: int) -> dict[str, np.ndarray]:
    own = {"W": arrays.w[i].T, "R": arrays.r[i].T}
    if arrays.b is not None:
        of_input, of_state = np.split(arrays.b[i].astype(np.float64), 2)
        if "linear_before_reset" in settings.flags:
            own["B_reset"] = of_state[2 * units :].copy()
            of_state[2 * units :] = 0
        own["B"] = of_input + of_state
    if arrays.p is not None:
        own["P"] = arrays.p[i].reshape(3, units)
    return own


def _check(settings: NodeSettings, arrays: NodeArrays) -> tuple[int, int]:
    named = {"W": arrays.w, "R": arrays.r, "B": arrays.b, "P": arrays.p}
    for name, array in named.items():
        if array is None:
            continue
        if array.dtype.name not in COMPUTED:
            raise ArrayError(name, f"holds {array.dtype} values, expected {', '.join(COMPUTED)}")
        if array.dtype != arrays.w.dtype:
            raise ArrayError(name, f"holds {array.dtype} values, W {arrays.w.dtype}")
    if arrays.p is not None and settings.operator != "LSTM":
        raise ArrayError("P", f"is given, and {settings.operator} has no peepholes")
    if arrays.w.ndim != 3 or arrays.r.ndim != 3:
        name, found = ("W", arrays.w) if arrays.w.ndim != 3 else ("R", arrays.r)
        raise ArrayError(name, f"has shape {list(found.shape)}, expected three axes")
    ways, gates = len(settings.directions), settings.kind.gates
    units, features = settings.hidden_size or arrays.r.shape[2], arrays.w.shape[2]
    if not units or not features:
        raise ArrayError("W", f"has shape {list(arrays.w.shape)}: no units, or no features")
    shapes = {
        "W": (ways, gates * units, features),
        "R": (ways, gates * units, units),
        "B": (ways, 2 * gates * units),
        "P": (ways, 3 * units),
    }
    for name, array in named.items():
        if array is not None and array.shape != shapes[name]:
            raise ArrayError(
                name,
                f"has shape {list(array.shape)}, expected {list(shapes[name])} for {ways} "
                f"directions, {units} units and {features} features",
            )
    return units, features
