"""Models as C: the numbers of `model(x)`, step by step, and words for what has no C form."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
import rnncc.export
from rnncc.emit.c.parts import CUnit
from rnncc.export.c_folder import made_of
from rnncc.layers import GRU, LSTM, RNN, Bidirectional, GRUCell, LSTMCell
from rnncc.models import plain
from rnncc.models.component import Port, Wired
from rnncc.models.model import Model
from rnncc.models.recurrent import Recurrent
from tests.support.c.units import Compiled, built, needs_compiler
from tests.support.paths import ROOT

MODELS = Path(os.environ.get("RNNCC_MODELS", ROOT.parent / "shared" / "models"))


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32") * 0.4


def model_of(*parts: Any, features: int = 3) -> Model:
    """Parts in a row; a pair is a part and the values it reads, counted from the input on."""
    nodes: list[Wired] = []
    for n, part in enumerate(parts):
        part, reads = part if isinstance(part, tuple) else (part, (n,))
        nodes.append(Wired(part, tuple(f"v{i}" for i in reads), (f"v{n + 1}",)))
    shape: tuple[Any, ...] = ("batch", "time", features) if features else ("batch", "time")
    last = nodes[-1].outputs[0]
    return Model([Port("v0", shape)], [Port(last, ("batch", "time", "..."))], nodes)


def check(model: Model, folder: Path, x: np.ndarray, storage: str | None = None) -> CUnit:
    """x: [time, features], or [time] for numbers of rows."""
    unit, chain = made_of(model, "net", 5, storage)
    made = Compiled(unit, folder)
    given = x.astype("float32").reshape(len(x), -1)
    steps = made.steps([given])[0]
    made.call("reset")
    assert made.block([given])[0].tobytes() == steps.tobytes()
    right = chain.run({"v0": given}, storage)[0] if storage else np.asarray(model(x[None]))[0]
    if right.ndim == 1:  # what its last step makes
        np.testing.assert_allclose(steps[-1], right, rtol=1e-5, atol=1e-5)
        right = np.stack([np.asarray(model(x[None, : t + 1]))[0] for t in range(len(x))])
    np.testing.assert_allclose(steps, right, rtol=1e-5, atol=1e-5)
    return unit


def recurrent(layer: Any, features: int, name: str = "rnn", starts: Any = None) -> Recurrent:
    return Recurrent(name, built(layer, (None, None, features)), starts)


@needs_compiler
@pytest.mark.parametrize("storage", [None, "int8"])
def test_every_kind_of_part(storage: str | None, tmp_path: Path) -> None:
    functions = [plain.Activation("a0", "steep_hard_sigmoid"), plain.Activation("a1", "elu")]
    stats = [weights(7, seed=s) for s in (3, 4, 5)]
    model = model_of(
        plain.Dense("d0", weights(3, 8), weights(8, seed=1), "tanh"),
        recurrent(GRU(7, return_sequences=True, seed=1), 8),
        plain.BatchNorm("norm", stats[0], np.abs(stats[1]) + 1, gamma=stats[2]),
        plain.EachStep("each", plain.Dense("d1", weights(7, 3, seed=2), None, "relu")),
        (plain.JoinedBy("join", "add"), (4, 0)),
        plain.LayerNorm("rows", gamma=weights(3), beta=weights(3, seed=9)),
        plain.PRelu("slope", weights(3, seed=6)),
        plain.Gain("gain", 1.5, -0.25),
        (plain.Concatenated("both"), (8, 4, 0)),
        plain.FirstFeatures("some", 8),
        plain.Same("dropout", "Dropout"),
        *functions,
        plain.Dense("d2", weights(8, 2, seed=8), None, "softmax"),
    )
    check(model, tmp_path, np.random.default_rng(1).standard_normal((23, 3)), storage)


@needs_compiler
def test_a_table_and_the_last_step(tmp_path: Path) -> None:
    model = model_of(
        plain.Embedding("words", weights(11, 4)),
        recurrent(LSTM(6, seed=1), 4, starts=[weights(1, 6), weights(1, 6, seed=2)]),
        plain.Dense("head", weights(6, 3)),
        features=0,
    )
    unit = check(model, tmp_path, np.random.default_rng(1).integers(0, 11, 17))
    made = Compiled(unit, tmp_path)
    found = made.steps([np.array([[-3], [11], [np.nan], [1e30]], "f")])[0]
    made.call("reset")
    assert np.array_equal(made.steps([np.zeros((4, 1), "f")])[0], found), "no row: the first one"


@needs_compiler
def test_layers_on_each_other_of_one_class(tmp_path: Path) -> None:
    layers = [recurrent(LSTM(8, return_sequences=True, seed=s), 8, f"l{s}") for s in range(3)]
    unit = check(model_of(*layers, features=8), tmp_path, weights(19, 8))
    assert len(unit.states) == 6


@needs_compiler
def test_a_stack_is_a_row_of_cells(tmp_path: Path) -> None:
    layer = built(RNN([LSTMCell(6), GRUCell(4)], return_sequences=True), (None, None, 3))
    states = {n: weights(*s) for n, s in (("cell_0.h", (6,)), ("cell_1.h", (4,)))}
    unit, _ = made_of(layer, "net", 4, initial_state=states)
    made, x = Compiled(unit, tmp_path), weights(9, 3)
    c = {"cell_0.c": np.zeros((1, 6))}
    right = layer(x[None], initial_state={**{n: s[None] for n, s in states.items()}, **c})[0]
    np.testing.assert_allclose(made.steps([x])[0], right, rtol=1e-5, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize(
    "name", ["amp_lstm.nam", "rtneural_gru.json", "rtneural_lstm_torch.json", "speaker_lstm.npz"]
)
@pytest.mark.filterwarnings("ignore")
def test_models_from_elsewhere(name: str, tmp_path: Path) -> None:
    if not (MODELS / name).exists():
        pytest.skip(f"no {name}")
    model = rnncc.load_model(MODELS / name)
    unit, _ = made_of(model, "net", 16)
    x = weights(50, int(model.inputs[0].shape[-1]))
    found = Compiled(unit, tmp_path, ("-O1",)).block([x])[0]
    np.testing.assert_allclose(found, model(x[None])[0], rtol=2e-5, atol=2e-5)


def test_what_has_no_c_form(tmp_path: Path) -> None:
    dense = plain.Dense("d", weights(3, 3))
    both = recurrent(Bidirectional(LSTM(3, return_sequences=True)), 3)
    back = recurrent(LSTM(3, go_backwards=True, return_sequences=True), 3)
    masks = Model(
        [Port("v0", ("batch", "time", 3))],
        [Port("y", ("batch", "time", 3))],
        [
            Wired(plain.MaskedSteps("m"), ("v0",), ("v1", "mask")),
            Wired(recurrent(LSTM(3, return_sequences=True), 3), ("v1", "mask"), ("y",)),
        ],
    )
    wrong: list[tuple[Any, type[Exception], str]] = [
        (model_of(both), TypeError, "Bidirectional needs the whole sequence"),
        (model_of(back), ValueError, "backwards"),
        (model_of(plain.PooledSteps("p", "mean")), TypeError, r"p \(pool\) has no C form"),
        (model_of(plain.RepeatedSteps("r", 3)), TypeError, r"r \(repeat\) has no C form"),
        (model_of(dense, features=0), TypeError, r"expected \[batch, time, a number\]"),
        (masks, TypeError, "masks and states that go from part to part"),
        (model_of(plain.Same("s", "Dropout")), TypeError, "an output that is an input"),
        (
            model_of(plain.Dense("d", weights(4, 3))),
            ValueError,
            r"reads 3 features, .*kernel \[4, 3\]",
        ),
        (model_of(recurrent(LSTM(3), 4)), ValueError, r"its weights are for \[4\]"),
    ]
    for model, kind, message in wrong:
        with pytest.raises(kind, match=message):
            rnncc.export.c(model, tmp_path / "made", name="net")
    with pytest.raises(TypeError, match="initial_state is a layer's"):
        rnncc.export.c(model_of(dense), tmp_path / "made", name="net", initial_state={})
    assert not [*tmp_path.iterdir()]
