"""Traces of Keras layers: by a copy of the native layer that has the variables' numbers.

Outside of graphs, on the CPU, without gradients.

Non-Goals: what a trace is (`rnncc.Layer.trace`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from rnncc.layers.bidirectional import fresh
from rnncc.operations.calls import seed_of
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.traces.traces import CellTrace


def with_weights(native: Layer, sizes: Mapping[str, int], variables: Mapping[str, Any]) -> Layer:
    """A layer like the native one, with the numbers of these variables."""
    layer = fresh(native)
    arrays = {n: as_numpy(v, layer.dtype) for n, v in variables.items()}
    if layer.built:
        layer._built().update(arrays)
    else:
        layer.build_with(sizes, arrays)
    return layer


def traced(
    layer: Layer,
    inputs: Mapping[str, Any],
    states: Sequence[Any] | None,
    *,
    training: bool,
    generator: Any,
    dtype: str,
    mask: Any,
    resets: Any,
) -> CellTrace:
    """Tensors of this dtype. generator: what the next call would draw from; it stays as it is."""
    names = [s.name for s in layer.cell.states]
    start = None
    if states is not None:
        start = {n: as_numpy(t, layer.dtype) for n, t in zip(names, states, strict=True)}
    draws = training and generator is not None
    found = layer.trace(
        {n: as_numpy(t, layer.dtype) for n, t in inputs.items()},
        initial_state=start,
        training=training,
        mask=None if mask is None else as_numpy(mask, "bool"),
        resets=None if resets is None else ops.convert_to_numpy(resets),
        seed=seed_of(ops.convert_to_numpy(generator.state)) if draws else None,
    )
    tensors = {
        n: ops.convert_to_tensor(a, dtype="bool" if a.dtype == bool else dtype)
        for n, a in found.items()
    }
    return CellTrace(found.owner, tensors, found.left_out)


def as_numpy(t: Any, dtype: str) -> np.ndarray:
    """An array of the numbers in a tensor or variable, which may be of two bytes each."""
    return np.asarray(ops.convert_to_numpy(ops.cast(t, dtype)))
