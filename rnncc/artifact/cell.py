"""What a layer knows of its cell: names, shapes and defaults, with options and functions bound.

A `CellDescription` is plain data without the compiler behind it: a generated module holds one
literally, as `repr` writes it. Shapes are size expressions (`4 * units`) for
`common.size_expressions`.

Non-Goals: equations; binding sizes (`validation`); drawing weights (`common.initializers`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from rnncc.artifact.literals import literal
from rnncc.common.unrolling import unroll_of

OptionValue = bool | int | float | str

# The arguments of a masked variant: which steps count, and whose outputs are other than zero.
MASKS = VALID, SHOWN = "valid", "_shown"
# One of a variant with resets: behind which steps a row starts anew.
RESTART = "_restart"
TO_ZEROS, TO_STARTS = "to zeros", "to starts"  # what its states are then
STEP_FLAGS = (*MASKS, RESTART)


def restart_name(state: str) -> str:
    """What a row's state starts anew from: the argument of a variant with resets to starts."""
    return f"_{state}_restart"


class _Literal:
    """Dataclasses whose repr is Python in the house's layout, defaults left out."""

    def __repr__(self) -> str:
        return str(literal(self))


@dataclass(frozen=True, repr=False)
class SizeDescription(_Literal):
    """A size: read off the data, given, or else its default, an expression over other sizes."""

    name: str
    default: str | None = None


@dataclass(frozen=True, repr=False)
class Array(_Literal):
    """An input, context, state, weight, constant or output. `shape`: without batch and time.

    initializer: (name, *arguments) of a weight or constant; None: the layer's own choice.
    default: the weight or constant a state starts from; None: zeros.
    """

    name: str
    shape: tuple[str, ...] = ()
    initializer: tuple[Any, ...] | None = None
    default: str | None = None


@dataclass(frozen=True, repr=False)
class Rate(_Literal):
    """at_inference: it also matters when nothing is drawn, as zoneout's does."""

    name: str
    default: float = 0.0
    at_inference: bool = False


@dataclass(frozen=True, repr=False)
class Constraint(_Literal):
    """Two size expressions that must come out equal; the message says why."""

    left: str
    right: str
    message: str


@dataclass(frozen=True, repr=False)
class CellDescription(_Literal):
    """A bound cell.

    arguments: inputs and contexts by name, as a call takes them: in order of declaration.
    states: the declared ones, then delays, as `initial_state` takes them.
    draws: training draws random numbers even while every rate is zero.
    rated_options: (option, rate): True, unless it is given, where a layer is made with that rate
    above zero.
    unlearned: weights that no gradient reaches: name, line, lines that read it.
    """

    name: str
    dtype: str
    doc: str = ""
    sizes: tuple[SizeDescription, ...] = ()
    arguments: tuple[str, ...] = ()
    inputs: tuple[Array, ...] = ()
    contexts: tuple[Array, ...] = ()
    states: tuple[Array, ...] = ()
    weights: tuple[Array, ...] = ()
    constants: tuple[Array, ...] = ()
    outputs: tuple[Array, ...] = ()
    options: tuple[tuple[str, OptionValue], ...] = ()
    functions: tuple[tuple[str, str], ...] = ()
    rates: tuple[Rate, ...] = ()
    draws: bool = False
    rated_options: tuple[tuple[str, str], ...] = ()
    constraints: tuple[Constraint, ...] = ()
    unlearned: tuple[tuple[str, int, tuple[int, ...]], ...] = ()
    source: str = "<text>"
    sha256: str = ""


