"""Eight threads at once: every result has the bits that one thread alone gets.

    shared     one layer, each thread its own inputs, forwards and backwards
    many       a layer each, of one class
    weights    one layer whose weights change meanwhile: each result is of one version, whole
    first      classes and layers that are made and called for the first time at once
    process    the first calls of a process, of one layer, at once
    pullback   one pullback, each thread its own cotangents
    streams    a stream each, of one layer

Non-Goals: streams that threads share, and a stateful layer's states: those go on from call to call.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rnncc import compiler
from rnncc.runtime.api.layer import Layer
from tests.attack import Attack
from tests.attack.forked import in_child
from tests.attack.guard import all_of, differing, flat, layer_class
from tests.support import cases

CELLS = ("lstm", "gru", "layer_norm_lstm", "noise")
# Attempts that keep to small kernels, which other tests compile, too: every scene once.
EARLY, SMALL = 7, (("simple_rnn", "float64"), ("noise", "float64"))
THREADS, TURNS = 8, 12
SHAPES = ((1, 5, 3), (4, 6, 3), (33, 7, 3))  # batch, time, features
Work = Callable[[int], Sequence[np.ndarray]]


def at_once(work: Work, threads: int = THREADS) -> list[Sequence[np.ndarray]]:
    """What `work` gave each thread; all begin together."""
    found: list[Any] = [None] * threads
    together = threading.Barrier(threads)

    def run(number: int) -> None:
        together.wait()
        try:
            found[number] = work(number)
        except BaseException as error:
            found[number] = error

    team = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return found


def compared(work: Work) -> str | None:
    """The finding where threads at once get other bits than one after another."""
    right = [work(n) for n in range(THREADS)]
    for number, found in enumerate(at_once(work)):
        wrong = differing(list(found), list(right[number]))
        if wrong:
            return f"thread {number}: {wrong}"
    return None


def everything(layer: Layer, x: np.ndarray, seed: int) -> list[np.ndarray]:
    y, pullback = layer.vjp(x, training=True, seed=seed)
    gradients = pullback(np.ones_like(y))
    return [*flat(y), *all_of(gradients), *flat(layer(x, training=True, seed=seed))]


class Scene:
    """A class and inputs for every thread, drawn from a seed."""

    def __init__(self, rng: np.random.Generator, index: int) -> None:
        self.name = str(rng.choice(CELLS))
        self.dtype = str(rng.choice(["float32", "float64"]))
        if index < EARLY:
            self.name, self.dtype = SMALL[index % 2]
        self.kind = layer_class(self.name, self.dtype)
        rates = {r.name: 0.3 for r in self.kind.maker.cell.rates}
        self.units = int(rng.choice([5, 16, 40]))
        self.options: dict[str, Any] = {"units": self.units, "return_sequences": True, **rates}
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        self.inputs = [cases.draw(rng, shape).astype(self.dtype) for _ in range(THREADS)]
        self.rng = rng

    def layer(self, kind: type[Layer] | None = None) -> Layer:
        layer = (kind or self.kind)(**self.options, seed=3)
        layer.build(self.inputs[0].shape)
        return layer


def shared(scene: Scene) -> str | None:
    layer = scene.layer()
    return compared(lambda n: everything(layer, scene.inputs[n], n))


def many(scene: Scene) -> str | None:
    layers = [scene.layer() for _ in range(THREADS)]
    for layer in layers:
        layer.set_weights([cases.draw(scene.rng, w.shape) for w in layer.get_weights()])
    return compared(lambda n: everything(layers[n], scene.inputs[n], n))


def weights(scene: Scene) -> str | None:
    layer, x = scene.layer(), scene.inputs[0]
    versions = [[cases.draw(scene.rng, w.shape) for w in layer.get_weights()] for _ in range(2)]
    right = []
    for version in versions:
        layer.set_weights(version)
        right.append(everything(layer, x, 5))

    def work(number: int) -> list[np.ndarray]:
        for turn in range(TURNS):
            if number < 2:
                layer.set_weights(versions[(turn + number) % 2])
                continue
            y, pullback = layer.vjp(x, training=True, seed=5)
            found = [*flat(y), *all_of(pullback(np.ones_like(y)))]
            wrong = [differing(found, r[: len(found)]) for r in right]
            if all(wrong):
                raise AssertionError(f"of neither version: {wrong[0]}")
        return []

    at_once(work)
    return None


def first(scene: Scene) -> str | None:
    right = everything(scene.layer(), scene.inputs[0], 5)
    spec = cases.spec_of(scene.name)

    @cache
    def one_for_all() -> type[Layer]:
        return compiler.layer_class(spec, "cpu", scene.dtype)

    def work(number: int) -> list[np.ndarray]:
        own = compiler.layer_class(spec, "cpu", scene.dtype) if number % 2 else one_for_all()
        return everything(scene.layer(own), scene.inputs[0], 5)

    wrong = [differing(list(found), right) for found in at_once(work)]
    return next(filter(None, wrong), None)


def pullback(scene: Scene) -> str | None:
    layer = scene.layer()
    y, pull = layer.vjp(scene.inputs[0], training=True, seed=5)
    cotangents = [cases.draw(scene.rng, y.shape) for _ in range(THREADS)]
    return compared(lambda n: all_of(pull(cotangents[n])))


def streams(scene: Scene) -> str | None:
    scene.options["return_sequences"] = True
    layer = scene.layer()

    def work(number: int) -> list[np.ndarray]:
        x = scene.inputs[number][:1]
        stream = layer.stream(x[:, :1])
        return [stream(x[:, t : t + 1]).copy() for t in range(x.shape[1])]

    return compared(work)


def process(scene: Scene) -> str | None:
    layer = scene.layer()
    right = [everything(layer, x, 5) for x in scene.inputs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found"
        about = pickle.dumps((scene.name, scene.dtype, scene.options, scene.inputs))
        words = [sys.executable, "-c", FIRST_CALLS, str(path)]
        ran = subprocess.run(words, input=about, stderr=subprocess.PIPE)
        if ran.returncode:
            return f"exit status {ran.returncode}: {ran.stderr.decode()}"
        results = pickle.loads(path.read_bytes())
    wrong = [differing(list(f), r) for f, r in zip(results, right, strict=True)]
    return next(filter(None, wrong), None)


FIRST_CALLS = """
import pickle, sys
from pathlib import Path
from tests.attack.guard import layer_class
from tests.attack.threads import at_once, everything
name, dtype, options, inputs = pickle.load(sys.stdin.buffer)
layer = layer_class(name, dtype)(**options, seed=3)
layer.build(inputs[0].shape)
found = at_once(lambda number: everything(layer, inputs[number], 5))
Path(sys.argv[1]).write_bytes(pickle.dumps(found))
"""

SCENES = (shared, many, weights, first, process, pullback, streams)


def attempt(index: int, seed: int) -> str | None:
    rng = np.random.default_rng([seed, index])
    play = SCENES[index % len(SCENES)]
    scene = Scene(rng, index)
    finding = in_child(lambda: play(scene), seconds=300)
    where = f"{play.__name__}: {scene.name} {scene.dtype} {scene.options}, {scene.inputs[0].shape}"
    return finding and f"{where}\n{finding}"


ATTACK = Attack(
    name="threads",
    about="layers, weights, pullbacks and streams in eight threads at once",
    count=300,
    short=EARLY,
    attempt=attempt,
)
