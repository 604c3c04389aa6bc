"""Where Keras's files have a layer's weights.

    Keras 3   layers/<kind>_<n>/cell/vars/0: by the layer's class, numbered where there are several,
              and by the order in which the layer has made them
    HDF5 of Keras 2, and of model.save("x.h5")   model_weights/<layer>/...: by names

Non-Goals: what they are for (`keras_layers`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from rnncc.files import FileError, Tensors

# What a layer draws from in training is no weight.
_NO_WEIGHTS = ("seed_generator", "optimizer")


class LayerWeights(Protocol):
    """A layer's, taken in order."""

    def take(self, path: str, names: Sequence[str]) -> list[np.ndarray]:
        """Those of a layer within ("cell", "forward_layer/cell", ""), by Keras's names. FileError
        for others than these."""

    def child(self, path: str) -> LayerWeights:
        """Of a layer or cell within."""

    def of_layers(self, layers: Iterable[tuple[str, str]]) -> dict[str, LayerWeights]:
        """Of a model: its layers' by name, of (class, name)."""

    def check_all_taken(self) -> None:
        """FileError for weights that no layer asked for."""


def snake_case(name: str) -> str:
    """As Keras names the folders of a class."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def numbered(classes: Iterable[str]) -> list[str]:
    """The folders of layers of these classes."""
    counts: dict[str, int] = {}
    found = []
    for name in map(snake_case, classes):
        number = counts.setdefault(name, 0)
        counts[name] += 1
        found.append(f"{name}_{number}" if number else name)
    return found


class NumberedWeights:
    """Keras 3's."""

    def __init__(self, tensors: Tensors, prefix: str = "", taken: set[str] | None = None) -> None:
        self.tensors, self.prefix = tensors, prefix
        self.taken: set[str] = set() if taken is None else taken

    def take(self, path: str, names: Sequence[str]) -> list[np.ndarray]:
        folder = "/".join(filter(None, (self.prefix, path, "vars")))
        held = [n for n in self.tensors if n.rpartition("/")[0] == folder]
        if len(held) != len(names):
            raise FileError(
                f"{self.tensors.where}: {folder}",
                f"it holds {len(held)} arrays, expected {len(names)}: {', '.join(names)}",
            )
        found = [f"{folder}/{i}" for i in range(len(names))]
        self.taken |= set(found)
        return [self.tensors.array(n) for n in found]

    def child(self, path: str) -> NumberedWeights:
        prefix = "/".join(filter(None, (self.prefix, path)))
        return NumberedWeights(self.tensors, prefix, self.taken)

    def of_layers(self, layers: Iterable[tuple[str, str]]) -> dict[str, LayerWeights]:
        pairs = list(layers)
        found: dict[str, LayerWeights] = {}
        attributes = self.tensors.metadata.get("attributes", {})
        for folder, (_, name) in zip(numbered(c for c, _ in pairs), pairs, strict=True):
            inner = self.child(f"layers/{folder}")
            said = attributes.get(f"{inner.prefix}/vars", {}).get("name", name)
            if said != name:
                label = f"{self.tensors.where}: {inner.prefix}"
                raise FileError(label, f"it holds the weights of {said!r:.80}, expected {name}")
            found[name] = inner
        return found

    def check_all_taken(self) -> None:
        left = [
            n
            for n in self.tensors
            if n not in self.taken
            and not any(part in _NO_WEIGHTS for part in n.split("/"))
            and n.startswith(self.prefix)
        ]
        if left:
            raise FileError(self.tensors.where, f"no layer has the weights {', '.join(left[:10])}")


class NamedWeights:
    """Of HDF5 files with names, in the order of their layer's list."""

    def __init__(self, tensors: Tensors, left: list[str], root: str = "") -> None:
        self.tensors, self.left, self.root = tensors, left, root
        self.path = ""

    def take(self, path: str, names: Sequence[str]) -> list[np.ndarray]:
        return [self.tensors.array(self._next(f"{self.path}/{path}", name)) for name in names]

    def _next(self, path: str, name: str) -> str:
        """The first that is left and called so, in the direction that is asked for."""
        both = "forward_layer" in path or "backward_layer" in path
        for full in self.left:
            *before, own = full.split("/")
            # A layer for the way back that was given keeps its own name.
            ahead = any(b.startswith("forward") for b in before)
            sided = not both or ahead == ("forward_layer" in path)
            if own.partition(":")[0] == name and sided:
                self.left.remove(full)
                return full
        held = ", ".join(self.left) or "none"
        raise FileError(
            f"{self.tensors.where}: {self.root or 'weights'}", f"no {name} is left of {held:.300}"
        )

    def child(self, path: str) -> NamedWeights:
        inner = NamedWeights(self.tensors, self.left, self.root)
        inner.path = f"{self.path}/{path}"
        return inner

    def of_layers(self, layers: Iterable[tuple[str, str]]) -> dict[str, LayerWeights]:
        if self.root:  # a model within: its layers' weights stand in one list
            return {name: self.child(name) for _, name in layers}
        found: dict[str, LayerWeights] = {}
        attributes = self.tensors.metadata.get("attributes", {})
        for _, name in layers:
            root = f"model_weights/{name}"
            listed = attributes.get(root, {}).get("weight_names", [])
            named = [n for n in listed if isinstance(n, str)]
            found[name] = NamedWeights(self.tensors, [f"{root}/{n}" for n in named], root)
        return found

    def check_all_taken(self) -> None:
        if self.left:
            held = ", ".join(self.left)
            raise FileError(f"{self.tensors.where}: {self.root}", f"no layer has {held:.300}")
