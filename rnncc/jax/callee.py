"""What XLA calls: a kind of call as functions of NumPy arrays, and the shapes of what they give.

How XLA gets at them is `call_out` alone: by its typed FFI (`ffi`), or where that is of a version
that isn't known here by jax.pure_callback, and HOW says so.

Non-Goals: derivatives of JAX's (`primitives`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rnncc.artifact.cell import VALID
from rnncc.jax import ffi
from rnncc.jax.flags import Flags, chosen, cut, spread
from rnncc.operations.graph_calls import GraphCalls, weakly

HOW = (
    f"JAX: primitives over jax.pure_callback ({ffi.UNAVAILABLE})"
    if ffi.UNAVAILABLE
    else "JAX: primitives over XLA's typed FFI"
)
Arrays = Sequence[np.ndarray]
Kernel = Callable[[Arrays, Arrays], Sequence[np.ndarray]]  # (arrays, places of results) -> results


class Callee:
    """Of one kind of call. key: tells it from others, in every process. JAX's graphs hold this, and
    it knows of the calls by `alive` alone: graphs stay when layers are gone.

    operands: how many a forward has. by_row: which of them have a row for each of the batch; others
    are weights. timed: where another axis comes before it, of time, or a mask's two. merges:
    whether vmap's axis may become part of the batch."""

    def __init__(self, calls: GraphCalls, merges: bool = False) -> None:
        operation, request = calls.operation, calls.request
        self.name, self.merges = operation.cell.name, merges
        self.key = f"{operation.stable_key} {request} {calls.order}"
        self.alive = weakly(calls)
        self.operands = calls.count + calls.seeded
        self.dtype = operation.dtype
        by_row = {*operation.cell.arguments, *(operation.states if request.given else ()), VALID}
        self.by_row: Flags = tuple(n in by_row for n in calls.names) + (False,) * calls.seeded
        first = calls.order.time_major
        timed = ((first and t) or n == VALID for n, t in zip(calls.names, calls.timed, strict=True))
        self.timed: Flags = (*timed, *(False,) * calls.seeded)
        self.timed_results: Flags = tuple(first and t for t in calls.timed_results)

    def results(self, tensors: Sequence[Any]) -> list[Any]:
        """Shapes of a forward's."""
        shapes = self.alive().result_shapes([t.shape for t in tensors])
        return [jax.ShapeDtypeStruct(s, self.dtype) for s in shapes]

    def shapes(self, what: str, operands: Sequence[Any], **flags: Flags) -> list[Any]:
        """Of what `what` gives."""
        begins = 1 if what in ("push", "pull") else 0
        tensors = operands[begins : begins + self.operands]
        results = self.results(tensors)
        if what in ("run", "push", "bend"):
            return results
        if what == "save":
            return [*results, jax.ShapeDtypeStruct((), np.int32)]
        back = chosen(results, flags["back"]) if what == "seconds" else []
        asked = [jax.ShapeDtypeStruct(t.shape, self.dtype) for t in tensors]
        return [*back, *chosen(asked, flags["wanted"])]

    def call_out(self, what: str, operands: Sequence[Any], **flags: Flags) -> Sequence[Any]:
        """`what` in a graph."""
        kernel = KERNELS[what](self, **flags)
        results = self.shapes(what, operands, **flags)
        bits = (f"{n}={''.join('01'[b] for b in f)}" for n, f in sorted(flags.items()))
        key = " ".join((self.key, what, *bits))
        if not ffi.UNAVAILABLE:

            def fill(arrays: list[np.ndarray], places: list[np.ndarray]) -> None:
                kernel(arrays, places)

            return ffi.call_out(key, self.alive(), fill, results, operands)

        def call(*arrays: Any) -> tuple[np.ndarray, ...]:
            found = kernel([np.asarray(a) for a in arrays], ())
            return tuple(map(np.ascontiguousarray, found))

        computed: Sequence[Any] = jax.pure_callback(
            call, tuple(results), *operands, vmap_method="sequential"
        )
        return computed


