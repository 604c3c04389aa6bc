"""Every function of the language at values where functions go wrong, against what it is exactly.

`docs/numerics.md` says what differs: each row of its table is true here, and what no row speaks of
doesn't differ by more than a few units in the last place. Kernels of both dtypes and the
interpreter are asked, and gradients are held against torch's.

Non-Goals: how many ulps a function is off (`runtime/cpu/kernels/test_simd.py`); the sign of a zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import oracle
from rnncc.frontend.library import _POINTWISE
from rnncc.lowering.cell_interface import check_text
from rnncc.lowering.functions import FUNCTIONS as meanings
from tests.support.paths import ROOT

TOLERANCE = 8  # units of relative rounding
L = np.longdouble
Exact = Callable[[Any], Any]


def _each(function: Callable[[float], float]) -> Exact:
    return lambda x: np.vectorize(lambda v: function(float(v)), otypes=[L])(x)


def _sigmoid(x: Any) -> Any:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _flat_left(function: Exact) -> Exact:
    """With its limit, 0, at -inf."""
    return lambda x: np.where(np.isneginf(x), 0, function(x))


def _expm1(x: Any) -> Any:
    return np.expm1(np.minimum(x, 0))


def _squareplus(x: Any) -> Any:
    root = np.sqrt(x * x + 4)
    return np.where(np.isneginf(x), 0, np.where(x > 0, (x + root) / 2, 2 / (root - x)))


def _softsign(x: Any) -> Any:
    return np.where(np.isinf(x), np.sign(x), x / (1 + np.abs(x)))


def _soft_shrink(x: Any) -> Any:
    return np.where(np.isnan(x), x, np.sign(x) * np.maximum(np.abs(x) - L(0.5), 0))


def _softplus(x: Any) -> Any:
    return np.logaddexp(L(0), x)


_SCALE, _ALPHA = L("1.0507009873554804934193349852946"), L("1.6732632423543772848170429916717")
_ERFC = _each(math.erfc)
_BELL = 2 * np.sqrt(2 / L(np.pi))
FUNCTIONS: dict[str, Exact] = {
    "linear(x)": lambda x: x,
    "relu(x)": lambda x: np.maximum(x, 0),
    "relu(x, 0.1, 6, 1)": lambda x: np.where(x >= 6, 6, np.where(x <= 1, L("0.1") * (x - 1), x)),
    "relu6(x)": lambda x: np.clip(x, 0, 6),
    "leaky_relu(x)": lambda x: np.where(x <= 0, L("0.2") * x, x),
    "elu(x)": lambda x: np.where(x > 0, x, _expm1(x)),
    "celu(x, 2)": lambda x: np.where(x > 0, x, 2 * _expm1(x / 2)),
    "selu(x)": lambda x: _SCALE * np.where(x > 0, x, _ALPHA * _expm1(x)),
    "gelu(x)": _flat_left(lambda x: x * _ERFC(-x / np.sqrt(L(2))) / 2),
    "gelu(x, approximate=True)": _flat_left(
        lambda x: x * _sigmoid(_BELL * (x + L("0.044715") * x**3))
    ),
    "silu(x)": _flat_left(lambda x: x * _sigmoid(x)),
    "mish(x)": _flat_left(lambda x: x * np.tanh(_softplus(x))),
    "softplus(x)": _softplus,
    "softsign(x)": _softsign,
    "sigmoid(x)": _sigmoid,
    "tanh(x)": np.tanh,
    "hard_sigmoid(x)": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hard_silu(x)": _flat_left(lambda x: x * (np.clip(x + 3, 0, 6) / 6)),
    "hard_tanh(x)": lambda x: np.clip(x, -1, 1),
    "log_sigmoid(x)": lambda x: -_softplus(-x),
    "tanh_shrink(x)": lambda x: x - np.tanh(x),
    "hard_shrink(x)": lambda x: np.where(np.abs(x) <= 0.5, 0, x),
    "soft_shrink(x)": _soft_shrink,
    "squareplus(x)": _squareplus,
    "threshold(x, 1, 2)": lambda x: np.where(x <= 1, 2, x),
    "exp(x)": np.exp,
    "log(x)": np.log,
    "log1p(x)": np.log1p,
    "expm1(x)": np.expm1,
    "sqrt(x)": np.sqrt,
    "rsqrt(x)": lambda x: 1 / np.sqrt(x),
    "abs(x)": np.abs,
    "sign(x)": np.sign,
    "sin(x)": np.sin,
    "cos(x)": np.cos,
    "erf(x)": _each(math.erf),
    "square(x)": np.square,
    "stop_gradient(x)": lambda x: x,
    "exp2(x)": np.exp2,
    "log2(x)": np.log2,
    "log10(x)": np.log10,
    "erfc(x)": _ERFC,
    "tan(x)": np.tan,
    "sinh(x)": np.sinh,
    "cosh(x)": np.cosh,
    "arcsin(x)": np.arcsin,
    "arccos(x)": np.arccos,
    "arctan(x)": np.arctan,
    "arcsinh(x)": np.arcsinh,
    "arccosh(x)": np.arccosh,
    "arctanh(x)": np.arctanh,
    "floor(x)": np.floor,
    "ceil(x)": np.ceil,
    "round(x)": np.round,
    "trunc(x)": np.trunc,
    "int(x)": np.trunc,
    "float(x)": lambda x: x,
    "bool(x)": lambda x: np.where(x != 0, 1, 0),
    "logical_not(x)": lambda x: np.where(x == 0, 1, 0),
    "heaviside(x)": lambda x: np.heaviside(x, 0),
    "heaviside(x, 0.5)": lambda x: np.heaviside(x, L(0.5)),
    "x // 3": lambda x: np.floor_divide(x, 3),
    "clip(x, -1, 2)": lambda x: np.clip(x, -1, 2),
    "x ** 2": lambda x: x**2,
    "x ** 3": lambda x: x**3,
    "x ** 0.5": lambda x: np.power(x, L(0.5)),
    "x ** -1": lambda x: 1 / x,
    "x ** 0": lambda x: np.ones_like(x),
    "2 ** x": lambda x: L(2) ** x,
    "1 / x": lambda x: 1 / x,
    "-x": np.negative,
}
PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "x ** y": np.power,
    "x / y": np.divide,
    "x * y": np.multiply,
    "x - y": np.subtract,
    "arctan2(x, y)": np.arctan2,
    "x % y": np.mod,
    "x // y": np.floor_divide,
    "maximum(x, y)": np.maximum,
    "minimum(x, y)": np.minimum,
    "where(x < y, x, y)": lambda x, y: np.where(x < y, x, y),
    "where(x != y, 1, 0)": lambda x, y: np.where(x != y, 1, 0),
}


def special(dtype: str) -> np.ndarray:
    """Zeros, denormals, edges of what functions are clamped to, kinks, and what isn't finite."""
    info = np.finfo(dtype)
    sizes = [0, info.smallest_subnormal, info.tiny / 2, info.tiny, 1e-10, 1e-4, 0.1, 0.4999, 0.5]
    sizes += [0.5001, 0.9999, 1, 1.0001, 2, 2.5, 2.9999, 3, 3.0001, 4, 5, 6, 6.0001, 7, 8.16, 8.2]
    sizes += [9, 10, 12, 15, 20, 30, 37, 38, 50, 80, 87, 88.7, 88.73, 100, 104, 110, 500, 700, 708]
    sizes += [709.7, 710, 745, 746, 999, 1001, 1e4, 1e5, 1e10, 1e19, 1.9e19, 1e30, 1e38, info.max]
    with np.errstate(over="ignore"):
        x = np.array([*sizes, np.inf]).astype(dtype)
    return np.concatenate([x, -x, [np.nan]]).astype(dtype)


