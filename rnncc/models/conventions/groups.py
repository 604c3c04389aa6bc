"""Which tensors of a file belong to one cell, by the names that libraries give them.

    torch    rnn.weight_ih_l1_reverse; a cell's own: rnn.weight_ih
    Keras 3  layers/lstm/cell/vars/0: kernel, recurrent_kernel, bias, by number
    Keras 2  lstm/lstm_cell/kernel:0, and the names of rnncc's own cells
    ONNX     inputs W, R, B, P of a node, of one or two directions

Non-Goals: what becomes of them (`loading`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnncc.files import FileError, Tensors
from rnncc.models.conventions.cell_weights import GATES
from rnncc.models.conventions.forms import CONVENTIONS, Convention

_TORCH = re.compile(
    r"(.*?)(weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)(?:_l(\d{1,4})(_reverse)?)?"
)
_KERAS = re.compile(
    r"(.*?)(recurrent_kernel|projection_kernel|kernel|bias|peephole_[ifo])(?::0)?(?:\.npy)?"
)
_NUMBERED = re.compile(r"(.*)/vars/(\d)")
_NUMBERED_NAMES = ("kernel", "recurrent_kernel", "bias")


@dataclass
class CellTensors:
    """One cell of a file. tensors: by the convention's names, the file's own. parts: which slice of
    them, of ONNX's directions. kind: where the file says it."""

    name: str
    convention: Convention
    order: Any
    runs_back: bool | None = None
    tensors: dict[str, str] = field(default_factory=dict)
    direction: int | None = None
    kind: str | None = None
    reset_after: bool | None = None

    def arrays(self, tensors: Tensors) -> dict[str, np.ndarray]:
        """Checked to be finite. FileError."""
        found = {role: tensors.array(name) for role, name in self.tensors.items()}
        for role, array in found.items():
            if array.dtype.kind != "f":
                label = tensors.label(self.tensors[role])
                raise FileError(label, f"it holds {array.dtype} values, expected floats")
        if self.direction is None:
            return found
        for role, array in found.items():
            if array.ndim < 2 or self.direction >= len(array):
                label = tensors.label(self.tensors[role])
                raise FileError(
                    label, f"{role} has shape {list(array.shape)}, not directions first"
                )
        return {role: array[self.direction] for role, array in found.items()}

    def kind_of(self, arrays: Mapping[str, np.ndarray]) -> str | None:
        """By how many gates there are; None for another number."""
        if self.kind is not None:
            return self.kind
        own = arrays.get(self.convention.names["recurrent"])
        if own is None or own.ndim != 2:
            return None
        rows, recurs = own.shape[::-1] if self.convention.in_columns else own.shape
        projection = arrays.get(self.convention.names.get("projection", ""))
        if projection is not None and projection.ndim == 2:
            recurs = projection.shape[0 if self.convention.in_columns else 1]
        if not recurs or rows % recurs:
            return None
        return {len(g): kind for kind, g in GATES.items()}.get(rows // recurs)


def groups_of(tensors: Tensors, chosen: Callable[[str], bool]) -> list[CellTensors]:
    """In order: of layers, the forward direction before the other. chosen: by a tensor's name."""
    if tensors.format == "onnx":
        return _of_nodes(tensors)
    found: dict[tuple[Any, ...], CellTensors] = {}
    for name in filter(chosen, tensors):
        _place(found, name)
    whole = [g for g in found.values() if _is_whole(g, tensors)]
    return sorted(whole, key=lambda g: g.order)


def _place(found: dict[tuple[Any, ...], CellTensors], name: str) -> None:
    """A tensor into its cell's group, by the first pattern that its name has."""
    if match := _TORCH.fullmatch(name):
        prefix, role, number, reverse = match.groups()
        key: tuple[Any, ...] = ("torch", prefix, number, reverse)
        back = None if number is None else bool(reverse)
        order: tuple[Any, ...] = ("torch", _natural(prefix), int(number or 0), bool(reverse))
        label = f"{prefix}l{number or 0}{reverse or ''}"
    elif match := _NUMBERED.fullmatch(name):
        prefix, index = match.groups()
        if int(index) >= len(_NUMBERED_NAMES) or "optimizer" in prefix.split("/"):
            return
        role, key, label = _NUMBERED_NAMES[int(index)], ("keras", prefix), prefix
        back, order = _side(prefix)
    elif match := _KERAS.fullmatch(name):
        prefix, role = match.groups()
        key, label = ("keras", prefix), prefix.rstrip("/._")
        back, order = _side(prefix)
    else:
        return
    group = found.setdefault(key, CellTensors(label, CONVENTIONS[key[0]], order, back))
    group.tensors[role] = name


def _is_whole(group: CellTensors, tensors: Tensors) -> bool:
    """Whether it is a recurrent cell: a dense layer has a kernel and a bias, too."""
    names = group.convention.names
    if not {names["input"], names["recurrent"]} <= group.tensors.keys():
        return False
    shapes = [tensors[group.tensors[names[role]]].shape for role in ("input", "recurrent")]
    axis = 1 if group.convention.in_columns else 0
    return all(len(s) == 2 for s in shapes) and shapes[0][axis] == shapes[1][axis]


def _side(prefix: str) -> tuple[bool | None, tuple[Any, ...]]:
    """Of a Bidirectional layer's parts, and what sorts them."""
    match = re.search(r"(?:^|[/._])(forward|backward)[_./]", prefix)
    if match is None:
        return None, ("keras", _natural(prefix), False, ())
    before, after = prefix[: match.start()], prefix[match.end() :]
    back = match[1] == "backward"
    return back, ("keras", _natural(before), back, _natural(after))


def _natural(text: str) -> tuple[tuple[int, Any], ...]:
    """lstm, lstm_1, lstm_2, lstm_10."""
    parts = re.split(r"(\d+)", text)
    return tuple((1, int(p)) if p.isdigit() else (2, p) for p in parts if p)


_UNREAD = {"clip": 0.0, "input_forget": 0}
_ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def _of_nodes(tensors: Tensors) -> list[CellTensors]:
    found = []
    for number, node in enumerate(tensors.metadata["recurrent"]):
        label, attributes = f"node {node['name'] or number}", node["attributes"]
        usual = _ACTIVATIONS[node["op"]]
        own = attributes.get("activations", usual)
        unread = [n for n, plain in _UNREAD.items() if attributes.get(n, plain) != plain]
        for name in [*unread, *(["activations"] if own not in (usual, 2 * usual) else [])]:
            raise FileError(
                f"{tensors.where}: {label}",
                f"it has {name}, which weights alone don't tell: rnncc.load_model reads it",
            )
        held = {n: v for n, v in node["inputs"].items() if n in ("W", "R", "B", "P")}
        missing = [v for v in held.values() if v not in tensors]
        if missing:
            raise FileError(f"{tensors.where}: {label}", f"{missing[0]} is computed, not stored")
        direction = attributes.get("direction", "forward")
        for side in range(2 if direction == "bidirectional" else 1):
            back = bool(side) if direction == "bidirectional" else None
            kind = node["op"].lower()
            behind = bool(attributes.get("linear_before_reset", 0)) if kind == "gru" else None
            name = f"{label} {('forward', 'backward')[side]}" if back is not None else label
            found.append(
                CellTensors(name, CONVENTIONS["onnx"], number, back, held, side, kind, behind)
            )
    return found
