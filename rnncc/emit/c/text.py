"""A CUnit as the texts of its files.

Non-Goals: what the unit is (`unit`); where the files go (`export`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from rnncc.common import formulas
from rnncc.common.template_loader import render
from rnncc.common.version import __version__
from rnncc.emit.c.narrow_weights import PARTS
from rnncc.emit.c.parts import CArray, CUnit

LINE = 8  # numbers of an array on a line

# What a function of templates/c calls, which stands before it.
CALLS: dict[str, tuple[str, ...]] = {
    "flush": ("absolute",),
    "abs": ("absolute",),
    "exp": ("clamp", "bits"),
    "expm1_bounded": ("bits",),
    "expm1": ("clamp", "exp", "expm1_bounded"),
    "sigmoid": ("clamp", "bits"),
    "log_sigmoid": ("minimum", "absolute"),
    "floor_divide": ("round",),
}
TANH = {32: ("clamp",), 64: ("absolute", "clamp", "expm1_bounded")}


@dataclass(frozen=True)
class MathFunction:
    """A function of one line or more by way of math.h. `f` ends math.h's names of floats."""

    parameters: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class CFile:
    """What a template of C reads, beside the unit."""

    u: CUnit
    version: str = __version__

    @property
    def bits(self) -> int:
        return 64 if self.u.real == "double" else 32

    @property
    def ports(self) -> list[tuple[str, str]]:
        """Pointers, and what is behind them."""
        found = []
        for i in self.u.inputs:
            found.append((f"in_{i.name}", f"{i.elements} numbers {PER[i.each_step]}"))
        return found + [(f"out_{o.name}", f"{o.elements} numbers a step") for o in self.u.outputs]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.ports]


class CSource(CFile):
    """NAME.c"""

    block = formulas.SUM_BLOCK

    @property
    def c(self) -> SimpleNamespace:
        return constants(self.u.prefix, self.bits)

    @property
    def functions(self) -> list[str]:
        return in_order(self.u.functions, self.bits)

    @property
    def parameters(self) -> str:
        return ", ".join(_declared(self.u, "real"))

    @property
    def parts(self) -> int:
        """k's of a weight."""
        return PARTS[self.u.storage]

    @property
    def scaled(self) -> bool:
        return self.u.storage == "int8"

    @property
    def weight(self) -> str:
        """The type of weights that sums read."""
        return "uint32_t" if self.u.storage else "real"

    @property
    def group(self) -> int:
        """k's that are summed from zero in a long sum."""
        return formulas.SCALE_GROUP if self.u.storage == "int8" else self.block

    @property
    def restricted(self) -> str:
        return ", ".join(_declared(self.u, "real", "*restrict "))

    @property
    def apart(self) -> str:
        """What stands before a function that isn't written out where it is called."""
        return f"{self.u.prefix.upper()}_APART static"

    @property
    def few(self) -> str:
        return f"static {self.u.prefix.upper()}_FEW"

    @property
    def intrinsics(self) -> SimpleNamespace:
        """Parts of their names, and a type."""
        single = SimpleNamespace(kind="ps", ending="", neon="float32x4_t", number="f32")
        double = SimpleNamespace(kind="pd", ending="d", neon="float64x2_t", number="f64")
        return {32: single, 64: double}[self.bits]

    @property
    def wide(self) -> bool:
        """Whether tiles are whole vectors of 64 bytes."""
        return all(width * self.bits % 512 == 0 for width in (*self.u.widths, *self.u.narrow))

    @property
    def number(self) -> str:
        return {32: "number##f", 64: "number"}[self.bits]

    @property
    def fma(self) -> str:
        return {32: "fmaf", 64: "fma"}[self.bits]

    @property
    def fast_fma(self) -> str:
        """What says that a machine has the instruction."""
        return {32: "FP_FAST_FMAF", 64: "FP_FAST_FMA"}[self.bits]

    @property
    def starts(self) -> list[tuple[CArray, str]]:
        """States, and what each begins with."""
        return [(s, "0" if s.values is None else f"{_start(self.u, s)}[j]") for s in self.u.states]


