"""Models as files of ONNX: every plain part, masks, trained networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx isn't installed")
pytest.importorskip("onnxruntime", reason="onnxruntime isn't installed")

import rnncc
from rnncc.export.to_onnx.functions import SPELLED
from rnncc.export.to_onnx.parts import PARTS
from rnncc.layers import GRU, LSTM, Bidirectional
from rnncc.models import Component, Model, Port, Wired
from rnncc.models import plain as plain_parts
from rnncc.models.plain import Dense, Embedding, MaskedSteps, MaskStep, PooledSteps
from rnncc.models.plain.functions import FUNCTIONS
from rnncc.models.recurrent import Recurrent
from tests.models.plain.test_plain import CASES
from tests.models.readers.test_amplifiers import FOLDER
from tests.support.in_onnx.exported import filled, graph, kinds, session

NOT_FLOAT64 = {"gelu"}  # onnxruntime has no Erf of it
TRAINED = ("rtneural_gru.json", "rtneural_lstm_torch.json", "amp_lstm.nam")


def test_every_part_has_a_form() -> None:
    exported = {cls for cls in PARTS if cls.__module__.startswith("rnncc.models.plain")}
    assert exported == {getattr(plain_parts, n) for n in plain_parts.__all__}
    assert SPELLED.keys() == FUNCTIONS.keys()


def model_of(part: Component, arrays: list[np.ndarray], outputs: int = 1) -> Model:
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
    right = model(feed)
    found = session(graph(model)).run(None, feed)
    for name, array in zip(right, found, strict=True):
        assert array.dtype == right[name].dtype and array.shape == right[name].shape
        scale = max(1.0, abs(right[name].astype("d")).max(initial=0))
        assert abs(array.astype("d") - right[name]).max(initial=0) <= most * scale, name


@pytest.mark.parametrize("case", CASES)
def test_every_plain_part(case: str) -> None:
    part, _, arrays, _ = CASES[case]
    if case in NOT_FLOAT64:
        arrays = [a.astype("f") for a in arrays]
    elif isinstance(part, plain_parts.Activation):  # weights tell that the model is of float64
        part = Dense("d", np.eye(arrays[0].shape[-1]), None, part.function, part.parameters)
    elif not part.weights:
        arrays = [a.astype("f") for a in arrays]
    feed = {f"x{i}": a for i, a in enumerate(arrays)}
    single = arrays[0].dtype == np.float32
    agree(model_of(part, [*arrays]), feed, 2e-6 if single else 1e-12)


def test_embeddings_and_masks() -> None:
    layer = filled(Bidirectional(GRU(3, return_sequences=True)), (None, None, 5))
    rng = np.random.default_rng(3)
    nodes = [
        Wired(Embedding("e", rng.standard_normal((7, 5)).astype("f"), True), ("w",), ("x", "m")),
        Wired(MaskedSteps("z", 0.5), ("v",), ("v1", "n")),
        Wired(MaskStep("o", "or"), ("m", "n"), ("both",)),
        Wired(Recurrent("r", layer), ("x", "both"), ("y",)),
        Wired(PooledSteps("p", "mean"), ("y", "both"), ("pooled",)),
        Wired(MaskStep("q", "not_equal", 0.5), ("v",), ("q",)),
        Wired(MaskStep("s", "any"), ("q",), ("any",)),
    ]
    inputs = [Port("w", ("b", "t"), "int32"), Port("v", ("b", "t", 5))]
    outputs = [Port("pooled", ("b", 6)), Port("y", ("b", "t", 6)), Port("any", ("b", "t"), "bool")]
    model = Model(inputs, outputs, nodes)
    words = np.array([[1, 0, 3, 0], [4, 5, 0, 6]], "i4")
    v = np.full((2, 4, 5), 0.5, "f")
    v[1, 2, 3] = 0.25
    agree(model, {"w": words, "v": v}, 1e-6)


def test_states_of_a_model() -> None:
    """Given by another part, or kept by the model."""
    first = filled(LSTM(3, return_sequences=True, return_state=True), (None, None, 4))
    second = filled(LSTM(3, return_sequences=True), (None, None, 3), seed=2)
    starts = [np.full((1, 3), 0.3, "f"), np.full((1, 3), -0.2, "f")]
    nodes = [
        Wired(Recurrent("a", first, starts), ("x",), ("y", "h", "c")),
        Wired(Recurrent("b", second), ("y", "", "h", "c"), ("z",)),
    ]
    model = Model([Port("x", ("b", "t", 4))], [Port("z", ("b", "t", 3))], nodes)
    assert kinds(graph(model)) == ["LSTM", "LSTM"]
    assert kinds(graph(model, form="scan")) == ["Scan", "Scan"]
    x = np.random.default_rng(1).standard_normal((2, 5, 4)).astype("f")
    agree(model, {"x": x}, 1e-6)


@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks(name: str) -> None:
    if not (FOLDER / name).exists():
        pytest.skip(f"{name} is not in {FOLDER}: RNNCC_MODELS names the folder")
    model = rnncc.load_model(FOLDER / name, **_words(name))
    (port,) = model.inputs
    for batch, time in ((1, 40), (3, 5)):
        sizes = iter((batch, time))
        shape = [n if isinstance(n, int) else next(sizes) for n in port.shape]
        x = np.random.default_rng(1).standard_normal(shape).astype("f")
        agree(model, {port.name: x}, 1e-6)


def _words(name: str) -> dict[str, Any]:
    told = "lstm(1, 8)@lstm lstm(8, 8, 3)@lstm2 linear(8, 1)@dense"
    return {"layers": told} if name.endswith("torch.json") else {}
