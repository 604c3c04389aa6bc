"""What a step of training costs in models that people have, with torch.nn's LSTM and with ours.

Embedding, LSTM, head, loss, gradients clipped, AdamW; 200 words and 12 tags. `convert` makes the
second of the first. A process for each; steps in turns, batches the same; losses are compared
first. Last the two models of `tests.support.models.torch_models`, whole.

Non-Goals: the layer alone (`pairs`).
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from bench.harness import ROOT, BenchError, Effort, Timing
from bench.result import Bar, Result

SIZES = ((64, 28, 28, 64), (32, 50, 256, 256))
WORDS, TAGS = 200, 12
REST = 0.15  # seconds between bursts: until torch's threads spin no more
CASES: dict[str, dict[str, Any]] = {
    **{
        f"{sizes}, {layers} layer{'s' * (layers > 1)}{', both' * both}{', packed' * packed}": {
            "model": "tags",
            "sizes": sizes,
            "layers": layers,
            "both": both,
            "packed": packed,
        }
        for sizes in SIZES
        for layers in (1, 2)
        for both in (False, True)
        for packed in (False, True)
    },
    "word model, tied weights, dropout, packed": {"model": "words", "sizes": SIZES[1]},
    "tagger, both directions, 2 layers, CRF, packed": {"model": "crf", "sizes": SIZES[0]},
}
QUICK = ("(64, 28, 28, 64), 1 layer", "(64, 28, 28, 64), 1 layer, packed")


def torch_models_suite(effort: Effort) -> Result:
    """Medians of steps, and their ratios."""
    result = Result("torch_models", notes=["a step: zero_grad, forward, backward, clip, AdamW"])
    missing = importlib.util.find_spec("torch") is None
    names = QUICK if effort.quick else tuple(CASES)
    if missing:
        result.bars += [
            Bar(f"{n}: times faster", None, 1.2, least=True, why="no torch") for n in names
        ]
        return result
    with _Loop("ours") as ours, _Loop("torch") as theirs:
        for name in names:
            effort.report(name)
            timings = _timings(name, ours, theirs, effort)
            result.timings[name] = timings
            ratio = timings[1].median / timings[0].median
            result.bars.append(Bar(f"{name}: times faster", ratio, 1.2, least=True))
    mean = math.exp(sum(math.log(b.value) for b in result.bars if b.value) / len(result.bars))
    result.bars.append(Bar("a training step, in the mean: times faster", mean, 1.2, least=True))
    return result


def _timings(name: str, ours: _Loop, theirs: _Loop, effort: Effort) -> list[Timing]:
    pair = ours, theirs
    losses = [loop.ask(case=CASES[name])["losses"] for loop in pair]
    error = max(abs(a - b) for a, b in zip(*losses, strict=True))
    if not error <= 1e-3:
        raise BenchError(f"{name}: losses are {error:.2g} apart")
    paths = "rnncc.torch.convert", "torch.nn"
    found = [Timing(n, p, error) for n, p in zip(("rnncc", "torch"), paths, strict=True)]
    for turn in range(effort.rounds):
        order = (0, 1) if turn % 2 else (1, 0)
        for at in order:
            time.sleep(REST)
            found[at].times += pair[at].ask(seconds=effort.seconds)["times"]
    return found


class _Loop:
    """A process that trains one model at a time, for as long as it is asked to."""

    def __init__(self, what: str) -> None:
        self.what = what
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.torch_models_suite", what],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(f"{self.what}: its process ended ({self._process.wait()})")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def __enter__(self) -> _Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


# ---- the process -------------------------------------------------------------------------------


def _model(case: dict[str, Any]) -> tuple[Any, Iterator[Any]]:
    from tests.support.models.torch_models import Tagger, WordModel, batches

    batch, steps, features, units = case["sizes"]
    if case["model"] == "words":
        return WordModel(WORDS, units), batches(batch, steps, WORDS)
    if case["model"] == "crf":
        return Tagger(WORDS, TAGS, features, units), batches(batch, steps, WORDS, TAGS)
    packed = case["packed"]
    model = Tagger(
        WORDS,
        TAGS,
        features,
        units,
        case["layers"],
        0.0,
        packed=packed,
        crf=False,
        bidirectional=case["both"],
    )
    return model, batches(batch, steps, WORDS, TAGS, short=packed)


def _serve(what: str) -> None:
    import torch

    import rnncc.torch
    from tests.support.models.torch_models import step

    model: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        if "case" in request:
            torch.manual_seed(3)
            model, given = _model(request["case"])
            if what == "ours":
                rnncc.torch.convert(model, inplace=True)
            optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
            torch.manual_seed(4)
            losses = [float(step(model, optimizer, next(given))) for _ in range(5)]
            several = [next(given) for _ in range(16)]
            print(json.dumps({"losses": losses}), flush=True)
            continue
        times: list[float] = []
        step(model, optimizer, several[0])
        end = time.perf_counter() + request["seconds"]
        while time.perf_counter() < end or len(times) < 3:
            begin = time.perf_counter()
            float(step(model, optimizer, several[len(times) % 16]))
            times.append(time.perf_counter() - begin)
        print(json.dumps({"times": times}), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
