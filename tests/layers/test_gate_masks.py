"""Dropout draws what Keras's layers draw: a mask for each gate, of inputs and of states, as soon as
states are dropped; else one for all gates. Read off outputs, over thousands of rows.

Keras itself, and rnncc.keras, are held to the same models in
`tests/support/in_keras/check_dropout.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import layers, oracle
from rnncc.compiler import load_spec
from rnncc.frontend.diagnostics import SpecError
from rnncc.layers import GRU, LSTM, RNN, Bidirectional, GRUCell, LSTMCell, SimpleRNN
from rnncc.runtime.api.layer_base import ATTRIBUTES
from tests.support.gate_masks import Readable, all_kinds, correlations

ROWS, UNITS = 6000, 3
BOTH = Readable("LSTM", 0.4, 0.3)


def interpreted(readable: Readable, **keywords: Any) -> Any:
    """The layer without kernels, its weights readable."""
    name = {"SimpleRNN": "simple_rnn", "LSTM": "lstm"}.get(readable.kind, "gru")
    cls = oracle.layer_class(load_spec(name))
    layer = cls(units=UNITS, seed=1, **readable.keywords, **keywords)
    layer.build((None, None, UNITS))
    layer.set_weights(readable.weights(UNITS))
    return layer


def first_outputs(layer: Any, rows: int = ROWS, **call: Any) -> np.ndarray:
    x = np.ones((rows, 1, UNITS))
    states = tuple(np.ones((rows, UNITS)) for _ in layer.cell.states)
    return layer(x, initial_state=states, training=True, seed=5, **call)


@pytest.mark.parametrize("readable", all_kinds(), ids=str)
def test_as_many_masks_as_keras_draws(readable: Readable) -> None:
    outputs = first_outputs(interpreted(readable))
    per_gate = readable.recurrent_dropout > 0
    assert readable.holds(outputs, per_gate)
    if readable.gates > 1:
        assert not readable.holds(outputs, not per_gate)
        option = {"dropout_per_gate": not per_gate}  # said otherwise
        outputs = first_outputs(interpreted(readable, **option))
        assert readable.holds(outputs, not per_gate) and not readable.holds(outputs, per_gate)


def test_masks_know_nothing_of_each_other() -> None:
    """Of gates, of inputs and states, of lanes, of rows that are neighbours."""
    kept = BOTH.read(first_outputs(interpreted(BOTH)))  # [2, gates, rows, lanes]
    columns = np.moveaxis(kept, 2, 0).reshape(ROWS, -1)
    assert columns.shape[1] == 2 * 4 * UNITS
    assert np.abs(correlations(columns)).max() < 5
    pairs = np.concatenate([columns[:-1], columns[1:]], 1)
    assert np.abs(correlations(pairs)).max() < 5


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_masks_stay_for_all_steps(kind: str, backwards: bool) -> None:
    """Masks read off the first step explain every later one, masked steps in between."""
    readable = Readable(kind, 0.4, 0.3)
    layer = interpreted(readable, return_sequences=True, go_backwards=backwards)
    rng = np.random.default_rng(0)
    x = rng.uniform(0.5, 1, (50, 5, UNITS))
    x[:, -1 if backwards else 0] = 1
    mask = rng.random((50, 5)) < 0.7
    mask[:, -1 if backwards else 0] = True
    states = [np.ones((50, UNITS)) for _ in layer.cell.states]
    call: dict[str, Any] = {"initial_state": tuple(states), "training": True, "seed": 2}
    for given in (None, mask):
        found = layer(x, mask=given, **call)
        kept = readable.read(found[:, 0])
        expected, now = [], states
        for t in range(4, -1, -1) if backwards else range(5):
            counts = np.ones((50, 1), bool) if given is None else given[:, t, None]
            after = readable.step(x[:, t], now, kept)
            now = [np.where(counts, a, b) for a, b in zip(after, now, strict=True)]
            expected.append(now[0])
        np.testing.assert_allclose(found, np.stack(expected, 1), atol=1e-9)


def test_every_call_draws_anew() -> None:
    """Also those of a stateful layer, and steps of a stream, which are calls."""
    layer = interpreted(BOTH, stateful=True)
    ones = tuple(np.ones((400, UNITS)) for _ in range(2))
    x = np.ones((400, 1, UNITS))
    first, second = (
        BOTH.read(layer(x, initial_state=ones, training=True)).ravel() for _ in range(2)
    )
    assert np.abs(correlations(np.stack([first, second], 1))).max() < 5


# ---- what is chosen when, and by whom ---------------------------------------------------------


def per_gate(layer: Any) -> bool:
    return dict(layer.cell.options).get("dropout_per_gate", False)


def test_the_constructor_chooses() -> None:
    for cls in (LSTM, GRU, rnncc.compile("lstm"), rnncc.compile("gru")):
        assert not per_gate(cls(units=3)) and not per_gate(cls(units=3, dropout=0.2))
        assert per_gate(cls(units=3, recurrent_dropout=0.2))
        assert not per_gate(cls(units=3, recurrent_dropout=0.2, dropout_per_gate=False))
    for cls in (LSTM, GRU):
        assert per_gate(cls(3, dropout=0.2, implementation=1))
        assert not per_gate(cls(3, dropout=0.2, implementation=2))
        # Keras's own says implementation 1, whatever it is given.
        layer = cls(3, recurrent_dropout=0.2, implementation=2)
        assert per_gate(layer)
        assert per_gate(cls.from_config(layer.get_config()))
        assert per_gate(cls.from_config(cls(3, implementation=1).get_config()))
        with pytest.raises(ValueError, match="implementation is 1 or 2, not 3"):
            cls(3, implementation=3)
    assert SimpleRNN(3, recurrent_dropout=0.2, implementation=1).recurrent_dropout == 0.2


def test_cells_stacks_and_directions_choose_each_for_itself() -> None:
    deep = RNN([LSTMCell(3, recurrent_dropout=0.2), GRUCell(3, dropout=0.2)])
    assert [per_gate(p.layer) for p in deep.parts] == [True, False]
    both = Bidirectional(LSTM(3, recurrent_dropout=0.2), backward_layer=LSTM(3, go_backwards=True))
    assert [per_gate(p.layer) for p in both.parts] == [True, False]
    again = layers.deserialize(layers.serialize(deep))
    assert [per_gate(p.layer) for p in again.parts] == [True, False]


def test_rates_are_chosen_where_a_layer_is_made() -> None:
    layer = LSTM(3, dropout=0.2)
    assert (layer.dropout, layer.recurrent_dropout) == (0.2, 0.0)
    with pytest.raises(AttributeError, match=r"recurrent_dropout is chosen where LSTM is made"):
        layer.recurrent_dropout = 0.3
    with pytest.raises(AttributeError, match=r"make another one with dropout=0, "):
        layer.dropout = 0
    assert {n for n in vars(layer) if not n.startswith("_")} <= ATTRIBUTES
    # A rate may have the name of something else that a layer has.
    taken = rnncc.compile_text(
        "cell: Taken\nn: size\nx: input[n]\nh: state[n]\nstorage: rate = 0\nplan: rate = 0.5\n"
        "h[t] = drop(drop(x[t], storage), plan) + h[t-1]\nreturn h[t]\n"
    )
    assert taken(plan=0.1).storage == "" and callable(taken().plan)


def test_weights_mean_the_same_however_they_are_dropped(tmp_path: Any) -> None:
    """A layer that was trained with states' dropout hands its weights to one without."""
    trained, used = LSTM(3, recurrent_dropout=0.3), LSTM(3)
    trained.build((None, None, 2))
    trained.save(tmp_path / "weights.npz")
    used.load(tmp_path / "weights.npz")
    np.testing.assert_array_equal(used.weights["kernel"], trained.weights["kernel"])


def test_an_option_may_ask_whether_there_is_a_rate() -> None:
    text = (
        "cell: Asking\nn: size\nx: input[n]\nh: state[n]\nkeep: rate = {default}\n"
        "often: option = {name}\n"
        'h[t] = (drop(x[t], keep, per="step") if often else drop(x[t], keep)) + h[t-1]\n'
        "return h[t]\n"
    )
    asking = rnncc.compile_text(text.format(default=0, name="keep"))
    assert dict(asking().cell.options) == {"often": False}
    assert dict(asking(keep=0.1).cell.options) == {"often": True}
    assert dict(asking(keep=0.1, often=False).cell.options) == {"often": False}
    always = rnncc.compile_text(text.format(default=0.1, name="keep"))
    assert dict(always().cell.options) == {"often": True}
    assert dict(always(keep=0).cell.options) == {"often": False}
    with pytest.raises(SpecError, match="did you mean keep"):
        rnncc.compile_text(text.format(default=0, name="keeep"))