def text(names: Any, inputs: str = "x") -> str:
    """A cell that returns these functions of its inputs."""
    declared = "".join(f"{i}: input[n]\n" for i in inputs)
    values = ",\n    ".join(_timed(name, inputs) for name in names)
    return (
        f"cell: Functions\nn: size\n{declared}h: state[n]\n"
        f"h[t] = x[t]\nreturn (\n    {values},\n)\n"
    )


def _timed(name: str, inputs: str) -> str:
    letters = [*f" {name} "]
    for at in range(1, len(letters) - 1):
        alone = not (letters[at - 1].isalnum() or letters[at + 1].isalnum())
        if letters[at] in inputs and alone and letters[at - 1] != "_" and letters[at + 1] != "_":
            letters[at] = f"{letters[at]}[t]"
    return "".join(letters).strip()


# ---- what is said ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the table. outcome: "within 1e-8" of what is exact, or the number itself."""

    function: str
    low: float
    high: float
    dtypes: tuple[str, ...]
    outcome: str

    def speaks_of(self, function: str, x: float, dtype: str) -> bool:
        return function == self.function and self.low <= x <= self.high and dtype in self.dtypes

    def allows(self, got: float, exact: float) -> bool:
        if self.outcome.startswith("within "):
            return abs(got - exact) <= float(self.outcome.removeprefix("within "))
        said = float(self.outcome)
        return got == said or (math.isnan(got) and math.isnan(said))


