"""What torch's own tests (test_modules.py) try of its recurrent modules on the CPU, tried on ours:
their inputs, constructors, reference functions and wrong calls are torch's."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from typing import Any

import pytest

torch = pytest.importorskip("torch")
common = pytest.importorskip("torch.testing._internal.common_modules")

from torch.testing._internal.common_utils import freeze_rng_state  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402

import rnncc.torch as ours  # noqa: E402

NAMES = ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"]
INFOS = {i.module_cls.__name__: i for i in common.module_db}
DTYPE = torch.float64


def samples(name: str, **keywords: Any) -> list[Any]:
    """torch's inputs, those with packed rows included."""
    if name in ("GRU", "RNN"):
        keywords["with_packed_sequence"] = True
    made = INFOS[name].module_inputs_func(
        INFOS[name], device="cpu", dtype=DTYPE, requires_grad=True, training=True, **keywords
    )
    assert len(made) > 1
    return [*made]


def module(name: str, sample: Any) -> Any:
    torch.manual_seed(3)
    given = sample.constructor_input
    return getattr(ours, name)(*given.args, **given.kwargs, dtype=DTYPE)


def call(module: Any, sample: Any) -> Any:
    given = sample.forward_input
    with freeze_rng_state():
        return module(*given.args, **given.kwargs)


def tensors(tree: Any) -> list[Any]:
    """Of inputs and results, packed ones included."""
    if isinstance(tree, torch.nn.utils.rnn.PackedSequence):
        return [tree.data]
    if isinstance(tree, tuple | list):
        return [t for each in tree for t in tensors(each)]
    return [tree] if isinstance(tree, torch.Tensor) else []


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_gradients(name: str) -> None:
    """test_forward: against torch's reference functions, and against torch's module."""
    for sample in samples(name):
        own = module(name, sample)
        theirs = getattr(torch.nn, name)(
            *sample.constructor_input.args, **sample.constructor_input.kwargs, dtype=DTYPE
        )
        theirs.load_state_dict(own.state_dict())
        found, right = call(own, sample), call(theirs, sample)
        torch.testing.assert_close(tensors(found), tensors(right), rtol=1e-10, atol=1e-12)
        inputs = tensors(sample.forward_input.args)
        packed = isinstance(sample.forward_input.args[0], torch.nn.utils.rnn.PackedSequence)
        if not packed:  # torch's reference functions take none
            args = copy.deepcopy(sample.forward_input.args)
            reference = sample.reference_fn(own, *args)
            torch.testing.assert_close(tensors(found), tensors(reference))
        grads = []
        for each, results in ((own, found), (theirs, right)):
            loss = sum((t * t.detach().cos()).sum() for t in tensors(results))
            grads.append(torch.autograd.grad(loss, [*inputs, *each.parameters()]))
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_repr_pickle_factory_and_empty(name: str) -> None:
    """test_repr, test_pickle, test_factory_kwargs, test_to_empty, test_save_load."""
    sample = samples(name)[-1]
    own = module(name, sample)
    given = sample.constructor_input
    assert repr(own) == repr(getattr(torch.nn, name)(*given.args, **given.kwargs))
    right = tensors(call(own, sample))
    assert all(map(torch.equal, tensors(call(pickle.loads(pickle.dumps(own)), sample)), right))
    empty = getattr(ours, name)(*given.args, **given.kwargs, device="meta", dtype=DTYPE)
    assert all(p.is_meta and p.dtype is DTYPE for p in empty.parameters())
    empty.to_empty(device="cpu").load_state_dict(own.state_dict())
    assert all(map(torch.equal, tensors(call(empty, sample)), right))
    assigned = getattr(ours, name)(*given.args, **given.kwargs, device="meta")
    assigned.load_state_dict(own.state_dict(), assign=True)  # and with it another dtype
    assert all(map(torch.equal, tensors(call(assigned, sample)), right))
    with torch.device("meta"):
        assert next(getattr(ours, name)(*given.args, **given.kwargs).parameters()).is_meta


