"""Steps on full arrays: what a `Recorder` reads, `Arrays` computes with NumPy, by the same calls.

    def step(r, x, h):                             r: a Recorder, or Arrays
        after = r.pointwise("tanh", r.pointwise("+", x, h))
        return [after], [after]

    assert_same(step, inputs=[(BATCH, 4)], states=[(BATCH, 4)])

Non-Goals: kernels (float64 on the interpreter, unless asked for).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnncc import oracle
from rnncc.compiler import check_text
from rnncc.frontend.diagnostics import SpecError
from rnncc.reading.graph import StepGraph
from rnncc.reading.recorder import Recorder
from rnncc.reading.text import CellText, compiled, write
from rnncc.reading.traced import BATCH, Merged

ROWS = 3
Step = Callable[..., tuple[Sequence[Any], Sequence[Any]]]


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def layer_norm(x: np.ndarray, axis: int, eps: float) -> np.ndarray:
    return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + eps)


POINTWISE: dict[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "**": np.power,
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
    "==": np.equal,
    "!=": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "square": np.square,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "exp": np.exp,
    "sqrt": np.sqrt,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "where": np.where,
    "clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "leaky_relu": lambda x, negative_slope: np.where(x > 0, x, negative_slope * x),
    "softplus": lambda x: np.log1p(np.exp(x)),
}
REDUCE = {name: getattr(np, name) for name in ("sum", "mean", "max", "min", "prod", "any", "all")}
ALONG: dict[str, Callable[..., Any]] = {
    "softmax": softmax,
    "log_softmax": lambda x, axis: np.log(softmax(x, axis)),
    "cumsum": np.cumsum,
    "cumax": lambda x, axis: np.cumsum(softmax(x, axis), axis),
    "layer_norm": layer_norm,
    "rms_norm": lambda x, axis, eps: x / np.sqrt((x * x).mean(axis, keepdims=True) + eps),
    "flip": np.flip,
    "roll": lambda x, axis, shift: np.roll(x, shift, axis),
}
DTYPES = {"bool": bool, "int": np.int64, "float": np.float64}


def numbers(x: Any) -> Any:
    """Conditions count as 0 and 1, where NumPy has rules of its own."""
    x = np.asarray(x)
    return x.astype(np.int64) if x.dtype == bool else x


class Arrays:
    """A Recorder's methods on arrays of ROWS rows."""

    def _shape(self, shape: Sequence[Any]) -> tuple[int, ...]:
        return tuple(
            ROWS if n == BATCH else ROWS * n.count if isinstance(n, Merged) else n for n in shape
        )

    def constant(self, array: Any) -> Any:
        return np.asarray(array)

    def pointwise(self, op: str, *operands: Any, **attributes: Any) -> Any:
        if op not in ("and", "or", "not", "where", "==", "!="):
            operands = tuple(map(numbers, operands))
        if op == "where":
            operands = (np.asarray(operands[0]).astype(bool), *operands[1:])
        return np.asarray(POINTWISE[op](*operands, **attributes))

    def convert(self, x: Any, kind: str) -> Any:
        return np.asarray(x).astype(DTYPES[kind])

    def stop_gradient(self, x: Any) -> Any:
        return x

    def surrogate(self, x: Any, value: Any, derivative: Any) -> Any:
        return value

    def reduce(self, op: str, x: Any, axes: Any = None, keepdims: bool = False) -> Any:
        axes = None if axes is None else tuple(axes)
        return np.asarray(REDUCE[op](x, axis=axes, keepdims=keepdims))

    def along(self, op: str, x: Any, axis: int, **attributes: Any) -> Any:
        return ALONG[op](x, axis=axis, **attributes)

    def matmul(self, a: Any, b: Any) -> Any:
        return numbers(a) @ numbers(b)

    def einsum(self, subscripts: str, *operands: Any) -> Any:
        return np.asarray(np.einsum(subscripts, *map(numbers, operands)))

    def reshape(self, x: Any, shape: Any) -> Any:
        return np.reshape(x, self._shape(shape))

    def transpose(self, x: Any, order: Any) -> Any:
        return np.transpose(x, order)

    def broadcast(self, x: Any, shape: Any) -> Any:
        return np.broadcast_to(x, self._shape(shape))

    def slice(self, x: Any, axis: int, key: slice) -> Any:
        return x[(slice(None),) * (axis % np.ndim(x)) + (key,)]

    def take(self, x: Any, axis: int, index: int) -> Any:
        return np.take(x, index, axis)

    def concat(self, parts: Any, axis: int) -> Any:
        return np.concatenate(parts, axis)

    def stack(self, parts: Any, axis: int) -> Any:
        return np.stack(parts, axis)

    def expand(self, x: Any, axis: int) -> Any:
        return np.expand_dims(x, axis)


