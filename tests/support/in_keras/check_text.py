"""A `.keras` file of a stranger's: its texts are read, nothing of them is run or imported."""

from __future__ import annotations

import builtins
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import rnncc
from rnncc import keras as own

RUN = '__import__("builtins").__dict__.__setitem__("rnncc_was_here", 1)'
TEXT = """\
cell: Leaky  # MARK
units: size
x: input[units]
w: weight[units]
h: state[units]
h[t] = x[t] * w + 0.5 * h[t-1]  # MARK
return h[t]
"""
HOSTILE = (f'""" ; {RUN} ; """', f"\\N\x0b{RUN}\u2028{RUN}", "{{ m }}C:\\users")


def saved(path: Path) -> str:
    """A model's file, and its configuration."""
    model = keras.Sequential([keras.Input((3, 2)), own.RNN(rnncc.compile_text(TEXT), units=2)])
    model.save(path)
    with zipfile.ZipFile(path) as file:
        return file.read("config.json").decode()


def edited(path: Path, config: str) -> Path:
    changed = path.with_name("changed.keras")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, config if name == "config.json" else old.read(name))
    return changed


@pytest.mark.parametrize("hostile", HOSTILE)
def test_texts_of_a_file_are_texts(hostile: str, tmp_path: Path) -> None:
    config = saved(tmp_path / "m.keras")
    mark = json.dumps(hostile)[1:-1]
    assert config.count("MARK") == 2
    config = config.replace("MARK", mark).replace("<text>", mark)
    model = keras.saving.load_model(edited(tmp_path / "m.keras", config), safe_mode=True)
    expected = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    x = np.ones((1, 3, 2), "float32")
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected.predict(x, verbose=0))
    assert not hasattr(builtins, "rnncc_was_here")


def with_spec(config: dict[str, Any], spec: dict[str, Any]) -> None:
    """Puts it in the place of every cell's."""
    for value in list(config.values()):
        if isinstance(value, dict):
            with_spec(value, spec)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    with_spec(item, spec)
    if isinstance(config.get("spec"), dict):
        config["spec"] = spec


@pytest.mark.parametrize(
    "spec",
    [
        {"module": "os", "class_name": "system", "config": {"command": "touch ran"}},
        {"module": "builtins", "class_name": "exec", "config": {"source": RUN}},
        {"module": "wsgiref.validate", "class_name": "x", "config": {}},
        {"module": "rnncc.runtime.api.layer", "class_name": "Layer", "config": {}},
        {"module": "rnncc.compiler", "class_name": "Compiler", "config": {}},
    ],
    ids=lambda s: s["module"],
)
def test_a_file_imports_and_calls_nothing(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads(saved(tmp_path / "m.keras"))
    with_spec(config, spec)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="isn't imported or has no such layer"):
        keras.saving.load_model(edited(tmp_path / "m.keras", json.dumps(config)), safe_mode=True)
    assert not (tmp_path / "ran").exists() and "wsgiref.validate" not in sys.modules
    assert not hasattr(builtins, "rnncc_was_here")


@pytest.mark.parametrize("size", ["self", "spec", "regularizers"])
def test_sizes_that_keras_has_arguments_for(size: str) -> None:
    made = rnncc.compile_text(TEXT.replace("units", size))
    if size == "self":
        assert own.RNN(made, **{size: 2})(np.ones((1, 3, 2), "float32")).shape == (1, 2)
        return
    with pytest.raises((TypeError, ValueError), match=f"takes {size} for itself|'{size}'"):
        own.RNN(made, **{size: 2})
