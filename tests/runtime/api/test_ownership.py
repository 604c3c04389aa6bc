"""Who owns which array and when, on kernels: nothing one call does is seen by another.

Threads, forked children and other processes give the same bits as one call after another.
"""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnncc import compiler
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.pullback import Gradients
from tests.support.paths import CELLS, ROOT

# name -> shapes of its inputs and contexts
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "lstm": ((33, 6, 3),),
    "learned_start": ((2, 4, 3),),
    "two_inputs": ((2, 5, 3, 6), (2, 5, 3)),
    "context_attention": ((2, 5, 3), (2, 6, 7)),
}


def made(name: str, **keywords: Any) -> Layer:
    path = CELLS / f"{name}.rnn"
    spec = compiler.load_spec(path if path.exists() else name)
    cls = compiler.layer_class(spec, "cpu", "float64")
    return cls(units=5, seed=1, return_sequences=True, return_state=True, **keywords)


def inputs(name: str, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.uniform(-1, 1, shape) for shape in SHAPES[name])


def flat(value: Any) -> list[np.ndarray]:
    """The arrays of nested tuples, dicts and Gradients."""
    if isinstance(value, Gradients):
        return flat((value.inputs, value.weights, value.initial_state))
    if isinstance(value, dict):
        value = tuple(value.values())
    return [a for v in value for a in flat(v)] if isinstance(value, tuple | list) else [value]


def like(value: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    if isinstance(value, tuple):
        return tuple(like(v, seed + i) for i, v in enumerate(value))
    return rng.uniform(-1, 1, value.shape)


def equal(one: Any, two: Any) -> None:
    a, b = flat(one), flat(two)
    assert len(a) == len(b)
    for x, y in zip(a, b):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", SHAPES)
def test_a_pullback_owns_what_it_needs(name: str) -> None:
    layer, given = made(name), inputs(name)
    start = {s.name: np.full_like(f, 0.3) for s, f in zip(layer.cell.states, layer(given)[1:])}
    y, pullback = layer.vjp(given, initial_state=start)
    dy = like(y, 3)
    first = copy.deepcopy(pullback(dy))
    seen = pullback(dy)
    # Whatever can be overwritten, is; and others call the same layer.
    for array in (*given, *start.values(), *flat(y), *flat(seen)):
        array[...] = np.nan
    for weight in layer.weights:
        layer.weights[weight] = layer.weights[weight] * 3 + 1
    for constant in layer.constants:
        layer.constants[constant] = layer.constants[constant] - 5
    other, pulled = layer.vjp(inputs(name, 9))
    pulled(other)
    equal(pullback(dy), first)
    equal(pullback(dy, consume=True), first)
    with pytest.raises(RuntimeError, match="was consumed"):
        pullback(dy)


@pytest.mark.parametrize("name", SHAPES)
def test_results_share_no_memory(name: str) -> None:
    layer = made(name)
    given = inputs(name)
    y, pullback = layer.vjp(given)
    dy = like(y, 3)
    arrays = [*given, *flat(y), *flat(dy), *flat(pullback(dy)), *flat(layer(given))]
    arrays += [*layer.weights.values(), *layer.constants.values(), *layer.get_weights()]
    for i, one in enumerate(arrays):
        for two in arrays[:i]:
            assert not np.shares_memory(one, two)
    assert all(a.flags.writeable and a.flags.c_contiguous for a in (*flat(y), *flat(pullback(dy))))


def test_one_layer_applied_twice() -> None:
    layer, x = made("lstm"), inputs("lstm")[0]
    pulled = []
    for order in ((0, 1), (1, 0)):
        y, first = layer.vjp(x)
        z, second = layer.vjp(np.ascontiguousarray(y[0][..., :3]), initial_state=y[1:])
        calls = [(first, like(y, 3)), (second, like(z, 4))]
        found = {i: calls[i][0](calls[i][1]) for i in order}
        pulled.append((found[0], found[1]))
    equal(pulled[0], pulled[1])


def in_threads(work: Callable[[int], None], count: int = 4) -> None:
    failures: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            work(i)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def test_threads_call_one_layer() -> None:
    """Different sizes at once, dropout with seeds of its own, the first call among them."""
    layer = made("lstm", dropout=0.5)
    rng = np.random.default_rng(0)
    xs = [rng.uniform(-1, 1, (1 + 8 * (i % 5), 1 + i % 3, 3)) for i in range(16)]

    def once(i: int) -> list[np.ndarray]:
        y, pullback = layer.vjp(xs[i], training=bool(i % 2), seed=i)
        return flat((y, pullback(like(y, i)), layer(xs[i])))

    found: dict[tuple[int, int], list[np.ndarray]] = {}

    def work(thread: int) -> None:
        for i in range(16):
            found[thread, i] = once((i + 4 * thread) % 16)

    in_threads(work)
    for (thread, i), arrays in found.items():
        equal(arrays, once((i + 4 * thread) % 16))


def test_weights_change_between_calls_never_within_one() -> None:
    layer, x = made("lstm"), inputs("lstm")[0]
    layer(x)
    kernels = [layer.weights["kernel"] * scale for scale in (1, 2, 3)]
    right = []
    for kernel in kernels:
        layer.weights["kernel"] = kernel
        right.append(layer(x)[0].tobytes())
    done = threading.Event()

    def work(thread: int) -> None:
        if thread == 0:
            for i in range(200):
                layer.weights["kernel"] = kernels[i % 3]
            done.set()
        while not done.is_set():
            assert layer(x)[0].tobytes() in right

    in_threads(work)


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "save and load"])
def test_copies_compute_the_same_and_go_their_own_way(way: str, tmp_path: Path) -> None:
    layer, x = made("lstm", dropout=0.5), inputs("lstm")[0]
    y = layer(x)
    if way == "save and load":
        layer.save(tmp_path / "w.npz")
        twin = made("lstm", dropout=0.5)
        twin.load(tmp_path / "w.npz")
    else:
        twin = pickle.loads(pickle.dumps(layer)) if way == "pickle" else copy.deepcopy(layer)
    equal(twin(x), y)
    equal(twin.vjp(x, seed=5)[1](y), layer.vjp(x, seed=5)[1](y))
    twin.weights["kernel"] = twin.weights["kernel"] * 2
    assert (twin(x)[0] != y[0]).any()
    equal(layer(x), y)


