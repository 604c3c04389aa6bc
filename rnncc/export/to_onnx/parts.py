"""Models -> nodes: a table of what each kind of part is in ONNX.

Non-Goals: recurrent layers (`calls`); graphs that came from ONNX, whose operators stay there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from rnncc.emit.onnx.graph import ELEMENTS, GraphWriter
from rnncc.export.to_onnx.calls import CallNames, called
from rnncc.export.to_onnx.functions import SPELLED
from rnncc.export.to_onnx.layer_graph import LayerWriter, check_layer
from rnncc.models import plain
from rnncc.models.component import Component
from rnncc.models.model import Model
from rnncc.models.recurrent import Recurrent


@dataclass(frozen=True)
class Held:
    """A value of the graph."""

    name: str
    rank: int
    dtype: str


Emit = Callable[["PartsWriter", Any, Sequence[Held | None]], list[Held]]


@dataclass(frozen=True)
class PartsWriter:
    """What a part's nodes are written with."""

    layers: LayerWriter

    @property
    def w(self) -> GraphWriter:
        return self.layers.writer

    def write(self, part: Component, inputs: Sequence[Held | None]) -> list[Held]:
        """TypeError for a kind that has no form."""
        emit = PARTS.get(type(part))
        if emit is None:
            raise TypeError(
                f"{part.name} ({part.kind}) has no ONNX form here: what came from an .onnx file is "
                "in that file, and other parts can be exported one by one"
            )
        for name, array in part.weights.items():
            if array.dtype.kind == "f" and array.dtype != self.w.dtype:
                raise TypeError(
                    f"{part.name}/{name} holds {array.dtype} values, the model is of {self.w.dtype}"
                )
        return emit(self, part, inputs)

    def floats(self, x: Held | None) -> Held:
        assert x is not None
        if x.dtype == self.w.dtype:
            return x
        return Held(self.w.as_float(x.name), x.rank, self.w.dtype)

    def made(self, name: str, rank: int) -> list[Held]:
        return [Held(name, rank, self.w.dtype)]

    def constant(self, array: np.ndarray, like: str) -> str:
        return self.w.constant(np.asarray(array, self.w.dtype), like)


def model_values(model: Model, form: str) -> tuple[LayerWriter, list[Any], list[Any]]:
    """The nodes of a model, its inputs and outputs. TypeError for a part that has no form."""
    floats = {a.dtype.name for a in model.weights.values() if a.dtype.kind == "f"}
    dtype = "float64" if floats == {"float64"} else "float32"
    layers = LayerWriter(GraphWriter(dtype), form)
    writer, w = PartsWriter(layers), layers.writer
    values: dict[str, Held] = {}
    inputs = []
    for port in model.inputs:
        if port.dtype not in ELEMENTS:
            raise TypeError(f"input {port} has no ONNX form here: expected {', '.join(ELEMENTS)}")
        name = w.name(port.name)
        values[port.name] = Held(name, len(port.shape), port.dtype)
        inputs.append(w.value(name, port.dtype, list(port.shape)))
    for name, array in model.constants.items():
        values[name] = Held(w.constant(array, name), array.ndim, array.dtype.name)
    for node in model.nodes:
        read = [values[v] if v else None for v in node.inputs]
        made = writer.write(node.part, read)
        values |= {v: held for v, held in zip(node.outputs, made, strict=False) if v}
    outputs = []
    for port in model.outputs:
        held = values[port.name]
        if held.dtype != port.dtype:
            held = Held(w.cast(held.name, port.dtype), held.rank, port.dtype)
        shape = [*port.shape]
        if len(shape) != held.rank:  # "..." where a reader doesn't follow shapes
            shape = ["batch", *(f"{port.name}_{i}" for i in range(1, held.rank))]
        outputs.append(w.value(w.last(held.name, port.name), port.dtype, shape))
    return layers, inputs, outputs


# ---- parts ---------------------------------------------------------------------------------------


