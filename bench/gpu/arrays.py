"""Arrays that lie on a GPU: CuPy's and torch's, on streams and in graphs of their owners.

Each way to hand them over is held against the same layer with NumPy's arrays. What isn't installed
is said.

Non-Goals: times; every cell (`check`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import rnncc
from rnncc.common.layer_keywords import Target

UNITS, SHAPE = 64, (4, 12, 64)
Found = dict[str, np.ndarray]


def array_errors() -> dict[str, Any]:
    """By what was tried: {"error": the largest}, or {"why": it didn't come to that}."""
    found: dict[str, Any] = {}
    x = np.random.default_rng(7).standard_normal(SHAPE).astype("float32")
    for name, run in TRIED.items():
        try:
            pairs = run(x)
            found[name] = {"error": max(_error(a, b) for a, b in pairs)}
        except Exception as error:
            found[name] = {"why": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    return found


def _error(a: Any, b: Any) -> float:
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))


def _gru(target: Target = "cuda") -> Any:
    return rnncc.compile("gru", target=target)(units=UNITS, return_sequences=True, seed=3)


def _to_and_fro(x: np.ndarray) -> Any:
    """Trained on one, used on the other."""
    layer = _gru("cpu")
    right = layer(x)
    yield layer.to("cuda")(x), right
    yield layer.to("cpu")(x), right


# ---- CuPy --------------------------------------------------------------------------------------


def _cupy(x: np.ndarray) -> Any:
    import cupy

    yield from _with_gradients(x, cupy.asarray, cupy.asnumpy)


def _cupy_stream(x: np.ndarray) -> Any:
    import cupy

    with cupy.cuda.Stream(non_blocking=True) as stream:
        found = [*_with_gradients(x, cupy.asarray, cupy.asnumpy)]
        stream.synchronize()
    yield from found


def _with_gradients(x: np.ndarray, there: Callable[..., Any], back: Callable[..., Any]) -> Any:
    layer = _gru()
    right, pullback = layer.vjp(x)
    again = pullback(np.ones_like(right))
    y, pull = layer.vjp(there(x))
    grads = pull(there(np.ones_like(right)))
    yield back(y), right
    yield back(grads.inputs), again.inputs
    for name, gradient in grads.weights.items():
        yield back(gradient), again.weights[name]


# ---- torch -------------------------------------------------------------------------------------


def _module(x: np.ndarray) -> tuple[Any, Any, np.ndarray]:
    """A module, its input, and what it gives on the CPU's kernels."""
    import torch

    from rnncc.torch import GRU

    torch.manual_seed(0)
    module, given = GRU(UNITS, UNITS, batch_first=True), torch.from_numpy(x)
    with torch.no_grad():
        right = module(given)[0].numpy().copy()
    return module.to("cuda"), given.to("cuda"), right


def _torch(x: np.ndarray) -> Any:
    import torch

    module, given, right = _module(x)
    with torch.no_grad():
        yield module(given)[0].cpu().numpy(), right
        yield module(given.transpose(0, 1).contiguous().transpose(0, 1))[0].cpu().numpy(), right
        for _ in range(4):  # graphs of ours
            y = module(given)[0]
        yield y.cpu().numpy(), right
    yield module.to("cpu")(torch.from_numpy(x))[0].detach().numpy(), right


def _torch_stream(x: np.ndarray) -> Any:
    import torch

    module, given, right = _module(x)
    torch.cuda.synchronize()
    with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(4):
            yield module(given)[0].cpu().numpy(), right


def _torch_graph(x: np.ndarray) -> Any:
    """A graph that the caller makes: our launches are in it."""
    import torch

    module, given, right = _module(x)
    graph, static = torch.cuda.CUDAGraph(), torch.zeros_like(given)
    with torch.no_grad():
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(3):
                module(static)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            y = module(static)[0]
        static.copy_(given)
        graph.replay()
    yield y.cpu().numpy(), right


def _torch_compile(x: np.ndarray) -> Any:
    import torch

    module, given, right = _module(x)
    with torch.no_grad():
        compiled = torch.compile(lambda t: module(t)[0] * 1.0, backend="aot_eager")
        yield compiled(given).cpu().numpy(), right


TRIED = {
    "NumPy, to and fro": _to_and_fro,
    "CuPy": _cupy,
    "CuPy, a stream": _cupy_stream,
    "torch": _torch,
    "torch, a stream": _torch_stream,
    "torch, a graph of the caller's": _torch_graph,
    "torch.compile": _torch_compile,
}
