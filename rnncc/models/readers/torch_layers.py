"""Each kind of layer that a chain's words name: which tensors it is made of, and its part.

Non-Goals: which group of tensors a word takes (`torch_chain`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.files import FileError
from rnncc.layers import Bidirectional
from rnncc.models.plain import (
    Activation,
    BatchNorm,
    Dense,
    Embedding,
    LastStep,
    LayerNorm,
    PRelu,
    Same,
)
from rnncc.models.plain.functions import FUNCTIONS
from rnncc.models.readers.building import Chain, fitting, recurrent, torch_cell
from rnncc.models.readers.torch_groups import (
    GATES,
    TensorGroup,
    has_only,
    is_recurrent,
    place_of,
    recurrent_weights,
)
from rnncc.models.readers.torch_words import LayerWord


@dataclass(frozen=True, slots=True)
class WordKind:
    """fits: whether a group may be one; None for what has no tensors. add: to the chain; the word
    as it turned out."""

    fits: Callable[[TensorGroup], bool] | None
    add: Callable[[Chain, LayerWord, Any], str]


def _add_recurrent(chain: Chain, word: LayerWord, group: TensorGroup) -> str:
    layers = recurrent_weights(group, chain.where)
    first = layers[0][0]
    hidden = len(first["weight_hh"]) // GATES[word.kind]
    facts: dict[str, Any] = {
        "input_size": first["weight_ih"].shape[1],
        "hidden_size": hidden,
        "num_layers": len(layers),
        "bidirectional": len(layers[0]) == 2,
        "bias": "bias_ih" in first,
        "proj_size": first["weight_hr"].shape[0] if "weight_hr" in first else 0,
    }
    own = {**word.keywords}
    nonlinearity = own.pop("nonlinearity", "tanh") if word.kind == "rnn" else None
    if nonlinearity not in (None, "tanh", "relu"):
        raise ValueError(f"layers: nonlinearity={nonlinearity!r}; torch has tanh and relu")
    _agree(chain, word, group, facts, own)
    if not chain.has_steps:
        raise ValueError(f"layers: {word} reads steps, and stands behind last")
    name = group.name or word.kind
    for number, directions in enumerate(layers):
        reads = directions[0]["weight_ih"].shape[1]
        fitting(chain.where, f"{name} l{number}", chain.features, reads)
        makes = directions[0]["weight_hh"].shape[1]
        layer, sizes = _layer(chain, word.kind, facts, nonlinearity), {"input_size": reads}
        sizes |= {"hidden_size": hidden} | ({"proj_size": makes} if facts["proj_size"] else {})
        arrays = _cast(directions, chain.dtype)
        if facts["bidirectional"]:
            layer = Bidirectional(layer)
            sizes = {f"{d}_{n}": v for d in ("forward", "backward") for n, v in sizes.items()}
        chain.add(
            recurrent(chain.where, f"{name}.l{number}", layer, sizes, arrays),
            makes * len(directions),
        )
    for tensor in group.tensors:
        parameter, number, reverse = place_of(tensor) or ("", 0, False)
        side = ("backward." if reverse else "forward.") if facts["bidirectional"] else ""
        _note(chain, group, tensor, f"{name}.l{number}", side + parameter)
    shown = f"{word.kind}({reads if len(layers) == 1 else facts['input_size']}, {hidden}"
    shown += f", {len(layers)}" if len(layers) > 1 else ""
    shown += "".join(f", {n}={facts[n]}" for n in ("bidirectional", "proj_size") if facts[n])
    shown += ", bias=False" if not facts["bias"] else ""
    shown += f", nonlinearity={nonlinearity!r}" if nonlinearity == "relu" else ""
    return f"{shown})" + (f"@{group.name}" if group.name else "")


def _layer(chain: Chain, kind: str, facts: Mapping[str, Any], nonlinearity: str | None) -> Any:
    chosen = {"proj_size": facts["proj_size"]} if facts["proj_size"] else {}
    cell = torch_cell("projected_lstm" if chosen else kind)
    options: dict[str, Any] = {} if facts["bias"] else {"bias": False}
    options |= {"nonlinearity": nonlinearity} if nonlinearity == "relu" else {}
    sizes = {"hidden_size": facts["hidden_size"], **chosen}
    return cell(**sizes, return_sequences=True, dtype=chain.dtype, **options)


def _cast(directions: Sequence[Mapping[str, np.ndarray]], dtype: str) -> dict[str, np.ndarray]:
    """Weights by the layer's names."""
    found: dict[str, np.ndarray] = {}
    for direction, side in zip(directions, ("forward.", "backward."), strict=False):
        prefix = side if len(directions) > 1 else ""
        found |= {f"{prefix}{n}": a.astype(dtype) for n, a in direction.items()}
    return found


def _agree(
    chain: Chain,
    word: LayerWord,
    group: TensorGroup,
    facts: Mapping[str, Any],
    keywords: Mapping[str, Any],
) -> None:
    """What was said is what the file has."""
    if len(word.arguments) > len(facts):
        raise ValueError(f"layers: {word} has {len(word.arguments)} sizes of {len(facts)}")
    said = dict(zip(facts, word.arguments, strict=False)) | dict(keywords)
    for name, value in said.items():
        if name not in facts:
            raise ValueError(f"layers: {word.kind} has no {name}; it has {', '.join(facts)}")
        if value != facts[name]:
            raise FileError(
                group.label(chain.where), f"{name} is {facts[name]}, layers says {value}"
            )