def _recurrent(p: PartsWriter, part: Recurrent, inputs: Sequence[Held | None]) -> list[Held]:
    layer, w = part.layer, p.w
    check_layer(layer)
    if layer.dtype != w.dtype:
        raise TypeError(f"{part.name} is of {layer.dtype}, the model of {w.dtype}")
    x, mask, *states = (*inputs, None)[: max(len(inputs), 2)]
    x = p.floats(x)
    begun = {}
    for state, held in zip(layer.cell.states, states, strict=False):
        if held is not None:
            begun[state.name] = p.floats(held).name
    if not begun and part.initial_state is not None:
        row = w.size(x.name, 1 if layer.time_major else 0)
        for state, start in zip(layer.cell.states, part.initial_state, strict=True):
            rest = [w.whole(*start.shape[1:])] if start.ndim > 1 else []
            value = p.constant(start, f"start_{state.name}")
            begun[state.name] = w.node("Expand", value, w.shaped(row, *rest))
    valid = "" if mask is None else mask.name if mask.dtype == "bool" else w.cast(mask.name, "bool")
    (argument,) = layer.cell.arguments
    given = CallNames({argument: x.name}, begun, mask=valid)
    outputs, finals = called(p.layers, layer, given)
    lead = 2 if layer.return_sequences else 1
    made = [
        Held(name, lead + len(o.shape), w.dtype)
        for name, o in zip(outputs, layer.cell.outputs, strict=True)
    ]
    if layer.return_state:
        made += [
            Held(name, 1 + len(s.shape), w.dtype)
            for name, s in zip(finals, layer.cell.states, strict=True)
        ]
    return made


def _dense(p: PartsWriter, part: plain.Dense, inputs: Sequence[Held | None]) -> list[Held]:
    x = p.floats(inputs[0])
    y = p.w.node("MatMul", x.name, p.constant(part.kernel, f"{part.name}_kernel"))
    if part.bias is not None:
        y = p.w.node("Add", y, p.constant(part.bias, f"{part.name}_bias"))
    return p.made(SPELLED[part.activation](p.w, y, **part.parameters), x.rank)


