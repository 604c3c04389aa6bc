"""Nodes RNN, GRU and LSTM of ONNX with any options, and files of them that were changed.

Even attempts draw a node: what it gives in float64 is what the operator's text says, in float32 it
is as close to that as onnxruntime is, where that runs it. Odd ones cut or change a file: it is
refused by one FileError within the bounds, or a call gives numbers or one ValueError.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from rnncc.files import FileError, onnx_wire
from rnncc.models.onnx import load_onnx
from tests.attack import Attack
from tests.support.in_onnx.drawn_nodes import Drawn, drawn

SECONDS = 2.0
GROWN = 1e4  # sequences that grow so far are about rounding alone
TIMES = 1.5  # the error of onnxruntime's, and
ULPS = 1.0  # as much again of the largest value, where both err by single roundings


def attempt(index: int, seed: int) -> str | None:
    number = seed * 1_000_003 + index // 2
    return _node(number) if index % 2 == 0 else _file(number)


# ---- nodes ---------------------------------------------------------------------------------------


def _node(number: int) -> str | None:
    given = drawn(number)
    with np.errstate(all="ignore"):
        expected = given.expected()
    if any(not np.isfinite(a).all() or abs(a).max(initial=0) > GROWN for a in expected.values()):
        return None
    found = _called(given, "float64")
    for name, right in expected.items():
        scale = abs(right).max(initial=1)
        wrong = abs(found[name] - right).max(initial=0)
        if found[name].shape != right.shape or not wrong <= 1e-11 * scale:
            return f"{number}: {given.op} {given.attributes} {name} is off by {wrong:.3g}"
    return _narrow(number, given, expected)


def _narrow(number: int, given: Drawn, expected: dict[str, np.ndarray]) -> str | None:
    theirs = _in_onnxruntime(given)
    if theirs is None or (given.op == "LSTM" and "clip" in given.attributes):
        return None  # onnxruntime bounds what f and g are given, the text also what h is
    found = _called(given, "float32")
    for name, right in expected.items():
        scale = abs(right).max(initial=0)
        errors = [np.sqrt(((a[name] - right) ** 2).mean()) for a in (found, theirs)]
        if not errors[0] <= TIMES * errors[1] + ULPS * 2.0**-23 * scale:
            return (
                f"{number}: {given.op} {given.attributes} {name}, float32: off by "
                f"{errors[0]:.3g}, onnxruntime by {errors[1]:.3g}"
            )
    return None


def _called(given: Drawn, dtype: str) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn.onnx")
        path.write_bytes(given.model(dtype=dtype).SerializeToString())
        found: dict[str, np.ndarray] = load_onnx(path)(given.fed(dtype))
    return found


def _in_onnxruntime(given: Drawn) -> dict[str, np.ndarray] | None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    data = given.model().SerializeToString()
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception:  # layout 1, which it hasn't
        return None
    names = [n for n in given.outputs if n]
    return dict(zip(names, session.run(names, given.fed())))


# ---- files ---------------------------------------------------------------------------------------


def _file(number: int) -> str | None:
    from tests.support.in_onnx import graphs

    rng = np.random.default_rng([number, 7])
    graph, shape = [(graphs.tagger, (4, 2, 5)), (graphs.streamed, (2, 4, 5))][number % 2]
    data = changed(graph().SerializeToString(), rng)
    x = rng.standard_normal(shape).astype("f")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "changed.onnx")
        path.write_bytes(data)
        begin = time.perf_counter()
        # Half of them as large files are, without the numbers of large tensors.
        sizes = (0, 64) if number // 2 % 2 else (onnx_wire.CUT_FROM, onnx_wire.LARGE)
        try:
            with mock.patch.multiple(onnx_wire, CUT_FROM=sizes[0], LARGE=sizes[1]):
                model = load_onnx(path, ("onnxruntime", "reference")[number % 3 == 0])
        except FileError as error:
            if not str(error).startswith(str(path)):
                return f"{number}: the file isn't named: {error}"
            return _late(number, begin)
        late = _late(number, begin)
        # Of a shape or kind that the file asks for now.
        with contextlib.suppress(ValueError, TypeError):
            model({p.name: x for p in model.inputs} if len(model.inputs) > 1 else x)
        return late


def changed(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, or with a few bits, bytes or pieces changed."""
    made: Any = bytearray(data)
    match int(rng.integers(5)):
        case 0:
            del made[int(rng.integers(len(made))) :]
        case 1:
            for _ in range(int(rng.integers(1, 4))):
                made[int(rng.integers(len(made)))] ^= 1 << int(rng.integers(8))
        case 2:
            for _ in range(int(rng.integers(1, 9))):
                made[int(rng.integers(len(made)))] = int(rng.integers(256))
        case 3:
            at, size = int(rng.integers(len(made))), int(rng.integers(1, 40))
            made[at : at + size] = bytes(rng.integers(0, 256, size, "u1"))
        case _:
            at, size = int(rng.integers(len(made))), int(rng.integers(1, 40))
            made[at:at] = made[at // 2 : at // 2 + size]
    return bytes(made)


def _late(number: int, begin: float) -> str | None:
    seconds = time.perf_counter() - begin
    return f"{number}: took {seconds:.2f} s" if seconds > SECONDS else None


ATTACK = Attack(
    name="onnx",
    about="recurrent nodes of ONNX with any options against their text; changed files",
    count=600,
    short=12,
    attempt=attempt,
)
