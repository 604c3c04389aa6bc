"""Modules of the command line, imported by themselves: they do what compiled classes do."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import compiler
from rnncc.artifact.cell import TO_STARTS, Variant, covering, plain_variants, variants_of
from rnncc.frontend.diagnostics import SpecError
from rnncc.runtime.api.layer import Layer
from tests.support.cases import render_module
from tests.support.paths import CELLS, ROOT

DRAWING = """cell: Drawing
units: size
x: input[units]
h: state[units]
h[t] = tanh(drop(x[t], 0.5, per="step") + h[t-1])
return h[t]
"""

ZONING = """cell: Zoning
units: size
x: input[units]
h: state[units]
keep: rate = 0
change: rate = 0
h[t] = zoneout(tanh(drop(x[t], change) + h[t-1]), h[t-1], keep)
return h[t]
"""


def written(folder: Path, source: str | Path, **given: Any) -> ModuleType:
    """What `rnncc compile` writes, imported as a user does."""
    spec = compiler.load_spec(source)
    path = folder / f"{spec.name.lower()}.py"
    path.write_text(render_module(spec, dtype="float64", **given))
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = module
    found.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path) -> Any:
    """Modules that a test wrote are gone after it; what they imported stays as it is."""
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def same(a: Layer, b: Layer, x: np.ndarray, **call: Any) -> None:
    for training in (False, True):
        one, two = a.vjp(x, training=training, **call), b.vjp(x, training=training, **call)
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(a(x, training=training, **call), one[0])
        dy = np.random.default_rng(3).uniform(-1, 1, one[0].shape)
        first, second = one[1](dy), two[1](dy)
        np.testing.assert_array_equal(first.inputs, second.inputs)
        for name, gradient in first.weights.items():
            np.testing.assert_array_equal(gradient, second.weights[name])


def test_a_module_serves_every_rate(tmp_path: Path) -> None:
    module, x = written(tmp_path, "lstm"), np.random.default_rng(0).normal(size=(3, 4, 2))
    rated = Variant(training=True, active_rates=frozenset({"dropout", "recurrent_dropout"}))
    assert list(module._ENGINES)[:2] == [Variant(), rated]
    mask = np.arange(4) < [[4], [1], [3]]
    for rates in ({}, {"dropout": 0.3}):
        frozen = module.LSTM(units=5, seed=1, return_sequences=True, **rates)
        other = rnncc.compile("lstm", dtype="float64")(
            units=5, seed=1, return_sequences=True, **rates
        )
        same(frozen, other, x, seed=7)
        same(frozen, other, x, seed=7, mask=mask)
        copied = pickle.loads(pickle.dumps(frozen))
        np.testing.assert_array_equal(copied(x), other(x))
        assert ("training_forward" in frozen.plan()) == bool(rates)


def test_zoneout_matters_at_inference_too(tmp_path: Path) -> None:
    path = tmp_path / "zoning.rnn"
    path.write_text(ZONING)
    module, x = written(tmp_path, path), np.random.default_rng(0).normal(size=(3, 4, 2))
    made = compiler.layer_class(compiler.load_spec(path), "cpu", "float64")
    prefixes = ["", "rated_", "training_"]
    prefixes += [f"masked_{p}" for p in prefixes]
    anew = [p.replace("masked_", "") for p in prefixes]
    anew = [f"masked_restarted_{p}" if k > 2 else f"restarted_{p}" for k, p in enumerate(anew)]
    assert [v.prefix for v in module._ENGINES] == [*prefixes, *anew]
    plain = made(seed=1, return_sequences=True)(x)
    for rates in ({}, {"keep": 0.25}):
        frozen = module.Zoning(seed=1, return_sequences=True, **rates)
        same(frozen, made(seed=1, return_sequences=True, **rates), x, seed=7)
        assert (frozen(x) == plain).all() == (not rates)


def test_a_rate_that_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "drawing.rnn").write_text(DRAWING)
    module = written(tmp_path, tmp_path / "drawing.rnn")
    layer, x = module.Drawing(seed=3), np.ones((2, 3, 4))
    assert (layer(x, training=True) != layer(x)).any()
    assert list(module._ENGINES)[:2] == [Variant(), Variant(training=True)]


def test_cells_without_rates_differ_by_masks_and_resets_alone(tmp_path: Path) -> None:
    module = written(tmp_path, CELLS / "delays.rnn")
    made = [Variant(), Variant(mask=True)]
    assert list(module._ENGINES) == [*made, *(replace(v, resets=TO_STARTS) for v in made)]
    assert "TRAINING" not in (tmp_path / "delays.py").read_text()


def test_a_plain_module_renders_the_rest_on_demand(tmp_path: Path) -> None:
    module = written(tmp_path, "lstm", variants=plain_variants(), on_demand=True)
    assert list(module._ENGINES) == [Variant()]
    x = np.random.default_rng(0).normal(size=(3, 4, 2))
    mask = np.arange(4) < [[4], [1], [3]]
    for rates in ({}, {"dropout": 0.3}):
        frozen = module.LSTM(units=5, seed=1, return_sequences=True, **rates)
        other = rnncc.compile("lstm", dtype="float64")(
            units=5, seed=1, return_sequences=True, **rates
        )
        assert "rendered on demand" not in frozen.plan()
        same(frozen, other, x, seed=7)
        assert ("rendered on demand" in frozen.plan()) == bool(rates)
        same(frozen, other, x, seed=7, mask=mask)
        assert "rendered on demand" in frozen.plan() and "rendered" not in other.plan()
    y, pullback = frozen.vjp(x, training=False)
    one = pullback.vjp(np.ones_like(y))[1]({"inputs": np.ones_like(x)})
    y, pullback = other.vjp(x, training=False)
    two = pullback.vjp(np.ones_like(y))[1]({"inputs": np.ones_like(x)})
    np.testing.assert_array_equal(one.inputs, two.inputs)


def test_one_row_has_its_twin_on_demand(tmp_path: Path) -> None:
    module = written(tmp_path, "gru", variants=plain_variants(), on_demand=True)
    frozen, other = module.GRU(units=5, seed=1), rnncc.compile("gru", dtype="float64")(5, seed=1)
    x = np.random.default_rng(0).normal(size=(3, 4, 2))
    np.testing.assert_array_equal(frozen(x), other(x))
    assert "one row" not in frozen.plan()
    np.testing.assert_array_equal(frozen(x[:1]), other(x[:1]))
    assert "for one row that saves nothing, rendered on demand" in frozen.plan()
    assert "for one row that saves nothing;" in other.plan()
    module = written(tmp_path, "gru", variants=plain_variants())
    module.GRU(units=5, seed=1)(x[:1])
    assert "one_row" in (tmp_path / "gru.py").read_text()


def test_options_and_functions_of_a_module_are_those_it_renders_with(tmp_path: Path) -> None:
    given = {"reset_after": False}, {"activation": "lambda v: v / (1 + abs(v))"}
    module = written(
        tmp_path,
        "gru",
        options=given[0],
        functions=given[1],
        variants=plain_variants(),
        on_demand=True,
    )
    x, mask = np.random.default_rng(0).normal(size=(3, 4, 2)), np.arange(4) < [[4], [1], [3]]
    frozen = module.GRU(units=5, seed=1, return_sequences=True, dropout=0.5)
    other = rnncc.compile("gru", dtype="float64")(
        units=5, seed=1, return_sequences=True, dropout=0.5, **given[0], **given[1]
    )
    same(frozen, other, x, seed=7, mask=mask)


def test_a_module_renders_its_own_text_alone(tmp_path: Path) -> None:
    written(tmp_path, "simple_rnn", variants=plain_variants(), on_demand=True)
    text, x = (tmp_path / "simplernn.py").read_text(), np.ones((2, 3, 4))
    for old, new, error in (
        ("@ recurrent_kernel", "* recurrent_kernel", SpecError),
        ("h[t] = activation(", "h[t] = 2 * activation(", ValueError),
    ):
        module: dict[str, Any] = {"__name__": "changed"}
        exec(text.replace(old, new, 1), module)
        layer = module["SimpleRNN"](units=3)
        assert layer(x).shape == (2, 3)  # what is written needs no text
        with pytest.raises(error):
            layer(x, mask=np.arange(3) < [[2], [3]])


def test_a_module_has_the_turns_it_was_written_with(tmp_path: Path) -> None:
    options = {"unroll": 2}
    variants = plain_variants(unroll=2)
    module = written(tmp_path, "simple_rnn", options=options, variants=variants)
    layer, x = module.SimpleRNN(units=3, seed=1), np.ones((2, 3, 4))
    assert (
        layer.unroll == 2 and "begin in range(0, T, 2)" in (tmp_path / "simplernn.py").read_text()
    )
    plain = rnncc.compile("simple_rnn", dtype="float64")(units=3, seed=1)
    np.testing.assert_array_equal(layer(x), plain(x))
    assert "2 steps a turn" in layer.plan()
    with pytest.raises(ValueError, match="without kernels for unroll=1: run rnncc compile"):
        module.SimpleRNN(units=3, unroll=False)(x)


def test_what_a_module_lacks_it_names(tmp_path: Path) -> None:
    module = written(tmp_path, "lstm", variants=(Variant(),))
    layer, x = module.LSTM(units=3, dropout=0.1), np.zeros((2, 3, 4))
    assert layer(x).shape == (2, 3)
    with pytest.raises(
        ValueError, match=r"without kernels for dropout: run rnncc compile lstm\.rnn"
    ):
        layer(x, training=True)


def test_a_store_under_a_relative_path(tmp_path: Path) -> None:
    (tmp_path / "drawing.rnn").write_text(DRAWING)
    code = (
        "import rnncc, numpy as np; layer = rnncc.compile('drawing.rnn')(seed=1)\n"
        "assert layer(np.ones((1, 2, 3))).shape == (1, 3)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RNNCC_CACHE": "here"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert list((tmp_path / "here").glob("drawing*.module"))


def test_variants_cover_one_another() -> None:
    cell = rnncc.compile("lstm").maker.cell
    made = variants_of(cell)
    one = Variant(training=True, active_rates=frozenset({"dropout"}))
    assert covering(one, made) == made[1] and covering(Variant(), made) == made[0]
    assert covering(Variant(mask=True), made) == made[2]
    assert covering(Variant(mask=True), made[:2]) is None
    assert eval(repr(made), {"Variant": Variant}) == made
    prefixes = ["", "training_", "masked_", "masked_training_"]
    prefixes += ["restarted_", "restarted_training_"]
    prefixes += ["masked_restarted_", "masked_restarted_training_"]
    assert [variant.prefix for variant in made] == prefixes


def test_a_module_alone_in_another_process(tmp_path: Path) -> None:
    """Without the compiler; and whatever the hash seed, the same text is written."""
    (tmp_path / "zoning.rnn").write_text(ZONING)
    code = "from rnncc.driver import Derivation; from rnncc.compiler import load_spec\n"
    code += "import sys; sys.stdout.write(Derivation(load_spec('zoning.rnn')).module())"
    texts = set()
    for seed in ("1", "2"):
        environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        texts.add(
            subprocess.check_output(
                [sys.executable, "-c", code], text=True, env=environment, cwd=tmp_path
            )
        )
    assert len(texts) == 1
    (tmp_path / "mine.py").write_text(texts.pop())
    code = (
        "import sys; from mine import Zoning; import numpy as np\n"
        "mask = np.arange(2) < [[2], [1]]\n"
        "for given in ({}, {'mask': mask}):\n"
        "    y, back = Zoning(keep=0.5).vjp(np.ones((2, 2, 3)), training=True, **given)\n"
        "    assert y.shape == back(y).inputs.shape[::2]\n"
        "found = {m.split('.')[1] for m in sys.modules if m.startswith('rnncc.')}\n"
        "compiler = 'compiler frontend ir lowering passes schedule emit'\n"
        "assert not found & set(compiler.split()), found\n"
        "print('jinja2' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RNNCC_CACHE": str(tmp_path / "cache")}
    # Cores, which know no cell, are rendered once a machine.
    for rendered in ("True\n", "False\n"):
        out = subprocess.check_output(
            [sys.executable, "-c", code], text=True, cwd=tmp_path, env=environment
        )
        assert out == rendered
