"""A recurrent cell's weights, whoever wrote them: gate by gate.

Non-Goals: how libraries lay them out (`forms`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Gates in the order that they have here. GRU: n is the candidate; SimpleRNN has one.
GATES = {"lstm": "ifgo", "gru": "zrn", "rnn": "n"}
PEEPHOLES = "ifo"


class Unfit(ValueError):
    """Weights that a form or a layer can't hold, and why."""


@dataclass(frozen=True)
class CellWeights:
    """kind: "lstm", "gru" or "rnn". input: [gates, units, features]. recurrent: [gates, units,
    what recurs]. bias: [gates, units], of the input's side; recurrent_bias: the same, of the
    other; None: zeros. projection: [projected, units]. peepholes: [3, units], of i, f, o.
    reset_after: whether a GRU's reset gate acts behind the product; None for other kinds.
    """

    kind: str
    input: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray | None = None
    recurrent_bias: np.ndarray | None = None
    projection: np.ndarray | None = None
    peepholes: np.ndarray | None = None
    reset_after: bool | None = None

    def __post_init__(self) -> None:
        """Unfit for shapes that don't fit each other."""
        gates = len(GATES[self.kind])
        units = self.input.shape[1] if self.input.ndim == 3 else 0
        recurs = units if self.projection is None else len(self.projection)
        expected = {
            "input": (gates, units, self.input.shape[-1]),
            "recurrent": (gates, units, recurs),
            "bias": (gates, units),
            "recurrent_bias": (gates, units),
            "projection": (recurs, units),
            "peepholes": (len(PEEPHOLES), units),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise Unfit(f"its {name} is {list(array.shape)}, expected {list(shape)}")

    @property
    def features(self) -> int:
        return int(self.input.shape[2])

    def summed_bias(self) -> np.ndarray | None:
        """One bias that does what both do. Unfit where there is none: a GRU's candidate whose
        recurrent bias the reset gate multiplies."""
        if self.recurrent_bias is None or not self.recurrent_bias.any():
            return self.bias
        if self.reset_after and self.recurrent_bias[GATES["gru"].index("n")].any():
            raise Unfit("the reset gate multiplies its candidate's recurrent bias: two are needed")
        return added(self.bias, self.recurrent_bias)


def added(a: np.ndarray | None, b: np.ndarray) -> np.ndarray:
    """Summed in float64, as they were if one is zero."""
    if a is None or not a.any():
        return b
    dtype = np.result_type(a, b)
    summed: np.ndarray = (a.astype(np.float64) + b.astype(np.float64)).astype(dtype)
    return summed
