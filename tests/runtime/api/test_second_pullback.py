"""pullback.vjp: second derivatives of layers, on kernels and on the interpreter."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import compiler, oracle
from rnncc.lowering.cell_interface import check_text
from rnncc.runtime.api.gradients import Gradients
from rnncc.runtime.api.layer import Layer
from tests.support import cases
from tests.support.arrays import uniform
from tests.support.cases import Arrays, error, slope_errors
from tests.support.kernel_pair import Pair
from tests.support.second_order import cotangents_of, flat, like, twice

LIMIT = {"float64": 1e-11, "float32": 1e-4}
# Several inputs and outputs, states that start from a weight, delays. Products of activations,
# attention and two levels a step, of many kernels, are simulated (`tests/runtime/cpu`); contexts
# are those of `layers/test_second`.
CELLS: list[tuple[str, dict[str, Any]]] = [
    ("lstm", {}),
    ("nested", {}),
    ("delays", {}),
    ("learned_start", {}),
]
SHAPES = ((17, 5, 6, 3), (1, 1, 1, 1), (3, 33, 2, 7))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chosen"), CELLS, ids=str)
def test_kernels_are_the_interpreter(name: str, chosen: dict[str, Any]) -> None:
    for shape in SHAPES:
        pair = Pair.of(name, "float64", shape, **chosen)
        found, right = twice(pair.kernels, pair), twice(pair.reference, pair)
        for a, b in zip(found, right):
            expected = flat(b)
            assert flat(a).keys() == expected.keys()
            for part, array in flat(a).items():
                assert error(array, expected[part]) <= LIMIT["float64"], (shape, part)


def test_float32() -> None:
    pair = Pair.of("lstm", "float32", SHAPES[0])
    right = flat(twice(pair.reference, pair))
    for part, array in flat(twice(pair.kernels, pair)).items():
        assert array.dtype == np.float32
        assert error(array, right[part]) <= LIMIT["float32"], part


def test_a_row_alone_and_among_others() -> None:
    pair = Pair.of("lstm", "float32", (17, 33, 3, 7))
    layer, x = pair.kernels, pair.arguments["x"]

    def rows(own: slice) -> Arrays:
        _, pullback = layer.vjp(x[own])
        whole = layer.vjp(x)[0]
        dy = tuple(a[own] for a in like(whole, 1))
        grads, pullback2 = pullback.vjp(dy)
        v = {"inputs": like(x, 3)[own], "weights": like(grads.weights, 4)}
        second = pullback2(v)
        return flat((grads.inputs, second.inputs, second.dy, second.initial_state))

    many = rows(slice(None))
    for row in (0, 14, 32):
        for part, array in rows(slice(row, row + 1)).items():
            np.testing.assert_array_equal(array[0], many[part][row], err_msg=f"{part}, row {row}")


def test_the_gradients_are_those_of_the_pullback() -> None:
    layer = rnncc.compile("lstm", dtype="float64")(units=5, seed=1, return_state=True)
    y, pullback = layer.vjp(uniform(3, 6, 2))
    dy = like(y, 1)
    one, two = flat(pullback(dy)), flat(pullback.vjp(dy)[0])
    assert one.keys() == two.keys()
    for part, array in one.items():
        np.testing.assert_array_equal(array, two[part], err_msg=part)


# ---- slopes --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
def test_kernels_are_slopes(sequences: bool, training: bool) -> None:
    """Of <grads, v>, for the last step and for all, with dropout and without."""
    layer = rnncc.compile("lstm", dtype="float64")(
        units=3, seed=1, return_sequences=sequences, return_state=True, dropout=0.3
    )
    given: dict[str, Any] = {"x": uniform(2, 4, 2), "h": uniform(2, 3, seed=1)}
    given["c"] = uniform(2, 3, seed=2)
    given["dy"] = like(layer(given["x"]), 5)
    weights = {n: a.copy() for n, a in layer.weights.items()}

    def gradients(**moved: Any) -> tuple[Gradients, Any]:
        now = {**given, **weights, **moved}
        for name in weights:
            layer.weights[name] = now[name]
        _, pullback = layer.vjp(
            now["x"], initial_state=(now["h"], now["c"]), training=training, seed=9
        )
        return pullback.vjp(now["dy"])

    grads, pullback2 = gradients()
    v = cotangents_of(grads)
    second = pullback2(v)
    wanted = flat(v)

    def value(**moved: Any) -> float:
        found = flat(gradients(**moved)[0])
        return float(sum((found[part] * d).sum() for part, d in wanted.items()))

    rng = np.random.default_rng(2)
    h, c = second.initial_state
    claimed = {"x": second.inputs, "h": h, "c": c, **second.weights}
    for name, gradient in claimed.items():
        at = given[name] if name in given else weights[name]
        found = slope_errors(lambda a, name=name: value(**{name: a}), at, gradient, rng)  # type: ignore[misc]
        assert max(found) <= 1e-5, name
    for i, gradient in enumerate(second.dy):

        def moved(a: np.ndarray, i: int = i) -> float:
            return value(dy=tuple(a if i == j else d for j, d in enumerate(given["dy"])))

        assert max(slope_errors(moved, given["dy"][i], gradient, rng)) <= 1e-5, f"dy {i}"


def test_a_gradient_penalty_is_torchs() -> None:
    """|d loss / d x|² with respect to everything: torch's double backward of the equations."""
    torch = pytest.importorskip("torch")
    layer = rnncc.compile("lstm", dtype="float64")(units=5, seed=1, return_sequences=True)
    x, dy = uniform(3, 6, 4), uniform(3, 6, 5, seed=1)
    _, pullback = layer.vjp(x)
    grads, pullback2 = pullback.vjp(dy, wrt="inputs")
    second = pullback2({"inputs": 2 * grads.inputs})

    tensors = {n: torch.tensor(a, requires_grad=True) for n, a in layer.weights.items()}
    tx, tdy = (torch.tensor(a, requires_grad=True) for a in (x, dy))
    h = c = torch.zeros(3, 5, dtype=torch.float64)
    ys = []
    for t in range(6):
        z = tx[:, t] @ tensors["kernel"] + h @ tensors["recurrent_kernel"] + tensors["bias"]
        i, f, g, o = z.split(5, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        ys.append(h)
    (dx,) = torch.autograd.grad((torch.stack(ys, 1) * tdy).sum(), tx, create_graph=True)
    right = torch.autograd.grad((dx**2).sum(), [tx, tdy, *tensors.values()])
    found = [second.inputs, second.dy, *second.weights.values()]
    assert error(grads.inputs, dx.detach().numpy()) <= 1e-12
    for a, b in zip(found, right, strict=True):
        assert error(a, b.numpy()) <= 1e-12


# ---- what is given and what is returned ----------------------------------------------------------


@cache
def lstm() -> type[Layer]:
    return rnncc.compile("lstm", dtype="float64")


def pulled(**keywords: Any) -> tuple[Gradients, Any]:
    layer = lstm()(units=3, seed=1, **keywords)
    y, pullback = layer.vjp(uniform(2, 4, 2))
    return pullback.vjp(like(y, 1))


def test_zero_is_none() -> None:
    grads, pullback2 = pulled()
    v = cotangents_of(grads)
    zeros = {k: 0 * a for k, a in v["weights"].items()}
    one = pullback2({"inputs": v["inputs"]})
    two = pullback2(Gradients(v["inputs"], zeros, (None, np.zeros((2, 3)))))
    three = pullback2({"inputs": v["inputs"], "weights": {"kernel": None}, "initial_state": None})
    for other in (two, three):
        for part, array in flat(one).items():
            np.testing.assert_array_equal(array, flat(other)[part], err_msg=part)
    assert all(not a.any() for a in flat(pullback2(None)).values())


def test_every_call_has_its_own_cotangents() -> None:
    """Those of weights stand where kernels read weights. Twice the cotangents: twice the result."""
    grads, pullback2 = pulled()
    v = cotangents_of(grads)
    twice_v = {n: 2 * a for n, a in v["weights"].items()}
    one, two = (flat(pullback2({"weights": w})) for w in (v["weights"], twice_v))
    for part, array in one.items():
        np.testing.assert_array_equal(2 * array, two[part], err_msg=part)


def test_gradients_themselves_may_be_given() -> None:
    """The penalty |grads|² / 2."""
    grads, pullback2 = pulled()
    v = {k: getattr(grads, k) for k in ("inputs", "weights", "initial_state")}
    for part, array in flat(pullback2(v)).items():
        np.testing.assert_array_equal(array, flat(pullback2(grads))[part])


def test_wrt_chooses() -> None:
    grads, pullback2 = pulled()
    v = cotangents_of(grads)
    whole = flat(pullback2(v))
    for kind in ("dy", "inputs", "weights", "initial_state"):
        alone = pullback2(v, wrt=kind)
        assert {k.split()[0] for k in flat(alone)} == {kind}
        for part, array in flat(alone).items():
            np.testing.assert_array_equal(array, whole[part], err_msg=part)
    some, second = lstm()(units=3, seed=1).vjp(uniform(2, 4, 2))[1].vjp(None, wrt=["weights"])
    assert (
        some.inputs is None
        and some.initial_state is None
        and set(some.weights) == set(v["weights"])
    )
    with pytest.raises(ValueError, match="inputs of d_grads: wrt left these gradients out"):
        second({"inputs": v["inputs"]})


@pytest.mark.parametrize("name", ["lstm", "sru"])
def test_it_owns_what_it_needs(name: str) -> None:
    cls = rnncc.compile(name, dtype="float64")
    layer = cls(units=3, seed=1, return_state=True, return_sequences=True)
    x, start = uniform(2, 4, 2), [uniform(2, 3, seed=i) for i in range(len(cls.maker.cell.states))]
    y, pullback = layer.vjp(x, initial_state=tuple(start))
    dy = like(y, 1)
    grads, pullback2 = pullback.vjp(dy)
    v = cotangents_of(grads)
    first = {n: a.copy() for n, a in flat(pullback2(v)).items()}
    again = like(y, 1)
    for array in (x, *start, *flat(y).values(), *flat(dy).values(), *flat(grads).values()):
        array[...] = np.nan
    for name in layer.weights:
        layer.weights[name] = layer.weights[name] * 3 + 1
    layer.vjp(uniform(2, 4, 2, seed=5))[1].vjp(like(y, 9))[1](v)
    repeated, other = flat(pullback2(v)), flat(pullback.vjp(again)[1](v))
    for part, array in first.items():
        np.testing.assert_array_equal(array, repeated[part], err_msg=part)
        np.testing.assert_array_equal(array, other[part], err_msg=part)
    arrays = list(repeated.values())
    assert all(not np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    pullback(again, consume=True)
    with pytest.raises(RuntimeError, match="was consumed"):
        pullback.vjp(again)
    np.testing.assert_array_equal(flat(pullback2(v))[" inputs"], first[" inputs"])


@pytest.mark.parametrize("make", [oracle.layer_class, None], ids=["oracle", "kernels"])
def test_a_weight_that_states_start_from(make: Callable[..., type[Layer]] | None) -> None:
    """Its cotangent goes to the states, and theirs come back to it."""
    spec = cases.spec_of("learned_start")
    cls = make(spec) if make else compiler.layer_class(spec, "cpu", "float64")
    layer = cls(units=3, seed=1)
    x = uniform(2, 4, 2)
    y = layer(x)
    dy, rng = like(y, 1), np.random.default_rng(2)
    weights = {n: rng.uniform(-1, 1, a.shape) for n, a in layer.weights.items()}

    def gradients(**moved: np.ndarray) -> tuple[Gradients, Any]:
        for name, array in {**weights, **moved}.items():
            layer.weights[name] = array
        return layer.vjp(x)[1].vjp(dy, wrt="weights")

    grads, pullback2 = gradients()
    v = like(grads.weights, 3)
    second = pullback2({"weights": v})
    assert second.weights.keys() == weights.keys()
    for name, gradient in second.weights.items():

        def value(a: np.ndarray, name: str = name) -> float:
            found = gradients(**{name: a})[0].weights
            return float(sum((found[n] * d).sum() for n, d in v.items()))

        assert max(slope_errors(value, weights[name], gradient, rng)) <= 1e-5, name


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize(("batch", "time"), [(0, 4), (2, 0)])
def test_no_row_or_no_step(batch: int, time: int, sequences: bool) -> None:
    layer = lstm()(units=3, seed=1, return_state=True, return_sequences=sequences)
    y, pullback = layer.vjp(np.zeros((batch, time, 2)))
    grads, pullback2 = pullback.vjp(like(y, 1))
    v = cotangents_of(grads)
    second = pullback2(v)
    for d, dy, state in zip(second.dy[1:], y[1:], v["initial_state"], strict=True):
        assert d.shape == dy.shape
        np.testing.assert_array_equal(d, state)
    others = (second.dy[0], second.inputs, *second.weights.values(), *second.initial_state)
    assert second.dy[0].shape == y[0].shape and not any(a.any() for a in others)


def test_names_a_user_may_choose() -> None:
    """Inputs and weights called like gradients are no gradients."""
    text = (
        "cell: Clash\nunits: size\nd_h: input[units]\nd_d_h: input[units]\nh: state[units]\n"
        "d_d_d_h: weight[units] = ones\nh[t] = tanh(h[t-1] * d_h[t] * d_d_d_h + d_d_h[t])\n"
        "return h[t]\n"
    )
    spec = check_text(text)
    found = []
    for cls in (compiler.layer_class(spec, "cpu", "float64"), oracle.layer_class(spec)):
        layer = cls(seed=1, return_sequences=True)
        y, pullback = layer.vjp((uniform(2, 4, 3), uniform(2, 4, 3, seed=1)))
        grads, pullback2 = pullback.vjp(like(y, 1))
        parts = (pullback(like(y, 1)), grads, pullback2(cotangents_of(grads)))
        found.append(flat(parts))
    kernels, right = found
    for part, array in kernels.items():
        assert error(array, right[part]) <= 1e-13, part


# ---- refusals --------------------------------------------------------------------------------


WRONG: list[tuple[Any, type[Exception], str]] = [
    ({"input": 1}, ValueError, "d_grads has no 'input': did you mean inputs?"),
    ([1, 2], TypeError, "d_grads is a Gradients or a dict of inputs, weights, initial_state"),
    ({"inputs": np.zeros((2, 4, 3))}, ValueError, "x in inputs of d_grads has shape [2, 4, 3]"),
    ({"inputs": "x"}, TypeError, "x in inputs of d_grads is a str"),
    ({"weights": {"kernal": 1}}, ValueError, "did you mean kernel?"),
    ({"weights": [1]}, TypeError, "weights of d_grads are a dict by name, not list"),
    ({"weights": {"bias": np.zeros(3)}}, ValueError, "expected the shape of its gradient, [12]"),
    ({"initial_state": np.zeros((2, 3))}, TypeError, "initial_state of d_grads takes 2 arrays"),
]


@pytest.mark.parametrize(("given", "kind", "message"), WRONG, ids=[m for *_, m in WRONG])
def test_wrong_cotangents(given: Any, kind: type[Exception], message: str) -> None:
    layer = oracle.layer_class(cases.spec_of("lstm"))(units=3, seed=1)
    _, pullback = layer.vjp(uniform(2, 4, 2))
    _, pullback2 = pullback.vjp(np.ones((2, 3)))
    with pytest.raises(kind) as caught:
        pullback2(given)
    assert message in str(caught.value)
    with pytest.raises(ValueError, match="wrt has no 'x'"):
        pullback2(None, wrt="x")
    with pytest.raises(ValueError, match="dy has shape"):
        pullback.vjp(np.ones((2, 4)))


# ---- when kernels are compiled, and modules ------------------------------------------------------


def test_nothing_is_compiled_before_it_is_asked_for(fresh_store: Path) -> None:
    text = "cell: Lazy\nx: input\nh: state\nh[t] = tanh(h[t-1] + x[t])\nreturn h[t]\n"
    layer = rnncc.compile_text(text, dtype="float64")(seed=1)
    y, pullback = layer.vjp(uniform(2, 4))
    pullback(y)
    assert len(list(fresh_store.glob("lazy*.module"))) == 1
    _, pullback2 = pullback.vjp(y)
    assert len(list(fresh_store.glob("lazy*.module"))) == 2
    pullback2({"inputs": uniform(2, 4)})
    plan = pullback2.plan()
    for line in ("forward, again: batch 2, time 4", "backward_pullback_scan", "1 level a step"):
        assert line in plan


def test_modules_of_the_command_line(tmp_path: Path, rnncc_cli: Callable[..., Any]) -> None:
    """A module with its text makes what wasn't written; one without names --second-order."""
    x, found = uniform(2, 4, 3), []
    all_of_first = ("--variants", "all")
    for name, flags in (("demand", ()), ("all", all_of_first), ("second", ("--second-order",))):
        path = tmp_path / f"{name}.py"
        made = rnncc_cli("compile", "simple_rnn", "-o", path, "--dtype", "float64", *flags)
        assert made.code == 0, made.err
        spec = importlib.util.spec_from_file_location(f"second_{name}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[f"second_{name}"] = module
        spec.loader.exec_module(module)
        layer = module.SimpleRNN(units=3, seed=1)
        y, pullback = layer.vjp(x)
        if flags is all_of_first:
            with pytest.raises(ValueError, match=r"rnncc compile simple_rnn\.rnn --second-order"):
                pullback.vjp(y)
            pullback(y)
            continue
        found.append(pullback.vjp(like(y, 1))[1]({"inputs": x}))
    layer = rnncc.compile("simple_rnn", dtype="float64")(units=3, seed=1)
    y, pullback = layer.vjp(x)
    found.append(pullback.vjp(like(y, 1))[1]({"inputs": x}))
    *made, right = map(flat, found)
    assert len(made) == 2
    for one in made:
        for part, array in one.items():
            np.testing.assert_array_equal(array, right[part], err_msg=part)


ORDERS: dict[str, dict[str, Any]] = {
    "backwards": {"go_backwards": True},
    "time_major": {"time_major": True, "go_backwards": True},
    "checkpoints": {"checkpoint_every": 2},
}
MASKS = {
    "holes": np.array([[1, 1, 0, 1, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0]], bool),
    "right": np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], bool),
}


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("what", ["plain", *ORDERS, *MASKS, "right backwards"])
def test_second_derivatives_of_any_order_of_steps(what: str, sequences: bool) -> None:
    """Steps may run backwards, be masked, be cut off or be in blocks: the interpreter agrees."""
    options = ORDERS.get(what, {"go_backwards": True} if "backwards" in what else {})
    mask = MASKS.get(what.split()[0])
    found = []
    for cls in (
        rnncc.compile("simple_rnn", dtype="float64"),
        oracle.layer_class(compiler.load_spec("simple_rnn")),
    ):
        layer = cls(units=4, seed=1, dtype="float64", return_sequences=sequences, **options)
        rng = np.random.default_rng(5)
        x = rng.standard_normal((3, 5, 2))
        x = x.swapaxes(0, 1) if what == "time_major" else x
        layer.build(x.shape)
        layer.set_weights([np.sin(np.arange(w.size)).reshape(w.shape) for w in layer.get_weights()])
        y, pullback = layer.vjp(x, mask=mask)
        dy = np.cos(np.arange(y.size)).reshape(y.shape)
        grads, pullback2 = pullback.vjp(dy)
        first = pullback(dy)
        np.testing.assert_allclose(grads.inputs, first.inputs, rtol=0, atol=1e-12)
        second = pullback2({"inputs": np.sin(x), "weights": dict(first.weights)})
        found.append([grads.inputs, second.dy, second.inputs, *second.weights.values()])
        assert second.inputs.shape == x.shape and second.dy.shape == y.shape
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    if mask is not None and what != "right backwards":
        assert not found[0][2][~mask].any(), "a masked input has a second derivative"