def test_another_process_gets_the_same_bits(tmp_path: Path) -> None:
    layer, x = made("lstm"), inputs("lstm")[0]
    y, pullback = layer.vjp(x)
    gradients = pullback(y)
    sent = pickle.dumps((layer, x, [a.tobytes() for a in flat((y, gradients))]))
    (tmp_path / "layer.pickle").write_bytes(sent)
    code = (
        "import pickle, sys; layer, x, right = pickle.load(open('layer.pickle', 'rb'))\n"
        "from tests.runtime.api.test_ownership import flat\n"
        "y, pullback = layer.vjp(x)\n"
        "assert [a.tobytes() for a in flat((y, pullback(y)))] == right"
    )
    for threads in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RNNCC_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("busy", [False, True])
def test_a_forked_child_computes(busy: bool) -> None:
    """After the parent's workers ran; and while its other threads are within calls."""
    layer, x = made("lstm"), np.random.default_rng(0).uniform(-1, 1, (64, 20, 3))
    y, pullback = layer.vjp(x)
    right = [a.tobytes() for a in flat((y, pullback(y)))]
    stop = threading.Event()

    def hammer(seed: int) -> None:
        for n in range(10**9):  # new sizes each time: locks are held long
            if stop.is_set():
                return
            z, pulled = layer.vjp(np.ones((1 + n % 9, 1 + (n + seed) % 7, 3)))
            pulled(z)

    threads = [threading.Thread(target=hammer, args=(i,)) for i in range(2 if busy else 0)]
    for thread in threads:
        thread.start()
    try:
        codes = [_in_child(layer, x, right) for _ in range(10 if busy else 1)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * len(codes)


def _in_child(layer: Layer, x: np.ndarray, right: list[bytes]) -> int:
    """0: the child's bits are right. Its plan says how many threads it has."""
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(60)  # a child that waits for a thread it doesn't have
            y, pullback = layer.vjp(x)
            said = "thread" in layer.plan().splitlines()[1]
            same = [a.tobytes() for a in flat((y, pullback(y)))] == right
            code = 0 if same and said else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1
