"""What vmap makes of a call: one call of a larger batch, where weights are the same for all of it;
else one call after another.

    tensors [time, V, batch, ...]  ->  [time, V * batch, ...]

A gradient of weights for each of V (vmap of grad) and V sets of weights (an ensemble) are V calls:
kernels sum gradients of weights over their batch.

Non-Goals: what calls compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

from rnncc.jax.callee import Callee
from rnncc.jax.flags import Flags, chosen


@dataclass(frozen=True)
class _Kind:
    """Of an operand or a result: whether it has a row for each of the batch, and where."""

    by_row: bool
    timed: bool
    weight: bool = False


_HANDLE = _Kind(False, False)


def batched(
    primitive: Primitive,
    operands: Sequence[Any],
    axes: Sequence[Any],
    *,
    call: Callee,
    **flags: Any,
) -> Any:
    """The rule of each of these primitives."""
    name = primitive.name.removeprefix("rnncc_")
    read, written = [*_operands(name, call, flags)], [*_results(name, call, flags)]
    size = next(x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None)
    apart = any(k.weight and a is not None for k, a in zip(read, axes, strict=True))
    if not call.merges or apart or any(k.weight for k in written):
        return _one_by_one(primitive, name, operands, axes, read, call, flags)
    whole = [
        _merged(x, a, size, k) if k.by_row else x
        for x, a, k in zip(operands, axes, read, strict=True)
    ]
    if name in ("push", "pull"):
        tensors = zip(read[1 : 1 + call.operands], axes[1 : 1 + call.operands], strict=True)
        if all(a is None for k, a in tensors if k.by_row):
            whole[0] = jnp.zeros((), jnp.int32)  # what its forward saved is of a smaller batch
    results = primitive.bind(*whole, call=call, **flags)
    return (
        [_split(x, size, k) for x, k in zip(results, written, strict=True)],
        [int(k.timed) if k.by_row else None for k in written],
    )


def _one_by_one(
    primitive: Primitive,
    name: str,
    operands: Sequence[Any],
    axes: Sequence[Any],
    read: Sequence[_Kind],
    call: Callee,
    flags: Any,
) -> Any:
    whole = [*operands]
    if name in ("push", "pull") and axes[0] is None and call.merges:
        whole[0] = jnp.zeros((), jnp.int32)  # its forward saved all of them together
    mapped = tuple(a is not None for a in axes)
    turned = [jnp.moveaxis(x, a, 0) for x, a, m in zip(whole, axes, mapped, strict=True) if m]

    def one(given: Sequence[Any]) -> Any:
        rest = iter(given)
        own = [next(rest) if m else x for x, m in zip(whole, mapped, strict=True)]
        return primitive.bind(*own, call=call, **flags)

    results = jax.lax.map(one, turned)
    return results, [0] * len(results)


def _merged(x: Any, axis: Any, size: int, kind: _Kind) -> Any:
    at = int(kind.timed)
    if axis is None:
        x = jnp.broadcast_to(jnp.expand_dims(x, at), (*x.shape[:at], size, *x.shape[at:]))
    else:
        x = jnp.moveaxis(x, axis, at)
    return x.reshape(*x.shape[:at], size * x.shape[at + 1], *x.shape[at + 2 :])


def _split(x: Any, size: int, kind: _Kind) -> Any:
    if not kind.by_row:
        return x
    at = int(kind.timed)
    return x.reshape(*x.shape[:at], size, x.shape[at] // size, *x.shape[at + 1 :])


# ---- which is which ------------------------------------------------------------------------------


def _tensors(call: Callee) -> list[_Kind]:
    flags = zip(call.by_row, call.timed, strict=True)
    return [_Kind(by_row, timed, not by_row) for by_row, timed in flags]


def _all_results(call: Callee) -> list[_Kind]:
    return [_Kind(True, timed) for timed in call.timed_results]


def _operands(name: str, call: Callee, flags: dict[str, Flags]) -> Iterator[_Kind]:
    tensors, results = _tensors(call), _all_results(call)
    if name in ("push", "pull"):
        yield _HANDLE
    yield from tensors
    linear = {
        "run": [],
        "save": [],
        "push": [(tensors, "given")],
        "pull": [(results, "present")],
        "curve": [(results, "present"), (tensors, "given"), (results, "moved")],
        "seconds": [(results, "present"), (tensors, "given")],
        "bend": [(tensors, "given"), (tensors, "wanted")],
    }[name]
    for kinds, flag in linear:
        yield from chosen(kinds, flags[flag])


def _results(name: str, call: Callee, flags: dict[str, Flags]) -> Iterator[_Kind]:
    results = _all_results(call)
    if name in ("run", "save", "push", "bend"):
        yield from results
        if name == "save":
            yield _HANDLE
        return
    if name == "seconds":
        yield from chosen(results, flags["back"])
    yield from chosen(_tensors(call), flags["wanted"])
