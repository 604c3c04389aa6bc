"""`rnncc.load_weights(layer, file)`: a layer's weights out of a file that somebody else wrote.

Non-Goals: files that `layer.save` wrote, which `layer.load` reads and checks; whole models
(`models.load`).
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rnncc.files import FileError, Tensors, read
from rnncc.models.conventions.cell_weights import Unfit
from rnncc.models.conventions.forms import CONVENTIONS
from rnncc.models.conventions.groups import CellTensors, groups_of
from rnncc.models.conventions.targets import LayerCell, targets_of
from rnncc.runtime.api.layer import Layer


@dataclass(frozen=True)
class WeightReport:
    """Where each weight came from. taken: (the layer's weight, tensors of the file, how). left:
    tensors that nothing was read of."""

    where: str
    taken: tuple[tuple[str, tuple[str, ...], str], ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{weight} <- {', '.join(names)} ({how})" for weight, names, how in self.taken]
        left = f"left over: {', '.join(self.left)}" if self.left else "nothing is left over"
        return "\n".join([f"{self.where}:", *lines, left])


def load_weights(
    layer: Layer,
    file: str | os.PathLike[str] | Tensors,
    names: str | Mapping[str, str] | None = None,
) -> WeightReport:
    """Weights of torch, Keras or ONNX, of any format that `rnncc.files.read` reads, into a layer.

    Gates are put into the layer's order, matrices turned, biases joined or split where that means
    the same. The cells of the file are taken in order: layer by layer, forward before backward.

    names: a pattern ("encoder.*") that chooses tensors by name (of ONNX: nodes by theirs), where
    the file has more cells than the layer; or tensors by what they are: {"weight_ih": "enc_w"},
    with torch's names, Keras's ("kernel") or ONNX's ("W"), or the layer's own for cells of others;
    with the layer's prefix ("backward.weight_ih") where it has several cells.

    FileError (a ValueError): what is missing, doesn't fit, isn't finite, or means something else
    in the layer (a GRU's reset_after). The layer has then the weights that it had before; only what
    it was built for may be known by then. TypeError for what isn't a layer of rnncc.
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"load_weights takes a layer of rnncc, not {type(layer).__name__}")
    tensors = file if isinstance(file, Tensors) else read(file)
    targets = [*targets_of(layer)]
    if isinstance(names, Mapping):
        groups = _named(tensors, targets, names)
    else:
        groups = _found(tensors, targets, names)
    arrays: dict[str, np.ndarray] = {}
    taken: list[tuple[str, tuple[str, ...], str]] = []
    features = 0
    for target, group in zip(targets, groups, strict=True):
        own, how = _converted(tensors, target, group)
        arrays |= {target.prefix + n: a for n, a in own.items()}
        held = group.tensors
        taken += [(target.prefix + n, _sources(group, n, target), how) for n in own]
        features = features or _features(group, held, tensors)
    _put(layer, arrays, features, tensors)
    used = {name for group in groups for name in group.tensors.values()}
    return WeightReport(tensors.where, tuple(taken), tuple(n for n in tensors if n not in used))


def arrays_of(layer: Layer, convention: str) -> dict[str, np.ndarray]:
    """A layer's weights as "keras", "torch", "onnx" or "coreml" has them, by its names; with the
    layer's prefixes where it has several cells. ValueError for what the form can't hold.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"{convention!r} is none of {', '.join(CONVENTIONS)}")
    form = CONVENTIONS[convention]
    held = {**layer.weights, **layer.constants}
    found: dict[str, np.ndarray] = {}
    for target in targets_of(layer):
        own = {n: held[target.prefix + n] for n in target.names}
        if target.convention is form:
            written = {n: a.copy() for n, a in own.items()}
        else:
            weights = target.give(own)
            written = form.write(weights, bias=weights.bias is not None)
        found |= {target.prefix + n: a for n, a in written.items()}
    return found


_NAMED = [CONVENTIONS[n] for n in ("keras", "torch", "onnx")]  # by names that are unlike


def _found(tensors: Tensors, targets: list[LayerCell], pattern: str | None) -> list[CellTensors]:
    """As many groups as the layer has cells. FileError with what there is."""

    def chosen(name: str) -> bool:
        return pattern is None or fnmatch.fnmatchcase(name, pattern)

    groups = groups_of(tensors, chosen)
    if tensors.format == "onnx" and pattern is not None:
        groups = [g for g in groups if chosen(g.name.removeprefix("node ").split(" ")[0])]
    if len(groups) != len(targets):
        own = ", ".join(t.label for t in targets)
        held = ", ".join(g.name or "(no name)" for g in groups[:20]) or "none"
        tensor_names = ", ".join([*tensors][:12])
        raise FileError(
            tensors.where,
            f"the layer has {len(targets)} recurrent cell(s) ({own}), the file {len(groups)} "
            f"({held}){' that fit ' + repr(pattern) if pattern else ''}: names= says which tensors "
            f"are meant; it has {tensor_names:.400}",
        )
    for target, group in zip(targets, groups, strict=True):
        sides = {target.runs_back, group.runs_back} - {None}
        if len(sides) > 1:
            raise FileError(
                f"{tensors.where}: {group.name}", f"{target.label} is another direction"
            )
    return groups


def _named(
    tensors: Tensors, targets: list[LayerCell], names: Mapping[str, str]
) -> list[CellTensors]:
    """As the caller says. FileError for tensors that aren't there, ValueError for other keys."""
    left = dict(names)
    groups = []
    for target in targets:
        mine = [n for n in names if n.startswith(target.prefix)]
        own = {n.removeprefix(target.prefix): names[n] for n in mine}
        forms = [c for c in _NAMED if own and own.keys() <= {*c.known}]
        if not forms and not (own and own.keys() <= {*target.names}):
            raise ValueError(
                f"names= has {', '.join(own) or 'nothing'} for {target.label}: it takes torch's, "
                f"Keras's or ONNX's names of a cell's weights, or {', '.join(target.names)}"
            )
        for name in own:
            del left[target.prefix + name]
        form = forms[0] if forms else CONVENTIONS["keras"]  # else by the layer's own names
        groups.append(CellTensors(target.label, form, 0, tensors=own))
    if left:
        raise ValueError(f"names= has {', '.join(left)}, which is of no cell of the layer")
    return groups


def _converted(
    tensors: Tensors, target: LayerCell, group: CellTensors
) -> tuple[dict[str, np.ndarray], str]:
    """A group's arrays by the target's names, and how they became them."""
    arrays = group.arrays(tensors)
    label = f"{tensors.where}: {group.name or 'its cell'}"
    if target.kind is None:
        if arrays.keys() == {*target.names}:
            return arrays, "by name"
        raise FileError(
            label,
            f"nothing says which gates {target.label} has: names= gives its weights, "
            f"{', '.join(target.names)}, tensors of the same layout",
        )
    kind = group.kind_of(arrays)
    if kind is None or kind != target.kind:
        raise FileError(label, f"it is {_called(kind)}, {target.label} is {_called(target.kind)}")
    try:
        weights = group.convention.read(kind, arrays, group.reset_after)
        found = target.take(weights)
    except Unfit as error:
        raise FileError(label, f"{error}") from None
    form = target.convention.name if target.convention else ""
    return found, "as it is" if group.convention.name == form else f"{group.convention.name}'s"


def _called(kind: str | None) -> str:
    return {"lstm": "an LSTM", "gru": "a GRU", "rnn": "a simple RNN"}.get(
        kind or "", "no such cell"
    )


def _sources(group: CellTensors, name: str, target: LayerCell) -> tuple[str, ...]:
    """The tensors that a weight of the target was made of."""
    form = target.convention
    if form is None or name in group.tensors:
        return (group.tensors[name],) if name in group.tensors else ()
    role = next((r for r, n in form.names.items() if n == name), "peepholes")
    roles = ("bias", "recurrent_bias") if role in ("bias", "recurrent_bias") else (role,)
    theirs = [group.convention.names.get(r, "") for r in roles]
    return tuple(group.tensors[n] for n in theirs if n in group.tensors)


def _features(group: CellTensors, held: Mapping[str, str], tensors: Tensors) -> int:
    """Of the first cell's inputs: what an unbuilt layer has to know."""
    name = held.get(group.convention.names["input"])
    if name is None:
        return 0
    shape = tensors[name].shape
    return shape[0] if group.convention.in_columns else shape[-1]


def _put(layer: Layer, arrays: Mapping[str, np.ndarray], features: int, tensors: Tensors) -> None:
    """All of them, or none. FileError for shapes that the layer hasn't."""
    try:
        if not layer.built:
            layer.build((None, None, features))
        names = [*layer.weights, *layer.constants]
        layer.set_weights([arrays[n] for n in names])
    except KeyError as error:
        raise FileError(tensors.where, f"nothing of it is the layer's {error}") from None
    except ValueError as error:
        raise FileError(tensors.where, str(error)) from None
