"""rnncc.torch under autocast, and modules of bfloat16 and float16: float32 inside, rounded once."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence  # noqa: E402

import rnncc.torch as ours  # noqa: E402

T, B, FEATURES, UNITS = 4, 2, 3, 5
NARROW = [torch.bfloat16, torch.float16]


def drawn(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def flat(result: Any) -> list[Any]:
    if isinstance(result, PackedSequence):
        return [result.data]
    if isinstance(result, torch.Tensor):
        return [result]
    return [t for part in result for t in flat(part)]


def with_gradients(module: Any, results: list[Any]) -> list[Any]:
    loss = sum(((n + 1) * r.to(torch.float64)).square().sum() for n, r in enumerate(results))
    return [*results, *torch.autograd.grad(loss, [*module.parameters()])]


def near(found: Any, exact: Any, dtype: Any, roundings: float) -> None:
    """Of this dtype, and so many of its roundings from numbers of float64."""
    assert len(found) == len(exact)
    step = torch.finfo(dtype).eps
    for own, other in zip(found, exact, strict=True):
        assert own.dtype is dtype
        scale = max(1.0, float(other.detach().abs().max()))
        assert float((own.double() - other).detach().abs().max()) <= roundings * step * scale


# ---- modules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("made", ["constructed", "moved"])
def test_a_narrow_module(dtype: Any, made: str) -> None:
    """torch's layer in float64, with the same rounded numbers, is what both are near to."""
    if made == "constructed":
        own = ours.GRU(FEATURES, UNITS, 2, bidirectional=True, dtype=dtype)
    else:
        own = ours.GRU(FEATURES, UNITS, 2, bidirectional=True).to(dtype)
    exact = torch.nn.GRU(FEATURES, UNITS, 2, bidirectional=True).double()
    exact.load_state_dict({n: t.double() for n, t in own.state_dict().items()})
    x, h = drawn(T, B, FEATURES).to(dtype), drawn(4, B, UNITS).to(dtype)
    for _ in range(2):
        found = with_gradients(own, flat(own(x, h)))
    wanted = with_gradients(exact, flat(exact(x.double(), h.double())))
    near(found, wanted, dtype, 4)
    packed = PackedSequence(drawn(5, FEATURES).to(dtype), torch.tensor([2, 2, 1]))
    double = PackedSequence(packed.data.double(), packed.batch_sizes)
    near(flat(own(packed)), flat(exact(double)), dtype, 2)
    assert "float32" in own.plan()


@pytest.mark.parametrize("dtype", NARROW)
def test_any_cell_in_a_narrow_dtype(dtype: Any) -> None:
    keywords = {"input_size": FEATURES, "units": UNITS, "return_state": True}
    own = ours.Recurrent("gru", dtype=dtype, **keywords)
    exact = ours.Recurrent("gru", dtype=torch.float64, **keywords)
    exact.load_state_dict({n: t.double() for n, t in own.state_dict().items()})
    x = drawn(B, T, FEATURES).to(dtype)
    mask = torch.tensor([[True] * T, [True, False, True, False]])
    start = drawn(B, UNITS, seed=1).to(dtype)
    found = own(x, mask=mask, initial_state=start)
    wanted = exact(x.double(), mask=mask, initial_state=start.double())
    near(flat(found), flat(wanted), dtype, 1)


def test_only_rounding_is_lost() -> None:
    """Sums are of float32: long rows of small terms, which bfloat16 would stop adding up."""
    own = ours.RNN(1000, 2, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        own.weight_ih_l0.fill_(2.0**-11)
        own.weight_hh_l0.zero_()
    y, _ = own(torch.ones(1, 1, 1000, dtype=torch.bfloat16))
    near([y], [torch.tanh(torch.full((1, 1, 2), 1000 / 2048, dtype=torch.float64))], y.dtype, 1)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.float8_e4m3fn])
@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: ours.LSTM(FEATURES, UNITS, dtype=dtype),
        lambda dtype: ours.Recurrent("gru", units=UNITS, input_size=FEATURES, dtype=dtype),
    ],
)
def test_a_dtype_without_kernels_is_refused_at_once(make: Any, dtype: Any) -> None:
    # torch's own words are for numbers that can't be trained or drawn.
    words = "kernels for torch.float32 and torch.float64|floating point|not implemented for"
    with pytest.raises((TypeError, RuntimeError, NotImplementedError), match=words):
        make(dtype)


def test_other_numbers_beside_narrow_weights_are_refused() -> None:
    own = ours.GRU(FEATURES, UNITS, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"bfloat16"):  # torch's words
        own(drawn(T, B, FEATURES))
    x = drawn(T, B, FEATURES).bfloat16()
    with pytest.raises(TypeError, match=r"h of .* is torch.float32, the module's weights are"):
        own(x, drawn(1, B, UNITS))
    cell = ours.Recurrent("gru", units=UNITS, input_size=FEATURES, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match=r"x of GRU is torch.float16, the module's weights are"):
        cell(x.half().transpose(0, 1))


# ---- autocast ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_autocast(name: str) -> None:
    """Results in autocast's dtype as torch's LSTM and RNN; sums are of float32, rounded once."""
    theirs = getattr(torch.nn, name)(FEATURES, UNITS)
    own = getattr(ours, name)(FEATURES, UNITS)
    own.load_state_dict(theirs.state_dict())
    exact = getattr(torch.nn, name)(FEATURES, UNITS).double()
    exact.load_state_dict({n: t.double() for n, t in own.state_dict().items()})
    for kind in (torch.float32, torch.bfloat16):
        x = drawn(T, B, FEATURES).to(kind)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, other = flat(own(x)), flat(theirs(x))
        if name != "GRU":  # torch's stays in float32
            assert [t.dtype for t in found] == [t.dtype for t in other]
        near(found, flat(exact(x.double())), torch.bfloat16, 1)
    gradients = with_gradients(own, found)[len(found) :]
    assert {g.dtype for g in gradients} == {torch.float32}
    wanted = with_gradients(exact, flat(exact(x.double())))[len(found) :]
    for g, w in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(g.double(), w, rtol=0.02, atol=0.02)


def test_autocast_of_packed_rows_states_and_float64() -> None:
    own = ours.LSTM(FEATURES, UNITS)
    packed = PackedSequence(drawn(5, FEATURES), torch.tensor([2, 2, 1]))
    x, states = drawn(T, B, FEATURES), tuple(drawn(2, 1, B, UNITS))
    double = ours.GRU(FEATURES, UNITS, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [*flat(own(packed)), *flat(own(x, states))]
        assert {t.dtype for t in found} == {torch.bfloat16}
        assert {t.dtype for t in flat(double(x.double()))} == {torch.float64}
        with torch.autocast("cpu", enabled=False):
            assert own(x)[0].dtype is torch.float32
    torch.testing.assert_close(found[0], own(packed)[0].data.bfloat16())
    torch.testing.assert_close(found[3], own(x, states)[0].bfloat16())


def test_autocast_under_a_compiler() -> None:
    own = ours.GRU(FEATURES, UNITS)
    compiled = torch.compile(own, backend="aot_eager", fullgraph=True)
    x = drawn(T, B, FEATURES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, wanted = compiled(x)[0], own(x)[0]
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found, wanted)
