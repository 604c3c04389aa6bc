"""A Keras model's configuration and weights -> a Model. Nothing of it is imported or executed.

Sequential and functional models, and such within each other. A mask that a layer makes goes where
Keras lets it go.

Non-Goals: single layers (`keras_layers`, `keras_recurrent`); weights without a model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnncc.files import FileError, Tensors
from rnncc.files.json_text import parsed
from rnncc.models.component import Component, Port, Wired
from rnncc.models.model import Model
from rnncc.models.plain import JoinedBy, MaskStep
from rnncc.models.readers.keras_layers import LayerEntry, MaskWay, known, made_layer
from rnncc.models.readers.keras_nodes import KerasCall, Reference, calls_of, layer_name, listed
from rnncc.models.readers.keras_recurrent import KINDS, RecurrentReader
from rnncc.models.readers.keras_weights import LayerWeights, NamedWeights, NumberedWeights
from rnncc.models.recurrent import Recurrent

MODELS = ("Sequential", "Functional", "Model")
MOST_LEVELS = 16
MASK_MODULES = ("keras.src.ops.numpy", None)  # HDF5 files don't say the module
# What they are here, and of how many arrays.
MASK_OPERATIONS = {
    "NotEqual": ("not_equal", 1),
    "Any": ("any", 1),
    "LogicalOr": ("or", 2),
    "LogicalAnd": ("and", 2),
}


def read_keras_model(tensors: Tensors) -> Model:
    """Of a .keras file, or of HDF5 with a model in it. FileError for what isn't read."""
    where, config = tensors.where, tensors.metadata.get("config")
    about: Any = tensors.metadata.get("metadata", {})
    version = tensors.metadata.get("keras_version")
    weights: LayerWeights = NumberedWeights(tensors)
    if config is None:
        text = tensors.metadata["model_config"]
        if not isinstance(text, str):
            raise FileError(where, "its model_config is no text")
        config = parsed(text.encode(), f"{where}: model_config")
        weights = NamedWeights(tensors, [])
    elif isinstance(about, Mapping):
        version = about.get("keras_version", version)
    graph = _Graph(where, str(version or ""), _dtype_of(where, config))
    try:
        model = graph.whole(config, weights)
    except FileError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        said = f"{type(error).__name__}: {error!s:.200}"
        raise FileError(where, f"its configuration is no model of Keras: {said}") from None
    return model


def _dtype_of(where: str, config: Any) -> str:
    """Of the whole model: float64 where a layer says so, else float32."""
    text = json.dumps(config)
    for refused in ("QuantizedDTypePolicy", "QuantizedFloat8DTypePolicy"):
        if refused in text:
            raise FileError(where, "its weights are quantised, which isn't read")
    return "float64" if '"float64"' in text else "float32"


