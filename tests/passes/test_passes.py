"""Every pass leaves the meaning alone, and does what it is there for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

import rnncc
from rnncc.common.result_roles import ResultRole, gradient_name
from rnncc.ir.builder import Builder
from rnncc.ir.printer import print_program
from rnncc.ir.program import Op, Param, Program, Result, Type, Value
from rnncc.ir.rewrite import prune
from rnncc.ir.sizes import Size
from rnncc.lowering.cell_interface import check_text
from rnncc.lowering.lower import lower
from rnncc.passes.centred_sums import centred_sums
from rnncc.passes.defer import defer
from rnncc.passes.differentiate import differentiate
from rnncc.passes.hoist import hoist
from rnncc.passes.pipeline import PIPELINE, gradient, optimise, stages
from rnncc.passes.residuals import residuals
from rnncc.passes.rotate import rotate
from rnncc.passes.simplify import simplify
from rnncc.schedule.build import schedule
from rnncc.schedule.legalize import legalize
from tests.support import cases
from tests.support.cases import Case, distinct

LIMIT = 1e-12


def optimised(name: str) -> tuple[Program, Program]:
    """Training forward and pullback at the end of the pipeline."""
    program = cases.lowered(name)
    wrt = [p.value.name for p in program.params if p.role in cases.DIFFERENTIABLE]
    forward, pullback = gradient(program, wrt)
    return optimise(forward), optimise(pullback)


def opcodes(ops: Iterable[Op]) -> list[str]:
    return [op.opcode for op in ops]


# ---- every cell, every pass --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "variant"), cases.variants(cases.NAMES))
def test_the_meaning_stays(name: str, variant: str) -> None:
    """Forward, training forward and pullback mean the same after each pass."""
    program = cases.lowered(name, variant)
    case = Case(program, cases.sizes_for(cases.spec_of(name)))
    right, cotangents = case.run(), case.cotangents()
    for stage, after in (*stages(program), ("legalize", legalize(optimise(program)))):
        error, worst = cases.worst(case.run(after), right)
        assert error <= LIMIT, (stage, worst)
    forward, pullback = gradient(program, case.wrt)
    saved = case.run(forward)
    for stage, after in (*stages(forward), ("legalize", legalize(optimise(forward)))):
        found = case.run(after)
        assert cases.worst(found, saved)[0] <= LIMIT, stage
        assert cases.worst({k: found[k] for k in right}, right)[0] <= LIMIT, stage
    # The pullback is interpreted by name, so its parameters get names of their own.
    pullback, roles = distinct(pullback)
    brought = {gradient_name(result): d for result, d in cotangents.items()}
    values = iter(case.residuals(forward))
    inner = Case(pullback, case.sizes, case.batch, case.time)
    for new, (old, role) in roles.items():
        inner.arguments[new] = (
            next(values)
            if role == "residual"
            else brought[old]
            if role == "cotangent"
            else case.arguments[old]
        )
    gradients = inner.run()
    for stage, after in (*stages(pullback), ("legalize", legalize(optimise(pullback)))):
        assert cases.worst(inner.run(after), gradients)[0] <= LIMIT, stage


@pytest.mark.parametrize("name", cases.NAMES)
def test_passes_are_idempotent_and_print_the_same(name: str) -> None:
    first, again = optimised(name), optimised(name)
    for a, b in zip(first, again):
        text = print_program(a)
        assert text == print_program(b)
        assert print_program(simplify(a)) == text


def test_printed_programs_do_not_depend_on_hashes() -> None:
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.passes.test_passes import optimised\n"
        "from rnncc.ir.printer import print_program\n"
        "for n in ('lstm', 'slstm', 'normalized', 'delays', 'noise'):\n"
        "    print(*map(print_program, optimised(n)))\n"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=cases.ROOT,
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "4242")
    }
    (text,) = texts
    assert text.count(b"program ") == 10


# ---- what each pass is there for ---------------------------------------------------------------


def test_the_order() -> None:
    assert [n for n, _ in PIPELINE] == [
        "settle",
        "simplify",
        "hoist",
        "precompute_next",
        "rotate",
        "defer",
        "tidy",
        "steps_first",
        "merge_sums",
        "carry_sums",
        "join",
    ]


def test_hoist_takes_the_input_out_of_the_loop() -> None:
    program = simplify(cases.lowered("lstm"))
    assert opcodes(program.scan.body).count("contract") == 8  # four gates, of x and of h
    assert "contract" not in opcodes(program.before)
    after = hoist(program)
    inside = [op for op in after.scan.body if op.opcode == "contract"]
    outside = [op for op in after.before if op.opcode == "contract"]
    assert len(inside) == len(outside) == 4
    assert all(op.result.type.axes == "BT" for op in outside)
    carried = {c.value for c in after.scan.carries}
    assert all(carried & set(op.operands) for op in inside)
    # The bias went along: it starts the accumulator.
    assert "add" in opcodes(after.before)


def test_hoist_leaves_lane_by_lane_work_in_the_step() -> None:
    text = HEADER + "h[t] = tanh(x[t]) * h[t-1]\nreturn h[t]\n"
    after = hoist(simplify(lower(check_text(text))))
    assert opcodes(after.scan.body) == ["tanh", "mul"]
    assert not after.before


def test_hoist_carries_no_matrix_in_that_a_step_makes_at_less() -> None:
    """outer(v, k) is as large as the state; v and k, and what the state was, are all it is of."""
    program = cases.lowered("fast_weights")
    _, pullback = gradient(
        program, Case(program, cases.sizes_for(cases.spec_of("fast_weights"))).wrt
    )
    after = hoist(simplify(pullback))
    assert [x.value.name for x in after.scan.xs if len(x.value.type.shape) > 1] == ["_C_1"]
    assert all(len(op.result.type.shape) < 2 for op in after.before if "T" in op.result.type.axes)


def test_hoist_makes_twice_what_both_need() -> None:
    """Spread out, a row's number is as large as what the reduction reads: steps spread it again."""
    text = (
        HEADER
        + "m = outer(x[t], x[t])\nh[t] = h[t-1] * sum(m * m, axis=0) + m @ h[t-1]\nreturn h[t]\n"
    )
    after = hoist(simplify(lower(check_text(text))))
    assert "sum" in opcodes(after.before) and "sum" not in opcodes(after.scan.body)
    assert all(len(x.value.type.shape) < 2 for x in after.scan.xs)
    assert opcodes(after.scan.body).count("broadcast") >= 2


