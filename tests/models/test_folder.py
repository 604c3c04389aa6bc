"""Saved folders: the same model out of them, and damage that is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.files import FileError
from rnncc.layers import GRU, LSTM, RNN, Bidirectional, GRUCell, LSTMCell
from rnncc.models import Component, Model, Port, Wired
from rnncc.models.plain import Dense, EachStep, JoinedBy
from rnncc.models.recurrent import Recurrent

X = np.random.default_rng(1).standard_normal((2, 6, 3)).astype("f")
CELL = "cell: Mine\n\nn: size\nunits: size\n\nx: input[n]\nh: state[units]\n\nw: weight[n, units]\n"
CELL += "\nh[t] = tanh(x[t] @ w + 0.5 * h[t-1])\nreturn h[t]\n"


def wired(*parts: Component) -> list[Wired]:
    return [Wired(p, (f"v{i}",), (f"v{i + 1}",)) for i, p in enumerate(parts)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    """Layers of all sorts, their names full of what separates names."""
    mine = rnncc.compile_text(CELL, filename="mine.rnn")(units=3, return_sequences=True, seed=1)
    kernel = np.random.default_rng(2).standard_normal((3, 3)).astype("f")
    parts = [
        Recurrent("a/b", mine),
        Recurrent("a", Bidirectional(GRU(3, return_sequences=True, seed=1), "sum")),
        Recurrent("rnn", RNN([LSTMCell(3, seed=2), GRUCell(3, seed=3)], return_sequences=True)),
        Recurrent("lstm", LSTM(3, return_sequences=True, seed=4), [kernel[:1], kernel[1:2]]),
        EachStep("each", Dense("inner", kernel, kernel[0], "elu", {"alpha": 0.5})),
    ]
    nodes = [*wired(*parts), Wired(JoinedBy("join", "add"), ("v5", "c"), ("y",))]
    for node in nodes[:4]:
        node.part.layer.build((None, None, 3))  # type: ignore[attr-defined]
    constants = {"c": np.ones((2, 6, 3), "f")}
    ports = [Port("v0", ("batch", 6, 3))], [Port("y", ("batch", 6, 3))]
    model = Model(*ports, nodes, constants, "hand", {"sample_rate": 8000, "list": [1, None]})
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder, model


def test_the_same_again(saved: tuple[Path, Model], tmp_path: Path) -> None:
    folder, model = saved
    again = rnncc.load_model(folder)
    assert np.array_equal(again(X), model(X))
    assert (again.inputs, again.outputs, again.metadata, again.origin) == (
        model.inputs,
        model.outputs,
        model.metadata,
        model.origin,
    )
    assert again.weights.keys() == model.weights.keys()
    text = (folder / "model.json").read_text()
    assert (folder / "cells" / "mine.rnn").read_text() == CELL and CELL.splitlines()[0] not in text
    again.save(tmp_path / "again")
    assert all(
        (tmp_path / "again" / p.relative_to(folder)).read_bytes() == p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file()
    )


def test_it_replaces_a_model_and_nothing_else(saved: tuple[Path, Model], tmp_path: Path) -> None:
    model = saved[1]
    model.save(tmp_path / "m")
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "m")
    model.save(tmp_path / "m", replace=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for replace in (False, True):
        with pytest.raises(FileExistsError):
            model.save(tmp_path / "other", replace=replace)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "other"]


def test_a_part_without_a_kind(tmp_path: Path) -> None:
    class Own(Component):
        def __call__(self, *inputs: Any) -> Any:
            return inputs

    model = Model([Port("v0", ("n",))], [Port("v1", ("n",))], wired(Own("own")))
    with pytest.raises(TypeError, match="own is a Own, which says no kind"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def damaged(folder: Path, tmp_path: Path, change: Callable[[Path, Any], Any]) -> Path:
    """A copy that is changed: the folder, or its manifest."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    manifest = json.loads((copy / "model.json").read_text())
    if change(copy, manifest) != "as it is":
        (copy / "model.json").write_text(json.dumps(manifest))
    return copy


def at(*path: Any) -> Callable[[Path, Any], None]:
    def change(_: Path, manifest: Any) -> None:
        *before, last, value = path
        for key in before:
            manifest = manifest[key]
        manifest[last] = value

    return change


