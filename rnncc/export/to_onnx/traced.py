"""Weights of a node that are values of the graph, not numbers: where in the cell's own they lie.

A cell is recognised with whole numbers for weights, then with each weight's numbers raised: by 1,
by their places, by the squares of these. What W, R, B and P grow by says of how many elements, one
or two, an element is the sum, and which they are. That holds for such sums alone, which another set
of numbers shows.

    W of gate f = weight_ih[16:32]      B of gate z = bias[0, :16] + bias[1, :16]

Non-Goals: weights that are numbers (`recognition`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np

from rnncc.emit.onnx.graph import GraphWriter
from rnncc.export.to_onnx.recognition import Recognised, recognised
from rnncc.ir.program import Program

Shapes = Mapping[str, tuple[int, ...]]
Places = tuple[np.ndarray, np.ndarray]
MOST = 50  # of the whole numbers: sums and small products of them are exact


@dataclass(frozen=True)
class TracedWeight:
    """places: by array of the node and weight of the cell, 1 + the place of an element that each
    element is a sum of, 0 for none; of the first one, and of the second."""

    node: Recognised
    shapes: Shapes
    places: Mapping[str, Mapping[str, Places]]

    def names(self, w: GraphWriter, given: Mapping[str, str]) -> dict[str, str] | None:
        """The node's arrays as values of the graph, with an axis of directions. given: names of
        the weights. None: they don't lie in blocks."""
        units, found = self.node.arrays["R"].shape[1], {}
        for name, places in self.places.items():
            blocks = []
            for first in range(0, len(self.node.arrays[name]), units):
                made = self._block(w, given, places, slice(first, first + units))
                if made is None:
                    return None
                rest = self.node.arrays[name].shape[1:]
                zeros = w.constant(np.zeros((units, *rest), w.dtype), "zeros")
                blocks.append(reduce(lambda a, b: w.node("Add", a, b), made) if made else zeros)
            whole = w.node("Concat", *blocks, axis=0, like=name) if len(blocks) > 1 else blocks[0]
            found[name] = w.node("Unsqueeze", whole, w.whole(0), like=name)
        return found

    def _block(
        self,
        w: GraphWriter,
        given: Mapping[str, str],
        places: Mapping[str, Places],
        rows: slice,
    ) -> list[str] | None:
        """What is added up in one gate's rows."""
        parts = []
        for weight, block in ((n, both[rows]) for n, pair in places.items() for both in pair):
            if not block.any():
                continue
            part = _cut(w, given[weight], self.shapes[weight], block)
            if part is None:
                return None
            parts.append(part)
        return parts


def _cut(w: GraphWriter, name: str, shape: tuple[int, ...], block: np.ndarray) -> str | None:
    """A part of a weight that lies together in it, perhaps transposed."""
    count = int(np.prod(shape, dtype=int))
    if block.ndim == 1:
        first = int(block[0]) - 1
        if not np.array_equal(block - 1, np.arange(first, first + len(block))):
            return None
        flat = name if len(shape) == 1 else w.node("Reshape", name, w.whole(-1))
        if len(block) == count:
            return flat
        return w.node("Slice", flat, w.whole(first), w.whole(first + len(block)), w.whole(0))
    if len(shape) != 2:
        return None
    numbered = np.arange(1, 1 + count).reshape(shape)
    for turned in (False, True):
        wanted = block.T if turned else block
        row, column = divmod(int(wanted[0, 0]) - 1, shape[1])
        rows, columns = wanted.shape
        if not np.array_equal(numbered[row : row + rows, column : column + columns], wanted):
            continue
        if wanted.shape != shape:
            starts, ends = w.whole(row, column), w.whole(row + rows, column + columns)
            name = w.node("Slice", name, starts, ends, w.whole(0, 1))
        return w.node("Transpose", name, perm=[1, 0]) if turned else name
    return None


def traced(
    program: Program, sizes: Mapping[str, int], shapes: Shapes, rates: Mapping[str, np.ndarray]
) -> TracedWeight | None:
    """As `recognised`, of weights that aren't known; none where they aren't sums of elements."""
    rng = np.random.default_rng(0)

    def drawn() -> dict[str, np.ndarray]:
        return {n: 1.0 + rng.integers(MOST, size=shape) for n, shape in shapes.items()}

    def look(arrays: Mapping[str, np.ndarray]) -> Recognised | None:
        return recognised(program, sizes, {**arrays, **rates})

    plain = drawn()
    first = look(plain)
    if first is None:
        return None
    places: dict[str, dict[str, Places]] = {n: {} for n in first.arrays}
    for weight, array in plain.items():
        numbers = np.arange(1.0, 1 + array.size).reshape(array.shape)
        found = [look({**plain, weight: array + numbers**power}) for power in (0, 1, 2)]
        for name, before in first.arrays.items():
            grown = [f.arrays[name] - before for f in found if f and name in f.arrays]
            if len(grown) < len(found):
                return None
            pair = _two(grown[0], grown[1], grown[2], array.size)
            if pair is None:
                return None
            places[name][weight] = pair
    made = TracedWeight(first, dict(shapes), places)
    return made if _holds(made, drawn, look) else None


def _two(count: np.ndarray, total: np.ndarray, squares: np.ndarray, most: int) -> Places | None:
    """Two places of these sums; the second is 0 where there is one, both where there is none."""
    apart = np.sqrt(np.maximum(2 * squares - total**2, 0))
    low, high = np.rint((total - apart) / 2), np.rint((total + apart) / 2)
    places = np.where(count == 2, low, high), np.where(count == 2, high, 0)
    right = (places[0] + places[1] == total) & (places[0] ** 2 + places[1] ** 2 == squares)
    right &= ((places[0] > 0).astype(int) + (places[1] > 0) == count) & (places[0] >= 0)
    if not right.all() or max(p.max(initial=0) for p in places) > most:
        return None
    return places[0].astype(np.int64), places[1].astype(np.int64)


def _holds(
    made: TracedWeight,
    drawn: Callable[[], dict[str, np.ndarray]],
    look: Callable[[Mapping[str, np.ndarray]], Recognised | None],
) -> bool:
    """Whether other numbers are found where these were, and nothing else depends on them."""
    arrays = drawn()
    found = look(arrays)
    if found is None or _kind(found) != _kind(made.node):
        return False
    for name, places in made.places.items():
        total = np.zeros(found.arrays[name].shape)
        for weight, pair in places.items():
            held = np.concatenate([[0.0], arrays[weight].ravel()])
            total += held[pair[0]] + held[pair[1]]
        if not np.array_equal(total, found.arrays[name]):
            return False
    return True


def _kind(node: Recognised) -> tuple[object, ...]:
    shapes = {n: a.shape for n, a in node.arrays.items()}
    return node.operator, node.flags, node.activations, node.clip, shapes, node.states