class _Graph:
    """Parts and values as they are found."""

    def __init__(self, where: str, version: str, dtype: str) -> None:
        self.where, self.version, self.dtype = where, version, dtype
        self.nodes: list[Wired] = []
        self.masks: dict[str, str] = {}  # a value's mask, by the value's name
        self.ports: list[Port] = []
        self.stores: list[LayerWeights] = []

    def whole(self, entry: Mapping[str, Any], weights: LayerWeights) -> Model:
        outputs = self.model(entry, weights, "", None, 0)
        for store in self.stores:
            store.check_all_taken()
        names = {v: n for n, v in reversed(outputs.items())}
        if len(names) != len(outputs):
            raise FileError(self.where, "one value is two outputs")
        ports = [Port(n, ("...",), self.dtype) for n in outputs]
        nodes = [
            Wired(n.part, *(tuple(names.get(v, v) for v in vs) for vs in (n.inputs, n.outputs)))
            for n in self.nodes
        ]
        metadata = {"keras_version": self.version or None}
        return Model(self.ports, ports, nodes, origin=Path(self.where).name, metadata=metadata)

    def model(
        self,
        entry: Mapping[str, Any],
        weights: LayerWeights,
        prefix: str,
        inputs: Sequence[str] | None,
        level: int,
    ) -> dict[str, str]:
        """The values that a model puts out, by names. inputs: what it reads; None: ports."""
        kind, config = entry["class_name"], entry["config"]
        if kind not in MODELS:
            raise FileError(
                self.where, f"a model of the class {kind!r:.80}; Sequential and Functional are read"
            )
        if level > MOST_LEVELS:
            raise FileError(self.where, f"models within models, {level} levels")
        layers = config if isinstance(config, list) else config["layers"]  # Keras 2.0's list
        own = weights.of_layers(
            (str(e["class_name"]), layer_name(e)) for e in layers if _has_weights(kind, e)
        )
        if level == 0:
            self.stores = list(own.values()) if isinstance(weights, NamedWeights) else [weights]
        if kind == "Sequential":
            return self._sequential(entry, layers, own, prefix, inputs, level)
        return self._functional(config, layers, own, prefix, inputs, level)

    def _sequential(
        self,
        entry: Mapping[str, Any],
        layers: Sequence[Mapping[str, Any]],
        own: Mapping[str, LayerWeights],
        prefix: str,
        inputs: Sequence[str] | None,
        level: int,
    ) -> dict[str, str]:
        first = layers[0]
        rest = layers[1:] if first["class_name"] == "InputLayer" else layers
        if inputs is None:
            value = self._port(first, entry)
        else:
            (value,) = inputs
        for layer in rest:
            call = KerasCall((Reference("", 0, 0),), ())
            name = layer_name(layer)
            made = self._call(layer, own.get(name), prefix + name, [value], [], call, level)
            if len(made) != 1:
                raise FileError(f"{self.where}: {name}", "a layer of a chain with several outputs")
            value = made[0]
        return {prefix or "y": value}

    def _functional(
        self,
        config: Mapping[str, Any],
        layers: Sequence[Mapping[str, Any]],
        own: Mapping[str, LayerWeights],
        prefix: str,
        inputs: Sequence[str] | None,
        level: int,
    ) -> dict[str, str]:
        values: dict[Reference, str] = {}
        asked = listed(config["input_layers"])
        for i, (_, reference) in enumerate(asked):
            entry = next((e for e in layers if layer_name(e) == reference.layer), None)
            if entry is None:
                raise FileError(self.where, f"no layer is its input {reference.layer!r:.80}")
            values[reference] = self._port(entry, None) if inputs is None else inputs[i]
        parts: dict[str, tuple[Component, MaskWay]] = {}
        waiting = [
            (e, i, call)
            for e in layers
            if e["class_name"] != "InputLayer"
            for i, call in enumerate(calls_of(self.where, e))
        ]
        while waiting:
            later = []
            for entry, index, call in waiting:
                if not all(r in values for r in call.reads):
                    later.append((entry, index, call))
                    continue
                name = layer_name(entry)
                reads, states = ([values[r] for r in rs] for rs in (call.inputs, call.states))
                called = prefix + name + (f".call{index}" if index else "")
                made = self._call(entry, own.get(name), called, reads, states, call, level, parts)
                values |= {Reference(name, index, i): v for i, v in enumerate(made)}
            if len(later) == len(waiting):
                names = ", ".join(layer_name(e) for e, _, _ in later[:10])
                raise FileError(self.where, f"what {names} read is made by no layer")
            waiting = later
        found: dict[str, str] = {}
        for key, reference in listed(config["output_layers"]):
            name = prefix + (key or reference.layer)
            while name in found:
                name += "_"
            found[name] = values[reference]
        return found

    def _call(
        self,
        entry: Mapping[str, Any],
        weights: LayerWeights | None,
        name: str,
        inputs: list[str],
        states: list[str],
        call: KerasCall,
        level: int,
        shared: dict[str, tuple[Component, MaskWay]] | None = None,
    ) -> list[str]:
        """The values that a layer makes of these."""
        kind = str(entry["class_name"])
        if kind in MODELS:
            if weights is None or call.index:
                raise FileError(f"{self.where}: {name}", "a model that is called twice isn't read")
            inner = self.model(entry, weights, f"{name}/", inputs, level + 1)
            return list(inner.values())
        if kind in MASK_OPERATIONS and entry.get("module") in MASK_MODULES:
            return [self._mask_step(entry, name, [*inputs, *states], call)]
        part, way = self._part(entry, weights, name, shared if shared is not None else {})
        mask = self._mask(name, kind, inputs, way)
        if way is MaskWay.READ and (mask or states):
            inputs = [*inputs[:1], mask, *states]
        elif states or (len(inputs) > 1 and way is not MaskWay.JOINED):
            raise FileError(f"{self.where}: {name}", f"a {kind} that reads several arrays")
        count = _count(part)
        outputs = [f"{name}.{i}" for i in range(count)]
        if way is MaskWay.MADE:
            mask = f"{name}.mask"
        own = [*outputs, mask] if way is MaskWay.MADE else outputs
        self.nodes.append(Wired(part, tuple(inputs), tuple(own)))
        if mask and way in (MaskWay.KEPT, MaskWay.MADE, MaskWay.JOINED):
            self.masks |= dict.fromkeys(outputs, mask)
        elif mask and isinstance(part, Recurrent) and part.layer.return_sequences:
            steps = 2 if getattr(part.layer, "merge_mode", "") is None else 1
            self.masks |= dict.fromkeys(outputs[:steps], mask)
        return outputs

    def _part(
        self,
        entry: Mapping[str, Any],
        weights: LayerWeights | None,
        name: str,
        shared: dict[str, tuple[Component, MaskWay]],
    ) -> tuple[Component, MaskWay]:
        """A layer's own part; where it is called again, another of the same weights."""
        kind, key = str(entry["class_name"]), layer_name(entry)
        module = str(entry.get("module") or "keras.layers")
        if not module.startswith(("keras.layers", "keras.src.layers", "rnncc.keras")):
            raise FileError(
                f"{self.where}: {name}",
                f"{kind} of {module:.80}; only Keras's layers are read",
            )
        if key in shared:
            part, way = shared[key]
            again = copy.copy(part)
            again.name = name
            return again, way
        if weights is None:  # an input that isn't the first
            raise FileError(f"{self.where}: {name}", f"a {kind} in the middle of a chain")
        if kind in KINDS:
            reader = RecurrentReader(self.where, self.version, self.dtype)
            made: tuple[Component, MaskWay] = reader.read(name, entry, weights), MaskWay.READ
        else:
            config = entry["config"]
            layer = LayerEntry(self.where, name, kind, config, weights, self.dtype, self.version)
            made = made_layer(layer)
        shared[key] = made
        return made

    def _mask_step(
        self, entry: Mapping[str, Any], name: str, inputs: Sequence[str], call: KerasCall
    ) -> str:
        """Functional models of Keras 3 spell out how masks are made."""
        by, count = MASK_OPERATIONS[str(entry["class_name"])]
        config = entry["config"]
        along = config.get("axis", -1) == -1 and not config.get("keepdims", False)
        constants = call.constants or ((0.0,) if by == "not_equal" else ())
        if len(inputs) != count or not along or len(constants) != (by == "not_equal"):
            raise FileError(f"{self.where}: {name}", f"this {entry['class_name']} isn't read")
        part = MaskStep(name, by, *constants)
        self.nodes.append(Wired(part, tuple(inputs), (f"{name}.0",)))
        return f"{name}.0"

    def _mask(self, name: str, kind: str, inputs: Sequence[str], way: MaskWay) -> str:
        """The mask of what a layer reads; "" for none."""
        masks = [self.masks.get(v, "") for v in inputs]
        if way is MaskWay.REFUSED and masks[0]:
            raise FileError(f"{self.where}: {name}", f"a {kind} behind a mask isn't read")
        if way is not MaskWay.JOINED:
            return masks[0]
        if not all(masks):
            return ""  # where one has none, every step counts
        if len(set(masks)) == 1:
            return masks[0]
        self.nodes.append(
            Wired(JoinedBy(f"{name}.mask", "maximum"), tuple(masks), (f"{name}.mask",))
        )
        return f"{name}.mask"

    def _port(self, entry: Mapping[str, Any], model: Mapping[str, Any] | None) -> str:
        """What goes in at a layer: its shape and kind."""
        config = entry["config"]
        shape = config.get("batch_shape", config.get("batch_input_shape"))
        if shape is None and model is not None:
            inner = model["config"]
            shape = inner.get("build_input_shape") if isinstance(inner, Mapping) else None
            shape = shape or (model.get("build_config") or {}).get("input_shape")
        name = layer_name(entry) if entry["class_name"] == "InputLayer" else "x"
        sizes = isinstance(shape, list) and all(n is None or type(n) is int for n in shape)
        if not sizes or len(shape) < 2:
            raise FileError(f"{self.where}: {name}", f"its input's shape is {shape!r:.80}")
        if config.get("sparse") or config.get("ragged"):
            raise FileError(f"{self.where}: {name}", "sparse and ragged inputs aren't read")
        dtype = config.get("dtype", "float32") if entry["class_name"] == "InputLayer" else "float32"
        dtype = (
            dtype if isinstance(dtype, str) and dtype.startswith(("int", "uint")) else self.dtype
        )
        time = "time" if not self.ports else f"time of {name}"
        named = ["batch", time, *(f"axis {i} of {name}" for i in range(2, len(shape)))]
        whole = tuple(n if s is None else s for n, s in zip(named, shape, strict=False))
        self.ports.append(Port(name, whole, dtype))
        return name


def _has_weights(kind: str, entry: Mapping[str, Any]) -> bool:
    """Whether a layer is one of those that are counted: a chain's input isn't."""
    return not (kind == "Sequential" and entry["class_name"] == "InputLayer")


def _count(part: Component) -> int:
    """How many arrays it puts out, a mask not among them."""
    if not isinstance(part, Recurrent):
        return 1
    layer = part.layer
    both = 2 if getattr(layer, "merge_mode", "") is None else 1
    return both + (len(layer.cell.states) if layer.return_state else 0)


__all__ = ["known", "read_keras_model"]
