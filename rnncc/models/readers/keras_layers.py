"""Keras's layers without states -> parts, and what becomes of a mask behind each.

Non-Goals: recurrent layers (`keras_recurrent`); how they are wired (`keras_model`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rnncc.files import FileError
from rnncc.models.component import Component
from rnncc.models.plain import (
    Activation,
    BatchNorm,
    Concatenated,
    Convolution,
    Dense,
    EachStep,
    Embedding,
    Gain,
    JoinedBy,
    LayerNorm,
    MaskedSteps,
    Permuted,
    PooledSteps,
    PRelu,
    RepeatedSteps,
    Reshaped,
    Same,
)
from rnncc.models.readers.building import whole_size
from rnncc.models.readers.keras_functions import function_of, is_function_layer, layer_function
from rnncc.models.readers.keras_weights import LayerWeights


class MaskWay(Enum):
    """What a layer does with a mask: hands it on, ends it, reads it, makes one of its own."""

    KEPT = "kept"
    ENDED = "ended"
    READ = "read"
    MADE = "made"
    JOINED = "joined"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class LayerEntry:
    """One layer of a configuration. dtype, version: of the model."""

    where: str
    name: str
    kind: str
    config: Mapping[str, Any]
    weights: LayerWeights
    dtype: str
    version: str

    @property
    def label(self) -> str:
        return f"{self.where}: {self.name} ({self.kind})"

    def taken(self, *names: str) -> list[Any]:
        return [a.astype(self.dtype, copy=False) for a in self.weights.take("", names)]

    def flag(self, name: str, default: bool = True) -> bool:
        return bool(self.config.get(name, default))


Maker = Callable[[LayerEntry], Component]


def made_layer(entry: LayerEntry) -> tuple[Component, MaskWay]:
    """The part of a layer. FileError for a layer that isn't read, by its class."""
    if is_function_layer(entry.kind):
        name, parameters = layer_function(entry.label, entry.kind, entry.config)
        # Keras's Softmax reads a mask as one of its input's numbers.
        way = MaskWay.REFUSED if name == "softmax" else MaskWay.KEPT
        return Activation(entry.name, name, parameters), way
    if entry.kind not in _MAKERS:
        raise FileError(
            entry.label, f"layers of this class aren't read; read are {', '.join(known())}"
        )
    maker, way = _MAKERS[entry.kind]
    try:
        part = maker(entry)
    except FileError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise FileError(entry.label, f"it can't be made: {error!s:.300}") from None
    if entry.kind == "Embedding" and not entry.flag("mask_zero", False):
        way = MaskWay.ENDED
    return part, way


def known() -> list[str]:
    """Classes of layers without states."""
    return sorted([*_MAKERS, "ReLU", "LeakyReLU", "ELU", "Softmax"])


def _dense(entry: LayerEntry) -> Component:
    names = ["kernel", "bias"] if entry.flag("use_bias") else ["kernel"]
    function, parameters = function_of(entry.label, entry.config.get("activation"), entry.version)
    kernel, bias = [*entry.taken(*names), None][:2]
    return Dense(entry.name, kernel, bias, function, parameters)


def _embedding(entry: LayerEntry) -> Component:
    (table,) = entry.taken("embeddings")
    return Embedding(entry.name, table, entry.flag("mask_zero", False))


def _activation(entry: LayerEntry) -> Component:
    function, parameters = function_of(entry.label, entry.config.get("activation"), entry.version)
    return Activation(entry.name, function, parameters)


def _prelu(entry: LayerEntry) -> Component:
    return PRelu(entry.name, entry.taken("alpha")[0])


def _batch_norm(entry: LayerEntry) -> Component:
    scale, center = entry.flag("scale"), entry.flag("center")
    affine = [n for n, there in (("gamma", scale), ("beta", center)) if there]
    *rest, mean, variance = entry.taken(*affine, "moving_mean", "moving_variance")
    found = dict(zip(affine, rest, strict=True))
    axis = entry.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if type(axis) is not int:
        raise FileError(entry.label, f"its axis is {axis!r:.80}; one is read")
    epsilon = float(entry.config["epsilon"])
    return BatchNorm(entry.name, mean, variance, **found, epsilon=epsilon, axis=axis)


def _layer_norm(entry: LayerEntry) -> Component:
    if entry.flag("rms_scaling", False):
        raise FileError(entry.label, "rms_scaling=True isn't read")
    axis = entry.config.get("axis", -1)
    axes = list(axis) if isinstance(axis, list) else [axis]
    scale, center = entry.flag("scale"), entry.flag("center")
    names = [n for n, there in (("gamma", scale), ("beta", center)) if there]
    found = dict(zip(names, entry.taken(*names), strict=True))
    if any(type(a) is not int for a in axes) or axes != list(range(-len(axes), 0)):
        raise FileError(entry.label, f"its axis is {axis!r:.80}; the last ones are read, as [-1]")
    return LayerNorm(entry.name, **found, epsilon=float(entry.config["epsilon"]), axes=len(axes))


def _same(entry: LayerEntry) -> Component:
    return Same(entry.name, entry.kind)