def test_rotate_puts_the_contraction_first() -> None:
    """d_h = e + dz @ U' becomes the start of the next step: one dependent stage instead of two."""
    program = cases.lowered("lstm")
    case = Case(program, cases.sizes_for(cases.spec_of("lstm")))
    _, pullback = gradient(program, case.wrt)
    before = hoist(simplify(pullback))
    codes = opcodes(before.scan.body)
    assert codes.index("contract") > codes.index("tanh")
    after = rotate(before)
    # With gradients of weights gone, too, what feeds the carry comes before everything else.
    codes = opcodes(defer(after).scan.body)
    last = max(i for i, c in enumerate(codes) if c == "contract")
    assert set(codes[: last + 1]) <= {"contract", "add"} and codes.count("contract") == 4
    carried = [c.name for c in after.scan.carries]
    assert {"d_z_i", "d_z_f", "d_z_g", "d_z_o"} <= set(carried)
    # The exit is peeled: the gradient of the initial h takes the last dz.
    finals = {c.final for c in after.scan.carries}
    assert [op for op in after.after if op.opcode == "contract" and finals & set(op.operands)]


def test_rotate_leaves_what_others_read() -> None:
    text = HEADER + "U: weight[units, units]\nz = h[t-1] @ U + x[t]\nh[t] = z @ U\nreturn z\n"
    program = hoist(simplify(lower(check_text(text))))
    assert rotate(program).scan is not None
    text = HEADER + "U: weight[units, units]\nh[t] = tanh(h[t-1]) @ U + x[t]\nreturn h[t]\n"
    program = hoist(simplify(lower(check_text(text))))
    assert rotate(program) is program  # h is a result of every step


