"""A seed -> a case: a cell of any shape, and a call of it with any options.

An expression is made for a shape, from the outside in. What values stay between is known of every
one, so that logarithms and divisions are guarded (`log(c[t-1] + 9)`) and states stay small.

Non-Goals: cells that make sense.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.attack.cells.functions import POINTWISE
from tests.attack.cells.reference import Bound
from tests.attack.cells.terms import (
    ONE,
    Dim,
    Dims,
    Term,
    image,
    number,
    powers,
    products,
    quotients,
)
from tests.attack.cells.text import normal, read, read_function
from tests.attack.cells.tree import (
    Apply,
    Array,
    Call,
    Case,
    Cell,
    Cut,
    Declaration,
    Equation,
    Expr,
    Function,
    Group,
    If,
    Item,
    Num,
    Option,
    Ref,
    Scalar,
    Size,
    Word,
    mapped,
    pruned,
    walk,
)

MOST_ELEMENTS = 120
MOST = 40.0  # of an expression's values, before it is tamed
NAMES = ("units", "features", "heads", "places", "width")
EXTENTS = (1, 2, 2, 2, 3, 3, 4, 5, 9)
NUMBERS = (0.5, 0.25, 2, 1.5, 3, -0.7, 0.1, -1, 1)
SQUASHING = ("tanh", "sigmoid", "softsign", "sin", "erf", "hard_tanh", "cos", "hard_sigmoid")
POSITIVE = {"log": 0.3, "sqrt": 0.2, "rsqrt": 0.3, "log1p": -0.6, "log2": 0.3, "log10": 0.3}
POSITIVE["arccosh"] = 1.2
# What arguments are kept below.
SMALL = dict.fromkeys(
    ("exp", "exponential", "expm1", "elu", "celu", "selu", "exp2", "sinh", "cosh"), 3.0
)
SMALL |= {"arcsin": 0.9, "arccos": 0.9, "arctanh": 0.9, "tan": 1.2}
# Arguments of functions that take some, chosen from.
KEYWORDS: dict[str, tuple[tuple[tuple[str, Expr], ...], ...]] = {
    "relu": (
        (),
        (("negative_slope", Num(0.1)),),
        (("max_value", Num(0.5)), ("threshold", Num(0.2))),
        (("negative_slope", Num(0.3)), ("threshold", Num(-0.15))),
    ),
    "leaky_relu": ((), (("negative_slope", Num(0.05)),)),
    "elu": ((), (("alpha", Num(0.7)),)),
    "celu": ((), (("alpha", Num(1.7)),)),
    "gelu": ((), (("approximate", Num(True)),), (("approximate", Num(False)),)),
    "hard_shrink": ((), (("threshold", Num(0.3)),)),
    "soft_shrink": ((), (("threshold", Num(0.25)),)),
    "squareplus": ((), (("b", Num(2)),)),
    "threshold": ((("threshold", Num(0.2)), ("default", Num(-0.4))),),
    "heaviside": ((), (("at_zero", Num(0.5)),)),
}
LAMBDAS = (
    "lambda v: v / (1 + abs(v))",
    "lambda v: tanh(v) * 0.5 + v * v",
    "lambda v: where(v > 0.2, v, 0.1 * v)",
    "lambda v: stop_gradient(v) * v - 1",
    "lambda v: maximum(v, 0.2 - v)",
    "lambda v: softplus(-v) + 1",
    "lambda v: 1 - sigmoid(3 * v)",
)
LAMBDAS_OF_TWO = (
    "lambda a, b: a * b + 1",
    "lambda a, b: where(a > b, a - b, b)",
    "lambda a, b: a / (b * b + 1)",
    "lambda a, b: minimum(a, tanh(b))",
    "lambda a, b: sigmoid(a) * b + (1 - sigmoid(a)) * a",
)
ALONG = ("softmax", "log_softmax", "cumsum", "cumax", "layer_norm", "rms_norm", "flip")
BY_NAME = ("layer_norm", "rms_norm", "concat", "max", "min")  # take an axis by its name alone
REDUCTIONS = ("sum", "mean", "max", "min", "prod", "norm")
LETTERS = "abijklmnp"


class NoWay(Exception):
    """This way of making an expression doesn't lead to what was wanted."""


