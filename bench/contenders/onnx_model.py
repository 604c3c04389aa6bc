"""A case to an ONNX model of one LSTM, GRU or RNN node, for the two that run such models.

    model, feed = onnx_model(case, data)      # bytes; arrays by input: X [time, batch, features]

A stateful case's model takes its states as inputs (H, C) and returns the next ones (Y_h, Y_c).

Non-Goals: running it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.case import FORWARD, Case, Data
from bench.contenders import reorder

NODES = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}
# Gates of the spec -> of ONNX: i f g o of the LSTM are i o f c there.
ORDER = {"lstm": (0, 3, 1, 2), "gru": (0, 1, 2), "simple_rnn": (0,)}


def refuses(case: Case) -> str:
    """Why ONNX has no node for the case, or nothing."""
    if case.mode != FORWARD:
        return "no gradients"
    if case.masked:
        return "lengths, no masks"
    known: list[tuple[str, object]] = [("reset_after", False)] if case.cell == "gru" else []
    known += [("activation", "relu")] if case.cell == "simple_rnn" else []
    drawn = ("recurrent_dropout", "dropout_per_gate")  # in training alone
    given = [o for o in case.options if o[0] not in drawn]
    if case.cell not in NODES or any(o not in known for o in given):
        return f"no node for {case.name}"
    return ""


def onnx_model(case: Case, data: Data) -> tuple[bytes, dict[str, np.ndarray]]:
    from onnx import TensorProto, helper, numpy_helper

    order, w = ORDER[case.cell], data.weights
    kernel, recurrent = (
        reorder(w[n], order).T[None].copy() for n in ("kernel", "recurrent_kernel")
    )
    bias = w["bias"] if w["bias"].ndim == 2 else np.stack([w["bias"], np.zeros_like(w["bias"])])
    both = np.concatenate([reorder(b, order) for b in bias])[None].astype(case.dtype)
    weights = {"W": kernel, "R": recurrent, "B": both}
    feed = {"X": np.ascontiguousarray(data.x.transpose(1, 0, 2))}
    inputs, outputs = ["X", "W", "R", "B"], ["Y"]
    if case.stateful:
        names = ["H", "C"] if case.cell == "lstm" else ["H"]
        feed |= {n: np.zeros((1, case.batch, case.units), case.dtype) for n in names}
        inputs, outputs = [*inputs, "", *names], ["Y", "Y_h", "Y_c"][: 1 + len(names)]
    attributes: dict[str, Any] = {"hidden_size": case.units}
    if case.cell == "gru":
        attributes["linear_before_reset"] = int(case.option("reset_after", True))
    if case.option("activation") == "relu":
        attributes["activations"] = ["Relu"]
    graph = helper.make_graph(
        [helper.make_node(NODES[case.cell], inputs, outputs, **attributes)],
        case.cell,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in feed.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    model.ir_version = 9
    serialized: bytes = model.SerializeToString()
    return serialized, feed


def outputs_of(case: Case, calls: list[Any]) -> dict[str, np.ndarray]:
    """Y [time, 1, batch, units] of one call, or of two in a row, in our layout."""
    return {"y": np.concatenate([np.array(y)[:, 0] for y in calls]).transpose(1, 0, 2)}
