"""Everything that can be passed wrong, at every door of a layer.

What is refused is refused with TypeError, ValueError or KeyError and a text a person can read, and
leaves the layer as it was: the next plain call has the bits of the one before. What is accepted
computes what the same numbers computed as a plain array.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from rnncc import layers
from rnncc.runtime.api.layer import Layer
from tests.attack import Attack
from tests.attack.guard import all_of, differing, flat, layer_class
from tests.support import cases

CELL, DTYPE = "lstm", "float32"
BATCH, TIME, FEATURES, UNITS = 3, 4, 3, 5
REFUSALS = (TypeError, ValueError, KeyError)
LONGEST = 2000  # characters of a message that a person reads


class Odd:
    """An object that can do nothing an array or a number can."""


class Raising:
    """An object whose conversion fails in a way of its own."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise OSError("no array today")

    def __float__(self) -> float:
        raise OSError("no float today")

    def __index__(self) -> int:
        raise OSError("no index today")

    def __len__(self) -> int:
        raise OSError("no length today")


SCALARS: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: "",
    lambda: "text\0text",
    lambda: b"bytes",
    lambda: True,
    lambda: np.bool_(False),
    lambda: 0,
    lambda: -1,
    lambda: 2**63,
    lambda: -(2**70),
    lambda: 0.5,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: 1e400,
    lambda: 3j,
    lambda: np.float64(0.25),
    lambda: np.int8(-3),
    lambda: np.uint64(2**64 - 1),
    lambda: np.datetime64("2020-01-01"),
    lambda: datetime.date(2020, 1, 1),
    lambda: decimal.Decimal("0.5"),
    lambda: fractions.Fraction(1, 3),
    lambda: object(),
    lambda: Odd(),
    lambda: Odd,
    lambda: Raising(),
    list,
    lambda: (),
    dict,
    lambda: set(),
    lambda: [[1.0], [1.0, 2.0]],
    lambda: iter([1.0]),
    lambda: range(3),
    lambda: (i for i in range(3)),
    lambda: lambda v: v,
    lambda: ...,
    lambda: NotImplemented,
    lambda: memoryview(b"123456"),
    lambda: {"x": 1.0},
    lambda: {1: 2},
    lambda: np.array(1.0),
    lambda: np.zeros(0),
    lambda: np.array(["a", "b"]),
    lambda: np.array([object()]),
    lambda: np.zeros(3, [("a", "f4")]),
)


def spoiled(rng: np.random.Generator, right: np.ndarray) -> Any:
    """An array like the right one, with something about it that is odd or wrong."""
    return ODDITIES[int(rng.integers(len(ODDITIES)))](rng, right)


def _misaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    moved = raw[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


ODDITIES: tuple[Callable[[np.random.Generator, np.ndarray], Any], ...] = (
    lambda rng, a: a.astype(str(rng.choice(["float16", "float64", "int8", "uint64", "bool"]))),
    lambda rng, a: a.astype("complex64"),
    lambda rng, a: a.astype(object),
    lambda rng, a: a.astype("U8"),
    lambda rng, a: a.astype(a.dtype.newbyteorder()),
    lambda rng, a: _misaligned(a),
    lambda rng, a: _read_only(a),
    lambda rng, a: np.asfortranarray(a),
    lambda rng, a: a[::-1],
    lambda rng, a: np.repeat(a, 2, axis=-1)[..., ::2],
    lambda rng, a: np.broadcast_to(a[:1], a.shape),
    lambda rng, a: a[..., None],
    lambda rng, a: a[0],
    lambda rng, a: a[:0],
    lambda rng, a: a[..., :0],
    lambda rng, a: np.concatenate([a, a]),
    lambda rng, a: np.concatenate([a, a], axis=-1),
    lambda rng, a: a.tolist(),
    lambda rng, a: tuple(a),
    lambda rng, a: (a,),
    lambda rng, a: [a, a],
    lambda rng, a: {"x": a},
    lambda rng, a: {"nobody": a},
    lambda rng, a: np.ma.masked_array(a, a > 0),
    lambda rng, a: a.view(np.recarray) if a.dtype.names else np.asmatrix(a.reshape(len(a), -1)),
    lambda rng, a: a * np.nan,
    lambda rng, a: a * np.inf,
    lambda rng, a: memoryview(np.ascontiguousarray(a)),
    lambda rng, a: _tensor(a),
    lambda rng, a: _tensor(a).requires_grad_(),
    lambda rng, a: _tensor(a).to_sparse(),
)


def _tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array.astype("float32"))


@dataclass
class Scene:
    """A layer that works, with what it is right to give it."""

    layer: Layer
    x: np.ndarray
    states: tuple[np.ndarray, ...]
    mask: np.ndarray
    dy: np.ndarray

    def plain(self) -> list[np.ndarray]:
        y, pullback = self.layer.vjp(self.x, seed=3)
        return [*flat(y), *all_of(pullback(self.dy)), *self.layer.get_weights()]


