"""rnncc: the equations of a recurrent cell -> kernels, forward and backward.

    Peephole = rnncc.compile("peephole.rnn")
    layer = Peephole(units=64, return_sequences=True)
    y, pullback = layer.vjp(x)

Names are imported when they are first used: a generated module needs `rnncc.generated`
and what that imports, not the compiler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnncc.compiler import compile, compile_text
    from rnncc.files import FileError
    from rnncc.frontend.diagnostics import SpecError
    from rnncc.models.conventions import load_weights
    from rnncc.models.load import load_model
    from rnncc.models.model import Model
    from rnncc.runtime.api.layer import Layer
    from rnncc.runtime.common.learning import NeverLearns
    from rnncc.runtime.jit.cache_folder import CacheWarning
    from rnncc.runtime.profiles.profile import Profile

from rnncc.common.version import __version__

__all__ = [
    "CacheWarning",
    "FileError",
    "Layer",
    "Model",
    "NeverLearns",
    "Profile",
    "SpecError",
    "__version__",
    "compile",
    "compile_text",
    "load_model",
    "load_weights",
]

_HOMES = {
    "compile": "rnncc.compiler",
    "compile_text": "rnncc.compiler",
    "SpecError": "rnncc.frontend.diagnostics",
    "CacheWarning": "rnncc.runtime.jit.cache_folder",
    "Layer": "rnncc.runtime.api.layer",
    "NeverLearns": "rnncc.runtime.common.learning",
    "FileError": "rnncc.files",
    "Profile": "rnncc.runtime.profiles.profile",
    "Model": "rnncc.models.model",
    "load_model": "rnncc.models.load",
    "load_weights": "rnncc.models.conventions",
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
