"""rnncc.torch: against torch.nn itself, in autograd, under torch.compile, with an optimizer."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.begun import TEXT
from tests.support.paths import ROOT

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

import rnncc  # noqa: E402
import rnncc.torch as ours  # noqa: E402
from rnncc.runtime.cpu.threads import dispatch  # noqa: E402

CLASSES = ["LSTM", "GRU", "RNN"]


def pair(name: str, *sizes: Any, **keywords: Any) -> tuple[Any, Any]:
    """torch's module and ours, made from the same seed."""
    made = []
    for module in (torch.nn, ours):
        torch.manual_seed(3)
        made.append(getattr(module, name)(*sizes, **keywords))
    return made[0], made[1]


def close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance)


def flat(result: Any) -> list[Any]:
    """Tensors of (y, h), (y, (h, c)) or with packed y."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, torch.nn.utils.rnn.PackedSequence):
        return [result.data]
    return [t for part in result for t in flat(part)]


def agree(theirs: Any, own: Any, call: Callable[[Any, Any, Any], Any], x: Any, hx: Any) -> None:
    """Results and all gradients of the same call."""
    results, gradients = [], []
    for module in (theirs, own):
        leaves = [t.clone().requires_grad_() for t in (x, *hx)]
        found = flat(call(module, leaves[0], leaves[1:]))
        torch.manual_seed(5)
        loss = sum((t * torch.randn(t.shape, dtype=t.dtype)).sum() for t in found)
        results.append([t.detach() for t in found])
        gradients.append(torch.autograd.grad(loss, [*leaves, *module.parameters()]))
    close(results[0], results[1])
    close(gradients[0], gradients[1])


def states(module: Any, batch: int) -> list[Any]:
    rows = module.num_layers * (2 if module.bidirectional else 1)
    widths = [module.proj_size or module.hidden_size, module.hidden_size]
    count = 2 if module.mode == "LSTM" else 1
    return [torch.randn(rows, batch, w) for w in widths[:count]]


def with_states(module: Any, x: Any, hx: Any) -> Any:
    if not hx:
        return module(x)
    return module(x, tuple(hx) if len(hx) == 2 else hx[0])


# ---- torch.nn --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"num_layers": 2, "bidirectional": True},
        {"num_layers": 2, "batch_first": True},
        {"bidirectional": True, "batch_first": True, "bias": False},
    ],
    ids=str,
)
def test_as_torch(name: str, keywords: dict[str, Any]) -> None:
    theirs, own = pair(name, 5, 17, **keywords)
    assert list(own.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(value, own.state_dict()[key]), key
    x = torch.randn(3, 7, 5)
    agree(theirs, own, with_states, x, [])
    agree(theirs, own, with_states, x, states(own, 3 if own.batch_first else 7))


def test_a_projection_as_torch() -> None:
    theirs, own = pair("LSTM", 5, 17, proj_size=3, num_layers=2, bidirectional=True)
    x = torch.randn(6, 4, 5)
    agree(theirs, own, with_states, x, states(own, 4))


def test_relu_and_the_order_of_arguments_as_torch() -> None:
    theirs, own = pair("RNN", 5, 9, 1, "relu", True, True)
    assert own.nonlinearity == "relu" and own.batch_first
    agree(theirs, own, with_states, torch.randn(3, 4, 5), [])


@pytest.mark.parametrize("name", CLASSES)
def test_one_sequence_without_a_batch(name: str) -> None:
    theirs, own = pair(name, 5, 9)
    x = torch.randn(4, 5)
    agree(theirs, own, with_states, x, [])
    agree(theirs, own, with_states, x, [s[:, 0] for s in states(own, 1)])


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_sequences(name: str, batch_first: bool) -> None:
    theirs, own = pair(name, 5, 9, num_layers=2, bidirectional=True, batch_first=batch_first)
    x = torch.randn(4, 7, 5) if batch_first else torch.randn(7, 4, 5)

    def call(lengths: list[int], enforce: bool) -> Callable[[Any, Any, Any], Any]:
        def run(module: Any, x: Any, hx: Any) -> Any:
            packed = pack_padded_sequence(x, lengths, batch_first, enforce_sorted=enforce)
            y, last = with_states(module, packed, hx)
            whole, found = pad_packed_sequence(y, batch_first)
            assert found.tolist() == lengths
            return whole, last

        return run

    agree(theirs, own, call([7, 5, 5, 1], True), x, [])
    agree(theirs, own, call([2, 7, 1, 4], False), x, states(own, 4))
    agree(theirs, own, call([3, 3, 3, 3], True), x, [])


@pytest.mark.slow
def test_gradients_of_gradients_through_packed_rows() -> None:
    layer = ours.GRU(2, 3, dtype=torch.float64)
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)

    def run(x: Any) -> Any:
        packed = pack_padded_sequence(x, [2, 4, 1], enforce_sorted=False)
        return layer(packed)[0].data

    assert torch.autograd.gradgradcheck(run, x)


def test_float64_and_back() -> None:
    theirs, own = pair("GRU", 3, 5)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    found, right = own.double()(x)[0], theirs.double()(x)[0]
    assert found.dtype == torch.float64
    close(right, found, 1e-12)
    close(theirs.float()(x.float())[0], own.float()(x.float())[0])


def test_dropout_between_layers_is_drawn_in_training_alone() -> None:
    own = ours.GRU(3, 5, num_layers=2, dropout=0.5)
    x = torch.randn(4, 2, 3)
    torch.manual_seed(0)
    first, second = own(x)[0], own(x)[0]
    torch.manual_seed(0)
    assert torch.equal(own(x)[0], first) and not torch.equal(first, second)
    own.eval()
    assert torch.equal(own(x)[0], own(x)[0])


def test_wrong_calls_say_what_is_wrong() -> None:
    own = ours.LSTM(3, 5)
    x = torch.randn(4, 2, 3)
    with pytest.raises(RuntimeError, match=r"input\.size\(-1\)"):
        own(torch.randn(4, 2, 4))
    with pytest.raises(RuntimeError, match=r"c_0 has shape \[1, 2, 4\], expected \[1, 2, 5\]"):
        own(x, (torch.zeros(1, 2, 5), torch.zeros(1, 2, 4)))
    with pytest.raises(RuntimeError, match="pair"):
        own(x, torch.zeros(1, 2, 5))
    with pytest.raises(ValueError, match="float64"):
        own(x.double())
    with pytest.raises(TypeError, match="complex64: rnncc has kernels for"):
        own.to(torch.complex64)(x.to(torch.complex64))
    with pytest.raises(TypeError, match="for the CPU and for CUDA, not for meta"):
        ours.LSTM(3, 5)(x.to("meta"))
    with pytest.raises(ValueError, match="proj_size"):
        ours.GRU(3, 5, proj_size=2)


def test_no_rows_and_no_steps() -> None:
    own = ours.LSTM(3, 5, bidirectional=True)
    y, (h, c) = own(torch.zeros(4, 0, 3))
    assert y.shape == (4, 0, 10) and h.shape == (2, 0, 5) and c.shape == (2, 0, 5)
    hx = torch.randn(2, 2, 5, requires_grad=True), torch.randn(2, 2, 5, requires_grad=True)
    y, (h, c) = own(torch.zeros(0, 2, 3), hx)
    assert y.shape == (0, 2, 10) and torch.equal(h, hx[0])
    (c * 2).sum().backward()
    assert torch.equal(hx[1].grad, torch.full((2, 2, 5), 2.0))
    assert all(torch.count_nonzero(p.grad) == 0 for p in own.parameters())
    for shape in ((0, 2, 3), (4, 0, 3)):  # one direction: its results are where kernels leave them
        one, x = ours.GRU(3, 5, batch_first=True), torch.zeros(shape, requires_grad=True)
        y, h = one(x)
        assert y.shape == (*shape[:2], 5) and h.shape == (1, shape[0], 5)
        (y.sum() + h.sum()).backward()
        assert x.grad.shape == shape and torch.count_nonzero(one.weight_hh_l0.grad) == 0


# ---- weights that change -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["optimizer", "data", "load", "inference", "attribute"])
def test_no_weight_is_stale(how: str) -> None:
    theirs, own = pair("LSTM", 3, 5)
    x = torch.randn(4, 2, 3)
    before = own(x)[0]
    for module in (theirs, own):
        if how == "optimizer":
            optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
            module(x)[0].sum().backward()
            optimizer.step()
        elif how == "data":
            for p in module.parameters():
                p.data.mul_(0.5)
        elif how == "load":
            module.load_state_dict({k: v + 0.5 for k, v in module.state_dict().items()})
        elif how == "inference":
            with torch.inference_mode():
                module.weight_hh_l0.mul_(0.5)
        else:
            module.weight_hh_l0 = torch.nn.Parameter(module.weight_hh_l0.detach() * 2)
    after = own(x)[0]
    assert not torch.equal(before, after)
    close(theirs(x)[0], after)


def test_a_weight_changed_before_backward_is_refused() -> None:
    own = ours.GRU(3, 5)
    y, _ = own(torch.randn(4, 2, 3))
    with torch.no_grad():
        own.weight_hh_l0.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_many_layers_of_one_cell_find_their_weights_packed() -> None:
    layers = [ours.GRU(3, 5) for _ in range(6)]
    x = torch.randn(4, 2, 3)
    kernels = layers[0]._recurrences[0].kernels

    def versions() -> list[object]:
        return [v.version for v in kernels.weights._sets.values()]

    for layer in [*layers, *layers]:  # at the second look a copy is made to compare with
        layer(x)
    seen = versions()
    for layer in layers:
        layer(x)
    assert versions() == seen


# ---- copies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", ["GRU", "Recurrent", "text"])
def test_copies_and_files(made: str, tmp_path: Path) -> None:
    x = torch.randn(4, 2, 3)
    module: Any = ours.GRU(3, 5) if made == "GRU" else None
    if made == "Recurrent":
        module = ours.Recurrent("gru", units=5, return_state=True)
    elif made == "text":
        cell = rnncc.compile_text(TEXT)
        module = ours.Recurrent(cell, units=5, features=3, return_state=True)
    right = module(x)[0]
    torch.save(module, tmp_path / "module.pt")
    for copied in (
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(tmp_path / "module.pt", weights_only=False),
    ):
        assert torch.equal(copied(x)[0], right)
        with torch.no_grad():
            next(copied.parameters()).add_(1)
        assert not torch.equal(copied(x)[0], right) and torch.equal(module(x)[0], right)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = copy.deepcopy(module)
    for p in fresh.parameters():
        p.data.zero_()
    fresh.load_state_dict(torch.load(file))
    assert torch.equal(fresh(x)[0], right)


def test_another_process_runs_a_pickled_module(tmp_path: Path) -> None:
    module = ours.Recurrent(rnncc.compile_text(TEXT), units=5, features=3)
    x = torch.randn(2, 4, 3)
    torch.save((module, x), tmp_path / "module.pt")
    script = (
        "import sys, torch; m, x = torch.load(sys.argv[1], weights_only=False); "
        "torch.save(m(x).detach(), sys.argv[2])"
    )
    found = tmp_path / "found.pt"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, str(tmp_path / "module.pt"), str(found)]
    subprocess.run(command, env=environment, check=True)
    assert torch.equal(torch.load(found), module(x))


# ---- any cell ----------------------------------------------------------------------------------


def test_a_cell_as_its_numpy_layer() -> None:
    module = ours.Recurrent("peephole_lstm", units=17, return_sequences=True, return_state=True)
    assert not module.built
    x = torch.randn(3, 6, 5)
    first = torch.randn(3, 17), torch.randn(3, 17)
    found = module(x, initial_state=first)
    layer = rnncc.compile("peephole_lstm")(units=17, return_sequences=True, return_state=True)
    layer.build((None, None, 5))
    layer.set_weights([p.detach().numpy() for p in module.parameters()])
    right = layer(x.numpy(), initial_state=tuple(s.numpy() for s in first))
    for a, b in zip(found, right, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b)
    assert dict(module.named_parameters()).keys() == dict(layer.weights).keys()


def test_seeds_are_torchs() -> None:
    def made() -> Any:
        torch.manual_seed(4)
        return ours.Recurrent("lstm", units=5, input_size=3, dropout=0.5, recurrent_dropout=0.2)

    a, b = made(), made()
    assert a.built
    for key, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[key])
    x = torch.randn(2, 4, 3)
    torch.manual_seed(1)
    first, second = a(x), a(x)
    torch.manual_seed(1)
    assert torch.equal(b(x), first) and not torch.equal(first, second)
    a.eval()
    assert torch.equal(a(x), a(x))


def test_masks_and_lengths() -> None:
    module = ours.Recurrent("lstm", units=5, input_size=3, return_sequences=True)
    x = torch.randn(3, 6, 3)
    lengths = torch.tensor([6, 2, 4])
    mask = torch.arange(6) < lengths[:, None]
    y = module(x, lengths=lengths)
    assert torch.equal(module(x, mask=mask), y)
    assert torch.equal(y[1, :2], module(x[1:2, :2])[0])
    assert torch.equal(y[1, 5], y[1, 1])
    (gradient,) = torch.autograd.grad(
        module(leaf := x.clone().requires_grad_(), lengths=[3, 2, 1]).sum(), leaf
    )
    assert torch.count_nonzero(gradient[0, 3:]) == 0 and torch.count_nonzero(gradient[0, 0]) == 3
    with pytest.raises(TypeError, match="both"):
        module(x, lengths=lengths, mask=mask)
    with pytest.raises(ValueError, match="lengths"):
        module(x, lengths=[7, 1, 1])


def test_two_inputs_constants_and_a_state_that_is_trained() -> None:
    text = """
