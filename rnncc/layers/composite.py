"""A layer made of layers: it owns no weights, and everything else it does is `layer`'s.

Non-Goals: what its parts compute together (`stack`, `directions`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, Unpack

import numpy as np

from rnncc.artifact.cell import CellDescription, Variant
from rnncc.common.layer_keywords import CallKeywords
from rnncc.layers.parts import Part
from rnncc.layers.weights import Joint
from rnncc.runtime.api.gradients import WRT, Gradients
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.layer_options import LAYER_OPTIONS, BoundCell, Engine, SecondEngine
from rnncc.runtime.api.pullback import Pullback
from rnncc.runtime.api.second_pullback import SecondGradients, SecondPullback
from rnncc.runtime.api.validation import Arrangement, Bound, nearest


@dataclass(frozen=True, eq=False)
class Joined:
    """The maker of a composite: everything was bound when its parts were made.

    joins: the parts' engines -> the engine of the whole. joins_again: that engine, and the parts'
    engines of second derivatives -> the one of the whole.
    """

    cell: CellDescription
    parts: tuple[Part, ...]
    joins: Callable[[Sequence[Engine]], Any]
    joins_again: Callable[[Any, Sequence[SecondEngine]], SecondEngine]

    def bind(
        self, options: Mapping[str, object], functions: Mapping[str, object], dtype: str
    ) -> BoundCell:
        """ValueError for another dtype than the parts have."""
        if dtype != self.cell.dtype:
            raise ValueError(f"{self.cell.name} has the dtype of its cells, {self.cell.dtype}")
        return BoundCell(self.cell, self._engine)

    def _engine(self, variant: Variant) -> Any:
        engines = [part.engine(replace(variant, second_order=False)) for part in self.parts]
        engine = self.joins(engines)
        if not variant.second_order:
            return engine
        return self.joins_again(engine, [part.engine(variant) for part in self.parts])


class Composite(Layer):
    """A layer whose weights are those of its parts."""

    maker: Joined  # type: ignore[misc, assignment]
    _joint: Joint | None

    def _compose(self, maker: Joined, keywords: Mapping[str, Any]) -> None:
        """What a constructor does. TypeError for a keyword that belongs to a cell, or to none."""
        for name in keywords:
            if name not in LAYER_OPTIONS:
                raise TypeError(
                    f"{type(self).__name__} has no keyword {name}{nearest(name, LAYER_OPTIONS)}; "
                    "what a cell computes is chosen where the cell is made"
                )
        self.maker, self._joint = maker, None
        self._start((), {**keywords})
        if keywords.get("name") is None:
            self.name = type(self).__name__.lower()
        self._take_sizes()
        self._build_if_known()

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.maker.parts

    # ---- weights: where the parts have them ----

    @property
    def _store(self) -> Any:
        if self._joint is None and all(p.layer.built for p in self.parts):
            self._take_sizes()
            self._known.clear()
            order = [a.name for a in (*self.cell.weights, *self.cell.constants)]
            self._joint = Joint(self.parts, order)
        return self._joint

    @_store.setter
    def _store(self, store: Any) -> None:
        self.__dict__["_store"] = None  # what copies leave out

    @property
    def sizes(self) -> dict[str, int]:
        """Of all parts, which may have got their weights elsewhere."""
        self._take_sizes()
        return dict(self._fixed)

    def _take_sizes(self) -> None:
        """A part may have got its weights elsewhere."""
        for part in self.parts:
            self._fixed |= {part.size(n): v for n, v in part.layer._fixed.items()}

    def _bind(self, shapes: Mapping[str, tuple[int | None, ...]]) -> Bound:
        self._take_sizes()
        return super()._bind(shapes)

    def _build(self, bound: Bound, values: Mapping[str, np.ndarray] | None = None) -> None:
        for part in self.parts:
            own = Bound(part.sizes(bound.sizes), bound.batch, bound.time)
            part.layer._build(own, None if values is None else part.inside(values))
        self._origin = "fixed by the layer's weights"

    # ---- copies ----

    def _stand_in(self, part: str | None) -> Self:
        """See `profiled.Profiled`: of stand-ins of its parts."""
        made = object.__new__(type(self))
        made.__dict__.update(vars(self))
        names = (p.prefix if not part else f"{part}.{p.prefix}".rstrip(".") for p in self.parts)
        parts = tuple(
            replace(p, layer=p.layer._stand_in(None if part is None else name))
            for p, name in zip(self.parts, names, strict=True)
        )
        made.maker, made._joint = replace(self.maker, parts=parts), None
        made._binding = BoundCell(self.cell, made.maker._engine)
        made._prepare()
        return made

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        parts = tuple(replace(p, layer=copy.copy(p.layer)) for p in self.parts)
        return {**state, "_arrays": None, "_joint": None, "maker": replace(self.maker, parts=parts)}

    # ---- results and cotangents, grouped as Keras returns them ----

    def _state_groups(self) -> list[tuple[str, ...]] | None:
        """Names of the states that are returned together; None: each for itself."""
        return None

    def _leave(self, results: Mapping[str, np.ndarray]) -> Any:
        return self._grouped(super()._leave(results))

    def _grouped(self, left: Any) -> Any:
        """What a layer without groups returns, as this one does."""
        groups = self._state_groups()
        if not (self.return_state and groups):
            return left
        states = dict(zip(self._states, left[1:], strict=True))
        return (left[0], *(_together([states[n] for n in names]) for names in groups))

    def _flat_states(self, states: Any) -> Any:
        """States one after another, if they came in groups."""
        groups = self._state_groups()
        if groups is None or not isinstance(states, tuple | list):
            return states
        if len(states) != len(groups) or len(groups) == len(self._states):
            return states
        flat: list[Any] = []
        for number, (group, names) in enumerate(zip(states, groups, strict=True)):
            if group is None:
                flat += [None] * len(names)
                continue
            items = [*group] if isinstance(group, tuple | list) else [group]
            if len(items) != len(names):
                raise ValueError(
                    f"cell {number} of {self.name} has {len(names)} states ({', '.join(names)}), "
                    f"{len(items)} were given"
                )
            flat += items
        return tuple(flat)

    def _flat_cotangents(self, dy: Any) -> Any:
        """dy as a layer without groups takes it."""
        groups = self._state_groups()
        if not (self.return_state and groups) or not isinstance(dy, tuple | list) or not dy:
            return dy
        states = self._flat_states([*dy[1:]])
        return (dy[0], *states)

    def _enter(self, inputs: Any, initial_state: Any, *rest: Any, **more: Any) -> Any:
        return super()._enter(inputs, self._flat_states(initial_state), *rest, **more)

    def vjp(self, inputs: Any, **keywords: Unpack[CallKeywords]) -> tuple[Any, Pullback]:
        """What a call returns, and the pullback from its cotangents to gradients."""
        y, pullback = super().vjp(inputs, **keywords)
        initial_state = keywords.get("initial_state")
        regrouped: Any = Regrouped(self, pullback, self._arranged(initial_state))
        return y, regrouped

    def _arranged(self, given: Any) -> Arrangement | None:
        """How gradients of initial states are grouped: as they were given, else as returned."""
        groups = self._state_groups()
        if groups is None or (given is not None and self._flat_states(given) is given):
            return None
        return Groups("tuple", tuple(self._states), tuple(groups))


@dataclass(frozen=True, slots=True)
class Groups(Arrangement):
    """States of one cell together."""

    groups: tuple[tuple[str, ...], ...] = ()

    def arrange(self, values: Mapping[str, Any]) -> Any:
        return tuple(_together([values[n] for n in names]) for names in self.groups)


class Regrouped:
    """To whoever calls it, a `Pullback`: a pullback that takes dy as the composite returned y."""

    def __init__(self, layer: Composite, pullback: Any, states: Arrangement | None) -> None:
        self._layer, self._pullback, self._states = layer, pullback, states

    def __call__(
        self, dy: Any, wrt: Sequence[str] | None = None, *, consume: bool = False
    ) -> Gradients:
        """See `pullback.Pullback`."""
        dy = self._layer._flat_cotangents(dy)
        gradients = self._pullback(dy, wrt, consume=consume)
        return self._regrouped(gradients)

    def vjp(self, dy: Any, wrt: Sequence[str] | None = None) -> tuple[Gradients, RegroupedAgain]:
        """See `runtime.pullback.Pullback.vjp`."""
        dy = self._layer._flat_cotangents(dy)
        gradients, pullback = self._pullback.vjp(dy, wrt)
        return self._regrouped(gradients), RegroupedAgain(self._layer, pullback, self._states)

    def _regrouped(self, found: Gradients) -> Gradients:
        return found if self._states is None else GroupedGradients(found, self._states)


class RegroupedAgain:
    """A second pullback between gradients and cotangents as the composite arranges them."""

    def __init__(
        self, layer: Composite, pullback: SecondPullback, states: Arrangement | None
    ) -> None:
        self._layer, self._pullback, self._states = layer, pullback, states

    def __call__(self, d_grads: Any, *rest: Any, **keywords: Any) -> SecondGradients:
        """See `second_pullback.SecondPullback`."""
        gradients = self._pullback(self._flat(d_grads), *rest, **keywords)
        initial = gradients.initial_state
        if self._states is not None and isinstance(initial, tuple):
            initial = self._states.arrange(dict(zip(self._states.names, initial, strict=True)))
        dy = gradients.dy if gradients.dy is None else self._layer._grouped(gradients.dy)
        return replace(gradients, dy=dy, initial_state=initial)

    def _flat(self, d_grads: Any) -> Any:
        if isinstance(d_grads, Gradients):
            d_grads = {kind: getattr(d_grads, kind) for kind in WRT}
        if self._states is None or not isinstance(d_grads, Mapping):
            return d_grads
        if "initial_state" not in d_grads:
            return d_grads
        flat = self._layer._flat_states(d_grads["initial_state"])
        return {**d_grads, "initial_state": flat}

    def plan(self) -> str:
        """Which kernels ran, and why."""
        return self._pullback.plan()


class GroupedGradients(Gradients):
    """Gradients whose initial states are grouped by their cells."""

    def __init__(self, found: Gradients, states: Arrangement) -> None:
        super().__init__(found.inputs, found.weights, found)
        self._layout = states

    @property
    def initial_state(self) -> Any:
        flat = self._initial.initial_state
        if flat is None or isinstance(flat, Mapping):
            return flat
        items: Iterable[Any] = flat if isinstance(flat, tuple | list) else (flat,)
        return self._layout.arrange(dict(zip(self._layout.names, items, strict=False)))

    def __reduce__(self) -> tuple[Any, ...]:
        return GroupedGradients, (self._initial, self._layout)


def _together(items: Sequence[Any]) -> Any:
    return items[0] if len(items) == 1 else tuple(items)
