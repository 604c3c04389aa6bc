"""What mypy and pyright say of a user's script, before anything of it runs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rnncc.common import layer_keywords
from rnncc.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, SimpleRNN, SimpleRNNCell
from rnncc.runtime.api.layer_options import LAYER_OPTIONS
from tests.support.paths import ROOT

SCRIPT = (Path(__file__).parent / "user_script.txt").read_text("utf-8")


def found(command: list[str], script: Path) -> set[int]:
    """The lines that a checker complains of."""
    run = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=False)
    lines = {int(n) for n in re.findall(rf"{script.name}:(\d+):(?:\d+)?.*?error", run.stdout)}
    assert lines, run.stdout + run.stderr
    return lines


def wrong_lines(*marks: str) -> set[int]:
    return {n for n, line in enumerate(SCRIPT.split("\n"), 1) if line.endswith(marks)}


@pytest.mark.slow
def test_mypy_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    cache = f"--cache-dir={ROOT / '.pytest_cache' / 'mypy'}"
    # The project's own settings leave torch and others unread, which take most of the time.
    settings = f"--config-file={ROOT / 'pyproject.toml'}"
    quick = ["--follow-imports=silent", settings, cache]
    command = [sys.executable, "-m", "mypy", *quick, str(script)]
    assert found(command, script) == wrong_lines("# no")


def test_pyright_finds_what_is_wrong(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    (tmp_path / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{ROOT}"]}}')
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(script)]
    assert found(command, script) == wrong_lines("# no", "# no, says torch")


def test_types_name_the_keywords_that_layers_take() -> None:
    assert set(layer_keywords.LayerKeywords.__annotations__) == set(LAYER_OPTIONS)
    typed = inspect.getsource(sys.modules["rnncc.runtime.api.layer_base"])
    for name in LAYER_OPTIONS:
        assert re.search(rf"^            {name}: ", typed, re.MULTILINE), name


@pytest.mark.parametrize("kind", [SimpleRNN, GRU, LSTM])
def test_layers_take_what_their_types_say(kind: type) -> None:
    """And nothing more: each keyword of the cell and of every layer is typed, or spelt out."""
    spelt = set(inspect.signature(kind.__init__).parameters) - {"self", "keywords"}
    simple = kind is SimpleRNN
    typed = layer_keywords.SimpleKeywords if simple else layer_keywords.GatedKeywords
    more = set(typed.__annotations__)
    assert not spelt & more
    assert set(LAYER_OPTIONS) <= spelt | more
    cell = kind.maker.cell
    declared = {n for n, _ in (*cell.options, *cell.functions)} | {r.name for r in cell.rates}
    assert declared <= spelt | more
    values = {
        "time_major": True,
        "zero_output_for_mask": True,
        "checkpoint_every": 2,
        "precision": "float32",
        "weights": "float32",
        "dtype": "float32",
        "name": "a",
        "implementation": 1,
        "use_cudnn": "auto",
        "dropout_per_gate": True,
    }
    assert more <= {*values}
    kind(units=3, **{n: values[n] for n in more})


@pytest.mark.parametrize("kind", [SimpleRNNCell, GRUCell, LSTMCell])
def test_cells_take_what_their_types_say(kind: type) -> None:
    simple = kind is SimpleRNNCell
    typed = layer_keywords.SimpleCellKeywords if simple else layer_keywords.GatedCellKeywords
    values = {"precision": "float32", "weights": None, "dtype": "float32", "name": "a"}
    values |= {"implementation": 1, "use_cudnn": "auto", "dropout_per_gate": True}
    kind(units=3, **{n: values[n] for n in typed.__annotations__})


def test_stacks_take_what_their_types_say() -> None:
    spelt = set(inspect.signature(RNN.__init__).parameters) - {"self", "keywords"}
    more = set(layer_keywords.StackKeywords.__annotations__)
    assert not spelt & more
    assert set(LAYER_OPTIONS) <= spelt | more