cell: Two
a: input[n]
b: input
m: context[n]
n: size
units: size
h: state[units] = h0
h0: weight[units] = ones
mu: constant[units] = zeros
W: weight[n, units]
V: weight[n, units]
U: weight[units, units]
h[t] = tanh(a[t] @ W + m @ V + b[t] * (h[t-1] @ U) + mu)
return h[t], sum(h[t])
"""
    module = ours.Recurrent(rnncc.compile_text(text, dtype="float64"), units=3)
    a, b, m = (
        torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 4, 3), (2, 4), (2, 3))
    )
    h, total = module((a, b, m))
    assert h.shape == (2, 3) and total.shape == (2,)
    assert list(dict(module.named_buffers())) == ["mu"]
    names = list(dict(module.named_parameters()))

    def call(a: Any, b: Any, m: Any, *weights: Any) -> Any:
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(module, given, ({"a": a, "b": b, "m": m},))

    assert torch.autograd.gradcheck(call, (a, b, m, *module.parameters()))
    start = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    given = module((a, b, m), initial_state=start)[0]
    first, begun = torch.autograd.grad(given.sum(), [start, module.h0])
    assert first.shape == (2, 3)
    assert torch.count_nonzero(begun) == 0


def test_keywords_of_layers() -> None:
    plain = ours.Recurrent("gru", units=5, input_size=3, return_sequences=True)
    x = torch.randn(2, 6, 3)
    y = plain(x)

    def other(**keywords: Any) -> Any:
        module = ours.Recurrent("gru", units=5, input_size=3, return_sequences=True, **keywords)
        module.load_state_dict(plain.state_dict())
        return module

    assert torch.equal(other(time_major=True)(x.transpose(0, 1)).transpose(0, 1), y)
    assert torch.equal(other(go_backwards=True)(x.flip(1)), y)
    leaf = x.clone().requires_grad_()
    right = torch.autograd.grad(plain(leaf).square().sum(), leaf)[0]
    found = torch.autograd.grad(other(checkpoint_every=2)(leaf).square().sum(), leaf)[0]
    assert torch.equal(found, right)
    lazy = ours.Recurrent("gru", units=5, return_sequences=True)
    lazy.load_state_dict(plain.state_dict())
    assert torch.equal(lazy(x), y)


def test_a_layer_of_arrays_takes_no_tensor_of_a_graph() -> None:
    layer = rnncc.compile("gru")(units=3)
    x = torch.randn(2, 4, 3)
    assert np.array_equal(layer(x), layer(x.numpy()))
    with pytest.raises(ValueError, match=r"x can't become an array: .*requires grad"):
        layer(x.requires_grad_())


def test_what_a_module_refuses() -> None:
    with pytest.raises(TypeError, match=r"torch\.manual_seed"):
        ours.Recurrent("gru", units=5, seed=1)
    with pytest.raises(TypeError, match="initial_state="):
        ours.Recurrent("gru", units=5, stateful=True)
    with pytest.raises(TypeError, match=r"dtype is torch\.int64: rnncc has kernels for"):
        ours.Recurrent("gru", units=5, dtype=torch.int64)
    with pytest.raises(ValueError, match="call the weight something else"):
        ours.Recurrent(
            rnncc.compile_text(
                "cell: C\nx: input[n]\nn: size\nh: state[n]\nfloat: weight[n]\n"
                "h[t] = float * x[t] + h[t-1]\nreturn h[t]\n"
            )
        )
    module = ours.Recurrent("gru", units=5, input_size=3)
    with pytest.raises(TypeError, match="give a torch tensor"):
        module(np.zeros((2, 4, 3)))
    with pytest.raises(TypeError, match=r"x of GRU is torch\.float64, the module's weights are"):
        module(torch.zeros(2, 4, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="expected"):
        module(torch.zeros(2, 4, 7))
    with pytest.raises(ValueError, match=r"initial state h has shape \[2, 4\], expected \[2, 5\]"):
        module(torch.zeros(2, 4, 3), initial_state=torch.zeros(2, 4))


# ---- autograd and the compiler -----------------------------------------------------------------


def test_gradcheck() -> None:
    module = ours.LSTM(2, 3, bidirectional=True, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    hx = [s.double().requires_grad_() for s in states(module, 2)]
    names = list(dict(module.named_parameters()))

    def call(x: Any, h: Any, c: Any, *weights: Any) -> Any:
        given = dict(zip(names, weights, strict=True))
        y, last = torch.func.functional_call(module, given, (x, (h, c)))
        return y, *last

    assert torch.autograd.gradcheck(call, (x, *hx, *module.parameters()), fast_mode=True)


@pytest.mark.parametrize("kind", ["both", "layers", "last", "cut", "begun"])
def test_gradgradcheck(kind: str) -> None:
    """Both directions; layers of both; outputs of the last step and lengths; those of all steps,
    of which the last doesn't run; a state that starts from a weight."""
    double = {"dtype": torch.float64}
    module: Any = ours.GRU(2, 3, bidirectional=True, **double)
    extra: dict[str, Any] = {}
    if kind == "layers":
        module = ours.RNN(2, 3, num_layers=2, bidirectional=True, **double)
    if kind == "last":
        module = ours.Recurrent("gru", units=3, input_size=2, return_state=True, **double)
        extra = {"lengths": [2, 1]}
    elif kind == "cut":
        module = ours.Recurrent("gru", units=3, input_size=2, return_sequences=True, **double)
        extra = {"lengths": [2, 1]}
    elif kind == "begun":
        cell = rnncc.compile_text(TEXT, dtype="float64")
        module = ours.Recurrent(cell, units=3, features=2, return_sequences=True)
    x = torch.randn(2, 3, 2, requires_grad=True, **double)
    names = list(dict(module.named_parameters()))

    def call(x: Any, *weights: Any) -> Any:
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(module, given, (x,), extra)

    assert torch.autograd.gradgradcheck(call, (x, *module.parameters()), fast_mode=True)