@pytest.mark.parametrize("name", ["lstm", "gru", "simple_rnn", "peephole_lstm", "coupled_lstm"])
def test_defer_takes_gradients_of_weights_out_of_the_loop(name: str) -> None:
    _, pullback = optimised(name)
    for op in pullback.scan.body:
        assert not op.attrs.get("over"), op.opcode
        assert op.opcode != "sum_over"
        assert "B" in op.result.type.axes or op.opcode == "full", op
    over = [op for op in pullback.after if op.attrs.get("over") == "BT"]
    assert {op.opcode for op in over} == {"contract", "sum_over"}
    assert all("B" in c.value.type.axes for c in pullback.scan.carries), "a row of each sequence"


def test_gradients_of_inputs_are_one_product_after_the_loop() -> None:
    _, pullback = optimised("lstm")
    x = next(r.value for r in pullback.results if r.name == "d_x")
    made = {op.result: op for op in pullback.after}
    assert x in made and x.type.axes == "BT"
    assert opcodes(pullback.scan.body).count("contract") == 1  # dz @ U', all gates side by side


# ---- join --------------------------------------------------------------------------------------


def test_gates_are_joined_in_the_order_of_their_weight() -> None:
    _, pullback = optimised("lstm")
    (concat,) = [op for op in pullback.scan.body if op.opcode == "concat"]
    assert [v.name for v in concat.operands] == ["d_z_i", "d_z_f", "d_z_g", "d_z_o"]
    assert opcodes(pullback.after) == ["contract", "contract", "sum_over", "contract", "contract"]
    assert not [op for op in pullback.before if op.opcode == "slice"], "weights are read whole"


def test_gates_side_by_side_along_two_axes_stay_alone() -> None:
    text = """cell: Crossed
n: size
x: input[2, n]
h: state[2, n]
W: weight[4, n]
V: weight[2, 2 * n]
a, b = split(W, 2, axis=0)
c, d = split(V, 2, axis=1)
h[t] = tanh(x[t] + a + c) * sigmoid(h[t-1] + b + d)
return h[t]
"""
    for wrt, stacks in ((["W"], 1), (["V"], 1), (["W", "V"], 2)):
        _, joined = gradient(lower(check_text(text)), wrt)
        for name, run in PIPELINE:
            joined = joined if name == "carry_sums" else run(joined)  # it leaves no gates to join
        assert joined.scan and len(joined.scan.ys) == stacks, wrt


# ---- merge_sums --------------------------------------------------------------------------------


def test_sums_of_a_weight_read_often_are_one() -> None:
    text = """cell: Unfolded
n: size
x: input[n]
h: state[n]
w: weight[n]
v: weight[n]
a = x[t] + w * h[t-1]
b = tanh(w * a) - v
c = tanh(w * b) - v
h[t] = tanh(w * c) + v
return h[t]
"""
    _, pullback = gradient(lower(check_text(text)), ["w", "v"])
    merged = optimise(pullback)
    assert [op.opcode for op in merged.after] == ["sum_over", "sum_over"]
    assert len(merged.scan.carries) == 3  # h, and what w and v have so far


def test_sums_that_are_subtracted_keep_their_signs() -> None:
    text = """cell: Signs
n: size
x: input[n]
h: state[n]
w: weight[n]
v: weight[n]
a = tanh((-w) * x[t] - w * h[t-1]) - v
b = tanh(w * a) - v
h[t] = tanh(w * b) - v
return h[t]
"""
    program = lower(check_text(text))
    _, pullback = gradient(program, ["w", "v"])
    case = Case(program, {"n": 5})
    right = case.run()
    assert cases.worst(case.run(optimise(program)), right)[0] <= LIMIT
    inner = Case(distinct(pullback)[0], {"n": 5})
    found = Case(distinct(pullback)[0], {"n": 5}, arguments=inner.arguments)
    assert cases.worst(found.run(optimise(found.program)), inner.run())[0] <= LIMIT


def test_sums_that_are_results_stay_as_they_are() -> None:
    """One weight's gradient isn't a part of another's."""
    text = """cell: Two
n: size
x: input[n]
h: state[n]
w: weight[n]
v: weight[n]
h[t] = tanh(w * h[t-1] + v * x[t])
return h[t]
"""
    _, pullback = gradient(lower(check_text(text)), ["w", "v"])
    assert len([op for op in optimise(pullback).after if op.opcode == "sum_over"]) == 2


