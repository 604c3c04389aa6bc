"""What users get wrong, one row each: a clear error that names the thing, or correct work.

Every refusal is asserted by its words: what was given, what was expected or what to do. Keywords
of the constructor, values of calls and the binding of sizes have more rows in test_validation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import SpecError, oracle
from rnncc.runtime.api.layer import Layer
from tests.support.paths import CELLS

TEXT = """cell: Tiny
features: size
units: size
x: input[features]
h: state[units]
kernel: weight[features, units]
h[t] = tanh(x[t] @ kernel + h[t-1])
return h[t]
"""
EQUATION = "h[t] = tanh(x[t] @ kernel + h[t-1])"
X = np.random.default_rng(0).uniform(-1, 1, (2, 4, 3))


def edited(*pairs: tuple[str, str]) -> bytes:
    text = TEXT
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text.encode()


# ---- files -----------------------------------------------------------------------------------

FILES: list[tuple[str, bytes, str, list[str]]] = [
    ("empty", b"", "1:1", ["the file is empty"]),
    ("blank", b"\n  \n# only a remark\n", "", ["the cell has no name", "nothing is returned"]),
    ("binary", bytes(range(256)) * 8, "", ["not UTF-8 text"]),
    ("nul", TEXT.encode() + b"\0", "9:1", ["not UTF-8 text"]),
    ("utf-16", TEXT.encode("utf-16"), "1:1", ["not UTF-8 text"]),
    (
        "unknown name",
        edited(("@ kernel", "@ kernl")),
        "7:20",
        ["no value is called kernl", "did you mean kernel?"],
    ),
    ("unknown function", edited(("tanh", "tahn")), "7:8", ["tahn", "did you mean tanh?"]),
    (
        "wrong shapes",
        edited(("[features, units]", "[units, features]")),
        "7:13",
        ["inner sizes differ: features and units", "x[t] : [features]  (line 4)"],
    ),
    (
        "a state never updated",
        edited((EQUATION, "y = x[t] @ kernel + h[t-1]"), ("return h[t]", "return y")),
        "5:1",
        ["state h has no equation", "write h[t] = ..."],
    ),
    (
        "a cycle within a step",
        edited((EQUATION, "a = b + x[t] @ kernel\nb = 2 * a\nh[t] = b + h[t-1]")),
        "7:1",
        ["a cycle within one step: a -> b -> a", "read a state of the step before"],
    ),
    (
        "a state that reads itself",
        edited(("h[t-1]", "h[t]")),
        "7:1",
        ["a cycle within one step: h[t] -> h[t]"],
    ),
    (
        "an unknown size",
        edited(("[features, units]", "[features, unit]")),
        "6:26",
        ["no size is called unit", "did you mean units?"],
    ),
    ("a negative size", edited(("units: size", "units: size = -3")), "3:15", ["not a size"]),
    ("a size no whole number", edited(("units: size", "units: size = 2.5")), "3:15", ["whole"]),
    ("a NaN size", edited(("units: size", "units: size = nan")), "3:15", ["no size is called nan"]),
]


@pytest.mark.parametrize(
    ("data", "place", "words"), [f[1:] for f in FILES], ids=[f[0] for f in FILES]
)
def test_files(tmp_path: Path, data: bytes, place: str, words: list[str]) -> None:
    path = tmp_path / "cell.rnn"
    path.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        rnncc.compile(path)
    message = str(caught.value)
    assert f"{path}:{place}" in message
    for word in words:
        assert word in message
    # Nothing a terminal would obey.
    assert not {c for c in message if not c.isprintable()} - {"\n", "\t"}


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.rnn can't be read: No such file"):
        rnncc.compile(tmp_path / "nowhere.rnn")
    with pytest.raises(SpecError, match="is a directory"):
        rnncc.compile(tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "closed.rnn"
    path.write_text(TEXT)

    def closed(*_: object) -> object:  # a mode of 0 would not stop root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(SpecError, match=r"closed\.rnn can't be read: Permission denied"):
        rnncc.compile(path)


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbf" + TEXT.encode(), TEXT.replace("\n", "\r\n").encode()]
)
def test_files_of_other_editors_work(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "cell.rnn"
    path.write_bytes(data)
    assert rnncc.compile(path).__name__ == "Tiny"


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cell.rnn"
    path.write_bytes(edited(("@ kernel", "@ kernl"), ("[features, units]", "[features, unit]")))
    with pytest.raises(SpecError) as caught:
        rnncc.compile(path)
    assert "no value is called kernl" in str(caught.value)
    assert "no size is called unit" in str(caught.value)


# ---- sizes -----------------------------------------------------------------------------------

SIZES: list[tuple[Any, type[Exception], str]] = [
    (0, ValueError, "units is at least 1, not 0"),
    (-4, ValueError, "units is at least 1, not -4"),
    (float("nan"), TypeError, "units is a whole number, not nan (float)"),
    (4.0, TypeError, "units is a whole number, not 4.0 (float)"),
    (True, TypeError, "units is a whole number, not the bool True"),
    (np.True_, TypeError, "units is a whole number, not the bool"),
    (np.float32(4), TypeError, "units is a whole number"),
    ("4", TypeError, "units is a whole number, not '4' (str)"),
    (None, TypeError, "units is a whole number, not None (NoneType)"),
    ([4], TypeError, "units is a whole number, not [4] (list)"),
]


@pytest.mark.parametrize(("value", "kind", "message"), SIZES)
def test_sizes(value: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        rnncc.compile("lstm")(units=value)
    assert message in str(caught.value)


def test_sizes_by_default() -> None:
    cls = rnncc.compile_text(edited(("units: size", "units: size = 0")).decode())
    with pytest.raises(ValueError, match="units is at least 1, its default is 0: give another"):
        cls()
    assert cls(units=2).cell.name == "Tiny"


def test_keywords() -> None:
    cls = rnncc.compile("lstm")
    with pytest.raises(TypeError, match=r"LSTM needs units: LSTM\(units=\.\.\.\)"):
        cls()
    with pytest.raises(TypeError, match="LSTM has no keyword unit: did you mean units"):
        cls(unit=4)
    with pytest.raises(
        TypeError, match="frobnicate: one of features, units, dropout_per_gate, unroll"
    ):
        cls(units=4, frobnicate=True)
    with pytest.raises(TypeError, match="takes 1 sizes without a keyword"):
        cls(4, 5)


# ---- calls -----------------------------------------------------------------------------------


def lstm(**keywords: Any) -> Layer:
    return oracle.layer_class(rnncc.compile("lstm").maker.spec)(units=5, seed=1, **keywords)


class Subclassed(np.ndarray):
    pass


CALLS: list[tuple[Any, type[Exception], str]] = [
    (X[0], ValueError, "x has shape [4, 3], expected [batch, time, features=3]"),
    (X[None], ValueError, "x has shape [1, 2, 4, 3], expected [batch, time, features=3]"),
    (X[..., :2], ValueError, "features=3]; features: fixed by the layer's weights"),
    (X[..., :0], ValueError, "x has shape [2, 4, 0]: features is at least 1"),
    (3.0, ValueError, "x has shape [], expected [batch, time, features=3]"),
    (X + 0j, TypeError, "x holds complex128 values: give real numbers, which become float64"),
    (X.astype(object), TypeError, "x holds object values"),
    (X.astype(str), TypeError, "x holds <U"),
    (X.astype("M8[s]"), TypeError, "x holds datetime64[s] values"),
    (np.ma.masked_array(X), TypeError, "x is a masked array: fill it"),
    (None, TypeError, "x is None: give an array of real numbers"),
    ("x", TypeError, "x is a str: give an array of real numbers"),
    (iter([X]), TypeError, "x is a list_iterator: give an array of real numbers"),
    ([[[1.0], [1.0, 2.0]]], ValueError, "x can't become an array"),
    ((X, X), ValueError, "x has shape [2, 2, 4, 3], expected [batch, time, features=3]"),
    ({"y": X}, ValueError, "inputs of LSTM has no 'y': one of x"),
    ({}, ValueError, "inputs of LSTM lacks x"),
]


@pytest.mark.parametrize(("given", "kind", "message"), CALLS)
def test_calls(given: Any, kind: type[Exception], message: str) -> None:
    layer = lstm()
    y = layer(X)
    for call in (layer, layer.vjp):
        with pytest.raises(kind) as caught:
            call(given)
        assert message in str(caught.value)
    np.testing.assert_array_equal(layer(X), y)


def test_inputs_that_disagree() -> None:
    path = CELLS / "two_inputs.rnn"
    layer = oracle.layer_class(rnncc.compile(path).maker.spec)(units=4)
    x, scores = np.zeros((2, 5, 3, 6)), np.zeros((2, 5, 3))
    with pytest.raises(ValueError, match="scores has batch 1, x has 2: make them agree"):
        layer((x, scores[:1]))
    with pytest.raises(ValueError, match="scores has time 4, x has 5: make them agree"):
        layer((x, scores[:, :4]))
    with pytest.raises(ValueError, match=r"expected \[batch, time, frames=3\]; frames: read off x"):
        layer((x, scores[..., :2]))
    with pytest.raises(TypeError, match=r"takes 2 arrays \(x, scores\): a tuple or dict"):
        layer(x)


def test_a_size_that_was_given_is_held_against_the_data() -> None:
    with pytest.raises(ValueError, match=r"features=4\]; features: given to the layer"):
        lstm(features=4)(X)


STATES: list[tuple[Any, type[Exception], str]] = [
    (np.zeros((2, 5)), TypeError, "takes 2 arrays (h, c): a tuple or dict, not ndarray"),
    ((np.zeros((2, 5)),), ValueError, "initial_state of LSTM takes 2 arrays (h, c), 1 were given"),
    ([np.zeros((2, 5))] * 3, ValueError, "takes 2 arrays (h, c), 3 were given"),
    ((np.zeros((2, 4)), None), ValueError, "initial state h has shape [2, 4], expected [2, 5]"),
    ((np.zeros((3, 5)), None), ValueError, "initial state h has shape [3, 5], expected [2, 5]"),
    ((None, np.zeros((5,))), ValueError, "initial state c has shape [5], expected [2, 5]"),
    ({"hh": np.zeros((2, 5))}, ValueError, "initial_state of LSTM has no 'hh'"),
    ((np.zeros((2, 5), complex), None), TypeError, "initial state h holds complex128 values"),
    ((0, 0), ValueError, "initial state h has shape [], expected [2, 5]"),
]


@pytest.mark.parametrize(("given", "kind", "message"), STATES)
def test_initial_states(given: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        lstm()(X, initial_state=given)
    assert message in str(caught.value)


def test_keywords_of_a_call() -> None:
    layer = lstm(dropout=0.5)
    with pytest.raises(TypeError, match="training is True or False, not 'yes'"):
        layer(X, training="yes")
    np.testing.assert_array_equal(layer(X, training=None), layer(X, training=False))
    np.testing.assert_array_equal(layer(X, training=1, seed=3), layer(X, training=True, seed=3))
    with pytest.raises(TypeError, match=r"seed is a whole number, not 1\.5"):
        layer(X, training=True, seed=1.5)
    with pytest.raises(ValueError, match="seed is at least 0, not -1"):
        layer(X, training=True, seed=-1)
    for plain in (layer, lstm()):  # whether anything draws or not, and whatever there is to run
        for x in (X, X[:0], X[:, :0]):
            for call in (plain, plain.vjp):
                with pytest.raises(TypeError, match="seed is a whole number, not the bool True"):
                    call(x, training=False, seed=True)
                with pytest.raises(TypeError, match="seed is a whole number, not 'a'"):
                    call(x, seed="a")
                with pytest.raises(
                    ValueError, match=r"seed is less than 2\*\*63, this one has 100 bits"
                ):
                    call(x, seed=10**30)
                with pytest.raises(TypeError, match="training is True or False, not 'yes'"):
                    call(x, training="yes")
    drawn = layer(X, training=True, seed=np.int32(3))
    np.testing.assert_array_equal(drawn, layer(X, training=True, seed=3))


COTANGENTS: list[tuple[Any, type[Exception], str]] = [
    (np.zeros((3, 5)), ValueError, "dy has shape [3, 5], expected the shape of what was returned"),
    (np.zeros((2, 4, 5)), ValueError, "was returned, [2, 5]"),
    (1.0, ValueError, "dy has shape [], expected the shape of what was returned, [2, 5]"),
    (np.zeros((2, 5), complex), TypeError, "dy holds complex128 values"),
    ("dy", TypeError, "dy is a str: give an array of real numbers"),
]


@pytest.mark.parametrize(("dy", "kind", "message"), COTANGENTS)
def test_cotangents(dy: Any, kind: type[Exception], message: str) -> None:
    _, pullback = lstm().vjp(X)
    with pytest.raises(kind) as caught:
        pullback(dy)
    assert message in str(caught.value)
    assert pullback(np.ones((2, 5), int)).inputs.shape == X.shape


def test_cotangents_of_several() -> None:
    _, pullback = lstm(return_state=True).vjp(X)
    with pytest.raises(TypeError, match="dy is a tuple of 3, like what was returned, not ndarray"):
        pullback(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="dy has 2 parts, 3 were returned"):
        pullback((None, None))
    with pytest.raises(ValueError, match=r"dy of c has shape \[2, 4\]"):
        pullback((None, None, np.zeros((2, 4))))
    with pytest.raises(ValueError, match="wrt has no 'kernel': one of inputs, weights"):
        pullback(None, wrt="kernel")
    with pytest.raises(TypeError, match="wrt is one or several of inputs, weights"):
        pullback(None, wrt=3)


# ---- correct work, on kernels ------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernels() -> Layer:
    layer = rnncc.compile("lstm", dtype="float64")(units=5, seed=1)
    layer(X)
    return layer


def awkward(x: np.ndarray) -> dict[str, Any]:
    """The same numbers in every layout NumPy has."""
    frozen = x.copy()
    frozen.flags.writeable = False
    shifted = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape)
    record = np.zeros(x.shape, [("pad", "i1"), ("x", x.dtype)])
    record["x"] = x
    return {
        "read-only": frozen,
        "byte-swapped": x.astype(x.dtype.newbyteorder()),
        "Fortran": np.asfortranarray(x),
        "transposed": x.transpose().copy().transpose(),
        "strided": np.repeat(x, 2, axis=-1)[..., ::2],
        "reversed": x[::-1].copy()[::-1],
        "misaligned": shifted,
        "a field of records": record["x"],
        "lists": x.tolist(),
        "subclass": x.view(Subclassed),
        "wider": x.astype(np.longdouble),
        "memoryview": memoryview(x),
    }


@pytest.mark.parametrize("way", list(awkward(X)))
def test_any_layout_of_everything(kernels: Layer, way: str) -> None:
    h, c = X[:, 0, :1] * np.ones(5), X[:, 1, :1] * np.ones(5)
    y, pullback = kernels.vjp(X, initial_state=(h, c))
    dy = np.linspace(-1, 1, y.size).reshape(y.shape)
    expected = pullback(dy)
    got, pulled = kernels.vjp(awkward(X)[way], initial_state=(awkward(h)[way], awkward(c)[way]))
    np.testing.assert_array_equal(got, y)
    assert type(got) is np.ndarray and got.dtype == np.float64
    found = pulled(awkward(dy)[way])
    np.testing.assert_array_equal(found.inputs, expected.inputs)
    np.testing.assert_array_equal(found.initial_state[1], expected.initial_state[1])
    other = type(kernels)(units=5, features=3, seed=2)
    for name, weight in kernels.weights.items():
        other.weights[name] = awkward(weight)[way]
        np.testing.assert_array_equal(found.weights[name], expected.weights[name])
    np.testing.assert_array_equal(other(X), kernels(X))


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize(("batch", "time"), [(0, 4), (2, 0), (0, 0)])
def test_nothing_to_compute(batch: int, time: int, sequences: bool) -> None:
    layer = rnncc.compile("lstm", dtype="float64")(
        units=5, seed=1, return_sequences=sequences, return_state=True
    )
    given = (np.ones((batch, 5)), np.full((batch, 5), 2.0))
    shape = (batch, time, 5) if sequences else (batch, 5)
    for (y, h, c), pullback in (
        layer.vjp(np.zeros((batch, time, 3)), initial_state=given),
        (layer(np.zeros((batch, time, 3)), initial_state=given), None),
    ):
        assert y.shape == shape and not y.any()
        np.testing.assert_array_equal(h, given[0])
        np.testing.assert_array_equal(c, given[1])
        if pullback is not None:
            gradients = pullback((np.ones(shape), np.full((batch, 5), 3.0), None))
            assert gradients.inputs.shape == (batch, time, 3)
            np.testing.assert_array_equal(gradients.initial_state[0], np.full((batch, 5), 3.0))
            assert {n: g.shape for n, g in gradients.weights.items()} == {
                n: w.shape for n, w in layer.weights.items()
            }
            assert not any(g.any() for g in gradients.weights.values())


def test_numbers_that_are_none(kernels: Layer) -> None:
    """NaN and infinities are values: they stay in their row."""
    x = X.copy()
    x[1, 2, 0] = np.nan
    y = kernels(x)
    assert np.isnan(y[1]).any()
    np.testing.assert_array_equal(y[0], kernels(X)[0])
    x[1, 2, 0] = np.inf
    assert np.isfinite(kernels(x)).all()


# ---- weights and files -----------------------------------------------------------------------

WEIGHTS: list[tuple[Any, type[Exception], str]] = [
    (np.zeros((3, 5)), ValueError, "weight kernel has shape [3, 5], expected [3, 20]"),
    (0.0, ValueError, "weight kernel has shape [], expected [3, 20]"),
    (np.zeros((3, 20), complex), TypeError, "weight kernel holds complex128 values"),
    (np.zeros((3, 20), "U1"), TypeError, "weight kernel holds <U1 values"),
    (None, TypeError, "weight kernel is None: give an array of real numbers"),
]


@pytest.mark.parametrize(("value", "kind", "message"), WEIGHTS)
def test_weights(value: Any, kind: type[Exception], message: str) -> None:
    layer = lstm(features=3)
    before = layer.get_weights()
    for change in (
        lambda: layer.weights.__setitem__("kernel", value),
        lambda: layer.set_weights([value, before[1] + 1, before[2]]),
        lambda: layer.set_weights(iter([value, before[1] + 1, before[2]])),
    ):
        with pytest.raises(kind) as caught:
            change()
        assert message in str(caught.value)
    for a, b in zip(layer.get_weights(), before):
        np.testing.assert_array_equal(a, b)


def test_lists_of_weights() -> None:
    layer = lstm(features=3)
    names = r"kernel, recurrent_kernel, bias"
    with pytest.raises(ValueError, match=rf"LSTM has 3 weights \({names}\), 2 were given"):
        layer.set_weights(layer.get_weights()[:2])
    for wrong in (None, 3, dict(layer.weights), "kernel"):
        with pytest.raises(TypeError, match=rf"weights of LSTM are a list of arrays \({names}\)"):
            layer.set_weights(wrong)
    with pytest.raises(KeyError, match="LSTM has no weight 'kernal': did you mean kernel"):
        layer.weights["kernal"] = 1
    with pytest.raises(ValueError, match="LSTM has no weights yet: call it, or build it"):
        lstm().set_weights(layer.get_weights())


def test_files_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layer = lstm(features=3)
    layer.save("w.npz")
    data = Path("w.npz").read_bytes()
    other = oracle.layer_class(rnncc.compile("lstm").maker.spec)(units=5, features=3, seed=9)
    before = other.get_weights()
    wrong: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "it is no .npz file"),
        "text": (b"cell: Tiny\n", "it is no .npz file"),
        "pickle": (b"\x80\x04N.", "it is no .npz file"),
        "cut": (data[: len(data) // 2], "holds no weights of a layer"),
        "beheaded": (data[9:], "it is no .npz file"),
    }
    for name, (content, words) in wrong.items():
        Path(name).write_bytes(content)
        with pytest.raises(ValueError, match=words) as caught:
            other.load(name)
        assert str(caught.value).startswith(f"{name} holds no weights of a layer")
    rng = np.random.default_rng(0)
    for _ in range(200):  # damaged anywhere: refused, or the damage was in no weight
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        Path("damaged").write_bytes(damaged)
        try:
            lstm(features=3).load("damaged")
        except ValueError as error:
            assert "damaged" in str(error)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        other.load("nowhere")
    with pytest.raises(IsADirectoryError):
        other.load(".")
    for a, b in zip(other.get_weights(), before):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"weight kernel has shape|w\.npz has units=5"):
        oracle.layer_class(rnncc.compile("lstm").maker.spec)(units=6, features=3).load("w.npz")


def test_weights_are_saved_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layer = lstm(features=3)
    Path("folder").mkdir()
    os.mkfifo("pipe")
    with pytest.raises(IsADirectoryError, match="folder"):
        layer.save("folder")
    with pytest.raises(FileNotFoundError, match=r"'no/such\.npz'"):
        layer.save("no/such.npz")
    with pytest.raises(OSError, match="only a file can be written there: 'pipe'"):
        layer.save("pipe")
    layer.save("real.npz")
    Path("link.npz").symlink_to("real.npz")
    layer.weights["bias"] = layer.weights["bias"] + 1
    layer.save("link.npz")
    assert Path("link.npz").is_symlink()
    fresh = lstm(features=3)
    fresh.load("real.npz")
    np.testing.assert_array_equal(fresh.weights["bias"], layer.weights["bias"])
    kept = Path("real.npz").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: 'real\.npz'"):
        layer.save("real.npz")
    assert Path("real.npz").read_bytes() == kept
    assert sorted(p.name for p in Path().iterdir()) == ["folder", "link.npz", "pipe", "real.npz"]


def test_building() -> None:
    for shapes, kind, message in (
        (3, TypeError, "the shape of x is a tuple of its own, not 3"),
        ((None, 3), ValueError, r"x has shape \[any, 3\], expected \[batch, time, features\]"),
        ((None, None, float("nan")), TypeError, "an axis of x is a whole number, not nan"),
        ((None, None, 0), ValueError, "features is at least 1"),
        ((None, None, None), ValueError, "weights of LSTM need features"),
    ):
        with pytest.raises(kind, match=message):
            lstm().build(shapes)


# ---- the command line --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [f[0] for f in FILES])
def test_the_command_line_says_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rnncc_cli: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, data, place, words = next(f for f in FILES if f[0] == name)
    Path("cell.rnn").write_bytes(data)
    ran = rnncc_cli("compile", "cell.rnn", "-o", "out.py")
    assert (ran.code, ran.out) == (1, "")
    assert f"cell.rnn:{place}" in ran.err and all(word in ran.err for word in words)
    assert "Traceback" not in ran.err
    assert [p.name for p in Path().iterdir()] == ["cell.rnn"]


def test_outputs_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rnncc_cli: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.rnn").write_text(TEXT)
    Path("file").write_text("")
    Path("folder.py").mkdir()
    for output, code, words in (
        ("no/out.py", 2, "no/out.py: there is no folder no"),
        ("file/out.py", 2, "file/out.py: there is no folder file"),
        ("folder.py", 2, "folder.py is a folder: name the file to write"),
        ("out.txt", 2, "out.txt: a module's file ends in .py"),
    ):
        ran = rnncc_cli("compile", "tiny.rnn", "-o", output)
        assert ran.code == code and words in ran.err and ran.out == ""

    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "out.py")

    monkeypatch.setattr(os, "replace", closed)
    ran = rnncc_cli("compile", "tiny.rnn", "-o", "out.py")
    assert ran.code == 1 and "out.py: Permission denied" in ran.err
    assert sorted(p.name for p in Path().iterdir()) == ["file", "folder.py", "tiny.rnn"]