@cache
def rows() -> tuple[Row, ...]:
    lines = (ROOT / "docs" / "numerics.md").read_text().splitlines()
    cells = [[c.strip().strip("`") for c in line.split("|")[1:-1]] for line in lines]
    return tuple(
        Row(c[0], float(c[1]), float(c[2]), tuple(c[3].split(", ")), c[4])
        for c in cells
        if len(c) == 6 and c[0] != "function" and not c[0].startswith("-")
    )


def flushed(x: np.ndarray, dtype: str) -> np.ndarray:
    """Denormals are zeros."""
    return np.where(np.abs(x) < np.finfo(dtype).tiny, x * 0, x)


def differences(
    name: str, dtype: str, x: np.ndarray, got: np.ndarray, exact: Exact
) -> Iterator[tuple[float, float, float]]:
    """(x, what came out, what is exact), where denormals explain nothing."""
    with np.errstate(all="ignore"):
        from_zero = exact(flushed(x, dtype).astype(L))
        candidates = [c.astype(dtype) for c in (exact(x.astype(L)), from_zero)]
        candidates += [flushed(c, dtype) for c in candidates]
        fits = np.zeros(x.shape, bool)
        for right in candidates:
            room = TOLERANCE * np.finfo(dtype).eps * np.abs(right) + np.finfo(dtype).tiny
            same = (got == right) | (np.isnan(got) & np.isnan(right))
            fits |= same | (np.isfinite(right) & (np.abs(got - right) <= room))
    for at in np.flatnonzero(~fits):
        yield float(x[at]), float(got[at]), float(candidates[0][at])


def unexplained(found: Any, dtype: str, seen: set[Row]) -> list[str]:
    """What no row allows; the rows that were needed are noted."""
    left = []
    for name, x, got, exact in found:
        allowing = [r for r in rows() if r.speaks_of(name, x, dtype) and r.allows(got, exact)]
        seen.update(allowing)
        if not allowing:
            left.append(f"{dtype} {name} at {x!r}: {got!r}, exactly {exact!r}")
    return left


@cache
def values() -> tuple[list[str], frozenset[Row]]:
    """What nothing explains, and the rows that something needed."""
    left: list[str] = []
    seen: set[Row] = set()
    source = text(FUNCTIONS)
    for dtype in ("float32", "float64"):
        classes = [rnncc.compile_text(source, dtype=dtype)]
        if dtype == "float64":
            classes.append(oracle.layer_class(check_text(source)))
        x = special(dtype)
        for cls in classes:
            with np.errstate(all="ignore"):
                outputs = cls()(x[None, None])
            for (name, exact), got in zip(FUNCTIONS.items(), outputs, strict=True):
                found = [(name, *d) for d in differences(name, dtype, x, got[0], exact)]
                left += unexplained(found, dtype, seen)
    return left, frozenset(seen)


# ---- and what is so ----------------------------------------------------------------------------


def test_every_function_is_asked() -> None:
    asked = {meanings[name.split("(")[0]] for name in FUNCTIONS if "(" in name}
    assert {meanings[name] for name in _POINTWISE.split()} <= asked


def test_what_differs_is_in_the_table() -> None:
    left, _ = values()
    assert not left, "\n".join(left)


def test_the_table_says_nothing_else() -> None:
    """Each row is true, and about something."""
    idle = [r for r in rows() if r not in values()[1] | gradients()[1]]
    assert len(rows()) > 10 and not idle, idle


def test_functions_of_two_values_are_numpys() -> None:
    numbers = [0.0, 1.0, 0.5, 2.0, 3.0, 1e-3, 1e10, np.inf]
    grid = np.array([*numbers, *(-n for n in numbers), np.nan])
    x, y = (a.ravel() for a in np.meshgrid(grid, grid))
    source = text(PAIRS, "xy")
    for cls in (
        rnncc.compile_text(source),
        rnncc.compile_text(source, dtype="float64"),
        oracle.layer_class(check_text(source)),
    ):
        dtype = cls.maker.cell.dtype
        with np.errstate(all="ignore"):
            outputs = cls()((x[None, None], y[None, None]))
            for (name, exact), got in zip(PAIRS.items(), outputs, strict=True):
                a, b = (v.astype(dtype).astype(L) for v in (x, y))
                right = flushed(exact(a, b).astype(dtype), dtype)
                same = (got[0] == right) | (np.isnan(got[0]) & np.isnan(right))
                near = np.abs(got[0] - right) <= TOLERANCE * np.finfo(dtype).eps * np.abs(right)
                wrong = ~(same | (np.isfinite(right) & near))
                assert not wrong.any(), (name, dtype, x[wrong], y[wrong], got[0][wrong])


