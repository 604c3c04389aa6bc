"""Subscripts with a batch -> those of one row.

Non-Goals: what contractions equations have (`text`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rnncc.reading.graph import Unreadable
from rnncc.reading.traced import Traced


@dataclass(frozen=True, slots=True)
class RowSubscripts:
    """text: of rows. rows: the shapes that operands are to have. shape: the result's; at, merged:
    its batch's axis, as of a Traced."""

    text: str
    rows: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    at: int | None
    merged: int


def row_subscripts(subscripts: str, operands: Sequence[Traced]) -> RowSubscripts:
    """Unreadable where the batch isn't one letter that the result has."""
    terms, batch, merged = _terms(subscripts, operands)
    inner, out = terms[:-1], terms[-1]
    lengths = _lengths(inner, operands, batch)
    for operand in operands:
        if operand.merged and operand.at is not None:
            lengths[merged] = operand.row[operand.at]
    own, rows = [], []
    for term, operand in zip(inner, operands, strict=True):
        letters = [x for x in term if x != batch]
        axes = [*operand.row]
        if operand.merged:
            assert operand.at is not None
            letters.insert(operand.at, merged)
        # An axis of one number, which broadcasts, has no letter of its own: it is left out.
        kept = [(x, n) for x, n in zip(letters, axes, strict=True) if n == lengths.get(x, n)]
        own.append("".join(x for x, _ in kept))
        rows.append(tuple(n for _, n in kept))
    at = out.index(batch) if batch else None
    result = "".join(merged if x == batch else x for x in out)
    unknown = [x for x in result if not any(x in term for term in own)]
    if unknown:
        raise Unreadable(f"has a letter {unknown[0]} in its result that no operand has")
    shape = tuple(lengths[x] for x in result)
    held = next((o.merged for o in operands if o.at is not None), 0)
    return RowSubscripts(f"{','.join(own)}->{result}", tuple(rows), shape, at, held)


def _terms(subscripts: str, operands: Sequence[Traced]) -> tuple[list[str], str, str]:
    """(terms of operands and of the result, the batch's letter, that of what is behind it)."""
    text = subscripts.replace(" ", "")
    if "->" not in text or "." in text:
        raise Unreadable(f"has subscripts {subscripts!r}: write them out, with ->")
    left, out = text.split("->")
    terms = [*left.split(","), out]
    if len(terms) != len(operands) + 1:
        raise Unreadable(f"has subscripts {subscripts!r} for {len(operands)} arrays")
    for term, operand in zip(terms, operands, strict=False):
        if len(term) != operand.rank:
            raise Unreadable(f"has subscripts {term!r} for an array of rank {operand.rank}")
    places = [(t, o) for t, o in zip(terms, operands, strict=False) if o.at is not None]
    letters = {t[o.at] for t, o in places if o.at is not None}
    if not letters:
        return terms, "", ""
    if len(letters) > 1:
        raise Unreadable(f"has two letters for the batch in {subscripts!r}: rows stay apart")
    (batch,) = letters
    merges = {(o.merged, o.row[o.at] if o.merged else 0) for _, o in places if o.at is not None}
    apart = all(t.count(batch) == (o.at is not None) for t, o in zip(terms, operands, strict=False))
    if out.count(batch) != 1 or len(merges) > 1 or not apart:
        raise Unreadable(f"doesn't keep the rows of a batch apart in {subscripts!r}")
    ((merged, _),) = merges
    free = next(x for x in "zyxwvutsrqponmlkjihgfedcba" if x not in text)
    return terms, batch, free if merged else ""


def _lengths(terms: Sequence[str], operands: Sequence[Traced], batch: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, n in zip(term, operand.shape, strict=True):
            if letter == batch or not isinstance(n, int):
                continue
            known = found.get(letter, 1)
            if n not in (1, known) and known != 1:
                raise Unreadable(f"has {known} and {n} for the letter {letter}")
            found[letter] = max(n, known) if n else 0
    return found
