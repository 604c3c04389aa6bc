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

    computed: Sequence[Any] = jax.pure_callback(
        call, tuple(results), *tensors, vmap_method="sequential"
    )
    return computed


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


class _Vjp:
    """The functions of a custom vjp over calls of one kind. key: tells them from others, in every
    process. What XLA is handed knows of the calls by `alive` alone: it stays when they are gone."""

    def __init__(self, calls: GraphCalls) -> None:
        self.operation, self.count = calls.operation, calls.count
        self.key = f"{self.operation.stable_key} {calls.request}"
        self.alive = weakly(calls)

    def call(self, *tensors: Any) -> Any:
        """The results, where nobody differentiates."""
        alive = self.alive

        def plain(arrays: Sequence[np.ndarray], out: Sequence[np.ndarray] = ()) -> Any:
            return alive().forward(arrays, save=False, out=out)

        return tuple(_call_out(self.key, alive(), plain, self._results(tensors), tensors))

    def forward(self, *given: Any) -> Any:
        """Results, and what `backward` reads: the handle of what was saved, tensors, whose
        gradients are wanted. given: tensors, and of each whether it is differentiated."""
        key, alive = f"{self.key} saving", self.alive

        def saving(arrays: Sequence[np.ndarray], out: Sequence[np.ndarray] = ()) -> Any:
            return alive().forward(arrays, save=True, out=out)

        tensors = [t.value for t in given]
        shapes = [*self._results(tensors), jax.ShapeDtypeStruct((), np.int32)]
        *results, handle = _once(
            self.operation.cell.name,
            lambda *given: _call_out(key, alive(), saving, shapes, given),
            tensors,
        )
        floats = [jax.numpy.issubdtype(t.dtype, jax.numpy.floating) for t in tensors]
        flags = zip(given, floats, strict=True)
        wanted = _Wanted(tuple(bool(t.perturbed and f) for t, f in flags))
        return tuple(results), (handle, tensors, wanted)

    def backward(self, kept: Any, cotangents: Sequence[Any]) -> Any:
        """A gradient of each tensor, None of those that aren't wanted."""
        handle, tensors, wanted = kept
        flags = wanted.flags[: self.count]
        asked = [
            jax.ShapeDtypeStruct(t.shape, self.operation.dtype)
            for t, w in zip(tensors, flags, strict=False)
            if w
        ]
        grads: Iterator[Any] = iter(())
        alive = self.alive
        if asked:
            present = tuple(type(d) is not SymbolicZero for d in cotangents)
            handed = [d for d, p in zip(cotangents, present, strict=True) if p]
            back = self._back(len(tensors), present, flags)
            bits = ["".join("01"[b] for b in bits) for bits in (flags, present)]
            name = f"{self.key} back {bits[0]} {bits[1]}"
            gradients = _once(
                self.operation.cell.name,
                lambda *given: _call_out(name, alive(), back, asked, given),
                [handle, *tensors, *handed],
            )
            grads = iter(gradients)
        return tuple(next(grads) if w else None for w in wanted.flags)

    def _back(
        self, count: int, present: tuple[bool, ...], flags: tuple[bool, ...]
    ) -> Callable[..., Any]:
        """A backward over arrays: the handle, `count` tensors, those cotangents that are present ->
        gradients of those tensors that are flagged."""
        alive = self.alive

        def back(arrays: Sequence[np.ndarray], out: Sequence[np.ndarray] = ()) -> Any:
            handle, tensors, rest = arrays[0], arrays[1 : 1 + count], iter(arrays[1 + count :])
            cotangents = [next(rest) if p else None for p in present]
            return alive().backward(int(handle), tensors, cotangents, flags, out)

        return back

    def _results(self, tensors: Sequence[Any]) -> list[Any]:
        """Shapes of a call's results."""
        operation = self.operation
        known = operation.known([t.shape for t in tensors[: len(operation.cell.arguments)]])
        return [jax.ShapeDtypeStruct(shape, operation.dtype) for shape in known.results]


def _function(calls: GraphCalls) -> Callable[..., Any]:
    """Tensors -> results, which JAX can differentiate once."""
    vjp = _Vjp(calls)
    function = jax.custom_vjp(vjp.call)
    function.defvjp(vjp.forward, vjp.backward, symbolic_zeros=True)
    return function  # type: ignore[no-any-return]
