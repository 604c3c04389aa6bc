"""Initial weights: distributions, fans, streams, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rnncc import oracle
from rnncc.common.initializers import INITIALIZERS, arguments, draw, fans, stream
from rnncc.frontend.diagnostics import SpecError
from rnncc.frontend.library import INITIALIZERS as DECLARED
from rnncc.lowering.cell_interface import check_text

CELL = """cell: C
features: size
units: size
x: input[features]
h: state[units]
kernel: weight[features, units] = {}
h[t] = tanh(x[t] @ kernel + h[t-1])
return h[t]
"""


def filled(name: str, shape: tuple[int, ...], *given: object, seed: int = 0) -> np.ndarray:
    return draw(name, given, shape, "float64", stream(seed, "kernel"))


def test_every_name_of_the_language_is_defined() -> None:
    assert set(INITIALIZERS) == DECLARED


def test_short_names() -> None:
    for name in ("uniform", "normal"):
        np.testing.assert_array_equal(filled(name, (4, 5)), filled(f"random_{name}", (4, 5)))
    values = filled("uniform", (50,), -3.0, -2.0)
    assert (values >= -3).all() and (values <= -2).all()


def test_fans() -> None:
    assert fans(()) == (1, 1)
    assert fans((7,)) == (7, 7)
    assert fans((3, 4)) == (3, 4)
    assert fans((2, 3, 4, 5)) == (24, 30)


@pytest.mark.parametrize(
    ("name", "variance", "uniform"),
    [
        ("glorot_uniform", 2 / 1000, True),
        ("glorot_normal", 2 / 1000, False),
        ("he_uniform", 2 / 400, True),
        ("he_normal", 2 / 400, False),
        ("lecun_uniform", 1 / 400, True),
        ("lecun_normal", 1 / 400, False),
    ],
)
def test_scaled_distributions(name: str, variance: float, uniform: bool) -> None:
    values = filled(name, (400, 600))
    assert abs(values.mean()) < 0.01 * math.sqrt(variance)
    np.testing.assert_allclose(values.var(), variance, rtol=0.02)
    limit = math.sqrt(3 * variance) if uniform else 2 * math.sqrt(variance) / 0.87962566103423978
    assert limit * 0.98 < np.abs(values).max() <= limit


def test_plain_distributions() -> None:
    assert (filled("zeros", (3,)) == 0).all() and (filled("ones", ()) == 1).all()
    assert (filled("constant", (2, 2), 0.5) == 0.5).all()
    values = filled("random_uniform", (10_000,), 2.0, 3.0)
    assert 2 <= values.min() < 2.01 and 2.99 < values.max() < 3
    values = filled("random_normal", (10_000,), 1.0, 2.0)
    assert abs(values.mean() - 1) < 0.1 and abs(values.std() - 2) < 0.1
    values = filled("truncated_normal", (10_000,), 0.0, 1.0)
    assert 1.9 < np.abs(values).max() <= 2
    values = filled("variance_scaling", (100, 100), 1.0, "fan_out", "uniform")
    np.testing.assert_allclose(values.var(), 0.01, rtol=0.05)


@pytest.mark.parametrize("shape", [(4, 12), (12, 4), (5, 5), (3, 4, 8), (1, 6)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    values = filled("orthogonal", shape, 2.0).reshape(-1, shape[-1])
    narrow = values if values.shape[0] <= values.shape[1] else values.T
    np.testing.assert_allclose(narrow @ narrow.T, 4 * np.eye(len(narrow)), atol=1e-12)


def test_identity_and_unit_forget_bias() -> None:
    np.testing.assert_array_equal(filled("identity", (2, 3), 2.0), [[2, 0, 0], [0, 2, 0]])
    np.testing.assert_array_equal(filled("unit_forget_bias", (8,)), [0, 0, 1, 1, 0, 0, 0, 0])
    both = filled("unit_forget_bias", (2, 4))
    np.testing.assert_array_equal(both, [[0, 1, 0, 0], [0, 1, 0, 0]])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("orthogonal", (3,)),
        ("identity", (3,)),
        ("identity", (2, 2, 2)),
        ("unit_forget_bias", (6,)),
        ("unit_forget_bias", ()),
    ],
)
def test_shapes_that_cannot_be_filled(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=name):
        filled(name, shape)


def test_streams() -> None:
    np.testing.assert_array_equal(filled("random_normal", (5,)), filled("random_normal", (5,)))
    first = stream(1, "kernel").random(4)
    assert (first != stream(2, "kernel").random(4)).all()
    assert (first != stream(1, "bias").random(4)).all()
    # The same weights in either precision, up to rounding.
    double, single = (
        draw("glorot_uniform", (), (3, 4), t, stream(1, "k")) for t in ("float64", "float32")
    )
    assert single.dtype == np.float32
    np.testing.assert_array_equal(double.astype(np.float32), single)


def test_arguments_in_order_and_without_defaults() -> None:
    assert arguments("constant", (0.5,)) == (0.5,)
    assert arguments("random_uniform", (), {"maxval": 1.0}) == (-0.05, 1.0)
    assert arguments("random_uniform", (-0.05,), {"maxval": 0.05}) == ()
    assert arguments("variance_scaling", (), {"mode": "fan_avg"}) == (1.0, "fan_avg")
    with pytest.raises(ValueError, match=r"orthogonal\(gain=1.0\): .*scale"):
        arguments("orthogonal", (), {"scale": 2.0})
    with pytest.raises(ValueError, match="zeros"):
        arguments("zeros", (3,))
    with pytest.raises(ValueError, match="mode can't be 3"):
        arguments("variance_scaling", (), {"mode": 3})
    with pytest.raises(ValueError, match="called glorot"):
        arguments("glorot")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.25", 0.25), ("constant(0.25)", 0.25), ("constant(value=-2)", -2.0), ("ones", 1.0)],
)
def test_a_cell_says_how(text: str, expected: float) -> None:
    layer = oracle.layer_class(check_text(CELL.format(text)))(units=4, features=3)
    assert (layer.weights["kernel"] == expected).all()


def test_a_cell_says_it_wrong() -> None:
    with pytest.raises(SpecError, match=r"random_normal\(mean=0.0, stddev=0.05\)") as caught:
        oracle.layer_class(check_text(CELL.format("random_normal(sigma=2)")))
    assert "^^^" in str(caught.value)
    layer = oracle.layer_class(check_text(CELL.format("unit_forget_bias")))
    with pytest.raises(ValueError, match="weight kernel of C: unit_forget_bias fills"):
        layer(units=3, features=3)
