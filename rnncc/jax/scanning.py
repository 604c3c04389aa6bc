"""jax.lax.scan, compiled: the step is read, and its loop is kernels, forward and backward.

    carry, ys = rnncc.jax.scan(f, init, xs)         in place of jax.lax.scan

What was read is kept by what the step's trace says, so a second call reads nothing; a call of
another batch is traced anew, and finds the same equations.

Non-Goals: reading (`reading`); what derivatives and vmap make of a call (`primitives`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnncc.jax import resets as resetting
from rnncc.jax.callee import Callee
from rnncc.jax.primitives import run_p
from rnncc.jax.reading.flat import Flat, RefusedAt, flatten, text_of
from rnncc.jax.reading.read import Fixed, StepEquations, kind_of_leaf, read
from rnncc.jax.reading.steps import Step, names_of
from rnncc.operations.calls import Request
from rnncc.operations.graph_calls import calls_of
from rnncc.operations.operation import Operation
from rnncc.runtime.api.time_axis import Order


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    *,
    batched: bool | None = None,
    resets: Any = None,
) -> tuple[Any, Any]:
    """As jax.lax.scan(f, init, xs, length, reverse, unroll), by compiled kernels.

    The carry is [batch, ...] and xs [time, batch, ...], or both have no batch, which jax.vmap may
    give them; counters of one number may be among them. Arrays that f closes over are weights,
    with gradients. batched: whether leaves have a batch, where their lengths don't tell.
    resets: bools, or 0 and 1, [time, batch] (or [time]): before which steps a row starts anew from
    init; one in reverse starts anew behind that boundary.

    TypeError where f can't be compiled, with the primitive and the line: what mixes rows of the
    batch, depends on the numbers it computes, or has no word in equations."""
    call = _Call.of(f, init, xs, length)
    if call is None:
        if resets is not None:
            return resetting.by_jax(f, init, xs, resets, (length, reverse, unroll))
        return jax.lax.scan(f, init, xs, length, reverse, unroll)  # type: ignore[no-any-return]
    return call.run(reverse, unroll, batched, resets)


@dataclass(slots=True)
class _Call:
    """A call's step, its trace, its arrays. carry, xs: leaves."""

    step: Step
    flat: Flat
    constants: list[Any]
    carry: list[Any]
    xs: list[Any]
    time: int
    y_tree: Any
    kinds: tuple[tuple[np.dtype[Any], bool], ...]  # of its results, and whether it is weak

    @classmethod
    def of(cls, f: Any, init: Any, xs: Any, length: int | None) -> _Call | None:
        """None where no step runs, or f isn't one: JAX's own scan has the words for that."""
        carry, carry_tree = jax.tree.flatten(init)
        leaves, x_tree = jax.tree.flatten(xs)
        if not all(map(_is_array, (*carry, *leaves))):
            return None
        carry, leaves = [*map(jnp.asarray, carry)], [*map(jnp.asarray, leaves)]
        lengths = {x.shape[0] if x.shape else -1 for x in leaves}
        lengths |= set() if length is None else {int(length)}
        if len(lengths) != 1 or min(lengths) < 1 or any(0 in a.shape for a in (*carry, *leaves)):
            return None
        for array in (*carry, *leaves):
            _check(array, np.dtype("V1") if _is_key(array) else np.dtype(array.dtype))
        (time,) = lengths
        step = Step(
            f,
            carry_tree,
            x_tree,
            tuple(jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=_weak(a)) for a in carry),
            tuple(jax.ShapeDtypeStruct(a.shape[1:], a.dtype, weak_type=_weak(a)) for a in leaves),
            names_of(init, "state", "state"),
            names_of(xs, "x", "x"),
            getattr(f, "__name__", type(f).__name__),
        )
        traces = step.trace(step.carry, step.xs)
        outs = traces.jaxpr.out_avals
        if traces.carry != carry_tree or not (carry or len(outs)):
            return None
        for at, (own, after) in enumerate(zip(carry, outs, strict=False)):
            if own.shape != after.shape or (own.dtype != after.dtype and not _weak(own)):
                return None
            if own.dtype != after.dtype:  # as jax.lax.scan: a number takes the step's dtype
                carry[at] = jax.lax.convert_element_type(own, after.dtype)
                return cls.of(f, jax.tree.unflatten(carry_tree, carry), xs, length)
        try:
            flat = flatten(traces.jaxpr)
        except RefusedAt as why:
            raise TypeError(f"{step.name} can't be compiled: {why}") from None
        constants = [*traces.jaxpr.consts]
        kinds = tuple((np.dtype(a.dtype), bool(a.weak_type)) for a in outs)
        return cls(step, flat, constants, carry, leaves, time, traces.ys, kinds)

    def run(
        self, reverse: bool, unroll: int | bool, batched: bool | None, resets: Any
    ) -> tuple[Any, Any]:
        """The carry and ys."""
        fixed = self._fixed()
        dtype = self._dtype()
        kernels = _kernels_of(self, fixed, dtype, batched, unroll)
        callee = kernels.callee(reverse, resets is not None)
        steps = [] if resets is None else [self._steps(kernels.reading, resets, reverse)]
        results = run_p.bind(*self._tensors(kernels, dtype, steps), call=callee)
        return self._given(kernels.reading, results)

    def _steps(self, reading: StepEquations, resets: Any, reverse: bool) -> Any:
        """Which steps count, and before which rows start anew."""
        resetting.refuse_shared(reading.carried, self.step.name)
        rows = self._rows(reading) if reading.has_batch else None
        return resetting.as_steps(resetting.checked(resets, self.time, rows), reverse)

    def _closed(self) -> list[Any]:
        """Dtypes of what is closed over, as the step reads it."""
        arrays = (self.flat.arrays[v] for v in self.flat.inputs)
        return [a.dtype for a, _ in zip(arrays, self.constants, strict=False)]

    def _fixed(self) -> Fixed:
        """Whole numbers and conditions that are known now."""
        return {
            i: np.asarray(c)
            for i, (c, dtype) in enumerate(zip(self.constants, self._closed(), strict=True))
            if dtype.kind in "biu" and not isinstance(c, jax.core.Tracer)
        }

    def _dtype(self) -> np.dtype[Any]:
        """Of its floats."""
        dtypes = [*(np.dtype(a.dtype) for a in (*self.carry, *self.xs)), *self._closed()]
        for c, dtype in zip(self.constants, self._closed(), strict=True):
            _check(c, dtype)
        found = {d for d in dtypes if d.kind == "f"}
        if len(found) > 1:
            raise TypeError(
                f"{self.step.name} computes in {' and '.join(sorted(d.name for d in found))}: "
                "arrays of a scan are of one kind of floats"
            )
        return found.pop() if found else np.dtype(np.float32)

    def _tensors(self, kernels: _Kernels, dtype: np.dtype[Any], steps: Sequence[Any]) -> list[Any]:
        """As the operation orders them. steps: behind the arguments."""
        reading, cell = kernels.reading, kernels.operation.cell
        places, has_batch = reading.places, reading.has_batch
        rows = self._rows(reading)

        def timed(at: int) -> Any:
            if at < 0:
                return jnp.zeros((self.time, rows), dtype)
            x = self.xs[at].astype(dtype)
            if reading.timed[at]:
                return x
            return jnp.broadcast_to(x[:, None], (x.shape[0], rows, *x.shape[1:]))

        def carried(at: int) -> Any:
            c = self.carry[at].astype(dtype)
            return c if reading.carried[at] else jnp.broadcast_to(c, (rows, *c.shape))

        def closed(name: str) -> Any:
            leaf = {**reading.text.weights, **reading.text.constants}[name]
            if leaf.array is not None:
                return jnp.asarray(leaf.array, dtype)
            return jnp.asarray(self.constants[places.weights[name]]).astype(dtype)

        assert has_batch or rows == 1
        arguments = [
            timed(places.xs[n])
            if n in places.xs
            else jnp.asarray(self.constants[places.contexts[n]]).astype(dtype)
            for n in cell.arguments
        ]
        states = [carried(places.states[n]) for n in kernels.operation.states]
        return [*arguments, *steps, *states, *map(closed, kernels.operation.owned)]

    def _rows(self, reading: StepEquations) -> int:
        for arrays, flags, axis in ((self.carry, reading.carried, 0), (self.xs, reading.timed, 1)):
            for a, has in zip(arrays, flags, strict=True):
                if has:
                    return int(a.shape[axis])
        return 1

    def _given(self, reading: StepEquations, results: Sequence[Any]) -> tuple[Any, Any]:
        """As the function itself gives them."""
        count = len(results) - len(self.carry)
        carry = []
        for at, (own, c) in enumerate(zip(results[count:], self.carry, strict=True)):
            own = own if reading.carried[at] else own[0]
            carry.append(_cast(own, c.dtype, self.kinds[at][1]))
        ys = []
        for at, (number, has) in enumerate(zip(reading.number, reading.shown, strict=True)):
            own = results[number] if has else results[number][:, 0]
            ys.append(_cast(own, *self.kinds[len(self.carry) + at]))
        return (
            jax.tree.unflatten(self.step.carry_tree, carry),
            jax.tree.unflatten(self.y_tree, ys),
        )


