"""`rnncc import` and `rnncc run`: files in, folders and arrays out, and what is said of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rnncc
from rnncc.cli import main

X = np.random.default_rng(1).standard_normal((2, 50, 3)).astype("f")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    net = torch.nn.ModuleDict({"a": torch.nn.GRU(3, 4), "b": torch.nn.Linear(4, 2)})
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "net.safetensors"


def test_import_and_run(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = weights.parent
    words = ["--layers", "gru linear"]
    assert main(["import", str(weights), "-o", str(folder / "m"), "--report", *words]) == 0
    said = capsys.readouterr()
    assert "a.l0/weight_ih" in said.out and "layers: gru(3, 4)@a linear(4, 2)@b" in said.out
    assert not said.err
    model = rnncc.load_model(folder / "m")
    expected = model(X)
    x, y = str(folder / "x.npy"), folder / "y.npy"
    for block in ("1000", "12", "7"):  # at once, and in blocks, the last one short
        assert main(["run", str(folder / "m"), "--input", x, "-o", str(y), "--block", block]) == 0
        np.testing.assert_allclose(np.load(y), expected, atol=1e-7)
    # A file as it is, guessed and shown; names in and out.
    np.savez(folder / "x.npz", x=X)
    out = folder / "y.npz"
    assert main(["run", str(weights), "--input", str(folder / "x.npz"), "-o", str(out)]) == 0
    assert "warning: " in (err := capsys.readouterr().err) and "gru(3, 4)@a linear" in err
    np.testing.assert_allclose(np.load(out)["y"], expected, atol=1e-7)


def test_outputs_that_are_of_no_step(weights: Path) -> None:
    """They aren't cut into blocks."""
    words = ["--layers", "gru linear last"]
    x, y = str(weights.parent / "x.npy"), weights.parent / "y.npy"
    run = ["run", str(weights), "--input", x, "-o", str(y), "--block", "7", *words]
    assert main(run) == 0
    assert np.array_equal(np.load(y), rnncc.load_model(weights, layers="gru linear last")(X))


def test_what_is_wrong_is_said_in_a_line(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = weights.parent
    file, x, y = str(weights), str(folder / "x.npy"), folder / "y.npy"
    np.save(folder / "wide.npy", X[..., :2])
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    (folder / "text.txt").write_text("hello")
    full = folder / "full"
    full.mkdir()
    (full / "kept").write_text("mine")
    words = ["--layers", "gru linear"]
    for arguments, code, said in (
        (["import", str(folder / "text.txt"), "-o", str(folder / "m")], 1, "text.txt: "),
        (["import", file, "-o", str(folder / "m"), "--layers", "lstm"], 1, "no tensors for lstm"),
        (["import", file, "-o", str(folder / "m"), "--layers", "wave"], 2, "wave isn't known"),
        (["import", str(folder / "none"), "-o", str(folder / "m")], 1, "No such file"),
        (["import", file, "-o", str(full), *words], 1, "full"),
        (["import", file, "-o", str(full), *words, "--replace"], 1, "other things"),
        (["run", file, "--input", str(folder / "wide.npy"), "-o", str(y), *words], 1, "wide.npy: "),
        (
            ["run", file, "--input", str(folder / "objects.npy"), "-o", str(y), *words],
            1,
            "no array",
        ),
        (["run", file, "--input", x, "-o", str(y), "--block", "0", *words], 2, "--block"),
    ):
        assert main(arguments) == code
        err = capsys.readouterr().err
        assert said in err and "Traceback" not in err and err.count("\n") == 1
    assert not (folder / "m").exists() and not y.exists()
    assert [p.name for p in full.iterdir()] == ["kept"]
