"""The host plays what the Python model makes of the file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

import rnncc
from rnncc.layers import LSTM
from rnncc.models.component import Port, Wired
from rnncc.models.model import Model
from rnncc.models.plain import Dense
from rnncc.models.recurrent import Recurrent
from tests.support.c.units import built
from tests.support.paths import ROOT

PROGRAM = ROOT / "examples" / "plugin" / "run.py"


@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("g++")), reason="no gcc or g++")
def test_a_file_through_the_host(tmp_path: Path) -> None:
    layer = built(LSTM(8, return_sequences=True, seed=1), (None, None, 1))
    head = Dense("head", np.full((8, 1), 0.3, "float32"))
    nodes = [
        Wired(Recurrent("lstm", layer), ("x",), ("h",)),
        Wired(head, ("h",), ("y",)),
    ]
    port = ("batch", "time", 1)
    Model([Port("x", port)], [Port("y", port)], nodes).save(tmp_path / "amp")
    sound = (8000 * np.sin(np.arange(4801) / 7)).astype("<i2")
    with wave.open(str(tmp_path / "in.wav"), "wb") as file:
        file.setparams((1, 2, 48000, 0, "NONE", ""))
        file.writeframes(sound.tobytes())
    command = [sys.executable, str(PROGRAM), str(tmp_path / "amp"), str(tmp_path / "in.wav")]
    done = subprocess.run(
        [*command, str(tmp_path / "out.wav")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0 and "times faster than real time" in done.stdout, done
    with wave.open(str(tmp_path / "out.wav"), "rb") as file:
        assert file.getframerate() == 48000
        found = np.frombuffer(file.readframes(5000), "<i2")
    x = (sound / np.float32(32768)).astype("float32")
    right = np.clip(
        np.asarray(rnncc.load_model(tmp_path / "amp")(x[None, :, None]))[0, :, 0], -1, 1
    )
    assert np.abs(found - right * 32767).max() <= 1
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    command[-1] = str(tmp_path / "bad.wav")
    done = subprocess.run([*command, str(tmp_path / "no.wav")], capture_output=True, text=True)
    assert done.returncode == 2 and "mono, 16 bits" in done.stderr
    assert not (tmp_path / "no.wav").exists()
