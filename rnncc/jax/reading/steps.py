"""A function of jax.lax.scan as a function of lists of arrays, and its traces.

Non-Goals: what traces mean (`reader`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr


@dataclass(slots=True)
class Traces:
    """What a trace came to. carry: the tree of the carry that it gave, ys: of the rest."""

    jaxpr: ClosedJaxpr
    carry: Any
    ys: Any


@dataclass(frozen=True, slots=True)
class Step:
    """f, with the trees and leaves of what it is called with. xs: of one step."""

    function: Callable[[Any, Any], Any]
    carry_tree: Any
    x_tree: Any
    carry: tuple[jax.ShapeDtypeStruct, ...]
    xs: tuple[jax.ShapeDtypeStruct, ...]
    carry_names: tuple[str, ...]
    x_names: tuple[str, ...]
    name: str = field(default="step")

    def trace(
        self, carry: Sequence[jax.ShapeDtypeStruct], xs: Sequence[jax.ShapeDtypeStruct]
    ) -> Traces:
        """The step of arrays of these shapes."""
        found: list[Any] = []

        def flat(*leaves: Any) -> list[Any]:
            own = jax.tree.unflatten(self.carry_tree, leaves[: len(carry)])
            x = jax.tree.unflatten(self.x_tree, leaves[len(carry) :])
            result = self.function(own, x)
            if not (isinstance(result, tuple | list) and len(result) == 2):
                raise TypeError(
                    f"{self.name} gives {type(result).__name__}: a scan's function gives (carry, y)"
                )
            outs, tree = jax.tree.flatten(result[0])
            ys, y_tree = jax.tree.flatten(result[1])
            found[:] = [tree, y_tree]
            return [*map(jnp.asarray, outs), *map(jnp.asarray, ys)]

        jaxpr = jax.make_jaxpr(flat)(*carry, *xs)
        return Traces(jaxpr, *found)

    def with_batch(
        self, size: int, carried: Sequence[bool], timed: Sequence[bool], float64: bool = False
    ) -> Traces:
        """With so many rows. carried, timed: which leaves have a batch; float64: of all floats."""

        def other(leaf: jax.ShapeDtypeStruct, rows: bool) -> jax.ShapeDtypeStruct:
            shape = (size, *leaf.shape[1:]) if rows else leaf.shape
            dtype = np.float64 if float64 and leaf.dtype.kind == "f" else leaf.dtype
            return jax.ShapeDtypeStruct(shape, dtype, weak_type=leaf.weak_type)

        carry = [other(a, b) for a, b in zip(self.carry, carried, strict=True)]
        return self.trace(carry, [other(a, b) for a, b in zip(self.xs, timed, strict=True)])


def names_of(tree: Any, one: str, many: str) -> tuple[str, ...]:
    """Of the leaves: by their keys, where those are names."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    if len(paths) == 1 and not paths[0]:
        return (one,)
    names = []
    for number, path in enumerate(paths):
        keys = [str(getattr(k, "name", getattr(k, "key", ""))) for k in path]
        known = [k for k in keys if k and not k.isdigit()]
        names.append("_".join(known) or f"{many}_{number}")
    return tuple(names)
