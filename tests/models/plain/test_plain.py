"""Plain parts against torch: values and gradients in float64, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as tf

from rnncc.models import Component
from rnncc.models.component import NoGradient, NoStream
from rnncc.models.plain import (
    Activation,
    BatchNorm,
    Concatenated,
    Convolution,
    Dense,
    EachStep,
    Embedding,
    FirstFeatures,
    Gain,
    JoinedBy,
    LastStep,
    LayerNorm,
    MaskedSteps,
    MaskStep,
    Permuted,
    PooledSteps,
    PRelu,
    RepeatedSteps,
    Reshaped,
    Same,
)
from rnncc.models.plain.functions import FUNCTIONS
from tests.support.in_onnx.exported import agree, model_of

RNG = np.random.default_rng(5)


def drawn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


W, B, G, S = drawn(5, 4), drawn(4), drawn(5), drawn(5)
X, OTHER, FLAT = 3 * drawn(2, 7, 5), drawn(2, 7, 5), drawn(3, 5)
SLOPES = drawn(7, 1)
Way = Callable[..., torch.Tensor]

TORCH: dict[str, Way] = {
    "linear": lambda x: x * 1,
    "relu": torch.relu,
    "relu6": tf.relu6,
    "leaky_relu": lambda x: tf.leaky_relu(x, 0.2),
    "elu": tf.elu,
    "celu": tf.celu,
    "selu": tf.selu,
    "gelu": tf.gelu,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda x: torch.clamp((x + 3) / 6, 0, 1),  # torch's own slope is a float32
    "steep_hard_sigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1),
    "tanh": torch.tanh,
    "hard_tanh": tf.hardtanh,
    "softplus": lambda x: tf.softplus(x, threshold=50),
    "softsign": tf.softsign,
    "exponential": torch.exp,
    "log_sigmoid": tf.logsigmoid,
    "silu": tf.silu,
    "swish": tf.silu,
    "hard_silu": tf.hardswish,
    "hard_swish": tf.hardswish,
    "mish": tf.mish,
    "softmax": lambda x: tf.softmax(x, -1),
    "log_softmax": lambda x: tf.log_softmax(x, -1),
}


def keras_relu(x: torch.Tensor) -> torch.Tensor:
    """The text of keras.layers.ReLU, with all it takes."""
    y = torch.where(x >= 0.4, x, 0.1 * (x - 0.4))
    return torch.clamp(y, max=2.5)


def celu(x: torch.Tensor) -> torch.Tensor:
    """Written out: torch's slope for alpha=0.7 has a float32 in it."""
    return torch.clamp(x, min=0) + torch.clamp(0.7 * torch.expm1(x / 0.7), max=0)


def prelu(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, a * x)


def batch_norm(x: torch.Tensor, gamma: Any, beta: Any) -> torch.Tensor:
    mean, variance = torch.tensor(S), torch.tensor(G * G)
    return tf.batch_norm(x.swapaxes(1, 2), mean, variance, gamma, beta, eps=0.1).swapaxes(1, 2)


K = drawn(3, 5, 4)


def convolved(before: int, behind: int, **options: int) -> Way:
    """By torch, zeros around."""

    def way(x: torch.Tensor, kernel: torch.Tensor, *bias: torch.Tensor) -> torch.Tensor:
        padded = tf.pad(x.swapaxes(1, 2), (before, behind))
        return tf.conv1d(padded, kernel.permute(2, 1, 0), *bias, **options).swapaxes(1, 2)

    return way