def file(name: str, data: bytes | None) -> Callable[[Path, Any], None]:
    def change(folder: Path, _: Any) -> None:
        (folder / name).unlink() if data is None else (folder / name).write_bytes(data)

    return change


def text_of_manifest(text: str) -> Callable[[Path, Any], str]:
    def change(folder: Path, _: Any) -> str:
        (folder / "model.json").write_text(text)
        return "as it is"

    return change


CHANGES: list[tuple[Any, str]] = [
    (file("weights.safetensors", None), "weights.safetensors: the manifest lists it"),
    (file("weights.safetensors", b"\0" * 99), "its checksum differs"),
    (file("cells/mine.rnn", CELL.replace("0.5", "0.6").encode()), "its checksum differs"),
    (at("format", "other"), "of the format 'rnncc model'"),
    (at("version", 2), "version 2 is not 1"),
    (at("files", {}), "files lists"),
    (at("files", "../../etc/passwd", {}), "none of a model's"),
    (at("files", "cells/../x.rnn", {}), "none of a model's"),
    (at("nodes", 0, "kind", "pickle"), "'pickle', which this rnncc doesn't know"),
    (at("nodes", 0, "config", "layer", "text_file", "cells/no.rnn"), "isn't among its files"),
    (at("nodes", 0, "config", "layer", "class_name", 7), None),
    (at("nodes", 1, "config", "layer", "class_name", "os.system"), "no layer or cell is called"),
    (at("nodes", 1, "config", "layer", "config", {}), "can't be made"),
    (at("nodes", 0, "config", "sizes", {"n": 10**9, "units": 10**9}), "can't be made"),
    (at("nodes", 4, "config", "kind", "zip"), "can't be made: KeyError"),
    (at("nodes", 4, "config", "config", "activation", "wave"), "can't be made"),
    (at("nodes", 4, "weights", "kernel", "rnn/cell_0.bias"), "can't be made"),
    (at("nodes", 4, "weights", "kernel", "nothing"), "it has no tensor nothing"),
    (at("nodes", 4, "weights", "kernel", ["a"]), "named by an object of texts"),
    (at("nodes", 4, "inputs", ["v9"]), "reads v9, which nobody makes"),
    (at("nodes", 4, "inputs", [7]), "names of what it reads"),
    (at("nodes", 4, 7), "a part has a name"),
    (at("nodes", {}), "nodes is a list"),
    (at("inputs", 0, {"name": "x", "shape": ["a"], "dtype": "O"}), "no input or output"),
    (at("inputs", 0, {"name": "x"}), "no input or output"),
    (at("metadata", []), "metadata is an object"),
    (at("constants", {"v0": "constant/c", "c": "constant/c"}), "share a name"),
    (text_of_manifest("{"), "it is no JSON"),
    (text_of_manifest("[" * 10**5), "too deep"),
    (text_of_manifest('{"a": 1, "a": 2}'), "twice"),
    (text_of_manifest("[]"), "of the format"),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_damage(number: int, saved: tuple[Path, Model], tmp_path: Path) -> None:
    change, said = CHANGES[number]
    copy = damaged(saved[0], tmp_path, change)
    if said is None:
        rnncc.load_model(copy)
        return
    with pytest.raises(FileError, match=said) as raised:
        rnncc.load_model(copy)
    assert str(copy) in str(raised.value)


def test_truncated_anywhere(saved: tuple[Path, Model], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(saved[0], copy)
    for name in ("model.json", "weights.safetensors", "cells/mine.rnn"):
        data = (copy / name).read_bytes()
        for end in range(0, len(data) - 1, max(1, len(data) // 40)):
            (copy / name).write_bytes(data[:end])
            with pytest.raises(FileError):
                rnncc.load_model(copy)
        (copy / name).write_bytes(data)
    rnncc.load_model(copy)


def test_links_are_not_followed(saved: tuple[Path, Model], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(saved[0], copy)
    (copy / "weights.safetensors").unlink()
    (copy / "weights.safetensors").symlink_to(saved[0] / "weights.safetensors")
    with pytest.raises(FileError, match="a link"):
        rnncc.load_model(copy)
    with pytest.raises(FileError, match="no saved model"):
        rnncc.load_model(tmp_path)
    with pytest.raises(ValueError, match="leave layers out"):
        rnncc.load_model(saved[0], layers="lstm")
    with pytest.raises(ValueError, match="leave dtype out"):
        rnncc.load_model(saved[0], dtype="float64")