def _cast(x: Any, dtype: Any, weak: bool) -> Any:
    dtype = np.dtype(dtype)
    x = x if x.dtype == dtype else x != 0 if dtype.kind == "b" else x.astype(dtype)
    return _as_weak(x, dtype) if weak else x


def _as_weak(x: Any, dtype: np.dtype[Any]) -> Any:
    """Of a weak type, as results of numbers alone are; there is no public word for it."""
    try:
        from jax._src.lax.lax import _convert_element_type
    except ImportError:
        return x
    return _convert_element_type(x, dtype, weak_type=True)


def _weak(a: Any) -> bool:
    return bool(getattr(jax.typeof(a), "weak_type", False))


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, bool | int | float | np.ndarray | np.generic | jax.Array)


def _check(array: Any, dtype: np.dtype[Any]) -> None:
    kind_of_leaf(dtype)
    if _is_mapped_over_devices(array):
        raise NotImplementedError(
            "rnncc.jax.scan can't run within jax.shard_map or jax.pmap: call it on whole arrays"
        )


def _is_mapped_over_devices(array: Any) -> bool:
    mesh = getattr(jax.sharding, "get_abstract_mesh", lambda: None)()
    if getattr(mesh, "manual_axes", ()) or getattr(jax.typeof(array), "vma", ()):
        return True
    return type(array).__name__ == "ShardMapTracer"