CASES: dict[str, tuple[Component, Way, Sequence[np.ndarray], Sequence[str]]] = {
    **{n: (Activation("f", n), f, [X], []) for n, f in TORCH.items()},
    "relu of all": (
        Activation("f", "relu", {"negative_slope": 0.1, "max_value": 2.5, "threshold": 0.4}),
        keras_relu,
        [X],
        [],
    ),
    "elu 0.7": (Activation("f", "elu", {"alpha": 0.7}), lambda x: tf.elu(x, 0.7), [X], []),
    "celu 0.7": (Activation("f", "celu", {"alpha": 0.7}), celu, [X], []),
    "gelu of tanh": (
        Activation("f", "gelu", {"approximate": True}),
        lambda x: tf.gelu(x, approximate="tanh"),
        [X],
        [],
    ),
    "dense": (
        Dense("d", W, B, "tanh"),
        lambda x, w, b: torch.tanh(x @ w + b),
        [X],
        ["kernel", "bias"],
    ),
    "dense, flat": (Dense("d", W), lambda x, w: x @ w, [FLAT], ["kernel"]),
    "dense, leaky": (
        Dense("d", W, B, "leaky_relu", {"negative_slope": 0.3}),
        lambda x, w, b: tf.leaky_relu(x @ w + b, 0.3),
        [X],
        ["kernel", "bias"],
    ),
    "convolution": (Convolution("c", K, B), convolved(0, 0), [X], ["kernel", "bias"]),
    "convolution, causal": (
        Convolution("c", K, None, 1, 2, "causal", "tanh"),
        lambda x, k: torch.tanh(convolved(4, 0, dilation=2)(x, k)),
        [X],
        ["kernel"],
    ),
    "convolution, same": (
        Convolution("c", drawn(4, 5, 3), padding="same"),
        convolved(1, 2),
        [X],
        ["kernel"],
    ),
    "convolution, strides": (
        Convolution("c", drawn(2, 5, 3), stride=3),
        convolved(0, 0, stride=3),
        [X],
        ["kernel"],
    ),
    "convolution, same strides": (
        Convolution("c", K, B, stride=2, padding="same"),
        convolved(1, 1, stride=2),
        [X],
        ["kernel", "bias"],
    ),
    "prelu": (PRelu("p", G), lambda x, a: torch.where(x > 0, x, a * x), [X], ["alpha"]),
    "prelu, shared": (
        PRelu("p", SLOPES),
        lambda x, a: torch.where(x > 0, x, a * x),
        [X],
        ["alpha"],
    ),
    "batch norm": (
        BatchNorm("b", S, G * G, G, S, epsilon=0.1),
        batch_norm,
        [X],
        ["gamma", "beta"],
    ),
    "batch norm, steps": (
        BatchNorm("b", SLOPES[:, 0], SLOPES[:, 0] ** 2, epsilon=0.2, axis=1),
        lambda x: tf.batch_norm(x, *map(torch.tensor, (SLOPES[:, 0], SLOPES[:, 0] ** 2)), eps=0.2),
        [X],
        [],
    ),
    "layer norm": (
        LayerNorm("l", G, S, epsilon=0.1),
        lambda x, g, b: tf.layer_norm(x, (5,), g, b, eps=0.1),
        [X],
        ["gamma", "beta"],
    ),
    "layer norm, two axes": (
        LayerNorm("l", None, OTHER[0], epsilon=0.1, axes=2),
        lambda x, b: tf.layer_norm(x, (7, 5), None, b, eps=0.1),
        [X],
        ["beta"],
    ),
    "masking": (MaskedSteps("m"), lambda x: x * 1, [X], []),
    "same": (Same("s", "Dropout"), lambda x: x * 1, [X], []),
    "flatten": (Reshaped("r", [-1]), lambda x: x.flatten(1), [X], []),
    "reshape": (Reshaped("r", [5, -1]), lambda x: x.reshape(2, 5, 7), [X], []),
    "permute": (Permuted("p", [0, 2, 1]), lambda x: x.permute(0, 2, 1), [X], []),
    "repeat": (RepeatedSteps("r", 3), lambda x: x[:, None].repeat(1, 3, 1), [FLAT], []),
    "first features": (FirstFeatures("f", 2), lambda x: x[..., :2], [X], []),
    "last": (LastStep("l"), lambda x: x[:, -1], [X], []),
    "each step": (
        EachStep("e", Dense("d", W, B)),
        lambda x, w, b: x @ w + b,
        [X],
        ["kernel", "bias"],
    ),
    "add": (JoinedBy("j", "add"), lambda a, b, c: a + b + c, [X, OTHER, X], []),
    "multiply": (JoinedBy("j", "multiply"), lambda a, b, c: a * b * c, [X, OTHER, X], []),
    "subtract": (JoinedBy("j", "subtract"), lambda a, b: a - b, [X, OTHER], []),
    "average": (JoinedBy("j", "average"), lambda a, b: (a + b) / 2, [X, OTHER], []),
    "concatenate": (Concatenated("c"), lambda a, b: torch.cat([a, b], -1), [X, OTHER], []),
    "concatenate, steps": (Concatenated("c", 1), lambda a, b: torch.cat([a, b], 1), [X, OTHER], []),
    "gain": (Gain("g", 0.4, -1.5), lambda x: 0.4 * x - 1.5, [X], []),
    "mean": (PooledSteps("p", "mean"), lambda x: x.mean(1), [X], []),
}


