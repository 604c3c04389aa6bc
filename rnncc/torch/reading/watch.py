"""What modules keep from one call to the next: attributes that a forward changes.

A step that writes down something of its own has a state that nobody sees; it is refused, by the
attribute's name, and the attribute is what it was before.

Non-Goals: tensors written in place (`slots`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rnncc.torch.reading.trace import Refused


class Watch:
    """While a step runs."""

    def __init__(self, modules: Sequence[torch.nn.Module], name: str) -> None:
        self.modules, self.name = modules, name
        self.before: list[dict[str, Any]] = []

    def __enter__(self) -> None:
        self.before = [_attributes(m) for m in self.modules]

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        changed = None
        for module, before in zip(self.modules, self.before, strict=True):
            after = _attributes(module)
            for attribute in (*before, *after):
                if not _same(before.get(attribute, _same), after.get(attribute, _same)):
                    changed = changed or f"{type(module).__name__}.{attribute}"
                    _restore(module, attribute, before)
        if changed and (error is None or isinstance(error, Refused)):
            raise Refused(
                f"{self.name} can't be compiled: its forward changes {changed}. What goes from "
                "step to step is state: take it as a part of the state, and return it"
            )


def _attributes(module: torch.nn.Module) -> dict[str, Any]:
    """What it has, lists and dicts as they are now."""
    own = {n: v for n, v in vars(module).items() if n != "training"}
    held = {n: own.pop(n, None) for n in ("_parameters", "_buffers", "_modules")}
    found = {n: _copied(v) for n, v in own.items()}
    for what, values in held.items():
        found |= {n: v for n, v in (values or {}).items() if what != "_modules"}
    return found


def _copied(value: Any) -> Any:
    if type(value) in (list, dict, set):
        return value, type(value)(value)
    return value


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is tuple and type(b) is tuple and len(a) == len(b) == 2 and a[0] is b[0]:
        one, other = a[1], b[1]
        if type(one) is type(other) and len(one) == len(other):
            if isinstance(one, dict):
                return all(k in other and one[k] is other[k] for k in one)
            if isinstance(one, list):
                return all(x is y for x, y in zip(one, other, strict=True))
            return bool(one == other)
        return False
    numbers = bool, int, float, str
    return type(a) is type(b) and isinstance(a, numbers) and a == b


def _restore(module: torch.nn.Module, attribute: str, before: dict[str, Any]) -> None:
    own = vars(module)
    for place in (own["_parameters"], own["_buffers"]):
        if attribute in place:
            place[attribute] = before.get(attribute)
            return
    if attribute not in before:
        own.pop(attribute, None)
        return
    value = before[attribute]
    is_pair = type(value) is tuple and len(value) == 2 and type(value[1]) in (list, dict, set)
    own[attribute] = value[1] if is_pair else value
