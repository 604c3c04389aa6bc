"""What a layer of layers costs beside its layers one after another.

Both are rnncc's and share one pool of threads, so they take turns in one process; each pair's
outputs are compared first.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

from bench.harness import ROOT, BenchError, Effort
from bench.result import Bar, Result

SCRIPT = """
import json, sys, time
import numpy as np
from rnncc.layers import LSTM, LSTMCell, RNN, Bidirectional

what, training, sizes, rounds = json.loads(sys.argv[1])
batch, steps, features, units = sizes
x = np.random.default_rng(0).standard_normal((batch, steps, features), dtype="float32")
if what == "stack":
    whole = RNN([LSTMCell(units) for _ in range(3)], return_sequences=True, seed=1)
    layers = [LSTM(units, return_sequences=True) for _ in range(3)]
else:
    whole = Bidirectional(LSTM(units, return_sequences=True), seed=1)
    layers = [LSTM(units, return_sequences=True, go_backwards=b) for b in (False, True)]
whole.build(x.shape)
weights, at = whole.get_weights(), 0
for number, layer in enumerate(layers):
    layer.build((batch, steps, features if what != "stack" or not number else units))
    layer.set_weights(weights[at : at + 3])
    at += 3
dy = np.ones((batch, steps, units * (1 if what == "stack" else 2)), "float32")

def run_whole():
    if not training:
        return whole(x)
    y, pullback = whole.vjp(x)
    pullback(dy)
    return y

def in_turn():
    y, pullbacks, outputs = x, [], []
    for layer in layers:
        given = y if what == "stack" else x
        if training:
            y, pullback = layer.vjp(given)
            pullbacks.append(pullback)
        else:
            y = layer(given)
        outputs.append(y)
    d = dy[..., :units]
    for pullback in reversed(pullbacks):
        grads = pullback(np.ascontiguousarray(d))
        d = grads.inputs if what == "stack" else dy[..., :units]
    return y if what == "stack" else np.concatenate([outputs[0], outputs[1][:, ::-1]], -1)

np.testing.assert_array_equal(run_whole(), in_turn())
times = [], []
for _ in range(rounds):
    for function, found in zip((run_whole, in_turn), times):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
print(json.dumps(times))
"""
SIZES = ((64, 28, 28, 64), (32, 50, 256, 256))
BARS = (("stack", "RNN of 3 LSTM cells", 1.05), ("both", "Bidirectional LSTM", 1.10))


def layers_suite(effort: Effort) -> Result:
    """Medians over at least thirty rounds where the effort is full."""
    result = Result("layers", notes=["training is forward and all gradients"])
    for what, title, limit in BARS:
        for sizes in SIZES:
            for training in (False, True):
                rounds = 5 if effort.rounds < 10 else 60 if sizes[-1] < 100 else 30
                whole, turn = _times(what, training, sizes, rounds)
                mode = "forward + backward" if training else "forward"
                ratio = statistics.median(whole) / statistics.median(turn)
                name = f"{title} {mode} {sizes}: time / its layers' in turn"
                result.bars.append(Bar(name, ratio, limit))
    return result


def _times(
    what: str, training: bool, sizes: tuple[int, ...], rounds: int
) -> tuple[list[float], list[float]]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([what, training, sizes, rounds])],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{what} {sizes}: {done.stderr.strip().splitlines()[-1]}")
    first, second = json.loads(done.stdout)
    return first, second