def test_every_function_has_a_case() -> None:
    assert FUNCTIONS.keys() == TORCH.keys()


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case: str) -> None:
    part, way, arrays, weights = CASES[case]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    own = [torch.tensor(part.weights[w], requires_grad=True) for w in weights]
    expected = way(*tensors, *own)
    outputs, pullback = part.vjp(*arrays)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(outputs[0], expected.detach().numpy(), **close)
    assert np.array_equal(part(*arrays)[0], outputs[0])
    dy = np.cos(np.arange(expected.numel())).reshape(tuple(expected.shape))
    wanted = torch.autograd.grad(expected, [*tensors, *own], torch.tensor(dy))
    dx, gradients = pullback([dy, *(None for _ in outputs[1:])])
    assert gradients.keys() == set(weights)
    found = [*dx, *(gradients[w] for w in weights)]
    for mine, its in zip(found, wanted, strict=True):
        assert mine is not None and mine.shape == its.shape
        np.testing.assert_allclose(mine, its.numpy(), **close)
    single, _ = part.vjp(*(a.astype("f") for a in arrays))
    if not part.weights:
        assert single[0].dtype == np.float32
        assert part.vjp(*(a.astype("f") for a in arrays))[1]([dy.astype("f")])[0][0].dtype == "f"
    again = Component.kinds[part.kind].made("again", part.config(), part.weights)
    assert np.array_equal(again(*arrays)[0], outputs[0])
    if part.is_stepwise and arrays[0].ndim == 3 and part.kind != "last_step":
        steps = [part.stream()(*(a[:, t : t + 1] for a in arrays))[0] for t in range(7)]
        np.testing.assert_allclose(np.concatenate(steps, 1), outputs[0], **close)


@pytest.mark.parametrize("case", CASES)
def test_the_same_in_onnx(case: str) -> None:
    """In float64 where weights tell that the model is; onnxruntime has no Erf of it."""
    pytest.importorskip("onnxruntime", reason="onnxruntime isn't installed")
    part, _, arrays, _ = CASES[case]
    if isinstance(part, Activation) and case != "gelu":
        part = Dense("d", np.eye(arrays[0].shape[-1]), None, part.function, part.parameters)
    if not part.weights:
        arrays = [a.astype("f") for a in arrays]
    feed = {f"x{i}": a for i, a in enumerate(arrays)}
    if case == "convolution, same strides":
        with pytest.raises(TypeError, match="what it pads depends on the steps"):
            agree(model_of(part, arrays), feed, 0)
        return
    agree(model_of(part, arrays), feed, 1e-12 if part.weights else 2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_far_from_zero(name: str) -> None:
    """No overflow where there needn't be one, in either precision."""
    if name in ("exponential", "linear", "relu", "leaky_relu"):
        return
    x = np.array([[-1e3, -90.0, 0.0, 90.0]], "f")
    with np.errstate(over="raise", invalid="raise"):
        y = FUNCTIONS[name].value(x)
    expected = CASES[name][1](torch.tensor(x.astype("d"))).numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-30 if name == "sigmoid" else 1e-6)


def test_embedding() -> None:
    numbers = np.array([[0, 3, 3], [1, 0, 4]])
    part = Embedding("e", W, with_mask=True)
    table = torch.tensor(W, requires_grad=True)
    expected = tf.embedding(torch.tensor(numbers), table)
    (y, mask), pullback = part.vjp(numbers)
    assert np.array_equal(y, expected.detach().numpy()) and np.array_equal(mask, numbers != 0)
    expected.backward(torch.cos(expected.detach()))  # type: ignore[no-untyped-call]
    assert table.grad is not None
    dx, own = pullback([np.cos(y), None])
    assert dx == (None,)
    np.testing.assert_allclose(own["table"], table.grad.numpy(), rtol=1e-12)
    assert np.array_equal(part(numbers.astype("f"))[0], y)
    for wrong in (-1, 5, 0.5, np.nan):
        with pytest.raises(ValueError, match="e has rows 0 to 4"):
            part(np.array([[0, wrong]]))
    assert part(np.zeros((2, 0)))[0].shape == (2, 0, 4)


