"""Vectors of a simulated machine: NumPy arrays that know which lanes are made of nothing.

`bad` of a vector has, for each lane, the number of the read that it came from of what nobody had
written, and 0 for a lane that is right. It goes where the lane goes: through arithmetic, into the
half of a `select` that was taken, into memory and out again.

Non-Goals: formulas to the last bit (tests/runtime/cpu/kernels/test_simd.py holds those).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from rnncc.common.machine import ITEMSIZE
from tests.support.cpu_simulator.memory import DTYPES, Space

Bad = np.ndarray | None


class Vec:
    """Lanes (or one number, or a row of a tile a row) and where bad ones came from."""

    __slots__ = ("bad", "values")
    __array_ufunc__ = None  # NumPy's scalars leave operators to us

    def __init__(self, values: np.ndarray, bad: Bad = None) -> None:
        self.values, self.bad = values, bad

    def __bool__(self) -> bool:
        raise TypeError("a branch on lanes")


def worse(a: Bad, b: Bad) -> Bad:
    if a is None:
        return b
    return a if b is None else np.maximum(a, b)


def of(x: Any) -> tuple[Any, Bad]:
    return (x.values, x.bad) if type(x) is Vec else (x, None)


def _binary(function: Callable[..., Any]) -> tuple[Callable[..., Vec], Callable[..., Vec]]:
    def forward(self: Vec, other: Any) -> Vec:
        if type(other) is Vec:
            return Vec(function(self.values, other.values), worse(self.bad, other.bad))
        return Vec(function(self.values, other), self.bad)

    def backward(self: Vec, other: Any) -> Vec:
        return Vec(function(other, self.values), self.bad)

    return forward, backward


_OPERATORS = {
    **{n: getattr(operator, n) for n in ("add", "sub", "mul", "truediv", "and_", "or_", "xor")},
    **{n: getattr(operator, n) for n in ("lt", "le", "gt", "ge", "eq", "ne")},
}
for _name, _function in _OPERATORS.items():
    _forward, _backward = _binary(_function)
    setattr(Vec, f"__{_name.rstrip('_')}__", _forward)
    if _name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(Vec, f"__r{_name.rstrip('_')}__", _backward)
Vec.__neg__ = lambda self: Vec(-self.values, self.bad)  # type: ignore[attr-defined]
Vec.__pos__ = lambda self: self  # type: ignore[attr-defined]
Vec.__invert__ = lambda self: Vec(~self.values, self.bad)  # type: ignore[attr-defined]
Vec.__hash__ = None  # type: ignore[assignment]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _libm(function: Callable[..., float]) -> Callable[..., np.ndarray]:
    return lambda x: np.array([function(float(e)) for e in x], x.dtype)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{n: getattr(np, n) for n in ("abs", "sqrt", "sign", "exp", "expm1", "log")},
    **{n: getattr(np, n) for n in ("floor", "ceil", "round", "trunc", "mod", "floor_divide")},
    **{n: getattr(np, n) for n in ("log1p", "tanh", "sin", "cos", "tan", "minimum", "maximum")},
    **{n: getattr(np, n) for n in ("log2", "log10", "exp2", "sinh", "cosh", "arcsin", "arccos")},
    **{n: getattr(np, n) for n in ("arctan", "arctan2", "arcsinh", "arccosh", "arctanh")},
    "erfc": _libm(math.erfc),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "log_sigmoid": lambda x: -_softplus(-x),
    "erf": _libm(math.erf),
    "pow": np.power,
}


class Vectors:
    """What `v` means: the operations on `width` lanes of `dtype`."""

    inf = math.inf

    def __init__(self, space: Space, dtype: str, width: int) -> None:
        self.space, self.dtype, self.width = space, dtype, width
        self.kind, self.size = DTYPES[dtype], ITEMSIZE[dtype]
        self.bytes = width * self.size
        for name, function in FUNCTIONS.items():
            setattr(self, name, self._pointwise(function))

    def _pointwise(self, function: Callable[..., Any]) -> Callable[..., Vec]:
        kind = self.kind

        def apply(a: Any, b: Any = None) -> Vec:
            x, bad = of(a)
            if b is None:
                return Vec(function(x), bad)
            y, other = of(b)
            return Vec(np.asarray(function(x, y), kind), worse(bad, other))

        return apply

    def fma(self, a: Any, b: Any, c: Any) -> Vec:
        (x, p), (y, q), (z, r) = of(a), of(b), of(c)
        bad = worse(worse(p, q), r)
        if self.size == 8:
            return Vec(x * y + z, bad)
        wide = [np.asarray(n, np.float64) for n in (x, y, z)]
        return Vec((wide[0] * wide[1] + wide[2]).astype(self.kind), bad)

    def select(self, mask: Vec, a: Any, b: Any) -> Vec:
        (x, p), (y, q) = of(a), of(b)
        bad = mask.bad
        if p is not None or q is not None:
            taken = np.where(mask.values, 0 if p is None else p, 0 if q is None else q)
            bad = worse(bad, taken.astype(np.int32))
        return Vec(np.where(mask.values, x, y).astype(self.kind, copy=False), bad)

    # ---- lanes to one, and back ------------------------------------------------------------------

    def splat(self, x: Any) -> Vec:
        value, bad = of(x)
        lanes = np.empty(self.width, self.kind)
        lanes[...] = value
        return Vec(lanes, None if bad is None else np.broadcast_to(bad, (self.width,)))

    def lane(self) -> Vec:
        return Vec(np.arange(self.width, dtype=self.kind))

    def _fold(self, x: Vec, function: Callable[..., Any]) -> Vec:
        values, bad = x.values, x.bad
        while len(values) > 1:
            half = len(values) // 2
            values = function(values[:half], values[half:])
        return Vec(values, None if bad is None else np.array([bad.max()], np.int32))

    def fold_add(self, x: Vec) -> Vec:
        return self._fold(x, np.add)

    def fold_mul(self, x: Vec) -> Vec:
        return self._fold(x, np.multiply)

    def fold_max(self, x: Vec) -> Vec:
        return self._fold(x, np.maximum)

    def fold_min(self, x: Vec) -> Vec:
        return self._fold(x, np.minimum)

    def _truth(self, mask: Vec) -> np.ndarray:
        if mask.bad is not None and mask.bad.any():
            raise self.space.fault(f"a branch on {self.space.sites[int(mask.bad.max())]}")
        return mask.values

    def any(self, mask: Vec) -> bool:
        return bool(self._truth(mask).any())

    def all(self, mask: Vec) -> bool:
        return bool(self._truth(mask).all())

    # ---- memory ----------------------------------------------------------------------------------

    def load(self, address: int) -> Vec:
        return Vec(*self.space.read(address, self.width, self.dtype))

    def store(self, address: int, x: Vec) -> None:
        self.space.write(address, x.values, self.dtype, x.bad)

    def broadcast(self, address: int) -> Vec:
        return self.splat(self.get(address))

    def get(self, address: int) -> Vec:
        return Vec(*self.space.read(address, 1, self.dtype))

    def put(self, address: int, x: Any) -> None:
        value, bad = of(x)
        self.space.write(address, np.array(value, self.kind).reshape(1), self.dtype, bad)

    def load_first(self, address: int, count: int) -> Vec:
        lanes, bad = np.zeros(self.width, self.kind), None
        count = min(count, self.width)
        if count > 0:
            lanes[:count], found = self.space.read(address, count, self.dtype)
            if found is not None:
                bad = np.zeros(self.width, np.int32)
                bad[:count] = found
        return Vec(lanes, bad)

    def store_first(self, address: int, x: Vec, count: int) -> None:
        count = min(count, self.width)
        if count > 0:
            bad = None if x.bad is None else np.broadcast_to(x.bad, x.values.shape)[:count]
            self.space.write(address, x.values[:count], self.dtype, bad)

    def store_part(self, address: int, x: Vec, left: int) -> None:
        self.store_first(address, x, left // self.size)

    # ---- tiles: a row of them a row of an array --------------------------------------------------

    def _rows(self, count: int, lanes: int, start: int, stride: int) -> Vec:
        rows = [self.space.read(start + m * stride, lanes, self.dtype) for m in range(count)]
        bad = None
        if any(b is not None for _, b in rows):
            bad = np.array([np.zeros(lanes, np.int32) if b is None else b for _, b in rows])
        return Vec(np.array([r for r, _ in rows], self.kind), bad)

    def load_tile(self, rows: int, vectors: int, start: int, stride: int) -> Vec:
        return self._rows(rows, vectors * self.width, start, stride)

    def zero_tile(self, rows: int, vectors: int) -> Vec:
        return Vec(np.zeros((rows, vectors * self.width), self.kind))

    def add_tile(self, tile: Vec, start: int, stride: int) -> Vec:
        return tile + self._rows(*tile.values.shape, start, stride)

    def store_tile(self, tile: Vec, start: int, stride: int) -> None:
        for m, row in enumerate(tile.values):
            bad = None if tile.bad is None else np.broadcast_to(tile.bad, tile.values.shape)[m]
            self.space.write(start + m * stride, row, self.dtype, bad)

    def fma_tile(self, tile: Vec, operand: int, stride: int, weight: int) -> Vec:
        weights = self.space.read(weight, tile.values.shape[1], self.dtype)
        return self._multiplied(tile, operand, stride, Vec(*weights))

    def _multiplied(self, tile: Vec, operand: int, stride: int, weights: Vec) -> Vec:
        return self.fma(self._rows(len(tile.values), 1, operand, stride), weights, tile)

    def transpose_tile(self, tile: Vec) -> Vec:
        return Vec(tile.values.T, None if tile.bad is None else tile.bad.T)

    def fetch_row(self, start: int, size: int) -> None:
        """Any address may be asked for."""

    # ---- narrow weights --------------------------------------------------------------------------

    def _words(self, address: int, count: int) -> tuple[np.ndarray, Bad]:
        values, bad = self.space.read(address, count, "int32")
        return values.view(np.uint32), bad

    def fma_low(self, tile: Vec, operand: int, stride: int, weight: int) -> Vec:
        words, bad = self._words(weight, tile.values.shape[1])
        return self._multiplied(tile, operand, stride, Vec((words << 16).view(np.float32), bad))

    def fma_high(self, tile: Vec, operand: int, stride: int, weight: int) -> Vec:
        words, bad = self._words(weight, tile.values.shape[1])
        high = (words & np.uint32(0xFFFF0000)).view(np.float32)
        return self._multiplied(tile, operand, stride, Vec(high, bad))

    def fma_bytes(self, tile: Vec, operand: int, stride: int, weight: int) -> Vec:
        values, bad = self.space.read(weight, tile.values.shape[1], "int8")
        return self._multiplied(tile, operand, stride, Vec(values.astype(np.float32), bad))

    def add_scaled(self, tile: Vec, part: Vec, scales: int) -> Vec:
        found = self.space.read(scales, tile.values.shape[1], self.dtype)
        return self.fma(part, Vec(*found), tile)

    def store_halves(self, address: int, low: Vec, high: Vec) -> None:
        words = _rounded(low.values) >> 16 | _rounded(high.values) & np.uint32(0xFFFF0000)
        bad = worse(low.bad, high.bad)
        self.space.write(address, words.view(np.int32), "int32", bad)

    def store_bytes(self, address: int, x: Vec) -> None:
        cut = np.nan_to_num(np.clip(np.rint(x.values), -128, 127))
        self.space.write(address, cut.astype(np.int8), "int8", x.bad)


def _rounded(x: np.ndarray) -> np.ndarray:
    """Words whose upper halves are x in bfloat16."""
    word = x.view(np.uint32)
    nearest = word + ((word >> 16 & np.uint32(1)) + np.uint32(0x7FFF))
    return np.where(np.isnan(x), word | np.uint32(0x00400000), nearest).astype(np.uint32)
