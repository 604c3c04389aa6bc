"""torch: nn.LSTM, GRU and RNN where they have the cell, else a Python loop over its steps.

Which way a module takes is read off torch's profiler. Variant compile: the loop over a step that
torch.compile has made one graph of; a module of torch.nn it would run as it is.

Non-Goals: a loop unrolled into one graph: that takes minutes to compile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.case import TRAINING, Case, Data
from bench.contenders import Run, missing, reorder
from bench.contenders.cells import CellCode, code_of, ops_of, refuses_cell

WANTED = "2.13.0"
# Gates of the spec -> of torch: z r g of the GRU are r z g there.
ORDER = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "simple_rnn": (0,)}
CLASSES = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}


def unavailable(variant: str = "") -> str:
    if reason := missing("torch"):
        return reason
    import torch

    version = torch.__version__.split("+")[0]
    return "" if version == WANTED else f"torch {version}, not {WANTED}"


def is_plain(case: Case) -> bool:
    """Whether torch.nn has it, lengths packed, which are trained with."""
    if (case.lengths and case.mode != TRAINING) or case.masked or case.cell not in CLASSES:
        return False
    rest = {
        n: v for n, v in case.options if (case.cell, n, v) != ("simple_rnn", "activation", "relu")
    }
    return not rest


def refuses(case: Case, variant: str = "") -> str:
    if variant == "compile" and is_plain(case):
        return "torch.compile leaves modules of torch.nn as they are"
    if case.lengths and not is_plain(case):
        return "lengths are packed, for modules of torch.nn, in training"
    return "" if is_plain(case) else refuses_cell(case)


def prepare(case: Case, data: Data, variant: str = "") -> Run:
    import torch

    if not is_plain(case):
        return _loop(case, data, compiled=variant == "compile")
    more: dict[str, Any] = {}
    if case.cell == "simple_rnn":
        more["nonlinearity"] = case.option("activation", "tanh")
    kind = getattr(torch.nn, CLASSES[case.cell])
    more["dtype"] = getattr(torch, case.dtype)
    model = kind(case.features, case.units, batch_first=True, **more)
    return run_model(model, case, data, path)


# ---- modules of torch.nn ---------------------------------------------------------------------


def run_model(model: Any, case: Case, data: Data, path: Callable[[Any], str]) -> Run:
    """A module with torch.nn's parameters. path: of a call, which way it takes."""
    import torch

    order, w = ORDER[case.cell], data.weights
    bias = w["bias"] if w["bias"].ndim == 2 else np.stack([w["bias"], np.zeros_like(w["bias"])])
    given = {
        "weight_ih_l0": reorder(w["kernel"], order).T,
        "weight_hh_l0": reorder(w["recurrent_kernel"], order).T,
        "bias_ih_l0": reorder(bias[0], order),
        "bias_hh_l0": reorder(bias[1], order),
    }
    with torch.no_grad():
        for name, array in given.items():
            getattr(model, name).copy_(torch.from_numpy(array.copy()))
    x, dy = torch.from_numpy(data.x), torch.from_numpy(data.dy)
    if case.lengths:
        return _packed(model, case, data, path)
    state: Any = None

    def forward() -> Any:
        with torch.inference_mode():
            return model(x)[0]

    def step() -> Any:
        nonlocal state
        with torch.inference_mode():
            y, state = model(x, state)
            return y

    def training() -> Any:
        model.zero_grad(set_to_none=True)
        x.grad = None
        y = model(x)[0]
        y.backward(dy)
        return y

    def outputs() -> dict[str, np.ndarray]:
        nonlocal state
        if case.stateful:
            state = None  # finding the path has taken a step
            return {"y": torch.cat([step(), step()], 1).numpy()}
        if case.mode != TRAINING:
            return {"y": forward().numpy()}
        y = training().detach().numpy()
        return {"y": y, "dx": x.grad.numpy(), **gradients(model, case)}

    if case.mode == TRAINING:
        x.requires_grad_(True)
    call = step if case.stateful else training if case.mode == TRAINING else forward
    return Run(f"torch {torch.__version__}, {path(call)}", call, outputs)


def gradients(model: Any, case: Case) -> dict[str, np.ndarray]:
    """Of the parameters, in the layout of the cell's spec."""
    order = ORDER[case.cell]
    grad = {n: reorder(p.grad.numpy(), order, 0) for n, p in model.named_parameters()}
    biases = grad["bias_ih_l0"], grad["bias_hh_l0"]
    return {
        "d_kernel": grad["weight_ih_l0"].T,
        "d_recurrent_kernel": grad["weight_hh_l0"].T,
        "d_bias": np.stack(biases) if case.cell == "gru" else biases[0],
    }


