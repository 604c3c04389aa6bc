"""Amplifiers and effects that were trained: .nam, RTNeural's JSON, AIDA-X's, Proteus's.

    in: [batch, time, 1], samples of the file's sample rate (model.metadata["sample_rate"])
    RTNeural     Keras's layers, each one's weights as nested lists
    AIDA-X       the same, with gains in dB, and in_skip: u = in_gain * x; y = out_gain * (f(u) + u)
    Proteus      a torch state_dict as lists; skip: y = f(x) + x
    NAM          architecture LSTM: one flat list; states to start from

Non-Goals: other architectures of NAM; tone controls and impulse responses around a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnncc.files import FileError
from rnncc.files.json_text import nested_numbers
from rnncc.layers import GRU, LSTM
from rnncc.models.model import Model
from rnncc.models.plain import (
    Activation,
    BatchNorm,
    Dense,
    FirstFeatures,
    Gain,
    JoinedBy,
    PRelu,
)
from rnncc.models.readers.building import Chain, fitting, recurrent, whole_size
from rnncc.models.readers.torch_chain import chain_of
from rnncc.models.readers.torch_groups import groups_of

ACTIVATIONS = ("tanh", "relu", "sigmoid", "softmax", "elu")


def is_amplifier(document: object) -> bool:
    """Whether it is one of these, or says that it is."""
    return isinstance(document, Mapping) and bool(
        {"architecture", "layers", "state_dict"} & document.keys()
    )


def read_amplifier(document: Mapping[str, Any], where: str, dtype: str = "float32") -> Model:
    """FileError for what isn't read, by its name, and for numbers that don't fit."""
    if "architecture" in document:
        return _nam(document, where, dtype)
    if "state_dict" in document:
        return _proteus(document, where, dtype)
    return _rtneural(document, where, dtype)


# ---- NAM -----------------------------------------------------------------------------------------


def _nam(document: Mapping[str, Any], where: str, dtype: str) -> Model:
    architecture = document["architecture"]
    if architecture != "LSTM":
        raise FileError(where, f"its architecture is {architecture!r:.80}; LSTM is what is read")
    config = _object(where, "config", document.get("config"))
    features, units, count = (
        whole_size(where, f"config {n}", config.get(n), 2**12)
        for n in ("input_size", "hidden_size", "num_layers")
    )
    flat = _numbers(where, "weights", document.get("weights"))
    needed = (units + 1) + sum(
        4 * units * (reads + units) + 6 * units
        for reads in [features, *(units for _ in range(count - 1))]
    )
    if flat.ndim != 1 or len(flat) != needed:
        shape = "x".join(map(str, flat.shape))
        raise FileError(where, f"weights has {shape} numbers, config asks for {needed}")
    chain, taken = Chain(where, features, dtype), _Taken(flat.astype(dtype))
    for i in range(count):
        reads = features if i == 0 else units
        both = taken(4 * units, reads + units)
        # Gates i f g o, one below the other: Keras's order, its kernels the other way round.
        kernel, recurrent_kernel = both[:, :reads].T, both[:, reads:].T
        given = {"kernel": kernel, "recurrent_kernel": recurrent_kernel, "bias": taken(4 * units)}
        starts = [taken(1, units), taken(1, units)]
        layer = LSTM(units, return_sequences=True, dtype=dtype)
        sizes = {"features": reads, "units": units}
        chain.add(recurrent(where, f"lstm_{i}", layer, sizes, given, starts), units)
    chain.add(Dense("head", taken(1, units).T, taken(1)), 1)
    rate = document.get("sample_rate")
    return chain.model({"sample_rate": rate, "nam": document.get("metadata")})


class _Taken:
    """One array after the other off a flat one."""

    def __init__(self, flat: np.ndarray) -> None:
        self.flat, self.at = flat, 0

    def __call__(self, *shape: int) -> np.ndarray:
        end = self.at + math.prod(shape)
        found = self.flat[self.at : end].reshape(shape)
        self.at = end
        return found


# ---- RTNeural and AIDA-X -------------------------------------------------------------------------


def _rtneural(document: Mapping[str, Any], where: str, dtype: str) -> Model:
    shape, layers = document.get("in_shape"), document.get("layers")
    if not isinstance(shape, list) or not shape or not isinstance(layers, list) or not layers:
        raise FileError(where, "in_shape and layers are lists of a size and of a layer, or more")
    chain = Chain(where, whole_size(where, "in_shape's last", shape[-1]), dtype)
    first = chain.features
    gain_in, gain_out = (_decibels(where, document, n) for n in ("in_gain", "out_gain"))
    skips = document.get("in_skip", 0) or 0
    if skips not in (0, 1):
        raise FileError(where, f"in_skip is 0 or 1, not {skips!r:.80}")
    if gain_in != 1:
        chain.add(Gain("in_gain", gain_in))
    louder = chain.value
    for i, layer in enumerate(layers):
        label = f"{where}: layers/{i}"
        entry = _object(label, "a layer", layer)
        kind = entry.get("type")
        if not isinstance(kind, str) or kind not in _LAYERS:
            known = ", ".join(_LAYERS)
            raise FileError(label, f"its type is {kind!r:.80}; read are {known}")
        weights = entry.get("weights", [])
        if not isinstance(weights, list):
            raise FileError(label, "weights is a list of arrays")
        arrays = [_numbers(label, f"weights/{n}", w).astype(dtype) for n, w in enumerate(weights)]
        _LAYERS[kind](chain, label, f"{i}_{kind.replace('-', '_')}", entry, arrays)
    if skips:
        _skipped(chain, louder, first)
    if gain_out != 1:
        chain.add(Gain("out_gain", gain_out))
    metadata = document.get("metadata")
    found = metadata.get("samplerate") if isinstance(metadata, Mapping) else None
    rate = document.get("samplerate") if found is None else found
    return chain.model({"sample_rate": rate, "aida": metadata})


def _dense(chain: Chain, where: str, name: str, entry: Any, arrays: list[np.ndarray]) -> None:
    _counted(where, arrays, (1, 2))
    kernel, bias = arrays[0], arrays[1] if len(arrays) > 1 else None
    if kernel.ndim != 2 or (bias is not None and bias.shape != kernel.shape[1:]):
        raise FileError(where, f"a dense layer of shapes {[list(a.shape) for a in arrays]}")
    fitting(where, name, chain.features, len(kernel))
    chain.add(Dense(name, kernel, bias), kernel.shape[1])
    _then_activation(chain, where, name, entry)


def _lstm(chain: Chain, where: str, name: str, entry: Any, arrays: list[np.ndarray]) -> None:
    _keras_cell(LSTM, 4, chain, where, name, entry, arrays)


def _gru(chain: Chain, where: str, name: str, entry: Any, arrays: list[np.ndarray]) -> None:
    _keras_cell(GRU, 3, chain, where, name, entry, arrays)


def _keras_cell(
    cls: Any,
    gates: int,
    chain: Chain,
    where: str,
    name: str,
    entry: Mapping[str, Any],
    arrays: list[np.ndarray],
) -> None:
    _counted(where, arrays, (3,))
    if entry.get("activation") not in ("tanh", "", None):
        raise FileError(where, f"a cell with {entry['activation']!r:.80}; RTNeural's have tanh")
    kernel, recurrent_kernel, bias = arrays
    units = len(recurrent_kernel)
    shapes = [list(a.shape) for a in arrays]
    biases = [[gates * units]] if gates == 4 else [[2, gates * units], [gates * units]]
    inner = [[chain.features, gates * units], [units, gates * units]]
    if shapes[:2] != inner or shapes[2] not in biases:
        raise FileError(where, f"weights of {shapes}, expected {[*inner, biases[0]]}")
    options = {} if gates == 4 else {"reset_after": bias.ndim == 2}
    layer = cls(units, return_sequences=True, dtype=chain.dtype, **options)
    given = {"kernel": kernel, "recurrent_kernel": recurrent_kernel, "bias": bias}
    sizes = {"features": chain.features, "units": units}
    chain.add(recurrent(where, name, layer, sizes, given), units)


def _function(chain: Chain, where: str, name: str, entry: Any, arrays: list[np.ndarray]) -> None:
    _counted(where, arrays, (0,))
    _then_activation(chain, where, name, entry)


def _prelu(chain: Chain, where: str, name: str, entry: Any, arrays: list[np.ndarray]) -> None:
    _counted(where, arrays, (1,))
    alpha = arrays[0].reshape(-1)
    if len(alpha) not in (1, chain.features):
        raise FileError(where, f"{len(alpha)} slopes for {chain.features} features")
    chain.add(PRelu(name, alpha))


def _batch_norm(chain: Chain, where: str, name: str, entry: Any, arrays: list[np.ndarray]) -> None:
    _counted(where, arrays, (2, 4))
    if any(a.shape != (chain.features,) for a in arrays):
        raise FileError(where, f"{[list(a.shape) for a in arrays]} for {chain.features} features")
    epsilon = _number(where, "epsilon", entry.get("epsilon", 1e-3))
    *affine, mean, variance = arrays
    gamma, beta = affine or (None, None)
    try:
        chain.add(BatchNorm(name, mean, variance, gamma, beta, epsilon))
    except ValueError as error:
        raise FileError(where, str(error)) from None


_LAYERS = {
    "dense": _dense,
    "time-distributed-dense": _dense,
    "lstm": _lstm,
    "gru": _gru,
    "activation": _function,
    "prelu": _prelu,
    "batchnorm": _batch_norm,
}


def _then_activation(chain: Chain, where: str, name: str, entry: Mapping[str, Any]) -> None:
    """The function that a layer ends in, if any."""
    function = entry.get("activation") or "linear"
    if function == "linear":
        return
    if function not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise FileError(where, f"its activation is {function!r:.80}; read are {known}")
    chain.add(Activation(f"{name}_{function}", function))


# ---- Proteus -------------------------------------------------------------------------------------


def _proteus(document: Mapping[str, Any], where: str, dtype: str) -> Model:
    data = _object(where, "model_data", document.get("model_data"))
    state = _object(where, "state_dict", document["state_dict"])
    arrays = {n: _numbers(f"{where}: state_dict", n, a) for n, a in state.items()}
    kind = str(data.get("unit_type", "LSTM")).lower()
    if kind not in ("lstm", "gru", "rnn"):
        raise FileError(where, f"its unit_type is {data['unit_type']!r:.80}; LSTM, GRU or RNN")
    said = {"input_size": 0, "hidden_size": 0, "num_layers": 1, "output_size": 1}
    sizes = {n: whole_size(where, n, data.get(n, d or None)) for n, d in said.items()}
    words = (
        f"{kind}({sizes['input_size']}, {sizes['hidden_size']}, {sizes['num_layers']})@rec "
        f"linear({sizes['hidden_size']}, {sizes['output_size']})@lin"
    )
    chain = chain_of(words, groups_of(arrays, where), where, dtype)[0]
    skips = data.get("skip", 0)
    if skips:
        if skips != sizes["output_size"] or skips > sizes["input_size"]:
            raise FileError(where, f"skip is {skips!r:.80}, of {sizes['output_size']} outputs")
        _skipped(chain, "x", sizes["input_size"])
    rate = data.get("samplerate", document.get("samplerate"))
    return chain.model({"sample_rate": rate, "layers": words})


# ---- pieces --------------------------------------------------------------------------------------


def _skipped(chain: Chain, value: str, features: int) -> None:
    """What a chain makes, and what went in: the first features of it, where it has more."""
    made, beside = chain.value, value
    if features != chain.features:
        chain.value = value
        chain.add(FirstFeatures("dry", chain.features))
        beside, chain.value = chain.value, made
    chain.add(JoinedBy("skip", "add"), None, beside)


def _object(where: str, what: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FileError(where, f"{what} is an object, not {value!r:.80}")
    return value


def _numbers(where: str, what: str, value: object) -> np.ndarray:
    array = nested_numbers(value) if isinstance(value, list) else None
    if array is None:
        raise FileError(where, f"{what} is no list of numbers, or of such lists of one length")
    if not (np.abs(array) <= np.finfo("f4").max).all():
        raise FileError(where, f"{what} holds numbers that are NaN or infinite as float32")
    return array


def _number(where: str, what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FileError(where, f"{what} is a finite number, not {value!r:.80}")
    return float(value)


def _decibels(where: str, document: Mapping[str, Any], name: str) -> float:
    """As a factor; 1 where nothing is said."""
    value = _number(where, name, document.get(name, 0) or 0)
    if abs(value) > 200:
        raise FileError(where, f"{name} is {value} dB")
    return float(10 ** (value / 20))


def _counted(where: str, arrays: list[np.ndarray], counts: tuple[int, ...]) -> None:
    if len(arrays) not in counts:
        wanted = " or ".join(map(str, counts))
        raise FileError(where, f"it has {len(arrays)} arrays of weights, expected {wanted}")
