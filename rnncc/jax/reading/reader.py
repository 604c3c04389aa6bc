"""The equations of a step, recorded.

Non-Goals: tracing (`steps`); text (`rnncc.reading.text`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnncc.jax.reading.batch import Shapes
from rnncc.jax.reading.flat import Flat, FlatArray, FlatEquation, Read, RefusedAt
from rnncc.jax.reading.pointwise import ELEMENTWISE, folded
from rnncc.jax.reading.primitive_call import PrimitiveCall
from rnncc.jax.reading.words import word_of
from rnncc.reading.graph import Unreadable
from rnncc.reading.recorder import Recorder
from rnncc.reading.traced import BATCH, Merged, Traced

# What has no slope of its own, or one that jumps: rules for its derivative are there to be taken.
_FLAT = frozenset(
    "eq ne lt le gt ge sign floor ceil round select_n max min clamp abs".split()  # noqa: SIM905
)


class JaxprReader:
    """Of one step. shapes: where its batch is."""

    def __init__(self, recorder: Recorder, shapes: Shapes) -> None:
        self.recorder, self.shapes = recorder, shapes

    def run(self, flat: Flat, given: Sequence[Traced]) -> list[Traced]:
        """What it makes of those. RefusedAt for what can't be read."""
        env = dict(zip(flat.inputs, given, strict=True))
        known: dict[int, np.ndarray] = {}
        for e in flat.equations:
            try:
                with self.recorder.at(e.origin):
                    self._equation(flat, e, env, known)
            except Unreadable as why:
                raise RefusedAt(e.origin, str(why)) from None
        return [self._read(v, env) for v in flat.outputs]

    def _read(self, v: Read, env: dict[int, Traced]) -> Traced:
        if isinstance(v, np.ndarray):
            return self.recorder.constant(v)
        return env[v]

    def _equation(
        self, flat: Flat, e: FlatEquation, env: dict[int, Traced], known: dict[int, np.ndarray]
    ) -> None:
        numbers = [v if isinstance(v, np.ndarray) else known.get(v) for v in e.inputs]
        shapes = [self.shapes.of(flat)[v] for v in e.outputs]
        if all(n is not None for n in numbers) and not any(map(_has_batch, shapes)):
            found = folded(e.name, e.params, numbers)  # type: ignore[arg-type]
            if found is not None:
                known[e.outputs[0]] = found
                env[e.outputs[0]] = self.recorder.constant(found)
                return
        operands = [self._read(v, env) for v in e.inputs]
        if e.body is not None:
            results = self._own_rule(e, e.body, operands)
        else:
            read = [
                FlatArray(v.shape, v.dtype) if isinstance(v, np.ndarray) else flat.arrays[v]
                for v in e.inputs
            ]
            outputs = [flat.arrays[v] for v in e.outputs]
            stage = PrimitiveCall(self.recorder, e, shapes, outputs, read, numbers)
            result = word_of(e.name)(stage, *operands)
            results = result if isinstance(result, list) else [result]
        env.update(zip(e.outputs, results, strict=True))

    # ---- rules of one's own ----

    def _own_rule(self, e: FlatEquation, body: Flat, operands: list[Traced]) -> list[Traced]:
        """A value with the gradient that its rule says."""
        free = [o for o, v in zip(operands, e.inputs, strict=True) if not isinstance(v, np.ndarray)]
        known = _known(body, e)
        if known:
            return [self.recorder.pointwise(known, free[0])]
        why = _why_no_surrogate(body, e.back)
        if e.name == "custom_jvp_call":  # else its value's own slope is proven to be the rule's
            if why or not any(b.name in _FLAT for b in body.equations):
                return self.run(body, operands)
        if why:
            raise Unreadable(f"has a gradient of its own {why}")
        assert e.back is not None
        (value,) = self.run(body, operands)
        (slope,) = self.run(e.back, [free[0], Traced(1.0)])
        shape = free[0].shape
        value, slope = (self._whole(v, shape) for v in (value, slope))
        return [self.recorder.surrogate(free[0], value, slope)]

    def _whole(self, x: Traced, shape: Sequence[int | Merged]) -> Traced:
        x = self.recorder.convert(x, "float")
        return x if x.shape == tuple(shape) else self.recorder.broadcast(x, shape)


def _has_batch(shape: Sequence[int | Merged]) -> bool:
    return any(n == BATCH or isinstance(n, Merged) for n in shape)


def _known(body: Flat, e: FlatEquation) -> str:
    """A function of the language, by what it does."""
    names = tuple(b.name for b in body.equations)
    literals = [v for b in body.equations for v in b.inputs if isinstance(v, np.ndarray)]
    literals += [v for v in e.inputs if isinstance(v, np.ndarray)]
    zero = len(literals) == 1 and not literals[0].any()
    return _KNOWN.get(names, "") if zero else ""


_SPREAD = ("broadcast_in_dim", "convert_element_type", "copy")  # zeros stay zeros
_KNOWN = {
    ("max",): "relu",
    ("max", "sub", "ne", "add", "abs", "neg", "exp", "log1p", "add", "select_n"): "softplus",
}


def _why_no_surrogate(body: Flat, back: Flat | None) -> str:
    if back is None or not (_is_elementwise(body) and _is_elementwise(back)):
        return "and doesn't go element by element over one array of floats"
    return "" if _is_proportional(back) else "that isn't the cotangent times an expression"


def _is_elementwise(flat: Flat) -> bool:
    shapes = {flat.arrays[v].shape for v in flat.inputs} - {()}
    own = {flat.arrays[v].shape for e in flat.equations for v in e.outputs} - {()}
    names = {e.name for e in flat.equations} - {"broadcast_in_dim"}
    return len(shapes) <= 1 and own <= shapes and names <= ELEMENTWISE


def _is_proportional(back: Flat) -> bool:
    """Whether the last input, a cotangent, goes through products alone."""
    moved, zeros = {back.inputs[-1]}, set[int]()
    for e in back.equations:
        if e.name in _SPREAD and all(_is_zero(v, zeros) for v in e.inputs):
            zeros.update(e.outputs)
        at = [i for i, v in enumerate(e.inputs) if isinstance(v, int) and v in moved]
        if not at:
            continue
        fits = {
            "mul": len(at) == 1,
            "div": at == [0],
            "neg": True,
            "copy": True,
            "convert_element_type": back.arrays[e.outputs[0]].dtype.kind == "f",
            "select_n": 0 not in at and _others_are_zero(e, at, zeros),
        }
        if not fits.get(e.name, False):
            return False
        moved.update(e.outputs)
    return all(isinstance(v, int) and v in moved for v in back.outputs)


def _others_are_zero(e: FlatEquation, at: list[int], zeros: set[int]) -> bool:
    return all(_is_zero(v, zeros) for i, v in enumerate(e.inputs) if i and i not in at)


def _is_zero(v: Read, zeros: set[int]) -> bool:
    return not v.any() if isinstance(v, np.ndarray) else v in zeros
