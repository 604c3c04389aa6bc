"""Layers inside a layer: one description of them all, and names that tell their arrays apart.

    LSTM, GRU  ->  kernel of the first is cell_0.kernel, units of the second is cell_1_units

Whoever holds the description needs no more than `layer` to be called, trained, saved: its
engine (`stack`, `directions`) is what hands arrays on to the engines of the parts.

Non-Goals: what runs when (`stack`, `directions`); weights (`weights`).
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from rnncc.artifact.cell import (
    Array,
    CellDescription,
    Constraint,
    Rate,
    SizeDescription,
    Variant,
    restart_name,
    variant_of,
)
from rnncc.common.result_roles import final_name
from rnncc.common.unrolling import unroll_of
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.common.precision import PRECISION, refuse_on_cpu
from rnncc.runtime.common.weight_formats import narrowed


@dataclass(frozen=True, eq=False)
class Part:
    """A layer and what its names begin with outside: nothing, where it is alone."""

    layer: Layer
    prefix: str

    @property
    def cell(self) -> CellDescription:
        return self.layer.cell

    # ---- names out of the part ----

    def name(self, own: str) -> str:
        """Of an array, rate or option."""
        return f"{self.prefix}.{own}" if self.prefix else own

    def size(self, text: str) -> str:
        """A size expression over the sizes of the whole."""
        return _renamed(text, f"{self.prefix}_") if self.prefix else text

    def array(self, array: Array, name: str | None = None) -> Array:
        """An array of the part as the whole declares it."""
        default = None if array.default is None else self.name(array.default)
        shape = tuple(self.size(text) for text in array.shape)
        return replace(array, name=name or self.name(array.name), shape=shape, default=default)

    # ---- names into the part ----

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(own name, name outside) of what an engine reads beside inputs and contexts."""
        cell = self.cell
        arrays = (*cell.weights, *cell.constants, *cell.states)
        names = (*(a.name for a in arrays), *(r.name for r in cell.rates))
        anew = ((restart_name(s.name), restart_name(self.name(s.name))) for s in cell.states)
        return (*((own, self.name(own)) for own in names), *anew)

    def sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The part's own sizes, of those that are known."""
        own_sizes = {s.name: sizes.get(self.size(s.name)) for s in self.cell.sizes}
        return {n: v for n, v in own_sizes.items() if v is not None}

    def inside(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays and rates by the part's own names; final states are `final_<state>` both ways."""
        return {own: values[name] for own, name in self.pairs if name in values}

    def finals(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values of last states by the names of the part's own results."""
        pairs = ((final_name(s.name), final_name(self.name(s.name))) for s in self.cell.states)
        return {own: values[name] for own, name in pairs if name in values}

    def engine(self, variant: Variant) -> Any:
        """The engine of the part in a variant of the whole, of second derivatives if it says so."""
        rates = {r.name: float(self.name(r.name) in variant.active_rates) for r in self.cell.rates}
        storage = self.layer._chosen.storage
        own = variant_of(
            self.cell,
            rates,
            training=variant.training,
            mask=variant.mask,
            resets=variant.resets,
            storage=variant.storage if storage is None else narrowed(storage),
            unroll=unroll_of(self.layer.unroll) if self.layer.unroll else variant.unroll,
        )
        binding = self.layer._binding
        if variant.second_order:
            return binding.second_engine(own)
        engine = binding.engine(own)
        if not engine.on_gpu:
            refuse_on_cpu(self.cell.name, self.layer.precision)
        return engine

    def precision(self, whole: str) -> str:
        """To which the part's products may be rounded: what its layer says, if it says any, else
        the whole."""
        own: str = self.layer.precision
        return whole if own == "float32" else own

    def beside(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Of a call's arguments, the seed that the part draws from and its products' rounding."""
        arguments: dict[str, Any] = {}
        if "seed" in values:
            arguments["seed"] = self.seed(values["seed"])
        rounding = self.precision(values.get(PRECISION, "float32"))
        if rounding != "float32":
            arguments[PRECISION] = rounding
        return arguments

    def seed(self, seed: int) -> int:
        """What the part draws from: parts draw apart from one another."""
        return mixed(seed, self.prefix) if self.prefix else seed


def added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Gradients by name, summed where both have them."""
    return {**one, **{n: one[n] + a if n in one else a for n, a in other.items()}}


def mixed(seed: int, text: str) -> int:
    """Another seed for each text."""
    word = int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:8], "little")
    return word >> 1


@cache
def _renamed(text: str, prefix: str) -> str:
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = prefix + node.id
    return ast.unparse(tree)


# ---- one cell out of several -------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """A size expression of a part's input, and what has to come out the same outside."""

    own: str
    other: str
    message: str


def joined(
    name: str,
    parts: Sequence[Part],
    *,
    inputs: Sequence[Array],
    contexts: Sequence[Array],
    outputs: Sequence[Array],
    links: Sequence[Link],
    doc: str = "",
) -> CellDescription:
    """The description of a whole. ValueError when the parts compute with different dtypes."""
    dtypes = {p.layer.dtype for p in parts}
    if len(dtypes) > 1:
        each = ", ".join(f"{p.prefix} {p.layer.dtype}" for p in parts)
        raise ValueError(f"the cells of a {name} have one dtype, these have {each}")
    cells = [p.cell for p in parts]
    return CellDescription(
        name=name,
        dtype=parts[0].layer.dtype,
        doc=doc,
        sizes=tuple(_sizes(parts, links)),
        arguments=(*(a.name for a in inputs), *(a.name for a in contexts)),
        inputs=tuple(inputs),
        contexts=tuple(contexts),
        states=tuple(p.array(a) for p in parts for a in p.cell.states),
        weights=tuple(p.array(a) for p in parts for a in p.cell.weights),
        constants=tuple(p.array(a) for p in parts for a in p.cell.constants),
        outputs=tuple(outputs),
        options=tuple((p.name(k), v) for p in parts for k, v in p.cell.options),
        functions=tuple((p.name(k), v) for p in parts for k, v in p.cell.functions),
        rates=tuple(
            Rate(p.name(r.name), p.layer._chosen.rates[r.name], r.at_inference)
            for p in parts
            for r in p.cell.rates
        ),
        draws=any(c.draws for c in cells),
        constraints=(
            *(
                Constraint(p.size(c.left), p.size(c.right), c.message)
                for p in parts
                for c in p.cell.constraints
            ),
            *(Constraint(k.own, k.other, k.message) for k in links),
        ),
        source=", ".join(c.source for c in cells),
        sha256=hashlib.sha256("\n".join([name, *(c.sha256 for c in cells)]).encode()).hexdigest(),
    )


def _sizes(parts: Sequence[Part], links: Sequence[Link]) -> list[SizeDescription]:
    """What a layer was given stays; what one part reads is what another gives."""
    linked = {k.own: k.other for k in reversed(links)}
    sizes = []
    for part in parts:
        for size in part.cell.sizes:
            name, fixed = part.size(size.name), part.layer._fixed.get(size.name)
            default = None if size.default is None else part.size(size.default)
            default = linked.get(name, default) if fixed is None else str(fixed)
            sizes.append(SizeDescription(name, default))
    return sizes


def linked(reader: Part, array: Array, shape: Sequence[str], message: str) -> list[Link]:
    """What makes an input of a part have this shape. ValueError for another rank."""
    if len(array.shape) != len(shape):
        raise ValueError(
            f"{message}: {array.name} has rank {len(array.shape)} (batch and time apart), "
            f"what comes in has {len(shape)}"
        )
    pairs = zip(array.shape, shape, strict=True)
    return [Link(reader.size(own), other, message) for own, other in pairs]
