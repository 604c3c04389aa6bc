"""OpenVINO's CPU plugin on the same ONNX models, float32; the node it ran is read off its graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.case import Case, Data
from bench.contenders import Run, missing
from bench.contenders.onnx_model import onnx_model, outputs_of
from bench.contenders.onnx_model import refuses as refuses


def unavailable() -> str:
    return missing("onnx", "openvino")


def prepare(case: Case, data: Data) -> Run:
    import openvino

    model, feed = onnx_model(case, data)
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if case.threads:
        settings["INFERENCE_NUM_THREADS"] = case.threads
    compiled = openvino.Core().compile_model(openvino.Core().read_model(model), "CPU", settings)
    request = compiled.create_infer_request()
    states = [n for n in feed if n != "X"]

    def call() -> Any:
        # A state that is read is memory the next call writes: it is copied, the rest shared.
        found = request.infer(feed, share_inputs=True, share_outputs=not states)
        y, *last = found.values()
        feed.update(zip(states, last, strict=True))
        return y

    def outputs() -> dict[str, np.ndarray]:
        return outputs_of(case, [np.array(call()) for _ in range(2 if case.stateful else 1)])

    kinds = [
        op.get_rt_info()["layerType"].astype(str) for op in compiled.get_runtime_model().get_ops()
    ]
    recurrent = sorted(
        {k for k in kinds if "RNN" in k or "LSTM" in k or "GRU" in k or "Tensor" in k}
    )
    version = openvino.__version__.split("-")[0]
    return Run(
        f"openvino {version}, {', '.join(recurrent) or 'a graph of other nodes'}", call, outputs
    )