# ---- centred_sums ------------------------------------------------------------------------------

CENTRED = """
cell: Centred
n: size
x: input[n]
h: state[n, n]
W: weight[n, n]
z = h[t-1] @ W + reshape(x[t], (1, n))
c = z - reshape(mean(z, axis=1), (n, 1))
h[t] = c / sqrt(reshape(mean(c * c, axis=AXIS), SHAPE) + 0.1)
return h[t] @ x[t]
"""


@pytest.mark.parametrize(("axis", "left_out"), [(1, True), (0, False)])
def test_a_centred_value_sums_to_nothing_along_its_axis_alone(axis: int, left_out: bool) -> None:
    text = CENTRED.replace("AXIS", str(axis)).replace("SHAPE", ["(1, n)", "(n, 1)"][axis])
    program = simplify(lower(check_text(text)))
    forward, whole = differentiate(program, ["x", "W"])
    whole = simplify(whole)
    assert (centred_sums(forward, whole) is not whole) == left_out
    case = Case(program, {"n": 3})
    cotangents = case.cotangents()
    forward, pullback = gradient(program, ["x", "W"])
    found, rng = case.pull(forward, pullback, cotangents), np.random.default_rng(4)
    for name in ("x", "W"):

        def loss(at: np.ndarray, name: str = name) -> float:
            return cases.total(case.run(**{name: at}), cotangents)

        at = case.arguments[name]
        assert max(cases.slope_errors(loss, at, found[name], rng)) < 1e-7


# ---- one lane, steps first ---------------------------------------------------------------------


def test_a_score_is_a_sum_and_steps_are_summed_first() -> None:
    forward, pullback = optimised("scores")
    products = [op for p in (forward, pullback) for op in p.ops() if op.opcode == "contract"]
    assert all(op.result.type.shape and op.attrs["labels"][2][-1:] for op in products)
    assert all("1" not in map(str, op.result.type.shape) for op in products)
    (dU,) = [r.value for r in pullback.results if r.role.of == "U"]
    made = {op.result: op for op in pullback.ops()}
    assert made[dU].opcode == "contract" and made[dU].attrs["over"] == "B"


# ---- carry_sums --------------------------------------------------------------------------------


def test_what_is_only_summed_takes_no_memory_a_step() -> None:
    _, pullback = optimised("peephole_lstm")
    sums = [op for op in pullback.after if op.opcode == "sum_over"]
    assert sorted(op.attrs["over"] for op in sums) == ["B", "B", "B", "BT"]  # peepholes, the bias
    finals = {c.final for c in pullback.scan.carries}
    assert all(op.operands[0] in finals for op in sums if op.attrs["over"] == "B")


def test_sums_of_what_is_stacked_anyway_stay_after_the_loop() -> None:
    _, pullback = optimised("lstm")
    assert [c.name for c in pullback.scan.carries] == ["d_h", "d_c", "d_z"]


def test_gates_that_someone_reads_alone_stay_alone() -> None:
    """A second stack beside theirs would cost more than one product in place of two saves."""
    text = """cell: Shared
n: size
x: input[n]
h: state[n]
W: weight[n, 2 * n]
V: weight[n, n]
i, g = split(x[t] @ W, 2)
h[t] = tanh(i) * sigmoid(g + x[t] @ V)
return h[t]
"""
    _, pullback = gradient(lower(check_text(text)), ["W"])
    alone = optimise(pullback)
    assert alone.scan and len(alone.scan.ys) == 1
    _, pullback = gradient(lower(check_text(text)), ["W", "V"])
    shared = optimise(pullback)
    assert shared.scan and len(shared.scan.ys) == 2


def test_defer_leaves_a_row_s_own_matrix_in_the_step() -> None:
    """Stacking it would cost its size every step."""
    forward, _ = optimised("fast_weights")
    stacked = [s.value.type.shape for s in forward.scan.ys]
    assert stacked.count((Size.name("units"), Size.name("key_size"))) <= 1  # the history of C


