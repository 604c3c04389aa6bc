"""An operation in TensorFlow: a custom gradient, in graphs over tf.numpy_function.

Eager calls take NumPy views of tensors, and a tape keeps what was saved as long as it needs it. In
a graph a call saves for its backward where it trains, see `pending`.

Non-Goals: XLA, which can't call out to Python: jit_compile=True; SavedModels, which hold no Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rnncc.keras.calls import Request, seed_of
from rnncc.keras.graph_calls import GraphCalls, calls_of, weakly
from rnncc.keras.operation import Operation

HOW = "TensorFlow: a custom gradient, in graphs over tf.numpy_function; no XLA"


def prepare(operation: Operation) -> None:
    """Nothing to prepare."""


def run(operation: Operation, request: Request, tensors: Sequence[Any], seed: Any) -> Sequence[Any]:
    """The results of a call."""
    tensors = [tf.convert_to_tensor(t) for t in tensors]
    calls = calls_of(operation, request)
    if tf.executing_eagerly():
        return _eagerly(calls, tensors, seed)
    return _in_graph(calls, tensors, seed)


def _differentiable(tensors: Sequence[Any]) -> list[int]:
    return [at for at, t in enumerate(tensors) if t.dtype.is_floating]


def _watched(tensors: Sequence[Any], places: Sequence[int]) -> Sequence[int]:
    """Those whose gradients a tape will ask for: of data it doesn't, and computing them is not
    free. Without a tape that watches any of them, all: gradients of the graph come later."""
    try:
        from tensorflow.python.eager import record
    except ImportError:
        return places
    return [at for at in places if record.should_record_backprop([tensors[at]])] or places


def _eagerly(calls: GraphCalls, tensors: Sequence[Any], seed: Any) -> Sequence[Any]:
    operation, request = calls.operation, calls.request
    places = _differentiable(tensors)
    arrays = [t.numpy() for t in tensors]
    shapes = [a.shape for a in arrays]
    wanted = [at in places for at in range(len(tensors))]
    number = seed_of(None if seed is None else seed.numpy())

    @tf.custom_gradient
    def call(*_: Any) -> Any:
        # Nothing is saved for a backward that doesn't come: it runs the forward again.
        found, saved = operation.forward(request, arrays, number, save=request.training)
        kept = [saved]

        def pull(*cotangents: Any) -> Any:
            if kept[0] is None:
                kept[0] = operation.forward(request, arrays, number, save=True)[1]
            handed = [d.numpy() for d in cotangents]
            assert kept[0] is not None
            grads = operation.backward(kept[0], handed, wanted, shapes)
            return [tf.convert_to_tensor(grads[at]) for at in places]

        return [tf.convert_to_tensor(a) for a in found], pull

    return call(*(tensors[at] for at in places))  # type: ignore[no-any-return]


def _in_graph(calls: GraphCalls, tensors: Sequence[Any], seed: Any) -> Sequence[Any]:
    operation, save, alive = calls.operation, calls.request.training, weakly(calls)
    places = _differentiable(tensors)
    known = operation.known([t.shape for t in tensors[: len(operation.cell.arguments)]])
    dtype, count = tf.as_dtype(operation.dtype), len(operation.results)
    graph, watched = tf.compat.v1.get_default_graph(), _watched(tensors, places)
    seeds = [seed] if calls.seeded else []

    def forward(*arrays: np.ndarray) -> list[np.ndarray]:
        return alive().forward(arrays, save=save)

    def backward(handle: Any, wanted: Any, *arrays: np.ndarray) -> list[np.ndarray]:
        given, handed = arrays[:-count], arrays[-count:]
        return alive().backward(int(handle), given, handed, wanted.tolist())

    @tf.custom_gradient
    def call(*_: Any) -> Any:
        types = [dtype] * count + [tf.int32] * save
        found = tf.numpy_function(forward, [*tensors, *seeds], types)
        handle = found.pop() if save else tf.constant(0, tf.int32)
        for t, shape in zip(found, known.results, strict=True):
            t.set_shape(shape)

        def pull(*cotangents: Any) -> Any:
            # Another graph is the gradient of this one as a whole: who asks isn't known yet.
            own = tf.compat.v1.get_default_graph() is graph
            asked = [at for at in places if at in watched or not own]
            flags = np.array([at in asked for at in range(len(tensors))])
            given = [handle, flags, *tensors, *seeds, *cotangents]
            grads = tf.numpy_function(backward, given, [dtype] * len(asked))
            for at, t in zip(asked, grads, strict=True):
                t.set_shape(tensors[at].shape)
            found = dict(zip(asked, grads, strict=True))
            return [found.get(at) for at in places]

        return found, pull

    return call(*(tensors[at] for at in places))  # type: ignore[no-any-return]
