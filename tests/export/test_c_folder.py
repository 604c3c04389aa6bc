"""A layer as a folder of C: built by its own words, it says itself that it is the Python layer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
import rnncc.export
from rnncc.layers import GRU, LSTM, Bidirectional
from tests.support.c.units import COMPILER, STRICT, built, needs_compiler


def test_its_own_test_passes(tmp_path: Path) -> None:
    layer = built(LSTM(6, recurrent_activation="hard_sigmoid"), (None, None, 2))
    folder = rnncc.export.c(layer, tmp_path / "made", name="gate", block=4)
    names = {p.name for p in folder.iterdir()}
    assert names == {
        *("gate.c", "gate.h", "gate_weights.h", "gate_test.c", "CMakeLists.txt", "README.md")
    }
    text = (folder / "README.md").read_text()
    assert "| multiply-adds a step | 192 |" in text  # 4 * 6 * (2 + 6)
    assert f"| weights (constants) | {4 * (2 * 24 + 6 * 24 + 24)} bytes, float |" in text
    if COMPILER is None:
        pytest.skip("no C compiler")
    program = str(tmp_path / "test")
    sources = [str(folder / "gate.c"), str(folder / "gate_test.c")]
    subprocess.run([COMPILER, *STRICT, "-O2", "-o", program, *sources, "-lm"], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0 and "a block is its steps" in done.stdout, done.stdout
    # A weight that isn't the layer's is noticed.
    weights = (folder / "gate_weights.h").read_text()
    at = weights.index("{ /*")
    (folder / "gate_weights.h").write_text(weights[:at] + weights[at:].replace("e-01f", "e+00f", 1))
    subprocess.run([COMPILER, *STRICT, "-O2", "-o", program, *sources, "-lm"], check=True)
    assert subprocess.run([program], capture_output=True).returncode == 1


@needs_compiler
def test_narrow_weights(tmp_path: Path) -> None:
    """Said of the layer or of the folder, it is the same; its own test knows the difference."""
    layer = built(GRU(8, seed=1), (None, None, 70))
    folder = rnncc.export.c(layer, tmp_path / "made", name="net", storage="int8")
    again = built(GRU(8, seed=1, weights="int8"), (None, None, 70))
    same = rnncc.export.c(again, tmp_path / "same", name="net")
    for file in folder.iterdir():
        assert file.read_bytes() == (same / file.name).read_bytes()
    flash = (72 + 8) * 24 + 4 * 24 * (2 + 1) + 4 * 2 * 24  # bytes, scales of groups, biases
    assert f"| {flash} bytes, int8 |" in (folder / "README.md").read_text()
    whole = rnncc.export.c(again, tmp_path / "whole", name="net", storage="float32")
    assert "bytes, float |" in (whole / "README.md").read_text()
    assert COMPILER is not None
    program = str(tmp_path / "test")
    for sources, status in (((folder, folder), 0), ((whole, folder), 1)):
        files = [str(sources[0] / "net.c"), str(sources[1] / "net_test.c")]
        subprocess.run([COMPILER, *STRICT, "-O2", "-o", program, *files, "-lm"], check=True)
        assert subprocess.run([program], capture_output=True).returncode == status


@needs_compiler
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_cmake(tmp_path: Path) -> None:
    layer = built(GRU(4), (None, None, 3))
    folder = rnncc.export.c(layer, tmp_path / "made", name="net")
    subprocess.run(["cmake", "-S", folder, "-B", tmp_path / "build"], check=True)
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True)
    assert subprocess.run(["ctest"], cwd=tmp_path / "build").returncode == 0


def test_the_same_files_each_time(tmp_path: Path) -> None:
    layer = built(GRU(4), (None, None, 3))
    one, two = (rnncc.export.c(layer, tmp_path / n, name="net") for n in "ab")
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_other_options_of_a_layer(tmp_path: Path) -> None:
    """Which order its calls have, and what they return, is not the cell's."""
    made = rnncc.compile("lstm")(units=4, seed=1, time_major=True, stateful=True, return_state=True)
    plain = rnncc.compile("lstm")(units=4, seed=1)
    for layer in (made, plain):
        built(layer, (None, None, 3))
    one = rnncc.export.c(made, tmp_path / "made", name="net")
    two = rnncc.export.c(plain, tmp_path / "plain", name="net")
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


READS = """
cell: Reads
units: size
words: size
x: input[units]
memory: context[words, units]
h: state[units]
w: weight[units] = zeros
h[t] = tanh(x[t] * w + h[t-1] + sum(memory, axis=0))
return h[t]
"""


def test_every_size_is_a_number(tmp_path: Path) -> None:
    cls = rnncc.compile_text(READS)
    layer = built(cls(units=2, seed=1), ((None, None, 2), (None, None, 2)))
    with pytest.raises(ValueError, match=r"make the layer with words=\.\.\."):
        rnncc.export.c(layer, tmp_path / "made", name="net")
    known = built(cls(units=2, words=3, seed=1), ((None, None, 2), (None, None, 2)))
    text = (rnncc.export.c(known, tmp_path / "made", name="net") / "README.md").read_text()
    assert "| `in_memory` | 6 numbers for all steps |" in text


def _names(layer: Any) -> dict[str, Any]:
    return {"layer": layer, "name": "net"}


def test_what_cant_be(tmp_path: Path) -> None:
    good = built(LSTM(3), (None, None, 2))
    both = built(Bidirectional(LSTM(3)), (None, None, 2))
    double = built(LSTM(3, dtype="float64"), (None, None, 2))
    back = built(LSTM(3, go_backwards=True), (None, None, 2))
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"layer": both}, TypeError, "Bidirectional needs the whole sequence"),
        ({"layer": np.zeros(3)}, TypeError, "ndarray is neither a layer nor a model"),
        ({"layer": back}, ValueError, "backwards"),
        ({"layer": LSTM(3)}, ValueError, "no weights yet"),
        ({"storage": "int4"}, ValueError, "none of 'float32', 'bfloat16', 'int8'"),
        ({"layer": double, "storage": "int8"}, ValueError, "is of float64"),
        *(
            ({"name": n}, ValueError, "C identifier")
            for n in ("2nd", "a b", "int", "class", "", "é")
        ),
        *(({"block": n}, ValueError, "number of steps") for n in (0, -1, 1.5, True, 1 << 20)),
        ({"initial_state": {"h": np.zeros((1, 3))}}, ValueError, r"\[1, 3\], expected \[3\]"),
        ({"initial_state": {"z": 1}}, ValueError, r"the states are \['h', 'c'\]"),
    ]
    for change, kind, message in wrong:
        given = {**_names(good), **change}
        with pytest.raises(kind, match=message):
            rnncc.export.c(given.pop("layer"), tmp_path / "made", **given)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(OSError, match="not empty"):
        rnncc.export.c(good, tmp_path / "there", name="net")
    assert [p.name for p in tmp_path.iterdir()] == ["there"], "nothing is left half-written"