@dataclass
class _Draft:
    """A cell being made."""

    rng: random.Random
    sizes: dict[str, int] = field(default_factory=dict)
    declared_sizes: list[Size] = field(default_factory=list)
    dims: list[Dim] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    scalars: list[Scalar] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    pool: list[Term] = field(default_factory=list)  # names with values of their own
    own: list[Term] = field(default_factory=list)  # weights and constants
    options: dict[str, Option] = field(default_factory=dict)
    implied: bool = False  # whether a rate decides what flag is
    overrides: dict[str, str | None] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    draws: bool = False
    headed: bool = False  # whether head is units // heads

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def extent(self, shape: Dims) -> int:
        return math.prod(d.value(self.sizes) for d in shape)

    # ---- shapes ----

    def dim(self) -> Dim:
        d = self.rng.choice(self.dims)
        roll = self.rng.random()
        if roll < 0.1:
            return Dim.of(self.rng.randint(1, 4))
        if roll < 0.2:
            return d * self.rng.randint(2, 4)
        if roll < 0.24:
            return d + self.rng.choice([*self.dims, ONE])
        return d

    def shape(self, ranks: tuple[int, ...] = (0, 1, 1, 1, 2, 2, 3)) -> Dims:
        for _ in range(20):
            shape = tuple(self.dim() for _ in range(self.rng.choice(ranks)))
            if self.extent(shape) <= MOST_ELEMENTS:
                return shape
        return ()

    def fits(self, shape: Dims, rank: int = 3) -> Dims:
        if len(shape) > rank or self.extent(shape) > MOST_ELEMENTS:
            raise NoWay
        return shape

    def under(self, shape: Dims) -> Dims:
        """A shape that spreads to this one."""
        roll = self.rng.random()
        if roll < 0.6 or not shape:
            return shape
        if roll < 0.75:
            return ()
        if roll < 0.88:
            return shape[self.rng.randint(0, len(shape)) :]
        at = self.rng.randrange(len(shape))
        return (*shape[:at], ONE, *shape[at + 1 :])

    # ---- names ----

    def weight(self, shape: Dims, kind: str = "weight") -> Term:
        count = sum(a.kind == kind for a in self.arrays)
        name = f"{'W' if kind == 'weight' else 'K'}{count}"
        start = Ref(self.rng.choice(("glorot_uniform", "zeros", "ones", "normal")))
        declared = Array(kind, name, tuple(d.expr() for d in shape), start)
        self.arrays.append(declared)
        term = Term(Ref(name), shape, -0.9, 0.9, False)
        self.own.append(term)
        return term

    def named(self, term: Term) -> Term:
        """Under a name of its own, if that isn't one."""
        if isinstance(term.expr, Ref | Num):
            return term
        name = f"v{len(self.equations)}"
        self.equations.append(Equation(((name, False),), term.expr))
        term = replace(term, expr=Ref(name))
        self.pool.append(term)
        return term

    # ---- expressions ----

    def make(self, shape: Dims, depth: int, plain: bool = False) -> Term:
        """An expression of this shape; plain: of weights and constants alone."""
        if self.extent(shape) > MOST_ELEMENTS or len(shape) > 4:
            raise NoWay
        if depth <= 0 or self.chance(0.1):
            return self.leaf(shape, plain)
        for _ in range(6):
            way = self.rng.choice(WAYS)
            try:
                found = self.tame(way(self, shape, depth - 1, plain))
            except NoWay:
                continue
            assert len(found.shape) == len(shape), way
            if self.chance(0.15) and not plain:
                found = self.named(found)
            return found
        return self.leaf(shape, plain)

    def leaf(self, shape: Dims, plain: bool = False) -> Term:
        known = [t for t in (self.own if plain else [*self.pool, *self.own]) if t.shape == shape]
        if known and self.chance(0.7 if plain else 0.85):
            return self.back(self.rng.choice(known))
        if not plain:
            # From something else that is there: a sum, a product, spread.
            for _ in range(4):
                try:
                    return self.tame(self.rng.choice(BRIDGES)(self, shape, 0, plain))
                except NoWay:
                    pass
        return self.weight(shape, "constant" if self.chance(0.12) else "weight")

    def back(self, term: Term) -> Term:
        """Sometimes of an earlier step."""
        match term.expr:
            case Ref(name, back) if back is not None and self.chance(0.12):
                later = back + self.rng.choice((1, 1, 2))
                low, high = min(term.low, 0.0), max(term.high, 0.0)
                return term.now(Ref(name, later), low, high)
        return term

    def tame(self, term: Term, most: float = MOST) -> Term:
        """The same, with values that stay small."""
        if term.most <= most:
            return term
        roll = self.rng.random()
        if roll < 0.4:
            factor = 2.0 ** -math.ceil(math.log2(term.most / most * 2))
            wide = term.most * factor
            return term.now(Apply("*", (Num(factor), term.expr)), -wide, wide)
        if roll < 0.5:
            limit = min(most, 1.5)
            clipped = Apply("clip", (term.expr, Num(-limit), Num(limit)))
            return term.now(clipped, -limit, limit)
        squashed = Apply(self.rng.choice(SQUASHING), (term.expr,))
        squash = term.now(squashed, -1.0, 1.0)
        if most < 1:
            return squash.now(Apply("*", (Num(most), squashed)), -most, most)
        return squash

    def above(self, term: Term, least: float) -> Term:
        """Guarded: values are at least this."""
        if term.low >= least:
            return term
        roll = self.rng.random()
        if roll < 0.5:
            shift = math.ceil(least - term.low + 0.5)
            moved = Apply("+", (term.expr, Num(shift)))
            return term.now(moved, term.low + shift, term.high + shift)
        if roll < 0.7:
            moved = Apply("+", (Apply("abs", (term.expr,)), Num(max(least, 0.5))))
            return term.now(moved, max(least, 0.5), term.most + max(least, 0.5))
        if roll < 0.85:
            squared = Apply("**", (term.expr, Num(2)))
            moved = Apply("+", (squared, Num(max(least, 0.5))))
            return term.now(moved, max(least, 0.5), term.most**2 + max(least, 0.5))
        moved = Apply("+", (Apply("softplus", (term.expr,)), Num(max(least, 0.5))))
        return term.now(moved, max(least, 0.5), term.most + 1.3 + max(least, 0.5))

    def unary(self, name: str, term: Term) -> Term:
        if name in POSITIVE:
            term = self.above(term, POSITIVE[name])
        if name in SMALL:
            term = self.tame(term, SMALL[name])
        keywords = self.rng.choice(KEYWORDS.get(name, ((),)))
        function = Function(name, ("v",), Apply(name, (Ref("v"),), keywords))
        low, high = image(function, term)
        return term.now(Apply(name, (term.expr,), keywords), low, high)

    def condition(self, shape: Dims, depth: int, plain: bool) -> Term:
        """Truth, spread or not."""
        if self.chance(0.2):
            a, b = (self.condition(shape, 0, plain) for _ in range(2))
            joined = Apply(self.rng.choice(("and", "or")), (a.expr, b.expr))
            return Term(joined, shape, 0, 1, a.batched or b.batched)
        if self.chance(0.1):
            a = self.condition(shape, 0, plain)
            return a.now(Apply(self.rng.choice(("not", "logical_not")), (a.expr,)), 0, 1)
        if self.chance(0.1):
            a = self.condition(self.fits((self.dim(), *shape)), 0, plain)
            given = (a.expr, Num(0)) if self.chance(0.5) else (a.expr,)
            named = (
                () if len(given) == 2 or (not shape and self.chance(0.5)) else (("axis", Num(0)),)
            )
            some = Apply(self.rng.choice(("any", "all")), given, named)
            return replace(a, expr=some, shape=shape, low=0.0, high=1.0)
        if self.chance(0.1):
            a = self.make(shape, depth, plain)
            return a.now(Apply(self.rng.choice(("bool", "logical_not")), (a.expr,)), 0, 1)
        a = self.make(shape, depth, plain)
        b = self.make(self.under(shape), min(depth, 1), plain)
        if self.chance(0.3):
            b = number(self.rng.choice((0, 0.3, -0.2, 1)))
        sign = self.rng.choice(("<", "<=", ">", ">=") * 3 + ("==", "!="))
        return Term(Apply(sign, (a.expr, b.expr)), shape, 0, 1, a.batched or b.batched)

    def option(self) -> tuple[Expr, bool]:
        """A condition over options, and whether it holds in the call."""
        kind = self.rng.choice(("flag", "mode", "order"))
        name = kind
        if name not in self.options:
            default: Option = {"flag": True, "mode": "a", "order": 1}[kind]
            self.scalars.append(Scalar("option", name, default))
            others: dict[str, tuple[Option, ...]] = {
                "flag": (True, False),
                "mode": ("a", "b"),
                "order": (1, 2, 3),
            }
            self.options[name] = self.rng.choice(others[kind])
            if kind == "flag" and self.rates and self.chance(0.7):
                rate = self.rng.choice(list(self.rates))
                self.scalars[-1] = Scalar("option", name, Ref(rate))
                self.implied = self.chance(0.7)
                if self.implied:
                    self.options[name] = self.rates[rate] != 0
        given = self.options[name]
        if kind == "flag":
            return (
                (Ref(name), bool(given))
                if self.chance(0.6)
                else (
                    Apply("not", (Ref(name),)),
                    not given,
                )
            )
        if kind == "mode":
            return Apply("==", (Ref(name), Word("b"))), given == "b"
        assert isinstance(given, int)
        return Apply(">", (Ref(name), Num(1))), given > 1