# ---- residuals ---------------------------------------------------------------------------------


def saved(name: str) -> list[str]:
    forward, _ = optimised(name)
    return sorted(
        re.sub(r"^_(\w+)_\d+$", r"\1 before", r.value.name)
        for r in forward.results
        if r.role.kind == "residual"
    )


def test_lstm_saves_gates_and_histories() -> None:
    assert saved("lstm") == ["c", "c before", "f", "g", "h before", "i", "o"]
    forward, pullback = optimised("lstm")
    assert opcodes(forward.scan.body).count("tanh") == 2
    assert opcodes(pullback.scan.body).count("tanh") == 1  # tanh(c), again
    assert "sigmoid" not in opcodes(pullback.scan.body)


def test_simple_rnn_saves_its_states() -> None:
    assert saved("simple_rnn") == ["h", "h before"]
    assert "tanh" not in opcodes(optimised("simple_rnn")[1].scan.body)


def test_nothing_wide_is_saved_for_a_spread_value() -> None:
    """What was spread is saved, not the spread."""
    text = HEADER + "s = sum(x[t] * h[t-1])\nh[t] = tanh(s * h[t-1])\nreturn h[t]\n"
    program = lower(check_text(text))
    forward, _ = gradient(program, ["x", "h"])
    saved = [r.value for r in forward.results if r.role.kind == "residual"]
    shapes = {v.name: v.type.shape for v in saved}
    assert shapes["s"] == ()


@pytest.mark.parametrize("name", cases.NAMES)
def test_what_is_saved_is_read(name: str) -> None:
    forward, pullback = optimised(name)
    read = {o for op in pullback.ops() for o in op.operands}
    if pullback.scan:
        read |= {s.source for s in pullback.scan.xs}
        read |= {v for c in pullback.scan.carries for v in (c.init, c.next)}
        read |= {s.value for s in pullback.scan.ys}
    read |= {r.value for r in pullback.results}
    taken = [p.value for p in pullback.params if p.role == "residual"]
    assert set(taken) <= read
    assert len(taken) == len([r for r in forward.results if r.role.kind == "residual"])
    assert len(set(taken)) == len(taken)
    assert all(v.type.axes for v in taken)  # what weights alone make, a pullback makes again


def test_residuals_need_a_loop() -> None:
    program = Program("nothing", (), (), None, (), ())
    assert residuals(program, program) == (program, program)


# ---- simplify ----------------------------------------------------------------------------------

UNITS = Size.name("units")
HEADER = '"""A cell."""\ncell: Small\nunits: size\nx: input[units]\nh: state[units]\n'


def program_of(build: Callable[[Builder, Value, Value], Value | tuple[Value, ...]]) -> Program:
    """A program of straight-line ops over a row x and a weight w, both [units]."""
    x, w = Value("x", Type((UNITS,), "B")), Value("w", Type((UNITS,)))
    b = Builder()
    made = build(b, x, w)
    values = made if isinstance(made, tuple) else (made,)
    results = tuple(Result(ResultRole("output", f"y{i}"), v) for i, v in enumerate(values))
    return Program("small", (Param(x, "input"), Param(w, "weight")), (*b.ops,), None, (), results)


FOLDS = {
    "x + 0": lambda b, x, w: b.add(x, 0.0),
    "0 + x": lambda b, x, w: b.add(b.like(0.0, x), x),
    "x - 0": lambda b, x, w: b.sub(x, 0.0),
    "x * 1": lambda b, x, w: b.mul(x, 1.0),
    "x / 1": lambda b, x, w: b.div(x, 1.0),
    "x ** 1": lambda b, x, w: b.pow(x, 1.0),
    "--x": lambda b, x, w: b.neg(b.neg(x)),
    "where(c, x, x)": lambda b, x, w: b.where(b.gt(x, 0.0), x, x),
    "where(True, x, w)": lambda b, x, w: b.where(b.like(True, x), x, b.mul(x, w)),
    "reshape back": lambda b, x, w: b.reshape(b.reshape(x, (UNITS, Size.of(1))), (UNITS,)),
    "transpose twice": lambda b, x, w: b.reshape(
        b.transpose(b.transpose(b.reshape(x, (UNITS, Size.of(1))), (1, 0)), (1, 0)), (UNITS,)
    ),
    "a slice of a concat": lambda b, x, w: b.slice(b.concat((x, w), 0), 0, Size.of(0), UNITS),
}


