"""Files that pages of the site take for granted: a reader has his own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

import rnncc
from tests.attack.models.documents import NAM


def trained() -> None:
    """A GRU of 16 units on 3 features."""
    layer = rnncc.compile("gru")(units=16, seed=1)
    layer.build((None, None, 3))
    layer.save("trained.npz")


def voice() -> None:
    """A small model of Keras's on 5 features."""
    import keras

    keras.Sequential(
        [
            keras.Input((None, 5)),
            keras.layers.LSTM(8, return_sequences=True, name="lstm"),
            keras.layers.Dense(1),
        ]
    ).save("voice.keras")


def others() -> None:
    """What the page on files reads: of torch, Keras, ONNX."""
    import torch

    import rnncc.export
    from rnncc.layers import LSTM

    voice()
    encoder = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(40, 64)})
    torch.save(torch.nn.ModuleDict({"encoder": encoder}).state_dict(), "speech.pt")
    layer = LSTM(8, return_sequences=True)
    layer.build((None, None, 5))
    rnncc.export.onnx(layer, "speech.onnx")
    parts = torch.nn.ModuleDict({"gru": torch.nn.GRU(40, 64), "head": torch.nn.Linear(64, 3)})
    from safetensors.torch import save_file

    save_file(parts.state_dict(), "net.safetensors")
    np.save("x.npy", np.ones((1, 30, 40), "float32"))


def for_c() -> None:
    trained()
    Path("amp.nam").write_text(json.dumps(NAM))


def exported() -> None:
    trained()
    voice()


GIVEN: dict[str, Callable[[], None]] = {"c": for_c, "files": others, "onnx": exported}
