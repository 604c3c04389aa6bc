"""What the checks in this folder share: numbers out of any backend, gradients in any backend.

tests/keras/test_keras.py runs the folder for every backend, each in a process of its own
(`on_request`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops, tree

from rnncc import keras as own

BACKEND = keras.backend.backend()
NAMES = ("SimpleRNN", "GRU", "LSTM")
# Torch's run has in full what no backend has a say in; the other runs have some of it.
WHOLE = BACKEND == "torch"
whole = pytest.mark.skipif(not WHOLE, reason="the same on every backend: tried on torch")
rng = np.random.default_rng(0)


def uniform(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, shape).astype("float32")


X = uniform(3, 7, 4)
MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0]], bool)


def numbers(value: Any) -> list[np.ndarray]:
    """Every array, one after another."""
    leaves = tree.flatten(value)
    return [np.array(ops.convert_to_numpy(v)) for v in leaves if v is not None]


def same_weights(theirs: Any, mine: Any, *arguments: Any, seed: int = 1, **keywords: Any) -> None:
    """Both are built, and have the same new weights."""
    theirs(*arguments, **keywords)
    mine(*arguments, **keywords)
    shapes = [w.shape for w in theirs.get_weights()]
    assert shapes == [w.shape for w in mine.get_weights()]
    draw = np.random.default_rng(seed)
    arrays = [draw.uniform(-0.8, 0.8, shape).astype("float32") for shape in shapes]
    theirs.set_weights(arrays)
    mine.set_weights(arrays)


def assert_close(found: Any, expected: Any, atol: float = 1e-5) -> None:
    left, right = numbers(found), numbers(expected)
    assert [a.shape for a in left] == [a.shape for a in right]
    for a, b in zip(left, right):
        np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4)


def gradients(
    layer: Any, call: Callable[..., Any], tensors: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Of a sum of all results, each times numbers of its own: by tensors, then by the layer's
    trained variables."""

    def loss(*given: Any) -> Any:
        total = 0.0
        for number, result in enumerate(tree.flatten(call(layer, *given))):
            cotangent = uniform(*result.shape, seed=10 + number)
            total = total + ops.sum(result * ops.convert_to_tensor(cotangent))
        return total

    variables = layer.trainable_variables
    if BACKEND == "torch":
        import torch

        given = [torch.tensor(a, requires_grad=True) for a in tensors]
        for v in variables:
            v.value.grad = None
        loss(*given).backward()
        found = [*(t.grad for t in given), *(v.value.grad for v in variables)]
        return [np.zeros(0) if g is None else g.numpy() for g in found]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        given = [tf.constant(a) for a in tensors]
        with tf.GradientTape() as tape:
            tape.watch(given)
            total = loss(*given)
        grads = tape.gradient(total, [*given, *(v.value for v in variables)])
        return [np.zeros(0) if g is None else g.numpy() for g in grads]
    import jax

    def stateless(given: Any, values: Any) -> Any:
        pairs = list(zip(variables, values))
        with keras.StatelessScope(state_mapping=pairs):
            return loss(*given)

    grads = jax.grad(stateless, (0, 1))([*tensors], [v.value for v in variables])
    return [np.asarray(g) for g in tree.flatten(grads)]


def compare_gradients(theirs: Any, mine: Any, *arrays: np.ndarray, **keywords: Any) -> None:
    """Both layers, of inputs and of initial states if they are given."""

    def call(layer: Any, x: Any, *states: Any) -> Any:
        more = {"initial_state": [*states]} if states else {}
        return layer(x, **more, **keywords)

    expected = gradients(theirs, call, arrays)
    found = gradients(mine, call, arrays)
    assert [a.shape for a in found] == [a.shape for a in expected]
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


def pair(what: str, /, *arguments: Any, **keywords: Any) -> tuple[Any, Any]:
    """Keras's layer and ours."""
    theirs, mine = (getattr(module, what) for module in (keras.layers, own))
    return theirs(*arguments, **keywords), mine(*arguments, **keywords)


def model_of(*layers: Any, shape: tuple[Any, ...] = (7, 4), **keywords: Any) -> Any:
    return keras.Sequential([keras.Input(shape, **keywords), *layers])