# ---- kernels -------------------------------------------------------------------------------------


def _placed(found: Sequence[np.ndarray], places: Arrays) -> Sequence[np.ndarray]:
    for place, array in zip(places, found, strict=bool(places)):
        place[...] = array
    return found


def _forward(callee: Callee, save: bool) -> Kernel:
    alive = callee.alive
    return lambda arrays, places: alive().forward(arrays, save=save, out=places)


def _run(callee: Callee) -> Kernel:
    return _forward(callee, False)


def _save(callee: Callee) -> Kernel:
    return _forward(callee, True)


def _pull(callee: Callee, *, wanted: Flags, present: Flags) -> Kernel:
    count, alive = callee.operands, callee.alive

    def pull(arrays: Arrays, places: Arrays) -> Sequence[np.ndarray]:
        (handle,), tensors, rest = cut(arrays, 1, count)
        calls = alive()
        cotangents = spread(rest, present)
        asked = wanted[: calls.count]
        return calls.backward(int(handle), tensors, cotangents, asked, places)

    return pull


def _push(callee: Callee, *, given: Flags) -> Kernel:
    """The transpose of a pull: what a second derivative has for cotangents, whatever those are."""
    count, alive = callee.operands, callee.alive

    def push(arrays: Arrays, places: Arrays) -> Sequence[np.ndarray]:
        (handle,), tensors, tangents = cut(arrays, 1, count)
        calls = alive()
        none = [None] * len(calls.operation.results)
        d_grads = spread(tangents, given)[: calls.count]
        back, _ = calls.second(int(handle), tensors, none, d_grads, [False] * calls.count)
        return _placed(back, places)

    return push


def _seconds(callee: Callee, *, present: Flags, given: Flags, back: Flags, wanted: Flags) -> Kernel:
    count, alive = callee.operands, callee.alive

    def seconds(arrays: Arrays, places: Arrays) -> Sequence[np.ndarray]:
        tensors, cotangents, tangents = cut(arrays, count, sum(present))
        calls = alive()
        handed, moved = spread(cotangents, present), spread(tangents, given)[: calls.count]
        asked = wanted[: calls.count]
        found, grads = calls.second(0, tensors, handed, moved, asked)
        return _placed([*chosen(found, back), *chosen(grads, asked)], places)

    return seconds


def _curve(callee: Callee, *, wanted: Flags, present: Flags, given: Flags, moved: Flags) -> Kernel:
    """A pull's tangents: of the cotangents by a pull, of the tensors by a second derivative, which
    is its own transpose there."""
    count, alive = callee.operands, callee.alive

    def curve(arrays: Arrays, places: Arrays) -> Sequence[np.ndarray]:
        tensors, cotangents, d_tensors, d_cotangents = cut(arrays, count, sum(present), sum(given))
        calls = alive()
        asked = wanted[: calls.count]
        found: list[np.ndarray] = []
        if any(given):
            tangents = spread(d_tensors, given)[: calls.count]
            _, grads = calls.second(0, tensors, spread(cotangents, present), tangents, asked)
            found = chosen(grads, asked)
        if any(moved):
            more = calls.backward(0, tensors, spread(d_cotangents, moved), asked)
            found = [a + b for a, b in zip(found, more, strict=True)] if found else more
        return _placed(found, places)

    return curve


def _bend(callee: Callee, **_: Flags) -> Kernel:
    raise NotImplementedError(
        f"forward mode of forward mode is not available for {callee.name}: take jax.grad of one of "
        "them"
    )


KERNELS: dict[str, Callable[..., Kernel]] = {
    "run": _run,
    "save": _save,
    "push": _push,
    "pull": _pull,
    "curve": _curve,
    "seconds": _seconds,
    "bend": _bend,
}