def _add_linear(chain: Chain, word: LayerWord, group: TensorGroup) -> str:
    weight, bias = group.tensors["weight"], group.tensors.get("bias")
    facts = {"in_features": weight.shape[1], "out_features": len(weight), "bias": bias is not None}
    _agree(chain, word, group, facts, word.keywords)
    name = group.name or "linear"
    fitting(chain.where, name, chain.features, weight.shape[1])
    chain.add(_part(chain, group, Dense, name, _as(chain, weight.T), _as(chain, bias)), len(weight))
    _note(chain, group, "weight", name, "kernel", "transposed")
    if bias is not None:
        _note(chain, group, "bias", name, "bias")
    return f"linear({weight.shape[1]}, {len(weight)})" + (f"@{group.name}" if group.name else "")


def _add_embedding(chain: Chain, word: LayerWord, group: TensorGroup) -> str:
    weight = group.tensors["weight"]
    facts = {"num_embeddings": len(weight), "embedding_dim": weight.shape[1]}
    _agree(chain, word, group, facts, word.keywords)
    if chain.nodes:
        raise ValueError("layers: an embedding reads numbers of words, so it comes first")
    name = group.name or "embedding"
    chain.add(_part(chain, group, Embedding, name, _as(chain, weight)), weight.shape[1])
    _note(chain, group, "weight", name, "table")
    return f"embedding({len(weight)}, {weight.shape[1]})" + (f"@{group.name}" if group.name else "")


def _add_norm(chain: Chain, word: LayerWord, group: TensorGroup) -> str:
    own, name = group.tensors, group.name or word.kind
    keywords = {**word.keywords}
    epsilon = keywords.pop("eps", 1e-5)
    _agree(chain, word, group, {"features": len(own["weight"])}, keywords)
    fitting(chain.where, name, chain.features, len(own["weight"]))
    gamma, beta = _as(chain, own["weight"]), _as(chain, own.get("bias"))
    if word.kind == "layer_norm":
        part = _part(chain, group, LayerNorm, name, gamma, beta, epsilon)
    else:
        mean, variance = _as(chain, own["running_mean"]), _as(chain, own["running_var"])
        part = _part(chain, group, BatchNorm, name, mean, variance, gamma, beta, epsilon)
    chain.add(part)
    called = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}
    for tensor in own:
        _note(chain, group, tensor, name, called[tensor])
    return f"{word.kind}({len(own['weight'])}, eps={epsilon})@{group.name}"


def _add_prelu(chain: Chain, word: LayerWord, group: TensorGroup) -> str:
    weight = group.tensors["weight"]
    if len(weight) not in (1, chain.features):
        raise FileError(group.label(chain.where), f"{len(weight)} slopes of {chain.features}")
    chain.add(PRelu(group.name or "prelu", _as(chain, weight)))
    _note(chain, group, "weight", group.name or "prelu", "alpha")
    return f"prelu@{group.name}"


def _add_function(chain: Chain, word: LayerWord, group: None) -> str:
    function = FUNCTIONS[word.kind]
    names = [*function.defaults]
    if len(word.arguments) > len(names):
        raise ValueError(f"layers: {word} has more numbers than {word.kind} takes: {len(names)}")
    given = {**dict(zip(names, word.arguments, strict=False)), **word.keywords}
    if word.kind == "leaky_relu":
        given.setdefault("negative_slope", 0.01)  # torch's own default
    if word.kind == "gelu" and "approximate" in given:
        given["approximate"] = given["approximate"] in (True, "tanh")
    chain.add(Activation(f"{len(chain.nodes)}.{word.kind}", word.kind, given))
    return str(word)


def _add_dropout(chain: Chain, word: LayerWord, group: None) -> str:
    chain.add(Same(f"{len(chain.nodes)}.dropout", "dropout"))
    return str(word)


def _add_last(chain: Chain, word: LayerWord, group: None) -> str:
    if not chain.has_steps:
        raise ValueError("layers: last takes the last step twice")
    chain.add(LastStep(f"{len(chain.nodes)}.last"))
    chain.has_steps = False
    return "last"


def _note(
    chain: Chain, group: TensorGroup, own: str, part: str, weight: str, how: str = ""
) -> None:
    """Where a tensor went."""
    chain.sources[f"{group.name}.{own}" if group.name else own] = [part, weight, how]


def _as(chain: Chain, array: np.ndarray | None) -> Any:
    return None if array is None else np.ascontiguousarray(array, chain.dtype)


def _part(chain: Chain, group: TensorGroup, cls: Any, *arguments: Any) -> Any:
    try:
        return cls(*arguments)
    except ValueError as error:
        raise FileError(group.label(chain.where), str(error)) from None


KINDS: dict[str, WordKind] = {
    **{kind: WordKind(is_recurrent(kind), _add_recurrent) for kind in GATES},
    "linear": WordKind(has_only("weight", "bias"), _add_linear),
    "embedding": WordKind(has_only("weight"), _add_embedding),
    "layer_norm": WordKind(has_only("weight", "bias", rank=1), _add_norm),
    "batch_norm": WordKind(
        has_only("weight", "bias", "running_mean", "running_var", rank=1), _add_norm
    ),
    "prelu": WordKind(has_only("weight", rank=1), _add_prelu),
    "dropout": WordKind(None, _add_dropout),
    "last": WordKind(None, _add_last),
    **{name: WordKind(None, _add_function) for name in FUNCTIONS if name != "linear"},
}


def fits(kind: str, group: TensorGroup) -> bool:
    """Whether a group may be a layer of that kind."""
    check = KINDS[kind].fits
    return check is not None and check(group)
