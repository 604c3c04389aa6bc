"""Nodes, constants and names of a graph that is being written, and of graphs inside of it.

Names are unlike each other in the whole model, so that a body may read what is around it.

Non-Goals: what the nodes mean (`pointwise`, `arrays`, `program`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 8  # what first knew this opset
ELEMENTS = {
    "bool": TensorProto.BOOL,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}
_ODD = re.compile(r"[^A-Za-z0-9_.]")


class GraphWriter:
    """A graph of floats of one dtype. around: the writer of the graph that this one is inside of.
    prefix: what all names begin with.

    Constants are the outermost graph's, each once.
    """

    def __init__(self, dtype: str, around: GraphWriter | None = None, *, prefix: str = "") -> None:
        self.dtype, self.around, self.prefix = dtype, around, prefix
        self.nodes: list[Any] = []
        self.top: GraphWriter = self if around is None else around.top
        if around is None:
            self.taken: set[str] = set()
            self.counts: dict[str, int] = {}
            self.initializers: dict[str, Any] = {}
            self._constants: dict[tuple[Any, ...], str] = {}

    # ---- names ----

    def name(self, wanted: str) -> str:
        """Unlike all others of the model."""
        top = self.top
        wanted = top.prefix + (_ODD.sub("_", wanted) or "v")
        found = wanted
        while found in top.taken:
            top.counts[wanted] = top.counts.get(wanted, 0) + 1
            found = f"{wanted}_{top.counts[wanted]}"
        top.taken.add(found)
        return found

    # ---- nodes ----

    def node(self, op: str, *inputs: str, like: str = "", **attributes: Any) -> str:
        """Of one output, whose name begins with `like`."""
        return self.several(op, inputs, [like or op.lower()], **attributes)[0]

    def several(
        self, op: str, inputs: Sequence[str], likes: Sequence[str], **attributes: Any
    ) -> list[str]:
        """A node of several outputs; one that is like "" is left out."""
        outputs = [self.name(like) if like else "" for like in likes]
        label = self.name(f"{op}_{next(filter(None, outputs))}")
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=label, **attributes))
        return outputs

    def renamed(self, name: str, like: str) -> str:
        """What the last node made, by another name; what it didn't make keeps its own."""
        last = self.nodes[-1] if self.nodes else None
        if last is None or [*last.output] != [name]:
            return name
        last.output[0] = self.name(like)
        last.name = self.name(f"{last.op_type}_{last.output[0]}")
        return str(last.output[0])

    def last(self, name: str, like: str) -> str:
        """The value as an output of the graph: no input, and no other output, of a name of its
        own."""
        return self.node("Identity", name, like=like)

    def constant(self, array: np.ndarray, like: str = "constant") -> str:
        """An initializer; the same array is one."""
        top = self.top
        held = np.array(array, order="C")
        key = held.dtype.str, held.shape, hashlib.sha256(held.data).digest()
        if key not in top._constants:
            name = top._constants[key] = self.name(like)
            top.initializers[name] = numpy_helper.from_array(held, name)
        return top._constants[key]

    def number(self, value: float) -> str:
        """Of the graph's dtype, without axes."""
        return self.constant(np.array(value, self.dtype), "number")

    def whole(self, *values: int) -> str:
        """int64 of one axis: shapes and axes."""
        return self.constant(np.array(values, np.int64), "sizes")

    # ---- what is often needed ----

    def size(self, name: str, axis: int) -> str:
        """Of an axis, int64 [1]."""
        return self.node("Shape", name, like=f"size_{axis}", start=axis, end=axis + 1)

    def cast(self, name: str, dtype: str) -> str:
        return self.node("Cast", name, to=ELEMENTS[dtype])

    def as_float(self, name: str) -> str:
        return self.cast(name, self.dtype)

    def shaped(self, *parts: str) -> str:
        """int64 [1] each -> a shape."""
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0, like="shape")

    def value(self, name: str, dtype: str, shape: Sequence[int | str] | None) -> Any:
        """A ValueInfoProto. shape: None where it follows."""
        return helper.make_tensor_value_info(name, ELEMENTS[dtype], shape)

    def graph(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """The GraphProto of it."""
        held = list(self.initializers.values()) if self.around is None else []
        return helper.make_graph(self.nodes, name, inputs, outputs, held)


def model_of(graph: Any, producer: str, version: str, doc: str) -> Any:
    """A checked ModelProto."""
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=producer,
        producer_version=version,
        doc_string=doc,
    )
    onnx.checker.check_model(model, full_check=True)
    return model
