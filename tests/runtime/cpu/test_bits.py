"""The same bits for any threads, any batch around a row, any chunks, any vector width.

Threads and widths are a process's own: `python -m tests.runtime.cpu.test_bits FILE` is such a one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnncc import compiler
from rnncc.runtime.common.weight_formats import NARROW
from rnncc.runtime.cpu.execution.engine import CpuEngine
from rnncc.runtime.cpu.planning import tiling
from rnncc.runtime.cpu.planning.tiling import TileBinder
from rnncc.runtime.cpu.threads.dispatch import max_threads
from tests.support import cases
from tests.support.cases import Arrays
from tests.support.kernel_pair import SHAPES, SINGLE, Pair, bits
from tests.support.second_order import flat, twice

# cells and precisions tried in processes of their own, each compiled for every vector width
CELLS = ("lstm", "layer_norm_lstm", "slstm", "fast_weights")
TRIED = [*((name, "float32") for name in CELLS), ("simple_rnn", "float64")]
STORED = "lstm"  # with narrow weights
SECOND = "simple_rnn"  # second derivatives, of few kernels
THREADS, WIDTH = "RNNCC_NUM_THREADS", "RNNCC_VECTOR_BYTES"


def everything() -> Iterator[tuple[str, np.ndarray]]:
    for name, dtype in TRIED:
        for shape in SHAPES:
            for key, array in bits(name, dtype, shape).items():
                yield f"{name} {dtype} {shape} {key}", array
    for storage, shape in product(NARROW, SHAPES):
        units, *lead = shape
        x = np.random.default_rng(5).standard_normal(lead).astype(np.float32)
        options: dict[str, Any] = {"weights": storage, "return_sequences": True, "seed": 7}
        yield f"{STORED} {storage} {shape}", compiler.compile(STORED)(units, **options)(x)
    for shape in SHAPES:
        pair = Pair.of(SECOND, "float32", shape)
        for key, array in flat(twice(pair.kernels, pair)).items():
            yield f"{SECOND} {shape} second {key}", array


def write(path: str) -> None:
    from rnncc.common.machine import host

    found = dict(everything())
    found[THREADS], found[WIDTH] = np.array(max_threads()), np.array(host().vector_bytes)
    np.savez(path, **found)  # type: ignore[arg-type]


@cache
def in_a_process(what: str, value: int) -> Arrays:
    """What a process finds where this variable has this value.

    All of them share one store: a module of one width must not be taken for another's.
    """
    environment = {k: v for k, v in os.environ.items() if k not in (THREADS, WIDTH)}
    environment[THREADS] = "2"
    environment[what] = str(value)
    environment["PYTHONPATH"] = os.pathsep.join([str(cases.ROOT), *sys.path])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bits.npz"
        done = subprocess.run(
            [sys.executable, "-m", "tests.runtime.cpu.test_bits", str(path)],
            cwd=cases.ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with np.load(path) as arrays:
            found = dict(arrays)
    assert found[what] == value
    return {k: a for k, a in found.items() if k not in (THREADS, WIDTH)}


def assert_same(found: Arrays, right: Arrays) -> None:
    assert right.keys() == found.keys()
    different = [key for key, a in right.items() if a.tobytes() != found[key].tobytes()]
    assert not different, f"{len(different)} of {len(right)}: {different[:8]}"


@pytest.mark.slow
def test_one_thread_and_two() -> None:
    assert_same(in_a_process(THREADS, 1), in_a_process(THREADS, 2))


@pytest.mark.slow
@pytest.mark.parametrize("width", [16, 32, 64])
def test_vector_widths(width: int) -> None:
    assert_same(in_a_process(WIDTH, width), in_a_process(THREADS, 2))


@pytest.mark.parametrize("name", CELLS)
def test_rows_of_a_batch_shared_or_units(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As threads share large weights, on small ones."""
    pair = Pair.of(name, "float32", (70, 5, 9, 7))
    layer = pair.kernels
    right = pair.gradients(layer), pair.values(layer)
    monkeypatch.setattr(TileBinder, "reads_twice", lambda *_: True)
    monkeypatch.setattr(tiling, "BULK_WORK", 0)
    sides = {v: (e._forward.direction, e._backward.direction) for v, e in made(layer).items()}
    anew = {v: CpuEngine(layer.cell, *directions) for v, directions in sides.items()}
    monkeypatch.setattr(layer._binding, "_made", anew)
    layer._engines.clear()
    found = pair.gradients(layer), pair.values(layer)
    if max_threads() > 1:
        assert "share the units, one barrier a level" in layer.plan()
    for a, b in ((found[0][0], right[0][0]), (found[0][1], right[0][1]), (found[1], right[1])):
        assert_same(a, b)


def made(layer: Any) -> dict[Any, Any]:
    """The engines of its kernels that there are."""
    return {v: e for v, e in layer._binding._made.items() if isinstance(e, CpuEngine)}


# ---- rows and chunks ---------------------------------------------------------------------------


def dtype_of(name: str) -> str:
    """In which other tests compile the cell, too."""
    return "float32" if name in SINGLE else "float64"


