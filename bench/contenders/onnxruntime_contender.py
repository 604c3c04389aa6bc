"""onnxruntime's LSTM, GRU and RNN nodes on its CPU provider. Its own layout, [time, batch, ...]."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.case import Case, Data
from bench.contenders import Run, missing
from bench.contenders.onnx_model import NODES, onnx_model, outputs_of
from bench.contenders.onnx_model import refuses as refuses


def unavailable() -> str:
    return missing("onnx", "onnxruntime")


def prepare(case: Case, data: Data) -> Run:
    import onnxruntime

    model, feed = onnx_model(case, data)
    options = onnxruntime.SessionOptions()
    if case.threads:
        options.intra_op_num_threads = case.threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    states = [n for n in feed if n != "X"]

    def call() -> Any:
        y, *last = session.run(None, feed)
        feed.update(zip(states, last, strict=True))
        return y

    def outputs() -> dict[str, np.ndarray]:
        return outputs_of(case, [call() for _ in range(2 if case.stateful else 1)])

    version = onnxruntime.__version__
    return Run(f"onnxruntime {version}, CPU provider, {NODES[case.cell]} node", call, outputs)
