"""rnncc: the equations of a recurrent cell -> kernels, forward and backward.

    Peephole = rnncc.compile("peephole.rnn")
    layer = Peephole(units=64, return_sequences=True)
    y, pullback = layer.vjp(x)

Names are imported when they are first used: a generated module needs `rnncc.runtime` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnncc.compiler import compile, compile_text
    from rnncc.frontend.diagnostics import SpecError
    from rnncc.runtime.entries import CacheWarning
    from rnncc.runtime.layer import Layer
    from rnncc.runtime.learning import NeverLearns

__version__ = "0.1.0"

__all__ = [
    "CacheWarning",
    "Layer",
    "NeverLearns",
    "SpecError",
    "__version__",
    "compile",
    "compile_text",
]

_HOMES = {
    "compile": "rnncc.compiler",
    "compile_text": "rnncc.compiler",
    "SpecError": "rnncc.frontend.diagnostics",
    "CacheWarning": "rnncc.runtime.entries",
    "Layer": "rnncc.runtime.layer",
    "NeverLearns": "rnncc.runtime.learning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rnncc' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