def _convolution(
    p: PartsWriter, part: plain.Convolution, inputs: Sequence[Held | None]
) -> list[Held]:
    """Slices side by side, and a product: runtimes have no Conv of float64."""
    x, w, reach = p.floats(inputs[0]), p.w, part.reach
    if part.padding == "same" and part.stride > 1:
        raise TypeError(f"{part.name} has no ONNX form here: what it pads depends on the steps")
    before = {"causal": reach, "same": reach // 2, "valid": 0}[part.padding]
    behind = reach - reach // 2 if part.padding == "same" else 0
    padded = w.node("Pad", x.name, w.whole(0, before, 0, 0, behind, 0))
    most = 2**62
    slices = [
        w.node("Slice", padded, *map(w.whole, (start, start - reach or most, 1, part.stride)))
        for start in range(0, reach + 1, part.dilation)
    ]
    patches = w.node("Concat", *slices, axis=-1) if len(slices) > 1 else slices[0]
    kernel = part.kernel.reshape(-1, part.kernel.shape[2])
    y = w.node("MatMul", patches, p.constant(kernel, f"{part.name}_kernel"))
    if part.bias is not None:
        y = w.node("Add", y, p.constant(part.bias, f"{part.name}_bias"))
    return p.made(SPELLED[part.activation](w, y, **part.parameters), x.rank)


def _activation(
    p: PartsWriter, part: plain.Activation, inputs: Sequence[Held | None]
) -> list[Held]:
    x = p.floats(inputs[0])
    return p.made(SPELLED[part.function](p.w, x.name, **part.parameters), x.rank)


def _prelu(p: PartsWriter, part: plain.PRelu, inputs: Sequence[Held | None]) -> list[Held]:
    x, w = p.floats(inputs[0]), p.w
    below = w.node("Mul", p.constant(part.alpha, "alpha"), x.name)
    above = w.node("Greater", x.name, w.number(0.0))
    return p.made(w.node("Where", above, x.name, below), x.rank)


def _embedding(p: PartsWriter, part: plain.Embedding, inputs: Sequence[Held | None]) -> list[Held]:
    (x,), w = inputs, p.w
    assert x is not None
    numbers = w.cast(x.name, "int64")
    made = p.made(w.node("Gather", p.constant(part.table, "table"), numbers, axis=0), x.rank + 1)
    if part.with_mask:
        none = w.constant(np.array(0, np.int64), "none")
        made.append(Held(w.node("Not", w.node("Equal", numbers, none)), x.rank, "bool"))
    return made


JOINED = {
    "add": "Add",
    "multiply": "Mul",
    "subtract": "Sub",
    "average": "Add",
    "maximum": "Max",
    "minimum": "Min",
}


def _joined(p: PartsWriter, part: plain.JoinedBy, inputs: Sequence[Held | None]) -> list[Held]:
    xs = [p.floats(x) for x in inputs if x is not None]
    y = reduce(lambda a, b: p.w.node(JOINED[part.by], a, b), [x.name for x in xs])
    if part.by == "average":
        y = p.w.node("Div", y, p.w.number(len(xs)))
    return p.made(y, xs[0].rank)


def _concatenated(
    p: PartsWriter, part: plain.Concatenated, inputs: Sequence[Held | None]
) -> list[Held]:
    xs = [p.floats(x) for x in inputs if x is not None]
    return p.made(p.w.node("Concat", *(x.name for x in xs), axis=part.axis), xs[0].rank)


def _gain(p: PartsWriter, part: plain.Gain, inputs: Sequence[Held | None]) -> list[Held]:
    x = p.floats(inputs[0])
    y = p.w.node("Mul", x.name, p.w.number(part.factor))
    return p.made(p.w.node("Add", y, p.w.number(part.offset)) if part.offset else y, x.rank)


def _pooled(p: PartsWriter, part: plain.PooledSteps, inputs: Sequence[Held | None]) -> list[Held]:
    x, w = p.floats(inputs[0]), p.w
    axis = w.whole(1)
    if part.by == "max":
        return p.made(w.node("ReduceMax", x.name, axis, keepdims=0), x.rank - 1)
    if len(inputs) < 2 or inputs[1] is None:
        return p.made(w.node("ReduceMean", x.name, axis, keepdims=0), x.rank - 1)
    counted = w.node("Unsqueeze", p.floats(inputs[1]).name, w.whole(2))
    total = w.node("ReduceSum", w.node("Mul", x.name, counted), axis, keepdims=0)
    count = w.node("ReduceSum", counted, axis, keepdims=0)
    return p.made(w.node("Div", total, count), x.rank - 1)


def _batch_norm(p: PartsWriter, part: plain.BatchNorm, inputs: Sequence[Held | None]) -> list[Held]:
    x, w = p.floats(inputs[0]), p.w
    shape = [1] * x.rank
    shape[part.axis] = -1
    scale, shift = (a.reshape(shape) for a in (part._scale, part._shift))
    y = w.node("Mul", x.name, p.constant(scale, "scale"))
    return p.made(w.node("Add", y, p.constant(shift, "shift")), x.rank)


def _layer_norm(p: PartsWriter, part: plain.LayerNorm, inputs: Sequence[Held | None]) -> list[Held]:
    x, w = p.floats(inputs[0]), p.w
    over = w.whole(*range(-part.axes, 0))
    centred = w.node("Sub", x.name, w.node("ReduceMean", x.name, over))
    variance = w.node("ReduceMean", w.node("Mul", centred, centred), over)
    root = w.node("Sqrt", w.node("Add", variance, w.number(part.epsilon)))
    y = w.node("Div", centred, root)
    given = part.weights
    y = w.node("Mul", y, p.constant(given["gamma"], "gamma")) if "gamma" in given else y
    y = w.node("Add", y, p.constant(given["beta"], "beta")) if "beta" in given else y
    return p.made(y, x.rank)


def _mask_step(p: PartsWriter, part: plain.MaskStep, inputs: Sequence[Held | None]) -> list[Held]:
    w, (x, *others) = p.w, inputs
    assert x is not None
    if part.by == "not_equal":
        return [_unequal(p, x, part.value)]
    if part.by == "any":
        return [_any(p, x)]
    (other,) = others
    assert other is not None
    op = "Or" if part.by == "or" else "And"
    return [Held(w.node(op, x.name, other.name), x.rank, "bool")]


def _unequal(p: PartsWriter, x: Held, value: float) -> Held:
    number = p.w.constant(np.array(value, x.dtype), "number")
    return Held(p.w.node("Not", p.w.node("Equal", x.name, number)), x.rank, "bool")


def _any(p: PartsWriter, x: Held) -> Held:
    """Of the last axis."""
    most = p.w.node("ReduceMax", p.w.cast(x.name, "int32"), p.w.whole(-1), keepdims=0)
    return Held(p.w.cast(most, "bool"), x.rank - 1, "bool")


def _masked(p: PartsWriter, part: plain.MaskedSteps, inputs: Sequence[Held | None]) -> list[Held]:
    x, w = p.floats(inputs[0]), p.w
    mask = _any(p, _unequal(p, x, part.value))
    counted = w.node("Unsqueeze", p.floats(mask).name, w.whole(-1))
    return [*p.made(w.node("Mul", x.name, counted), x.rank), mask]


def _same(p: PartsWriter, part: plain.Same, inputs: Sequence[Held | None]) -> list[Held]:
    return [p.floats(inputs[0])]


def _reshaped(p: PartsWriter, part: plain.Reshaped, inputs: Sequence[Held | None]) -> list[Held]:
    x = p.floats(inputs[0])
    y = p.w.node("Reshape", x.name, p.w.whole(0, *part.shape))  # 0: as many rows as there are
    return p.made(y, 1 + len(part.shape))


def _permuted(p: PartsWriter, part: plain.Permuted, inputs: Sequence[Held | None]) -> list[Held]:
    x = p.floats(inputs[0])
    return p.made(p.w.node("Transpose", x.name, perm=list(part.axes)), x.rank)


def _repeated(
    p: PartsWriter, part: plain.RepeatedSteps, inputs: Sequence[Held | None]
) -> list[Held]:
    x, w = p.floats(inputs[0]), p.w
    each = w.node("Unsqueeze", x.name, w.whole(1))
    return p.made(w.node("Expand", each, w.whole(1, part.times, 1)), x.rank + 1)


def _last_step(p: PartsWriter, part: plain.LastStep, inputs: Sequence[Held | None]) -> list[Held]:
    x = p.floats(inputs[0])
    place = p.w.constant(np.array(-1, np.int64), "last")
    return p.made(p.w.node("Gather", x.name, place, axis=1), x.rank - 1)


def _first_features(
    p: PartsWriter, part: plain.FirstFeatures, inputs: Sequence[Held | None]
) -> list[Held]:
    x, w = p.floats(inputs[0]), p.w
    return p.made(w.node("Slice", x.name, w.whole(0), w.whole(part.count), w.whole(-1)), x.rank)


def _each_step(p: PartsWriter, part: plain.EachStep, inputs: Sequence[Held | None]) -> list[Held]:
    x, w = p.floats(inputs[0]), p.w
    rest = [w.node("Shape", x.name, start=2)] if x.rank > 2 else []
    flat = w.node("Reshape", x.name, w.shaped(w.whole(-1), *rest))
    (y,) = p.write(part.part, [Held(flat, x.rank - 1, x.dtype)])[:1]
    own = [w.node("Shape", y.name, start=1)] if y.rank > 1 else []
    shape = w.shaped(w.node("Shape", x.name, end=2), *own)
    return p.made(w.node("Reshape", y.name, shape), y.rank + 1)


PARTS: dict[type[Component], Emit] = {
    Recurrent: _recurrent,
    plain.Activation: _activation,
    plain.BatchNorm: _batch_norm,
    plain.Concatenated: _concatenated,
    plain.Convolution: _convolution,
    plain.Dense: _dense,
    plain.EachStep: _each_step,
    plain.Embedding: _embedding,
    plain.FirstFeatures: _first_features,
    plain.Gain: _gain,
    plain.JoinedBy: _joined,
    plain.LastStep: _last_step,
    plain.LayerNorm: _layer_norm,
    plain.MaskStep: _mask_step,
    plain.MaskedSteps: _masked,
    plain.PRelu: _prelu,
    plain.Permuted: _permuted,
    plain.PooledSteps: _pooled,
    plain.RepeatedSteps: _repeated,
    plain.Reshaped: _reshaped,
    plain.Same: _same,
}
