"""Whole graphs of ONNX: which parts they become, and that they compute what onnxruntime does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import rnncc
from rnncc.files import FileError
from rnncc.models import Model
from rnncc.models.component import NoGradient, NoStream
from rnncc.models.onnx import load_onnx
from tests.support.in_onnx.graphs import arrays, axes, model_of, streamed, tagger

X = {"tagger": (9, 2, 5), "streamed": (2, 9, 5)}
Load = Callable[..., Model]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(model: Any, plain: str = "auto") -> Model:
        path = tmp_path / "model.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return load_onnx(path, plain)

    return loaded


def x_of(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("f")


def close(found: dict[str, np.ndarray], model: Any, fed: dict[str, np.ndarray]) -> None:
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    for name, expected in zip(names, session.run(names, fed)):
        np.testing.assert_allclose(found[name], expected, 1e-6, 1e-6, err_msg=name)


@pytest.mark.parametrize("plain", ["onnxruntime", "reference"])
@pytest.mark.parametrize("make", [tagger, streamed])
def test_plain_operators_are_few_graphs(make: Any, plain: str, load: Load) -> None:
    graph, x = make(), x_of(X[make.__name__])
    model = load(graph, plain)
    assert [n.part.kind.split()[1] for n in model.nodes] == ["operators", "recurrent"] * 2 + [
        "operators"
    ]
    close(model({"x": x}), graph, {"x": x})
    by = {"onnxruntime": "onnxruntime 1.", "reference": "the reference of onnx 1."}[plain]
    assert model.plan().count(by) == 3
    if make is tagger:  # what only makes weights isn't computed again
        assert "Unsqueeze" not in model.plan() and "Concat" not in model.plan()
        with pytest.raises(NoGradient, match="operators"):
            model.vjp(x)
    with pytest.raises(ValueError, match=r"input x has shape \[\d, 5\]"):
        model(x[0, :3])


@pytest.mark.parametrize("make", [tagger, streamed])
def test_a_folder_holds_them(make: Any, load: Load, tmp_path: Path) -> None:
    model, x = load(make()), x_of(X[make.__name__])
    model.save(tmp_path / "saved")
    again = rnncc.load_model(tmp_path / "saved")
    assert all(map(np.array_equal, model(x), again(x)))
    whole = rnncc.load_model(tmp_path / "model.onnx", plain="reference")
    assert np.allclose(whole(x)[0], model(x)[0], 1e-6, 1e-6)


def test_streams(load: Load) -> None:
    model, x = load(streamed()), x_of((2, 9, 5))
    whole = model({"x": x})
    for width in (1, 3):
        stream = model.stream({"x": x[:, :width]})
        blocks = [stream({"x": x[:, t : t + width]}) for t in range(0, 9, width)]
        assert np.allclose(np.concatenate([b["y"] for b in blocks], 1), whole["y"], 1e-6, 1e-6)
        assert np.allclose(blocks[-1]["final"], whole["final"], 1e-6, 1e-6)


LSTM = "Y, h = LSTM<hidden_size = 3>(p, W, R) s = Squeeze(Y, one)"
# Of plain operators around an LSTM: whether a step needs nothing of another.
STEPS: list[tuple[str, str, bool]] = [
    ("p = Relu(x)", "y = Softmax<axis = -1>(s)", True),
    ("p = Relu(x)", "y = Softmax<axis = 0>(s)", False),
    ("p = Add(x, wide)", "y = MatMul(s, K)", True),
    ("p = Add(x, x)", "t = Transpose(s) y = MatMul(K, t)", False),
    ("p = Mul(x, long)", "y = Identity(s)", False),
    ("p = Identity(x)", "t = Unsqueeze(s, one) y = Squeeze(t, one)", True),
    ("p = Identity(x)", "y = Add(s, h)", False),
    ("p = Identity(x)", "y = ReduceMean<axes = [0]>(s)", False),
    ("p = Identity(x)", "y = ReduceMean<axes = [2]>(s)", False),  # not known, so not trusted
    ("p = Identity(x)", "t = Gather<axis = 0>(s, last) y = Relu(t)", True),
    ("p = Identity(x)", "y = Gather<axis = 0>(s, first)", False),
    ("p = Identity(x)", "y = Concat<axis = 2>(s, s)", True),
    ("p = Identity(x)", "y = Concat<axis = 0>(s, s)", False),
    ("p = Identity(x)", "y = Reshape(s, flat)", False),
    ("p = Identity(x)", "y = Slice(s, one, two, two)", True),
    ("p = Identity(x)", "y = Slice(s, one, two, nought)", False),
    (
        "p = Identity(x)",
        "k = Shape(s) f = Cast<to = 1>(k) g = Gather(f, first) y = Mul(s, g)",
        False,
    ),
    ("p = Transpose<perm = [1, 0, 2]>(x)", "y = Identity(s)", True),
    ("p = CumSum(x, first)", "y = Identity(s)", False),
]


@pytest.mark.parametrize(("before", "behind", "apart"), STEPS)
def test_which_graphs_keep_steps_apart(before: str, behind: str, apart: bool, load: Load) -> None:
    """Those that do give in blocks what they give at once; the others are refused."""
    held = arrays(7, W=(1, 12, 4), R=(1, 12, 3), wide=(1, 4), long=(6, 1, 1), K=(3, 3))
    held |= {"one": axes(1), "two": axes(2), "nought": axes(0), "flat": axes(-1, 3)}
    held |= {"last": np.array(-1, "i8"), "first": np.array(0, "i8")}
    text = f"{before} {LSTM} {behind}"
    used = {n: a for n, a in held.items() if n in text.replace(",", " ").replace(")", " ").split()}
    used |= {n: a for n, a in held.items() if f"({n}" in text}
    rank = {"Gather": 2}.get(behind.split("= ")[1].split("<")[0], 3)
    if "Reshape" in behind:
        rank = 2
    y = f"float[{','.join('abc'[:rank])}] y"
    model = load(model_of(text, used, "float[T,B,4] x", y), "reference")
    turned = "perm" in before
    x = x_of((6, 6, 4))
    part = (lambda t: x[:, t : t + 2]) if turned else (lambda t: x[t : t + 2])
    if not apart:
        with pytest.raises(NoStream):
            model.stream(part(0))
        return
    whole = model(x)
    stream = model.stream(part(0))
    blocks = [stream(part(t)) for t in (0, 2, 4)]
    found = blocks[-1] if rank == 2 else np.concatenate(blocks)
    assert np.allclose(found, whole, 1e-6, 1e-6)


def test_functions_of_a_model_are_written_out(load: Load) -> None:
    held = arrays(8, W=(1, 12, 4), R=(1, 12, 3)) | {"one": axes(1)}
    function = """
        <domain: "own", opset_import: ["" : 17]> Cell (a, W, R) => (Y) {
            Y = LSTM<hidden_size = 3, direction = "reverse">(a, W, R)
        }"""
    graph = model_of(
        "Y = own.Cell(x, W, R) y = Squeeze(Y, one)",
        held,
        *("float[T,B,4] x", "float[T,B,3] y", function, ', "own" : 1'),
    )
    model, x = load(graph), x_of((4, 2, 4))
    assert [n.part.kind for n in model.nodes] == ["onnx recurrent", "onnx operators"]
    close(model({"x": x}), graph, {"x": x})


SMALL = arrays(9, W=(1, 12, 4), R=(1, 12, 3))
OUT = "float[T,D,B,3] Y"


def small(text: str = "Y = LSTM<hidden_size = 3>(x, W, R)", **also: Any) -> Any:
    return model_of(text, SMALL, "float[T,B,4] x", OUT, **also)


def test_what_isnt_there_is_named(load: Load) -> None:
    branch = """
        c = Constant<value = bool {1}>()
        Y = If<then_branch = g1 () => (float[T,D,B,3] a) { a = LSTM<hidden_size = 3>(x, W, R) },
               else_branch = g2 () => (float[T,D,B,3] b) { b = LSTM<hidden_size = 3>(x, W, R) }>(c)
    """
    named = small("y = Fancy(x) Y = LSTM<hidden_size = 3>(y, W, R)")
    named.graph.node[0].name = "the one"
    for graph, words in (
        (named, r"model.onnx: node the one \(Fancy\): there is no operator Fancy in version 17"),
        (
            small("y = own.Odd(x) Y = LSTM<hidden_size = 3>(y, W, R)", also=', "own" : 2'),
            r"node 0 \(Odd\): there is no operator Odd of domain 'own' in version 2",
        ),
        (small(branch), r"node 1 \(If\): has a LSTM \(no name\) in a branch"),
        (small("Y = LSTM<hidden_size = 4>(x, W, R)"), r"\(LSTM\): tensor W: W has shape"),
        (small("Y = LSTM<hidden_size = 3, clip = -1.0>(x, W, R)"), r"\(LSTM\): clip is -1.0"),
        (small("Y = LSTM<hidden_size = 3, depth = 2>(x, W, R)"), "Unrecognized attribute: depth"),
        (small("Y = LSTM<hidden_size = 3>(x, W)"), "node 0|input size 2"),
        (small("Y = LSTM<hidden_size = 3>(missing, W, R)"), "missing"),
        (b"", "it has no graph"),
        (b"no model at all", "is no ONNX model"),
    ):
        with pytest.raises(FileError, match=words):
            load(graph)
    with pytest.raises(ValueError, match="one of auto, onnxruntime, reference, not 'torch'"):
        load(small(), "torch")
    with pytest.raises(FileError, match=r"absent.onnx: can't be read: No such file"):
        load_onnx("absent.onnx")
    with pytest.raises(FileError, match="is no file"):
        load_onnx(".")


def test_attributes_that_fit_no_shape(load: Load) -> None:
    """The file is read, as onnx checks no more of it; a call says what failed on what."""
    graph = streamed()
    graph.graph.node[0].attribute[0].ints[:] = [0, 2, 2]
    with pytest.raises(ValueError, match=r"model.onnx|operators"):
        load(graph, "reference")({"x": x_of((2, 9, 5))})
    graph = small()
    graph.graph.input[0].type.tensor_type.elem_type = 90
    with pytest.raises(FileError, match=r"model\.onnx: "):
        load(graph)


def test_tensors_in_other_files(tmp_path: Path) -> None:
    """Read where they lie in the model's folder, refused elsewhere."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path, x = folder / "model.onnx", x_of((3, 2, 4))
    onnx.save_model(
        small(), path, save_as_external_data=True, location="data.bin", size_threshold=0
    )
    expected = np.asarray(load_onnx(path)(x))
    close({"Y": expected}, small(), {"x": x})
    (tmp_path / "data.bin").write_bytes((folder / "data.bin").read_bytes())
    os.symlink(tmp_path / "data.bin", folder / "link.bin")
    for key, value, words in (
        ("location", "../data.bin", "'../data.bin', outside of the model's folder"),
        ("location", str(folder / "data.bin"), "outside of the model's folder"),
        ("location", "link.bin", "outside of the model's folder"),
        ("location", "none.bin", "which is no file"),
        ("location", "a\0b", "can't be read: .*null"),
        ("location", "", "can't be there"),
        ("offset", "-4", "none of .* at -4"),
        ("offset", "10000", "at 10000"),
        ("length", "1000000000000", "none of 1000000000000"),
        ("length", "x", "can't be read"),
        ("length", "8", "tensor name: W"),
    ):
        model = onnx.load(path, load_external_data=False)
        entries = model.graph.initializer[0].external_data
        for entry in [e for e in entries if e.key == key]:
            entries.remove(entry)
        entries.add(key=key, value=value)
        (folder / "bad.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(FileError, match=words):
            load_onnx(folder / "bad.onnx")


def test_more_tensors_than_are_read(load: Load) -> None:
    """A few bytes each, and each check of the library looks at all."""
    many = small().SerializeToString() + b"\x3a\x80\xb5\x18" + b"\x2a\x00" * 200_000
    with pytest.raises(FileError, match=r"it has 200,0\d\d tensors, more than 65,536"):
        load(many)


def test_the_voice_detector() -> None:
    path = Path(os.environ.get("RNNCC_MODELS", "../shared/models")) / "vad_16k_sequence.onnx"
    if not path.exists():
        pytest.skip(f"{path} isn't there")
    model, rng = load_onnx(path), np.random.default_rng(0)
    fed = {
        "input": (rng.standard_normal((31, 576)) * 0.1).astype("f"),
        **{n: (rng.standard_normal((1, 1, 128)) * 0.1).astype("f") for n in "hc"},
    }
    session = onnxruntime.InferenceSession(str(path))
    for found, expected in zip(model(fed).values(), session.run(None, fed)):
        np.testing.assert_allclose(found, expected, 1e-5, 1e-5)
    with pytest.raises(NoStream):
        model.stream(fed)