def _packed(model: Any, case: Case, data: Data, path: Callable[[Any], str]) -> Run:
    """Training on a PackedSequence. Rows of the mask's steps; what a masked layer's y and dy are
    behind the last step of a sequence is that step's."""
    import torch
    from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

    lengths = data.mask.sum(1)
    last = np.minimum(np.arange(case.time), lengths[:, None] - 1)
    folded = data.dy.copy()
    for row, length in enumerate(lengths):
        folded[row, length - 1] = data.dy[row, length - 1 :].sum(0)
    packed, d = (
        pack_padded_sequence(t, lengths.tolist(), batch_first=True)
        for t in map(torch.from_numpy, (data.x, folded))
    )
    rows = packed.data.requires_grad_(True)

    def training() -> Any:
        model.zero_grad(set_to_none=True)
        rows.grad = None
        y = model(PackedSequence(rows, packed.batch_sizes))[0]
        y.data.backward(d.data)
        return y

    def outputs() -> dict[str, np.ndarray]:
        y = training()
        found = PackedSequence(y.data.detach(), y.batch_sizes)
        whole, _ = pad_packed_sequence(found, batch_first=True)
        dx, _ = pad_packed_sequence(PackedSequence(rows.grad, y.batch_sizes), batch_first=True)
        at = np.arange(case.batch)[:, None], last
        return {"y": whole.numpy()[at], "dx": dx.numpy(), **gradients(model, case)}

    return Run(f"{path(training)}, packed", training, outputs)


def path(call: Any) -> str:
    from torch.autograd.profiler import profile

    with profile(use_kineto=False) as seen:
        call()
    names = {event.key for event in seen.key_averages()}
    fused = any("mkldnn_rnn" in name for name in names)
    return "oneDNN (mkldnn_rnn_layer)" if fused else "a loop of aten operations"


# ---- loops -----------------------------------------------------------------------------------


def _loop(case: Case, data: Data, *, compiled: bool) -> Run:
    import torch

    code, ops = code_of(case), ops_of("torch")
    assert code is not None
    step = _compiled(code, ops) if compiled else lambda *given: code.step(ops, *given)
    w = {n: torch.from_numpy(a.copy()) for n, a in data.weights.items()}
    x, dy = torch.from_numpy(data.x), torch.from_numpy(data.dy)
    mask = torch.from_numpy(data.mask) if case.masked else None
    given = None if data.kept is None else torch.from_numpy(data.kept)
    keep = 1 - case.option("recurrent_dropout", 0)

    def run(kept: Any) -> Any:
        shapes = code.shapes(case.batch, case.units)
        states: Any = [torch.zeros(s, dtype=x.dtype) for s in shapes]
        rows = []
        for t, z in enumerate(code.before(ops, w, x).unbind(1)):
            new = step(w, z, kept, *states)
            if mask is not None:
                like = [mask[:, t].reshape(-1, *[1] * (a.ndim - 1)) for a in new]
                new = [*map(torch.where, like, new, states)]
            states = new
            rows.append(states[0])
        return torch.stack(rows, 1).reshape(case.batch, case.time, -1)

    def drawn() -> Any:
        return None if given is None else torch.bernoulli(torch.full(given.shape, keep)) / keep

    def forward(kept: Any = None) -> Any:
        with torch.inference_mode():
            return run(kept)

    def training(kept: Any) -> Any:
        for tensor in (x, *w.values()):
            tensor.grad = None
        y = run(kept)
        y.backward(dy)
        return y

    def outputs() -> dict[str, np.ndarray]:
        if case.mode != TRAINING:
            return {"y": forward().numpy()}
        y = training(given).detach().numpy()
        found = {"y": y, "dx": x.grad.numpy()}
        return found | {f"d_{n}": a.grad.numpy() for n, a in w.items() if a.grad is not None}

    if case.mode == TRAINING:
        for tensor in (x, *w.values()):
            tensor.requires_grad_(True)
    call = (lambda: training(drawn())) if case.mode == TRAINING else forward
    what = "a Python loop over a step of torch.compile" if compiled else "a Python loop"
    return Run(f"torch {torch.__version__}, {what}", call, outputs)


def _compiled(code: CellCode, ops: Any) -> Callable[..., Any]:
    import torch

    torch._dynamo.reset()  # the case before had other shapes: a step without dynamic sizes

    def step(w: Any, z: Any, kept: Any, *states: Any) -> Any:
        return code.step(ops, w, z, kept, *states)

    made: Callable[..., Any] = torch.compile(step, dynamic=False)
    return made