@pytest.mark.parametrize("name", NAMES)
def test_noncontiguous(name: str) -> None:
    """test_non_contiguous_tensors: inputs, states and cotangents, with holes between numbers."""
    for sample in samples(name)[:6]:
        own = module(name, sample)
        args = sample.forward_input.args
        if isinstance(args[0], torch.nn.utils.rnn.PackedSequence):
            continue

        def apart(t: Any) -> Any:
            wide = torch.repeat_interleave(t.detach(), 2, dim=-1)
            return wide[..., ::2].requires_grad_()

        spread = pytree.tree_map(apart, args)
        assert not any(t.is_contiguous() for t in tensors(spread) if t.shape[-1] > 1)
        results = []
        for given in (args, spread):
            found = tensors(own(*given))
            handed = [apart(torch.ones_like(t)).detach() for t in found]
            grads = torch.autograd.grad(found, [*tensors(given), *own.parameters()], handed)
            results.append([*found, *grads])
        torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str) -> None:
    """test_grad, with torch's tolerances; packed rows by their data."""
    for sample in samples(name):
        own = module(name, sample)
        args = sample.forward_input.args
        if isinstance(args[0], torch.nn.utils.rnn.PackedSequence):
            sizes = args[0].batch_sizes

            def run(data: Any, *_: Any, own: Any = own, sizes: Any = sizes) -> Any:
                return tuple(tensors(own(torch.nn.utils.rnn.PackedSequence(data, sizes))))

        else:
            tree = pytree.tree_structure(args)

            def run(*given: Any, own: Any = own, tree: Any = tree) -> Any:
                leaves = [*given[: tree.num_leaves]]
                return tuple(tensors(own(*pytree.tree_unflatten(leaves, tree))))

        given = [*tensors(args), *own.parameters()]
        assert torch.autograd.gradcheck(run, given, fast_mode=len(given) > 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gradgradcheck(name: str) -> None:
    """test_gradgrad; in the fast mode, one product of Jacobians each."""
    some = [s for s in samples(name) if s.constructor_input.kwargs.get("bias", True)]
    for sample in [*itertools.islice(some, 0, None, 3)]:
        own = module(name, sample)
        args = sample.forward_input.args
        if isinstance(args[0], torch.nn.utils.rnn.PackedSequence):
            continue
        tree = pytree.tree_structure(args)

        def run(*given: Any, own: Any = own, tree: Any = tree) -> Any:
            leaves = [*given[: tree.num_leaves]]
            return tuple(tensors(own(*pytree.tree_unflatten(leaves, tree))))

        given = [*tensors(args), *own.parameters()]
        assert torch.autograd.gradgradcheck(run, given, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_errors(name: str) -> None:
    """test_errors: the same class, and words that torch's test looks for."""
    wrong = INFOS[name].module_error_inputs_func(
        INFOS[name], device="cpu", dtype=DTYPE, requires_grad=False, training=True
    )
    assert len(wrong) > 3
    for each in wrong:
        given = each.module_error_input.constructor_input
        if each.error_on is common.ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(each.error_type, match=each.error_regex):
                getattr(ours, name)(*given.args, **given.kwargs)
            continue
        # torch's cells take the text of a nonlinearity as `bias` for true; ours say what is wrong.
        if "Cell" in name and any(isinstance(a, str) for a in given.args):
            given.args = given.args[:2]
        own = getattr(ours, name)(*given.args, **given.kwargs)
        inputs = each.module_error_input.forward_input
        with pytest.raises(each.error_type) as caught:
            own(*inputs.args, **inputs.kwargs)
        assert re.search(each.error_regex, str(caught.value)), (each.error_regex, caught.value)


def test_all_recurrent_modules_of_torchs_are_here() -> None:
    theirs = {n for n, i in INFOS.items() if i.module_cls.__module__ == "torch.nn.modules.rnn"}
    assert theirs == {*NAMES}
