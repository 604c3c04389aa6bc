"""rnncc.torch and tensors that aren't plain memory: torch's numbers, or a refusal with words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses import FakeTensorMode  # noqa: E402
from torch.nn.utils.rnn import PackedSequence  # noqa: E402
from torch.utils._pytree import tree_map  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import rnncc.torch as ours  # noqa: E402

DOUBLE = {"dtype": torch.float64}
T, B, FEATURES, UNITS = 4, 2, 2, 3
Call = Callable[[Any], Any]


def drawn(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def pair() -> tuple[Any, Any]:
    theirs = torch.nn.GRU(FEATURES, UNITS, **DOUBLE)
    own = ours.GRU(FEATURES, UNITS, **DOUBLE)
    own.load_state_dict(theirs.state_dict())
    return theirs, own


def with_weights(module: Any, change: Call, x: Any) -> Any:
    weights = {n: change(p.detach()) for n, p in module.named_parameters()}
    return torch.func.functional_call(module, weights, (x,))[0]


# ---- read ----------------------------------------------------------------------------------------


def negative(*shape: int) -> Any:
    """A view whose signs torch has yet to turn."""
    found = torch.complex(drawn(*shape), drawn(*shape, seed=1)).conj().imag
    assert found.is_neg()
    return found


def _cotangent(module: Any, d: Any) -> Any:
    x = drawn(T, B, FEATURES).requires_grad_()
    return torch.autograd.grad(module(x)[0], x, d)[0]


def _packed(module: Any, x: Any) -> Any:
    return module(PackedSequence(x, torch.tensor([2, 1, 1])))[0].data


def _packed_cotangent(module: Any) -> Any:
    x = drawn(4, FEATURES).requires_grad_()
    y = _packed(module, x)
    return torch.autograd.grad(y, x, negative(*y.shape))[0]


def _same_memory(module: Any) -> Any:
    x = drawn(T, B, FEATURES)
    signs = [lambda p: p, lambda p: p._neg_view(), lambda p: p]
    return torch.stack([with_weights(module, s, x) for s in signs])


READ: dict[str, Call] = {
    "an input's signs": lambda m: m(negative(T, B, FEATURES))[0],
    "a state's signs": lambda m: m(drawn(T, B, FEATURES), negative(1, B, UNITS))[0],
    "a cotangent's signs": lambda m: _cotangent(m, negative(T, B, UNITS)),
    "packed signs": lambda m: _packed(m, negative(4, FEATURES)),
    "a packed cotangent's signs": _packed_cotangent,
    "weights' signs": lambda m: with_weights(
        m, lambda p: negative(*p.shape), drawn(T, B, FEATURES)
    ),
    "weights and their negatives": _same_memory,
    "an expanded input": lambda m: m(drawn(1, 1, FEATURES).expand(T, B, FEATURES))[0],
    "expanded weights": lambda m: with_weights(
        m, lambda p: drawn(*(1,) * p.ndim).expand(p.shape), drawn(T, B, FEATURES)
    ),
    "turned": lambda m: m(drawn(T, B, FEATURES).flip(0))[0],
    "transposed": lambda m: m(drawn(B, T, FEATURES).transpose(0, 1))[0],
    "strides as the signs' had": lambda m: m(drawn(T, B, 2 * FEATURES)[..., ::2])[0],
    "a cotangent with such strides": lambda m: _cotangent(m, drawn(T, B, 2 * UNITS)[..., ::2]),
    "no rows": lambda m: m(drawn(T, 0, FEATURES))[0],
}


@pytest.mark.parametrize("what", READ)
def test_read(what: str) -> None:
    """The first call of a kind, and those that follow."""
    theirs, own = pair()
    for _ in range(3):
        torch.testing.assert_close(READ[what](own), READ[what](theirs), rtol=1e-12, atol=1e-12)


def test_a_class_of_tensors_stays_itself() -> None:
    class Named(torch.Tensor):
        pass

    theirs, own = pair()
    x = drawn(T, B, FEATURES).as_subclass(Named)
    found = own(x)[0]
    assert type(found) is Named
    torch.testing.assert_close(found, theirs(x)[0])


# ---- refused -------------------------------------------------------------------------------------


class Wrapped(torch.Tensor):
    """A tensor that stands for another one."""

    @staticmethod
    def __new__(cls, inner: Any) -> Any:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, strides=inner.stride()
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        plain = tree_map(lambda t: t.inner if isinstance(t, cls) else t, (args, kwargs or {}))
        return tree_map(
            lambda t: cls(t) if isinstance(t, torch.Tensor) else t, function(*plain[0], **plain[1])
        )


def fake(t: Any) -> Any:
    return FakeTensorMode().from_tensor(t)


ODD: dict[str, Call] = {
    "sparse_coo": lambda t: t.to_sparse(),
    "sparse_csr": lambda t: t.to_sparse_csr(),
    "FakeTensor": fake,
    "Wrapped": Wrapped,
    "on meta": lambda t: t.to("meta"),
}


@pytest.mark.parametrize("what", ODD)
def test_refused(what: str) -> None:
    """As a state or a weight, and as an input that isn't of a graph; after calls that were right
    as before them."""
    layer, odd = pair()[1], ODD[what]
    x, h = drawn(T, B, FEATURES), drawn(1, B, UNITS)
    weight = odd(layer.weight_hh_l0.detach())
    calls: dict[str, Callable[[], Any]] = {
        "h": lambda: layer(x, odd(h)),
        "weight_hh": lambda: torch.func.functional_call(layer, {"weight_hh_l0": weight}, (x,)),
    }
    if what.startswith("sparse"):
        calls["x"] = lambda: layer(odd(x))
    with torch.no_grad():
        for _ in range(2):
            for name, call in calls.items():
                with pytest.raises(TypeError, match=f"{name} of GRU is .*{what}"):
                    call()
            layer(x, h)
            layer(x)


def test_other_numbers_are_refused() -> None:
    layer, x = pair()[1], drawn(T, B, FEATURES)
    quantized = torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8)
    for odd in (x.float(), x.long(), x + 0j, quantized):
        with pytest.raises(ValueError, match="does not match weight dtype"):
            layer(odd)
        with pytest.raises(TypeError, match=r"h of GRU is .*: make them agree"):
            layer(x, odd.reshape(-1)[: B * UNITS].reshape(1, B, UNITS))


# ---- hooks on what is saved ----------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_a_checkpoint_around_the_first_call_of_a_kind(packed: bool) -> None:
    """What is dropped is made again by a second call, which saves as many tensors."""
    layers = torch.nn.ModuleList([ours.GRU(2, 3, **DOUBLE), ours.GRU(3, 3, **DOUBLE)])
    x = drawn(11 + packed, 13, 2).requires_grad_()  # no other test has these shapes

    def run(x: Any) -> Any:
        if packed:
            x = PackedSequence(x.flatten(0, 1), torch.tensor([13] * (11 + packed)))
        for layer in layers:
            x = layer(x)[0]
        return x.data if packed else x

    def gradient(y: Any) -> Any:
        return torch.autograd.grad(y.square().sum(), [x, *layers.parameters()])

    found = [gradient(checkpoint(run, x, use_reentrant=False)) for _ in range(2)]
    right = gradient(run(x))
    for other in found:
        assert all(map(torch.equal, other, right))
