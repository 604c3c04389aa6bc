"""Arrays of a library like CuPy: layers read and write them where they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.runtime.cuda.arrays.cupy import InterfaceArrays
from rnncc.runtime.cuda.driver.current_target import using
from tests.support.gpu_simulator import fake_cupy
from tests.support.gpu_simulator.grid import Simulator

LIMIT = 1e-5
MASK = np.array([[1, 0, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]], bool)


def flat(values: Any) -> list[Any]:
    return [a for v in values for a in flat(v)] if isinstance(values, tuple) else [values]


@pytest.mark.parametrize(
    ("cell", "options", "call"),
    [
        ("lstm", {"return_sequences": True, "return_state": True}, {}),
        ("gru", {"return_sequences": True, "time_major": True, "go_backwards": True}, {}),
        ("gru", {}, {"mask": MASK}),
        ("peephole_lstm", {"return_sequences": True}, {"mask": MASK}),
        ("simple_rnn", {"return_sequences": True, "checkpoint_every": 4}, {}),
    ],
)
def test_values_and_gradients(cell: str, options: dict[str, Any], call: dict[str, Any]) -> None:
    simulator = Simulator(seed=5)
    cupy = fake_cupy.library(simulator)
    streams: list[Any] = []
    launch = simulator.launch
    simulator.launch = lambda *a, **k: (streams.append(k["stream"]), launch(*a, **k))  # type: ignore
    x = np.random.default_rng(0).standard_normal((2, 6, 3), "float32")
    x = x.swapaxes(0, 1).copy() if options.get("time_major") else x
    ours = rnncc.compile(cell, target="cuda")(units=4, seed=1, **options)
    wanted = rnncc.compile(cell)(units=4, seed=1, **options)
    right, back = wanted.vjp(x, training=False, **call)
    dy = [np.random.default_rng(1).standard_normal(a.shape).astype("float32") for a in flat(right)]
    arranged = tuple if isinstance(right, tuple) else lambda a: a[0]
    on_gpu = {n: cupy.asarray(a) for n, a in call.items()}
    with using(simulator):
        values, pullback = ours.vjp(cupy.asarray(x), training=False, **on_gpu)
        grads = pullback(arranged([cupy.asarray(d) for d in dy]))
        again = pullback(arranged([cupy.asarray(d) for d in dy]))
    right_grads = back(arranged(dy))
    found = [*flat(values), *flat(grads.inputs), *grads.weights.values()]
    assert all(isinstance(a, fake_cupy.ndarray) for a in found), "given back as they came"
    assert set(streams) == {fake_cupy.STREAM}
    pairs = [*flat(right), *flat(right_grads.inputs), *right_grads.weights.values()]
    for a, b in zip(found, pairs, strict=True):
        np.testing.assert_allclose(a.get(), b, atol=LIMIT)
    np.testing.assert_array_equal(flat(again.inputs)[0].get(), flat(grads.inputs)[0].get())


def test_read_where_they_are() -> None:
    """No copy of what is given, of views of it neither: kernels are told its own address."""
    simulator = Simulator(seed=5)
    cupy = fake_cupy.library(simulator)
    carrier = InterfaceArrays(simulator, cupy)
    x = cupy.asarray(np.ones((2, 8, 3), "float32"))
    kind, at = np.dtype("float32"), x.__cuda_array_interface__["data"][0]
    assert carrier.enter(x, kind, 2)[0].address == at
    piece, strides = carrier.enter(x[:, 2:6], kind, 2)
    assert (piece.address, strides) == (at + 4 * 6, (4 * 24, 4 * 3, 4))
    assert carrier.enter(x[..., ::2], kind, 2)[0].address != at, "lanes lie apart: a copy"
    assert carrier.stream == fake_cupy.STREAM


def test_weights_are_copied_on_the_stream_that_reads_them() -> None:
    """A copy that another stream makes may not have come yet."""
    simulator = Simulator(seed=5)
    cupy = fake_cupy.library(simulator)
    layer = rnncc.compile("gru", target="cuda")(units=2, seed=1)
    x, copied, asarray = cupy.asarray(np.ones((1, 2, 3), "float32")), [], cupy.asarray
    cupy.asarray = lambda array: copied.append(array.shape) or asarray(array)
    with using(simulator):
        for stream, times in ((7, 1), (7, 1), (99, 2)):  # once a version, on each stream
            cupy.cuda.get_current_stream = lambda s=stream: SimpleNamespace(ptr=s)
            layer(x)
            assert copied.count((3, 6)) == times


def test_what_is_refused() -> None:
    simulator = Simulator()
    cupy = fake_cupy.library(simulator)
    x = cupy.asarray(np.ones((1, 2, 3), "float32"))
    with pytest.raises(TypeError, match=r"kernels run on the CPU: layer.to\('cuda'\)"):
        rnncc.compile("gru")(units=2)(x)
    layer = rnncc.compile("gru", target="cuda")(units=2)
    with pytest.raises(TypeError, match="holds complex64 values"):
        layer(cupy.asarray(np.ones((1, 2, 3), "complex64")))

    class Tensor:
        __cuda_array_interface__ = {}  # noqa: RUF012

    with pytest.raises(TypeError, match=r"modules of rnncc.torch take tensors"):
        layer(Tensor())


def test_a_state_on_the_gpu_and_numpys_inputs() -> None:
    simulator = Simulator(seed=5)
    cupy = fake_cupy.library(simulator)
    x, h = np.ones((2, 3, 2), "float32"), np.full((2, 4), 0.5, "float32")
    layer = rnncc.compile("gru", target="cuda")(units=4, seed=1)
    with using(simulator):
        y = layer(x, initial_state=cupy.asarray(h))
    right = rnncc.compile("gru")(units=4, seed=1)(x, initial_state=h)
    np.testing.assert_allclose(y.get(), right, atol=LIMIT)
