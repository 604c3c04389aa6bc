"""Keras's LSTM, GRU and SimpleRNN on one of its backends, each with the backend's own compiler.

Variants: tensorflow (tf.function), jax (jit over stateless_call), torch (eager). Whether a loop
runs is read off the graph, the jaxpr or the profiler.

Non-Goals: `fit`; Keras layers of custom cells.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.case import TRAINING, Case, Data
from bench.contenders import Run, missing

CLASSES = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "SimpleRNN"}
Calls = tuple[Callable[[], Any], str]  # a call that gives (y,) or (y, dx, *gradients); its path


def unavailable(backend: str) -> str:
    return missing("keras", backend)


def refuses(case: Case, backend: str) -> str:
    if case.stateful:
        return "keeps states by other means"
    return "" if case.cell in CLASSES else f"no layer for {case.name}"


def prepare(case: Case, data: Data, backend: str) -> Run:
    os.environ["KERAS_BACKEND"] = backend
    import keras

    def layer(**changed: Any) -> Any:
        kind = getattr(keras.layers, CLASSES[case.cell])
        options = {n: v for n, v in case.options if n != "dropout_per_gate"}  # always a mask a gate
        made = kind(case.units, return_sequences=True, **options | changed)
        made.build(data.x.shape)
        made.set_weights([data.weights[w.name] for w in made.weights if w.name in data.weights])
        return made

    calls = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[backend]
    dropped = bool(case.option("recurrent_dropout")) and case.mode == TRAINING
    call, path = calls(layer(), case, data)
    checked = calls(layer(recurrent_dropout=0.0), case, data)[0] if dropped else call
    names = [w.name for w in layer().trainable_weights]

    def outputs() -> dict[str, np.ndarray]:
        y, *rest = (np.array(a) for a in checked())
        if case.mode != TRAINING:
            return {"y": y}
        dx, *grads = rest
        return {"y": y, "dx": dx} | {f"d_{n}": g for n, g in zip(names, grads, strict=True)}

    return Run(f"keras {keras.__version__}, {path}", call, outputs, undropped=dropped)


def _tensorflow(layer: Any, case: Case, data: Data) -> Calls:
    import tensorflow as tf

    x, dy = tf.constant(data.x), tf.constant(data.dy)
    mask = tf.constant(data.mask) if case.masked else None

    @tf.function  # type: ignore[untyped-decorator]
    def forward() -> Any:
        return (layer(x, mask=mask, training=False),)

    @tf.function  # type: ignore[untyped-decorator]
    def training() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, mask=mask, training=True)
        return y, *tape.gradient(y, [x, *(w.value for w in layer.trainable_weights)], dy)

    made = training if case.mode == TRAINING else forward
    graph = made.get_concrete_function().graph
    kinds = {op.type for op in graph.get_operations()}
    loop = any("While" in kind for kind in kinds)
    return lambda: [a.numpy() for a in made()], "tf.while_loop" if loop else "a graph without loop"


def _jax(layer: Any, case: Case, data: Data) -> Calls:
    import jax
    import jax.numpy as jnp

    x, dy = jnp.asarray(data.x), jnp.asarray(data.dy)
    mask = jnp.asarray(data.mask) if case.masked else None
    rest = [v.value for v in layer.non_trainable_variables]
    weights = [v.value for v in layer.trainable_variables]

    def apply(weights: Any, x: Any, rest: Any, training: bool) -> Any:
        return layer.stateless_call(weights, rest, x, mask=mask, training=training)

    def forward(weights: Any, x: Any, rest: Any) -> Any:
        return (apply(weights, x, rest, False)[0],), rest

    def training(weights: Any, x: Any, rest: Any) -> Any:
        y, pullback, rest = jax.vjp(lambda w, x: apply(w, x, rest, True), weights, x, has_aux=True)
        d_weights, dx = pullback(dy)
        return (y, dx, *d_weights), rest

    function = training if case.mode == TRAINING else forward
    made = jax.jit(function)
    text = str(jax.make_jaxpr(function)(weights, x, rest))
    path = "lax.scan" if "scan[" in text else "lax.while" if "while[" in text else "no loop"

    def call() -> Any:
        nonlocal rest
        found, rest = made(weights, x, rest)
        return jax.block_until_ready(found)

    return call, f"{path} under jit"


def _torch(layer: Any, case: Case, data: Data) -> Calls:
    import torch

    from bench.contenders.torch_contender import path

    x, dy = torch.from_numpy(data.x), torch.from_numpy(data.dy)
    mask = torch.from_numpy(data.mask) if case.masked else None

    def forward() -> Any:
        with torch.inference_mode():
            return (layer(x, mask=mask, training=False),)

    def training() -> Any:
        for tensor in (x, *(w.value for w in layer.trainable_weights)):
            tensor.grad = None
        y = layer(x, mask=mask, training=True)
        y.backward(dy)
        grads = [w.value.grad.numpy() for w in layer.trainable_weights]
        return y.detach(), x.grad.numpy(), *grads

    if case.mode == TRAINING:
        x.requires_grad_(True)
    call = training if case.mode == TRAINING else forward
    return call, path(call)