def test_gradients_of_some_and_again() -> None:
    module = ours.GRU(2, 3)
    module.weight_ih_l0.requires_grad_(False)
    _, h = module(torch.randn(3, 2, 2))
    h.sum().backward(retain_graph=True)
    assert module.weight_ih_l0.grad is None
    first = module.weight_hh_l0.grad.clone()
    h.sum().backward()
    close(2 * first, module.weight_hh_l0.grad)
    with torch.no_grad():
        assert not module(torch.randn(3, 2, 2))[0].requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_as_one_graph(backend: str) -> None:
    torch._dynamo.reset()

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = ours.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True)
            self.head = ours.Recurrent("gru", units=4, input_size=10)

        def forward(self, x: Any) -> Any:
            return self.head(torch.relu(self.body(x * 2)[0]))

    model = Model()
    if backend == "inductor" and not _has_compiler():
        pytest.skip("no C++ compiler")
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    results, gradients = [], []
    for call in (model, compiled):
        leaf = torch.linspace(-1, 1, 2 * 6 * 3).reshape(2, 6, 3).requires_grad_()
        y = call(leaf)
        results.append(y)
        gradients.append(torch.autograd.grad(y.square().sum(), [leaf, *model.parameters()]))
    close(results[0], results[1], 1e-6)
    close(gradients[0], gradients[1])
    with torch.no_grad():
        model.head.kernel.mul_(2)
        x = torch.randn(2, 6, 3)
        close(model(x), compiled(x), 1e-6)


