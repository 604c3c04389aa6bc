"""Outputs of two directions -> those of the whole: the merge, its pullback, the pullback of that.

    concat   y = [a, b]        da, db = halves of dy             places in y's own memory, no copy
    sum      y = a + b         da = db = dy                      one pass of NumPy over both
    ave      y = (a + b) / 2   da = db = dy / 2
    mul      y = a * b         da = dy * b,  db = dy * a
    None     y = a, b          da, db = dy

Of every step, a direction's arrays are in the order in which it ran; a and b are in time's.

Non-Goals: which direction runs when (`directions`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.layers.parts import Part
from rnncc.runtime.api.validation import array_shape
from rnncc.runtime.common import memory_pool

Arrays = Mapping[str, np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]
MERGES: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], object]] = {
    "sum": lambda a, b, out: np.add(a, b, out=out),
    "mul": lambda a, b, out: np.multiply(a, b, out=out),
    "ave": lambda a, b, out: np.multiply(np.add(a, b, out=out), a.dtype.type(0.5), out=out),
}
MODES = ("concat", *MERGES, None)


def check_mode(mode: object) -> None:
    """ValueError for what is no way to merge."""
    if mode not in MODES:
        known = ", ".join(map(repr, MODES))
        raise ValueError(f"merge_mode is one of {known}, not {mode!r}")


def turned(side: int, array: np.ndarray, sequences: bool) -> np.ndarray:
    """An array over steps: in time's order, and in the order in which a direction runs them."""
    return array[:, ::-1] if side and sequences else array


@dataclass(frozen=True, slots=True)
class Kept:
    """What a merge leaves for its pullback.

    sequences: outputs are of every step, [B, T, ...], rather than of the last, [B, ...]. widths:
    by output, of the last axes of a and b where they are side by side. factors: of products, a
    and b.
    """

    sequences: bool
    widths: Mapping[str, tuple[int, int]]
    factors: Mapping[str, Pair]


