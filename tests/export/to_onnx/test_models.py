"""Models as files of ONNX: masks and states; the parts' own tests have the rest."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx isn't installed")
pytest.importorskip("onnxruntime", reason="onnxruntime isn't installed")

from rnncc.export.to_onnx.functions import SPELLED
from rnncc.export.to_onnx.parts import PARTS
from rnncc.layers import GRU, LSTM, Bidirectional
from rnncc.models import Model, Port, Wired
from rnncc.models import plain as plain_parts
from rnncc.models.plain import Embedding, MaskedSteps, MaskStep, PooledSteps
from rnncc.models.plain.functions import FUNCTIONS
from rnncc.models.recurrent import Recurrent
from tests.support.in_onnx.exported import agree, filled, graph, kinds


def test_every_part_has_a_form() -> None:
    exported = {cls for cls in PARTS if cls.__module__.startswith("rnncc.models.plain")}
    assert exported == {getattr(plain_parts, n) for n in plain_parts.__all__}
    assert SPELLED.keys() == FUNCTIONS.keys()


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
