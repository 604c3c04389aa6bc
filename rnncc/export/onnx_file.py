"""A layer or a model -> an .onnx file.

Non-Goals: what is in it (`to_onnx`), imported when the first one is written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from rnncc.common.progress import working
from rnncc.models.model import Model
from rnncc.runtime.api.layer import Layer


def onnx(
    what: Layer | Model,
    path: str | os.PathLike[str],
    *,
    states: bool = False,
    lengths: bool = False,
    mask: bool = False,
    form: Literal["auto", "node", "scan"] = "auto",
) -> Path:
    """Writes a layer's call at inference, or a model of `rnncc.load_model`, as a file of ONNX
    (opset 18), whole or not at all; returns its path.

    Inputs and outputs are those of the call, by name, of any batch and time: x [batch, time, ...]
    or as time_major says, y of the last step or of all of them, last states where return_state or
    `states` is set (final_h). states: initial states are inputs (initial_h); else they are what the
    cell declares, or zeros. lengths: int64 [batch] is an input, how many steps of each row count;
    mask: bools [batch, time]. form: "auto" has ONNX's node LSTM, GRU or RNN where the equations are
    that node's and onnxruntime runs it, else a Scan of plain operators; "node": that node or a
    ValueError; "scan": never one.

    TypeError: neither a layer nor a model, a layer of a written module, a part of a model that has
    no form. ValueError: no weights yet, a stateful layer, an op without an operator (with its
    line), more than 2 GB. ImportError: onnx isn't installed. OSError: the file can't be written.
    """
    try:
        from rnncc.export.to_onnx.door import written
    except ImportError as error:
        if (error.name or "").split(".")[0] != "onnx":
            raise
        raise ImportError("an .onnx file is written by onnx: pip install 'rnncc[onnx]'") from None
    with working(f"writing {os.fspath(path)}"):
        return written(what, path, states=states, lengths=lengths, mask=mask, form=form)
