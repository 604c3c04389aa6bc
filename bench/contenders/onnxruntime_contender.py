"""onnxruntime's LSTM node on its CPU provider: forward only. Its own layout, [time, batch, ...]."""

from __future__ import annotations

import importlib.util

import numpy as np

from bench.case import FORWARD, Case, Data
from bench.contenders import Run, reorder

GATES = (0, 3, 1, 2)  # i f g o of the spec -> i o f c of ONNX


def unavailable() -> str:
    missing = [m for m in ("onnx", "onnxruntime") if importlib.util.find_spec(m) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""


def prepare(case: Case, data: Data) -> Run:
    import onnxruntime

    if case.cell != "lstm" or case.mode != FORWARD:
        raise ValueError(f"onnxruntime has no {case.label}")
    session = onnxruntime.InferenceSession(_model(case, data), providers=["CPUExecutionProvider"])
    feed = {"X": np.ascontiguousarray(data.x.transpose(1, 0, 2))}

    def forward() -> object:
        return session.run(None, feed)

    def outputs() -> dict[str, np.ndarray]:
        (y,) = session.run(None, feed)
        return {"y": y[:, 0].transpose(1, 0, 2)}

    version = onnxruntime.__version__
    return Run(f"onnxruntime {version}, CPU provider, LSTM node", forward, outputs)


def _model(case: Case, data: Data) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    kernel, recurrent = (
        reorder(data.weights[n], GATES).T[None].copy() for n in ("kernel", "recurrent_kernel")
    )
    bias = np.concatenate([reorder(data.weights["bias"], GATES), np.zeros(4 * case.units)])
    arrays = {"W": kernel, "R": recurrent, "B": bias[None].astype(case.dtype)}
    node = helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], hidden_size=case.units)
    shape = [case.time, case.batch, case.features]
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    model.ir_version = 9
    serialized: bytes = model.SerializeToString()
    return serialized
