"""Refusals: every message names the argument, what was given and what was expected."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import compiler, oracle
from rnncc.artifact import cell as description
from rnncc.artifact.literals import literal
from rnncc.frontend.diagnostics import SpecError
from rnncc.lowering.cell_interface import check_file, check_text, foldings
from rnncc.lowering.describe import describe
from rnncc.runtime.api.layer import Layer
from tests.support.paths import ROOT

CELLS = sorted([*(ROOT / "rnncc/cells").glob("*.rnn"), *(ROOT / "tests/cells").glob("*.rnn")])
X = np.zeros((2, 4, 3))


def cell(name: str) -> type[Layer]:
    path = ROOT / "tests/cells" / f"{name}.rnn"
    return oracle.layer_class(compiler.load_spec(path if path.exists() else name))


# ---- constructors ----------------------------------------------------------------------------

CONSTRUCTORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, TypeError, "LSTM needs units: LSTM(units=...)"),
    ({"units": 0}, ValueError, "units is at least 1, not 0"),
    ({"units": -3}, ValueError, "units is at least 1, not -3"),
    ({"units": True}, TypeError, "units is a whole number, not the bool True"),
    ({"units": 4.0}, TypeError, "units is a whole number, not 4.0 (float)"),
    ({"units": float("nan")}, TypeError, "units is a whole number, not nan"),
    ({"units": "4"}, TypeError, "units is a whole number, not '4'"),
    ({"units": None}, TypeError, "units is a whole number, not None"),
    ({"unit": 4}, TypeError, "LSTM has no keyword unit: did you mean units?"),
    ({"units": 4, "return_sequence": True}, TypeError, "did you mean return_sequences?"),
    ({"units": 4, "kernel": 1}, TypeError, "kernel is an array, not a keyword"),
    ({"units": 4, "return_sequences": 1}, TypeError, "return_sequences is True or False, not 1"),
    ({"units": 4, "dropout": 1}, ValueError, "rate dropout is in [0, 1), not 1.0"),
    ({"units": 4, "dropout": -0.1}, ValueError, "rate dropout is in [0, 1), not -0.1"),
    ({"units": 4, "dropout": float("nan")}, ValueError, "rate dropout is in [0, 1), not nan"),
    ({"units": 4, "dropout": "half"}, TypeError, "rate dropout is a number in [0, 1), not 'half'"),
    ({"units": 4, "dropout": True}, TypeError, "rate dropout is a number"),
    ({"units": 4, "use_bias": "yes"}, TypeError, "option use_bias is a bool, not 'yes'"),
    ({"units": 4, "activation": "tanhh"}, ValueError, "did you mean tanh?"),
    ({"units": 4, "activation": np.tanh}, TypeError, "function activation is a name"),
    ({"units": 4, "activation": "lambda v: frob(v)"}, SpecError, "frob"),
    ({"units": 4, "seed": -1}, ValueError, "seed is at least 0"),
    ({"units": 4, "seed": "a"}, TypeError, "seed is a whole number"),
    ({"units": 4, "dtype": "float16"}, ValueError, "dtype is float32 or float64, not 'float16'"),
    ({"units": 4, "dtype": "flaot"}, TypeError, "dtype is float32 or float64, not 'flaot'"),
    ({"units": 4, "name": 3}, TypeError, "name is a text"),
]


@pytest.mark.parametrize(("keywords", "kind", "message"), CONSTRUCTORS)
def test_constructors(keywords: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        cell("lstm")(**keywords)
    assert message in str(caught.value)


def test_sizes_by_position() -> None:
    cls = cell("lstm")
    assert repr(cls(4)) == repr(cls(units=np.int64(4))) == "LSTM(units=4)"
    with pytest.raises(TypeError, match="takes 1 sizes without a keyword"):
        cls(4, 5)
    with pytest.raises(TypeError, match="units twice"):
        cls(4, units=4)


def test_sizes_that_do_not_fit_each_other() -> None:
    with pytest.raises(ValueError, match="units = 7"):
        cell("slstm")(units=7)
    with pytest.raises(ValueError, match="projection = units // 2 comes out as 0 with units = 1"):
        cell("projected_lstm")(units=1)
    assert cell("projected_lstm")(units=1, projection=2)(X).shape == (2, 2)


# ---- calls -----------------------------------------------------------------------------------

INPUTS: list[tuple[Any, type[Exception], str]] = [
    (X[0], ValueError, "x has shape [4, 3], expected [batch, time, features=3]"),
    (X[..., :2], ValueError, "x has shape [2, 4, 2], expected [batch, time, features=3]"),
    (np.zeros((2, 4, 0)), ValueError, "features is at least 1"),
    (X + 0j, TypeError, "x holds complex128 values"),
    (X.astype(object), TypeError, "x holds object values"),
    (X.astype(str), TypeError, "x holds <U"),
    ("x", TypeError, "x is a str: give an array of real numbers"),
    (None, TypeError, "x is None: give an array of real numbers"),
    (X.astype("M8[s]"), TypeError, "x holds datetime64[s] values"),
    (np.ma.masked_array(X), TypeError, "x is a masked array"),
    ([[[1.0], [1.0, 2.0]]], ValueError, "x can't become an array"),
    ({"y": X}, ValueError, "inputs of LSTM has no 'y': one of x"),
    ({}, ValueError, "inputs of LSTM lacks x"),
]


@pytest.mark.parametrize(("given", "kind", "message"), INPUTS)
def test_inputs(given: Any, kind: type[Exception], message: str) -> None:
    layer = cell("lstm")(units=5)
    if "features=3" in message:
        layer(X)
    with pytest.raises(kind) as caught:
        layer(given)
    assert message in str(caught.value)


def test_several_inputs() -> None:
    layer = cell("two_inputs")(units=4)
    x, scores = np.zeros((2, 5, 3, 6)), np.zeros((2, 5, 3))
    for given, message in (
        (x, r"takes 2 arrays \(x, scores\): a tuple or dict, not ndarray"),
        ((x,), "takes 2 arrays .*, 1 were given"),
        ({"x": x}, "lacks scores"),
        ((x, scores[:1]), "scores has batch 1, x has 2"),
        ((x, scores[:, :4]), "scores has time 4, x has 5"),
        ((x, scores[..., :2]), r"\[2, 5, 2\], expected \[batch, time, frames=3\]; .*read off x"),
        ((x[..., 0], scores), r"x has shape \[2, 5, 3\], expected \[batch, time, frames, features"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            layer(given)
    assert not layer.built
    layer((x, scores))


STATES: list[tuple[Any, type[Exception], str]] = [
    (np.zeros((2, 5)), TypeError, "takes 2 arrays (h, c)"),
    ((np.zeros((2, 5)),), ValueError, "takes 2 arrays (h, c), 1 were given"),
    ((np.zeros((2, 5)), np.zeros((2, 4))), ValueError, "initial state c has shape [2, 4]"),
    ((np.zeros((1, 5)), None), ValueError, "initial state h has shape [1, 5], expected [2, 5]"),
    ({"hh": np.zeros((2, 5))}, ValueError, "initial_state of LSTM has no 'hh'"),
    ({"h": "zeros"}, TypeError, "initial state h is a str"),
]


@pytest.mark.parametrize(("given", "kind", "message"), STATES)
def test_initial_states(given: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        cell("lstm")(units=5)(X, initial_state=given)
    assert message in str(caught.value)


# ---- compile -----------------------------------------------------------------------------------


def test_what_can_be_compiled(tmp_path: pathlib.Path) -> None:
    for name in ("lstm", "LSTM", "SimpleRNN", "simple_rnn", "layer_norm_lstm", "LayerNormLSTM"):
        assert issubclass(rnncc.compile(name), Layer)
    for path in (ROOT / "rnncc/cells").glob("*.rnn"):
        assert rnncc.compile(compiler.load_spec(path).name).maker.cell.source == path.name
    text = (ROOT / "rnncc/cells/lstm.rnn").read_text()
    path = tmp_path / "mine.rnn"
    path.write_text(text)
    for made in (rnncc.compile(path), rnncc.compile(str(path)), rnncc.compile_text(text)):
        assert made.__name__ == "LSTM" and "forget gate" in (made.__doc__ or "")
    with pytest.raises(ValueError, match="no built-in cell is called 'lsmt': did you mean lstm"):
        rnncc.compile("lsmt")
    with pytest.raises(ValueError, match="compile_text"):
        rnncc.compile(text)
    with pytest.raises(SpecError, match=r"nowhere\.rnn can't be read"):
        rnncc.compile("nowhere.rnn")
    with pytest.raises(SpecError, match="is a directory"):
        rnncc.compile(tmp_path)
    with pytest.raises(SpecError, match="did you mean kernel"):
        rnncc.compile_text(text.replace("kernel +", "kernal +"))
    with pytest.raises(TypeError, match="not int"):
        rnncc.compile(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not bytes"):
        rnncc.compile_text(b"cell: C")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target is one of cpu, cuda, not 'tpu'"):
        rnncc.compile("lstm", target="tpu")
    with pytest.raises(ValueError, match="dtype is float32 or float64"):
        rnncc.compile("lstm", dtype="int32")


def test_the_package_is_light() -> None:
    import subprocess
    import sys

    code = "import rnncc, rnncc.runtime.api.layer, sys; rnncc.SpecError\n"
    code += "assert not {'numba', 'jinja2', 'rnncc.passes'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={"PYTHONPATH": "."})
    assert {"compile", "compile_text", "SpecError", "__version__"} <= set(dir(rnncc))
    assert rnncc.__version__
    with pytest.raises(AttributeError, match="no attribute 'complie'"):
        _ = rnncc.complie


# ---- descriptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_a_description_is_its_own_literal(path: pathlib.Path) -> None:
    spec = check_file(path)
    for options in foldings(spec):
        made = describe(spec, options)
        text = literal(made, 0, len("CELL = "))
        assert eval(text, vars(description)) == made
        long = [line for line in text.splitlines() if len(line) > 100]
        assert all("doc=" in line or "message=" in line for line in long)


def test_descriptions_do_not_depend_on_how_a_function_is_spelt() -> None:
    spec = check_file(ROOT / "rnncc/cells/lstm.rnn")
    one = describe(spec, functions={"activation": "lambda v:v/( 1+abs(v) )"})
    two = describe(spec, functions={"activation": "lambda v: v / (1 + abs(v))"})
    assert one == two
    assert dict(one.functions)["activation"] == "lambda v: v / (1 + abs(v))"
    assert describe(spec, functions={"activation": dict(one.functions)["activation"]}) == one


def test_quotients_of_sizes_keep_their_brackets() -> None:
    spec = check_text(
        "cell: C\nunits: size\nhalf: size = units // 2\nx: input[units]\n"
        "h: state[3 * (units // 2)]\nk: weight[units, 3 * (units // 2)]\n"
        "h[t] = x[t] @ k + h[t-1]\nreturn h[t], x[t] * half\n"
    )
    made = describe(spec)
    assert made.states[0].shape == ("3 * (units // 2)",)
    layer = oracle.layer_class(spec)(units=5)
    assert layer(np.zeros((2, 3, 5)))[0].shape == (2, 6)