class CHeader(CFile):
    """NAME.h"""

    @property
    def declared(self) -> str:
        return ", ".join(_declared(self.u, f"{self.u.prefix}_real"))

    @property
    def moved(self) -> set[str]:
        """States that have a place for what they become."""
        return {name for k in self.u.kernels for name, _ in k.advances}

    @property
    def about(self) -> str:
        return " ".join(f"{name}: {what}." for name, what in self.ports)


@dataclass(frozen=True)
class CNumbers:
    """An array as a file has it."""

    name: str
    shape: tuple[int, ...]
    elements: int
    type: str
    lines: list[str]


class CWeights(CFile):
    """NAME_weights.h"""

    @property
    def arrays(self) -> list[CNumbers]:
        starts = [(_start(self.u, s), s) for s in self.u.states if s.values is not None]
        named = [*((a.name, a) for a in self.u.weights), *starts]
        types = {"real": "real", "weight": f"{self.u.prefix}_weight"}
        return [
            CNumbers(
                *(name, a.shape or (1,), max(a.elements, 1), types[a.kind]),
                self._lines(a),
            )
            for name, a in named
        ]

    def _lines(self, array: CArray) -> list[str]:
        values = array.values
        if array.kind == "weight" and self.u.storage:
            assert values is not None
            return in_lines([f"0x{v:08x}" for v in values.ravel().tolist()], LINE)
        return number_lines(values, self.bits == 64)


PER = {True: "a step", False: "for all steps"}


def texts(u: CUnit) -> dict[str, str]:
    """The files' texts by their names."""
    return {
        f"{u.prefix}.c": render("c/unit.c.jinja", m=CSource(u)),
        f"{u.prefix}.h": render("c/unit.h.jinja", m=CHeader(u)),
        f"{u.prefix}_weights.h": render("c/weights.h.jinja", m=CWeights(u)),
    }


def _declared(u: CUnit, real: str, star: str = "*") -> list[str]:
    inputs = [f"const {real} {star}in_{i.name}" for i in u.inputs]
    return inputs + [f"{real} {star}out_{o.name}" for o in u.outputs]


def _start(u: CUnit, state: CArray) -> str:
    return f"{u.prefix}_start_{state.name}"


def in_order(wanted: set[str], bits: int) -> list[str]:
    """Those functions and all that they call, each behind what it calls."""
    found: list[str] = []

    def add(name: str) -> None:
        for other in TANH[bits] if name == "tanh" else CALLS.get(name, ()):
            add(other)
        if name not in found:
            found.append(name)

    for name in sorted(wanted - {"fma"}):
        add(name)
    return found


def number_lines(values: np.ndarray | None, double: bool) -> list[str]:
    """The elements of an array's initializer, as lines."""
    assert values is not None
    flat = np.asarray(values, np.float64).ravel()
    if not double:
        flat = flat.astype(np.float32)
    return in_lines([_number(v, double) for v in flat] or ["0"], LINE)


def in_lines(shown: Sequence[str], count: int) -> list[str]:
    return [", ".join(shown[i : i + count]) + "," for i in range(0, len(shown), count)]


def _number(value: np.floating, double: bool) -> str:  # type: ignore[type-arg]
    """The very number: as many digits as tell it from its neighbours."""
    if not np.isfinite(value):
        return "NAN" if np.isnan(value) else f"{'-' if value < 0 else ''}INFINITY"
    text = np.format_float_scientific(value, unique=True, trim="0")
    return text if double else f"{text}f"


# ---- formulas -----------------------------------------------------------------------------------


def _r(value: float, bits: int) -> str:
    rounded = float(np.float32(value)) if bits == 32 else float(value)
    return f"R({rounded!r})"


