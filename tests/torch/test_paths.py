"""rnncc.torch's calls that are like earlier ones: the long way's bits, what they keep, and what
hooks on saved tensors, checkpoints and vmap do with them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence  # noqa: E402

import rnncc.torch as ours  # noqa: E402
from rnncc.torch import packed, paths, recurrence  # noqa: E402
from rnncc.torch.packed import PackedRows  # noqa: E402


def recurrence_of(module: Any) -> Any:
    """Modules of one kind share it, and its paths."""
    return module._recurrence if hasattr(module, "_recurrence") else module._recurrences[0]


def paths_of(module: Any) -> list[Any]:
    return [*recurrence_of(module)._paths.values()]


KINDS: dict[str, Callable[[], Any]] = {
    "batch first": lambda: ours.LSTM(5, 17, batch_first=True),
    "time first": lambda: ours.GRU(5, 17),
    "last": lambda: ours.Recurrent("lstm", units=17, input_size=5),
    "dropout": lambda: ours.Recurrent(
        "gru", units=17, input_size=5, return_sequences=True, dropout=0.5, recurrent_dropout=0.3
    ),
    "time first, masked": lambda: ours.Recurrent(
        "lstm", units=17, input_size=5, return_sequences=True, time_major=True
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_of_the_long_way(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, gradients and second derivatives, in training and without; x a view or not."""
    made = KINDS[kind]()
    recurrence_of(made)._paths.clear()  # what other tests have left
    masked = "masked" in kind
    lengths = {"lengths": torch.tensor([4, 2, 1, 4])} if masked else {}
    xs = [torch.randn(4, 4, 5), torch.randn(4, 4, 8)[..., 1:6], torch.randn(4, 4, 5)]

    def results() -> list[Any]:
        found = []
        for x in [*xs, *xs]:
            torch.manual_seed(2)
            leaf = x.detach().requires_grad_()
            y = made(leaf, **lengths)
            y = y if isinstance(y, torch.Tensor) else y[0]
            inputs = [leaf, *made.parameters()]
            grads = torch.autograd.grad(y.square().sum(), inputs, retain_graph=True)
            few = torch.autograd.grad(y.sum(), inputs[1:2], retain_graph=True)
            (slope,) = torch.autograd.grad(y.sum(), leaf, create_graph=True)
            second = torch.autograd.grad(slope.square().sum(), inputs, allow_unused=True)
            with torch.no_grad():
                torch.manual_seed(2)
                again = made(x, **lengths)
                again = again if isinstance(again, torch.Tensor) else again[0]
            found += [y, again, *grads, *few, *[t for t in second if t is not None]]
        return found

    found = results()
    assert len(paths_of(made)) == 4  # of two kinds of x, in training and without
    monkeypatch.setattr(recurrence.Recurrence, "_keep_path", lambda *arguments: None)
    recurrence_of(made)._paths.clear()
    for a, b in zip(found, results(), strict=True):
        assert torch.equal(a, b)
    assert not paths_of(made)


def test_states_and_tensors_that_changed_their_kind() -> None:
    layer = ours.LSTM(3, 5, batch_first=True)
    x, hx = torch.randn(2, 4, 3), tuple(torch.randn(1, 2, 5) for _ in "hc")
    first = layer(x, hx)
    for _ in range(2):
        leaves = [t.clone().requires_grad_() for t in (x, *hx)]
        y, (h, c) = layer(leaves[0], tuple(leaves[1:]))
        assert torch.equal(y, first[0]) and torch.equal(c, first[1][1])
        grads = torch.autograd.grad(y.sum() + (h * c).sum(), leaves)
        assert [g.shape for g in grads] == [t.shape for t in leaves]
    with pytest.raises(ValueError, match=r"x|input"):
        layer(x.double())
    turned = torch.randn(2, 4, 3, dtype=torch.complex64).conj().imag
    assert turned.is_neg()  # of the shape and strides of a view that was read before
    layer(torch.randn(2, 4, 3, 2)[..., 1])
    assert torch.equal(layer(turned)[0], layer(turned.resolve_neg())[0])


def test_a_plan_tells_of_the_last_call() -> None:
    layer = ours.LSTM(3, 5, batch_first=True)
    for batch in (2, 3, 2):
        layer(torch.randn(batch, 4, 3))
        layer(torch.randn(batch, 4, 3))
        assert f"forward: batch {batch}, time 4" in layer.plan()


@pytest.mark.parametrize("units", [5, 300])  # compared, and from 1 MB on packed anew in training
@pytest.mark.parametrize("turned", [False, True])
def test_numbers_written_past_torchs_counters_are_seen(units: int, turned: bool) -> None:
    """In training or not, whenever the numbers were last looked at; weights in one piece or not."""
    theirs, own = torch.nn.LSTM(8, units), ours.LSTM(8, units)
    own.load_state_dict(theirs.state_dict())
    if turned:
        own.weight_hh_l0.data = own.weight_hh_l0.data.t().contiguous().t()
    x = torch.randn(3, 2, 8)
    for training, written in zip("1100010001101", "1001000110010", strict=True):
        with torch.set_grad_enabled(training == "1"):
            torch.testing.assert_close(own(x)[0], theirs(x)[0], rtol=1e-5, atol=1e-5)
        if written == "1":
            for module in (theirs, own):
                module.weight_hh_l0.data.mul_(0.5)


# ---- what is kept --------------------------------------------------------------------------------