@pytest.mark.parametrize("what", FOLDS)
def test_what_does_nothing_goes(what: str) -> None:
    program = program_of(FOLDS[what])
    after = simplify(program)
    assert after.before == ()
    assert after.results[0].value is program.params[0].value


def test_constants_are_folded() -> None:
    program = program_of(
        lambda b, x, w: b.add(x, b.mul(b.exp(b.like(0.0, x)), b.sub(b.like(5.0, x), 2.0)))
    )
    after = simplify(program)
    assert opcodes(after.before) == ["full", "add"]
    assert after.before[0].attrs["value"] == 3.0


ZEROS = {
    "x * 0": lambda b, x, w: b.mul(x, 0.0),
    "0 * x": lambda b, x, w: b.mul(b.like(0.0, x), x),
    "0 / x": lambda b, x, w: b.div(b.like(0.0, x), x),
    "x * 0 + 0": lambda b, x, w: b.add(b.mul(x, 0.0), 0.0),
}


@pytest.mark.parametrize("what", ZEROS)
def test_zero_times_anything_is_a_constant(what: str) -> None:
    (only,) = simplify(program_of(ZEROS[what])).before
    assert only.opcode == "full" and only.attrs["value"] == 0


@pytest.mark.parametrize("constant", [-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0])
def test_arithmetic_with_constants(constant: float) -> None:
    """Each in either place: folded or not, the meaning stays."""
    program = program_of(
        lambda b, x, w: tuple(
            made
            for opcode in ("add", "sub", "mul", "div", "pow", "maximum")
            for c in (b.like(constant, x),)
            for made in (b.emit(opcode, b.abs(x), c), b.emit(opcode, c, b.add(b.abs(x), 1.0)))
        )
    )
    case = Case(program, {"units": 5})
    right = {k: a for k, a in case.run().items() if np.isfinite(a).all()}
    assert len(right) >= 10
    found = case.run(simplify(program))
    spread = {k: np.broadcast_to(found[k], a.shape) for k, a in right.items()}  # 0 * x has no rows
    assert cases.worst(spread, right)[0] <= 1e-15


@pytest.mark.parametrize(
    ("exponent", "becomes"),
    [(2.0, ["mul"]), (3.0, ["mul", "mul"]), (0.5, ["sqrt"]), (-0.5, ["rsqrt"])],
)
def test_powers_of_small_numbers(exponent: float, becomes: list[str]) -> None:
    after = simplify(program_of(lambda b, x, w: b.pow(x, exponent)))
    assert opcodes(after.before) == becomes


def test_equal_ops_are_one() -> None:
    program = program_of(lambda b, x, w: (b.tanh(b.mul(x, w)), b.tanh(b.mul(x, w))))
    assert len(program.before) == 4
    after = simplify(program)
    assert opcodes(after.before) == ["mul", "tanh"]
    assert after.results[0].value is after.results[1].value


def test_draws_of_different_sites_stay_apart() -> None:
    text = HEADER + "p: rate = 0\nh[t] = drop(x[t], p) + drop(x[t], p) + h[t-1]\nreturn h[t]\n"
    program = lower(check_text(text), training=True, active_rates=frozenset({"p"}))
    assert opcodes(optimise(program).ops()).count("uniform") == 2


def test_nobody_reads_it_so_it_goes() -> None:
    program = program_of(lambda b, x, w: (b.tanh(x), b.add(x, w))[1])
    assert opcodes(program.before) == ["tanh", "add"]
    assert opcodes(prune(program).before) == ["add"]
    assert prune(program).params == program.params


