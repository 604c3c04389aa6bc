"""Second derivatives are slopes of gradients: of every cell and every op, on the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from rnncc.common.result_roles import ResultRole
from rnncc.ir.builder import Builder
from rnncc.ir.interp import interpret
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Param, Program, Result, Type, Value
from rnncc.ir.sizes import Size
from rnncc.lowering.cell_interface import check_text
from rnncc.lowering.lower import lower
from rnncc.passes.pipeline import optimise
from rnncc.passes.second import SecondOrder, second_order
from rnncc.schedule.legalize import legalize
from tests.support import cases
from tests.support.cases import Arrays, Case, slope_errors, total

LIMIT = 1e-5


# ---- programs on the interpreter ---------------------------------------------------------------


@dataclass
class Chain:
    """Four programs in a row, run with the arguments of a case."""

    case: Case
    four: SecondOrder

    def step(self, program: Program, known: Arrays) -> Arrays:
        case = self.case
        return interpret(program, known, case.sizes, case.batch, case.time)

    def first(self, arguments: Arrays, cotangents: Arrays) -> Arrays:
        """All that is known when gradients are."""
        known = {**arguments, **{f"d.{n}": a for n, a in cotangents.items()}}
        known |= self.step(self.four.forward, known)
        return known | self.step(self.four.backward, known)

    def second(self, known: Arrays, u: Arrays) -> Arrays:
        """Gradients of <gradients, u> by argument, and of cotangents as `d.<result>`."""
        known = known | {f"d.d_{n}": a for n, a in u.items()}
        given = self.step(self.four.backward_pullback, known)
        found = given | self.step(self.four.forward_pullback, known | given)
        return {n.removeprefix("d_"): a for n, a in found.items() if n.startswith("d_")}


def case_of(name: str, variant: str = "plain") -> Case:
    spec = cases.spec_of(name)
    return Case(cases.lowered(name, variant), cases.sizes_for(spec, 3, 2), batch=2, time=4)


def assert_slopes(case: Case) -> None:
    """The slope of <gradient, u> along every argument and along the cotangents themselves."""
    rng = np.random.default_rng(3)
    u = {n: cases.draw(rng, case.arguments[n].shape) for n in case.wrt}
    cotangents = case.cotangents()
    made = second_order(case.program, case.wrt)
    chain = Chain(case, SecondOrder(*(legalize(optimise(p)) for p in made)))
    found = chain.second(chain.first(case.arguments, cotangents), u)
    for wrt in [*case.wrt, *(f"d.{r}" for r in cotangents)]:
        result = wrt.removeprefix("d.")
        at = case.arguments[wrt] if result == wrt else cotangents[result]

        def value(array: np.ndarray, wrt: str = wrt, result: str = result) -> float:
            arguments, given = dict(case.arguments), dict(cotangents)
            (arguments if result == wrt else given)[result] = array
            gradients = chain.first(arguments, given)
            return total({n: gradients[f"d_{n}"] for n in u}, u)

        claimed = found.get(wrt, np.zeros(at.shape))
        assert claimed.shape == at.shape and np.isfinite(claimed).all()
        assert max(slope_errors(value, at, claimed, rng, directions=2)) <= LIMIT, wrt


# Every cell as it is; a mask and draws add ops that each have slopes of their own below.
TRIED = [
    (name, variant)
    for name, variant in cases.variants(cases.SLOPED)
    if variant == "plain" or cases.SLOPED.index(name) % 2 == (variant == "mask")
]


@pytest.mark.parametrize(("name", "variant"), TRIED)
def test_second_derivatives_are_slopes(name: str, variant: str) -> None:
    assert_slopes(case_of(name, variant))


@pytest.mark.parametrize("reset_after", [True, False])
def test_options_choose_other_programs(reset_after: bool) -> None:
    program = lower(cases.spec_of("gru"), {"reset_after": reset_after})
    assert_slopes(Case(program, {"units": 3, "features": 2}, batch=2, time=4))


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (1, 2), (3, 1)])
@pytest.mark.parametrize("name", ["lstm", "delays", "learned_start"])
def test_short_sequences(name: str, batch: int, time: int) -> None:
    sizes = cases.sizes_for(cases.spec_of(name), units=1, features=1)
    assert_slopes(Case(cases.lowered(name), sizes, batch, time))


@pytest.mark.parametrize("name", ["lstm", "context_attention", "noise"])
def test_names_are_nobody_elses(name: str) -> None:
    """What meets has one name: every parameter is an argument, or saved or given by that name."""
    case = case_of(name, "drawn" if name == "noise" else "plain")
    own = {p.value.name for p in case.program.params}
    known: set[str] = set()
    for program in second_order(case.program, case.wrt):
        names = [p.value.name for p in program.params]
        assert len(set(names)) == len(names)
        for p in program.params:
            if p.role == "residual":
                assert p.value.name in known
            elif p.role == "cotangent":
                assert p.value.name.startswith("d.") and p.value.name not in known
            else:
                assert p.value.name in own
        saved = {r.name for r in program.results if r.role.kind == "residual"}
        assert not saved & (known | own)
        known |= saved


def test_values_may_be_called_like_programs() -> None:
    text = (
        "cell: Words\nunits: size\nx: input[units]\nh: state[units]\nforward = sigmoid(x[t])\n"
        "backward = sigmoid(forward * h[t-1])\nh[t] = tanh(backward * forward * x[t])\n"
        "return h[t]\n"
    )
    assert_slopes(Case(lower(check_text(text)), {"units": 3}, batch=2, time=3))


def test_what_is_zero_is_not_handed_on() -> None:
    """A cell linear in everything has no second derivatives, and no programs for them."""
    text = "cell: Sum\nx: input\nh: state\nh[t] = h[t-1] + x[t]\nreturn h[t]\n"
    four = second_order(lower(check_text(text)), ["x", "h"])
    assert not four.forward.results and not four.forward_pullback.results
    assert {r.name for r in four.backward_pullback.results} == {"d_d.h", "d_d.final_h"}


# ---- every op ----------------------------------------------------------------------------------

N, M = Size.of(3), Size.of(4)
B_MATRIX, B_ROW, MATRIX = Type((N, M), "B"), Type((M,), "B"), Type((N, M))
Make = Callable[[Builder, list[Value]], Value]
# opcode -> types of its float operands, and how it is built from them
SHAPED: dict[str, list[tuple[list[Type], Make]]] = {
    "full": [([], lambda b, xs: b.full(2.0, (M,)))],
    "extent": [([], lambda b, xs: b.extent(N, (M,)))],
    "where": [
        ([B_ROW, B_ROW, B_ROW], lambda b, xs: b.where(b.gt(xs[0], 0.5), xs[1], xs[2])),
    ],
    "reshape": [([B_MATRIX], lambda b, xs: b.reshape(xs[0], (Size.of(2), Size.of(6))))],
    "transpose": [([B_MATRIX], lambda b, xs: b.transpose(xs[0], (1, 0)))],
    "slice": [([B_MATRIX], lambda b, xs: b.slice(xs[0], 1, Size.of(1), Size.of(2)))],
    "pad": [([B_MATRIX], lambda b, xs: b.pad(xs[0], 0, Size.of(1), Size.of(5)))],
    "strided_slice": [
        ([B_MATRIX], lambda b, xs: b.strided_slice(xs[0], 1, Size.of(3), -2, Size.of(2))),
        ([B_MATRIX], lambda b, xs: b.strided_slice(xs[0], 0, N - 1, -1, N)),
    ],
    "strided_pad": [
        (
            [B_ROW],
            lambda b, xs: b.emit(
                "strided_pad", xs[0], axis=0, start=Size.of(7), step=-2, size=Size.of(9)
            ),
        )
    ],
    # By the true slope: any other isn't the slope of the value.
    "surrogate": [([B_ROW], lambda b, xs: b.surrogate(b.sin(xs[0]), xs[0], b.cos(xs[0])))],
    "arccosh": [([B_ROW], lambda b, xs: b.arccosh(b.add(xs[0], 1.5)))],
    "prod": [([B_MATRIX], lambda b, xs: b.reduce("prod", xs[0], 0))],
    "copy": [([B_ROW], lambda b, xs: b.emit("copy", xs[0]))],
    "spread": [([MATRIX], lambda b, xs: b.emit("spread", xs[0], axes="B"))],
    "concat": [([B_MATRIX, MATRIX], lambda b, xs: b.concat((xs[0], xs[1]), 0))],
    "broadcast": [([B_ROW], lambda b, xs: b.broadcast(xs[0], (N, M), (1,)))],
    "contract": [
        ([Type((N,), "B"), MATRIX], lambda b, xs: b.contract(xs[0], xs[1], ("k", "kl", "l"))),
        ([B_MATRIX, B_ROW], lambda b, xs: b.contract(xs[0], xs[1], ("kl", "l", "k"))),
        ([B_MATRIX, B_ROW], lambda b, xs: b.contract(xs[0], xs[1], ("kl", "m", "mkl"), "B")),
    ],
    "sum_over": [([B_MATRIX], lambda b, xs: b.sum_over(xs[0], "B"))],
    "sum": [([B_MATRIX], lambda b, xs: b.reduce("sum", xs[0], 0))],
    "max": [([B_MATRIX], lambda b, xs: b.reduce("max", xs[0], 1))],
    "min": [([B_MATRIX], lambda b, xs: b.reduce("min", xs[0], 1))],
    "cumsum": [
        ([B_MATRIX], lambda b, xs: b.cumsum(xs[0], 1)),
        ([B_MATRIX], lambda b, xs: b.cumsum(xs[0], 0, reverse=True)),
    ],
    "uniform": [([], lambda b, xs: b.uniform(Value("seed", Type((), "", "int")), 1, (M,), "seq"))],
}
# Their gradients are zero, or meant to be.
STEPS = ("sign", "floor", "ceil", "round", "trunc", "floor_divide")
FLAT = ("full", "extent", "uniform", "stop_gradient", *STEPS)
CONDITIONS = ("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not")


def examples(opcode: str) -> list[tuple[list[Type], Make]]:
    if opcode in SHAPED:
        return SHAPED[opcode]
    opdef = OPS[opcode]
    assert opdef.kind is Kind.POINTWISE, f"{opcode}: say in SHAPED how it is built"
    numpy = opdef.numpy
    count = numpy.nin if isinstance(numpy, np.ufunc) else numpy.__code__.co_argcount  # type: ignore[attr-defined]
    return [([B_ROW] * count, lambda b, xs: b.emit(opcode, *xs))]


def program_of(types: list[Type], make: Make) -> tuple[Program, Op]:
    """A square of the op, so that its cotangent varies."""
    xs = [Value(f"x{i}", t) for i, t in enumerate(types)]
    b = Builder()
    y = make(b, xs)
    op = b.ops[-1]
    b.mul(y, y)
    params = tuple(Param(x, "weight") for x in xs)
    results = (Result(ResultRole("output", "y"), b.ops[-1].result),)
    return Program("one op", params, tuple(b.ops), None, (), results), op


@pytest.mark.parametrize("opcode", [n for n in OPS if n not in (*FLAT, *CONDITIONS)])
def test_every_op_is_differentiable_twice(opcode: str) -> None:
    """By a vjp made of ops that have vjps, and to the slopes of the gradient."""
    for types, make in examples(opcode):
        program, op = program_of(types, make)
        rule = OPS[opcode].vjp
        assert rule is not None, f"{opcode} has no vjp"
        b = Builder()
        dy = Value("dy", op.result.type)
        assert any(d is not None for d in rule(b, op, dy))
        for made in b.ops:
            assert OPS[made.opcode].vjp or made.opcode in (*FLAT, *CONDITIONS)
        case = Case(program, {}, batch=2, time=1, seed=4)
        case.arguments = {n: np.abs(a) for n, a in case.arguments.items()}  # logs, roots, powers
        assert_slopes(case)


@pytest.mark.parametrize("opcode", [*FLAT, *CONDITIONS])
def test_flat_ops_have_no_gradient(opcode: str) -> None:
    rule, x, b = OPS[opcode].vjp, Value("x", B_ROW), Builder()
    if rule is not None:
        assert rule(b, Op(opcode, (x,), (x,)), x) == (None,)
    elif opcode in CONDITIONS:
        assert OPS[opcode].infer({}, B_ROW, B_ROW).dtype == "bool"
