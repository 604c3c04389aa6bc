"""Whether a graph computes each step of a sequence by itself, so that a stream may run it.

Every value has a nature: the axis on which it has time, or FIXED (the same at every call), LAST
(it speaks of all steps so far, as last states do) or SIZES (it was made of shapes, and may say
nothing but shapes). An operator that isn't known here mixes steps, for all that is known.

Non-Goals: running operators (`operators`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.models.onnx.partition import is_recurrent, read_by

FIXED, LAST, SIZES = "fixed", "last", "sizes"
Nature = int | str
MOST_TRIES = 64

ELEMENTWISE = frozenset(
    {
        *("Abs", "Acos", "Asin", "Atan", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Dropout"),
        *("Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsNaN"),
        *("LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sign"),
        *("Sigmoid", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh"),
        *("ThresholdedRelu", "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mean", "Sum"),
        *("PRelu", "Where", "And", "Or", "Xor", "Equal", "Greater", "Less", "GreaterOrEqual"),
        *("LessOrEqual", "Mod"),
    }
)
OF_SIZES = frozenset({"Cast", "Concat", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze"})


class Mixed(Exception):
    """An operator in which a step may depend on others."""


class StepTracker:
    """Follows time through the nodes of a graph, from inputs to recurrent nodes and on.

    inputs: of the model. fixed: values that hold the same at every call. constant: what one of
    them holds, or None; shape: as far as it follows (0: unknown size), or None.
    """

    def __init__(
        self,
        nodes: Sequence[Any],
        inputs: Sequence[str],
        fixed: set[str],
        constant: Callable[[str], np.ndarray | None],
        shape: Callable[[str], Sequence[int] | None],
        attributes: Callable[[Any], Mapping[str, Any]],
        version: int,
    ) -> None:
        self.nodes, self.fixed, self.constant, self.shape = nodes, fixed, constant, shape
        self.attributes, self.version = attributes, version
        tries = (dict(zip(inputs, t, strict=True)) for t in self._tries(inputs))
        self.is_stepwise = any(map(self._holds, tries))

    def _tries(self, inputs: Sequence[str]) -> list[tuple[Nature, ...]]:
        """On which axes the inputs may have time."""
        ranks = [len(self.shape(n) or ()) for n in inputs]
        return list(itertools.islice(itertools.product(*map(range, ranks)), MOST_TRIES))

    def _holds(self, given: dict[str, Nature]) -> bool:
        natures: dict[str, Nature] = dict.fromkeys(self.fixed, FIXED)
        natures.update(given)
        try:
            for node in self.nodes:
                for name, nature in zip(node.output, self._natures(node, natures), strict=False):
                    natures.setdefault(name, nature)
        except (Mixed, ArithmeticError, AssertionError, LookupError, TypeError, ValueError):
            return False  # the rest: attributes that fit no shape, of which a call will tell
        return True

    def _natures(self, node: Any, natures: Mapping[str, Nature]) -> Sequence[Nature]:
        read = [natures[n] for n in read_by(node)]
        if is_recurrent(node):
            return self._recurrent(node, natures)
        if node.op_type in ("Shape", "Size"):
            return (SIZES,)
        if not any(isinstance(n, int) for n in read):
            return self._without_time(node, read)
        # Branches and loops read more than their inputs.
        rule = None if len(read) > len(set(filter(None, node.input))) else RULES.get(node.op_type)
        if rule is None:
            raise Mixed
        first = natures[node.input[0]]
        if not isinstance(first, int) and node.op_type not in (*ELEMENTWISE, "Concat"):
            raise Mixed
        return (rule(self, node, natures, first),) * len(node.output)

    def _without_time(self, node: Any, read: Sequence[Nature]) -> Sequence[Nature]:
        if SIZES in read:
            if node.op_type in ("Expand", "ConstantOfShape", "Reshape") and LAST not in read:
                return (FIXED,)
            if node.op_type not in OF_SIZES or LAST in read:
                raise Mixed
            return (SIZES,) * len(node.output)
        return (LAST if LAST in read else FIXED,) * len(node.output)

    def _recurrent(self, node: Any, natures: Mapping[str, Nature]) -> Sequence[Nature]:
        axis = 1 if self.attributes(node).get("layout", 0) else 0
        if natures[node.input[0]] != axis or LAST in [natures[n] for n in node.input[1:] if n]:
            raise Mixed
        if any(isinstance(natures[n], int) for n in node.input[1:] if n):
            raise Mixed
        return axis, LAST, LAST

    # ---- what rules ask ----

    def rank(self, name: str) -> int:
        shape = self.shape(name)
        if shape is None:
            raise Mixed
        return len(shape)

    def numbers(self, node: Any, attribute: str, place: int) -> list[int]:
        """Of an attribute, or where later versions have it: of a constant input."""
        given = self.attributes(node).get(attribute)
        if given is None and len(node.input) > place and node.input[place]:
            given = self.constant(node.input[place])
        if given is None:
            raise Mixed
        return [int(v) for v in np.ravel(given)]


def _elementwise(
    tracker: StepTracker, node: Any, natures: Mapping[str, Nature], first: Nature
) -> int:
    """Axes are counted from behind, as broadcasting does."""
    found, out = set(), tracker.rank(node.output[0])
    for name in filter(None, node.input):
        nature = natures[name]
        if isinstance(nature, int):
            found.add(tracker.rank(name) - nature)
        elif nature != FIXED:
            raise Mixed
    if len(found) != 1:
        raise Mixed
    (behind,) = found
    for name in filter(None, node.input):
        shape = tracker.shape(name)
        if natures[name] == FIXED and (
            shape is None or (len(shape) >= behind and shape[-behind] != 1)
        ):
            raise Mixed
    return out - behind


def _matmul(tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature) -> Nature:
    x, w = node.input
    if natures[w] != FIXED or tracker.rank(w) != 2 or time == tracker.rank(x) - 1:
        raise Mixed
    return time


def _gemm(tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature) -> Nature:
    others = [n for n in node.input[1:] if n]
    if any(natures[n] != FIXED for n in others):
        raise Mixed
    if time != 0 or tracker.attributes(node).get("transA", 0):
        raise Mixed
    for name in others[1:]:
        shape = tracker.shape(name)
        if shape is None or (len(shape) == 2 and shape[0] != 1):
            raise Mixed
    return time


def _transpose(
    tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature
) -> Nature:
    backwards = range(tracker.rank(node.input[0]))[::-1]
    return list(tracker.attributes(node).get("perm") or backwards).index(time)


def _squeeze(
    tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature
) -> Nature:
    rank = tracker.rank(node.input[0])
    axes = {a % rank for a in tracker.numbers(node, "axes", 1)}
    if time in axes:
        raise Mixed
    assert isinstance(time, int)
    return time - sum(a < time for a in axes)


def _unsqueeze(
    tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature
) -> Nature:
    given = tracker.numbers(node, "axes", 1)
    rank = tracker.rank(node.input[0]) + len(given)
    axes = {a % rank for a in given}
    assert isinstance(time, int)
    return [a for a in range(rank) if a not in axes][time]


def _softmax(
    tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature
) -> Nature:
    rank = tracker.rank(node.input[0])
    axis = tracker.attributes(node).get("axis", -1 if tracker.version >= 13 else 1) % rank
    # Before version 13 all axes from this one on were one.
    if axis == time or (tracker.version < 13 and axis != rank - 1):
        raise Mixed
    return time


def _layer_norm(
    tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature
) -> Nature:
    rank = tracker.rank(node.input[0])
    assert isinstance(time, int)
    if time >= tracker.attributes(node).get("axis", -1) % rank or len(node.output) > 1:
        raise Mixed
    return time


def _batch_norm(
    tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature
) -> Nature:
    if time == 1 or len(node.output) > 1 or tracker.attributes(node).get("training_mode", 0):
        raise Mixed
    return time


def _reshape(
    tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature
) -> Nature:
    """That keeps all axes up to time as they are."""
    if tracker.attributes(node).get("allowzero", 0):
        raise Mixed
    assert isinstance(time, int)
    if any(tracker.numbers(node, "shape", 1)[: time + 1]):
        raise Mixed
    return time


def _concat(tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature) -> Nature:
    rank = tracker.rank(node.input[0])
    read = {natures[n] for n in node.input}
    if len(read) > 1 or time == tracker.attributes(node)["axis"] % rank:
        raise Mixed
    return time


def _gather(tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature) -> Nature:
    """Of another axis; the last step of time is what is LAST."""
    x, indices = node.input
    axis = tracker.attributes(node).get("axis", 0) % tracker.rank(x)
    if natures[indices] != FIXED:
        raise Mixed
    rank = tracker.rank(indices)
    assert isinstance(time, int)
    if axis == time:
        value = tracker.constant(indices)
        if value is None or rank or int(value) != -1:
            raise Mixed
        return LAST
    return time if time < axis else time - 1 + rank


def _slice(tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature) -> Nature:
    rank = tracker.rank(node.input[0])
    if time in {a % rank for a in tracker.numbers(node, "axes", 3)}:
        raise Mixed
    return time


def _split(tracker: StepTracker, node: Any, natures: Mapping[str, Nature], time: Nature) -> Nature:
    if time == tracker.attributes(node).get("axis", 0) % tracker.rank(node.input[0]):
        raise Mixed
    return time


Rule = Callable[[StepTracker, Any, Mapping[str, Nature], Nature], Nature]
RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
    "Reshape": _reshape,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
}
