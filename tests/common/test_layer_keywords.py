"""What mypy says of a user's script, before anything of it runs."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rnncc.common import layer_keywords
from rnncc.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, SimpleRNN, SimpleRNNCell
from rnncc.runtime.api.layer_options import LAYER_OPTIONS
from tests.support.paths import ROOT

# A line that ends in `# no` is wrong; others are right.
SCRIPT = """\
import numpy as np
import rnncc
import rnncc.torch
from rnncc.layers import GRU, LSTM, RNN, Bidirectional, LSTMCell, SimpleRNN

x = np.zeros((2, 3, 4), "float32")
Made = rnncc.compile("lstm", dtype="float64")
made = Made(units=4, return_sequences=True, checkpoint_every=2, dropout=0.5)
made(x, mask=None)
made(x, masks=None)  # no
made.vjp(x, trainng=True)  # no
rnncc.compile("lstm", dtyp="float64")  # no
Made(units=4, return_sequences="yes")  # no
Made(units=4, checkpoint_every="often")  # no
LSTM(4, time_major=True, dtype="float64", name="a", implementation=1, dropout_per_gate=True)
LSTM(4, num_layer=2)  # no
GRU(4, return_sequnces=True)  # no
SimpleRNN(4, dropout="0.5")  # no
SimpleRNN(4, zero_output_for_mask=True)
LSTMCell(4, unit=3)  # no
LSTMCell(4, time_major=True)  # no
RNN(LSTMCell(4), return_stat=True)  # no
RNN([LSTMCell(4), LSTMCell(5)], return_state=True, stateful=True, weights="int8")
Bidirectional(LSTM(4), merge="sum")  # no
rnncc.torch.LSTM(4, 8, num_layers=2, batch_first=True)
rnncc.torch.LSTM(4, 8, num_layer=2)  # no
rnncc.torch.GRU("4", 8)  # no
rnncc.torch.Recurrent("lstm", units=4, device=None)
y: int = made.plan()  # no
"""


def found(command: list[str], script: Path) -> set[int]:
    """The lines that a checker complains of."""
    run = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=False)
    lines = {int(n) for n in re.findall(rf"{script.name}:(\d+):(?:\d+)?.*?error", run.stdout)}
    assert lines, run.stdout + run.stderr
    return lines


def wrong_lines() -> set[int]:
    return {n for n, line in enumerate(SCRIPT.split("\n"), 1) if line.endswith("# no")}


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
    assert found(command, script) == wrong_lines()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pyright") is None, reason="needs pyright")
def test_pyright_finds_what_is_wrong(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    (tmp_path / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{ROOT}"]}}')
    assert wrong_lines() <= found(["pyright", str(script)], script)


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