def _has_compiler() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return bool(get_cpp_compiler())
    except Exception:
        return False


def test_a_compiled_graph_has_one_node_a_layer_and_any_batch() -> None:
    torch._dynamo.reset()
    seen: list[Any] = []

    def backend(graph: Any, example: Any) -> Any:
        seen.append(graph)
        return graph.forward

    module = ours.Recurrent("lstm", units=5, input_size=3, dropout=0.5)
    compiled = torch.compile(module, fullgraph=True, backend=backend, dynamic=True)
    for batch in (2, 3, 5):
        assert compiled(torch.randn(batch, 6, 3)).shape == (batch, 5)
    nodes = [n for n in seen[-1].graph.nodes if "rnncc" in str(n.target)]
    assert len(nodes) == 1 and len(seen) <= 2
    torch.manual_seed(2)
    first = compiled(torch.ones(2, 6, 3))
    assert not torch.equal(compiled(torch.ones(2, 6, 3)), first)  # drawn anew


@pytest.mark.parametrize("training", [False, True])
def test_traced(training: bool) -> None:
    layer = ours.LSTM(3, 5, batch_first=True).train(training)
    traced = torch.jit.trace(layer, torch.randn(2, 4, 3))
    x = torch.randn(3, 6, 3, requires_grad=True)
    close(layer(x)[0], traced(x)[0])
    expected = torch.autograd.grad(layer(x)[0].sum(), [x, *layer.parameters()])
    found = torch.autograd.grad(traced(x)[0].sum(), [x, *layer.parameters()])
    assert all(map(torch.equal, found, expected))


