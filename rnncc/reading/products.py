"""Subscripts of one row -> `@`, products lane by lane, or an einsum.

    i,ij->j     x @ W            ij,jk->ik   a @ b
    i,ji->j     W @ x            ij,kj->ik   a @ transpose(b)
    i,i->i      a * b            i,j->ij     reshape(a, (units, 1)) * b

Non-Goals: where a product runs (`rnncc.schedule`).
"""

from __future__ import annotations

from collections.abc import Sequence

from rnncc.reading.graph import Node, Unreadable
from rnncc.reading.written import (
    PRODUCT,
    SIGN,
    Writes,
    Written,
    as_number,
    reshaped,
    word,
)


@word("einsum")
def _einsum(writer: Writes, node: Node, values: Sequence[Written]) -> Written:
    left, _, out = node.attributes["subscripts"].partition("->")
    pairs = [(t, as_number(v)) for t, v in zip(left.split(","), values, strict=True)]
    for term in (*(t for t, _ in pairs), out):
        if len({*term}) < len(term):
            raise Unreadable(f"has a letter twice in {term}: diagonals aren't read")
    numbers = [v for t, v in pairs if not t]
    arrays = [(t, v) for t, v in pairs if t]
    rest = _of_arrays(writer, arrays, out)
    if rest is not None:
        numbers.append(rest)
    if len(numbers) == 1:
        return numbers[0]
    text = " * ".join([numbers[0].within(PRODUCT), *(n.within(SIGN) for n in numbers[1:])])
    return Written(text, node.output.shape, node.output.rows, PRODUCT)


def _of_arrays(writer: Writes, pairs: list[tuple[str, Written]], out: str) -> Written | None:
    """The product of all that have letters; None of none."""
    if not pairs:
        return None
    if pairs == [(out, pairs[0][1])]:
        return pairs[0][1]
    lengths = {x: n for t, v in pairs for x, n in zip(t, v.shape, strict=True)}
    shape, rows = tuple(lengths[x] for x in out), any(v.rows for _, v in pairs)
    summed = {x for t, _ in pairs for x in t} - {*out}
    if not summed and len(pairs) > 1:
        return _lane_by_lane(writer, pairs, out, lengths, rows)
    text = _matmul(pairs, out, summed) if len(pairs) == 2 and len(summed) == 1 else ""
    if text:
        return Written(text, shape, rows, PRODUCT)
    terms = ",".join(t for t, _ in pairs)
    arguments = ", ".join(v.text for _, v in pairs)
    return Written(f'einsum("{terms}->{out}", {arguments})', shape, rows)


def _lane_by_lane(
    writer: Writes, pairs: list[tuple[str, Written]], out: str, lengths: dict[str, int], rows: bool
) -> Written:
    """Nothing is summed: operands in the order of the result's letters, ones where they have
    none."""
    factors = []
    for term, value in pairs:
        order = [term.index(x) for x in out if x in term]
        if order != sorted(order):
            axes = "" if order == [1, 0] else f", axes=({', '.join(map(str, order))})"
            inner = tuple(lengths[x] for x in out if x in term)
            value = Written(f"transpose({value.text}{axes})", inner, value.rows)
        first = min(map(out.index, term))
        shape = tuple(lengths[x] if x in term else 1 for x in out[first:])
        factors.append(reshaped(writer, value, shape))
    text = " * ".join([factors[0].within(PRODUCT), *(f.within(SIGN) for f in factors[1:])])
    return Written(text, tuple(lengths[x] for x in out), rows, PRODUCT)


def _matmul(pairs: list[tuple[str, Written]], out: str, summed: set[str]) -> str:
    """As `a @ b`; nothing where it is no such product."""
    (k,) = summed
    if any(k not in t or len(t) > 2 for t, _ in pairs):
        return ""
    free = [t.replace(k, "") for t, _ in pairs]
    if out == free[1] + free[0] and out != free[0] + free[1]:
        pairs, free = pairs[::-1], free[::-1]
    if out != free[0] + free[1]:
        return ""
    (a_term, a), (b_term, b) = pairs
    if len(a_term) == 1 and b_term[:1] != k:  # W @ x, no transpose
        (a_term, a), (b_term, b) = (b_term, b), (a_term, a)
    elif len(b_term) == 1 and a_term[-1] != k:
        (a_term, a), (b_term, b) = (b_term, b), (a_term, a)
    left = a.within(PRODUCT) if a_term[-1] == k else f"transpose({a.text})"
    right = b.within(SIGN) if b_term[0] == k else f"transpose({b.text})"
    return f"{left} @ {right}"