def kept_memory(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Weak references to what kernels save from now on."""
    seen: list[Any] = []

    def new(shape: Any, dtype: Any, torch_dtype: Any) -> Any:
        made = fresh(shape, dtype, torch_dtype)
        if torch_dtype is torch.uint8:
            seen.append(weakref.ref(made))
        return made

    fresh = paths.new
    monkeypatch.setattr(paths, "new", new)
    return seen


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_keep_nothing_and_compute_the_same(
    reentrant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = ours.LSTM(5, 17, batch_first=True)
    x = torch.randn(3, 4, 5, requires_grad=True)
    layer(x)
    inputs = [x, *layer.parameters()]
    right = torch.autograd.grad(layer(x)[0].square().sum(), inputs)
    seen = kept_memory(monkeypatch)
    y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant)[0]
    gc.collect()
    assert not any(r() is not None for r in seen)
    loss = y.square().sum()
    if reentrant:
        loss.backward()
        found = [t.grad for t in inputs]
    else:
        found = torch.autograd.grad(loss, inputs)
    assert all(map(torch.equal, found, right))
    assert seen and any(seen)


def test_what_is_saved_goes_with_the_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = ours.GRU(5, 17), torch.randn(3, 4, 5)
    layer(x)
    seen = kept_memory(monkeypatch)
    y = layer(x)[0]
    (kept,) = seen
    assert kept() is not None
    y.sum().backward()
    gc.collect()
    assert kept() is None and y.grad_fn is not None


def test_saved_tensors_may_be_moved_away_and_back() -> None:
    layer, x = ours.LSTM(5, 17), torch.randn(3, 4, 5, requires_grad=True)
    layer(x)
    inputs = [x, *layer.parameters()]
    right = torch.autograd.grad(layer(x)[0].square().sum(), inputs)
    with torch.autograd.graph.save_on_cpu():
        y = layer(x)[0]
    found = torch.autograd.grad(y.square().sum(), inputs)
    assert all(map(torch.equal, found, right))


# ---- many cotangents at once ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["one way", "both", "packed"])
def test_batched_cotangents(kind: str) -> None:
    double = {"dtype": torch.float64}
    layer = ours.GRU(3, 5, bidirectional=kind == "both", **double)
    x = torch.randn(4, 2, 3, requires_grad=True, **double)
    for _ in range(2):  # the second time on a path
        if kind == "packed":
            y = layer(pack_padded_sequence(x, [4, 2]))[0].data
        else:
            y = layer(x)[0]
        inputs = [x, *layer.parameters()]
        d = torch.randn(3, *y.shape, **double)
        for graph in (False, True):
            how = {"retain_graph": True, "create_graph": graph}
            found = torch.autograd.grad(y, inputs, d, is_grads_batched=True, **how)
            rows = [torch.autograd.grad(y, inputs, d_i, **how) for d_i in d]
            right = [torch.stack(column) for column in zip(*rows, strict=True)]
            assert all(map(torch.equal, found, right))
            mapped = torch.func.vmap(lambda v, y=y: torch.autograd.grad(y, x, v, **HOW)[0])(d)
            assert torch.equal(mapped, right[0])
        again, expected = (
            torch.autograd.grad(sum(t.square().sum() for t in ts), inputs, **HOW)
            for ts in (found, right)
        )
        torch.testing.assert_close(again, expected)


HOW = {"retain_graph": True}


def test_a_vectorized_jacobian() -> None:
    layer = ours.LSTM(2, 3, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 3, 2, dtype=torch.float64)
    found, right = (
        torch.autograd.functional.jacobian(lambda x: layer(x)[0].sum(1), x, vectorize=vectorize)
        for vectorize in (True, False)
    )
    assert torch.equal(found, right)


# ---- packed rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(3, 3, 2, 1), (1,), (4, 4), (5, 1, 1), (2, 1)])
def test_rows_there_and_back(sizes: tuple[int, ...]) -> None:
    rows, count = PackedRows(sizes), sum(sizes)
    data = torch.arange(1.0, 1 + count * 6).reshape(count, 2, 3)
    whole = rows.pad(data, clear=True)
    lengths = [sum(n > b for n in sizes) for b in range(sizes[0])]
    right, _ = torch.nn.utils.rnn.pad_packed_sequence(PackedSequence(data, torch.tensor(sizes)))
    turned = whole.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(whole, right) and torch.equal(rows.pack(turned), data)
    found = rows.pack(whole)
    assert torch.equal(found, data) and found.data_ptr() == whole.data_ptr()
    alike = len(set(lengths)) == 1
    assert (rows.lengths is None) if alike else rows.lengths.tolist() == lengths


def test_packed_rows_share_kernels_and_weights_with_padded_ones() -> None:
    layer = ours.LSTM(5, 9, batch_first=True)
    x = torch.randn(3, 4, 5)
    lengths = torch.tensor([4, 3, 1])
    for _ in range(3):
        y = layer(pack_padded_sequence(x, lengths, batch_first=True))[0]
    whole = layer(x)[0]
    for row, length in enumerate(lengths):
        at = [int(y.batch_sizes[:t].sum()) + row for t in range(length)]
        torch.testing.assert_close(y.data[at], whole[row, :length])
    inner = recurrence.by_steps(layer._recurrences[0])
    assert inner.kernels is layer._recurrences[0].kernels and inner._paths
    assert packed.rows_of(y.batch_sizes) is packed.rows_of(y.batch_sizes.clone())


def test_what_stands_where_no_row_is_reaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ours.GRU(5, 9)
    x = torch.randn(4, 3, 5, requires_grad=True)

    def results() -> list[Any]:
        y, h = layer(pack_padded_sequence(x, [4, 2, 1]))
        return [y.data, h, *torch.autograd.grad(y.data.sum(), [x, *layer.parameters()])]

    right = results()
    fresh = packed.new
    monkeypatch.setattr(packed, "new", lambda *a: fresh(*a).fill_(float("nan")))
    for _ in range(2):
        assert all(map(torch.equal, results(), right))
