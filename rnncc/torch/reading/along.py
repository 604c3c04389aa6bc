"""Words for sums, norms and what else goes along axes.

Non-Goals: products of matrices (`products`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from rnncc.reading.graph import Unreadable
from rnncc.reading.traced import Traced
from rnncc.torch.reading.elementwise import root_of
from rnncc.torch.reading.words import Reads, in_dtype, value_of, whole, word


def _axes(x: Traced, dim: Any) -> list[int]:
    """All without any."""
    if dim is None or (isinstance(dim, tuple | list) and not dim):
        return [*range(x.rank)]
    return [x.positive(a) for a in (dim if isinstance(dim, tuple | list) else (dim,))]


def _count(x: Traced, axes: Sequence[int]) -> int:
    return math.prod(x.row[x.own_axis(a)] for a in axes)


def _reduction(name: str, own: str) -> None:
    def reduced(
        reads: Reads, x: Traced, dim: Any = None, keepdim: bool = False, dtype: Any = None
    ) -> Traced:
        return reads.r.reduce(own, in_dtype(reads, x, dtype), _axes(x, dim), keepdim)

    word(name)(reduced)


for _name, _own in (
    ("sum", "sum"),
    ("mean", "mean"),
    ("prod", "prod"),
    ("any", "any"),
    ("all", "all"),
    ("amax", "max"),
    ("amin", "min"),
    ("max", "max"),
    ("min", "min"),
):
    _reduction(_name, _own)


def _named(name: str) -> None:
    def reduced(reads: Reads, x: Traced, dim: int, keepdim: bool = False) -> list[Any]:
        """Of several that are the largest, the first has the gradient; amax shares it."""
        r = reads.r
        largest = r.pointwise("==", x, r.stop_gradient(r.reduce(name, x, [dim], True)))
        count = r.along("cumsum", r.convert(largest, "int"), dim)
        first = r.pointwise("and", largest, r.pointwise("==", count, Traced(1)))
        chosen = r.pointwise("where", first, x, Traced(0.0 if x.kind == "float" else 0))
        return [r.reduce("sum", chosen, [dim], keepdim), None]

    word(f"{name}.dim")(reduced)


_named("max")
_named("min")


@word("max.other")
def _larger(reads: Reads, a: Traced, b: Traced) -> Traced:
    return reads.r.pointwise("maximum", a, b)


@word("min.other")
def _smaller(reads: Reads, a: Traced, b: Traced) -> Traced:
    return reads.r.pointwise("minimum", a, b)


# ---- spread ----


def _variance(reads: Reads, x: Traced, axes: list[int], correction: float) -> Traced:
    """With the axes, of one number each."""
    r = reads.r
    apart = r.pointwise("-", x, r.reduce("mean", x, axes, True))
    squares = r.reduce("sum", r.pointwise("square", apart), axes, True)
    count = max(_count(x, axes) - correction, 0)
    return r.pointwise("/", squares, Traced(float(count)))


def _without(reads: Reads, x: Traced, axes: Sequence[int], keepdim: bool) -> Traced:
    if keepdim:
        return x
    return reads.r.reshape(x, [n for a, n in enumerate(x.shape) if a not in axes])


@word("var.correction")
def _var(
    reads: Reads, x: Traced, dim: Any = None, correction: Any = 1, keepdim: bool = False
) -> Traced:
    axes = _axes(x, dim)
    return _without(reads, _variance(reads, x, axes, _correction(correction)), axes, keepdim)


@word("std.correction")
def _std(
    reads: Reads, x: Traced, dim: Any = None, correction: Any = 1, keepdim: bool = False
) -> Traced:
    return root_of(reads, _var(reads, x, dim, correction, keepdim))


@word("var_mean.correction")
def _var_mean(
    reads: Reads, x: Traced, dim: Any = None, correction: Any = 1, keepdim: bool = False
) -> list[Traced]:
    mean = reads.r.reduce("mean", x, _axes(x, dim), keepdim)
    return [_var(reads, x, dim, correction, keepdim), mean]


def _correction(given: Any) -> float:
    return 1.0 if given is None else float(given)


@word("logsumexp")
def _logsumexp(reads: Reads, x: Traced, dim: Any, keepdim: bool = False) -> Traced:
    r, axes = reads.r, _axes(x, dim)
    largest = r.stop_gradient(r.reduce("max", x, axes, True))
    total = r.reduce("sum", r.pointwise("exp", r.pointwise("-", x, largest)), axes, True)
    return _without(reads, r.pointwise("+", r.pointwise("log", total), largest), axes, keepdim)


@word("linalg_vector_norm")
def _vector_norm(
    reads: Reads,
    x: Traced,
    order: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> Traced:
    r, axes = reads.r, _axes(x, dim)
    if dtype is not None:
        x = in_dtype(reads, x, dtype)
    if order == 1:
        return r.reduce("sum", r.pointwise("abs", x), axes, keepdim)
    if order in (math.inf, -math.inf):
        return r.reduce("max" if order > 0 else "min", r.pointwise("abs", x), axes, keepdim)
    if order != 2:
        raise Unreadable(f"is a norm of order {order}")
    squares = r.reduce("sum", r.pointwise("square", x), axes, keepdim)
    return root_of(reads, squares)


# ---- of the same shape ----


@word("_softmax")
def _softmax(reads: Reads, x: Traced, dim: int, half_to_float: bool) -> Traced:
    return reads.r.along("softmax", x, dim)


@word("_log_softmax")
def _log_softmax(reads: Reads, x: Traced, dim: int, half_to_float: bool) -> Traced:
    return reads.r.along("log_softmax", x, dim)


@word("cumsum")
def _cumsum(reads: Reads, x: Traced, dim: int, dtype: Any = None) -> Traced:
    return reads.r.along("cumsum", in_dtype(reads, x, dtype), dim)


@word("flip")
def _flip(reads: Reads, x: Traced, dims: Sequence[int]) -> Traced:
    for axis in dims:
        x = reads.r.along("flip", x, axis)
    return x


@word("roll")
def _roll(reads: Reads, x: Traced, shifts: Any, dims: Any = ()) -> Traced:
    if len(shifts) != len(dims):
        raise Unreadable("rolls all axes as one: say which, dims=")
    for shift, axis in zip(shifts, dims, strict=True):
        x = reads.r.along("roll", x, axis, shift=whole(shift, "its shift"))
    return x


# ---- norms ----


def _normed(reads: Reads, op: str, x: Traced, count: int, eps: float) -> Traced:
    """Along the last so many axes."""
    r, shape = reads.r, x.shape
    if count > 1:
        if any(x.at is not None and a == x.at for a in range(x.rank - count, x.rank)):
            raise Unreadable("goes along the axis of the batch: rows of a batch stay apart")
        width = _count(x, range(x.rank - count, x.rank))
        x = r.reshape(x, (*shape[: len(shape) - count], width))
    return r.reshape(r.along(op, x, -1, eps=float(eps)), shape)


def _scaled(reads: Reads, y: Traced, weight: Any, bias: Any) -> Traced:
    if weight is not None:
        y = reads.r.pointwise("*", y, value_of(weight))
    return y if bias is None else reads.r.pointwise("+", y, value_of(bias))


@word("native_layer_norm")
def _layer_norm(
    reads: Reads, x: Traced, shape: Sequence[Any], weight: Any, bias: Any, eps: float
) -> list[Any]:
    y = _normed(reads, "layer_norm", x, len(shape), eps)
    return [_scaled(reads, y, weight, bias), None, None]


@word("_fused_rms_norm")
def _rms_norm(
    reads: Reads, x: Traced, shape: Sequence[Any], weight: Any, eps: float | None
) -> list[Any]:
    eps = torch.finfo(reads.dtype).eps if eps is None else eps
    return [_scaled(reads, _normed(reads, "rms_norm", x, len(shape), eps), weight, None), None]


@word("native_group_norm")
def _group_norm(
    reads: Reads,
    x: Traced,
    weight: Any,
    bias: Any,
    batch: Any,
    channels: Any,
    places: Any,
    groups: int,
    eps: float,
) -> list[Any]:
    r, shape = reads.r, x.shape
    if x.at != 0:
        raise Unreadable("goes along the axis of the batch: rows of a batch stay apart")
    width = whole(channels, "channels") * whole(places, "places") // groups
    y = r.along("layer_norm", r.reshape(x, (shape[0], groups, width)), -1, eps=float(eps))
    own = (whole(channels, "channels"), *[1] * (len(shape) - 2))
    affine = [None if v is None else r.reshape(v, own) for v in (weight, bias)]
    return [_scaled(reads, r.reshape(y, shape), *affine), None, None]
