"""A contraction -> matrix products as cuBLAS takes them, and the copies they need.

    out[m, n] = begin + sum over k of a[m, k] * w[k, n]

Rows of a batch at every step are one axis of a matrix where they lie at one stride; else the
shorter of the two is a batch of products. Along k there is no such way out: of the two operands,
the smaller is copied into the order of the other. What a result begins with is copied there first.

Matrices of the library are columns side by side, ours are rows: what it computes is out transposed,
from w and a transposed, in the same memory.

Non-Goals: who computes them (`cublas`); which contractions there are (`tiler`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rnncc.artifact.kernel_args import CopiedOperands, OneRow
from rnncc.runtime.cuda.kernels.gemm_tiles import CONSTANTS, ZEROS, Contraction, TileOperand
from rnncc.runtime.planning.copies import CopyEnd, Move, Point

MOST = 2**31 - 1  # of every size and stride: the library has 32 bits for them
ALIGNMENT = 256


@dataclass(frozen=True, slots=True)
class Product:
    """c = left' @ right' (+ c), column by column, `count` of them.

    `left_t`, `right_t`: the operand is transposed. c is [rows, columns], and k is summed over;
    `leads` and `steps` of left, right and c: elements from column to column, and from product to
    product.
    """

    left_t: bool
    right_t: bool
    rows: int
    columns: int
    k: int
    leads: tuple[int, int, int]
    steps: tuple[int, int, int]
    count: int
    adds: bool


@dataclass(frozen=True, slots=True)
class Multiply:
    """A product and where its matrices are: `Point`s, and bytes from there."""

    product: Product
    left: tuple[Point, int]
    right: tuple[Point, int]
    out: tuple[Point, int]


@dataclass(slots=True)
class Work:
    """A contraction's launches in order. copies: bytes of copied operands; ones: how many."""

    moves: list[Move]
    multiply: Multiply
    copies: int = 0
    ones: int = 0


Axis = tuple[int, tuple[Any, ...]]  # how long, and each operand's stride


ONCE: Axis = (1, (0, 0))


def one_axis(counts: tuple[int, int], *strides: tuple[int, int]) -> Axis | None:
    """Two axes as one, if every operand has them at one stride, in either order.

    >>> one_axis((3, 5), (20, 4), (5, 1))
    (15, (4, 1))
    >>> one_axis((3, 5), (4, 12))
    (15, (4,))
    >>> one_axis((3, 5), (20, 4), (1, 3)) is None
    True
    """
    outer, inner = counts
    if outer == 1:
        return inner, tuple(s[1] for s in strides)
    if inner == 1:
        return outer, tuple(s[0] for s in strides)
    if all(s[0] == inner * s[1] for s in strides):
        return outer * inner, tuple(s[1] for s in strides)
    if all(s[1] == outer * s[0] for s in strides):
        return outer * inner, tuple(s[0] for s in strides)
    return None