def _is_key(array: Any) -> bool:
    return bool(jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key))


# ---- what was read -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Kernels:
    """A reading as an operation. It is kept for good: graphs of JAX's call it as long as they
    live."""

    reading: StepEquations
    operation: Operation

    def callee(self, reverse: bool, masked: bool) -> Callee:
        key = "scan", reverse, masked
        callee = self.operation.made.get(key)
        if callee is None:
            order = Order(time_major=True, backwards=reverse)
            calls = calls_of(self.operation, Request(given=True, masked=masked), order)
            callee = self.operation.made[key] = Callee(calls, merges=True)
        return callee  # type: ignore[no-any-return]


_by_call: dict[Any, _Kernels] = {}
_by_step: dict[Any, StepEquations] = {}
_operations: dict[Any, Operation] = {}
_lock = threading.RLock()


def _kernels_of(
    call: _Call, fixed: Fixed, dtype: np.dtype[Any], batched: bool | None, unroll: int | bool
) -> _Kernels:
    numbers = tuple((i, a.tobytes()) for i, a in sorted(fixed.items()))
    unroll = False if unroll in (False, 1) else unroll
    key = text_of(call.flat), numbers, dtype.name, batched, unroll, call.step.name
    with _lock:
        kernels = _by_call.get(key)
        if kernels is None:
            reading = read(call.step, call.flat, fixed, batched, dtype, _by_step)
            own = reading.text.text, tuple(reading.text.sizes.items()), dtype.name, unroll
            operation = _operations.get(own)
            if operation is None:
                keywords: dict[str, Any] = {**reading.text.sizes, "return_sequences": True}
                if unroll:
                    keywords["unroll"] = unroll
                layer = reading.layer(**keywords)
                operation = Operation(layer, reading.text.sizes)
                operation.engine(False, False)  # what can't be scheduled is said here, not by XLA
                _operations[own] = operation
            kernels = _by_call[key] = _Kernels(reading, operation)
        return kernels
