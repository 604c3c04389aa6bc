"""How each library lays out a cell's weights: a row of a table, read and written by the same code.

    keras    kernel [features, gates * units], recurrent_kernel, bias [gates * units], or
             [2, gates * units] of a GRU with reset_after: i f g o, z r n
    torch    weight_ih [gates * units, features], weight_hh, bias_ih, bias_hh, weight_hr: i f g o,
             r z n; the reset gate acts behind the product
    onnx     W [gates * units, features], R, B [2 * gates * units], P [3 * units] of one direction:
             i o f g, z r n, peepholes i o f; linear_before_reset is reset_after
    coreml   weight_ih [gates * units, features], weight_hh, bias [gates * units], peephole
             [3 * units]: i f o g, r n z; one bias, the candidate's outside of the reset gate

Non-Goals: names in files (`groups`); which form a layer has (`targets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rnncc.models.conventions.cell_weights import GATES, PEEPHOLES, CellWeights, Unfit

Named = dict[str, np.ndarray]


@dataclass(frozen=True)
class Convention:
    """names: of input, recurrent, bias, recurrent_bias, projection, peepholes, where there are such
    arrays of their own. orders: of gates. in_columns: matrices are [in, gates * units].
    reset_after: what its GRUs do; None: it is said beside the weights.
    """

    name: str
    names: Mapping[str, str]
    orders: Mapping[str, str]
    peepholes: str = PEEPHOLES
    in_columns: bool = False
    reset_after: bool | None = None
    joins_biases: bool = False  # one array holds both, one behind the other
    peephole_names: tuple[str, ...] = field(default=())  # each an array

    @property
    def known(self) -> tuple[str, ...]:
        """All names that arrays may have."""
        return (*self.names.values(), *self.peephole_names)

    # ---- read ----

    def read(
        self, kind: str, arrays: Mapping[str, np.ndarray], reset_after: bool | None = None
    ) -> CellWeights:
        """Arrays by this convention's names -> the cell's. Unfit for what can't be one."""
        own = {role: arrays.get(name) for role, name in self.names.items()}
        given_input, given_recurrent = own["input"], own["recurrent"]
        if given_input is None or given_recurrent is None:
            raise Unfit(f"it lacks {self.names['input']} or {self.names['recurrent']}")
        bias, recurrent_bias = self._read_biases(kind, own)
        behind = self.reset_after if reset_after is None else reset_after
        if kind == "gru" and behind is None:  # two biases are what Keras's reset_after has
            two = self.name == "keras" and own["bias"] is not None and own["bias"].ndim == 2
            behind = two if own["bias"] is not None else None
        projection = own.get("projection")
        if projection is not None and self.in_columns:
            projection = projection.T
        return CellWeights(
            kind,
            self._gates(kind, given_input, "input"),
            self._gates(kind, given_recurrent, "recurrent"),
            bias,
            recurrent_bias,
            projection,
            self._read_peepholes(arrays, own.get("peepholes")),
            behind if kind == "gru" else None,
        )

    def _gates(self, kind: str, array: np.ndarray, role: str) -> np.ndarray:
        """[gates, units, ...], in the order of GATES."""
        order = self.orders[kind]
        matrix = role in ("input", "recurrent")
        if array.ndim != (2 if matrix else 1):
            raise Unfit(f"{self.names[role]} has shape {list(array.shape)}")
        rows = array.T if matrix and self.in_columns else array
        if len(rows) % len(order) or not rows.size:
            shape = list(array.shape)
            raise Unfit(f"{self.names[role]}, {shape}, isn't of {len(order)} gates")
        parts = rows.reshape(len(order), -1, *rows.shape[1:])
        return parts[[order.index(g) for g in GATES[kind]]]

    def _read_biases(
        self, kind: str, own: Mapping[str, np.ndarray | None]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        bias, other = own["bias"], own.get("recurrent_bias")
        if bias is None:
            if other is not None:
                raise Unfit(f"it has {self.names['recurrent_bias']} alone")
            return None, None
        if self.joins_biases:
            if bias.ndim != 1 or bias.size % 2:
                raise Unfit(f"{self.names['bias']} has shape {list(bias.shape)}, not two biases'")
            bias, other = bias.reshape(2, -1)
        elif self.name == "keras" and bias.ndim == 2 and len(bias) == 2:
            bias, other = bias
        found = self._gates(kind, bias, "bias")
        return found, None if other is None else self._gates(kind, other, "bias")

    def _read_peepholes(
        self, arrays: Mapping[str, np.ndarray], joined: np.ndarray | None
    ) -> np.ndarray | None:
        if self.peephole_names:
            own = [arrays[n] for n in self.peephole_names if n in arrays]
            if own and (len(own) < len(PEEPHOLES) or len({a.shape for a in own}) > 1):
                raise Unfit(f"it has not all of {', '.join(self.peephole_names)} in one shape")
            joined = np.concatenate(own) if own else None
        if joined is None:
            return None
        if joined.ndim != 1 or joined.size % len(PEEPHOLES):
            raise Unfit(f"its peepholes have shape {list(joined.shape)}")
        rows = joined.reshape(len(PEEPHOLES), -1)
        return rows[[self.peepholes.index(g) for g in PEEPHOLES]]

    # ---- write ----

    def write(self, cell: CellWeights, *, bias: bool = True) -> Named:
        """The counterpart of `read`. bias: whether there are any. Unfit for what it can't hold."""
        if cell.kind == "gru" and self.reset_after not in (None, cell.reset_after):
            way = "behind" if self.reset_after else "before"
            raise Unfit(f"{self.name}'s reset gate acts {way} the product, its own doesn't")
        found = {
            self.names["input"]: self._rows(cell.kind, cell.input),
            self.names["recurrent"]: self._rows(cell.kind, cell.recurrent),
            **self._write_biases(cell, bias),
        }
        if cell.projection is not None:
            if "projection" not in self.names:
                raise Unfit(f"{self.name} has no projections")
            projection = cell.projection.T if self.in_columns else cell.projection
            found[self.names["projection"]] = projection
        if cell.peepholes is not None:
            found |= self._write_peepholes(cell.peepholes)
        return {n: np.ascontiguousarray(a) for n, a in found.items()}

    def _rows(self, kind: str, gates: np.ndarray) -> np.ndarray:
        ordered = gates[[GATES[kind].index(g) for g in self.orders[kind]]]
        rows = ordered.reshape(-1, *gates.shape[2:])
        return rows.T if self.in_columns and rows.ndim == 2 else rows

    def _write_biases(self, cell: CellWeights, wanted: bool) -> Named:
        if not wanted:
            for array in (cell.bias, cell.recurrent_bias):
                if array is not None and array.any():
                    raise Unfit("it has a bias, which there is no place for")
            return {}
        nothing = np.zeros(cell.input.shape[:2], cell.input.dtype)
        bias = nothing if cell.bias is None else cell.bias
        other = nothing if cell.recurrent_bias is None else cell.recurrent_bias
        two = [self._rows(cell.kind, bias), self._rows(cell.kind, other)]
        name = self.names["bias"]
        if self.joins_biases:
            return {name: np.concatenate(two)}
        if "recurrent_bias" in self.names:
            return {name: two[0], self.names["recurrent_bias"]: two[1]}
        if self.name == "keras" and cell.reset_after:
            return {name: np.stack(two)}
        summed = cell.summed_bias()
        return {name: self._rows(cell.kind, nothing if summed is None else summed)}

    def _write_peepholes(self, peepholes: np.ndarray) -> Named:
        ordered = peepholes[[PEEPHOLES.index(g) for g in self.peepholes]]
        if self.peephole_names:
            return dict(zip(self.peephole_names, ordered, strict=True))
        if "peepholes" not in self.names:
            raise Unfit(f"{self.name} has no peepholes")
        return {self.names["peepholes"]: ordered.reshape(-1)}


def _row(
    name: str, texts: tuple[str, ...], lstm: str, gru: str, peepholes: str = PEEPHOLES
) -> tuple[str, dict[str, str], dict[str, str], str]:
    roles = ("input", "recurrent", "bias", "recurrent_bias", "projection", "peepholes")
    names = {role: text for role, text in zip(roles, texts, strict=False) if text}
    return name, names, {"lstm": lstm, "gru": gru, "rnn": "n"}, peepholes


_KERAS = ("kernel", "recurrent_kernel", "bias", "", "projection_kernel")
_TORCH = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
CONVENTIONS = {
    c.name: c
    for c in (
        Convention(
            *_row("keras", _KERAS, "ifgo", "zrn"),
            in_columns=True,
            peephole_names=("peephole_i", "peephole_f", "peephole_o"),
        ),
        Convention(*_row("torch", _TORCH, "ifgo", "rzn"), reset_after=True),
        Convention(
            *_row("onnx", ("W", "R", "B", "", "", "P"), "iofg", "zrn", "iof"), joins_biases=True
        ),
        Convention(
            *_row("coreml", ("weight_ih", "weight_hh", "bias", "", "", "peephole"), "ifog", "rnz"),
            reset_after=True,
        ),
    )
}