def constants(prefix: str, bits: int) -> SimpleNamespace:
    """What templates/c/functions.jinja writes of `common.formulas`."""

    def r(value: float) -> str:
        return _r(value, bits)

    def polynomial(x: str, coefficients: Sequence[float]) -> str:
        """By Estrin's scheme, as `vector_math.polynomial`."""
        terms = [r(c) for c in coefficients]
        while len(terms) > 1:
            halves = zip(terms[::2], terms[1::2], strict=False)
            pairs = [f"{prefix}_fma({high}, {x}, {low})" for low, high in halves]
            terms = pairs + terms[len(pairs) * 2 :]
            x = f"({x} * {x})"
        return terms[0]

    high, low = formulas.LN2[bits]
    log2e, log2e_low = formulas.LOG2E[bits]
    first, second, *rest = formulas.EXP2_TAIL[bits]
    bound = 87.0 if bits == 32 else 708.0
    top, bottom = formulas.TANH_TOP, formulas.TANH_BOTTOM
    exp_range = (-105.0, 89.0) if bits == 32 else (-746.0, 710.0)
    expm1_range = (-20.0, 88.0) if bits == 32 else (-40.0, 709.0)
    f = "" if bits == 64 else "f"
    return SimpleNamespace(
        double=bits == 64,
        smallest={32: "FLT_MIN", 64: "DBL_MIN"}[bits],
        fabs=f"fabs{f}",
        word=f"uint{bits}_t",
        bias={32: 127, 64: 1023}[bits],
        mantissa=formulas.MANTISSA[bits],
        rounder=r(formulas.ROUNDER[bits]),
        log2e=r(1.4426950408889634),
        minus_ln2_high=r(-high),
        minus_ln2_low=r(-low),
        exp_low=r(exp_range[0]),
        exp_high=r(exp_range[1]),
        exp_tail=polynomial("r", formulas.EXP_TAIL[bits]),
        expm1_low=r(expm1_range[0]),
        expm1_high=r(expm1_range[1]),
        sigmoid_low=r(-bound),
        sigmoid_high=r(bound),
        minus_log2e_high=r(-log2e),
        minus_log2e_low=r(-log2e_low),
        exp2_first=r(first),
        exp2_second=r(second),
        exp2_tail=polynomial("f", rest),
        tanh_low=r(-formulas.TANH_BOUND),
        tanh_high=r(formulas.TANH_BOUND),
        tanh_one=polynomial("r", top[:2]),
        tanh_cubic=polynomial("r", top[2:4]),
        tanh_last=r(top[4]),
        tanh_bottom=polynomial("r", bottom),
        library=library(prefix, f),
    )


def library(prefix: str, f: str) -> dict[str, MathFunction]:
    """What is rare enough to be math.h's."""
    names = {
        "log": "log", "log1p": "log1p", "sqrt": "sqrt", "erf": "erf", "erfc": "erfc",
        "sin": "sin", "cos": "cos", "tan": "tan", "sinh": "sinh", "cosh": "cosh",
        "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh",
        "arccosh": "acosh", "arctanh": "atanh", "exp2": "exp2", "log2": "log2",
        "log10": "log10", "round": "rint", "floor": "floor", "ceil": "ceil", "trunc": "trunc",
    }  # fmt: skip
    found = {n: MathFunction("real x", (f"return {c}{f}(x);",)) for n, c in names.items()}
    two = {"pow": "pow", "arctan2": "atan2"}
    found |= {n: MathFunction("real x, real y", (f"return {c}{f}(x, y);",)) for n, c in two.items()}
    found["rsqrt"] = MathFunction("real x", (f"return R(1.0) / sqrt{f}(x);",))
    found["log_sigmoid"] = MathFunction(
        "real x",
        (
            f"const real smaller = {prefix}_minimum(x, R(0.0));",
            f"return smaller - log1p{f}(exp{f}(-{prefix}_absolute(x)));",
        ),
    )
    found["mod"] = MathFunction(
        "real x, real y",
        (
            f"const real left = fmod{f}(x, y);",
            "const real moved = (left < 0) != (y < 0) && left == left && y == y ? left + y : left;",
            f"return left == 0 ? copysign{f}(left, y) : moved;",
        ),
    )
    found["floor_divide"] = MathFunction(
        "real x, real y",
        (
            f"const real left = fmod{f}(x, y);",
            "const real whole = (x - left) / y;",
            "const real below = left != 0 && (left < 0) != (y < 0) ? whole - 1 : whole;",
            f"return y == 0 ? x / y : {prefix}_round(below);",
        ),
    )
    return found
