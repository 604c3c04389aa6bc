"""A recognised cell -> the node LSTM, GRU or RNN, and what its outputs are with lengths.

Behind a row's end the node gives zeros, and a row without steps has zeros for its last states; a
layer repeats the last output there, and such a row keeps what it started from.

Non-Goals: which cells have one (`recognition`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.emit.onnx.graph import GraphWriter
from rnncc.export.to_onnx.recognition import Recognised
from rnncc.models.onnx.settings import OPERATORS


@dataclass(frozen=True)
class NodeInputs:
    """Names of values: x [T, B, features], states [B, units] or "" where they start from zeros,
    lengths [B] of int64 and valid [T, B] of bools, or "". zeros: behind a row's end outputs are."""

    x: str
    states: tuple[str, ...]
    lengths: str = ""
    valid: str = ""
    zeros: bool = False
    backwards: bool = False


def standard_node(
    w: GraphWriter, node: Recognised, arrays: Mapping[str, str], given: NodeInputs
) -> tuple[str, list[str]]:
    """Outputs of every step, in the order of time, and the last states. arrays: W, R, and B and P
    where they are, with an axis of directions."""
    lengths = w.cast(given.lengths, "int32") if given.lengths else ""
    states = [s and w.node("Unsqueeze", s, w.whole(0)) for s in given.states]
    start = [states[0], states[1] if len(states) > 1 else "", arrays.get("P", "")]
    inputs = [given.x, arrays["W"], arrays["R"], arrays.get("B", ""), lengths, *start]
    while not inputs[-1]:
        inputs.pop()
    likes = ["Y", "Y_h", "Y_c"][: 1 + len(states)]
    units = node.arrays["R"].shape[1]
    found = w.several(
        node.operator, inputs, likes, hidden_size=units, **_attributes(node, given.backwards)
    )
    y = w.node("Squeeze", found[0], w.whole(1), like="y")
    lasts = [w.node("Squeeze", s, w.whole(0), like="last") for s in found[1:]]
    return (y, lasts) if not lengths else _repaired(w, y, lasts, given)


def _repaired(
    w: GraphWriter, y: str, lasts: Sequence[str], given: NodeInputs
) -> tuple[str, list[str]]:
    some = w.node("Greater", given.lengths, w.constant(np.array(0, np.int64), "none"))
    any_step = w.node("Unsqueeze", some, w.whole(1))
    zero = w.number(0.0)
    kept = [
        w.node("Where", any_step, last, start or zero)
        for last, start in zip(lasts, given.states, strict=True)
    ]
    # What runs backwards comes from behind the end: it has put out nothing there.
    if not given.zeros and not given.backwards:
        valid = w.node("Unsqueeze", given.valid, w.whole(2))
        y = w.node("Where", valid, y, w.node("Where", any_step, lasts[0], zero))
    return y, kept


def _attributes(node: Recognised, backwards: bool) -> dict[str, Any]:
    chosen: dict[str, Any] = {"direction": "reverse"} if backwards else {}
    names = [a.name for a in node.activations]
    if tuple(names) != OPERATORS[node.operator].default:
        chosen["activations"] = names
        # Handed out in order to those that take one.
        for what in ("alpha", "beta"):
            numbers = [getattr(a, what) for a in node.activations]
            if any(n is not None for n in numbers):
                chosen[f"activation_{what}"] = [n for n in numbers if n is not None]
    if node.clip is not None:
        chosen["clip"] = node.clip
    return chosen | dict.fromkeys(node.flags, 1)