@dataclass
class Task:
    """One step's leaves: shapes with BATCH in them; weights have none."""

    step: Step
    inputs: Sequence[tuple[int, ...]] = ((BATCH, 4),)
    states: Sequence[tuple[int, ...]] = ((BATCH, 5),)
    weights: Sequence[tuple[int, ...]] = ()
    contexts: Sequence[tuple[int, ...]] = ()
    kinds: dict[str, str] = field(default_factory=dict)  # of leaves that are no floats
    spread: float = 0.7
    seed: int = 0

    def graph(self) -> StepGraph:
        r = Recorder("Read")
        leaves: list[Any] = []
        makers: Any = (("x", r.input, self.inputs), ("h", r.state, self.states))
        makers = (*makers, ("c", r.context, self.contexts))
        for base, make, shapes in makers:
            for i, shape in enumerate(shapes):
                name = f"{base}{i}"
                leaves.append(make(name, shape, kind=self.kinds.get(name, "float")))
        leaves += [r.weight(f"w{i}", shape, key=i) for i, shape in enumerate(self.weights)]
        r.result(*self.step(r, *leaves))
        return r.graph

    def draw(self, name: str, shape: Sequence[int], rng: Any) -> np.ndarray:
        kind = self.kinds.get(name, "float")
        if kind == "bool":
            return np.asarray(rng.random(shape) < 0.5)
        if kind == "int":
            return np.asarray(rng.integers(-3, 4, shape))
        return np.asarray(rng.normal(scale=self.spread, size=shape))


def assert_same(
    step: Step, steps: int = 3, names: bool = True, kernels: bool = False, **leaves: Any
) -> CellText:
    """The text computes what the step does on full arrays; outputs and states of every step."""
    task = Task(step, **leaves)
    graph = task.graph()
    text = _written(graph, names)
    rng = np.random.default_rng(task.seed)

    def draws(base: str, shapes: Any, time: int) -> list[np.ndarray]:
        whole = [tuple(ROWS if n == BATCH else n for n in s) for s in shapes]
        own = [(steps, *s) if time else s for s in whole]
        return [task.draw(f"{base}{i}", s, rng) for i, s in enumerate(own)]

    xs, hs = draws("x", task.inputs, 1), draws("h", task.states, 0)
    cs, ws = draws("c", task.contexts, 0), draws("w", task.weights, 0)
    made: Any
    if kernels:
        made, text = compiled(graph, "float64", "<read>")
    else:
        made = oracle.layer_class(check_text(text.text, "<read>"))
    layer = made(return_sequences=True, return_state=True, seed=0, **text.sizes)
    arrays = {n: np.asarray(ws[leaf.key], np.float64) for n, leaf in text.weights.items()}
    arrays |= {n: np.asarray(leaf.array, np.float64) for n, leaf in text.constants.items()}
    given = [np.moveaxis(x, 0, 1).astype(np.float64) for x in xs] + [
        np.asarray(c, np.float64) for c in cs
    ]
    start = [np.asarray(h, np.float64) for h in hs]
    found = run(layer, given, start, arrays)
    ranks = [len(getattr(o, "shape", ())) for o in (*graph.outputs, *graph.after)]
    expected = _loop(task, [*xs], [*hs], [*cs, *ws], steps, ranks)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        b = np.asarray(b, np.float64)
        assert a.shape == b.shape, text.text
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10, err_msg=text.text)
    return text


def _written(graph: StepGraph, names: bool) -> CellText:
    text = write(graph, names=names)
    try:
        check_text(text.text, "<read>")
    except SpecError:
        text = write(graph, names=False)
    return text


def run(layer: Any, given: list[np.ndarray], start: list[np.ndarray], arrays: Any) -> list[Any]:
    """Outputs [batch, time, ...], then states."""
    inputs = tuple(given) if len(given) > 1 else given[0]
    layer(inputs)
    for name, array in arrays.items():
        (layer.weights if name in layer.weights else layer.constants)[name] = array
    results = layer(inputs, initial_state=start)
    shown = results[0] if isinstance(results[0], tuple) else [results[0]]
    return [*shown, *results[1:]]


def _loop(
    task: Task, xs: list[Any], hs: list[Any], rest: list[Any], steps: int, ranks: list[int]
) -> list[np.ndarray]:
    """Outputs of all steps, and the last states. ranks: of one row of each."""
    outputs = []

    def whole(y: Any, rank: int) -> np.ndarray:
        y = np.asarray(y, np.float64)
        return y if y.ndim > rank else np.broadcast_to(y, (ROWS, *y.shape))

    with np.errstate(all="ignore"):
        for t in range(steps):
            shown, hs = task.step(Arrays(), *(x[t] for x in xs), *hs, *rest)
            outputs.append([whole(y, n) for y, n in zip(shown, ranks, strict=False)])
    last = [whole(h, n) for h, n in zip(hs, ranks[len(outputs[0]) :], strict=True)]
    return [np.stack(y, 1) for y in zip(*outputs, strict=True)] + last
