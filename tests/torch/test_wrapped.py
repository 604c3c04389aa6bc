"""rnncc.torch in what torch wraps around modules: shards, averages, parametrizations, copies."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.utils.prune as prune  # noqa: E402
from torch.nn.utils import parametrizations, parametrize  # noqa: E402
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import rnncc.torch as ours  # noqa: E402
from rnncc.torch.arrays import array_of  # noqa: E402

DOUBLE = {"dtype": torch.float64}
T, B, FEATURES, UNITS = 4, 2, 2, 3
Call = Callable[[Any], list[Any]]


def drawn(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def pair() -> tuple[Any, Any]:
    torch.manual_seed(0)
    theirs = torch.nn.GRU(FEATURES, UNITS, **DOUBLE)
    own = ours.GRU(FEATURES, UNITS, **DOUBLE)
    own.load_state_dict(theirs.state_dict())
    return theirs, own


def trained(module: Any) -> list[Any]:
    """Losses and parameters of some steps."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for step in range(3):
        optimizer.zero_grad()
        y, h = module(drawn(T, B, FEATURES, seed=step))
        loss = y.square().sum() + h.sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    parameters = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in module.parameters()]
    return [*losses, *[p.detach() for p in parameters]]


class Twice(torch.nn.Module):
    def forward(self, weight: Any) -> Any:
        return 2 * weight


def parametrized(module: Any) -> Any:
    parametrize.register_parametrization(module, "weight_hh_l0", Twice())
    return module


def pruned(module: Any, *, whole: bool = False) -> Any:
    prune.l1_unstructured(module, "weight_hh_l0", amount=0.4)
    if whole:
        prune.remove(module, "weight_hh_l0")
    return module


def normed(module: Any, norm: Any) -> Any:
    """torch's layer looks at a weight twice in a call, which in training is a step each of what
    finds the norm; the first ones make that no difference."""
    torch.manual_seed(0)
    wrapped = norm(module, "weight_hh_l0")
    with torch.no_grad():
        for _ in range(300):
            wrapped(drawn(T, B, FEATURES))
    return wrapped.eval()


def averaged(module: Any) -> list[Any]:
    mean = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(3):
        trained(module)
        mean.update_parameters(module)
    return [mean(drawn(T, B, FEATURES))[0]]


def checkpointed(module: Any, again: bool) -> list[Any]:
    x = drawn(T, B, FEATURES).requires_grad_()
    y, h = checkpoint(module, x, use_reentrant=again)
    (y.square().sum() + h.sum()).backward()
    return [y, x.grad, *[p.grad for p in module.parameters()]]


def called_with(module: Any) -> list[Any]:
    weights = {n: (p * 2).detach().requires_grad_() for n, p in module.named_parameters()}
    y, _ = torch.func.functional_call(module, weights, (drawn(T, B, FEATURES),))
    return [y, *torch.autograd.grad(y.square().sum(), [*weights.values()])]


def shared(module: Any) -> list[Any]:
    module.share_memory()
    assert all(p.is_shared() for p in module.parameters())
    found = trained(module)
    assert all(p.is_shared() for p in module.parameters())
    return found


def shown_by_hooks(module: Any) -> list[Any]:
    seen: list[Any] = []
    module.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    module.register_forward_hook(lambda m, args, out: (out[0] + 1, out[1]))
    module.register_full_backward_hook(lambda m, given, handed: seen.extend(given))
    x = drawn(T, B, FEATURES).requires_grad_()
    y, h = module(x)
    (y.square().sum() + h.sum()).backward()
    return [y, h, x.grad, *seen]


WRAPPED: dict[str, Call] = {
    "parametrized": lambda m: trained(parametrized(m)),
    "pruned": lambda m: trained(pruned(m)),
    "pruned for good": lambda m: trained(pruned(m, whole=True)),
    "spectral norm": lambda m: trained(normed(m, parametrizations.spectral_norm)),
    "old spectral norm": lambda m: trained(normed(m, torch.nn.utils.spectral_norm)),
    "weight norm": lambda m: trained(normed(m, parametrizations.weight_norm)),
    "deepcopy": lambda m: trained(copy.deepcopy(m)),
    "pickle": lambda m: trained(pickle.loads(pickle.dumps(m))),
    "average": averaged,
    "checkpoint": lambda m: checkpointed(m, False),
    "reentrant checkpoint": lambda m: checkpointed(m, True),
    "functional_call": called_with,
    "share_memory": shared,
    "hooks": shown_by_hooks,
}


@pytest.mark.parametrize("how", WRAPPED)
def test_as_torch(how: str) -> None:
    theirs, own = pair()
    wanted, found = WRAPPED[how](theirs), WRAPPED[how](own)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_a_parametrized_copy() -> None:
    """Of which torch has none once its layer has run."""
    own = parametrized(pair()[1])
    x = drawn(T, B, FEATURES)
    wanted = own(x)
    torch.testing.assert_close(copy.deepcopy(own)(x), wanted)


# ---- several processes, of which this is one -----------------------------------------------------


@pytest.fixture
def alone(tmp_path: Any) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("how", ["shards", "replicas"])
def test_distributed(how: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    def wrapped(module: Any) -> Any:
        if how == "replicas":
            return torch.nn.parallel.DistributedDataParallel(module)
        return fully_shard(module, mesh=init_device_mesh("cpu", (1,)))

    theirs, own = pair()
    wanted, found = trained(wrapped(theirs)), trained(wrapped(own))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_tensor_keeps_the_right_to_give_its_memory_back() -> None:
    """fully_shard does so between calls; Tensor.numpy would take it."""
    module, x = ours.GRU(FEATURES, UNITS, **DOUBLE), drawn(T, B, FEATURES)
    module(x)[0].sum().backward()
    for t in (x, *module.parameters()):
        t.untyped_storage().resize_(0)
    assert x.untyped_storage().size() == 0


@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_memory_as_an_array(shape: tuple[int, ...], dtype: Any) -> None:
    whole = drawn(2, *shape).to(dtype)
    for t in (whole[1], whole.expand(3, *whole.shape), whole.transpose(0, -1), whole[:1]):
        array, other = array_of(t), t.numpy()
        assert array.dtype == other.dtype and array.shape == other.shape
        assert (array == other).all()
        if t.numel():
            assert array.ctypes.data == t.data_ptr() and array.strides == other.strides


def test_an_array_keeps_memory_but_no_graph() -> None:
    class Marked:
        pass

    t, mark = torch.ones(3, requires_grad=True) * 2, Marked()
    t.grad_fn.metadata["mark"], alive = mark, weakref.ref(mark)
    array = array_of(t)
    del t, mark
    assert alive() is None
    assert array.tolist() == [2, 2, 2]