@dataclass(frozen=True, repr=False)
class Variant(_Literal):
    """Which of a cell's programs a call runs.

    mask: some steps may be masked. resets: rows may start anew between two steps, TO_ZEROS or
    TO_STARTS, which are arguments; "" where none does. training: random numbers are drawn.
    active_rates: the rates that aren't zero, as far as they matter to this program. second_order:
    gradients that are differentiated again. storage: of the weights that calls without gradients
    read, "" for none but their own; the program is the same. unroll: steps that its loops write out
    a turn (`common.unrolling`); what is computed is the same.
    """

    mask: bool = False
    training: bool = False
    active_rates: frozenset[str] = frozenset()
    second_order: bool = False
    storage: str = ""
    unroll: int = 1
    resets: str = ""

    @property
    def words(self) -> str:
        """What a plan says of it."""
        drawn = f", training, with {' and '.join(sorted(self.active_rates)) or 'no rates'}"
        masked = ", masked" * self.mask
        restarted = f", with resets {self.resets}" if self.resets else ""
        return masked + restarted + (drawn if self.training else "")

    @property
    def prefix(self) -> str:
        """What names of its kernels begin with."""
        second = "second_" if self.second_order else ""
        rated = "rated_" if self.active_rates else ""
        turns = "unrolled_" if self.unroll != 1 else ""
        return (
            turns
            + second
            + ("masked_" if self.mask else "")
            + {"": "", TO_ZEROS: "cleared_", TO_STARTS: "restarted_"}[self.resets]
            + ("training_" if self.training else rated)
        )


def variant_of(
    cell: CellDescription,
    rates: Mapping[str, float],
    *,
    training: bool,
    mask: bool,
    resets: str = "",
    storage: str = "",
    unroll: int = 1,
) -> Variant:
    """The one variant for these rates: calls that mean the same share a module."""
    active = frozenset(r.name for r in cell.rates if rates[r.name])
    drawn = training and bool(active or cell.draws)
    if not drawn:
        active &= {r.name for r in cell.rates if r.at_inference}
    return Variant(mask, drawn, active, storage=storage, unroll=unroll, resets=resets)


def variants_of(cell: CellDescription, *, second_order: bool = False) -> tuple[Variant, ...]:
    """What a layer needs for any call: the plain cell, and with all its rates where it has some;
    each without a mask and with one,
    each of them without resets and with some, of which those to zeros are a case.

    A rate may be zero in a variant where it is active: `drop` keeps every lane. second_order:
    each of them for second derivatives, too.
    """
    rates = frozenset(r.name for r in cell.rates)
    still = frozenset(r.name for r in cell.rates if r.at_inference)
    variants = [Variant(unroll=unroll_asked(cell))]
    if still:
        variants.append(replace(variants[0], active_rates=still))
    if rates or cell.draws:
        variants.append(replace(variants[0], training=True, active_rates=rates))
    variants += [replace(v, mask=True) for v in variants]
    variants += [replace(v, resets=TO_STARTS) for v in variants]
    if second_order:
        variants += [replace(v, second_order=True) for v in variants]
    return tuple(variants)


def plain_variants(*, second_order: bool = False, unroll: int = 1) -> tuple[Variant, ...]:
    """What a call without a mask needs where nothing is drawn."""
    plain = Variant(unroll=unroll)
    return (plain, replace(plain, second_order=True)) if second_order else (plain,)


def unroll_asked(cell: CellDescription) -> int:
    """What a layer asks for that doesn't say, by the option of that name."""
    asked = dict(cell.options).get("unroll", False)
    assert isinstance(asked, int), asked  # checked where it was read
    return unroll_of(asked)


def covering(variant: Variant, made: Iterable[Variant]) -> Variant | None:
    """One of those made that does what this one does; the other rates it may have are zero."""
    fits = [
        m
        for m in made
        if replace(m, active_rates=variant.active_rates, resets=variant.resets) == variant
        and m.resets in (variant.resets, TO_STARTS if variant.resets else "")
        and m.active_rates >= variant.active_rates
    ]
    return min(fits, key=lambda m: (len(m.active_rates), m.resets != variant.resets), default=None)


# ---- sizes -----------------------------------------------------------------------------------


@cache
def names_of(text: str) -> frozenset[str]:
    """The sizes an expression reads."""
    tree = ast.parse(text, mode="eval")
    return frozenset(n.id for n in ast.walk(tree) if isinstance(n, ast.Name))
