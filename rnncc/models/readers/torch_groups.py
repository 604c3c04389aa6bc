"""A state_dict's tensors, module by module, and what kind of module each may be.

Non-Goals: the parts that they become (`torch_layers`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from rnncc.files import FileError

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


@dataclass(slots=True)
class TensorGroup:
    """Tensors whose names begin alike: a module's own. tensors: by the rest of the name."""

    name: str
    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def label(self, where: str) -> str:
        return f"{where}: {self.name or 'tensors'}"


def groups_of(arrays: Mapping[str, np.ndarray], where: str) -> list[TensorGroup]:
    """In the file's order. A counter of batches is nobody's weight."""
    found: dict[str, TensorGroup] = {}
    for full, array in arrays.items():
        name, _, own = full.rpartition(".")
        if own != "num_batches_tracked":
            found.setdefault(name, TensorGroup(name)).tensors[own] = array
    if not found:
        raise FileError(where, "it has no tensors")
    return list(found.values())


def place_of(name: str) -> tuple[str, int, bool] | None:
    """Which parameter, of which layer, of which direction: "weight_ih_l1_reverse"."""
    match = re.fullmatch(r"((?:weight|bias)_[ih][hr])(?:_l(\d{1,4})(_reverse)?)?", name)
    if match is None or match[1] not in PARAMETERS:
        return None
    return match[1], int(match[2] or 0), bool(match[3])


def recurrent_weights(group: TensorGroup, where: str) -> list[list[dict[str, np.ndarray]]]:
    """Of each layer, of each direction, by parameter. FileError for tensors of no such module."""
    layers: dict[int, dict[bool, dict[str, np.ndarray]]] = {}
    for name, array in group.tensors.items():
        place = place_of(name)
        if place is None:
            raise FileError(group.label(where), f"{name} is no parameter of torch's RNN, GRU, LSTM")
        parameter, layer, reverse = place
        layers.setdefault(layer, {}).setdefault(reverse, {})[parameter] = array
    found = [[layers[i][d] for d in sorted(layers[i])] for i in sorted(layers)]
    alike = all(
        len(ds) == len(found[0]) and False in layers[i] for i, ds in enumerate(found) if i in layers
    )
    if sorted(layers) != list(range(len(layers))) or not alike:
        raise FileError(group.label(where), f"layers {sorted(layers)} aren't whole")
    names = {frozenset(d) for ds in found for d in ds}
    if len(names) != 1 or not {"weight_ih", "weight_hh"} <= next(iter(names)):
        raise FileError(group.label(where), f"its layers have other parameters: {map(set, names)}")
    for number, directions in enumerate(found):
        for direction in directions:
            _check_direction(f"{group.label(where)} l{number}", direction)
    return found


def _check_direction(where: str, direction: Mapping[str, np.ndarray]) -> None:
    """Shapes of one direction of one layer fit each other."""
    w_ih, w_hh = direction["weight_ih"], direction["weight_hh"]
    fits = w_ih.ndim == w_hh.ndim == 2 and len(w_ih) == len(w_hh)
    hr = direction.get("weight_hr")
    if hr is not None:
        fits = (
            fits and hr.ndim == 2 and hr.shape[0] == w_hh.shape[1] and 4 * hr.shape[1] == len(w_hh)
        )
    elif fits:
        fits = len(w_hh) in [n * w_hh.shape[1] for n in GATES.values()]
    biases = [direction[n] for n in ("bias_ih", "bias_hh") if n in direction]
    fits = fits and len(biases) in (0, 2) and all(b.shape == (len(w_hh),) for b in biases)
    if not fits:
        shapes = {n: list(a.shape) for n, a in direction.items()}
        raise FileError(where, f"its shapes don't fit each other: {shapes}")


def is_recurrent(kind: str) -> Callable[[TensorGroup], bool]:
    def fits(group: TensorGroup) -> bool:
        w_hh = group.tensors.get("weight_hh_l0", group.tensors.get("weight_hh"))
        if w_hh is None or w_hh.ndim != 2 or not w_hh.shape[1]:
            return False
        if "weight_hr_l0" in group.tensors:
            return kind == "lstm"
        return len(w_hh) == GATES[kind] * w_hh.shape[1]

    return fits


def has_only(*names: str, rank: int = 2) -> Callable[[TensorGroup], bool]:
    """Whether a group has all these, and a weight of so many axes."""

    def fits(group: TensorGroup) -> bool:
        own, weight = set(group.tensors), group.tensors.get("weight")
        some = set(names) - {"bias"} <= own <= {*names}
        return some and weight is not None and weight.ndim == rank

    return fits
