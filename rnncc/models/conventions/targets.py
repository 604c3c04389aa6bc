"""What a layer's own weights are: of which kind and form, cell by cell.

Known by the text of the cell, not by its name: a cell that somebody else called LSTM may have its
gates in any order, so its weights are taken by their names alone.

Non-Goals: files (`groups`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rnncc.layers.composite import Composite
from rnncc.models.conventions.cell_weights import CellWeights, Unfit
from rnncc.models.conventions.forms import CONVENTIONS, Convention
from rnncc.runtime.api.layer import Layer

# Texts of cells: their file, their kind, whose form their weights have.
_CELLS = (
    ("cells/lstm.rnn", "lstm", "keras"),
    ("cells/gru.rnn", "gru", "keras"),
    ("cells/simple_rnn.rnn", "rnn", "keras"),
    ("cells/peephole_lstm.rnn", "lstm", "keras"),
    ("cells/projected_lstm.rnn", "lstm", "keras"),
    ("torch/lstm.rnn", "lstm", "torch"),
    ("torch/gru.rnn", "gru", "torch"),
    ("torch/rnn.rnn", "rnn", "torch"),
    ("torch/projected_lstm.rnn", "lstm", "torch"),
)


@functools.cache
def _known() -> dict[str, tuple[str, str]]:
    folder = Path(__file__).parents[2]
    found = {}
    for file, kind, form in _CELLS:
        text = (folder / file).read_text(encoding="utf-8")
        found[hashlib.sha256(text.encode()).hexdigest()] = (kind, form)
    return found


@dataclass(frozen=True)
class LayerCell:
    """One cell of a layer. prefix: what its weights' names begin with outside ("forward.").
    kind: None for a cell whose text isn't known here."""

    layer: Layer
    prefix: str
    kind: str | None
    convention: Convention | None

    @property
    def names(self) -> list[str]:
        cell = self.layer.cell
        return [a.name for a in (*cell.weights, *cell.constants)]

    @property
    def label(self) -> str:
        return f"{self.prefix}{self.layer.cell.name}"

    @property
    def runs_back(self) -> bool | None:
        """Which side of two directions it is; None outside of such."""
        sides = {"forward": False, "backward": True}
        return next((sides[p] for p in self.prefix.split(".") if p in sides), None)

    @property
    def reset_after(self) -> bool | None:
        if self.kind != "gru":
            return None
        return bool(dict(self.layer.cell.options).get("reset_after", True))

    def take(self, weights: CellWeights) -> dict[str, np.ndarray]:
        """As this layer has them, by its own names. Unfit for what it has no place for."""
        assert self.convention is not None
        if weights.reset_after not in (None, self.reset_after):
            ways = [f"reset_after={w}" for w in (weights.reset_after, self.reset_after)]
            raise Unfit(f"these are weights for {ways[0]}, the layer has {ways[1]}")
        if weights.kind == "gru" and weights.reset_after is None:
            weights = CellWeights(**{**vars(weights), "reset_after": self.reset_after})
        if self.reset_after is False and weights.recurrent_bias is not None:
            summed = weights.summed_bias()
            weights = CellWeights(**{**vars(weights), "bias": summed, "recurrent_bias": None})
        bias = self.convention.names["bias"] in self.names
        found = self.convention.write(weights, bias=bias)
        for name in self.convention.peephole_names:  # none is as good as zeros
            if name in self.names and name not in found:
                found[name] = np.zeros(weights.input.shape[1], weights.input.dtype)
        for name in [n for n in found if n not in self.names]:
            if found[name].any() or name not in self.convention.peephole_names:
                raise Unfit(f"{self.layer.cell.name} has no {name}, which these weights have")
            del found[name]
        missing = [n for n in self.names if n not in found]
        if missing:
            raise Unfit(f"{', '.join(missing)} of {self.layer.cell.name} isn't among them")
        return found

    def give(self, arrays: Mapping[str, np.ndarray]) -> CellWeights:
        """The counterpart of `take`."""
        if self.convention is None or self.kind is None:
            raise Unfit(f"{self.layer.cell.name} is a cell whose gates nobody has described here")
        return self.convention.read(self.kind, arrays, self.reset_after)


def targets_of(layer: Layer, prefix: str = "") -> Iterator[LayerCell]:
    """Its cells, in order."""
    if isinstance(layer, Composite):
        for part in layer.parts:
            yield from targets_of(part.layer, f"{prefix}{part.prefix}." if part.prefix else prefix)
        return
    kind, form = _known().get(layer.cell.sha256 or "", (None, None))
    yield LayerCell(layer, prefix, kind, CONVENTIONS[form] if form else None)
