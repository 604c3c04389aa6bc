"""Large numbers of ONNX models, which stay in the file until they are arrays."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from rnncc.files import FileError, onnx_wire, read
from rnncc.models import Model
from rnncc.models.load import load_model
from rnncc.models.onnx import load_onnx
from tests.support.in_onnx.graphs import model_of, streamed, tagger

KINDS = ("f4", "f8", "f2", "i4", "i8", "u1", "bool")


def large() -> Any:
    """An LSTM, and a product behind it: 5 MB."""
    rng = np.random.default_rng(3)
    shapes = {"W": (1, 320, 700), "R": (1, 320, 80), "kernel": (80, 12_000), "bias": (12_000,)}
    held = {n: (rng.standard_normal(s) * 0.1).astype("f") for n, s in shapes.items()}
    text = """
    Y, Yh, Yc = LSTM <hidden_size = 80> (x, W, R)
    each = Squeeze (Y, axes)
    product = MatMul (each, kernel)
    y = Add (product, bias)
    """
    held |= {"axes": np.array([1])}
    return model_of(text, held, "float[T,B,700] x", "float[T,B,12000] y")


@pytest.fixture
def cutting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As large files are, with numbers of any size."""
    monkeypatch.setattr(onnx_wire, "CUT_FROM", 0)
    monkeypatch.setattr(onnx_wire, "LARGE", 8)


def tensors() -> Any:
    model = large()
    del model.graph.initializer[:]
    for kind in KINDS:
        array = np.arange(24).astype(kind).reshape(2, 3, 4)
        model.graph.initializer.append(numpy_helper.from_array(array, kind))
    return model


@pytest.mark.parametrize("plain", ["reference", "onnxruntime"])
def test_a_large_model(plain: str, tmp_path: Path) -> None:
    """Whole, with numbers beside it, and saved as a folder."""
    model, path = large(), tmp_path / "model.onnx"
    x = np.random.default_rng(0).standard_normal((3, 2, 700)).astype("f")
    path.write_bytes(model.SerializeToString())
    with path.open("rb") as file:
        data, stored = onnx_wire.cut_apart(file, path)
    assert len(data) < 60_000 and len(stored) == 3
    loaded = load_onnx(path, plain)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(loaded(x), expected, 1e-4, 1e-4)
    loaded.save(tmp_path / "folder")
    assert "operators_1/kernel" in loaded.weights
    again = load_model(tmp_path / "folder")
    assert isinstance(again, Model) and np.allclose(again(x), expected, 1e-4, 1e-4)
    onnx.save(model, tmp_path / "beside.onnx", save_as_external_data=True, location="numbers")
    assert np.array_equal(load_onnx(tmp_path / "beside.onnx", plain)(x), loaded(x))


@pytest.mark.parametrize("plain", ["reference", "onnxruntime"])
@pytest.mark.parametrize("make", [tagger, streamed])
def test_models_that_are_cut(
    make: Any, plain: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They compute what they did whole."""
    path, x = tmp_path / "model.onnx", np.random.default_rng(2).standard_normal((2, 2, 5))
    path.write_bytes(make().SerializeToString())
    fed = {load_onnx(path, plain).inputs[0].name: x}
    expected = load_onnx(path, plain)(fed)
    monkeypatch.setattr(onnx_wire, "CUT_FROM", 0)
    monkeypatch.setattr(onnx_wire, "LARGE", 64)
    found = load_onnx(path, plain)(fed)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], 1e-6, 1e-6)


def test_every_kind_of_numbers(cutting: None, tmp_path: Path) -> None:
    path = tmp_path / "w.onnx"
    path.write_bytes(tensors().SerializeToString())
    found = read(path)
    for kind in KINDS:
        array = np.arange(24).astype(kind).reshape(2, 3, 4)
        assert found[kind].dtype == array.dtype and np.array_equal(found[kind], array)


def test_shapes_of_other_sizes(cutting: None, tmp_path: Path) -> None:
    model = tensors()
    model.graph.initializer[0].dims[:] = [2, 3, 5]
    (tmp_path / "w.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        FileError, match="tensor f4: it has 96 bytes of numbers, not those of shape"
    ):
        read(tmp_path / "w.onnx")


def test_what_protobuf_has_to_judge(cutting: None, tmp_path: Path) -> None:
    """Cut anywhere, unknown fields, lengths past the end, numbers twice: nothing is lost."""
    whole = tensors().SerializeToString()
    twice = TensorProto(name="f4", data_type=1, dims=[4], raw_data=b"0" * 16).SerializeToString()
    twice += TensorProto(raw_data=struct.pack("<4f", 1, 2, 3, 4)).SerializeToString()
    graph = b"\x2a" + bytes([len(twice)]) + twice
    strange = (
        *(whole[:n] for n in range(0, len(whole), 37)),
        whole + b"\x3b",
        whole + b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        whole + b"\x3a" + bytes([len(graph)]) + graph,
    )
    path = tmp_path / "w.onnx"
    for data in strange:
        path.write_bytes(data)
        model, expected = onnx.ModelProto(), onnx.ModelProto()
        with path.open("rb") as file:
            rest, stored = onnx_wire.cut_apart(file, path)
        try:
            expected.ParseFromString(data)
        except Exception:
            assert rest == data and not stored
            continue
        model.ParseFromString(rest)
        for i, place in stored.items():
            assert not model.graph.initializer[i].HasField("raw_data")
            model.graph.initializer[i].raw_data = place.read("").tobytes()
        assert model == expected


def test_more_fields_than_are_looked_through(
    cutting: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "w.onnx"
    path.write_bytes(data := tensors().SerializeToString())
    monkeypatch.setattr(onnx_wire, "MOST_FIELDS", 5)
    with path.open("rb") as file:
        assert onnx_wire.cut_apart(file, path) == (data, {})
