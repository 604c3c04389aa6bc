"""Kernels with another text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.support.gpu_simulator.source import text_of


def changed(old: str, new: str) -> Callable[[Any], Any]:
    """Kernels whose text has `old` get `new` in its place."""

    def mutate(function: Any) -> Any:
        text = text_of(function)
        mutated, count = re.subn(old, new, text)
        if not count:
            return function
        mutate.hits += 1  # type: ignore[attr-defined]
        names: dict[str, Any] = {**function.__globals__, "kernel": lambda f: f}
        names["stationary"] = names["summed"] = lambda *_: lambda f: f
        exec(compile(mutated, f"<mutant of {function.__name__}>", "exec"), names)
        return names[function.__name__]

    mutate.hits = 0  # type: ignore[attr-defined]
    return mutate
