"""An .onnx file -> a Model: recurrent nodes on our kernels, the plain ones between them in graphs.

Non-Goals: opening and checking the file (`opening`); which nodes go together (`partition`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.files import FileError
from rnncc.models.component import Port, Wired
from rnncc.models.model import Model
from rnncc.models.onnx.node_weights import COMPUTED, ArrayError, NodeArrays, layers_of
from rnncc.models.onnx.opening import add_input, label, library, opened
from rnncc.models.onnx.operators import OnnxOperators, chosen_runner
from rnncc.models.onnx.partition import (
    Piece,
    constants_of,
    ends,
    is_recurrent,
    needed,
    pieces,
    read_by,
    steady_of,
)
from rnncc.models.onnx.recurrent_node import OnnxRecurrent
from rnncc.models.onnx.settings import INPUTS, B, C, H, P, R, W, X, settings_of
from rnncc.models.onnx.stepwise import StepTracker

WEIGHTS = (W, R, B, P)


def load_onnx(path: str | os.PathLike[str], plain: str = "auto") -> Model:
    """The model of an .onnx file.

    plain: who runs operators other than RNN, GRU and LSTM: "onnxruntime", "reference" (the one of
    the onnx package, NumPy), or "auto": onnxruntime where it is installed. `plan()` names it.
    Inputs that the file holds values for are constants. Raises FileError with the file and the
    node or tensor; ValueError for another `plain`.
    """
    runner = chosen_runner(plain)
    model = opened(path)
    return GraphReader(model.proto, model.large, os.fspath(path), runner).model()


class GraphReader:
    """One checked ModelProto on its way to a Model. large: as in `OpenedModel`."""

    def __init__(self, proto: Any, large: dict[str, np.ndarray], where: str, runner: str) -> None:
        self.onnx, self.proto, self.where, self.runner = library(where), proto, where, runner
        self.graph = proto.graph
        self.held = {t.name: t for t in self.graph.initializer}
        self.held |= {n: self._bare(n, a) for n, a in large.items()}
        self.wanted = [o.name for o in self.graph.output]
        self.nodes = needed(self.graph.node, self.wanted)
        self.fixed = constants_of(self.nodes, self.held)
        self.steady = steady_of(self.nodes, self.fixed)
        self.types = self._types()
        self.arrays = large  # by name: what initializers hold, and what is computed of them
        self.large = frozenset(large)
        self.names: set[str] = set()

    def model(self) -> Model:
        self._compute_constants()
        imports = self.proto.opset_import
        version = max((o.version for o in imports if o.domain in ("", "ai.onnx")), default=0)
        # What only made weights is done.
        live = self._live()
        nodes = [n for n in self.nodes if live & set(n.output)]
        parts = pieces(nodes)
        ports = [self._port(i) for i in self.graph.input if i.name not in self.held]
        tracker = StepTracker(
            nodes,
            [p.name for p in ports],
            self.fixed,
            self._known,
            self._shape,
            self._said,
            version,
        )
        after = self._last_uses(parts)
        wired = [self._wired(piece, i, after, tracker) for i, piece in enumerate(parts)]
        read = {n for node in wired for n in node.inputs} | set(self.wanted)
        known = (self.held.keys() | self.arrays.keys()) - live
        constants = {n: self._array(n) for n in sorted(read & known)}
        outputs = [self._port(o) for o in self.graph.output]
        try:
            return Model(ports, outputs, wired, constants, os.path.basename(self.where))
        except ValueError as e:
            raise FileError(self.where, str(e)) from None

    # ---- pieces ----------------------------------------------------------------------------------

    def _wired(
        self, piece: Piece, index: int, after: Mapping[str, int], tracker: StepTracker
    ) -> Wired:
        if piece.is_recurrent:
            return self._recurrent(piece.nodes[0], after, index, tracker)
        inputs, outputs = ends(piece, after, index)
        inputs = [n for n in inputs if n not in self.held]
        name = self._named(f"operators_{index}")
        model = self._submodel(piece.nodes, inputs, outputs, f"{self.where}: {name}")
        try:
            part = OnnxOperators(
                name, model, self.runner, tracker.is_stepwise, self._large_of(model)
            )
        except FileError as e:
            raise FileError(f"{self.where}: {self._blamed(piece, e.what)}", e.what) from None
        return Wired(part, tuple(inputs), tuple(outputs))

    def _blamed(self, piece: Piece, what: str) -> str:
        """The node that a runner's message names, or all of them."""
        for i, node in enumerate(piece.nodes):
            if node.name and node.name in what:
                return label(node, i)
        kinds = sorted({n.op_type for n in piece.nodes})
        return f"operators {', '.join(kinds[:8])}{' ...' if len(kinds) > 8 else ''}"

    def _recurrent(
        self, node: Any, after: Mapping[str, int], index: int, tracker: StepTracker
    ) -> Wired:
        at = f"{self.where}: {label(node, index)}"
        inputs = [*node.input, *("",) * (INPUTS - len(node.input))]
        if len(inputs) > INPUTS or len(node.output) > 3:
            raise FileError(at, f"{len(node.input)} inputs and {len(node.output)} outputs")
        attributes = {a.name: self._plain(a, at) for a in node.attribute}
        try:
            settings = settings_of(node.op_type, attributes)
        except ValueError as e:
            raise FileError(at, str(e)) from None
        dtype = self._dtype(inputs[X], at)
        layers = None
        known = {i: inputs[i] for i in WEIGHTS if inputs[i] in self.fixed}
        if len(known) == sum(bool(inputs[i]) for i in WEIGHTS):
            arrays = {i: self._finite(name, at) for i, name in known.items()}
            if not {W, R} <= arrays.keys():
                raise FileError(at, "W or R isn't given")
            if arrays[W].dtype.name != dtype:
                raise FileError(at, f"W holds {arrays[W].dtype} values, X {dtype}")
            try:
                given = NodeArrays(arrays[W], arrays[R], arrays.get(B), arrays.get(P))
                layers = layers_of(settings, given)
                self._let_go(known.values(), node)
            except ArrayError as e:
                place = WEIGHTS["WRBP".index(e.array)]
                raise FileError(f"{at}: tensor {inputs[place]}", str(e)) from None
            inputs = ["" if i in WEIGHTS else n for i, n in enumerate(inputs)]
        if any(n and n not in self.steady for n in (inputs[H], inputs[C])):
            whole = "gets its states as inputs: call the model, with the last ones it gave"
        else:
            whole = "" if tracker.is_stepwise else "is in a graph that needs the whole sequence"
        name = self._named(node.name or f"{node.op_type}_{index}")
        part = OnnxRecurrent(name, node.op_type, attributes, layers, dtype, whole)
        outputs = tuple(n if after.get(n, -1) > index else "" for n in node.output)
        return Wired(part, tuple(inputs), outputs)

    def _let_go(self, names: Iterable[str], node: Any) -> None:
        """Of large arrays that nobody else reads: the layers have their own."""
        others = {n for other in self.nodes if other is not node for n in read_by(other)}
        for name in self.large.intersection(names) - others - set(self.wanted):
            self.arrays.pop(name, None)

    def _named(self, name: str) -> str:
        """Unlike all before."""
        unlike, i = name, 1
        while unlike in self.names:
            unlike, i = f"{name}_{i}", i + 1
        self.names.add(unlike)
        return unlike

    def _last_uses(self, parts: Sequence[Piece]) -> dict[str, int]:
        after = dict.fromkeys(self.wanted, len(parts))
        for i, piece in enumerate(parts):
            for name in ends(piece, {}, 0)[0]:
                after[name] = max(after.get(name, i), i)
        return after

    # ---- arrays ----------------------------------------------------------------------------------

    def _live(self) -> set[str]:
        """Values that the outputs need beside arrays that are there already."""
        made = {n: node for node in self.nodes for n in node.output if n}
        live: set[str] = set()
        waiting = [n for n in self.wanted if n in made]
        while waiting:
            name = waiting.pop()
            live.add(name)
            reads = [n for n in read_by(made[name]) if n in made and n not in self.arrays]
            waiting += [n for n in reads if n not in live]
        return live

    def _compute_constants(self) -> None:
        """Inputs of recurrent nodes that nodes make of constants alone."""
        asked = {
            n
            for node in self.nodes
            if is_recurrent(node)
            for n in node.input[1:]
            if n in self.fixed and n not in self.held
        }
        if not asked:
            return
        nodes = needed(self.nodes, asked)
        names = sorted(asked)
        model = self._submodel(nodes, [], names, f"{self.where}: constants")
        try:
            found = OnnxOperators("constants", model, self.runner, large=self._large_of(model))()
        except ValueError as e:  # FileError among them
            raise FileError(self.where, f"its constants can't be computed: {e}") from None
        self.arrays |= dict(zip(names, found, strict=True))

    def _array(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            self.arrays[name] = self._tensor(self.held[name])
        return self.arrays[name]

    def _tensor(self, tensor: Any) -> np.ndarray:
        try:
            found: np.ndarray = self.onnx.numpy_helper.to_array(tensor)
        except Exception as e:  # of the library: ValueError, TypeError, ...
            raise FileError(f"{self.where}: tensor {tensor.name}", f"can't be read: {e}") from None
        return found

    def _finite(self, name: str, at: str) -> np.ndarray:
        array = self._array(name)
        if array.dtype.name not in COMPUTED:
            raise FileError(f"{at}: tensor {name}", f"holds {array.dtype} values, not numbers")
        if not np.isfinite(array).all():
            raise FileError(f"{at}: tensor {name}", "holds NaN or infinities")
        return array

    def _plain(self, attribute: Any, at: str) -> Any:
        """The value of an attribute of a recurrent node, as Python and JSON have it."""
        try:
            value = self.onnx.helper.get_attribute_value(attribute)
            if isinstance(value, bytes):
                return value.decode()
            if isinstance(value, int | float):
                return value
            return [v.decode() if isinstance(v, bytes) else v for v in value]
        except (ValueError, TypeError):  # UnicodeDecodeError among them
            raise FileError(at, f"attribute {attribute.name} is neither number nor text") from None

    # ---- types -----------------------------------------------------------------------------------

    def _types(self) -> dict[str, Any]:
        """TypeProtos of values, as far as they follow."""
        try:
            graph = self.onnx.shape_inference.infer_shapes(self.proto).graph
        except Exception as e:  # of the library: InferenceError, RuntimeError, ...
            raise FileError(self.where, f"is no right ONNX model: {e}") from None
        values = [*graph.value_info, *graph.input, *graph.output]
        types = {v.name: v.type for v in values}
        for node in graph.node:
            if is_recurrent(node) and node.input:  # where shapes don't follow, dtypes do
                own = self.onnx.TypeProto()
                own.tensor_type.elem_type = self._element(types, node.input[0])
                for name in filter(None, node.output):
                    if not self._element(types, name):
                        types[name] = own
        return types

    def _element(self, types: Mapping[str, Any], name: str) -> int:
        if name in types and types[name].HasField("tensor_type"):
            return int(types[name].tensor_type.elem_type)
        return int(self.held[name].data_type) if name in self.held else 0

    def _dtype(self, name: str, at: str) -> str:
        element = self._element(self.types, name)
        if not element:
            raise FileError(at, f"the type of its input {name} doesn't follow from the file")
        dtype = self._numpy(element, at).name
        if dtype not in COMPUTED:
            raise FileError(at, f"X holds {dtype} values, expected one of {', '.join(COMPUTED)}")
        return str(dtype)

    def _numpy(self, element: int, at: str) -> np.dtype:
        try:
            return np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(element))
        except (KeyError, TypeError):
            raise FileError(at, f"holds values of type {element}, which isn't known") from None

    def _port(self, value: Any) -> Port:
        at, kind = f"{self.where}: {value.name}", self.types.get(value.name, value.type)
        if not kind.HasField("tensor_type") or not kind.tensor_type.elem_type:
            raise FileError(at, "is no tensor of known type, which inputs and outputs have to be")
        dtype = self._numpy(kind.tensor_type.elem_type, at)
        if dtype.kind not in "biuf":
            raise FileError(at, f"holds {dtype} values, not numbers")
        shape: list[int | str] = []
        for i, axis in enumerate(kind.tensor_type.shape.dim):
            size = axis.dim_param or f"{value.name}.{i}"
            shape.append(axis.dim_value if axis.HasField("dim_value") else size)
        return Port(value.name, tuple(shape), dtype.name)

    def _shape(self, name: str) -> Sequence[int] | None:
        """Of a value, 0 for sizes that don't follow; None where nothing does."""
        if name in self.held:
            return list(self.held[name].dims)
        kind = self.types.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        return [d.dim_value for d in kind.tensor_type.shape.dim]

    def _known(self, name: str) -> np.ndarray | None:
        """What a constant holds, if it is in the file as it is."""
        if name in self.held or name in self.arrays:
            return self._array(name)
        made = next((n for n in self.nodes if name in n.output), None)
        if made is None or made.op_type != "Constant":
            return None
        found = self._said(made)
        if "value" in found:
            return self._tensor(found["value"])
        return next((np.asarray(v) for k, v in found.items() if k.startswith("value_")), None)

    def _said(self, node: Any) -> dict[str, Any]:
        """All attributes of a node."""
        return {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}

    def _submodel(
        self, nodes: Sequence[Any], inputs: Sequence[str], outputs: Sequence[str], name: str
    ) -> Any:
        model = type(self.proto)(ir_version=self.proto.ir_version)
        model.opset_import.extend(self.proto.opset_import)
        graph = model.graph
        graph.name = "part"
        graph.node.extend(nodes)
        read = {n for node in nodes for n in read_by(node)}
        for n, tensor in self.held.items():
            if n in read and n in self.large:
                add_input(graph, n, tensor.data_type, tensor.dims)
            elif n in read:
                graph.initializer.append(tensor)
        made = {n for node in nodes for n in node.output}
        for n in inputs:
            if not self._element(self.types, n):
                raise FileError(name, f"the type of {n} doesn't follow from the file")
            graph.input.append(self._value(n))
        for n in outputs:
            graph.output.append(self._value(n))
            assert n in made
        return model

    def _large_of(self, model: Any) -> dict[str, np.ndarray]:
        """The large arrays among its inputs."""
        return {i.name: self.arrays[i.name] for i in model.graph.input if i.name in self.large}

    def _bare(self, name: str, array: np.ndarray) -> Any:
        """A tensor's type and shape."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        return self.onnx.TensorProto(name=name, data_type=kind, dims=array.shape)

    def _value(self, name: str) -> Any:
        value = self.onnx.ValueInfoProto(name=name)
        if name in self.types:
            value.type.CopyFrom(self.types[name])
            # What the whole says of shapes may be names that a part doesn't know how to bind.
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
        return value