class Merge:
    """How outputs become one.

    outputs: names of the whole for every output of a direction, two where they stay apart.
    """

    def __init__(
        self, parts: Sequence[Part], mode: str | None, outputs: Sequence[tuple[str, ...]]
    ) -> None:
        self.parts, self.mode = tuple(parts), mode
        # (names of the whole, the output of either direction)
        declared = (part.cell.outputs for part in parts)
        self.outputs = [*zip(outputs, zip(*declared, strict=True), strict=True)]

    # ---- forward -------------------------------------------------------------------------------

    def places(
        self,
        sizes: Sequence[Mapping[str, int]],
        lead: tuple[int, ...],
        out: Arrays,
        dtype: np.dtype[Any],
    ) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
        """New results, and where each direction's outputs go, in time's order.

        sizes: each direction's own. lead: (batch, time), or (batch,) of the last step.
        """
        results: dict[str, np.ndarray] = {}
        places: list[dict[str, np.ndarray]] = [{}, {}]
        for names, pair in self.outputs:
            shapes = [(*lead, *array_shape(o, s)) for o, s in zip(pair, sizes, strict=True)]
            result_shapes = [shapes[0]] if len(names) == 1 else shapes
            if self.mode == "concat":
                result_shapes = [(*shapes[0][:-1], shapes[0][-1] + shapes[1][-1])]
            for name, shape in zip(names, result_shapes, strict=True):
                target = out.get(name)
                results[name] = memory_pool.POOL.array(shape, dtype) if target is None else target
            parts: Sequence[np.ndarray]
            if self.mode == "concat":
                parts = _halves(results[names[0]], shapes[0][-1])
            elif self.mode is None:
                parts = [results[n] for n in names]
            else:
                parts = [memory_pool.POOL.array(shape, dtype) for shape in shapes]
            for place, output, array in zip(places, pair, parts, strict=True):
                place[output.name] = array
        return results, places

    def __call__(self, places: Sequence[Arrays], results: Arrays, sequences: bool) -> Kept:
        """Fills results out of what the directions wrote."""
        pairs = {n[0]: (places[0][a.name], places[1][b.name]) for n, (a, b) in self.outputs}
        merge = MERGES.get(self.mode or "")
        if merge is not None:
            for name, (ahead, back) in pairs.items():
                merge(ahead, back, results[name])
        concat, mul = self.mode == "concat", self.mode == "mul"
        widths = {n: (a.shape[-1], b.shape[-1]) for n, (a, b) in pairs.items()} if concat else {}
        return Kept(sequences, widths, pairs if mul else {})

    # ---- backward ------------------------------------------------------------------------------

    def pullback(self, kept: Kept, dy: Arrays) -> list[dict[str, np.ndarray]]:
        """dy -> cotangents of both directions' outputs, in the order in which they ran.

        dy: by name, [B, T, ...] or as outputs were returned.
        """
        handed: list[dict[str, np.ndarray]] = [{}, {}]
        for names, pair in self.outputs:
            shares: list[np.ndarray | None]
            d = dy.get(names[0])
            if self.mode is None:
                shares = [dy.get(n) for n in names]
            elif d is None:
                continue
            elif self.mode == "concat":
                shares = [*_halves(d, kept.widths[names[0]][0])]
            elif self.mode == "mul":
                ahead, back = _like(kept.factors[names[0]], d)
                shares = [d * back, d * ahead]
            else:
                share = d * d.dtype.type(0.5) if self.mode == "ave" else d
                shares = [share, share]
            for side, share in enumerate(shares):
                if share is not None:
                    handed[side][pair[side].name] = turned(side, share, kept.sequences)
        return handed

    # ---- the pullback's own pullback -----------------------------------------------------------

    def pullback2(self, kept: Kept, handed: Sequence[Arrays]) -> dict[str, np.ndarray]:
        """Cotangents of what `pullback` returned -> those of dy, by name, [B, T, ...].

        The pullback is linear in dy, so this is its transpose. A missing cotangent is zero.
        """
        dy: dict[str, np.ndarray] = {}
        for names, pair in self.outputs:
            sides = [d.get(o.name) for d, o in zip(handed, pair, strict=True)]
            if self.mode is None:
                apart = zip(names, sides, (0, 1), strict=True)
                dy |= {n: turned(i, d, kept.sequences) for n, d, i in apart if d is not None}
            elif any(d is not None for d in sides):
                widths = kept.widths.get(names[0])
                ahead, back = _both(sides, widths)
                back = turned(1, back, kept.sequences)
                if self.mode == "concat":
                    dy[names[0]] = np.concatenate([ahead, back], axis=-1)
                elif self.mode == "mul":
                    first, second = _like(kept.factors[names[0]], ahead)
                    dy[names[0]] = ahead * second + back * first
                else:
                    total = ahead + back
                    dy[names[0]] = total * total.dtype.type(0.5) if self.mode == "ave" else total
        return dy

    def across(self, kept: Kept, dy: Arrays, handed: Sequence[Arrays]) -> list[dict[str, Any]]:
        """Cotangents of what `pullback` returned -> those of both directions' outputs.

        Of products alone does the pullback depend on them: dy * b on b, dy * a on a.
        """
        crossed: list[dict[str, Any]] = [{}, {}]
        for names, pair in self.outputs:
            d = dy.get(names[0])
            if self.mode != "mul" or d is None:
                continue
            for side in (0, 1):
                other = handed[1 - side].get(pair[1 - side].name)
                if other is not None:
                    share = d * turned(1 - side, other, kept.sequences)
                    crossed[side][pair[side].name] = turned(side, share, kept.sequences)
        return crossed


def _halves(array: np.ndarray, first: int) -> Pair:
    return array[..., :first], array[..., first:]


def _both(given: Sequence[np.ndarray | None], widths: Sequence[int] | None) -> Pair:
    """With zeros for the one that is missing. widths: of their last axes, if those differ."""
    (known, *_) = (d for d in given if d is not None)
    ends = [known.shape[-1:]] * 2 if widths is None else [(w,) for w in widths]
    zeros = (np.zeros((*known.shape[:-1], *end), known.dtype) for end in ends)
    ahead, back = (z if d is None else d for d, z in zip(given, zeros, strict=True))
    return ahead, back


def _like(pair: Pair, d: np.ndarray) -> Pair:
    """Outputs of the last step beside an array of every step."""
    ahead, back = pair
    return (ahead[:, None], back[:, None]) if d.ndim > ahead.ndim else pair
