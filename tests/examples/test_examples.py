"""The examples run, and reach what they promise."""

from __future__ import annotations

import gzip
import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    pytest.importorskip("sklearn")
    spec = importlib.util.spec_from_file_location("digits", ROOT / "examples" / "digits.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_digits_are_read(
    digits: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "digits.png"
    assert digits.main(["--picture", str(picture)]) >= 0.95
    assert "held-out digits read right" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_idx_files_are_read(digits: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 96), ("t10k", 40)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = struct.pack(">HBBIII", 0, 8, 3, *images.shape)
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        with gzip.open(tmp_path / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">HBBI", 0, 8, 1, count) + labels.tobytes())
    data = digits.mnist(tmp_path)
    assert data.train_x.shape == (96, 28, 28)
    assert data.train_x.max() <= 1
    np.testing.assert_array_equal(data.test_y, np.arange(40) % 10)
    arguments = ["--mnist", str(tmp_path), "--epochs", "1", "--cell", "lstm"]
    score = digits.main([*arguments, "--picture", str(tmp_path / "digits.png")])
    assert 0 <= score <= 1


def test_libraries_of_jax() -> None:
    pytest.importorskip("jax")
    if not any(map(importlib.util.find_spec, ("flax", "equinox"))):
        pytest.skip("neither flax nor equinox")
    run = [sys.executable, str(ROOT / "examples" / "jax_libraries.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "the same as jax.lax.scan" in done.stdout, done.stderr
