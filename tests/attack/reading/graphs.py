"""Random calls of a Recorder, held against the same calls on full NumPy arrays.

Every call is one that a framework's reader could make; what the Recorder refuses is refused, what
it takes is written, and computes the same.

Non-Goals: gradients (the two others; the interpreter's own tests).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from rnncc.reading.graph import Unreadable
from rnncc.reading.traced import BATCH, Merged, Traced
from tests.support.reading.steps_in_numpy import POINTWISE, REDUCE, ROWS, Arrays, assert_same

_KEYWORDS = {
    "leaky_relu": {"negative_slope": 0.3},
    "layer_norm": {"eps": 1e-3},
    "rms_norm": {"eps": 1e-3},
}
_UNARY = ("neg", "abs", "sign", "square", "tanh", "sigmoid", "exp", "softplus", "leaky_relu", "not")
_BINARY = ("+", "-", "*", ">", ">=", "<=", "==", "!=", "and", "or", "maximum", "minimum")
Call = tuple[str, tuple[int, ...], dict[str, Any]]


def _length(n: Any) -> int:
    return ROWS if n == BATCH else ROWS * n.count if isinstance(n, Merged) else int(n)


class Calls:
    """A list of calls that is made anew on whatever makes them; grows where `extend` finds one."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.calls = rng, []

    def __call__(self, r: Any, *leaves: Any) -> Any:
        values = [*leaves]
        for name, operands, attributes in self.calls:
            values.append(_made(r, name, [values[i] for i in operands], attributes))
        return [r.convert(v, "float") for v in self.shown(values)], [leaves[1]]

    def shown(self, values: list[Any]) -> list[Any]:
        return [values[i] for i in self.ends]

    ends: tuple[int, ...] = (0,)

    def extend(self, r: Any, values: list[Traced], arrays: list[Any]) -> None:
        """One more call, if NumPy and the Recorder take it."""
        rng = self.rng
        operands = tuple(
            rng.choice(
                range(max(0, len(values) - 5), len(values))
                if rng.random() < 0.6
                else range(len(values))
            )
            for _ in range(3)
        )
        name, used, attributes = self._drawn([values[i] for i in operands])
        call = name, operands[:used], attributes
        try:
            with np.errstate(all="ignore"):
                array = _made(Arrays(), name, [arrays[i] for i in call[1]], attributes)
            made = _made(r, name, [values[i] for i in call[1]], attributes)
        except (Unreadable, ValueError, IndexError, ZeroDivisionError):  # no framework asks
            return
        if made.rank > 4 or any(not 0 < _length(n) <= 60 for n in made.shape):
            return
        values.append(made)
        arrays.append(array)
        self.calls.append(call)

    def _drawn(self, own: list[Traced]) -> tuple[str, int, dict[str, Any]]:
        rng, x = self.rng, own[0]
        axis = rng.randrange(-max(x.rank, 1), max(x.rank, 1))
        kinds: list[Callable[[], tuple[str, int, dict[str, Any]]]] = [
            lambda: (rng.choice(_UNARY), 1, {}),
            lambda: (rng.choice(_BINARY), 2, {}),
            lambda: ("where", 3, {}),
            lambda: (
                "reduce",
                1,
                {"op": rng.choice([*REDUCE]), "axes": [axis], "keepdims": rng.random() < 0.5},
            ),
            lambda: (
                "along",
                1,
                {"op": rng.choice(("softmax", "cumsum", "flip", "roll")), "axis": axis},
            ),
            lambda: ("matmul", 2, {}),
            lambda: ("transpose", 1, {"order": rng.sample(range(x.rank), x.rank)}),
            lambda: ("reshape", 1, {"shape": self._reshaped(x)}),
            lambda: (
                "slice",
                1,
                {
                    "axis": axis,
                    "key": slice(
                        rng.choice((None, 0, 1, -1)),
                        rng.choice((None, 2, 3, -1)),
                        rng.choice((1, 1, 2, -1)),
                    ),
                },
            ),
            lambda: ("take", 1, {"axis": axis, "index": rng.choice((0, 1, -1))}),
            lambda: ("concat", 2, {"axis": axis}),
            lambda: ("stack", 2, {"axis": axis}),
            lambda: ("expand", 1, {"axis": axis}),
            lambda: ("convert", 1, {"kind": rng.choice(("bool", "int", "float"))}),
            lambda: ("broadcast", 1, {"shape": (rng.choice((BATCH, 2)), *x.shape)}),
        ]
        return rng.choice(kinds)()

    def _reshaped(self, x: Traced) -> list[Any]:
        """Another shape of as many numbers: neighbouring axes put together, or taken apart."""
        rng, shape = self.rng, [*x.shape]
        for _ in range(rng.randrange(1, 3)):
            if not shape:
                return [1]
            at = rng.randrange(len(shape))
            n = shape[at]
            if rng.random() < 0.5 and at + 1 < len(shape):
                shape[at : at + 2] = [_together(n, shape[at + 1])]
            elif isinstance(n, Merged):
                shape[at : at + 1] = [BATCH, n.count] if rng.random() < 0.5 else [n.count, BATCH]
            elif n != BATCH and n % 2 == 0:
                shape[at : at + 1] = [2, n // 2] if rng.random() < 0.5 else [n // 2, 2]
            else:
                shape.insert(at, 1)
        return shape


def _together(a: Any, b: Any) -> Any:
    count, rows = 1, False
    for n in (a, b):
        rows = rows or n == BATCH or isinstance(n, Merged)
        count *= n.count if isinstance(n, Merged) else 1 if n == BATCH else n
    return count if not rows else BATCH if count == 1 else Merged(count)


def _made(r: Any, name: str, own: list[Any], attributes: dict[str, Any]) -> Any:
    if name in POINTWISE:
        if name in _UNARY and name != "not":
            own = [r.convert(own[0], "float")]
        return r.pointwise(name, *own, **_KEYWORDS.get(name, {}))
    given = dict(attributes)
    if name in ("concat", "stack"):
        return getattr(r, name)(own, **given)
    if name == "reduce":
        op = given.pop("op")
        return r.reduce(op, r.convert(own[0], "bool" if op in ("any", "all") else "float"), **given)
    if name == "along":
        op = given.pop("op")
        return r.along(
            op,
            r.convert(own[0], "float"),
            given["axis"],
            **_KEYWORDS.get(op, {"shift": 2} if op == "roll" else {}),
        )
    return getattr(r, name)(*own, **given)


def outcome(index: int, seed: int) -> tuple[str, str | None]:
    """(what came of it, a finding)."""
    from rnncc.reading.recorder import Recorder

    rng = random.Random(f"graphs {seed} {index}")
    calls, r = Calls(rng), Recorder("Drawn")
    shapes = {"inputs": [(BATCH, 4)], "states": [(BATCH, 2, 3)], "weights": [(4, 4), (3,)]}
    values = [r.input("x0", (BATCH, 4)), r.state("h0", (BATCH, 2, 3))]
    values += [r.weight(f"w{i}", s, key=i) for i, s in enumerate(shapes["weights"])]
    arrays = [np.ones(tuple(map(_length, s))) for own in shapes.values() for s in own]
    for _ in range(rng.randrange(4, 16)):
        calls.extend(r, values, arrays)
    ends = [i for i, v in enumerate(values) if v.at == 0 and not v.merged]
    calls.ends = tuple(rng.sample(ends, min(len(ends), 2)))
    try:
        assert_same(calls, seed=index, **shapes)
    except AssertionError as error:
        return "wrong", f"{error}\n{calls.calls} {calls.ends}"
    except TypeError as error:
        if not str(error).startswith("Read can't be"):
            raise
        return f"graph {str(error)[:90]}", None
    return "graph written", None