def test_masks() -> None:
    x = X.copy()
    x[0, 2:4] = 0.0
    y, mask = MaskedSteps("m")(x)
    assert not y[0, 2:4].any() and list(mask[0]) == [True, True, False, False, True, True, True]
    pooled, pullback = PooledSteps("p", "mean").vjp(x, mask)
    np.testing.assert_allclose(pooled[0][0], x[0][mask[0]].mean(0))
    dx = pullback([np.ones((2, 5))])[0][0]
    assert dx is not None and not dx[0, 2].any() and np.allclose(dx[0, 0], 1 / 5)
    assert np.array_equal(PooledSteps("p", "max")(x)[0], x.max(1))
    different, of_rows = MaskStep("a", "not_equal", 0.0), MaskStep("b", "any")
    assert np.array_equal(of_rows(*different(x))[0], mask)
    for by, way in (("or", np.logical_or), ("and", np.logical_and)):
        assert np.array_equal(MaskStep("c", by)(mask, ~mask)[0], way(mask, ~mask))
    with pytest.raises(ValueError, match="masks are made by"):
        MaskStep("d", "xor")
    with pytest.raises(ValueError, match="no step that counts"):
        PooledSteps("p", "mean")(x, mask & False)


def test_convolutions_step_by_step() -> None:
    """A causal one goes on, in blocks of any length; others see what is still to come."""
    part = Convolution("c", K, B, dilation=2, padding="causal")
    for block in (1, 7):
        stream = part.stream(X[:, :block])
        for _ in range(2):
            steps = [stream(X[:, t : t + block])[0] for t in range(0, 7, block)]
            np.testing.assert_allclose(np.concatenate(steps, 1), part(X)[0], 1e-12, 1e-12)
            assert stream.states[0].shape == (2, 4, 5)
            stream.reset()
    for other in (Convolution("c", K), Convolution("c", K, stride=2, padding="causal")):
        with pytest.raises(NoStream, match="c needs the whole sequence"):
            other.stream(X)
    one = Convolution("c", K[:1], padding="causal")
    np.testing.assert_allclose(one.stream(X)(X)[0], one(X)[0])


def test_what_is_refused() -> None:
    for make in (
        lambda: Dense("d", W, G),
        lambda: Dense("d", G),
        lambda: Activation("a", "tan"),
        lambda: Activation("a", "elu", {"beta": 1.0}),
        lambda: Activation("a", "elu", {"alpha": float("nan")}),
        lambda: Activation("a", "elu", {"alpha": None}),
        lambda: Embedding("e", G),
        lambda: BatchNorm("b", S, G * G, B),
        lambda: BatchNorm("b", S, -np.ones(5)),
        lambda: LayerNorm("l", W),
        lambda: JoinedBy("j", "dot"),
        lambda: Concatenated("c", 0),
        lambda: Reshaped("r", [-1, -1]),
        lambda: Permuted("p", [1, 0]),
        lambda: PooledSteps("p", "sum"),
        lambda: Convolution("c", W),
        lambda: Convolution("c", K, G),
        lambda: Convolution("c", K, padding="full"),
        lambda: Convolution("c", K, stride=0),
    ):
        with pytest.raises(ValueError):
            make()
    refusals: list[tuple[Component, list[np.ndarray]]] = [
        (Dense("part", W), [drawn(2, 4)]),
        (Dense("part", W), [drawn(5)]),
        (BatchNorm("part", S, G * G), [drawn(2, 7, 4)]),
        (BatchNorm("part", S, G * G, axis=2), [drawn(2, 5)]),
        (LayerNorm("part", G), [drawn(2, 7, 4)]),
        (PRelu("part", SLOPES), [drawn(2, 6, 5)]),
        (PRelu("part", SLOPES), [drawn(2, 7)]),
        (JoinedBy("part", "add"), [X, FLAT]),
        (JoinedBy("part", "subtract"), [X, X, X]),
        (Concatenated("part"), [X, FLAT]),
        (Concatenated("part", 4), [X, X]),
        (Reshaped("part", [4, -1]), [X]),
        (Permuted("part", [0, 2, 1]), [FLAT]),
        (RepeatedSteps("part", 2), [X]),
        (FirstFeatures("part", 6), [X]),
        (LastStep("part"), [FLAT]),
        (LastStep("part"), [X[:, :0]]),
        (PooledSteps("part", "mean"), [X[:, :0]]),
        (MaskedSteps("part"), [FLAT]),
        (Convolution("part", K), [X[:, :2]]),
        (Convolution("part", K), [X[..., :4]]),
        (Convolution("part", K, padding="same"), [FLAT]),
    ]
    for part, arrays in refusals:
        with pytest.raises(ValueError, match="part"):
            part(*arrays)
    for part in (JoinedBy("part", "maximum"), PooledSteps("part", "max")):
        with pytest.raises(NoGradient, match="part"):
            part.vjp(X, X)