Way = Callable[[_Draft, Dims, int, bool], Term]


# ---- ways to make an expression --------------------------------------------------------------


def _either(a: Term, b: Term, expr: Expr, shape: Dims) -> Term:
    low, high = min(a.low, b.low), max(a.high, b.high)
    return Term(expr, shape, low, high, a.batched or b.batched)


def pointwise(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    return d.unary(d.rng.choice(tuple(POINTWISE)), d.make(shape, depth, plain))


def negated(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    a = d.make(shape, depth, plain)
    return a.now(Apply("neg", (a.expr,)), -a.high, -a.low)


def _pair(d: _Draft, shape: Dims, depth: int, plain: bool) -> tuple[Term, Term]:
    """Two operands, in any order; one of them may be smaller, or of weights alone."""
    a = d.make(shape, depth, plain)
    under = d.under(shape)
    b = d.make(under, min(depth, 2), plain or d.chance(0.35))
    if not under and d.chance(0.5):
        b = number(d.rng.choice(NUMBERS))
        if d.chance(0.15):
            b = _gain(d)
        if d.chance(0.2):
            name = d.rng.choice(list(d.sizes))
            b = Term(Ref(name), (), d.sizes[name], d.sizes[name], False)
    return (a, b) if d.chance(0.5) else (b, a)


def _gain(d: _Draft) -> Term:
    """An option that is a number."""
    if "gain" not in d.options:
        d.scalars.append(Scalar("option", "gain", d.rng.choice((0.5, 2.0))))
        d.options["gain"] = d.rng.choice((0.5, 0.25, 1.5))
    value = d.options["gain"]
    assert isinstance(value, float)
    return Term(Ref("gain"), (), value, value, False)


def arithmetic(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    a, b = _pair(d, shape, depth, plain)
    sign = d.rng.choice("++--***/")
    if sign == "/":
        b = d.above(b, 0.5)
        low, high = quotients(a, b)
    elif sign == "*":
        low, high = products(a, b)
    else:
        low = a.low + b.low if sign == "+" else a.low - b.high
        high = a.high + b.high if sign == "+" else a.high - b.low
    return Term(Apply(sign, (a.expr, b.expr)), shape, low, high, a.batched or b.batched)


def remainder(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    """Of a division; by what isn't near 0."""
    a, b = _pair(d, shape, depth, plain)
    b = d.above(b, 0.5)
    if d.chance(0.3):
        b = b.now(Apply("neg", (b.expr,)), -b.high, -b.low)
    low, high = quotients(a, b)
    name = d.rng.choice(("mod", "%", "floor_divide", "//"))
    if name in ("mod", "%"):
        low, high = -b.most, b.most
    return Term(Apply(name, (a.expr, b.expr)), shape, low - 1, high + 1, a.batched or b.batched)


SLOPES = (
    ("1 / (1 + abs(10 * {v})) ** 2", 1.0),
    ("exp(-{v} * {v})", 1.0),
    ("where(abs({v}) < 1, 1 - abs({v}), 0)", 1.0),
    ("1", 1.0),
    ("sigmoid({v}) * (1 - sigmoid({v}))", 0.25),
)


def surrogate(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    """A step, or something smooth, with the slope of something else."""
    a = d.named(d.make(shape, depth, plain))
    if not isinstance(a.expr, Ref):
        raise NoWay
    slope, _ = d.rng.choice(SLOPES)
    backward = mapped(_read(slope.format(v="v")), lambda e: a.expr if e == Ref("v") else e)
    named = d.chance(0.4)
    if d.chance(0.3):
        b = d.make(d.under(shape), min(depth, 1), plain)
        forward: Expr = Apply(">", (a.expr, b.expr))
        low, high, named, batched = 0.0, 1.0, True, a.batched or b.batched
    else:
        stepped = d.unary(d.rng.choice(("heaviside", "round", "sign", "floor", "tanh")), a)
        forward, low, high, batched = stepped.expr, stepped.low, stepped.high, a.batched
    keywords: tuple[tuple[str, Expr], ...] = (("of", a.expr),) if named else ()
    return Term(Apply("surrogate", (forward, backward), keywords), shape, low, high, batched)


def extremum(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    a, b = _pair(d, shape, depth, plain)
    if d.chance(0.2):
        b = d.above(b, 0.3)
        angle = Apply("arctan2", (a.expr, b.expr))
        return Term(angle, shape, -1.6, 1.6, a.batched or b.batched)
    name = d.rng.choice(("maximum", "minimum"))
    return _either(a, b, Apply(name, (a.expr, b.expr)), shape)


def clipped(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    a = d.make(shape, depth, plain)
    low, high = number(d.rng.choice((-0.4, 0.1))), number(d.rng.choice((0.45, 0.8)))
    if d.chance(0.3):
        high = d.above(d.make(d.under(shape), 0, plain), 0.3)
    return _either(
        _either(a, low, a.expr, shape), high, Apply("clip", (a.expr, low.expr, high.expr)), shape
    )


def power(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    roll = d.rng.random()
    if roll < 0.4:
        a = d.tame(d.make(shape, depth, plain), 3.0)
        most = d.rng.choice((1, 2, 3, 4))
        high = a.most**most
        return a.now(Apply("**", (a.expr, Num(most))), 0.0 if most % 2 == 0 else -high, high)
    if roll < 0.5:
        base = number(d.rng.choice((2, 0.5, 1.5)))
        b = d.tame(d.make(shape, depth, plain), 3.0)
        low, high = powers(base, b)
        return b.now(Apply("**", (base.expr, b.expr)), low, high)
    a = d.above(d.tame(d.make(shape, depth, plain), 6.0), 0.3)
    b = number(d.rng.choice((-1, 0.5, 2.5, -0.5, 1.5)))
    if d.chance(0.5):
        b = d.tame(d.make(d.under(shape), min(depth, 1), plain), 2.0)
    low, high = powers(a, b)
    return Term(Apply("**", (a.expr, b.expr)), shape, low, high, a.batched or b.batched)


def chosen(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    c = d.condition(d.under(shape), min(depth, 1), plain or d.chance(0.25))
    a, b = _pair(d, shape, depth, plain)
    made = _either(a, b, Apply("where", (c.expr, a.expr, b.expr)), shape)
    return replace(made, batched=made.batched or c.batched)


def truth(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    c = d.condition(shape, min(depth, 1), plain)
    a = d.make(d.under(shape), depth, plain)
    expr = Apply("*", (c.expr, a.expr))
    return Term(expr, shape, min(a.low, 0), max(a.high, 0), a.batched or c.batched)


def optional(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    if not d.chance(0.5):
        raise NoWay
    a, b = d.make(shape, depth, plain), d.make(shape, depth, plain)
    condition, holds = d.option()
    now = a if holds else b
    expr = If(condition, a.expr, b.expr)
    return replace(now, expr=expr, batched=a.batched and b.batched)


def choice_of_shape(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    """A weight whose shape an option chooses."""
    if len(shape) > 2 or not d.chance(0.3):
        raise NoWay
    condition, _ = d.option()
    extra = d.rng.randint(2, 3)
    weight = d.weight(shape)
    longer = (*(s.expr() for s in shape), Num(extra))
    d.arrays[-1] = replace(d.arrays[-1], shape=longer, other=(condition, d.arrays[-1].shape))
    d.own.pop()
    summed = Apply("sum", (weight.expr,), (("axis", Num(-1)),))
    return weight.now(If(condition, summed, weight.expr), -0.9 * extra, 0.9 * extra)


def matmul(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    if len(shape) > 2:
        raise NoWay
    inner = d.dim()
    if len(shape) == 2:
        left, right = (shape[0], inner), (inner, shape[1])
    elif len(shape) == 1:
        left, right = ((inner,), (inner, *shape)) if d.chance(0.65) else ((*shape, inner), (inner,))
    else:
        left = right = (inner,)
    d.fits(left), d.fits(right)
    weights = d.rng.randint(0, 2) if not plain else 2
    a = d.make(left, depth, plain or weights == 0)
    b = d.make(right, depth if weights == 1 else min(depth, 2), plain or weights == 2)
    low, high = products(a, b)
    n = inner.value(d.sizes)
    return Term(Apply("@", (a.expr, b.expr)), shape, n * low, n * high, a.batched or b.batched)


def einsum(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    if len(shape) > 3:
        raise NoWay
    summed = tuple(d.dim() for _ in range(d.rng.choice((0, 1, 1, 2))))
    letters = d.rng.sample(LETTERS, len(shape) + len(summed))
    dims = dict(zip(letters, (*shape, *summed)))
    count = d.rng.choice((1, 2, 2, 2, 3))
    holds: list[list[str]] = [[] for _ in range(count)]
    for letter in letters:
        for at in d.rng.sample(range(count), d.rng.choice((1, 1, 2)) if count > 1 else 1):
            holds[at].append(letter)
    operands = []
    low = high = 1.0
    batched = False
    for hold in holds:
        d.rng.shuffle(hold)
        inner = d.fits(tuple(dims[c] for c in hold))
        operand = d.make(inner, min(depth, 2), plain or d.chance(0.4))
        operands.append(operand.expr)
        low, high = products(Term(Num(1), (), low, high, False), operand)
        batched = batched or operand.batched
    text = f"{','.join(map(''.join, holds))}->{''.join(letters[: len(shape)])}"
    n = d.extent(summed)
    most = n * max(abs(low), abs(high))
    return Term(Apply("einsum", (Word(text), *operands)), shape, -most, most, batched)


def outer(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    if len(shape) != 2:
        raise NoWay
    a, b = d.make(shape[:1], depth, plain), d.make(shape[1:], depth, plain)
    low, high = products(a, b)
    return Term(Apply("outer", (a.expr, b.expr)), shape, low, high, a.batched or b.batched)


def _axis(d: _Draft, at: int, rank: int, needless: bool) -> tuple[tuple[str, Expr], ...]:
    if needless and d.chance(0.5):
        return ()
    return (("axis", Num(at if d.chance(0.6) else at - rank)),)


def _called(d: _Draft, name: str, a: Term, keywords: tuple[tuple[str, Expr], ...]) -> Expr:
    """The axis by name or by place."""
    if (
        keywords
        and name not in ("layer_norm", "rms_norm", "concat", "max", "min")
        and d.chance(0.2)
    ):
        return Apply(name, (a.expr, keywords[0][1]))
    return Apply(name, (a.expr,), keywords)


def reduction(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    at, size = d.rng.randint(0, len(shape)), d.dim()
    a = d.make(d.fits((*shape[:at], size, *shape[at:])), depth, plain)
    name = d.rng.choice(REDUCTIONS)
    n = size.value(d.sizes)
    if name == "prod":
        a = d.tame(a, 2.0 if n < 5 else 1.2)
    if name == "norm":
        a = d.above(a, 0.1)
    expr = _called(d, name, a, _axis(d, at, len(a.shape), len(a.shape) == 1))
    low, high = {
        "sum": (n * a.low, n * a.high),
        "prod": (-(a.most**n), a.most**n),
        "norm": (0.0, math.sqrt(n) * a.most),
    }.get(name, (a.low, a.high))
    return replace(a, expr=expr, shape=shape, low=low, high=high)


def along(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    if not shape:
        raise NoWay
    a, name = d.make(shape, depth, plain), d.rng.choice(ALONG)
    at, rank = d.rng.randrange(len(shape)), len(shape)
    n = shape[at].value(d.sizes)
    last = at == rank - 1
    keywords = _axis(d, at, rank, last and (name not in ("cumsum", "flip") or rank == 1))
    low, high = {
        "softmax": (0.0, 1.0),
        "log_softmax": (a.low - a.high - math.log(n), 0.0),
        "cumsum": (n * min(a.low, 0), n * max(a.high, 0)),
        "cumax": (0.0, 1.0 + 1e-9),
        "flip": (a.low, a.high),
        "layer_norm": (-math.sqrt(n), math.sqrt(n)),
        "rms_norm": (-math.sqrt(n), math.sqrt(n)),
    }[name]
    if name in ("layer_norm", "rms_norm") and d.chance(0.5):
        keywords = (*keywords, ("eps", Num(d.rng.choice((1e-3, 0.1)))))
    return a.now(_called(d, name, a, keywords), low, high)


def transpose(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    rank = len(shape)
    if rank < 2:
        raise NoWay
    axes = d.rng.sample(range(rank), rank)
    inner = tuple(shape[axes.index(i)] for i in range(rank))
    a = d.make(inner, depth, plain)
    if axes == [*reversed(range(rank))] and d.chance(0.6):
        expr = Apply("transpose", (a.expr,))
    else:
        order = Group(tuple(Num(i) for i in axes))
        named = d.chance(0.5)
        expr = Apply(
            "transpose", (a.expr,) if named else (a.expr, order), (("axes", order),) * named
        )
    return replace(a, expr=expr, shape=shape)


def reshape(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    sources: list[Dims] = []
    if len(shape) > 1:
        at = d.rng.randrange(len(shape) - 1)
        sources.append((*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :]))
    for at, size in enumerate(shape):
        sources += [(*shape[:at], a, b, *shape[at + 1 :]) for a, b in size.factors()]
        if size.is_one:
            sources.append((*shape[:at], *shape[at + 1 :]))
    at = d.rng.randint(0, len(shape))
    if d.chance(0.3):
        sources.append((*shape[:at], ONE, *shape[at:]))
    if d.headed and Dim.of("units") in shape:
        at = shape.index(Dim.of("units"))
        sources.append((*shape[:at], Dim.of("heads"), Dim.of("head"), *shape[at + 1 :]))
    if d.headed and shape[-2:] == (Dim.of("heads"), Dim.of("head")):
        sources = [(*shape[:-2], Dim.of("units"))]
    if not sources:
        raise NoWay
    a = d.make(d.fits(d.rng.choice(sources)), depth, plain)
    sizes = [s.expr() for s in shape]
    if len(shape) > 0 and d.chance(0.2) and not d.headed and all(len(s.terms) == 1 for s in shape):
        sizes[d.rng.randrange(len(sizes))] = Num(-1)
    wanted: Expr = Group(tuple(sizes))
    if len(sizes) == 1 and d.chance(0.3):
        wanted = sizes[0]
    return replace(a, expr=Apply("reshape", (a.expr, wanted)), shape=shape)


def broadcasting(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    if not shape:
        raise NoWay
    kept = shape[d.rng.randint(0, len(shape)) :]
    a = d.make(tuple(ONE if d.chance(0.4) else size for size in kept), depth, plain)
    wanted = Group(tuple(size.expr() for size in shape))
    return replace(a, expr=Apply("broadcast", (a.expr, wanted)), shape=shape)


def split(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    if not shape:
        raise NoWay
    at, n = d.rng.randrange(len(shape)), d.rng.randint(2, 4)
    inner = d.fits((*shape[:at], shape[at] * n, *shape[at + 1 :]))
    a = d.make(inner, depth, plain)
    keywords = _axis(d, at, len(shape), len(shape) == 1)
    expr = Apply("split", (a.expr, Num(n)), keywords)
    part = d.rng.randrange(n)
    if d.chance(0.25) or plain:
        return replace(a, expr=Item(expr, (Num(part),)), shape=shape)
    count = len(d.equations)
    names = [f"p{count}_{i}" for i in range(n)]
    d.equations.append(Equation(tuple((name, False) for name in names), expr))
    terms = [replace(a, expr=Ref(name), shape=shape) for name in names]
    d.pool += terms
    return terms[part]


def concat(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    ways = [(at, parts) for at, size in enumerate(shape) for parts in size.parts()]
    if not ways:
        raise NoWay
    at, (first, second) = d.rng.choice(ways)
    a = d.make((*shape[:at], first, *shape[at + 1 :]), depth, plain)
    b = d.make((*shape[:at], second, *shape[at + 1 :]), depth, plain or d.chance(0.2))
    keywords = _axis(d, at, len(shape), len(shape) == 1)
    parts: tuple[Expr, ...] = (a.expr, b.expr)
    if d.chance(0.15):
        parts = (Group(parts),)
    return _either(a, b, Apply("concat", parts, keywords), shape)


def stack(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    """Two or three; of one, an axis more."""
    ways = [
        (at, int(n))
        for at, size in enumerate(shape)
        if size.terms and not size.terms[0][0] and len(size.terms) == 1
        for n in [size.terms[0][1]]
        if n <= 3
    ]
    if not ways:
        raise NoWay
    at, n = d.rng.choice(ways)
    inner = (*shape[:at], *shape[at + 1 :])
    parts = [d.make(inner, depth if i == 0 else min(depth, 1), plain) for i in range(n)]
    axis = Num(at if d.chance(0.6) else at - len(shape))
    keywords: tuple[tuple[str, Expr], ...] = () if at == 0 and d.chance(0.5) else (("axis", axis),)
    exprs: tuple[Expr, ...] = tuple(p.expr for p in parts)
    if d.chance(0.3):
        exprs = (Group(exprs),)
    made = replace(parts[0], expr=Apply("stack", exprs, keywords), shape=shape)
    for other in parts:
        made = _either(made, other, made.expr, shape)
    return made


def roll(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    ways = [(at, size.value(d.sizes)) for at, size in enumerate(shape)]
    ways = [(at, n) for at, n in ways if n > 1]
    if not ways:
        raise NoWay
    at, n = d.rng.choice(ways)
    a = d.make(shape, depth, plain)
    by = Num(d.rng.choice((-1, 1)) * d.rng.randrange(1, n))
    keywords = _axis(d, at, len(shape), len(shape) == 1)
    return replace(a, expr=Apply("roll", (a.expr, by), keywords))


def index(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    if len(shape) > 2:
        raise NoWay
    lead = tuple(d.dim() for _ in range(d.rng.choice((1, 1, 2))))
    a = d.make(d.fits((*lead, *shape)), depth, plain)
    indices: list[Expr] = []
    for size in lead:
        n = size.value(d.sizes)
        at = d.rng.randrange(-n, n)
        indices.append(Num(at))
        if d.chance(0.15):
            indices[-1] = Apply("-", (size.expr(), Num(1)))
    return replace(a, expr=Item(a.expr, tuple(indices)), shape=shape)


def part(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    """Some of an axis, or all of it, forwards or backwards."""
    if not shape:
        raise NoWay
    at = d.rng.randrange(len(shape))
    size, n = shape[at], shape[at].value(d.sizes)
    lead = (d.dim(),) * (d.chance(0.2) and at == 0)  # an axis in front of which one place is taken
    step = d.rng.choice((1, 1, 1, -1, -1, 2, -2, 3))
    whole, cut = _cut(d, size, n, step)
    inner = d.fits((*lead, *shape[:at], whole, *shape[at + 1 :]), 4)
    a = d.make(inner, depth, plain)
    indices: list[Expr] = [Num(d.rng.randrange(-s.value(d.sizes), s.value(d.sizes))) for s in lead]
    indices += [Cut() for _ in range(at)]
    return replace(a, expr=Item(a.expr, (*indices, cut)), shape=shape)


def _cut(d: _Draft, size: Dim, n: int, step: int) -> tuple[Dim, Cut]:
    """An axis, and a part of it that has this size."""
    if abs(step) == 1:
        extra = d.rng.choice((0, 1, 2, 3))
        before = d.rng.randint(0, extra)
        whole = size + Dim.of(extra) if extra else size
        if extra and d.chance(0.3):  # as many again
            whole, before = size * 2, 0
        stop = size + Dim.of(before) if before else size
        first, behind = Num(before), stop.expr()
        if step == 1:
            begin = None if before == 0 and d.chance(0.7) else first
            end = None if whole == stop and d.chance(0.7) else behind
            if end is None and d.chance(0.5) and before:
                begin = Apply("neg", (size.expr(),))
            return whole, Cut(begin, end)
        if whole == size:
            return whole, Cut(step=Num(-1))
        last = Apply("-", (behind, Num(1)))
        return whole, Cut(last, Num(before - 1) if before else None, Num(-1))
    if not size.terms or len(size.terms) > 1 or size.is_one:
        raise NoWay
    return size * abs(step), Cut(step=Num(step))


def function(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    if not d.functions or (len(d.functions) < 3 and d.chance(0.1)):
        _declare_function(d)
    f = d.rng.choice(d.functions)
    used = read_function(f.name, d.overrides[f.name] or "linear") if f.name in d.overrides else f
    a = d.make(shape, depth, plain)
    if not used.params:
        assert isinstance(used.body, Ref)
        used = Function(f.name, ("v",), Apply(used.body.name, (Ref("v"),)))
    if len(used.params) == 1:
        low, high = image(used, a)
        return a.now(Apply(f.name, (a.expr,)), low, high)
    b = d.make(shape, min(depth, 1), plain)
    low, high = image(used, a, b)
    return Term(Apply(f.name, (a.expr, b.expr)), shape, low, high, a.batched or b.batched)


def _declare_function(d: _Draft) -> None:
    name = f"f{len(d.functions)}"
    safe = (*SQUASHING, "silu", "gelu", "relu", "softplus", "square", "linear", "mish")
    if d.chance(0.3):
        d.functions.append(read_function(name, d.rng.choice(LAMBDAS_OF_TWO)))
        others: tuple[str | None, ...] = LAMBDAS_OF_TWO
    else:
        d.functions.append(read_function(name, d.rng.choice((*LAMBDAS, *safe))))
        others = (*LAMBDAS, *safe, None)
    if d.chance(0.3):
        d.overrides[name] = d.rng.choice(others)


def drawn(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    if not d.chance(0.6):
        raise NoWay
    rate, value = _rate(d)
    a = d.make(shape, depth, plain)
    d.draws = True
    if d.chance(0.5):
        keywords = _per(d, a.batched)
        wide = a.most / (1 - value)
        return a.now(Apply("drop", (a.expr, rate), keywords), -wide, wide)
    b = d.make(shape, min(depth, 1), plain)
    keywords = _per(d, a.batched or b.batched)
    return _either(a, b, Apply("zoneout", (a.expr, b.expr, rate), keywords), shape)


def _per(d: _Draft, batched: bool) -> tuple[tuple[str, Expr], ...]:
    if not batched or d.chance(0.4):
        return ()
    return (("per", Word(d.rng.choice(("step", "sequence")))),)


def _rate(d: _Draft) -> tuple[Expr, float]:
    if d.chance(0.3):
        return Num(0.25), 0.25
    if not d.rates or (len(d.rates) < 2 and d.chance(0.4)):
        name = f"rate{len(d.rates)}"
        d.scalars.append(Scalar("rate", name, d.rng.choice((0, 0.5, 0.2))))
        d.rates[name] = d.rng.choice((0.0, 0.3, 0.4))
    name = d.rng.choice(list(d.rates))
    return Ref(name), d.rates[name]


def stopped(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    if not d.chance(0.3):
        raise NoWay
    return d.unary("stop_gradient", d.make(shape, depth, plain))


def spread(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    """Something smaller, spread by what it is added to."""
    under = d.under(shape)
    if under == shape:
        raise NoWay
    a, b = d.make(under, depth, plain), d.weight(shape)
    low, high = products(a, b)
    return Term(Apply("*", (a.expr, b.expr)), shape, low, high, a.batched)


def from_pool(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    """A product of a vector that is there with a new weight."""
    known = [t for t in d.pool if len(t.shape) == 1 and t.batched]
    if not known or len(shape) != 1:
        raise NoWay
    a = d.back(d.rng.choice(known))
    d.fits((*a.shape, *shape))
    b = d.weight((*a.shape, *shape))
    low, high = products(a, b)
    n = a.shape[0].value(d.sizes)
    return Term(Apply("@", (a.expr, b.expr)), shape, n * low, n * high, True)


def mixed(d: _Draft, shape: Dims, depth: int, plain: bool) -> Term:
    """einsum of something that is there with a new weight: any rank to any other."""
    known = [t for t in d.pool if t.batched]
    if not known or len(shape) > 3:
        raise NoWay
    a = d.back(d.rng.choice(known))
    if len(a.shape) + len(shape) > 4:
        raise NoWay
    letters = d.rng.sample(LETTERS, len(a.shape) + len(shape))
    inner, out = letters[: len(a.shape)], letters[len(a.shape) :]
    order = d.rng.sample(range(len(letters)), len(letters))
    dims = (*a.shape, *shape)
    b = d.weight(d.fits(tuple(dims[i] for i in order), 4))
    text = f"{''.join(inner)},{''.join(letters[i] for i in order)}->{''.join(out)}"
    most = d.extent(a.shape) * a.most * 0.9
    return Term(Apply("einsum", (Word(text), a.expr, b.expr)), shape, -most, most, True)


WAYS: tuple[Way, ...] = (
    *(pointwise,) * 5,
    negated,
    *(arithmetic,) * 6,
    *(remainder,) * 2,
    *(surrogate,) * 2,
    extremum,
    clipped,
    power,
    *(chosen,) * 2,
    truth,
    *(optional,) * 2,
    choice_of_shape,
    *(matmul,) * 5,
    *(einsum,) * 2,
    outer,
    *(reduction,) * 2,
    *(along,) * 3,
    *(transpose,) * 2,
    *(reshape,) * 2,
    broadcasting,
    *(split,) * 2,
    *(concat,) * 2,
    *(index,) * 2,
    *(part,) * 3,
    *(stack,) * 2,
    *(roll,) * 2,
    function,
    *(drawn,) * 2,
    stopped,
)
BRIDGES: tuple[Way, ...] = (spread, from_pool, from_pool, mixed, reduction, outer)


# ---- cells -----------------------------------------------------------------------------------


def _sizes(d: _Draft) -> None:
    for name in NAMES[: d.rng.choice((1, 2, 2, 3))]:
        d.sizes[name] = d.rng.choice(EXTENTS)
        d.declared_sizes.append(Size(name, Num(d.sizes[name]) if d.chance(0.1) else None))
    if d.chance(0.25):
        base = d.rng.choice(list(d.sizes))
        default, value = d.rng.choice(
            (
                (f"2 * {base} + 1", 2 * d.sizes[base] + 1),
                (f"{base} * {base}", d.sizes[base] ** 2),
                (f"{base} + 2", d.sizes[base] + 2),
                (f"({base} + 1) // 2", (d.sizes[base] + 1) // 2),
            )
        )
        d.declared_sizes.append(Size("inner", _read(default)))
        d.sizes["inner"] = value
    d.dims = [Dim.of(n) for n in d.sizes]
    if "heads" not in d.sizes and d.chance(0.15):
        d.sizes["heads"] = d.rng.choice((1, 2, 3))
        d.sizes["head"] = d.rng.choice((1, 2, 4))
        d.sizes["units"] = d.sizes["heads"] * d.sizes["head"]
        if "inner" in d.sizes:  # its default is of another number now
            d.declared_sizes = [s for s in d.declared_sizes if s.name != "inner"]
            d.dims.remove(Dim.of("inner"))
            del d.sizes["inner"]
        d.declared_sizes = [replace(s, default=None) for s in d.declared_sizes]
        d.declared_sizes.append(Size("heads"))
        d.declared_sizes.append(Size("head", _read("units // heads")))
        d.headed = True


def _read(text: str) -> Expr:
    import ast

    return read(ast.parse(text, mode="eval").body)


@dataclass
class _State:
    name: str
    shape: Dims
    most: float
    coefficient: Expr | None = None  # times the state itself, where nothing squashes it
    growth: float = 0.0


def _states(d: _Draft, steps: int) -> list[_State]:
    states = []
    for i in range(d.rng.choice((1, 1, 2, 2, 3, 4))):
        name, shape = "hcsm"[i], d.shape((0, 1, 1, 1, 1, 2, 2, 3))
        state = _State(name, shape, d.rng.choice((1.0, 2.0, 3.0)))
        if steps <= 4 and d.chance(0.4):
            _unsquashed(d, state, steps)
        start = None
        if d.chance(0.25):
            kind = "constant" if d.chance(0.3) else "weight"
            known = [t.expr for t in d.own if t.shape == shape]
            start = d.rng.choice(known) if known and d.chance(0.5) else d.weight(shape, kind).expr
        d.arrays.append(Array("state", name, tuple(s.expr() for s in shape), start))
        d.pool.append(Term(Ref(name, 1), shape, -state.most, state.most, True))
        states.append(state)
    return states


def _unsquashed(d: _Draft, state: _State, steps: int) -> None:
    """h[t] = f(weights) * h[t-1] + ..., or @: bounded because steps are few."""
    old = Ref(state.name, 1)
    try:
        if len(state.shape) in (1, 2) and d.chance(0.4):
            last = state.shape[-1]
            term = d.make(d.fits((last, last)), 2, True)
            if d.chance(0.3):  # as a rule f(w), so that a gradient has to pass through f
                term = d.unary(d.rng.choice(tuple(POINTWISE)), term)
            term = d.tame(term, 2.0)
            growth, expr = last.value(d.sizes) * term.most, Apply("@", (old, term.expr))
        else:
            term = d.make(d.under(state.shape), d.rng.randint(0, 2), True)
            if d.chance(0.5):
                term = d.unary(d.rng.choice(tuple(POINTWISE)), term)
            elif d.chance(0.5):
                term = term.now(Apply("-", (Num(1), term.expr)), 1 - term.high, 1 - term.low)
            term = d.tame(term, 2.5)
            pair = (old, term.expr) if d.chance(0.4) else (term.expr, old)
            growth, expr = term.most, Apply("*", pair)
    except NoWay:
        return
    most = max(1.0, growth) ** steps * (0.9 + 2 * steps)
    if most <= 400:
        state.most, state.coefficient, state.growth = most, expr, growth


def _equation(d: _Draft, state: _State) -> None:
    """The state's next value, within its bounds."""
    depth = d.rng.choice((1, 2, 2, 3, 3))
    if state.coefficient is not None:
        rest = d.tame(_fresh(d, state.shape, depth), 2.0)
        pair = (state.coefficient, rest.expr)
        expr: Expr = Apply("+", pair if d.chance(0.7) else pair[::-1])
    elif d.chance(0.08):
        expr = d.tame(d.make((), depth), state.most).expr  # a number, spread
    else:
        value = _fresh(d, state.shape, depth)
        roll = d.rng.random()
        old = Ref(state.name, 1)
        if roll < 0.3 and value.most <= state.most:
            expr = value.expr
        elif roll < 0.5:
            keep, rest = Num(0.5), d.tame(value, state.most / 2)
            expr = Apply("+", (Apply("*", (keep, old)), rest.expr))
        elif roll < 0.65:
            gate = d.named(d.unary("sigmoid", d.make(d.under(state.shape), 1)))
            rest = d.tame(value, state.most)
            new = Apply("*", (Apply("-", (Num(1), gate.expr)), rest.expr))
            expr = Apply("+", (Apply("*", (gate.expr, old)), new))
        else:
            expr = d.tame(d.unary(d.rng.choice(SQUASHING), value), state.most).expr
    d.equations.append(Equation(((state.name, True),), expr))
    d.pool.append(Term(Ref(state.name, 0), state.shape, -state.most, state.most, True))


def _fresh(d: _Draft, shape: Dims, depth: int) -> Term:
    """An expression that isn't a mere number, as a rule of an input, too."""
    a = d.make(shape, depth)
    if d.chance(0.75):
        b = d.tame(_projected(d, shape) if d.chance(0.7) else d.leaf(shape), 3.0)
        sum_ = Apply("+", (a.expr, b.expr))
        return Term(sum_, shape, a.low + b.low, a.high + b.high, a.batched or b.batched)
    return a


def _projected(d: _Draft, shape: Dims) -> Term:
    """An input as it is, or times a weight or an expression of weights."""
    inputs = [t for t in d.pool if isinstance(t.expr, Ref) and t.expr.name.startswith("x")]
    a = d.back(d.rng.choice(inputs))
    if a.shape == shape and d.chance(0.5):
        return a
    try:
        if len(a.shape) != 1 or len(shape) > 1:
            return mixed(d, shape, 0, False)
        b = d.make(d.fits((*a.shape, *shape)), d.rng.choice((0, 0, 1, 2)), True)
    except NoWay:
        return d.leaf(shape)
    low, high = products(a, b)
    n = a.shape[0].value(d.sizes)
    return Term(Apply("@", (a.expr, b.expr)), shape, n * low, n * high, True)


def _returns(d: _Draft, states: list[_State]) -> list[Expr]:
    found: list[Expr] = []
    for _ in range(d.rng.choice((1, 1, 1, 2, 2, 3))):
        roll = d.rng.random()
        state = d.rng.choice(states)
        if roll < 0.45:
            found.append(Ref(state.name, 0))
        elif roll < 0.55:
            found.append(d.rng.choice((Ref(state.name, 1), Ref(state.name, 2))))
        elif roll < 0.62:
            found.append(d.back(d.rng.choice(d.pool)).expr)
        elif roll < 0.68:
            found.append(d.make(d.shape(), 2, True).expr)
        else:
            found.append(d.make(d.shape(), 2).expr)
    return [e for i, e in enumerate(found) if e not in found[:i]]


def make_cell(d: _Draft, name: str, steps: int) -> Cell:
    _sizes(d)
    kinds = ["input"] * d.rng.choice((1, 1, 1, 2, 3)) + ["context"] * d.rng.choice((0, 0, 0, 1, 2))
    for i, kind in enumerate(kinds):
        label = f"{'x' if kind == 'input' else 'm'}{i or ''}"
        shape = d.shape((1,) if i == 0 and d.chance(0.7) else (0, 1, 1, 2, 2, 3))
        d.arrays.append(Array(kind, label, tuple(s.expr() for s in shape)))
        ref = Ref(label, 0 if kind == "input" else None)
        d.pool.append(Term(ref, shape, -0.9, 0.9, True))
    states = _states(d, steps)
    for state in states:
        _equation(d, state)
    returns = _returns(d, states)
    inputs = {a.name for a in d.arrays if a.kind == "input"}
    expressions = [*(e.value for e in d.equations), *returns]
    if not any(isinstance(n, Ref) and n.name in inputs for e in expressions for n in walk(e)):
        returns.append(Ref("x", 0))
    equations = list(d.equations)
    if d.chance(0.3):
        d.rng.shuffle(equations)
    declared: list[Declaration] = [*d.declared_sizes, *d.arrays, *d.functions, *d.scalars]
    cell = pruned(Cell(name, tuple(declared), tuple(equations), tuple(returns)))
    if not cell.arrays("input"):  # what read them was not read itself
        x = next(a for a in d.arrays if a.name == "x")
        returns.append(Ref("x", 0))
        cell = pruned(Cell(name, tuple(declared), tuple(equations), tuple(returns)))
        assert x in cell.declarations
    return _decided(cell, d.options)


def _decided(cell: Cell, options: dict[str, Option]) -> Cell:
    """With an option that follows a rate which nothing draws with set to what it would be: a rate
    that an option alone reads is refused as never used."""
    read = {n.name for e in cell.expressions() for n in walk(e) if isinstance(n, Ref)}
    declarations = tuple(
        replace(d, default=options[d.name])
        if isinstance(d, Scalar) and isinstance(d.default, Ref) and d.default.name not in read
        else d
        for d in cell.declarations
    )
    return pruned(replace(cell, declarations=declarations))


# ---- calls -----------------------------------------------------------------------------------


def make_call(d: _Draft, cell: Cell, shapes: tuple[tuple[int, int], ...], seed: int) -> Call:
    rng, chance = d.rng, d.chance
    names = {x.name for x in cell.declarations}
    read_off = {
        axis.name
        for a in cell.arrays("input", "context")
        for axis in a.shape
        if isinstance(axis, Ref)
    }
    implied = {"flag"} if d.implied else set()
    given = []
    for size in cell.sizes:
        free = size.name in read_off or size.default is not None
        if not free or chance(0.5):
            given.append(size.name)
    steps = max(t for _, t in shapes)
    mask = rng.choice(("", "", "", "mask", "mask", "lengths"))
    stateful = chance(0.1)
    if stateful:
        shapes = tuple((shapes[0][0], t) for _, t in shapes)
    second = chance(0.15)
    draws = bool(cell.words() & {"drop", "zoneout"})
    wrt: tuple[str, ...] = ()
    if not second and chance(0.15):
        kinds = ("inputs", "weights", "initial_state")
        wrt = tuple(rng.sample(kinds, rng.choice((1, 2))))
    return Call(
        sizes={s.name: d.sizes[s.name] for s in cell.sizes},
        given=tuple(given),
        shapes=shapes,
        options={n: v for n, v in d.options.items() if n in names - implied},
        functions={n: v for n, v in d.overrides.items() if n in names},
        rates={n: v for n, v in d.rates.items() if n in names},
        training=chance(0.6) if draws else chance(0.3),
        mask=mask,
        nan=bool(mask) and chance(0.4),
        resets=random.Random(seed + 1).random() < 0.35,  # the other draws stay
        zero_output_for_mask=chance(0.25),
        go_backwards=chance(0.2),
        time_major=chance(0.2),
        return_sequences=chance(0.75),
        return_state=chance(0.4),
        stateful=stateful,
        initial="" if stateful else rng.choice(("", "", "all", "some")),
        arrange=rng.choice(("tuple", "tuple", "dict")),
        checkpoint_every=rng.choice((None, None, None, 1, 2, steps)),
        unroll=random.Random(seed).choice((False, False, 2, 3, True)),  # the other draws stay
        again=chance(0.3),
        second=second,
        wrt=wrt,
        seed=seed,
    )


def _all_read(cell: Cell, call: Call) -> bool:
    """Whether some choice of options reads each array: a cell where none does is refused."""
    others: dict[type, tuple[Option, ...]] = {
        bool: (True, False),
        str: ("a", "b"),
        int: (1, 2),
        float: (1.0,),
    }
    options = cell.scalars("option")
    choices = [others.get(type(o.default), (True, False)) for o in options]
    read: set[str] = set()
    for values in itertools.product(*choices):
        chosen = {o.name: v for o, v in zip(options, values)}
        bound = Bound(Case(cell, replace(call, options=chosen)))

        def fold(node: Expr, bound: Bound = bound) -> Expr:
            if not isinstance(node, If):
                return node
            return node.yes if bound.known(node.condition) else node.no

        equations = tuple(replace(e, value=mapped(e.value, fold)) for e in cell.equations)
        returns = tuple(mapped(e, fold) for e in cell.returns)
        folded = pruned(replace(cell, equations=equations, returns=returns))
        read |= {d.name for d in folded.declarations}
    return {a.name for a in cell.arrays("weight", "constant", "input", "context")} <= read


def make_case(index: int, seed: int) -> Case:
    """Case `index` of a seed."""
    rng = random.Random(f"{seed}-{index}")
    # Few have many steps or many rows: kernels take theirs in blocks and tiles.
    roll = random.Random(f"long {seed}-{index}").random()
    long = (1, 18) if roll < 0.015 else (17, 2) if roll < 0.03 else None
    while True:
        batches, times = (1, 2, 2, 3), (1, 2, 2, 2, 3, 4)
        first = (rng.choice(batches), rng.choice(times))
        other = first if rng.random() < 0.5 else (rng.choice(batches), rng.choice(times))
        if long is not None:
            first = other = long
        d = _Draft(rng)
        cell = make_cell(d, "Random", max(first[1], other[1]))
        call = make_call(d, cell, (first, other), rng.randrange(2**31))
        if long is not None:
            call = replace(call, second=False, again=False)  # a minute otherwise
        if _all_read(cell, call):
            return normal(Case(cell, call))