def test_half_precision_under_autocast() -> None:
    """What is narrower is widened, states too, and results are of autocast's dtype."""
    x, h = torch.randn(2, 4, 3), torch.randn(2, 5)
    whole = ours.GRU(3, 5, batch_first=True)
    cell = ours.Recurrent("simple_rnn", units=5, input_size=3)
    with torch.autocast("cpu", torch.bfloat16):
        found = whole(x.bfloat16(), h[None].bfloat16())[0]
        last = cell(x.bfloat16(), initial_state=h.bfloat16())
    assert found.dtype == last.dtype == torch.bfloat16
    close(whole(x, h[None])[0], found.float(), 0.02)
    close(cell(x, initial_state=h), last.float(), 0.02)


def test_shapes_on_the_meta_device() -> None:
    layer = ours.LSTM(3, 5, device="meta")
    y, (h, _) = layer(torch.empty(4, 2, 3, device="meta"))
    assert y.is_meta and y.shape == (4, 2, 5) and h.shape == (1, 2, 5)
    layer.to_empty(device="cpu").load_state_dict(torch.nn.LSTM(3, 5).state_dict())
    assert layer(torch.zeros(4, 2, 3))[0].shape == (4, 2, 5)


def test_what_torch_can_do_and_kernels_cannot() -> None:
    layer, x = ours.LSTM(3, 5), torch.randn(4, 2, 3, requires_grad=True)
    for module in (layer, ours.Recurrent("lstm", units=5, input_size=3)):
        with pytest.raises(TypeError, match=r"can't be scripted: use torch\.compile"):
            torch.jit.script(module)
    with pytest.raises(TypeError, match="input is a ndarray: give a torch tensor"):
        layer(np.zeros((4, 2, 3), "float32"))
    with pytest.raises(TypeError, match="input is nested: torch"):
        layer(torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(4, 3)]))
    with pytest.raises(TypeError, match="h_0 is a tuple: give a torch tensor"):
        ours.GRU(3, 5)(x, (torch.zeros(1, 2, 5),) * 2)


