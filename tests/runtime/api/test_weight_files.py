"""Weights in .safetensors: the library reads them, a layer takes them back, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rnncc.layers import GRU, LSTM, Bidirectional


def test_both_ways(tmp_path: Path) -> None:
    """By extension; told by content when read, so a file may be renamed."""
    layer = Bidirectional(LSTM(3, seed=1))
    layer.build((None, None, 2))
    path = tmp_path / "w.safetensors"
    layer.save(path)
    found = safetensors.numpy.load_file(path)
    assert {*found} == {*layer.weights} and [p.name for p in tmp_path.iterdir()] == [path.name]
    layer.save(tmp_path / "w.npz")
    path.rename(tmp_path / "w")
    for file in (tmp_path / "w", tmp_path / "w.npz"):
        fresh = Bidirectional(LSTM(3, seed=2))
        fresh.load(file)
        for a, b in zip(fresh.get_weights(), layer.get_weights()):
            np.testing.assert_array_equal(a, b)


def test_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    layer = LSTM(3, seed=1)
    layer.build((None, None, 2))
    layer.save(path)
    with pytest.raises(ValueError, match="holds weights of LSTM, not GRU"):
        GRU(3).load(path)
    with pytest.raises(ValueError, match=r"units=3, this layer units=4"):
        LSTM(4).load(path)
    with pytest.raises(ValueError, match="saved with use_bias=True, this layer has use_bias=False"):
        LSTM(3, use_bias=False).load(path)
    other = LSTM(3)
    other.build((None, None, 5))
    with pytest.raises(ValueError, match=r"kernel has shape \[2, 12\], expected \[5, 12\]"):
        other.load(path)
    whole = path.read_bytes()
    for end in range(0, len(whole), 17):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"w.safetensors holds no weights of a layer: \w"):
            LSTM(3).load(path)
    safetensors.numpy.save_file(dict(layer.weights), path)
    with pytest.raises(
        ValueError, match=r"wasn't written by a layer's save\(\): rnncc.load_weights"
    ):
        LSTM(3).load(path)
