"""What can't be a file of ONNX: one clear error, and nothing on the disk."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx isn't installed")

import rnncc
import rnncc.export
from rnncc.export.to_onnx import door
from rnncc.layers import LSTM, LSTMCell
from rnncc.models import Model, Port, Wired
from rnncc.models.plain import Dense
from rnncc.models.recurrent import Recurrent
from tests.support.in_onnx.exported import filled

SHAPE = (None, None, 2)


def lstm(**options: Any) -> Any:
    return filled(LSTM(3, **options), SHAPE)


READS = """
cell: ReadsWords
units: size
words: size
x: input[units]
memory: context[words, units]
h: state[units]
h[t] = tanh(x[t] + h[t-1] + sum(memory, axis=0))
return h[t]
"""


def reads() -> Any:
    layer = rnncc.compile_text(READS)(units=2)
    layer.build(((None, None, 2), (None, None, 2)))
    return layer


def two_kinds() -> Model:
    parts = [Recurrent("r", lstm(return_sequences=True)), Dense("d", np.eye(3))]
    nodes = [Wired(parts[0], ("x",), ("y",)), Wired(parts[1], ("y",), ("z",))]
    return Model([Port("x", ("b", "t", 2))], [Port("z", ("b", "t", 3))], nodes)


WRONG: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (lambda: np.zeros(3), {}, TypeError, "ndarray is neither a layer nor a model"),
    (lambda: LSTMCell(3), {}, TypeError, "LSTMCell is neither a layer nor a model"),
    (lambda: LSTM(3), {}, ValueError, "LSTM has no weights yet"),
    (lambda: lstm(stateful=True), {}, ValueError, "is stateful.*states=True"),
    (lambda: lstm(weights="int8"), {}, ValueError, "weights='int8' has no ONNX form"),
    (reads, {}, ValueError, r"make the layer with words=\.\.\."),
    (lstm, {"form": "loop"}, ValueError, "form='loop', expected one of 'auto', 'node', 'scan'"),
    (lstm, {"lengths": True, "mask": True}, TypeError, "a file has one of them"),
    (lstm, {"mask": True, "form": "node"}, ValueError, "a mask other than lengths"),
    (lambda: lstm(activation="swish"), {"form": "node"}, ValueError, "its equations"),
    (two_kinds, {}, TypeError, "d/kernel holds float64 values, the model is of float32"),
    (two_kinds, {"states": True}, TypeError, "a model has the inputs it has"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_cant_be(number: int, tmp_path: Path) -> None:
    make, asked, kind, message = WRONG[number]
    with pytest.raises(kind, match=message):
        rnncc.export.onnx(make(), tmp_path / "m.onnx", **asked)
    assert not [*tmp_path.iterdir()]


def test_what_came_from_onnx_is_there_already(tmp_path: Path) -> None:
    import onnx

    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[B,3] x) => (float[B,3] y) {y = Relu(x)}'
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "a.onnx")
    model = rnncc.load_model(tmp_path / "a.onnx", plain="reference")
    with pytest.raises(TypeError, match=r"onnx operators\) has no ONNX form here.*in that file"):
        rnncc.export.onnx(model, tmp_path / "b.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        rnncc.export.onnx(lstm(), tmp_path / "folder")
    with pytest.raises(OSError, match="none"):
        rnncc.export.onnx(lstm(), tmp_path / "none" / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_more_than_a_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = lstm()
    size = 4 * layer.count_params()
    for most in (size - 1, size + 2**16):  # seen by the weights, and by the graph
        monkeypatch.setattr(door, "MOST_BYTES", most)
        with pytest.raises(ValueError, match=f"an .onnx file holds {most} bytes"):
            rnncc.export.onnx(layer, tmp_path / "m.onnx")
    assert not [*tmp_path.iterdir()]


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "rnncc.export.to_onnx.door":
            raise ImportError("No module named 'onnx'", name="onnx")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'rnncc\[onnx\]'"):
        rnncc.export.onnx(lstm(), tmp_path / "m.onnx")
