"""Models out of files: ours against onnxruntime on the same file.

Each runs in a process of its own, in turns; outputs are compared first. The voice detector is read
from the folder that RNNCC_MODELS names, or ../shared/models, and skipped where there is none.

Non-Goals: reading times.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import ROOT, BenchError, Effort
from bench.result import Bar, Result

LIMIT = 1.0  # of onnxruntime's time
TOLERANCE = 1e-5

WORKER = """
import json, sys, time
import numpy as np

who, path, inputs, outputs = sys.argv[1:]
fed = dict(np.load(inputs))
if who == "rnncc":
    from rnncc.models.onnx import load_onnx
    model = load_onnx(path)
    call = lambda: model(fed)
    found = call()
else:
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    call = lambda: session.run(None, fed)
    found = dict(zip([o.name for o in session.get_outputs()], call()))
np.savez(outputs, **found)
clock = time.perf_counter
for line in sys.stdin:
    seconds, calls = json.loads(line)
    call()
    times, end = [], clock() + seconds
    while len(times) < calls or clock() < end:
        start = clock()
        call()
        times.append(clock() - start)
    times.sort()
    print(times[len(times) // 2], flush=True)
"""


@dataclass(frozen=True, slots=True)
class Filed:
    """A model's file and what one call is given. write: puts it at a path; ImportError or OSError
    where it can't."""

    name: str
    write: Callable[[Path], None]
    fed: dict[str, np.ndarray]
    quick: bool = False


def files_suite(effort: Effort) -> Result:
    result = Result("files", notes=["a process each, in turns; medians of turns; ms a call"])
    for filed in cases():
        if effort.quick and not filed.quick:
            continue
        effort.report(filed.name)
        name = f"{filed.name}: time / onnxruntime's"
        with tempfile.TemporaryDirectory() as folder:
            try:
                filed.write(Path(folder, "model.onnx"))
            except (ImportError, OSError) as error:
                result.bars.append(Bar(name, None, LIMIT, why=str(error)))
                continue
            ours, theirs = raced(filed, Path(folder), effort)
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        result.bars.append(Bar(name, ratio, LIMIT))
        times = [statistics.median(t) * 1e3 for t in (ours, theirs)]
        result.notes.append(f"{filed.name}: {times[0]:.3g}, onnxruntime {times[1]:.3g}")
    return result


def raced(filed: Filed, folder: Path, effort: Effort) -> tuple[list[float], list[float]]:
    """Seconds of a call, turn by turn."""
    np.savez(folder / "fed.npz", **filed.fed)  # type: ignore[arg-type]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    names = ("rnncc", "onnxruntime")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, name]
            + [str(folder / f) for f in ("model.onnx", "fed.npz", f"{name}.npz")],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    try:
        turns = [_turn(workers, effort) for _ in range(effort.rounds + 1)][1:]
        _compare(filed.name, *(dict(np.load(folder / f"{n}.npz")) for n in names))
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    return [a for a, _ in turns], [b for _, b in turns]


def _turn(workers: list[Any], effort: Effort) -> tuple[float, ...]:
    found = []
    for worker in workers:
        try:
            print(json.dumps([effort.seconds, effort.calls]), file=worker.stdin, flush=True)
            found.append(float(worker.stdout.readline()))
        except (OSError, ValueError):
            raise BenchError(f"{worker.args[3]} ended on its file") from None
    return tuple(found)


def _compare(name: str, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    for output, right in theirs.items():
        off = np.abs(ours[output] - right).max() / (1 + np.abs(right).max())
        if not off <= TOLERANCE:
            raise BenchError(f"{name}: {output} is off by {off:.3g}")


# ---- files ---------------------------------------------------------------------------------------


def models() -> Path:
    return Path(os.environ.get("RNNCC_MODELS") or ROOT.parent / "shared" / "models")


def cases() -> Iterator[Filed]:
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype="float32") * np.float32(0.3)

    voice = models() / "vad_16k_sequence.onnx"
    for steps in (1, 31):
        states = {"h": drawn(1, 1, 128), "c": drawn(1, 1, 128)}
        own = {"/Transpose_output_0": drawn(steps, 1, 128)} | states
        title = f"{steps} step{'s' * (steps > 1)}"
        yield Filed(f"voice detector's LSTM, {title}", _voice_lstm(voice), own, steps == 31)
        whole = {"input": drawn(steps, 576)} | states
        yield Filed(f"voice detector, {title}", _copied(voice), whole)
    for batch, steps in ((1, 1), (1, 100), (16, 100)):
        name = f"LSTM of 256, batch {batch}, {steps} step{'s' * (steps > 1)}"
        yield Filed(name, _lstm, {"X": drawn(steps, batch, 256)}, batch + steps == 101)


def _copied(path: Path) -> Callable[[Path], None]:
    def write(to: Path) -> None:
        to.write_bytes(path.read_bytes())

    return write


def _voice_lstm(path: Path) -> Callable[[Path], None]:
    def write(to: Path) -> None:
        import onnx

        if not path.exists():
            raise OSError(f"no {path.name} in {path.parent}: set RNNCC_MODELS")
        whole = onnx.shape_inference.infer_shapes(onnx.load(path))
        (node,) = (n for n in whole.graph.node if n.op_type == "LSTM")
        outputs = [node.output[0], "hn", "cn"]
        part = onnx.utils.Extractor(whole).extract_model([node.input[0], "h", "c"], outputs)
        onnx.save(part, to)

    return write


def _lstm(to: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    rng, n = np.random.default_rng(1), 256
    shapes = {"W": (1, 4 * n, n), "R": (1, 4 * n, n), "B": (1, 8 * n)}
    held = [
        numpy_helper.from_array((rng.standard_normal(s) / 16).astype("f"), name)
        for name, s in shapes.items()
    ]
    outputs = {"Y": 4, "Y_h": 3, "Y_c": 3}
    node = helper.make_node("LSTM", ["X", "W", "R", "B"], [*outputs], hidden_size=n)
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("X", 1, ["time", "batch", n])],
        [helper.make_tensor_value_info(o, 1, [None] * rank) for o, rank in outputs.items()],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, to)