@cache
def scene() -> Scene:
    rng = np.random.default_rng(0)
    layer = layer_class(CELL, DTYPE)(UNITS, return_sequences=True, seed=3)
    x = cases.draw(rng, (BATCH, TIME, FEATURES)).astype(DTYPE)
    states = tuple(cases.draw(rng, (BATCH, UNITS)).astype(DTYPE) for _ in range(2))
    layer.build(x.shape)
    mask = rng.random((BATCH, TIME)) < 0.7
    return Scene(layer, x, states, mask, np.ones((BATCH, TIME, UNITS), DTYPE))


Door = Callable[[Scene, Any], Any]


def _keyword(name: str) -> Door:
    return lambda s, value: type(s.layer)(**{"units": UNITS, "seed": 3, name: value})


def _weights(s: Scene, value: Any) -> Any:
    """A copy's: what is accepted stays with it."""
    copy = deepcopy(s.layer)
    before = [w.copy() for w in copy.get_weights()]
    try:
        copy.set_weights([value, *before[1:]])
    except REFUSALS:
        if differing(copy.get_weights(), before):
            raise AssertionError("refused weights, and changed some") from None
        raise
    return copy(s.x)


KEYWORDS = (
    *("units", "return_sequences", "return_state", "go_backwards", "stateful", "time_major"),
    *("unroll", "zero_output_for_mask", "checkpoint_every", "precision", "weights", "seed"),
    *("name", "dtype", "activation", "recurrent_activation", "use_bias", "dropout"),
    *("recurrent_dropout", "kernel", "unheard_of"),
)

# A door, and the right array of it where there is one.
DOORS: dict[str, tuple[Door, Callable[[Scene], np.ndarray] | None]] = {
    "inputs": (lambda s, v: s.layer(v), lambda s: s.x),
    "inputs of vjp": (lambda s, v: s.layer.vjp(v)[0], lambda s: s.x),
    "mask": (lambda s, v: s.layer(s.x, mask=v), lambda s: s.mask),
    "lengths": (lambda s, v: s.layer(s.x, lengths=v), lambda s: s.mask.sum(1)),
    "initial_state": (lambda s, v: s.layer(s.x, initial_state=v), None),
    "h": (lambda s, v: s.layer(s.x, initial_state=(v, s.states[1])), lambda s: s.states[0]),
    "c by name": (lambda s, v: s.layer(s.x, initial_state={"c": v}), lambda s: s.states[1]),
    "training": (lambda s, v: s.layer(s.x, training=v), None),
    "seed of a call": (lambda s, v: s.layer(s.x, seed=v), None),
    "dy": (lambda s, v: all_of(s.layer.vjp(s.x)[1](v)), lambda s: s.dy),
    "second cotangents": (
        lambda s, v: all_of(s.layer.vjp(s.x)[1].vjp(s.dy)[1](v)),
        lambda s: s.x,
    ),
    "inputs of a stream": (lambda s, v: s.layer.stream(s.x)(v), lambda s: s.x),
    "example of a stream": (lambda s, v: s.layer.stream(v), lambda s: s.x),
    "weights": (_weights, lambda s: s.layer.get_weights()[0]),
    "shapes of build": (lambda s, v: type(s.layer)(UNITS).build(v), None),
    "config": (lambda s, v: layers.LSTM.from_config(v), None),
    **{
        name: (_keyword(name), None)
        for name in [
            "units",
            "return_sequences",
            "return_state",
            "go_backwards",
            "stateful",
            "time_major",
            "unroll",
            "zero_output_for_mask",
            "checkpoint_every",
            "precision",
            "weights",
            "seed",
            "name",
            "dtype",
            "activation",
            "recurrent_activation",
            "use_bias",
            "dropout",
            "recurrent_dropout",
            "kernel",
            "unheard_of",
        ]
    },
}


def attempt(index: int, seed: int) -> str | None:
    rng = np.random.default_rng([seed, index])
    names = [*DOORS]
    name = names[index % len(names)]
    door, right = DOORS[name]
    s = scene()
    if right is not None and rng.random() < 0.6:
        value = spoiled(rng, right(s))
    else:
        value = SCALARS[int(rng.integers(len(SCALARS)))]()
    shown = f"{name} = {type(value).__name__} {str(value)[:200]!r}"
    before = s.plain()
    try:
        found = door(s, value)
    except REFUSALS as error:
        text = str(error)
        if not text.strip() or len(text) > LONGEST:
            return f"{shown}: refused with {len(text)} characters: {text[:200]}"
    except OSError as error:
        if not isinstance(value, Raising):
            return f"{shown}: {error!r}"
    except Exception as error:
        return f"{shown}: {type(error).__name__}: {str(error)[:500]}"
    else:
        if right is not None and isinstance(value, np.ndarray) and name != "example of a stream":
            plain = np.array(value, right(s).dtype if value.dtype.kind != "b" else value.dtype)
            if differing(flat(found), flat(door(s, plain))):
                return f"{shown}: accepted, but computed otherwise than a plain array"
    wrong = differing(s.plain(), before)
    return wrong and f"{shown}: afterwards a plain call differs: {wrong}"


ATTACK = Attack(
    name="doors",
    about="what can be passed wrong is refused with words, or computes what it says",
    count=20_000,
    short=400,
    attempt=attempt,
)
