"""Models out of files: ours against onnxruntime on the same file.

Each runs in a process of its own, in turns, with as many threads; outputs are compared first. Real
files are read from the folder that RNNCC_MODELS names, or ../shared/models, and skipped where there
are none. onnxruntime doesn't read .nam: it runs the same network as an ONNX model, of which states
are inputs and outputs that are handed on; here it is a stream.

Non-Goals: reading times.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np

from bench.harness import ROOT, BenchError, Effort
from bench.result import Bar, Result

LIMIT = 1.0  # of onnxruntime's time
TOLERANCE = 1e-5
MOST_ROUNDS = 9  # two contenders, and a minute in all

WORKER = """
import json, sys, time
import numpy as np

who, path, inputs, outputs, threads = sys.argv[1:]
fed = dict(np.load(inputs))
if who == "rnncc":
    import rnncc
    model = rnncc.load_model(path)
    fed = {v.name: fed[v.name] for v in model.inputs}
    call = model.stream(fed) if path.endswith(".nam") else model
    call = lambda call=call: call(fed)
    found = call()
else:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    states = [n for n in fed if n + ".next" in names]
    def call():
        found = session.run(None, fed)
        fed.update(zip(states, found[1:]))
        return found
    found = dict(zip(names, call()))
    found = {n: a for n, a in found.items() if not n.endswith(".next")}
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
    """A model's file and what one call is given. write: puts it into a folder as model.onnx, and as
    `ours` if that is another; ImportError or OSError where it can't. Inputs whose outputs are their
    names and ".next" are states."""

    name: str
    write: Callable[[Path], None]
    fed: dict[str, np.ndarray]
    quick: bool = False
    ours: str = "model.onnx"


def files_suite(effort: Effort) -> Result:
    result = Result("files", notes=["a process each, in turns; medians of turns; ms a call"])
    for filed in cases():
        if effort.quick and not filed.quick:
            continue
        effort.report(filed.name)
        name = f"{filed.name}: time / onnxruntime's"
        with tempfile.TemporaryDirectory() as folder:
            try:
                filed.write(Path(folder))
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
    files = (filed.ours, "model.onnx")
    threads = str(numba.config.NUMBA_NUM_THREADS)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, name]
            + [str(folder / f) for f in (file, "fed.npz", f"{name}.npz")]
            + [threads],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, file in zip(names, files, strict=True)
    ]
    try:
        rounds = min(effort.rounds, MOST_ROUNDS)
        turns = [_turn(workers, effort) for _ in range(rounds + 1)][1:]
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
        # A .nam's [batch, time, 1] is [time, batch, 1] there, of one row.
        off = np.abs(ours[output].reshape(right.shape) - right).max() / (1 + np.abs(right).max())
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
    for file, steps in (("amp_lstm", 1), ("amp_lstm", 500), ("overdrive_lstm_1x16", 1)):
        yield _amplifier(models() / f"{file}.nam", drawn(1, steps, 1), steps == 500)
    yield _amplifier(models() / "overdrive_lstm_1x16.nam", drawn(1, 500, 1))
    for batch, steps in ((1, 1), (1, 100), (16, 100)):
        name = f"LSTM of 256, batch {batch}, {steps} step{'s' * (steps > 1)}"
        yield Filed(name, _lstm, {"X": drawn(steps, batch, 256)}, batch + steps == 101)


def _copied(path: Path) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(path.read_bytes())

    return write


def _voice_lstm(path: Path) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import onnx

        if not path.exists():
            raise OSError(f"no {path.name} in {path.parent}: set RNNCC_MODELS")
        whole = onnx.shape_inference.infer_shapes(onnx.load(path))
        (node,) = (n for n in whole.graph.node if n.op_type == "LSTM")
        outputs = [node.output[0], "hn", "cn"]
        part = onnx.utils.Extractor(whole).extract_model([node.input[0], "h", "c"], outputs)
        onnx.save(part, folder / "model.onnx")

    return write


def _lstm(folder: Path) -> None:
    from onnx import helper

    rng, n = np.random.default_rng(1), 256
    shapes = {"W": (1, 4 * n, n), "R": (1, 4 * n, n), "B": (1, 8 * n)}
    held = {name: (rng.standard_normal(s) / 16).astype("f") for name, s in shapes.items()}
    outputs = {"Y": 4, "Y_h": 3, "Y_c": 3}
    node = helper.make_node("LSTM", ["X", "W", "R", "B"], [*outputs], hidden_size=n)
    _save(folder, [node], {"X": ["time", "batch", n]}, outputs, held)


def _amplifier(path: Path, x: np.ndarray, quick: bool = False) -> Filed:
    """One whose layers are an LSTM and a dense one. x: [1, time, 1]."""
    title = f"{path.stem}, {x.shape[1]} sample{'s' * (x.shape[1] > 1)}"
    if not path.exists():
        return Filed(title, _copied(path), {"x": x}, quick)
    import rnncc
    from rnncc.models.conventions import arrays_of
    from rnncc.models.plain import Dense
    from rnncc.models.recurrent import Recurrent

    lstm, dense = (node.part for node in rnncc.load_model(path).nodes)
    assert isinstance(lstm, Recurrent) and isinstance(dense, Dense) and dense.bias is not None
    held = {n: a[None] for n, a in arrays_of(lstm.layer, "onnx").items()}
    held |= {"kernel": dense.kernel, "bias": dense.bias}
    states = {n: s[None] for n, s in zip("hc", lstm.initial_state or (), strict=True)}

    def write(folder: Path) -> None:
        from onnx import helper

        (folder / "model.nam").write_bytes(path.read_bytes())
        units = states["h"].shape[2]
        nodes = [
            helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
            helper.make_node(
                "LSTM",
                ["steps", "W", "R", "B", "", "h", "c"],
                ["Y", "h.next", "c.next"],
                hidden_size=units,
            ),
            helper.make_node("Squeeze", ["Y", "directions"], ["each"]),
            helper.make_node("MatMul", ["each", "kernel"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["y"]),
        ]
        inputs = {"x": [1, "time", 1], **{n: [1, 1, units] for n in states}}
        own = held | {"directions": np.array([1])}
        _save(folder, nodes, inputs, {"y": 3, "h.next": 3, "c.next": 3}, own)

    return Filed(title, write, {"x": x, **states}, quick, "model.nam")


def _save(
    folder: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Mapping[str, int],
    held: Mapping[str, np.ndarray],
) -> None:
    """inputs: their shapes. outputs: their ranks."""
    import onnx
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, 1, shape) for n, shape in inputs.items()],
        [helper.make_tensor_value_info(n, 1, [None] * rank) for n, rank in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, folder / "model.onnx")
