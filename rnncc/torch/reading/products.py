"""Words for products of matrices.

Non-Goals: sums of anything else (`along`).
"""

from __future__ import annotations

from typing import Any

from rnncc.reading.graph import Unreadable
from rnncc.reading.traced import Traced
from rnncc.torch.reading.elementwise import add
from rnncc.torch.reading.words import Reads, value_of, word


@word("mm")
def _mm(reads: Reads, a: Traced, b: Traced) -> Traced:
    return reads.r.einsum("ik,kj->ij", a, b)


@word("bmm")
def _bmm(reads: Reads, a: Traced, b: Traced) -> Traced:
    r = reads.r
    if a.shape[0] == b.shape[0] == 1:  # torch.einsum makes all products of these
        product = _mm(reads, r.reshape(a, a.shape[1:]), r.reshape(b, b.shape[1:]))
        return r.expand(product, 0)
    return r.einsum("nik,nkj->nij", a, b)


@word("mv")
def _mv(reads: Reads, a: Traced, v: Traced) -> Traced:
    return reads.r.einsum("ik,k->i", a, v)


@word("dot", "vdot")
def _dot(reads: Reads, a: Traced, b: Traced) -> Traced:
    return reads.r.einsum("k,k->", a, b)


@word("matmul")
def _matmul(reads: Reads, a: Traced, b: Traced) -> Traced:
    return reads.r.matmul(a, b)


@word("linear")
def _linear(reads: Reads, x: Traced, weight: Traced, bias: Any = None) -> Traced:
    y = reads.r.matmul(x, reads.r.transpose(weight, (1, 0)))
    return y if bias is None else reads.r.pointwise("+", y, bias)


def _summed(reads: Reads, start: Traced, product: Traced, beta: Any = 1, alpha: Any = 1) -> Traced:
    if alpha != 1:
        product = reads.r.pointwise("*", product, value_of(alpha))
    return add(reads, product, start, beta)


@word("addmm")
def _addmm(reads: Reads, start: Traced, a: Traced, b: Traced, **scales: Any) -> Traced:
    return _summed(reads, start, _mm(reads, a, b), **scales)


@word("baddbmm")
def _baddbmm(reads: Reads, start: Traced, a: Traced, b: Traced, **scales: Any) -> Traced:
    return _summed(reads, start, _bmm(reads, a, b), **scales)


@word("addmv")
def _addmv(reads: Reads, start: Traced, a: Traced, v: Traced, **scales: Any) -> Traced:
    return _summed(reads, start, _mv(reads, a, v), **scales)


@word("_scaled_dot_product_flash_attention_for_cpu")
def _attention(
    reads: Reads,
    query: Traced,
    key: Traced,
    value: Traced,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Any = None,
    scale: float | None = None,
) -> list[Any]:
    """Of [..., places, width]. The second output is for the way back alone."""
    r = reads.r
    if dropout_p or is_causal:
        raise Unreadable("drops or is causal: write the scores out, or give attn_mask")
    width = query.row[query.own_axis(-1)]
    order = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
    scores = r.matmul(query, r.transpose(key, order))
    scores = r.pointwise("*", scores, value_of(width**-0.5 if scale is None else scale))
    if attn_mask is not None:
        scores = r.pointwise("+", scores, attn_mask)
    return [r.matmul(r.along("softmax", scores, -1), value), None]
