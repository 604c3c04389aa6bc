"""An operation in TensorFlow: a custom gradient, in graphs over ops of our own (`tf_ops`).

How a graph gets at the kernels is `_call_out` alone: (function, shapes of results, tensors) ->
results. Where TensorFlow's C API isn't the one that is known here it is tf.numpy_function, and HOW
says so.

Eager calls take NumPy views of tensors, and a tape keeps what was saved as long as it needs it. In
a graph a call saves for its backward where it trains, see `pending`.

Non-Goals: XLA, which can't call out to Python: jit_compile=True; SavedModels, which hold no Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rnncc.keras import tf_ops
from rnncc.keras.tf_ops import Shapes
from rnncc.operations.calls import Request, seed_of
from rnncc.operations.graph_calls import GraphCalls, calls_of, weakly
from rnncc.operations.operation import Operation

_OUT = f"tf.numpy_function ({tf_ops.UNAVAILABLE})" if tf_ops.UNAVAILABLE else "ops of our own"
HOW = f"TensorFlow: a custom gradient, in graphs over {_OUT}; no XLA"


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
        results, saved = operation.forward(request, arrays, number, save=request.saves)
        kept = [saved]

        def pull(*cotangents: Any) -> Any:
            if kept[0] is None:
                kept[0] = operation.forward(request, arrays, number, save=True)[1]
            saved = kept[0]
            assert saved is not None

            def back(*handed: np.ndarray) -> list[np.ndarray]:
                grads = operation.backward(saved, handed, wanted, shapes)
                return [g for g in grads if g is not None]

            if tf.executing_eagerly():
                gradients = [
                    tf.convert_to_tensor(g) for g in back(*(d.numpy() for d in cotangents))
                ]
            else:  # tape.jacobian
                gradients = tf.numpy_function(back, cotangents, [operation.dtype] * len(places))
            return _once(calls, [*cotangents, *(tensors[at] for at in places)], gradients)

        return [tf.convert_to_tensor(a) for a in results], pull

    return call(*(tensors[at] for at in places))  # type: ignore[no-any-return]


def _once(calls: GraphCalls, read: Sequence[Any], grads: Sequence[Any]) -> Sequence[Any]:
    """The gradients, which say why they have none. Not in graphs: a function's gradient asks for
    those of all its results, and gives most of them zeros."""

    @tf.custom_gradient
    def once(*_: Any) -> Any:
        def refuse(*_: Any) -> Any:
            raise NotImplementedError(_no_second(calls))

        return [tf.identity(g) for g in grads], refuse

    return once(*read)  # type: ignore[no-any-return]


def _no_second(calls: GraphCalls) -> str:
    return (
        f"second derivatives of {calls.operation.cell.name} are not available on TensorFlow: run "
        "Keras on torch, whose backend has them"
    )


# ---- in graphs -----------------------------------------------------------------------------------


def _in_graph(calls: GraphCalls, tensors: Sequence[Any], seed: Any) -> Sequence[Any]:
    operation, save, alive = calls.operation, calls.request.saves, weakly(calls)
    places = _differentiable(tensors)
    known = operation.known([t.shape for t in tensors[: len(operation.cell.arguments)]])
    dtype, count = tf.as_dtype(operation.dtype), len(operation.results)
    graph, watched = tf.compat.v1.get_default_graph(), _watched(tensors, places)
    op_inputs = [*tensors, *([seed] if calls.seeded else [])]

    def forward(arrays: Sequence[np.ndarray], out: Sequence[np.ndarray] = ()) -> list[np.ndarray]:
        return alive().forward(arrays, save=save, out=out)

    def shapes(arrays: Sequence[np.ndarray]) -> Shapes:
        read = arrays[: len(alive().operation.cell.arguments)]
        results: list[Any] = alive().operation.known([a.shape for a in read]).results
        return results + [()] * save

    @tf.custom_gradient
    def call(*_: Any) -> Any:
        types = [dtype] * count + [tf.int32] * save
        results = _call_out(alive, "saving" if save else "", forward, shapes, types, op_inputs)
        handle = results.pop() if save else tf.constant(0, tf.int32)
        for t, shape in zip(results, known.results, strict=True):
            t.set_shape(shape)

        def pull(*cotangents: Any) -> Any:
            # Another graph is the gradient of this one as a whole: who asks isn't known yet.
            own = tf.compat.v1.get_default_graph() is graph
            asked = [at for at in places if at in watched or not own]
            grads = _gradients(alive, asked, handle, op_inputs, cotangents)
            for at, t in zip(asked, grads, strict=True):
                t.set_shape(tensors[at].shape)
            by_place = dict(zip(asked, grads, strict=True))
            return [by_place.get(at) for at in places]

        return results, pull

    return call(*(tensors[at] for at in places))  # type: ignore[no-any-return]


def _gradients(
    alive: Callable[[], GraphCalls],
    asked: Sequence[int],
    handle: Any,
    given: Sequence[Any],
    cotangents: Sequence[Any],
) -> Sequence[Any]:
    """Those asked for, by place, in the graph that is made now."""
    flags, end = [at in asked for at in range(alive().count)], 1 + len(given)
    present = [not _is_zero(d) for d in cotangents]
    types = [tf.as_dtype(alive().operation.dtype)] * len(asked)
    why = _no_second(alive())

    def backward(arrays: Sequence[np.ndarray], out: Sequence[np.ndarray] = ()) -> list[np.ndarray]:
        rest = iter(arrays[end:])
        handed = [next(rest) if p else None for p in present]
        return alive().backward(int(arrays[0]), arrays[1:end], handed, flags, out)

    def shapes(arrays: Sequence[np.ndarray]) -> Shapes:
        return [arrays[1 + at].shape for at in asked]

    read = [handle, *given, *(d for d, p in zip(cotangents, present, strict=True) if p)]
    graph = tf.compat.v1.get_default_graph()

    @tf.custom_gradient
    def once(*_: Any) -> Any:
        name = f"back {''.join('01'[f] for f in flags)} {''.join('01'[p] for p in present)}"
        gradients = _call_out(alive, name, backward, shapes, types, read)

        def refuse(*second: Any) -> Any:
            if tf.compat.v1.get_default_graph() is graph:
                raise NotImplementedError(why)
            # A function's gradient asks for those of all its results, with zeros where nobody did.
            zero = [tf.reduce_all(tf.equal(d, 0)) for d in second]
            said = tf.debugging.Assert(tf.reduce_all(zero), [why])
            with tf.control_dependencies([said]):
                return [tf.zeros_like(t) for t in read if t.dtype.is_floating]

        return gradients, refuse

    return once(*(t for t in read if t.dtype.is_floating))  # type: ignore[no-any-return]


def _is_zero(t: Any) -> bool:
    """Whether a graph says so: the cotangent of a result that nobody used."""
    if t.op.type == "Fill":
        return _is_zero(t.op.inputs[1])
    if t.op.type == "Const":
        return not np.any(tf.get_static_value(t))
    return bool(t.op.type == "ZerosLike")


def _call_out(
    alive: Callable[[], GraphCalls],
    name: str,
    function: Callable[..., list[np.ndarray]],
    shapes: Callable[[Sequence[np.ndarray]], Shapes],
    types: Sequence[Any],
    tensors: Sequence[Any],
) -> list[Any]:
    """A function of NumPy arrays in a graph: (arrays, out=places of results) -> results.

    name: tells it from others of these calls. alive: what a graph holds may not hold the layer."""
    if tf_ops.UNAVAILABLE:
        results = tf.numpy_function(lambda *arrays: function(arrays), [*tensors], [*types])
        return list(results) if isinstance(results, list | tuple) else [results]
    calls = alive()
    key = f"{calls.operation.stable_key} {calls.request} {name}"

    def fill(arrays: list[np.ndarray], places: list[np.ndarray]) -> None:
        function(arrays, out=places)

    saving = name == "saving"
    return tf_ops.call_out(key, calls, fill, shapes, types, tensors, stateful=saving)
