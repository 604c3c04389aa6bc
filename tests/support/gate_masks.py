"""Which lanes dropout kept, gate by gate, read off a layer's outputs.

Weights are diagonal and activations linear, so that an output's lane is a polynomial of its own
masks, and numbers are chosen so that each combination of masks gives another output. What a layer
draws is then held against a model of the draw: a mask for each gate, or one for all.

Non-Goals: which layer: those of NumPy and of Keras's backends are read alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

DROPOUT, RECURRENT_DROPOUT = 0.4, 0.3
LINEAR = {"activation": "linear", "recurrent_activation": "linear"}

Bits = tuple[int, ...]
# Of each gate: bias, diagonal of its kernel, diagonal of its recurrent kernel.
_GATES = {
    "SimpleRNN": ((0.1, 0.7, 0.4),),
    "LSTM": ((0.8, 0.6, 0.9), (0.2, -0.6, 0.4), (0.9, 0.7, 0.9), (0.4, -0.9, 0.1)),
    "GRU": ((0.0, -1.0, -0.8), (-0.9, -0.2, 0.4), (-0.7, -0.9, 1.0)),
    "GRU before": ((-0.9, -0.5, -0.3), (-0.9, -0.2, 0.4), (-0.5, -0.9, 0.1)),
}
_RECURRENT_BIAS = 0.3  # of the GRU's candidate, reset_after


@dataclass(frozen=True)
class Readable:
    """A layer whose masks can be read. dropout, recurrent_dropout: its rates."""

    kind: str  # SimpleRNN, LSTM, GRU or "GRU before": reset_after=False
    dropout: float
    recurrent_dropout: float

    @property
    def gates(self) -> int:
        return len(_GATES[self.kind])

    @property
    def keywords(self) -> dict[str, object]:
        """Of the layer."""
        activations = LINEAR if self.gates > 1 else {"activation": "linear"}
        reset = {"reset_after": self.kind == "GRU"} if self.kind.startswith("GRU") else {}
        rates = {"dropout": self.dropout, "recurrent_dropout": self.recurrent_dropout}
        return {**activations, **reset, **rates}

    def weights(self, units: int) -> list[np.ndarray]:
        """kernel, recurrent_kernel, bias; as many features as units."""
        eye, ones = np.eye(units), np.ones(units)
        rows = _GATES[self.kind]
        kernel = np.concatenate([a * eye for _, a, _ in rows], 1)
        recurrent = np.concatenate([d * eye for *_, d in rows], 1)
        bias = np.concatenate([b * ones for b, *_ in rows])
        if self.kind == "GRU":
            own = np.concatenate([0 * ones, 0 * ones, _RECURRENT_BIAS * ones])
            bias = np.stack([bias, own])
        return [kernel, recurrent, bias]

    def step(
        self, x: np.ndarray, states: Sequence[np.ndarray], kept: np.ndarray
    ) -> list[np.ndarray]:
        """Next states, the output first. kept: bools [2, gates, ...], of inputs and of states."""
        h = states[0]
        inputs = kept[0] / (1 - self.dropout) * x
        hidden = kept[1] / (1 - self.recurrent_dropout) * h
        rows = [*zip(_GATES[self.kind], inputs, hidden, strict=True)]
        sums = [b + a * left + d * right for (b, a, d), left, right in rows]
        if self.kind == "SimpleRNN":
            return [sums[0]]
        if self.kind == "LSTM":
            i, f, g, o = sums
            c = f * states[1] + i * g
            return [o * c, c]
        z, r, _ = sums
        (b, a, d), left, right = rows[2]
        reset = r * (d * right + _RECURRENT_BIAS) if self.kind == "GRU" else d * (r * right)
        return [z * h + (1 - z) * (b + a * left + reset)]

    # ---- outputs of a first step, from ones --------------------------------------------------

    def table(self) -> dict[Bits, float]:
        """The output that each combination of masks gives."""
        bits = [*product((0, 1), repeat=2 * self.gates)]
        kept = np.array(bits).T.reshape(2, self.gates, -1)
        ones = np.ones(len(bits))
        values = self.step(ones, [ones, ones], kept)[0]
        return dict(zip(bits, values.tolist(), strict=True))

    def chances(self, per_gate: bool) -> dict[Bits, float]:
        """Of each combination that may come: with a mask for each gate, or one for all."""
        sides = (1 - self.dropout, 1 - self.recurrent_dropout)
        found = {}
        for bits in self.table():
            chance = 1.0
            for side, kept in zip(np.reshape(bits, (2, self.gates)), sides, strict=True):
                drawn = side if per_gate else side[:1]
                chance *= np.prod(np.where(drawn, kept, 1 - kept)) * (
                    per_gate or (side == side[0]).all()
                )
            if chance:
                found[bits] = float(chance)
        return found

    def histogram(self, per_gate: bool) -> tuple[np.ndarray, np.ndarray]:
        """Outputs that may come, ascending, and their chances; masks that give one are one."""
        table, chances = self.table(), self.chances(per_gate)
        values = np.array([table[b] for b in chances])
        distinct, where = np.unique(values.round(7), return_inverse=True)
        return distinct, np.bincount(where, [*chances.values()])

    def holds(self, outputs: np.ndarray, per_gate: bool) -> bool:
        """Whether outputs of a first step are draws of that model: nothing else ever comes, and
        how often each comes is within five standard deviations of its chance."""
        values, chances = self.histogram(per_gate)
        flat = outputs.ravel()
        nearest = np.abs(flat[:, None] - values).argmin(1)
        if np.abs(flat - values[nearest]).max() > 1e-4:
            return False
        counts = np.bincount(nearest, minlength=len(values))
        spread = np.sqrt(len(flat) * chances * (1 - chances))
        return bool((np.abs(counts - len(flat) * chances) <= 5 * spread + 1e-9).all())

    def read(self, outputs: np.ndarray) -> np.ndarray:
        """The masks of a first step, bools [2, gates, *outputs.shape]; where several give one
        output, one of them."""
        table = self.table()
        values = np.array([*table.values()])
        nearest = np.abs(outputs.ravel()[:, None] - values).argmin(1)
        bits = np.array([*table])[nearest]
        return bits.T.reshape(2, self.gates, *outputs.shape).astype(bool)


def all_kinds() -> list[Readable]:
    """Every layer with dropout, with states' dropout, with both."""
    rates = ((DROPOUT, 0.0), (0.0, RECURRENT_DROPOUT), (DROPOUT, RECURRENT_DROPOUT))
    return [Readable(kind, *each) for kind in _GATES for each in rates]


def correlations(bits: np.ndarray) -> np.ndarray:
    """Of each two columns of [samples, columns], in standard deviations of independent draws."""
    found = np.corrcoef(bits.T.astype(float)) * np.sqrt(len(bits))
    return found[np.triu_indices(bits.shape[1], 1)]