def test_exported() -> None:
    module = ours.GRU(3, 5, batch_first=True).eval()
    x = torch.randn(2, 6, 3)
    program = torch.export.export(module, (x,))
    close(module(x)[0], program.module()(x)[0], 1e-6)


def test_activation_checkpointing_draws_the_same_masks() -> None:
    module = ours.Recurrent("gru", units=5, input_size=3, dropout=0.5)
    x = torch.randn(2, 6, 3, requires_grad=True)
    found = []
    for wrapped in (False, True):
        torch.manual_seed(7)
        y = (
            torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False)
            if wrapped
            else module(x)
        )
        found.append(torch.autograd.grad(y.square().sum(), x)[0])
    assert torch.equal(found[0], found[1])


def test_kernels_run_on_torchs_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as torch has now, one Python thread after another; nobody waits for them, and the
    bits are those of any threads."""
    team = dispatch.joined_team()
    if team is None:
        pytest.skip("one core, or a torch without OpenMP")
    before = torch.get_num_threads()
    layer, x = ours.LSTM(28, 64), torch.randn(28, 64, 28)

    def results() -> list[Any]:
        y, states = layer(x)
        return [y, *states, *torch.autograd.grad(y.square().sum(), layer.parameters())]

    ran = []
    monkeypatch.setattr(team, "_parallel", lambda *a, run=team._parallel: ran.append(a) or run(*a))
    try:
        torch.set_num_threads(2)
        found = [results()]
        assert ran and "2 threads of torch's OpenMP team" in layer.plan()
        with team._busy:
            found.append(results())
        with ThreadPoolExecutor(3) as threads:
            found += threads.map(lambda _: results(), range(12))
        torch.set_num_threads(1)
        ran.clear()
        found.append(results())
        assert not ran and "1 thread of torch's" in layer.plan()
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, other, found[0]))


def test_importing_rnncc_leaves_torch_alone() -> None:
    script = "import rnncc, rnncc.compiler, rnncc.oracle, sys; assert 'torch' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "try: import rnncc.torch\n"
        "except ImportError as e: assert 'rnncc[torch]' in str(e), e\n"
        "else: raise SystemExit(1)"
    )
    subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )


@pytest.mark.parametrize("name", ["recurrent_dropout", "activation", "use_bias", "units"])
def test_what_a_module_was_made_with_is_not_set_later(name: str) -> None:
    """It would do nothing: kernels have it from where the module was made."""
    module = rnncc.torch.Recurrent("lstm", units=3, recurrent_dropout=0.2)
    with pytest.raises(AttributeError, match=rf"^{name} is chosen where Recurrent is made: make"):
        setattr(module, name, 0.5)
    with pytest.raises(AttributeError, match="return_sequences is chosen where"):
        module.return_sequences = True
    module.note = "anything else is anybody's"