# ---- gradients ---------------------------------------------------------------------------------

# What torch calls them, where that isn't torch.<name> or torch.nn.functional.<name>.
_SAME = (
    *("relu", "sigmoid", "tanh", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "abs"),
    *("sin", "cos", "erf", "floor", "ceil", "round", "trunc", "exp2", "log2", "log10", "erfc"),
    *("tan", "sinh", "cosh", "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh"),
)
TORCH: dict[str, str] = {
    "relu6(x)": "F.relu6(x)",
    "leaky_relu(x)": "F.leaky_relu(x, 0.2)",
    "elu(x)": "F.elu(x)",
    "celu(x, 2)": "F.celu(x, 2)",
    "selu(x)": "F.selu(x)",
    "gelu(x)": "F.gelu(x)",
    "silu(x)": "F.silu(x)",
    "mish(x)": "F.mish(x)",
    "softplus(x)": "F.softplus(x)",
    "softsign(x)": "F.softsign(x)",
    "hard_sigmoid(x)": "F.hardsigmoid(x)",
    "hard_silu(x)": "F.hardswish(x)",
    "log_sigmoid(x)": "F.logsigmoid(x)",
    "hard_shrink(x)": "F.hardshrink(x)",
    "soft_shrink(x)": "F.softshrink(x)",
    "threshold(x, 1, 2)": "F.threshold(x, 1, 2)",
    **{f"{name}(x)": f"torch.{name}(x)" for name in _SAME},
    "x ** 2": "x ** 2",
    "x ** 3": "x ** 3",
    "1 / x": "1 / x",
    "2 ** x": "2 ** x",
}
AT = [0.0, 1e-10, 0.1, 0.4999, 1.0, 2.0, 4.0, 7.0, 20.0, 80.0, 700.0, 710.0, 1001.0, np.inf]


@cache
def gradients() -> tuple[list[str], frozenset[Row]]:
    torch = pytest.importorskip("torch")
    scope = {"torch": torch, "F": torch.nn.functional}
    x = np.array([*AT, *(-v for v in AT[1:])])
    left: list[str] = []
    seen: set[Row] = set()
    for name, theirs in TORCH.items():
        layer = oracle.layer_class(check_text(text([name]).replace(",\n)", "\n)")))()
        with np.errstate(all="ignore"):
            y, pullback = layer.vjp(x[None, None])
            got = pullback(np.ones_like(y)).inputs[0, 0]
        given = torch.tensor(x, requires_grad=True)
        eval(theirs, {**scope, "x": given}).sum().backward()
        right = given.grad.numpy()
        with np.errstate(all="ignore"):
            near = np.abs(got - right) <= 1e-12 + 1e-7 * np.abs(right)  # torch's 1 / 6 is a float32
            same = (got == right) | (np.isnan(got) & np.isnan(right))
        at = np.flatnonzero(~(same | (np.isfinite(right) & near)))
        found = [(f"gradient of {name}", float(x[i]), float(got[i]), float(right[i])) for i in at]
        left += unexplained(found, "float64", seen)
    return left, frozenset(seen)


def test_gradients_are_torchs() -> None:
    left, _ = gradients()
    assert not left, "\n".join(left)


def test_gradients_of_powers_are_torchs() -> None:
    """Where the base isn't negative: there a power has no slope in its exponent, and gets 0."""
    torch = pytest.importorskip("torch")
    numbers = [0.0, 1.0, 0.5, 2.0, 3.0, 1e-3, 1e10, np.inf]
    grid = np.array([*numbers, *(-n for n in numbers)])
    x, y = (a.ravel() for a in np.meshgrid(grid, grid))
    layer = oracle.layer_class(check_text(text(["x ** y"], "xy").replace(",\n)", "\n)")))()
    with np.errstate(all="ignore"):
        out, pullback = layer.vjp((x[None, None], y[None, None]))
        dx, dy = (g[0, 0] for g in pullback(np.ones_like(out)).inputs)
    base, exponent = (torch.tensor(a, requires_grad=True) for a in (x, y))
    (base**exponent).sum().backward()
    np.testing.assert_allclose(dx, base.grad.numpy(), rtol=1e-12)
    positive = x >= 0
    np.testing.assert_allclose(dy[positive], exponent.grad.numpy()[positive], rtol=1e-12)
    finite = ~positive & np.isfinite(out.ravel())
    assert not dy[finite].any() and np.isfinite(dy[finite]).all()
