"""An operation in JAX: a custom vjp, its two functions called by XLA (`jax_ffi`).

Works eagerly, under jit, grad, checkpoint, scan, and under vmap one call at a time. Reverse mode;
JAX has no forward mode of custom vjps.

How XLA gets at the kernels is `_call_out` alone: (function, shapes of results, arrays) -> results.
Where the typed FFI is of a version that isn't known here it is jax.pure_callback, and HOW says so.

Non-Goals: devices other than the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.custom_derivatives import SymbolicZero

from rnncc.keras import jax_ffi
from rnncc.keras.calls import Request
from rnncc.keras.graph_calls import GraphCalls, calls_of, weakly
from rnncc.keras.operation import Operation

HOW = (
    f"JAX: a custom vjp over jax.pure_callback ({jax_ffi.UNAVAILABLE})"
    if jax_ffi.UNAVAILABLE
    else "JAX: a custom vjp over XLA's typed FFI"
)


def prepare(operation: Operation) -> None:
    """Nothing to prepare."""


def run(operation: Operation, request: Request, tensors: Sequence[Any], seed: Any) -> Sequence[Any]:
    """The results of a call."""
    key = "jax", request
    function = operation.made.get(key)
    if function is None:
        function = operation.made[key] = _function(calls_of(operation, request))
    return function(*tensors, *([] if seed is None else [seed]))  # type: ignore[no-any-return]


def _call_out(
    key: str,
    owner: GraphCalls,
    function: Callable[..., Sequence[np.ndarray]],
    results: Sequence[jax.ShapeDtypeStruct],
    tensors: Sequence[Any],
) -> Sequence[Any]:
    """A function of NumPy arrays in a graph: (arrays, out=places of results) -> results. key: tells
    it from others, in every process."""
    if not jax_ffi.UNAVAILABLE:

        def fill(arrays: list[np.ndarray], places: list[np.ndarray]) -> None:
            function(arrays, out=places)

        return jax_ffi.call_out(key, owner, fill, results, tensors)

    def call(*arrays: Any) -> tuple[np.ndarray, ...]:
        return tuple(map(np.asarray, function([np.asarray(a) for a in arrays])))

    found: Sequence[Any] = jax.pure_callback(
        call, tuple(results), *tensors, vmap_method="sequential"
    )
    return found


def _once(name: str, call: Callable[..., Sequence[Any]], given: Sequence[Any]) -> Sequence[Any]:
    """call(*given), which says why it has no derivative."""

    @jax.custom_jvp
    def once(*given: Any) -> Any:
        return tuple(call(*given))

    @once.defjvp
    def refuse(primals: Any, tangents: Any) -> Any:
        raise NotImplementedError(
            f"second derivatives of {name} are not available on JAX: run Keras on torch, whose "
            "backend has them"
        )

    return once(*given)  # type: ignore[no-any-return]


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Wanted:
    """Which tensors' gradients are asked for: no array, but part of what a forward hands on."""

    flags: tuple[bool, ...]


def _function(calls: GraphCalls) -> Callable[..., Any]:
    operation = calls.operation
    key = f"{operation.stable_key} {calls.request}"
    alive = weakly(calls)

    def plain(arrays: Sequence[np.ndarray], out: Sequence[np.ndarray] = ()) -> list[np.ndarray]:
        return alive().forward(arrays, save=False, out=out)

    def saving(arrays: Sequence[np.ndarray], out: Sequence[np.ndarray] = ()) -> list[np.ndarray]:
        return alive().forward(arrays, save=True, out=out)

    def shapes(tensors: Sequence[Any], *more: jax.ShapeDtypeStruct) -> list[Any]:
        known = operation.known([t.shape for t in tensors[: len(operation.cell.arguments)]])
        found = [jax.ShapeDtypeStruct(shape, operation.dtype) for shape in known.results]
        return [*found, *more]

    @jax.custom_vjp
    def call(*tensors: Any) -> Any:
        return tuple(_call_out(key, alive(), plain, shapes(tensors), tensors))

    def forward(*given: Any) -> Any:
        tensors = [t.value for t in given]
        handle = jax.ShapeDtypeStruct((), np.int32)
        results = shapes(tensors, handle)
        *found, number = _once(
            operation.cell.name,
            lambda *given: _call_out(f"{key} saving", alive(), saving, results, given),
            tensors,
        )
        floats = [jax.numpy.issubdtype(t.dtype, jax.numpy.floating) for t in tensors]
        flags = zip(given, floats, strict=True)
        wanted = _Wanted(tuple(bool(t.perturbed and f) for t, f in flags))
        return tuple(found), (number, tensors, wanted)

    def backward(kept: Any, cotangents: Sequence[Any]) -> Any:
        number, tensors, wanted = kept
        flags, count = wanted.flags[: calls.count], len(tensors)
        handed = [d for d in cotangents if type(d) is not SymbolicZero]
        present = [type(d) is not SymbolicZero for d in cotangents]

        def back(arrays: Sequence[np.ndarray], out: Sequence[np.ndarray] = ()) -> list[np.ndarray]:
            handle, own, rest = arrays[0], arrays[1 : 1 + count], iter(arrays[1 + count :])
            cts = [next(rest) if p else None for p in present]
            return alive().backward(int(handle), own, cts, flags, out)

        asked = [
            jax.ShapeDtypeStruct(t.shape, operation.dtype)
            for t, w in zip(tensors, flags, strict=False)
            if w
        ]
        name = f"{key} back {''.join('01'[w] for w in flags)} {''.join('01'[p] for p in present)}"
        given = [number, *tensors, *handed]
        grads: Iterator[Any] = iter(())
        if asked:
            found = _once(
                operation.cell.name,
                lambda *given: _call_out(name, alive(), back, asked, given),
                given,
            )
            grads = iter(found)
        return tuple(next(grads) if w else None for w in wanted.flags)

    call.defvjp(forward, backward, symbolic_zeros=True)
    return call  # type: ignore[no-any-return]
