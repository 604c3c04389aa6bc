"""What nobody holds any longer leaves memory; what may still be called doesn't."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.jit.kernel import CpuKernel
from rnncc.runtime.jit.object_cache import Loader
from tests.support.paths import ROOT

TEXT = """cell: Small
units: size
x: input[units]
h: state[units]
w: weight[units] = ones
# {}
h[t] = tanh(w * h[t-1] + x[t])
return h[t]
"""
X = np.linspace(-1, 1, 12, dtype="float32").reshape(2, 2, 3)


def small(comment: object) -> type[Layer]:
    return rnncc.compile_text(TEXT.format(comment))


def held() -> Counter[str]:
    """How many classes, kernels and linkers there are."""
    gc.collect()
    found: Counter[str] = Counter()
    for each in gc.get_objects():
        if isinstance(each, type) and issubclass(each, Layer):
            found["classes"] += 1
        elif isinstance(each, CpuKernel | Loader):
            found[type(each).__name__] += 1
    return found


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(again: Callable[[str], None], times: int) -> float:
    """Resident bytes that each of ``times`` runs leaves: the least of three series.

    What is kept grows in every series; a heap that asks the system for more now and then, or
    another test's remains in it, doesn't.
    """
    found = []
    for series in range(3):
        before = resident()
        for i in range(times):
            again(f"{series}, {i}")
        gc.collect()
        found.append((resident() - before) / times)
    return min(found)


def call(comment: object) -> None:
    y, pullback = small(comment)(units=3, seed=1, return_sequences=True).vjp(X)
    pullback(y)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux says what is resident")
def test_texts_leave_memory() -> None:
    for i in range(8):
        call(i)
    before = held()
    assert growth(call, 20) < 100_000
    assert held() == before


def test_a_text_that_is_held_is_one_class() -> None:
    held_ = small("held")
    assert small("held") is held_
    assert small("not held") is not held_


def _through_a_pullback(layer: Layer) -> Callable[[], Any]:
    y, pullback = layer.vjp(X)
    return lambda: pullback(np.ones_like(y)).inputs


def _through_a_stream(layer: Layer) -> Callable[[], Any]:
    stream = layer.stream(X)

    def again() -> Any:
        stream.reset()
        return np.array(stream(X))

    return again


def _through_a_call(layer: Layer) -> Callable[[], Any]:
    layer(X)
    return lambda: layer(X)


def _through_a_copy(layer: Layer) -> Callable[[], Any]:
    layer(X)
    copied = pickle.loads(pickle.dumps(layer))
    return lambda: copied(X)


WAYS = (_through_a_pullback, _through_a_stream, _through_a_call, _through_a_copy)


@pytest.mark.parametrize("way", WAYS, ids=lambda w: w.__name__)
def test_what_may_be_called_stays(way: Callable[[Layer], Callable[[], Any]]) -> None:
    """Its class, its layer and others of its kind are gone by then."""
    right = way(small("right")(units=3, seed=1, return_sequences=True))()
    again = way(small(f"{way.__name__}")(units=3, seed=1, return_sequences=True))
    for i in range(3):
        call(f"meanwhile {i}")
    gc.collect()
    np.testing.assert_array_equal(again(), right)


def test_layers_are_pickled_by_their_text(tmp_path: Path) -> None:
    """Another process has never seen the class, and this one has let it go."""
    layer = small("pickled")(units=3, seed=1)
    right, data = layer(X), pickle.dumps(layer)
    del layer
    gc.collect()
    np.testing.assert_array_equal(pickle.loads(data)(X), right)
    (tmp_path / "layer").write_bytes(data)
    np.save(tmp_path / "x.npy", X)
    code = (
        "import pickle, numpy as np\n"
        "layer = pickle.load(open('layer', 'rb'))\n"
        "np.save('y.npy', layer(np.load('x.npy')))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), right)


# ---- torch ---------------------------------------------------------------------------------------


def _module(comment: object) -> Any:
    ours = pytest.importorskip("rnncc.torch")
    torch = pytest.importorskip("torch")
    module = ours.Recurrent(small(comment), units=3, return_sequences=True)
    assert list(module.state_dict()) == ["w"] and torch.all(module.w == 1)
    return module


def _tensor() -> Any:
    return pytest.importorskip("torch").from_numpy(X.copy()).requires_grad_()


def call_torch(comment: object) -> None:
    module, x = _module(comment), _tensor()
    for _ in range(2):  # the second by the path of the first
        module(x).square().sum().backward()


def held_by_torch() -> tuple[int, ...]:
    from rnncc.torch import ops, recipe, recurrence

    gc.collect()
    found = (recurrence.RECURRENCES, recipe._kernels, ops.IN_GRAPHS)
    return tuple(map(len, found))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux says what is resident")
def test_modules_of_torch_leave_memory() -> None:
    for i in range(8):
        call_torch(i)
    before, registered = held(), held_by_torch()
    assert growth(call_torch, 20) < 100_000
    assert held() == before and held_by_torch() == registered


def _through_autograd(module: Any, x: Any) -> Callable[[], Any]:
    torch = pytest.importorskip("torch")
    y = module(x)
    return lambda: torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0]


def _through_a_double_backward(module: Any, x: Any) -> Callable[[], Any]:
    torch = pytest.importorskip("torch")
    (g,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    return lambda: torch.autograd.grad(g.square().sum(), x, retain_graph=True)[0]


def _through_an_exported_program(module: Any, x: Any) -> Callable[[], Any]:
    torch = pytest.importorskip("torch")
    program = torch.export.export(module, (x,))
    return lambda: program.module()(x).detach()


def _through_a_trace(module: Any, x: Any) -> Callable[[], Any]:
    torch = pytest.importorskip("torch")
    traced = torch.jit.trace(module, (x,))
    return lambda: traced(x).detach()


def _through_a_compiled_graph(module: Any, x: Any) -> Callable[[], Any]:
    torch = pytest.importorskip("torch")
    graphs: list[Any] = []

    def keep(graph: Any, example: Any) -> Any:
        graphs.append((graph, example))
        return graph.forward

    torch.compile(module, backend=keep, fullgraph=True)(x)
    torch._dynamo.reset()
    ((graph, example),) = graphs
    return lambda: graph(*example)[0].detach()


def _through_a_pickle(module: Any, x: Any) -> Callable[[], Any]:
    data = pickle.dumps(module)
    return lambda: pickle.loads(data)(x).detach()


TORCH = (
    _through_autograd,
    _through_a_double_backward,
    _through_an_exported_program,
    _through_a_trace,
    _through_a_compiled_graph,
    _through_a_pickle,
)


@pytest.mark.parametrize("way", TORCH, ids=lambda w: w.__name__)
def test_what_torch_may_call_stays(way: Callable[[Any, Any], Callable[[], Any]]) -> None:
    """The module, its recurrence and its class have nobody else by then."""
    right = way(_module("right"), _tensor())()
    again = way(_module(way.__name__), _tensor())
    gc.collect()
    for i in range(3):
        call_torch(f"meanwhile {i}")
    np.testing.assert_array_equal(again(), right)


def test_a_graph_whose_module_never_was_here_says_so() -> None:
    torch = pytest.importorskip("torch")
    key, _, equations = _module("gone")._recurrence.key.partition(" ")
    assert equations  # with them a graph makes it anew
    gc.collect()
    with pytest.raises(RuntimeError, match=r"no Small with the key .*, and keep it until then"):
        torch.ops.rnncc.forward(key, [torch.zeros(1, 1, 3)], None, False, False, False, False)
