"""Layers and models as files, run by onnxruntime beside themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnncc.models import Component, Model, Port, Wired
from rnncc.runtime.api.validation import array_shape


def graph(what: Any, **asked: Any) -> Any:
    """The ModelProto that `rnncc.export.onnx` writes."""
    from rnncc.export.to_onnx.door import graph_of

    plain = {"states": False, "lengths": False, "mask": False, "form": "auto"}
    return graph_of(what, **{**plain, **asked})


def session(model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])


def kinds(model: Any) -> list[str]:
    """Of the recurrent nodes, in order."""
    recurrent = ("Scan", "LSTM", "GRU", "RNN")
    return [n.op_type for n in model.graph.node if n.op_type in recurrent]


def flat(found: Any) -> list[np.ndarray]:
    return [a for f in found for a in flat(f)] if isinstance(found, tuple | list) else [found]


def filled(layer: Any, sizes: Any, scale: float = 0.4, seed: int = 1) -> Any:
    """The layer with weights that are all other than zero."""
    rng = np.random.default_rng(seed)
    if not layer.built:
        layer.build(sizes)
    for arrays in (layer.weights, layer.constants):
        for name in list(arrays):
            arrays[name] = rng.standard_normal(arrays[name].shape) * scale
    return layer


def given(layer: Any, batch: int, time: int, model: Any, seed: int = 2) -> tuple[Any, dict]:
    """Arguments of a call of such a layer, and the same by the file's names."""
    rng = np.random.default_rng([seed, batch, time])
    lead = (time, batch) if layer.time_major else (batch, time)
    asked = {i.name for i in model.graph.input}
    inputs = {
        a.name: rng.standard_normal((*before, *array_shape(a, layer.sizes))).astype(layer.dtype)
        for before, arrays in ((lead, layer.cell.inputs), ((batch,), layer.cell.contexts))
        for a in arrays
    }
    feed, keywords = dict(inputs), {}
    if "lengths" in asked:
        lengths = rng.integers(0, time + 1, batch)
        lengths[0], lengths[-1] = min(time, 1), time
        feed["lengths"] = keywords["lengths"] = lengths
    if "mask" in asked:
        feed["mask"] = keywords["mask"] = rng.random((batch, time)) < 0.6
    states = {}
    for state in layer.cell.states:
        # Of any sign there is, some cells divide by what they count.
        start = abs(rng.standard_normal((batch, *array_shape(state, layer.sizes)))) + 0.5
        states[state.name] = start.astype(layer.dtype)
    if any(n.startswith("initial_") for n in asked):
        keywords["initial_state"] = states
        feed |= {f"initial_{n}": a for n, a in states.items()}
    return (inputs, keywords), feed


def worst(layer: Any, model: Any, calls: Any) -> float:
    """The largest error of any result, beside the largest number there."""
    run, most = session(model), 0.0
    for batch, time in calls:
        (inputs, keywords), feed = given(layer, batch, time, model)
        right = flat(layer(inputs, **keywords))
        found = run.run(None, feed)
        assert len(found) >= len(right)
        for a, b in zip(right, found):
            assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, b.shape, a.dtype, b.dtype)
            assert np.isfinite(a).all()
            if a.size:
                most = max(most, float(abs(a - b).max() / max(1.0, abs(a).max())))
    return most


# ---- models --------------------------------------------------------------------------------------


def model_of(part: Component, arrays: Sequence[np.ndarray], outputs: int = 1) -> Model:
    """Of one part; its inputs are x0, x1, ..."""
    ports = [
        Port(f"x{i}", ("b", *(f"n{i}{j}" for j in range(1, a.ndim))), a.dtype.name)
        for i, a in enumerate(arrays)
    ]
    found = part(*arrays)[:outputs]
    ends = [
        Port(f"y{i}", ("b", *(f"m{i}{j}" for j in range(1, a.ndim))), a.dtype.name)
        for i, a in enumerate(found)
    ]
    node = Wired(part, tuple(p.name for p in ports), tuple(p.name for p in ends))
    return Model(ports, ends, [node])


def agree(model: Model, feed: dict[str, np.ndarray], most: float) -> None:
    """The model's file gives what the model does."""
    right = model(feed)
    found = session(graph(model)).run(None, feed)
    for name, array in zip(right, found, strict=True):
        assert array.dtype == right[name].dtype and array.shape == right[name].shape
        scale = max(1.0, abs(right[name].astype("d")).max(initial=0))
        assert abs(array.astype("d") - right[name]).max(initial=0) <= most * scale, name
