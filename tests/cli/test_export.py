"""`rnncc export`: a cell and a file of weights -> a folder of C."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
import rnncc.export
from rnncc.cli import main
from rnncc.layers import LSTM
from rnncc.models.component import Port, Wired
from rnncc.models.model import Model
from rnncc.models.plain import Dense
from tests.support.c.units import built


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    layer = built(LSTM(4), (None, None, 3))
    layer.save(tmp_path / "w.npz")
    rnncc.export.c(layer, tmp_path / "right", name="gate", block=8)
    return tmp_path


def command(folder: Path, **changed: Any) -> list[str]:
    given = {"file": "lstm", "weights": folder / "w.npz", "name": "gate", "o": folder / "made"}
    given |= changed
    options = [f"--{n}={v}" if len(n) > 1 else f"-{n}{v}" for n, v in given.items() if n != "file"]
    return ["export", str(given["file"]), *options]


def test_the_files_are_those_of_the_layer(weights: Path, capsys: Any) -> None:
    assert main(command(weights, block=8)) == 0
    assert "gate.c, of 128 weights" in capsys.readouterr().out
    for file in (weights / "right").iterdir():
        assert file.read_bytes() == (weights / "made" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    "changed, code, message",
    [
        ({"file": "gru"}, 1, "holds weights of LSTM, not GRU"),
        ({"name": "int"}, 2, "C identifier"),
        ({"block": 0}, 2, "number of steps"),
        ({"set": "units=5"}, 2, "the weights have units=4"),
        ({"weights": "none.npz"}, 1, "none.npz"),
        ({"weights": __file__}, 1, "holds no weights of a layer"),
    ],
)
def test_what_is_wrong(
    changed: dict[str, Any], code: int, message: str, weights: Path, capsys: Any
) -> None:
    assert main(command(weights, **changed)) == code
    said = capsys.readouterr()
    assert message in said.err and not said.out and "Traceback" not in said.err, said.err
    assert not (weights / "made").exists()


def test_a_folder_that_is_there_stays(weights: Path, capsys: Any) -> None:
    assert main(command(weights, o=weights / "right")) == 1
    assert "not empty" in capsys.readouterr().err


# ---- ONNX ----------------------------------------------------------------------------------------


def onnx_command(folder: Path, *more: str) -> list[str]:
    return [
        "export",
        "lstm",
        f"--weights={folder / 'w.npz'}",
        "--onnx",
        f"-o{folder / 'm.onnx'}",
        *more,
    ]


def test_a_file_of_onnx(weights: Path, capsys: Any) -> None:
    pytest.importorskip("onnx", reason="onnx isn't installed")
    assert main(onnx_command(weights, "--states", "--lengths")) == 0
    assert f"{weights / 'm.onnx'}: " in capsys.readouterr().out
    layer = LSTM(4, return_sequences=True)
    layer.load(weights / "w.npz")
    rnncc.export.onnx(layer, weights / "n.onnx", states=True, lengths=True)
    import onnx

    one, two = (onnx.load(weights / f"{n}.onnx").graph for n in "mn")
    assert one.input == two.input and one.output == two.output and one.node == two.node
    assert one.initializer == two.initializer


def test_a_model_as_onnx(weights: Path, capsys: Any) -> None:
    pytest.importorskip("onnx", reason="onnx isn't installed")
    from rnncc.models import Model, Port, Wired
    from rnncc.models.recurrent import Recurrent

    layer = LSTM(4)
    layer.load(weights / "w.npz")
    node = Wired(Recurrent("r", layer), ("x",), ("y",))
    Model([Port("x", ("b", "t", 3))], [Port("y", ("b", 4))], [node]).save(weights / "model")
    assert main(["export", str(weights / "model"), "--onnx", f"-o{weights / 'm.onnx'}"]) == 0
    assert (weights / "m.onnx").exists()


@pytest.mark.parametrize(
    "more, message",
    [
        (["--block=4"], "--block is of C"),
        (["--name=x"], "--name is of C"),
        (["--set=units=5"], "the weights have units=4"),
        (["--mask", "--lengths"], "a file has one of them"),
        (["--mask", "--form=node"], "a mask other than lengths"),
    ],
)
def test_what_is_wrong_with_onnx(more: list[str], message: str, weights: Path, capsys: Any) -> None:
    pytest.importorskip("onnx", reason="onnx isn't installed")
    assert main(onnx_command(weights, *more)) == 2
    said = capsys.readouterr()
    assert message in said.err and not said.out
    assert not (weights / "m.onnx").exists()


def test_a_cell_as_onnx_needs_weights(tmp_path: Path, capsys: Any) -> None:
    assert main(["export", "gru", "--onnx", f"-o{tmp_path / 'm.onnx'}"]) == 2
    assert "--weights is needed: gru is a cell" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_what_c_needs_and_has_not(weights: Path, capsys: Any) -> None:
    given = ["export", "lstm", f"--weights={weights / 'w.npz'}", f"-o{weights / 'made'}"]
    for more, message in (([], "--name is needed"), (["--name=a", "--states"], "is of --onnx")):
        assert main([*given, *more]) == 2
        assert message in capsys.readouterr().err


def test_a_model_as_c(tmp_path: Path, capsys: Any) -> None:
    """A folder of `rnncc import` or any such file; a cell has no weights of its own."""
    model = Model(
        [Port("x", ("batch", "time", 2))],
        [Port("y", ("batch", "time", 3))],
        [Wired(Dense("d", np.ones((2, 3), "float32")), ("x",), ("y",))],
    )
    model.save(tmp_path / "model")
    made = tmp_path / "made"
    given = ["--name=net", f"-o{made}", "--storage=int8"]
    assert main(["export", str(tmp_path / "model"), *given]) == 0
    assert "net.c, of 6 weights" in capsys.readouterr().out and (made / "net.c").exists()
    for more, message in (
        (["gru", *given], "--weights is needed: gru is a cell"),
        ([str(tmp_path / "model"), "--set=a=1", *given], "--set and --last are of a cell"),
        ([str(tmp_path / "none"), *given], "none"),
        ([str(tmp_path / "model"), *given], "not empty"),
        (["gru", "--weights=w.npz", "--layers=lstm", *given], "--layers is of a model"),
    ):
        assert main(["export", *more]) != 0
        assert message in capsys.readouterr().err
