"""Bidirectional: a layer that runs forwards and one that runs backwards, their outputs merged.

Non-Goals: what runs when (`directions`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rnncc.artifact.cell import Array
from rnncc.common.layer_keywords import MergeMode
from rnncc.layers.cells import AbstractCell
from rnncc.layers.composite import Composite, Joined
from rnncc.layers.config import deserialize, options_of, serializable, serialize
from rnncc.layers.directions import DirectionsEngine
from rnncc.layers.directions_second import DirectionsSecondEngine
from rnncc.layers.merges import Merge, check_mode
from rnncc.layers.parts import Link, Part, joined, linked, mixed
from rnncc.layers.tracing import traced_directions
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.layer_options import Engine
from rnncc.runtime.api.validation import Bound
from rnncc.runtime.traces.traced_cell import TracedCell

_ALIKE = ("stateful", "return_sequences", "return_state", "time_major")


@serializable
class Bidirectional(Composite):
    """A layer run in both directions.

    layer: any recurrent layer; the directions are layers of its configuration with weights and
    seeds of their own, and its options (return_sequences, return_state, ...) are this layer's.
    merge_mode: what becomes of both outputs: "concat" (side by side on the last axis), "sum",
    "mul", "ave", or None: both are returned.
    weights: initial values, those of the forward direction first. backward_layer: another layer
    for the way back, with go_backwards=True and otherwise the same options.

    Outputs of every step are in the order of time in both directions. States are those of the
    forward direction, then those of the backward one, also in `initial_state`; weights likewise.
    Outputs of masked steps are zeros.
    TypeError for what is no layer, ValueError for another merge_mode and for layers that can't
    be two directions of one.
    """

    def __init__(
        self,
        layer: Layer,
        merge_mode: MergeMode | None = "concat",
        weights: Sequence[Any] | None = None,
        backward_layer: Layer | None = None,
        *,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        _check("layer", layer)
        if backward_layer is not None:
            _check("backward_layer", backward_layer)
        check_mode(merge_mode)
        if backward_layer is None:
            if getattr(layer, "go_backwards", False):
                raise ValueError("layer has go_backwards=True: give the one that runs forwards")
            ahead, back = fresh(layer), fresh(layer, "backward")
        else:
            _compare(layer, backward_layer)
            ahead, back = fresh(layer), fresh(backward_layer)
        self.merge_mode, self._sources = merge_mode, (layer, backward_layer)
        options = options_of(layer)
        del options["weights"]  # stored as each direction says
        options |= {"seed": layer.seed if seed is None else seed, "name": name}
        # As in Keras: what a masked step would repeat is another step's in each direction.
        options["zero_output_for_mask"] = layer.return_sequences
        self._compose(_maker((Part(ahead, "forward"), Part(back, "backward")), merge_mode), options)
        self._initial = None if weights is None else [*weights]

    @property
    def forward_layer(self) -> Layer:
        """The direction of time."""
        return self.parts[0].layer

    @property
    def backward_layer(self) -> Layer:
        """The other direction."""
        return self.parts[1].layer

    def _build(self, bound: Bound, values: Mapping[str, np.ndarray] | None = None) -> None:
        first = not self.built
        super()._build(bound, values)
        if first and values is None and self._initial is not None:
            self.set_weights(self._initial)

    def _traced(self) -> TracedCell:
        joins = self.maker.joins
        assert isinstance(joins, _Joins)
        merge = Merge(self.parts, joins.merge_mode, joins.outputs)
        return traced_directions(self.cell, self.parts, merge)

    def _runs_back(self, state: str) -> bool:
        for number, part in enumerate(self.parts):
            own = state.removeprefix(f"{part.prefix}.")
            if own != state:
                return bool(number) != part.layer._runs_back(own)
        return False

    # ---- results and cotangents ----

    def _grouped(self, left: Any) -> Any:
        left = super()._grouped(left)
        apart = self.merge_mode is None and self.return_state
        return (*left[0], *left[1:]) if apart else left  # y, y backwards, *states, as Keras

    def _flat_cotangents(self, dy: Any) -> Any:
        if self.merge_mode is None and self.return_state and isinstance(dy, tuple | list):
            count = len(self._outputs)
            dy = ([*dy[:count]], *dy[count:])
        return super()._flat_cotangents(dy)

    def _state_groups(self) -> list[tuple[str, ...]] | None:
        """Those of both directions, where they are stacks."""
        all_groups: list[tuple[str, ...]] = []
        for part in self.parts:
            inner = part.layer._state_groups() if isinstance(part.layer, Composite) else None
            groups = inner or [(s.name,) for s in part.cell.states]
            all_groups += [tuple(map(part.name, names)) for names in groups]
        return all_groups if any(len(names) > 1 for names in all_groups) else None

    # ---- copies and data ----

    def __setstate__(self, state: dict[str, Any]) -> None:
        maker = _maker(state["maker"].parts, state["merge_mode"])
        super().__setstate__({**state, "maker": maker})

    def __repr__(self) -> str:
        layer, back = self._sources
        arguments = [repr(layer), f"merge_mode={self.merge_mode!r}"]
        arguments += [f"backward_layer={back!r}"] if back is not None else []
        return f"{type(self).__name__}({', '.join(arguments)})"

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor, layers as `rnncc.layers.serialize` writes them."""
        layer, back = self._sources
        return {
            "layer": serialize(layer),
            "merge_mode": self.merge_mode,
            "backward_layer": None if back is None else serialize(back),
            "seed": self._chosen.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Bidirectional:
        """A layer out of `get_config()`, its weights new."""
        back = config["backward_layer"]
        back = None if back is None else deserialize(back)
        return cls(**{**config, "layer": deserialize(config["layer"]), "backward_layer": back})


# ---- the two directions ------------------------------------------------------------------------


def fresh(layer: Layer, salt: str = "") -> Layer:
    """A layer like this one with new weights, from seeds of its own if salted."""
    duplicate = copy.copy(layer)
    _forget(duplicate, salt)
    return duplicate


def _forget(layer: Layer, salt: str) -> None:
    layer._store, layer._fixed = None, dict(layer._chosen.sizes)
    layer._origin = "given to the layer"
    layer.seed = mixed(layer.seed, salt) if salt else layer.seed
    layer._known.clear()
    if isinstance(layer, Composite):
        layer._joint = None
        for part in layer.parts:
            _forget(part.layer, salt)
        layer._take_sizes()
    layer._build_if_known()


def _check(what: str, layer: Any) -> None:
    if isinstance(layer, AbstractCell):
        raise TypeError(f"{what} is a layer, not a cell: give RNN({layer!r})")
    if not isinstance(layer, Layer):
        raise TypeError(f"{what} is a recurrent layer such as LSTM(64), not {layer!r}")


def _compare(layer: Layer, back: Layer) -> None:
    """ValueError unless they can be two directions of one layer."""
    ways = [getattr(one, "go_backwards", False) for one in (layer, back)]
    if ways[0] == ways[1]:
        raise ValueError(
            f"layer and backward_layer both have go_backwards={ways[0]}: one of them runs "
            "backwards, as a rule backward_layer=LSTM(..., go_backwards=True)"
        )
    for name in _ALIKE:
        own, other = (getattr(one, name, False) for one in (layer, back))
        if own != other:
            raise ValueError(
                f"layer has {name}={own}, backward_layer {name}={other}: make them agree"
            )


@dataclass(frozen=True)
class _Joins:
    parts: tuple[Part, ...]
    merge_mode: str | None
    outputs: tuple[tuple[str, ...], ...]

    def __call__(self, engines: Sequence[Engine]) -> DirectionsEngine:
        merge = Merge(self.parts, self.merge_mode, self.outputs)
        return DirectionsEngine(self.parts, engines, merge)


def _maker(parts: tuple[Part, ...], merge_mode: str | None) -> Joined:
    """ValueError for directions that take or give different arrays."""
    ahead, back = parts
    own, other = ahead.cell, back.cell
    links: list[Link] = []
    for what in ("inputs", "contexts", "outputs"):
        first, second = getattr(own, what), getattr(other, what)
        if len(first) != len(second):
            raise ValueError(
                f"the two directions of a layer have the same {what}: {own.name} has "
                f"{len(first)}, {other.name} {len(second)}"
            )
        if what != "outputs":
            for a, b in zip(first, second, strict=True):
                links += linked(back, b, ahead.array(a).shape, f"both directions read {a.name}")
    outputs, names = [], []
    for a, b in zip(own.outputs, other.outputs, strict=True):
        merged, equal = _merged(ahead.array(a, a.name), back.array(b, b.name), merge_mode)
        outputs.append(merged)
        names.append(tuple(m.name for m in merged))
        links += equal
    # Outputs that stay apart: those of one direction, then those of the other.
    flat = [pair[i] for i in range(len(names[0])) for pair in outputs]
    cell = joined(
        "Bidirectional",
        parts,
        inputs=[ahead.array(a, a.name) for a in own.inputs],
        contexts=[ahead.array(a, a.name) for a in own.contexts],
        outputs=flat,
        links=links,
        doc=f"{own.name} in both directions",
    )
    cell = replace(cell, arguments=own.arguments)
    return Joined(cell, parts, _Joins(parts, merge_mode, tuple(names)), DirectionsSecondEngine)


def _merged(ahead: Array, back: Array, merge_mode: str | None) -> tuple[list[Array], list[Link]]:
    """What an output of both directions becomes; what of their shapes has to agree."""
    if merge_mode is None:
        names = f"forward.{ahead.name}", f"backward.{back.name}"
        return [replace(a, name=n) for a, n in zip((ahead, back), names, strict=True)], []
    what = f"merge_mode={merge_mode!r}"
    if len(ahead.shape) != len(back.shape):
        raise ValueError(f"{what}: outputs of the two directions have different ranks")
    pairs = [*zip(ahead.shape, back.shape, strict=True)]
    shape = ahead.shape
    if merge_mode == "concat":
        if not pairs:
            raise ValueError(f"{what}: {ahead.name} is a number, there is no axis to join on")
        own, other = pairs.pop()
        shape = (*ahead.shape[:-1], f"{own} + {other}")
    return [replace(ahead, shape=shape)], [Link(o, s, f"{what} of {ahead.name}") for s, o in pairs]
