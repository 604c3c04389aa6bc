"""What a step of `fit` costs on each of Keras's backends, with our layer and with Keras's own.

The model of Keras's guide, at MNIST's shapes: LSTM(64) over 28 rows of 28, BatchNormalization,
Dense(10), SGD, batch 64. A process for each backend and layer; bursts of steps go round all of one
backend. What a layer costs is its step minus that of the model without it.

A burst is timed from its first step to its last one's numbers. What `fit` does around them is not a
step, and no small thing on TensorFlow: where a fit ends it waits for a thread of tf.data's that
sleeps for 10, 20, 40, 80, 160 ms, so that bursts of 110 and 150 ms both took 170 or both 335.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

from bench.harness import ROOT, BenchError, Effort, Timing
from bench.result import Bar, Result

SCRIPT = """
import json, os, sys, time
what, spec, STEPS = *sys.argv[1:3], 60
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import keras
import numpy as np
import rnncc.keras as own

def model_of(*body):
    return keras.Sequential([keras.Input((28, 28)), *body, keras.layers.Dense(10)])

body = {
    "none": lambda: [keras.layers.GlobalAveragePooling1D()],
    "ours": lambda: [own.LSTM(64)],
    "keras": lambda: [keras.layers.LSTM(64)],
    "ours, RNN(custom cell)": lambda: [own.RNN(spec, units=64)],
    "keras, RNN(LSTMCell)": lambda: [keras.layers.RNN(keras.layers.LSTMCell(64))],
}[what]()
rng = np.random.default_rng(0)
x, y = rng.random((64 * STEPS, 28, 28), dtype="float32"), rng.integers(0, 10, 64 * STEPS)
model = model_of(*body, keras.layers.BatchNormalization())
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("sgd", loss, metrics=["accuracy"])
error = 0.0
if what == "ours":
    theirs = model_of(keras.layers.LSTM(64), keras.layers.BatchNormalization())
    theirs.set_weights(model.get_weights())
    apart = theirs.predict(x[:64], verbose=0) - model.predict(x[:64], verbose=0)
    error = float(np.abs(apart).max())
for _ in range(2):
    model.fit(x, y, batch_size=64, verbose=0)

class Steps:  # notes when the first step of a fit begins, and when the last one's numbers are there
    def __init__(self, function):
        self.function, self.left, self.begin = function, STEPS, None

    def __call__(self, *arguments):
        self.begin = self.begin or time.perf_counter()
        found = self.function(*arguments)
        self.left -= 1
        if not self.left:
            keras.ops.convert_to_numpy(keras.tree.flatten(found)[0])
            self.end = time.perf_counter()
        return found

function = model.train_function
path = body[0].plan().splitlines()[1] if hasattr(body[0], "plan") else "keras " + keras.__version__
print(json.dumps({"path": path, "error": error}), file=answers, flush=True)
for line in sys.stdin:
    steps = model.train_function = Steps(function)
    model.fit(x, y, batch_size=64, verbose=0)
    print((steps.end - steps.begin) / STEPS, file=answers, flush=True)
"""
BACKENDS = {"tensorflow": 1 / 3, "torch": 1 / 3, "jax": 1 / 2}
LAYERS = ("none", "ours", "keras", "ours, RNN(custom cell)")
SPEC = ROOT / "examples" / "coupled_peephole.rnn"


class _Fit:
    """A process that trains one model for sixty steps whenever it is asked to."""

    def __init__(self, backend: str, what: str) -> None:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend, "PYTHONPATH": path}
        self.what = f"{backend}: {what}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, what, str(SPEC)],
            env={**os.environ, **quiet},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self.what}: its process ended ({self._process.wait()})")
        return json.loads(line)

    def go(self) -> float:
        """Seconds a step."""
        assert self._process.stdin is not None
        print("go", file=self._process.stdin, flush=True)
        return float(self.answer())

    def __enter__(self) -> _Fit:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def keras_suite(effort: Effort) -> Result:
    """Medians over bursts of sixty steps; of shares, over those of each round."""
    result = Result("keras", notes=["a step of fit, batch 64; 'none' has no recurrent layer"])
    whole: dict[str, list[float]] = {"ours": [], "keras": []}
    for backend, limit in BACKENDS.items():
        missing = [n for n in ("keras", backend) if importlib.util.find_spec(n) is None]
        bars = [
            (f"{backend}: our LSTM's share of a step / Keras's", limit),
            (f"{backend}: step with RNN(custom cell) / with LSTM, ours", 1.15),
        ]
        if missing:
            result.bars += [Bar(w, None, b, why=f"no {missing[0]}") for w, b in bars]
            continue
        timings = _timings(backend, effort)
        result.timings[f"fit on {backend}"] = list(timings.values())
        _, ours, theirs, custom = (timings[name].median for name in LAYERS)
        whole["ours"].append(ours)
        whole["keras"].append(theirs)
        times = [timings[name].times for name in LAYERS]
        # Round by round: the machine has faster and slower minutes, in which all four ran.
        shares = [(o - n) / (t - n) for n, o, t, _ in zip(*times, strict=True)]
        values = (statistics.median(shares), custom / ours)
        result.bars += [Bar(w, v, b) for (w, b), v in zip(bars, values, strict=True)]
    if whole["ours"]:
        best = min(whole["ours"]) / min(whole["keras"])
        result.bars.append(Bar("best whole step, ours / Keras's", best, 0.6))
    return result


def _timings(backend: str, effort: Effort) -> dict[str, Timing]:
    rounds = 3 if effort.rounds < 10 else 12
    with ExitStack() as stack:
        fits = {what: stack.enter_context(_Fit(backend, what)) for what in LAYERS}
        found = {}
        for what, fit in fits.items():
            told = fit.answer()
            if not told["error"] <= 1e-4:
                raise BenchError(f"{backend}: {what} is wrong: error {told['error']:.2g}")
            found[what] = Timing(f"{backend}, {what}", told["path"], told["error"])
        for round_ in range(rounds):
            first = round_ % len(LAYERS)
            for what in LAYERS[first:] + LAYERS[:first]:
                found[what].times.append(fits[what].go())
    return found