def _masking(entry: LayerEntry) -> Component:
    return MaskedSteps(entry.name, float(entry.config.get("mask_value", 0.0)))


def _flatten(entry: LayerEntry) -> Component:
    _channels_last(entry)
    return Reshaped(entry.name, [-1])


def _reshape(entry: LayerEntry) -> Component:
    return Reshaped(entry.name, entry.config["target_shape"])


def _permute(entry: LayerEntry) -> Component:
    return Permuted(entry.name, [0, *entry.config["dims"]])


def _repeat(entry: LayerEntry) -> Component:
    return RepeatedSteps(entry.name, whole_size(entry.label, "n", entry.config["n"]))


def _joined(by: str) -> Maker:
    return lambda entry: JoinedBy(entry.name, by)


def _concatenate(entry: LayerEntry) -> Component:
    axis = entry.config.get("axis", -1)
    if type(axis) is not int:
        raise FileError(entry.label, f"its axis is {axis!r:.80}")
    return Concatenated(entry.name, axis)


def _conv1d(entry: LayerEntry) -> Component:
    _channels_last(entry)
    if entry.config.get("groups", 1) != 1:
        raise FileError(entry.label, f"{entry.config['groups']!r:.80} groups aren't read, one is")
    (stride,), (dilation,) = entry.config["strides"], entry.config.get("dilation_rate", [1])
    names = ["kernel", "bias"] if entry.flag("use_bias") else ["kernel"]
    function, parameters = function_of(entry.label, entry.config.get("activation"), entry.version)
    kernel, bias = [*entry.taken(*names), None][:2]
    padding = entry.config["padding"]
    return Convolution(entry.name, kernel, bias, stride, dilation, padding, function, parameters)


def _pooled(by: str) -> Maker:
    def made(entry: LayerEntry) -> Component:
        _channels_last(entry)
        if entry.flag("keepdims", False):
            raise FileError(entry.label, "keepdims=True isn't read")
        return PooledSteps(entry.name, by)

    return made


def _channels_last(entry: LayerEntry) -> None:
    if entry.config.get("data_format", "channels_last") not in ("channels_last", None):
        raise FileError(entry.label, "data_format is read where it is channels_last")


def _rescaling(entry: LayerEntry) -> Component:
    scale, offset = entry.config.get("scale"), entry.config.get("offset", 0.0)
    if not all(isinstance(v, int | float) for v in (scale, offset)):
        raise FileError(entry.label, "a scale or an offset that is no number isn't read")
    return Gain(entry.name, float(scale), float(offset))  # type: ignore[arg-type]


def _each_step(entry: LayerEntry) -> Component:
    inner = entry.config["layer"]
    kind, config = inner["class_name"], inner["config"]
    weights = entry.weights.child("layer")
    within = LayerEntry(entry.where, entry.name, kind, config, weights, entry.dtype, entry.version)
    if kind not in (
        "Dense",
        "Activation",
        "PReLU",
        "Flatten",
        "Reshape",
        "LayerNormalization",
        "BatchNormalization",
        "Dropout",
        "Embedding",
    ) and not is_function_layer(kind):
        raise FileError(entry.label, f"of a {kind!r:.80}, which isn't read at each step")
    part, _ = made_layer(within)
    if kind == "Embedding" and within.flag("mask_zero", False):
        raise FileError(entry.label, "of an Embedding with mask_zero isn't read")
    return EachStep(entry.name, part)


_MAKERS: dict[str, tuple[Maker, MaskWay]] = {
    "Dense": (_dense, MaskWay.KEPT),
    "Conv1D": (_conv1d, MaskWay.ENDED),
    "Embedding": (_embedding, MaskWay.MADE),
    "Masking": (_masking, MaskWay.MADE),
    "TimeDistributed": (_each_step, MaskWay.KEPT),
    "BatchNormalization": (_batch_norm, MaskWay.KEPT),
    "LayerNormalization": (_layer_norm, MaskWay.KEPT),
    "Activation": (_activation, MaskWay.KEPT),
    "PReLU": (_prelu, MaskWay.KEPT),
    "Flatten": (_flatten, MaskWay.ENDED),
    "Reshape": (_reshape, MaskWay.ENDED),
    "Permute": (_permute, MaskWay.ENDED),
    "RepeatVector": (_repeat, MaskWay.ENDED),
    "Concatenate": (_concatenate, MaskWay.JOINED),
    "GlobalAveragePooling1D": (_pooled("mean"), MaskWay.READ),
    "GlobalMaxPooling1D": (_pooled("max"), MaskWay.ENDED),
    "Rescaling": (_rescaling, MaskWay.KEPT),
    **dict.fromkeys(
        (
            "Dropout",
            "SpatialDropout1D",
            "GaussianDropout",
            "GaussianNoise",
            "AlphaDropout",
            "ActivityRegularization",
            "Identity",
        ),
        (_same, MaskWay.KEPT),
    ),
    **{
        kind: (_joined(kind.lower()), MaskWay.JOINED)
        for kind in ("Add", "Multiply", "Subtract", "Average", "Maximum", "Minimum")
    },
}
