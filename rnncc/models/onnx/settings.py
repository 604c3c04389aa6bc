"""What a node RNN, GRU or LSTM says in its attributes.

Non-Goals: its arrays (`node_weights`), calls (`recurrent_node`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnncc.compiler import compile as compile_cell
from rnncc.models.onnx.activations import functions
from rnncc.runtime.api.layer import Layer

INPUTS = 8  # of a node, which are by place
X, W, R, B, LENGTHS, H, C, P = range(INPUTS)


@dataclass(frozen=True, slots=True)
class Operator:
    """gates: rows of W are so many times the units. roles: the cell's functions, in the order of
    `activations`. states: of the cell. default: of activations, for one direction."""

    gates: int
    roles: tuple[str, ...]
    states: tuple[str, ...]
    default: tuple[str, ...]
    attributes: frozenset[str] = frozenset()


OPERATORS = {
    "RNN": Operator(1, ("gate",), ("h",), ("Tanh",)),
    "GRU": Operator(
        3, ("gate", "candidate"), ("h",), ("Sigmoid", "Tanh"), frozenset({"linear_before_reset"})
    ),
    "LSTM": Operator(
        4,
        ("gate", "candidate", "output"),
        ("h", "c"),
        ("Sigmoid", "Tanh", "Tanh"),
        frozenset({"input_forget"}),
    ),
}
DIRECTIONS = {
    "forward": ("forward",),
    "reverse": ("reverse",),
    "bidirectional": ("forward", "reverse"),
}
# What the first versions of the operators had, too: whether Y is wanted, which its name says.
COMMON = frozenset(
    {
        *("activation_alpha", "activation_beta", "activations", "clip"),
        *("direction", "hidden_size", "layout", "output_sequence"),
    }
)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """functions: of each direction, in the order of the operator's roles. clip: None where nothing
    is bounded. hidden_size: 0 where only the weights say it."""

    operator: str
    directions: tuple[str, ...] = ("forward",)
    functions: tuple[tuple[str, ...], ...] = ()
    clip: float | None = None
    hidden_size: int = 0
    batch_first: bool = False
    flags: frozenset[str] = frozenset()  # input_forget, linear_before_reset

    @property
    def kind(self) -> Operator:
        return OPERATORS[self.operator]

    def layer(self, i: int, units: int, dtype: str, bias: bool, peepholes: bool) -> Layer:
        """Of the i-th direction, without weights yet; it gives all steps and the last states."""
        own: dict[str, Any] = dict(zip(self.kind.roles, self.functions[i], strict=True))
        if self.clip is not None:
            own["bounded"] = f"lambda v: clip(v, -{self.clip!r}, {self.clip!r})"
        own |= {name: name in self.flags for name in self.kind.attributes}
        if self.operator == "LSTM":
            own["peepholes"] = peepholes
        return _cell(self.operator, dtype)(
            units=units,
            use_bias=bias,
            return_sequences=True,
            return_state=True,
            time_major=not self.batch_first,
            go_backwards=self.directions[i] == "reverse",
            zero_output_for_mask=True,
            seed=0,
            **own,
        )


@functools.cache
def _cell(operator: str, dtype: str) -> type[Layer]:
    return compile_cell(Path(__file__).with_name(f"{operator.lower()}.rnn"), dtype=dtype)


def settings_of(operator: str, attributes: Mapping[str, Any]) -> NodeSettings:
    """attributes: of the node, as Python has them (text as str). ValueError for what can't be."""
    kind = OPERATORS[operator]
    unknown = attributes.keys() - COMMON - kind.attributes
    if unknown:
        raise ValueError(f"{operator} has no attribute {sorted(unknown)[0]}")
    direction = _text("direction", attributes.get("direction", "forward"))
    if direction.lower() not in DIRECTIONS:
        raise ValueError(f"direction is {direction!r}, expected one of {', '.join(DIRECTIONS)}")
    directions = DIRECTIONS[direction.lower()]
    names = _list("activations", attributes.get("activations", ()), str)
    expected = len(kind.roles) * len(directions)
    if not names:
        names = kind.default * len(directions)
    elif operator == "RNN" and len(names) == 2 and names == ("Tanh", "Tanh"):
        names = names[:expected]  # the default of both directions, which some write for one
    if len(names) != expected:
        raise ValueError(f"{len(names)} activations, expected {expected}: {', '.join(names)}")
    alphas = _list("activation_alpha", attributes.get("activation_alpha", ()), float)
    betas = _list("activation_beta", attributes.get("activation_beta", ()), float)
    texts = functions(names, alphas, betas)
    roles = len(kind.roles)
    return NodeSettings(
        operator,
        directions,
        tuple(texts[i : i + roles] for i in range(0, len(texts), roles)),
        _clip(attributes.get("clip")),
        _size(attributes.get("hidden_size", 0)),
        _flag("layout", attributes.get("layout", 0)),
        frozenset(n for n in kind.attributes if _flag(n, attributes.get(n, 0))),
    )


def _text(what: str, given: Any) -> str:
    if not isinstance(given, str):
        raise ValueError(f"{what} is {given!r}, expected a text")
    return given


def _list(what: str, given: Any, kind: type) -> tuple[Any, ...]:
    if not isinstance(given, list | tuple) or not all(isinstance(v, kind) for v in given):
        raise ValueError(f"{what} is {given!r}, expected a list of {kind.__name__}")
    return tuple(given)


def _flag(what: str, given: Any) -> bool:
    """Any int but 0 means yes where the operator's text says "!= 0"; `layout` is 0 or 1."""
    if not isinstance(given, int) or (given not in (0, 1) and what != "linear_before_reset"):
        raise ValueError(f"{what} is {given!r}, expected 0 or 1")
    return bool(given)


def _clip(given: Any) -> float | None:
    if given is None:
        return None
    if not isinstance(given, float) or not math.isfinite(given) or given < 0:
        raise ValueError(f"clip is {given!r}, expected a number, 0 or more")
    return given


def _size(given: Any) -> int:
    if not isinstance(given, int) or given < 0:
        raise ValueError(f"hidden_size is {given!r}, expected the number of units")
    return given
