"""Layers and cells <-> plain data: what `get_config` gives and `from_config` takes.

Classes of this package go by their names; a class made by `rnncc.compile` takes its text along, so
that another machine can read the data without the file it came from.

Non-Goals: weights (`save`, `get_weights`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from rnncc.compiler import Compiler, compile_text
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.layer_options import LAYER_OPTIONS, Frozen, LayerType
from rnncc.runtime.api.validation import nearest

_CHOSEN = ("dtype", "seed", "weights")  # attributes of these names are something else, or drawn
T = TypeVar("T", bound=type)
_classes: dict[str, Any] = {}


def serializable(cls: T) -> T:
    """A class with `get_config` and `from_config`, found again by its name."""
    _classes[cls.__name__] = cls
    return cls


def serialize(what: Any) -> dict[str, Any]:
    """A layer or cell as plain data: its class and its configuration."""
    cls = type(what)
    data: dict[str, Any] = {"class_name": cls.__name__, "config": None}
    if _classes.get(cls.__name__) is cls:
        return data | {"config": what.get_config()}
    if not isinstance(what, Layer):
        raise TypeError(f"{what!r} is neither a layer nor a cell of rnncc")
    data["config"] = keywords_of(what)
    maker = what.maker
    if isinstance(maker, Compiler):
        return data | {"text": maker.spec.text, "filename": maker.spec.filename}
    return data | {"module": cls.__module__}


def deserialize(data: Any) -> Any:
    """The counterpart of `serialize`; weights are new. ValueError for an unknown class.

    The data may be a stranger's, in a `.keras` file say: it names classes that are there, and
    imports nothing.
    """
    if not isinstance(data, Mapping) or not {"class_name", "config"} <= data.keys():
        raise ValueError(f"a layer's data has class_name and config, not {data!r}")
    name, config = data["class_name"], dict(data["config"])
    if "text" in data:
        return compile_text(data["text"], filename=str(data.get("filename", "<text>")))(**config)
    if "module" in data:
        return _generated(data["module"], name)(**config)
    if name not in _classes:
        raise ValueError(f"no layer or cell is called {name}{nearest(str(name), _classes)}")
    return _classes[name].from_config(config)


def _generated(module: object, name: object) -> type[Layer]:
    """The class of a module that `rnncc compile` wrote, which has to be imported before."""
    member = getattr(sys.modules.get(str(module)), str(name), None)
    if not (isinstance(member, LayerType) and isinstance(getattr(member, "maker", None), Frozen)):
        raise ValueError(
            f"{name} is of the module {module}, which isn't imported or has no such layer: import "
            "the module that rnncc compile wrote first"
        )
    layer: Any = member
    return layer


def options_of(layer: Layer) -> dict[str, Any]:
    """What every layer takes, but its dtype."""
    options = {n: getattr(layer, n) for n in LAYER_OPTIONS if n not in _CHOSEN}
    return options | {"seed": layer._chosen.seed, "weights": layer._chosen.storage}


def keywords_of(layer: Layer) -> dict[str, Any]:
    """The keywords that make a layer like this one."""
    return {**layer._chosen.keywords(), **options_of(layer), "dtype": layer.dtype}