def work_of(c: Contraction, item: int) -> Work | None:
    """How the library does a contraction; None where strides aren't those of matrices."""
    m, n, k = c.counts
    m_counts, k_counts = (m // c.m_inner, c.m_inner), (k // c.k_inner, c.k_inner)
    moves: list[Move] = []
    copies = ones = 0
    a, w = c.a, c.w
    if a.point == OneRow():  # sums alone: a row of ones
        w_axis = one_axis(k_counts, w.k)
        if w_axis is None or c.begin != ZEROS or m != 1:
            return None
        ones, (w_k,) = w_axis
        k_axis: Axis = (k, (item, w_k))
    else:
        joined = one_axis(k_counts, a.k, w.k)
        if joined is None:
            if 1 not in m_counts:
                return None
            moves, a, w, joined = _copied(c, m_counts, k_counts, item)
            copies = sum(_bytes(move, item) for move in moves)
        k_axis = joined
    m_axis, batch = one_axis(m_counts, a.m, c.out.m), ONCE
    if m_axis is None:
        m_axis, batch = _split(m_counts, a.m, c.out.m)
    if c.begin == CONSTANTS:
        assert c.constants is not None
        moves = [*moves, _begun(c, m_counts)]
    product = _product(m_axis, batch, n, k_axis, w.n, c.out.n, item, c.begin != ZEROS)
    if product is None:
        return None
    points = [(p.point, p.offset) for p in (w, a, c.out)]
    return Work(moves, Multiply(product, *points), copies, ones)


def _split(counts: tuple[int, int], a: tuple[int, int], out: tuple[int, int]) -> tuple[Axis, Axis]:
    """The longer axis as rows, the shorter as a batch."""
    axes = [(n, (a[i], out[i])) for i, n in enumerate(counts)]
    return (axes[1], axes[0]) if counts[1] >= counts[0] else (axes[0], axes[1])


def _copied(
    c: Contraction, m_counts: tuple[int, int], k_counts: tuple[int, int], item: int
) -> tuple[list[Move], TileOperand, TileOperand, Axis]:
    """The smaller operand in the other's order of k; both, where that has none."""
    m, n, k = c.counts
    a_alone, w_alone = one_axis(k_counts, c.a.k), one_axis(k_counts, c.w.k)
    copies_a = m <= n if (a_alone is None) == (w_alone is None) else a_alone is None
    both = a_alone is None and w_alone is None
    # Of two axes at one stride, the one with the longer stride is outside.
    kept = c.w.k if copies_a else c.a.k
    swapped = not both and kept[0] < kept[1]
    outer, inner = (1, 0) if swapped else (0, 1)
    moves: list[Move] = []
    at, places = 0, []
    for place, own, copied in ((c.a, m, copies_a or both), (c.w, n, not copies_a or both)):
        if not copied:
            places.append(place)
            continue
        step = place.n
        if place is c.a:
            m_axis = one_axis(m_counts, place.m)
            assert m_axis is not None, "asked for before"
            step = m_axis[1][0]
        shape = (k_counts[outer], k_counts[inner], own)
        source = CopyEnd(place.point, place.offset, (place.k[outer], place.k[inner], step))
        row = own * item
        moves.append(
            Move(shape, source, CopyEnd(CopiedOperands(), at, (row * shape[1], row, item)))
        )
        dense = [0, 0]
        dense[outer], dense[inner] = row * shape[1], row
        more: dict[str, Any] = {"n": item}
        if place is c.a:
            more = {"m": (item * m_counts[1], item)}
        places.append(
            replace(place, point=CopiedOperands(), offset=at, k=(dense[0], dense[1]), **more)
        )
        at += -(-k * row // ALIGNMENT) * ALIGNMENT
    joined = one_axis(k_counts, places[0].k, places[1].k)
    assert joined is not None, "one is in the other's order"
    return moves, places[0], places[1], joined


def _bytes(move: Move, item: int) -> int:
    count = item
    for n in move.shape:
        count *= n
    return -(-count // ALIGNMENT) * ALIGNMENT


def _begun(c: Contraction, m_counts: tuple[int, int]) -> Move:
    """The constants in every row of the result."""
    assert c.constants is not None
    source = CopyEnd(c.constants.point, c.constants.offset, (0, 0, c.constants.n))
    target = CopyEnd(c.out.point, c.out.offset, (*c.out.m, c.out.n))
    return Move((*m_counts, c.counts[1]), source, target)


def _product(
    m: Axis, batch: Axis, n: int, k: Axis, w_n: int, out_n: int, item: int, adds: bool
) -> Product | None:
    rows, (a_m, out_m) = m
    depth, (a_k, w_k) = k
    count, (a_step, out_step) = batch
    left = _matrix((n, w_n), (depth, w_k), item)
    right = _matrix((depth, a_k), (rows, a_m), item)
    out = _matrix((n, out_n), (rows, out_m), item)
    strides = (a_step, out_step)
    if left is None or right is None or out is None or out[0] or any(s % item for s in strides):
        return None
    leads = (left[1], right[1], out[1])
    sizes = (rows, n, depth, count, *leads)
    if max(sizes) > MOST or min(sizes) < 1:
        return None
    return Product(
        left[0],
        right[0],
        n,
        rows,
        depth,
        leads,
        (0, a_step // item, out_step // item),
        count,
        adds,
    )


def _matrix(rows: tuple[int, int], columns: tuple[int, int], item: int) -> tuple[bool, int] | None:
    """[rows, columns] with their strides in bytes, as columns side by side: whether it has to be
    transposed for that, and elements from column to column.

    >>> _matrix((3, 4), (5, 12), 4), _matrix((3, 20), (5, 4), 4), _matrix((3, 8), (5, 24), 4)
    ((False, 3), (True, 5), None)
    """
    for transposed, (n, step), (m, lead) in ((False, rows, columns), (True, columns, rows)):
        if n > 1 and step != item:
            continue
        if m == 1:
            return transposed, n
        if lead % item == 0 and lead >= n * item:
            return transposed, lead // item
    return None


def merged(contractions: Sequence[Contraction]) -> list[Contraction]:
    """Contractions side by side as one: gates whose weights and results are each other's next.

    Additions stay behind what they add to.
    """
    joined: list[Contraction] = []
    last: dict[tuple[Point, int], int] = {}  # where a result was touched last
    for c in contractions:
        place = c.out.point, c.out.offset
        least = last.get(place, -1) + 1
        if any(c.w.point == other.out.point for other in joined):
            least = len(joined)  # it may read what another has just made
        for at in range(least, len(joined)):
            wide = _beside(joined[at], c)
            if wide is not None:
                joined[at], last[place] = wide, at
                break
        else:
            joined.append(c)
            last[place] = len(joined) - 1
    return joined


def _beside(one: Contraction, other: Contraction) -> Contraction | None:
    """Both, if the other's n go on where the one's end."""
    m, n, k = one.counts
    if one.a != other.a or (m, k) != (other.counts[0], other.counts[2]):
        return None
    if (one.m_inner, one.k_inner, one.begin) != (other.m_inner, other.k_inner, other.begin):
        return None
    pairs = [(one.w, other.w), (one.out, other.out)]
    if one.constants is not None and other.constants is not None:
        pairs.append((one.constants, other.constants))
    for here, there in pairs:
        if there != replace(here, offset=here.offset + n * here.n) or not here.n:
            return None
    return replace(one, counts=(m, n + other.counts[1], k))
