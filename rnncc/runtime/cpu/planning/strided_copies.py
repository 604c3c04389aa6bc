"""A Copy and concrete strides -> strided pieces the `copy_strided` helper takes.

A reshape copies elements in order between shapes that share no axes; it is split at the axes both
have, and where they have none, into runs.

Non-Goals: copying.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import TYPE_CHECKING

from rnncc.artifact.array_tables import BufferView
from rnncc.artifact.kernel_tables import CopySpec
from rnncc.runtime.cpu.kernels.loop_helpers import DESC_WORDS

if TYPE_CHECKING:
    from rnncc.runtime.cpu.planning.bound_program import BoundProgram

MAX_RANK = 6


def copy_pieces(copy: CopySpec, binding: BoundProgram) -> list[list[int]]:
    """[source offset, target offset, rank, shape…, source strides…, target strides…] each."""
    shape = [binding.size(s) for s in copy.shape]
    target_shape = [binding.size(s) for s in copy.target_shape]
    target = _strides(copy.target, binding, copy.target_step)
    source = [0] * len(shape)
    if copy.source:
        source = _strides(copy.source, binding, copy.source_step)
    if not shape:
        shape, source = [1], [0]
    if not target_shape:
        target_shape, target = [1], [0]
    common = _common(shape, target_shape)
    if common is not None:
        s = _refine(shape, source, common)
        t = _refine(target_shape, target, common)
        if len(common) <= MAX_RANK:
            return [_piece(0, 0, common, s, t)]
    pieces = []
    places = zip(_offsets(shape, source), _offsets(target_shape, target), strict=True)
    for s_at, t_at in places:
        pieces.append(_piece(s_at, t_at, [1], [0], [0]))
    return pieces


def _piece(s_at: int, t_at: int, shape: list[int], s: list[int], t: list[int]) -> list[int]:
    words = [s_at, t_at, len(shape), *shape, *s, *t]
    return words + [0] * (DESC_WORDS - len(words))


def _strides(
    source: BufferView, binding: BoundProgram, stepped: tuple[int, int] | None
) -> list[int]:
    layout = binding.layouts[source.buffer]
    strides = [0 if a is None else layout.strides[a] for a in source.axes]
    if stepped is not None:
        axis, step = stepped
        strides[axis] *= step
    return strides


def _common(a: list[int], b: list[int]) -> list[int] | None:
    """The coarsest shape both can be split into, or None where their axes cross."""
    cuts = sorted(_cuts(a) | _cuts(b))
    for low, high in pairwise(cuts):
        if low == 0 or high % low:
            return None
    return [high // low for low, high in pairwise(cuts)][::-1] or [1]


def _cuts(shape: list[int]) -> set[int]:
    cuts, step = {1}, 1
    for n in reversed(shape):
        step *= n
        cuts.add(step)
    return cuts


def _refine(shape: list[int], strides: list[int], common: list[int]) -> list[int]:
    """Strides of the common shape's axes."""
    refined: list[int] = []
    rest = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    for n in reversed(common):
        if n == 1:
            refined.insert(0, 0)
            continue
        size, stride = rest.pop()
        refined.insert(0, stride)
        if size != n:
            rest.append((size // n, stride * n))
    return refined


def _offsets(shape: list[int], strides: list[int]) -> list[int]:
    return [
        sum(i * s for i, s in zip(index, strides, strict=True))
        for index in product(*map(range, shape))
    ]