@pytest.mark.parametrize("name", cases.NAMES)
def test_a_row_alone_and_among_others(name: str) -> None:
    """Values, and the gradients that belong to a row."""
    units, batch, time, features = 17, 33, 3, 7
    many = Pair.of(name, dtype_of(name), (units, batch, time, features))
    values, gradients = many.gradients(many.kernels)
    alone = many.values(many.kernels)
    for row in (0, 14, 32):
        own = slice(row, row + 1)
        one = Pair(
            many.kernels,
            many.reference,
            {n: a[own] if np.ndim(a) else a for n, a in many.arguments.items()},
            {n: a[own] for n, a in many.cotangents.items()},
        )
        for n, array in one.values(one.kernels).items():
            np.testing.assert_array_equal(array[0], alone[n][row], err_msg=f"{n} of row {row}")
        found, of_row = one.gradients(one.kernels)
        for n, array in found.items():
            np.testing.assert_array_equal(array[0], values[n][row], err_msg=f"{n} of row {row}")
        for n in one.arguments:
            if n in gradients:
                np.testing.assert_array_equal(of_row[n][0], gradients[n][row], err_msg=f"d {n}")


@pytest.mark.parametrize("name", ["lstm", "gru", "layer_norm_lstm", "matrix_memory", "delays"])
@pytest.mark.parametrize("units", [17, 40])
def test_a_masked_row_alone_and_among_others(name: str, units: int) -> None:
    """A row alone that saves nothing runs kernels of its own; a call for gradients doesn't."""
    pair = Pair.of(name, dtype_of(name), (units, 3, 6, 7))
    layer = pair.kernels
    inputs, states = pair.call(layer, pair.arguments)
    mask = np.random.default_rng(3).random((3, 6)) < 0.6
    many = pair.named(layer(inputs, initial_state=states, mask=mask))
    for row in range(3):
        own = slice(row, row + 1)
        x = {n: a[own] for n, a in inputs.items()}
        start = {n: a[own] for n, a in states.items()} if states else None
        alone = pair.named(layer(x, initial_state=start, mask=mask[own]))
        assert "for one row that saves nothing" in layer.plan()
        saved = pair.named(layer.vjp(x, initial_state=start, mask=mask[own])[0])
        assert "for one row that saves nothing" not in layer.plan()
        for n, array in alone.items():
            np.testing.assert_array_equal(array[0], many[n][row], err_msg=f"{n} of row {row}")
            np.testing.assert_array_equal(array, saved[n], err_msg=f"{n} of row {row}")


@pytest.mark.parametrize("name", cases.NAMES)
def test_chunks_and_the_whole(name: str) -> None:
    """States passed on: seven steps are three and four."""
    pair = Pair.of(name, dtype_of(name), (17, 5, 7, 7))
    layer = pair.kernels
    whole, gradients = pair.gradients(layer)
    timed = [a.name for a in layer.cell.inputs]
    outputs = [o.name for o in layer.cell.outputs]
    states = [s.name for s in layer.cell.states]
    chunks = (slice(0, 3), slice(3, 7))
    parts = []
    values: list[Arrays] = []
    held: Arrays = {}
    for steps in chunks:
        given = {n: a[:, steps] if n in timed else a for n, a in pair.arguments.items()}
        d = {n: a[:, steps] if n in outputs else a for n, a in pair.cotangents.items()}
        parts.append(Pair(layer, pair.reference, {**given, **held}, d))
        values.append(parts[-1].values(layer))
        held = {s: values[-1][f"final_{s}"] for s in states}
    for s in states:
        np.testing.assert_array_equal(values[-1][f"final_{s}"], whole[f"final_{s}"], err_msg=s)
    for n in outputs:
        joined = np.concatenate([v[n] for v in values], axis=1)
        np.testing.assert_array_equal(joined, whole[n], err_msg=n)
    # Backwards: the cotangents of the last states are what the next chunk hands back.
    _, later = parts[1].gradients(layer)
    parts[0].cotangents.update({f"final_{s}": later[s] for s in states})
    _, earlier = parts[0].gradients(layer)
    for n in timed:
        joined = np.concatenate([earlier[n], later[n]], axis=1)
        np.testing.assert_array_equal(joined, gradients[n], err_msg=f"d {n}")
    for s in states:
        np.testing.assert_array_equal(earlier[s], gradients[s], err_msg=f"d {s}")


@pytest.mark.parametrize("name", CELLS)
def test_the_same_bits_every_time(name: str) -> None:
    """And whatever ran in between."""
    first = bits(name, "float32", SHAPES[0])
    bits(name, "float32", SHAPES[2])
    assert_same(bits(name, "float32", SHAPES[0]), first)


def test_a_padded_batch_changes_nothing() -> None:
    """Rows of NaN beside a row leave it alone."""
    layer: Any = compiler.compile("lstm")(units=17, seed=1)
    x = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)
    right = layer(x)
    x[1:] = np.nan
    np.testing.assert_array_equal(layer(x)[0], right[0])


if __name__ == "__main__":
    write(sys.argv[1])
