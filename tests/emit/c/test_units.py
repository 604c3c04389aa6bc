"""Cells as C99: what the Python layer computes, warning-free, a step at a time or a block."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from tests.support.c.units import (
    COMPILER,
    STRICT,
    Compiled,
    built,
    inputs_of,
    needs_compiler,
    unit_of,
)
from tests.support.paths import ROOT
from tests.support.random_cells import random_cell

SIZES: dict[str, dict[str, int]] = {
    "nested": {"unit_1": 3, "unit_2": 4, "unit_3": 2},
    "slstm": {"units": 12, "heads": 3},
}
CELLS = sorted(p.stem for p in (ROOT / "rnncc" / "cells").glob("*.rnn"))
# What no built-in cell has: steps back, moves, reductions, names that C has taken.
ODD = """
cell: Odd

features: size
float: size

x: input[features]
double: state[float]
h: state[2, float]

W: weight[features, float] = glorot_uniform
s: weight[float, float] = orthogonal
while_: weight[2, float] = zeros

int_ = tanh(x[t] @ W + double[t-1] @ s)
y = concat(cumsum(int_), roll(int_, 1)[1:], max(int_, axis=0) * int_)
half = where(int_ > 0.1, int_, floor(int_ * 3) / 4)
h[t] = reshape(concat(int_, half), (2, float)) * 0.5 + while_ * h[t-1]
double[t] = sum(h[t], axis=0) + exp(-abs(int_)) * half[::-1]
return y, double[t]
"""


def layer_of(cell: str, dtype: str, units: int = 7, **options: Any) -> Any:
    cls = rnncc.compile(cell)
    sizes = SIZES.get(cell, {"units": units})
    layer = cls(**sizes, dtype=dtype, seed=1, return_sequences=True, **options)
    shapes = tuple((None, None, *([5] * len(i.shape))) for i in layer.cell.inputs)
    return built(layer, shapes if len(shapes) > 1 else shapes[0])


def check(layer: Any, folder: Path, flags: tuple[str, ...] = (), **options: Any) -> Compiled:
    unit = unit_of(layer, **options)
    made = Compiled(unit, folder, ("-O2", "-march=native", *flags))
    inputs = inputs_of(unit, 37)
    whole = layer(tuple(i[None] for i in inputs) if len(inputs) > 1 else inputs[0][None])
    expected = [y[0] for y in (whole if isinstance(whole, tuple) else (whole,))]
    steps = made.steps(inputs)
    made.call("reset")
    block = made.block(inputs)
    exact = 2e-6 if layer.dtype == "float32" else 1e-12
    for found, again, right in zip(steps, block, expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=exact, atol=exact)
        assert found.tobytes() == again.tobytes()
    return made


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_built_in_cells(cell: str, dtype: str, tmp_path: Path) -> None:
    check(layer_of(cell, dtype), tmp_path, block=5)


@needs_compiler
@pytest.mark.parametrize("units", [1, 16, 100])
def test_sizes(units: int, tmp_path: Path) -> None:
    """Whole tiles of lanes, parts of one, sums of several blocks."""
    check(layer_of("lstm", "float32", units), tmp_path)


@needs_compiler
@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "slstm", "light_gru"])
def test_narrow_weights(cell: str, storage: str, tmp_path: Path) -> None:
    """The numbers of a Python layer whose weights are so narrow, in parts of tiles."""
    check(layer_of(cell, "float32", weights=storage), tmp_path)


@needs_compiler
@pytest.mark.parametrize("flags", [(), ("-DNET_PLAIN",)])
@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_long_sums_of_narrow_weights(storage: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    """Several groups of scales, the last no whole one; tiles of two widths, four rows at once."""
    make = rnncc.compile("lstm")
    layer = make(units=66, dtype="float32", seed=1, return_sequences=True, weights=storage)
    made = check(built(layer, (None, None, 131)), tmp_path, flags)
    assert made.unit.widths == made.unit.tall == [48, 56]


@needs_compiler
def test_without_vectors(tmp_path: Path) -> None:
    """As compilers without them see it: sums of several rows at once, of two blocks, in tiles."""
    layer = rnncc.compile("gru")(units=40, dtype="float32", seed=1, return_sequences=True)
    check(built(layer, (None, None, 99)), tmp_path, ("-DNET_PLAIN",))


@needs_compiler
def test_what_no_built_in_cell_has(tmp_path: Path) -> None:
    layer = rnncc.compile_text(ODD)(float=6, dtype="float64", seed=1, return_sequences=True)
    check(built(layer, (None, None, 5)), tmp_path, block=3)


READER = """
cell: Reader
features: size
units: size
words: size
x: input[features]
memory: context[words, units]
h: state[units]
kernel: weight[features, units] = glorot_uniform
recurrent_kernel: weight[units, units] = orthogonal
score = softmax(einsum("wu,u->w", memory, h[t-1]))
h[t] = tanh(x[t] @ kernel + h[t-1] @ recurrent_kernel + einsum("w,wu->u", score, memory))
return h[t]
"""


@needs_compiler
def test_a_context_is_the_same_for_all_steps(tmp_path: Path) -> None:
    sizes = {"units": 5, "words": 4}
    layer = rnncc.compile_text(READER)(**sizes, dtype="float64", seed=1, return_sequences=True)
    check(built(layer, ((None, None, 3), (None, 4, 5))), tmp_path, block=4)


GIVEN = """
cell: Given
features: size
units: size
x: input[features]
about: context[features]
h: state[units]
kernel: weight[features, 2 * units] = glorot_uniform
scale: weight[features, 2 * units] = glorot_uniform
recurrent_kernel: weight[units, 2 * units] = orthogonal
a, b = split(x[t] @ kernel + about @ scale + h[t-1] @ recurrent_kernel, 2)
h[t] = tanh(a) * sigmoid(b)
return h[t]
"""


@needs_compiler
def test_many_weights_of_what_has_no_steps(tmp_path: Path) -> None:
    layer = rnncc.compile_text(GIVEN)(units=48, dtype="float32", seed=1, return_sequences=True)
    made = check(built(layer, ((None, None, 70), (None, 70))), tmp_path)
    assert "t & 1" in (tmp_path / "net.c").read_text(), "weights of steps go back and forth"
    assert made.unit.tall


BACK = """
cell: Back
features: size
units: size
x: input[features]
h: state[units]
kernel: weight[features, 2 * units] = glorot_uniform
recurrent_kernel: weight[units, 2 * units] = glorot_uniform
a, b = split(h[t-1] @ recurrent_kernel, 2)
c, d = split(tanh(x[t-1] + 1) @ kernel, 2)
h[t] = tanh(a + c) + 0.5 * h[t-2]
y = h[t] + sigmoid(b) * d
return y
"""


@needs_compiler
def test_steps_back_and_states_of_every_step(tmp_path: Path) -> None:
    """What is behind the loop reads states of all steps; what a step before was begins with zeros,
    and what is made of it with what is made of zeros."""
    layer = rnncc.compile_text(BACK)(units=5, dtype="float64", seed=1, return_sequences=True)
    made = check(built(layer, (None, None, 3)), tmp_path, block=4)
    assert any(s.rows == 5 for s in made.unit.states)
    assert any(s.values is not None for s in made.unit.states)


@needs_compiler
@pytest.mark.parametrize("seed", range(8))
def test_random_cells(seed: int, tmp_path: Path) -> None:
    cls = rnncc.compile_text(random_cell(seed))
    layer = cls(features=3, units=4, dtype="float64", seed=1, return_sequences=True)
    check(built(layer, (None, None, 3)), tmp_path, block=3)


EVIL = """
'''A title */ int planted_by_title; /* ??/'''
cell: Evil
units: size
x: input[units]
h: state[units]
w: weight[units] = zeros
h[t] = tanh(x[t] * w + h[t-1])  # */ int planted_by_comment; /* ??/
return h[t]
"""


@needs_compiler
def test_nothing_of_a_spec_is_code_but_its_equations(tmp_path: Path) -> None:
    text = EVIL.lstrip().replace("'''", '"' * 3)
    layer = rnncc.compile_text(text)(units=3, dtype="float64", seed=1, return_sequences=True)
    made = check(built(layer, (None, None, 3)), tmp_path)
    assert "planted_by_title" in (tmp_path / "net.c").read_text(), "it is shown"
    for name in ("planted_by_title", "planted_by_comment"):
        assert not hasattr(made.library, name)


@needs_compiler
def test_states_go_out_and_in(tmp_path: Path) -> None:
    layer = layer_of("lstm", "float32")
    made = check(layer, tmp_path)
    inputs = inputs_of(made.unit, 9)
    made.call("init")
    whole = made.block(inputs)[0]
    made.call("reset")
    made.block([inputs[0][:4]])
    kept = np.zeros(made.unit.state_elements, "f")
    made.call("get_state", kept)
    other = Compiled(made.unit, tmp_path, ("-O2", "-march=native"))
    other.call("set_state", kept)
    assert np.array_equal(other.block([inputs[0][4:]])[0], whole[4:])


@needs_compiler
def test_states_it_was_trained_to_start_from(tmp_path: Path) -> None:
    layer = layer_of("lstm", "float64")
    starts = {"h": np.full(7, 0.25), "c": np.linspace(-1, 1, 7)}
    made = Compiled(unit_of(layer, starts=starts), tmp_path)
    inputs = inputs_of(made.unit, 3)
    right = layer(inputs[0][None], initial_state={n: s[None] for n, s in starts.items()})
    np.testing.assert_allclose(made.block(inputs)[0], right[0], rtol=1e-12, atol=1e-12)


@needs_compiler
def test_other_compilers_and_standards(tmp_path: Path) -> None:
    """No warning without FMA, at -O0, and as part of a C++ program."""
    made = check(layer_of("gru", "float32"), tmp_path)
    source = str(tmp_path / "net.c")
    assert COMPILER is not None
    for flags in (["-O0"], ["-O3"], ["-Os", "-Wconversion", "-Wno-error"]):
        command = [COMPILER, *STRICT, *flags, "-c", "-o", "/dev/null", source]
        assert subprocess.run(command).returncode == 0, flags
    (tmp_path / "use.cpp").write_text('#include "net.h"\nnet_state one, two;\n')
    if (plus := shutil.which("g++") or shutil.which("clang++")) is not None:
        command = [plus, "-Wall", "-Wextra", "-Werror", "-c", "-o", "/dev/null"]
        assert subprocess.run([*command, str(tmp_path / "use.cpp")]).returncode == 0
    assert made.unit.prefix == "net"


@needs_compiler
def test_nothing_is_called_but_math(tmp_path: Path) -> None:
    """No allocation, no lock, no call of the system can be made: nothing of the kind is linked."""
    if (symbols := shutil.which("nm")) is None:
        pytest.skip("no nm")
    made = check(layer_of("layer_norm_lstm", "float32"), tmp_path)
    found = subprocess.run(
        [symbols, "-D", "--undefined-only", str(tmp_path / "net.so")],
        capture_output=True,
        text=True,
    )
    called = set(re.findall(r" U (\w+)", found.stdout))
    assert called <= {"sqrtf", "memcpy", "memset", "memmove"}, called
    assert not re.search(r"malloc|free|stdio|stdlib", (tmp_path / "net.c").read_text())
    assert made.unit.kernels
