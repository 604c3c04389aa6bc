"""Calls that people make of torch.nn's modules, of both: the same numbers, or both refuse; and what
ours take beside."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import (  # noqa: E402
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

import rnncc.torch as ours  # noqa: E402

Call = Callable[[Any], Any]
DOUBLE = {"dtype": torch.float64}
T, B, FEATURES, UNITS = 4, 3, 5, 7
ROWS = 4  # of states: two layers, both directions
OPTIONS = [
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "proj_size",
]


def made(library: Any, name: str = "LSTM", **keywords: Any) -> Any:
    torch.manual_seed(3)
    return getattr(library, name)(FEATURES, UNITS, 2, bidirectional=True, **DOUBLE, **keywords)


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    return made(torch.nn), made(ours)


def drawn(*shape: int, seed: int = 1) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


X = drawn(T, B, FEATURES)


def tensors(tree: Any) -> list[Any]:
    if isinstance(tree, torch.nn.utils.rnn.PackedSequence):
        return [tree.data]
    if isinstance(tree, tuple | list):
        return [t for each in tree for t in tensors(each)]
    return [tree] if isinstance(tree, torch.Tensor) else []


def states(*shape: int) -> Any:
    return drawn(*shape, seed=2), drawn(*shape, seed=3)


def trained(module: Any, x: Any, hx: Any = None) -> Any:
    """Results, and all gradients."""
    results = tensors(module(x, hx))
    loss = sum(t.sin().sum() for t in results)
    leaves = [t for t in (*tensors(x), *tensors(hx)) if t.requires_grad]
    trains = [p for p in module.parameters() if p.requires_grad]
    return results, torch.autograd.grad(loss, [*leaves, *trains])


# ---- the same numbers ----------------------------------------------------------------------------


def retained(module: Any) -> Any:
    y, _ = module(X)
    parameters = [*module.parameters()]
    first = torch.autograd.grad(y.sin().sum(), parameters, retain_graph=True)
    return first, torch.autograd.grad(y.cos().sum(), parameters)


def some_trained(module: Any) -> Any:
    for number, p in enumerate(module.parameters()):
        p.requires_grad_(number % 3 == 0)
    try:
        return trained(module, X)
    finally:
        module.requires_grad_(True)


def hooked(module: Any) -> Any:
    seen: list[Any] = []
    handles = [
        module.register_forward_pre_hook(lambda m, args: (args[0] * 2,)),
        module.register_forward_hook(lambda m, args, got: (got[0] + 1, got[1])),
        module.register_full_backward_hook(lambda m, d_in, d_out: seen.extend([*d_in, *d_out])),
        module.weight_hh_l0.register_hook(lambda d: d * 3),
    ]
    found = trained(module, X.clone().requires_grad_())
    for handle in handles:
        handle.remove()
    return found, seen


def changed_results(module: Any) -> Any:
    """In place, after the forward."""
    y, (h, c) = module(X)
    y.mul_(2)
    h.add_(1)
    loss = y.sin().sum() + h.sum() + c.sum()
    return torch.autograd.grad(loss, [*module.parameters()])


def turned(module: Any, attribute: str, value: Any, x: Any) -> Any:
    before = getattr(module, attribute)
    setattr(module, attribute, value)
    try:
        return trained(module, x)
    finally:
        setattr(module, attribute, before)


def minus_ones(*shape: int) -> Any:
    return torch._neg_view(X.new_ones(shape))


SAME: dict[str, Call] = {
    "a batch that is one row": lambda m: trained(m, X[:, :1].expand(T, B, FEATURES)),
    "steps that are one": lambda m: trained(m, X[:1].expand(T, B, FEATURES)),
    "overlapping windows": lambda m: trained(m, X.view(-1).as_strided((T, B, FEATURES), (3, 2, 1))),
    "another order of axes": lambda m: trained(m, drawn(FEATURES, B, T).permute(2, 1, 0)),
    "steps backwards": lambda m: trained(m, X.flip(0)),
    "no rows": lambda m: trained(m, X[:, :0]),
    "one sequence": lambda m: trained(m, X[:, 0].clone().requires_grad_()),
    "states": lambda m: trained(m, X, [t.requires_grad_() for t in states(ROWS, B, UNITS)]),
    "states that are one": lambda m: m(X, [torch.ones((), **DOUBLE).expand(ROWS, B, UNITS)] * 2),
    "states whose signs are to be turned": lambda m: m(
        X, [torch._neg_view(X.new_ones(ROWS, B, UNITS))] * 2
    ),
    "packed": lambda m: trained(m, pack_padded_sequence(X, [4, 2, 1])),
    "packed in any order": lambda m: m(
        pack_padded_sequence(X, [1, 4, 2], enforce_sorted=False), states(ROWS, B, UNITS)
    ),
    "packed sequences": lambda m: m(pack_sequence([X[:3, 0], X[:2, 1]])),
    "the graph kept": retained,
    "some parameters frozen": some_trained,
    "hooks": hooked,
    "results changed in place": changed_results,
    "batch_first set later": lambda m: turned(m, "batch_first", True, X),
    "without gradients": lambda m: torch.no_grad()(m)(X),
    "in inference mode": lambda m: torch.inference_mode()(m)(X),
    "by keywords": lambda m: m(input=X, hx=None),
    "weights side by side": lambda m: (m.flatten_parameters(), m._flat_weights, m.all_weights),
    "what it was made of": lambda m: torch.tensor([getattr(m, n) for n in OPTIONS]),
    "what it expects": lambda m: torch.tensor(
        [m.get_expected_hidden_size(X, None), m.get_expected_cell_size(X, None)]
    ),
    "states in another order": lambda m: m.permute_hidden(
        states(ROWS, B, UNITS), torch.tensor([2, 0, 1])
    ),
}


@pytest.mark.parametrize("what", SAME)
def test_the_same(what: str, pair: tuple[Any, Any]) -> None:
    right, found = (tensors(SAME[what](module)) for module in pair)
    assert len(found) == len(right) > 0
    torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-10)


def test_weights_of_another_dtype_for_one_call() -> None:
    own = ours.RNN(FEATURES, UNITS)
    weights = {n: p.double() for n, p in own.state_dict().items()}
    found = torch.func.functional_call(own, weights, (X,))[0]
    theirs = torch.nn.RNN(FEATURES, UNITS, **DOUBLE)
    theirs.load_state_dict(weights)
    torch.testing.assert_close(found, theirs(X)[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(own(X.float())[0].double(), found, rtol=1e-5, atol=1e-5)


# ---- both refuse ---------------------------------------------------------------------------------


def changed(what: str) -> Call:
    """Something that the backward needs, in place."""

    def call(module: Any) -> None:
        x = X.clone().requires_grad_() * 1
        hx = tuple(t.requires_grad_() * 1 for t in states(ROWS, B, UNITS))
        y, _ = module(x, hx)
        with torch.no_grad():
            {"x": x, "h": hx[0], "weight": module.weight_hh_l1}[what].mul_(1)
        y.sum().backward()

    return call


def back_twice(module: Any) -> None:
    loss = module(X)[0].sum()
    torch.autograd.grad(loss, module.weight_hh_l0)
    torch.autograd.grad(loss, module.weight_hh_l0)


REFUSED: dict[str, tuple[Call, str]] = {
    "a list": (lambda m: m(X.tolist()), "input is a list: give a torch tensor"),
    "nothing": (lambda m: m(None), "input is a NoneType"),
    "an array": (lambda m: m(X.numpy()), "input is a ndarray"),
    "ints": (lambda m: m(X.long()), "does not match weight dtype"),
    "complex numbers": (lambda m: m(X.to(torch.complex128)), "does not match weight dtype"),
    "four axes": (lambda m: m(X[None]), "2-D or 3-D, not 4-D"),
    "sparse numbers": (lambda m: m(X.to_sparse()), "not dense"),
    "too few features": (lambda m: m(X[..., 1:]), "Expected 5, got 4"),
    "another device": (lambda m: m(X.to("meta")), "not for meta"),
    "a state's rows": (lambda m: m(X, states(ROWS, 2, UNITS)), r"h_0 has shape \[4, 2, 7\]"),
    "a state's layers": (lambda m: m(X, states(5, B, UNITS)), r"expected \[4, 3, 7\]"),
    "a state's axes": (lambda m: m(X, states(ROWS, UNITS)), r"h_0 has shape \[4, 7\]"),
    "a state's dtype": (lambda m: m(X, [t.float() for t in states(ROWS, B, UNITS)]), "make them"),
    "one state": (lambda m: m(X, states(ROWS, B, UNITS)[:1]), "pair of tensors"),
    "packed features": (lambda m: m(pack_padded_sequence(X[..., 1:], [4, 2, 1])), "Expected 5"),
    "packed dtype": (lambda m: m(pack_padded_sequence(X.float(), [4, 2, 1])), "weight dtype"),
    "packed states": (
        lambda m: m(pack_padded_sequence(X, [4, 2, 1]), states(ROWS, 2, UNITS)),
        r"h_0 has shape \[4, 2, 7\]",
    ),
    "an input that was changed": (changed("x"), "modified by an inplace operation"),
    "a state that was changed": (changed("h"), "modified by an inplace operation"),
    "a weight that was changed": (changed("weight"), "modified by an inplace operation"),
    "a second backward": (back_twice, "backward through the graph a second time"),
    "layers that have no weights": (
        lambda m: turned(m, "num_layers", 3, X),
        "LSTM of 3 layers in 2 directions, bias=True, has weights weight_ih_l0",
    ),
    "fewer layers than weights": (lambda m: turned(m, "num_layers", 1, X), "make another one"),
    "no bias of one that has": (lambda m: turned(m, "bias", False, X), "make another one"),
    "an argument of none": (lambda m: m(X, h0=None), "h0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_both_refuse(what: str, pair: tuple[Any, Any]) -> None:
    call, words = REFUSED[what]
    with pytest.raises((TypeError, ValueError, RuntimeError, AttributeError, IndexError)):
        call(pair[0])
    with pytest.raises((TypeError, ValueError, RuntimeError), match=words):
        call(pair[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_layer": 2}, "num_layer"),
        ({"num_layers": 0}, "num_layers must be greater than zero"),
        ({"num_layers": "2"}, "num_layers should be of type int, got: str"),
        ({"hidden_size": 2.0}, "hidden_size should be of type int"),
        ({"dropout": 2}, r"dropout should be a number in range \[0, 1\]"),
        ({"bias": 1}, "bias should be of type bool"),
        ({"batch_first": "yes"}, "batch_first should be of type bool"),
        ({"proj_size": 9}, "proj_size has to be smaller than hidden_size"),
        ({"proj_size": 1.5}, "proj_size should be of type int"),
        ({"dtype": torch.int32}, "floating point"),
        ({"dtype": "float32"}, r"torch\.dtype"),
        ({"precision": "float16"}, "precision is one of"),
        ({"weights": "int4"}, "weights is 'float32'"),
        ({"weights": "int8", "dtype": torch.float64}, "narrows weights of float32"),
    ],
    ids=str,
)
def test_constructors_refuse(arguments: dict[str, Any], words: str) -> None:
    given = {"input_size": 5, "hidden_size": 7, **arguments}
    if not {"precision", "weights"} & given.keys():
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            torch.nn.LSTM(**given)
    with pytest.raises((TypeError, ValueError, RuntimeError), match=words):
        ours.LSTM(**given)


def test_signatures_are_written_out() -> None:
    """As torch documents them: editors and type checkers see a wrong name."""
    common = [
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
    ]
    right = {
        "LSTM": [*common, "proj_size", "device", "dtype"],
        "GRU": [*common, "device", "dtype"],
        "RNN": [*common[:3], "nonlinearity", *common[3:], "device", "dtype"],
    }
    for name, expected in right.items():
        parameters = inspect.signature(getattr(ours, name)).parameters.values()
        assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == expected
    with pytest.raises(ValueError, match="proj_size is an argument of LSTM alone"):
        ours.GRU(3, 5, proj_size=2)


def test_what_looks_for_torchs_modules_finds_ours() -> None:
    """By their base: torch.compile refuses what is of torch.nn.LSTM."""
    for name in ("LSTM", "GRU", "RNN"):
        own = getattr(ours, name)(3, 5)
        assert isinstance(own, torch.nn.RNNBase) and own.mode == getattr(torch.nn, name)(3, 5).mode
        assert isinstance(getattr(ours, f"{name}Cell")(3, 5), getattr(torch.nn, f"{name}Cell"))


# ---- what torch's have not -----------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_are_as_packed_and_padded_again(batch_first: bool) -> None:
    theirs, own = made(torch.nn, batch_first=batch_first), made(ours, batch_first=batch_first)
    x = drawn(B, T, FEATURES) if batch_first else X
    found, right = [], []
    for lengths in ([2, 4, 1], [3, 3, 3]):
        leaf, other = (x.clone().requires_grad_() for _ in range(2))
        hx = states(ROWS, B, UNITS)
        y, last = own(leaf, hx, lengths=torch.tensor(lengths))
        packed = pack_padded_sequence(other, lengths, batch_first, enforce_sorted=False)
        padded, their_last = theirs(packed, hx)
        whole, _ = pad_packed_sequence(padded, batch_first, total_length=T)
        for results, given, module, into in (
            ((y, last), leaf, own, found),
            ((whole, their_last), other, theirs, right),
        ):
            loss = sum(t.sin().sum() for t in tensors(results))
            grads = torch.autograd.grad(loss, [given, *module.parameters()])
            into += [*tensors(results), *grads]
    torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-10)


def test_rows_of_no_steps(pair: tuple[Any, Any]) -> None:
    """torch packs none: last states are those it began with, outputs zeros."""
    own = pair[1]
    h, c = states(ROWS, B, UNITS)
    y, (last_h, last_c) = own(X, (h, c), lengths=[0, 4, 0])
    assert torch.equal(last_h[:, ::2], h[:, ::2]) and torch.equal(last_c[:, ::2], c[:, ::2])
    assert not y[:, ::2].any() and y[:, 1].all()
    torch.testing.assert_close(y[:, 1:2], own(X[:, 1:2], (h[:, 1:2], c[:, 1:2]))[0])
    nothing, _ = own(X, lengths=[0, 0, 0])
    assert not nothing.any()
    alone, _ = own(X[:, 0], lengths=2)
    torch.testing.assert_close(alone[:2], own(X[:2, 0])[0])
    assert not alone[2:].any()


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([1, 2], r"lengths has shape \[2\], expected \[batch=3\]"),
        ([1, 2, 5], r"lengths\[2\] is 5: a length is in 0 ... 4"),
        ([1, -2, 3], r"lengths\[1\] is -2"),
        (torch.ones(3), "lengths holds float32 values"),
        ([[1, 2, 3]], "expected"),
    ],
)
def test_wrong_lengths(lengths: Any, words: str, pair: tuple[Any, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        pair[1](X, lengths=lengths)
    with pytest.raises(TypeError, match="lengths of a PackedSequence are its own"):
        pair[1](pack_sequence([X[:, 0]]), lengths=[4])


@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
def test_narrow_weights(weights: str) -> None:
    whole = ours.GRU(FEATURES, 33)
    narrow = ours.GRU(FEATURES, 33, weights=weights)
    narrow.load_state_dict(whole.state_dict())
    x = X.float()
    with torch.no_grad():
        apart = (narrow(x)[0] - whole(x)[0]).abs().max()
    assert 0 < apart < 0.05
    assert f"weights of {weights}" in narrow.plan()
    torch.testing.assert_close(narrow(x)[0], whole(x)[0])  # gradients are of the whole weights
    narrow.weights = "float32"
    with torch.no_grad():
        assert torch.equal(narrow(x)[0], whole(x)[0])
    with pytest.raises(ValueError, match="weights is"):
        narrow.weights = "int4"
    assert narrow.weights == "float32"


# ---- threads and processes -----------------------------------------------------------------------


def test_many_threads(pair: tuple[Any, Any]) -> None:
    own = pair[1]
    inputs = [drawn(T, 1 + seed % B, FEATURES, seed=seed) for seed in range(12)]
    right = [[t.clone() for t in tensors(trained(own, x))] for x in inputs]

    def run(number: int) -> bool:
        found = tensors(trained(own, inputs[number % len(inputs)]))
        return all(map(torch.equal, found, right[number % len(inputs)]))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(60)))


class Encoded(torch.utils.data.Dataset):
    """A data set whose items are a module's results: workers call it."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> Any:
        with torch.no_grad():
            return self.module(drawn(T, FEATURES, seed=number))[0]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_in_workers_of_a_data_loader(start: str, pair: tuple[Any, Any]) -> None:
    data = Encoded(pair[1])
    right = torch.stack([data[n] for n in range(len(data))])  # its threads run before the fork
    loader = torch.utils.data.DataLoader(data, 3, num_workers=2, multiprocessing_context=start)
    assert torch.equal(torch.cat([*loader]), right)
