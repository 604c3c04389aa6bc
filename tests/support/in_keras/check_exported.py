"""Graphs of torch that another process made: they run the layer that computes the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import layers

from rnncc import compile_text
from rnncc import keras as own
from tests.support.in_keras.helpers import BACKEND

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="of torch.export")

CELL = """
cell: Alike
x: input[features]
features: size
units: size
h: state[units]
W: weight[features, units]
h[t] = {0}(x[t] @ W + h[t-1])
return h[t]
"""


def made() -> Any:
    layer = own.SimpleRNN(5, return_sequences=True)
    layer.build((None, 3, 4))
    shapes = [w.shape for w in layer.weights]
    layer.set_weights([np.linspace(-0.5, 0.5, int(np.prod(s))).reshape(s) for s in shapes])
    return layer


def write(path: str) -> None:
    """What the other process does: its layer is its first one."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = made()

        def forward(self, x: Any) -> Any:
            return self.layer(x)

    torch.export.save(torch.export.export(Model(), (torch.ones(2, 3, 4),)), path)


def test_a_graph_of_another_process(tmp_path: Path) -> None:
    import torch

    path = str(tmp_path / "graph.pt2")
    script = f"from tests.support.in_keras.check_exported import write; write({path!r})"
    subprocess.run([sys.executable, "-c", script], check=True)
    others = own.GRU(5, return_sequences=True), own.SimpleRNN(5)
    for other in others:
        other(torch.ones(2, 3, 4))
    graph, x = torch.export.load(path).module(), torch.linspace(-1, 1, 24).reshape(2, 3, 4)
    with pytest.raises(RuntimeError, match="make the module that the graph was compiled from"):
        graph(x)
    first, second = made(), made()
    torch.testing.assert_close(graph(x), first(x))
    del first  # another one that computes the same is enough
    torch.testing.assert_close(graph(x), second(x))


def test_what_is_computed_tells_layers_apart() -> None:
    cells = [compile_text(CELL.format(name)) for name in ("tanh", "sigmoid", "tanh")]
    for wrap in (lambda cell: cell, lambda cell: [cell, layers.SimpleRNNCell(5)]):
        keys = []
        for cell in cells:
            layer = own.RNN(wrap(own.Cell(cell, units=5)))
            layer.build((None, 3, 5))
            keys.append(layer.operation().key)
        assert keys[0] == keys[2] != keys[1]
