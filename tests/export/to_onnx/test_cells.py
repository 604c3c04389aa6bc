"""Every cell as a file of ONNX: onnxruntime's numbers are the interpreter's."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx isn't installed")
pytest.importorskip("onnxruntime", reason="onnxruntime isn't installed")

from rnncc import oracle
from rnncc.layers import GRU, LSTM, RNN, Bidirectional, GRUCell, LSTMCell
from tests.support.cases import NAMES, sizes_for, spec_of
from tests.support.in_onnx.exported import filled, given, graph, kinds, session, worst

CALLS = ((1, 20), (3, 7), (5, 1))  # of one file
# Cells of the tests with operators that onnxruntime lacks in float64.
ONLY_FLOAT32 = {"angles", "elementary", "packed_gates"}
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": True, "states": True},
    "mask": {"mask": True},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_every_cell(name: str, dtype: str) -> None:
    if dtype == "float64" and name in ONLY_FLOAT32:
        pytest.skip("onnxruntime lacks its operators in float64")
    spec = spec_of(name)
    sizes = sizes_for(spec)
    cls = oracle.layer_class(spec, dtype)
    rates = {r.name: 0.1 for r in cls.maker.cell.rates}
    layer = cls(**sizes, **rates, return_sequences=True, return_state=True)
    if not layer.built:
        layer.build_with(sizes, {})
    filled(layer, None, 0.3)
    for asked in ASKED.values():
        assert worst(layer, graph(layer, **asked), CALLS) <= (1e-5 if dtype == "float32" else 1e-12)


# ---- layers --------------------------------------------------------------------------------------


def lstm(**options: Any) -> Any:
    return filled(LSTM(3, **options), (None, None, 4))


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("form", ["auto", "scan"])
def test_options_of_a_layer(form: str, asked: dict[str, Any]) -> None:
    for sequences, back, major, zeros in itertools.product((True, False), repeat=4):
        layer = lstm(
            return_sequences=sequences,
            go_backwards=back,
            time_major=major,
            zero_output_for_mask=zeros,
            return_state=sequences,
        )
        model = graph(layer, form=form, **asked)
        assert kinds(model) == ["Scan" if form == "scan" or "mask" in asked else "LSTM"]
        assert worst(layer, model, ((3, 6), (1, 1))) <= 1e-6


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("sequences", [True, False])
def test_layers_of_layers(sequences: bool, asked: dict[str, Any]) -> None:
    options: dict[str, Any] = {"return_sequences": sequences, "return_state": True}
    layers = [
        Bidirectional(GRU(3, **options), merge_mode=mode)
        for mode in ("concat", "sum", "mul", "ave", None)
    ]
    layers.append(RNN([LSTMCell(3), GRUCell(2)], **options))
    layers.append(Bidirectional(RNN([LSTMCell(3), GRUCell(2)], **options)))
    layers.append(
        Bidirectional(LSTM(3, **options), backward_layer=GRU(3, **options, go_backwards=True))
    )
    for layer in layers:
        filled(layer, (None, None, 4))
        model = graph(layer, **asked)
        assert len(kinds(model)) == 2 * (1 + (layer is layers[6]))
        assert worst(layer, model, ((3, 6), (1, 1))) <= 1e-6


def test_states_go_on() -> None:
    """Two calls, the second from where the first ended, are one."""
    layer = lstm(return_sequences=True)
    model = graph(layer, states=True)
    assert [o.name for o in model.graph.output] == ["h", "final_h", "final_c"]
    (inputs, _), feed = given(layer, 2, 9, model)
    run, x = session(model), inputs["x"]
    whole = run.run(None, feed)
    first = run.run(None, feed | {"x": x[:, :4]})
    behind = {"x": x[:, 4:], "initial_h": first[1], "initial_c": first[2]}
    second = run.run(None, behind)
    np.testing.assert_allclose(np.concatenate([first[0], second[0]], 1), whole[0], atol=1e-6)
    np.testing.assert_allclose(second[1:], whole[1:], atol=1e-6)


def test_what_a_masked_step_holds_reaches_nothing() -> None:
    for form, asked in (("auto", "lengths"), ("scan", "lengths"), ("auto", "mask")):
        layer = lstm(return_sequences=True)
        model = graph(layer, form=form, **{asked: True})
        (_, keywords), feed = given(layer, 4, 6, model)
        valid = keywords.get("mask")
        if valid is None:
            valid = np.arange(6) < keywords["lengths"][:, None]
        run = session(model)
        right = run.run(None, feed)[0]
        spoilt = np.where(valid[..., None], feed["x"], np.float32(np.nan))
        np.testing.assert_array_equal(run.run(None, feed | {"x": spoilt})[0], right)
