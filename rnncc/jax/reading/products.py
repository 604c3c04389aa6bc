"""Primitives that sum: products of matrices, sums and others along axes.

Non-Goals: what goes element by element (`pointwise`).
"""

from __future__ import annotations

import numpy as np

from rnncc.jax.reading.primitive_call import PrimitiveCall, kind_of, word
from rnncc.reading.graph import Unreadable
from rnncc.reading.traced import Traced

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@word("dot_general")
def _dot(s: PrimitiveCall, a: Traced, b: Traced) -> Traced:
    wanted = s.params.get("preferred_element_type")
    if wanted is not None and np.dtype(wanted) != s.read[0].dtype:
        raise Unreadable(f"sums {s.read[0].dtype} in {np.dtype(wanted)}")
    kind_of(s.arrays[0].dtype)
    (of_a, of_b), (rows_a, rows_b) = s.params["dimension_numbers"]
    free = iter(_LETTERS)
    left, right = [""] * a.rank, [""] * b.rank
    for i, j in (*zip(rows_a, rows_b, strict=True), *zip(of_a, of_b, strict=True)):
        left[i] = right[j] = next(free)
    for terms in (left, right):
        terms[:] = [x or next(free) for x in terms]
    out = [left[i] for i in rows_a]
    out += [x for i, x in enumerate(left) if i not in (*rows_a, *of_a)]
    out += [x for i, x in enumerate(right) if i not in (*rows_b, *of_b)]
    text = f"{''.join(left)},{''.join(right)}->{''.join(out)}"
    return s.recorder.einsum(text, a, b)


_REDUCTIONS = {
    "reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "prod",
    "reduce_and": "all", "reduce_or": "any",
}  # fmt: skip


@word(*_REDUCTIONS)
def _reduce(s: PrimitiveCall, x: Traced) -> Traced:
    return s.recorder.reduce(_REDUCTIONS[s.equation.name], x, s.params["axes"])


@word("cumsum")
def _cumulate(s: PrimitiveCall, x: Traced) -> Traced:
    r, axis = s.recorder, s.params["axis"]
    if not s.params["reverse"]:
        return r.along("cumsum", x, axis)
    return r.along("flip", r.along("cumsum", r.along("flip", x, axis), axis), axis)
