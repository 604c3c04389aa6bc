"""A recipe as text that stands in graphs, and out of it again: a file of a graph carries equations.

    {"equations": "cell: GRU ...", "sizes": [["units", 64], ...], "dtype": "float32", ...}

Whoever reads such a file needs no module, only `import rnncc.torch`, which brings the ops.
Equations are read as those of a .rnn file are, never executed.

Non-Goals: weights, which the graph holds; cells of generated modules, which are found by their
keys alone.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import PurePath
from typing import Any

from rnncc.compiler import Compiler, compile_text, kernel_engine
from rnncc.runtime.common.precision import precision_of
from rnncc.runtime.common.weight_formats import NARROW
from rnncc.torch.recipe import DTYPES, Recipe

_PLAIN = [f.name for f in fields(Recipe) if f.name != "layer_class"]
_DEFAULTS = {f.name: f.default for f in fields(Recipe) if f.default is not MISSING}
_PAIRS = ("sizes", "options", "functions", "rates")


def text_of(recipe: Recipe) -> str:
    """Empty for a cell whose equations aren't known."""
    maker = recipe.layer_class.maker
    if not isinstance(maker, Compiler) or maker.engines is not kernel_engine:
        return ""
    spec = maker.spec
    found: dict[str, Any] = {"equations": spec.text, "file": PurePath(spec.filename).name}
    found |= {name: getattr(recipe, name) for name in _PLAIN}
    return json.dumps(found)


def recipe_of(text: str) -> Recipe:
    """ValueError for what is no such text; SpecError for equations that are none."""
    try:
        found = dict(json.loads(text))
        equations, name = found.pop("equations"), found.pop("file")
        for pairs in _PAIRS:
            found[pairs] = tuple((str(key), value) for key, value in found[pairs])
        found["directions"] = tuple(map(bool, found["directions"]))
        if sorted(found) != sorted(_PLAIN) or not 1 <= len(found["directions"]) <= 2:
            raise ValueError("it has other fields")
        _check(found)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(
            f"a graph names a cell of rnncc by a text that this version can't read ({error}): "
            "export the model again"
        ) from None
    recipe = Recipe(compile_text(equations, filename=str(name)), **found)
    recipe.binding()
    return recipe


def _check(found: dict[str, Any]) -> None:
    """ValueError for a value of a kind that no recipe has."""
    for name, default in _DEFAULTS.items():
        kinds = (type(default),) if default is not None else (int, type(None))
        if type(found[name]) not in kinds:
            raise ValueError(f"{name} is {found[name]!r}")
    if found["dtype"] not in DTYPES or found["storage"] not in ("", *NARROW):
        raise ValueError(f"numbers of {found['dtype']}, storage {found['storage']!r}")
    if not all(type(n) is int and n >= 0 for _, n in found["sizes"]):
        raise ValueError(f"sizes are {found['sizes']}")
    precision_of(found["precision"], found["dtype"])
