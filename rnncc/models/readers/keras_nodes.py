"""How a functional model's configuration says which layer reads what.

Non-Goals: what becomes of it (`keras_model`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rnncc.files import FileError


@dataclass(frozen=True, slots=True)
class Reference:
    """A value: which layer's, of which of its calls, which of its outputs."""

    layer: str
    call: int
    output: int


@dataclass(frozen=True, slots=True)
class KerasCall:
    """Of a layer: what it reads, what else (states that it starts from), and its mask where that is
    said. index: which of its calls. constants: numbers that it reads."""

    inputs: tuple[Reference, ...]
    states: tuple[Reference, ...]
    index: int = 0
    mask: Reference | None = None
    constants: tuple[float, ...] = ()

    @property
    def reads(self) -> tuple[Reference, ...]:
        """All values that have to be there before."""
        return (*self.inputs, *self.states, *((self.mask,) if self.mask is not None else ()))


MOST_LETTERS = 200  # of a layer's name
# Arguments that say what holds anyway, or nothing.
_IDLE: tuple[Any, ...] = (None, False)


def layer_name(entry: Mapping[str, Any]) -> str:
    """A layer's name in its model. ValueError for what is none, of it or of its class."""
    config = entry["config"]
    inner = config.get("name") if isinstance(config, Mapping) else None
    for name in (found := entry.get("name") or inner, entry["class_name"]):
        if not isinstance(name, str) or len(name) > MOST_LETTERS:
            raise ValueError(f"no layer, nor its class, is called {name!r:.80}")
    return str(found)


def listed(data: Any) -> list[tuple[str, Reference]]:
    """Inputs or outputs of a model, with names where it has a dict of them."""
    if isinstance(data, Mapping):
        return [(str(n), _reference(r)) for n, r in data.items()]
    if isinstance(data, list) and data and isinstance(data[0], str):
        return [("", _reference(data))]
    return [("", _reference(r)) for r in data]


def calls_of(where: str, entry: Mapping[str, Any]) -> list[KerasCall]:
    """A layer's, in order. FileError for arguments that would change what it computes."""
    label = f"{where}: {layer_name(entry)}"
    return [
        _keras3(label, i, node) if isinstance(node, Mapping) else _keras2(label, i, node)
        for i, node in enumerate(entry.get("inbound_nodes", []))
    ]


def _reference(data: Any) -> Reference:
    name, call, output = data[:3]
    if not isinstance(name, str) or type(call) is not int or type(output) is not int:
        raise ValueError(f"{data!r:.80} names no value")
    return Reference(name, call, output)


def _keras3(label: str, index: int, node: Mapping[str, Any]) -> KerasCall:
    args, kwargs = list(node["args"]), dict(node.get("kwargs") or {})
    masks, states = (list(_tensors(kwargs.pop(n, None))) for n in ("mask", "initial_state"))
    surplus = sorted(n for n, v in kwargs.items() if v not in _IDLE)
    if surplus or len(masks) > 1:
        raise FileError(label, f"it is called with {surplus or 'masks'}, which isn't read")
    constants = tuple(float(a) for a in args[1:] if type(a) in (int, float))
    return KerasCall(
        tuple(_tensors(args[:1])),
        (*_tensors(args[1:]), *states),
        index,
        masks[0] if masks else None,
        constants,
    )


def _keras2(label: str, index: int, node: Any) -> KerasCall:
    references, states = [], []
    for data in [node] if node and isinstance(node[0], str) else node:
        references.append(_reference(data))
        kwargs = dict(data[3]) if len(data) > 3 and data[3] else {}
        given = kwargs.pop("initial_state", None)
        states += [_reference(d) for d in given or []]
        surplus = {n: v for n, v in kwargs.items() if v not in _IDLE}
        if surplus:
            raise FileError(label, f"it is called with {sorted(surplus)!s:.200}, which isn't read")
    return KerasCall(tuple(references), tuple(states), index)


def _tensors(data: Any) -> Iterator[Reference]:
    """All values within lists and arguments."""
    if isinstance(data, list | tuple):
        for inner in data:
            yield from _tensors(inner)
    elif isinstance(data, Mapping) and data.get("class_name") == "__keras_tensor__":
        yield _reference(data["config"]["keras_history"])