def test_a_carry_nobody_reads_goes() -> None:
    body = "c: state[units]\nc[t] = tanh(c[t-1] + x[t])\nh[t] = x[t] * h[t-1]\nreturn h[t]\n"
    program = lower(check_text(HEADER + body))
    assert len(program.scan.carries) == 2
    alone = prune(replace(program, results=program.results[:1]))
    assert [c.name for c in alone.scan.carries] == ["h"] and "tanh" not in opcodes(alone.ops())
    kept = prune(replace(program, results=program.results[-1:]))
    assert [c.name for c in kept.scan.carries] == ["c"] and "tanh" in opcodes(kept.ops())
    assert prune(replace(program, results=())).scan is None


def test_a_full_mask_folds_away_with_none_given() -> None:
    plain, masked = (simplify(cases.lowered("lstm", v)) for v in ("plain", "mask"))
    assert "where" not in opcodes(plain.ops()) and "where" in opcodes(masked.ops())
    assert "valid" not in {p.role for p in plain.params}


LONG = {
    "of a sum": ("x[t] @ W", "tanh({} + h[t-1])", "{}"),  # its gradient is a sum of as many
    "of the carry": ("h[t-1] * 0.5", "-{} * 2", "x[t] @ W + {} @ W"),
    "of weights": ("v * 0.5", "sin({})", "x[t] @ W + h[t-1] @ W + {}"),
}


@pytest.mark.parametrize("what", LONG)
def test_long_chains(what: str) -> None:
    """A thousand equations, each of the one before: no pass calls itself once for each."""
    first, each, last = LONG[what]
    lines = [f"a0 = {first}", *(f"a{i} = {each.format(f'a{i - 1}')}" for i in range(1, 1000))]
    spec = check_text(
        "cell: Long\nn: size\nx: input[n]\nh: state[n]\nW: weight[n, n]\nv: weight[n]\n"
        + "\n".join(lines)
        + f"\nh[t] = tanh({last.format('a999')}) * v\nreturn h[t]\n"
    )
    program = lower(spec)
    forward, pullback = gradient(program, ["x", "h", "W", "v"])
    for made in (optimise(program), optimise(forward), optimise(pullback)):
        assert schedule(made).kernels


# ---- axes of one element ------------------------------------------------------------------------

MATRICES = """cell: Memory
x: input[15]
C: state[3, 4, 4]
w: weight[15, 12]
p: weight[4, 1]
v = reshape((x[t] @ w), (3, 4, 1))
k = tanh(reshape(x[t][0:12], (3, 1, 4)))
C[t] = 0.5 * C[t-1] + OUTER
y = reshape(ROWS, (3, 4))
z = reshape(COLUMNS, (3, 4))
return y * z + reshape(einsum("zik,kj->zij", C[t], p), (3, 4))
"""
AS_PRODUCTS = {
    "OUTER": 'einsum("zik,zkj->zij", v, k)',
    "ROWS": 'einsum("zik,zkj->zij", C[t], v)',
    "COLUMNS": 'einsum("zik,zij->zkj", C[t], v)',
}
WRITTEN_OUT = {
    "OUTER": "v * k",
    "ROWS": "sum(C[t] * reshape(v, (3, 1, 4)), axis=2)",
    "COLUMNS": "sum(C[t] * v, axis=1)",
}


def test_axes_of_one_element_are_no_axes_of_a_product() -> None:
    """Batched products of matrices with one column mean what they mean written out."""
    made = []
    for words in (AS_PRODUCTS, WRITTEN_OUT):
        text = MATRICES
        for word, expression in words.items():
            text = text.replace(word, expression)
        program = lower(check_text(text))
        forward, pullback = gradient(program, ["x", "w", "p"])
        ops = [*optimise(forward).ops(), *optimise(pullback).ops()]
        own = [o for o in ops if o.opcode == "contract" and not o.attrs["over"]]
        for a, b in (o.operands for o in own if all(x.type.axes for x in o.operands)):
            assert "1" not in map(str, (*a.type.shape, *b.type.shape))
        layer = rnncc.compile_text(text, dtype="float64")(return_sequences=True, seed=3)
        x = np.random.default_rng(5).standard_normal((3, 4, 15))
        y, pullback_of = layer.vjp(x)
        back = pullback_of(np.cos(y))
        made.append([y, back.inputs, *back.weights.values()])
    for mine, other in zip(*made, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-11, atol=1e-12)
