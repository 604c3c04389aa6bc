"""Lowering: every cell under every option gives a valid Program that means what it should."""

from __future__ import annotations

import doctest
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from rnncc import oracle
from rnncc.frontend.diagnostics import SpecError
from rnncc.frontend.elaborate import sizes_of
from rnncc.frontend.parse import parse_file
from rnncc.frontend.spec import CellSpec
from rnncc.ir.interp import interpret
from rnncc.ir.program import Program
from rnncc.ir.verify import verify
from rnncc.lowering.cell_interface import (
    CellInterface,
    check,
    check_text,
    foldings,
)
from rnncc.lowering.lower import lower
from tests.support.paths import ROOT

CELLS = sorted([*(ROOT / "rnncc/cells").glob("*.rnn"), *(ROOT / "tests/cells").glob("*.rnn")])
ODD = {
    "features": 3,
    "units": 5,
    "rows": 2,
    "columns": 3,
    "frames": 3,
    "places": 4,
    "memory_features": 3,
    "unit_1": 3,
    "unit_2": 1,
    "unit_3": 5,
}
BATCH, TIME = 2, 5


def builtin(name: str) -> CellSpec:
    return parse_file(ROOT / f"rnncc/cells/{name}.rnn")


def bind(spec: CellSpec) -> dict[str, int]:
    """Odd sizes, except where a cell demands that one divides another."""
    sizes = dict(ODD)
    asked = CellInterface(spec).constraints
    divided = any(c.left.has_quotient or c.right.has_quotient for c in asked) or any(
        s is not None and s.has_quotient for s in sizes_of(spec).values()
    )
    if divided:
        sizes["units"] = 12
    for name, default in sizes_of(spec).items():
        if default is not None:
            sizes[name] = default.evaluate(sizes)
    return sizes


def arguments(program: Program, sizes: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    drawn: dict[str, np.ndarray] = {}
    for param in program.params:
        type_ = param.value.type
        shape = [{"B": BATCH, "T": TIME}[a] for a in type_.axes]
        shape += [s.evaluate(sizes) for s in type_.shape]
        name = param.value.name
        if param.role == "rate":
            drawn[name] = np.array(0.3)
        elif param.role == "seed":
            drawn[name] = np.array(seed + 7)
        elif param.role == "valid":
            drawn[name] = np.ones(shape, bool)
        elif param.role == "held":
            drawn[name] = np.zeros(shape)  # nothing was put out before
        else:
            drawn[name] = rng.uniform(0.1, 0.9, shape) * (rng.integers(0, 2, shape) * 2 - 1)
            if param.role == "state" and name in ("n", "energy", "power"):
                drawn[name] = np.abs(drawn[name])  # what the cell itself never lets go negative
    return drawn


def run(
    program: Program, args: Mapping[str, np.ndarray], sizes: Mapping[str, int], time: int = TIME
) -> dict[str, np.ndarray]:
    """What the program's user sees."""
    found = interpret(program, args, sizes, BATCH, time)
    return {r.name: found[r.name] for r in program.results if r.role.kind != "held"}


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_cells_lower_under_every_option(path: Path) -> None:
    spec = check(parse_file(path))
    sizes = bind(spec)
    for c in CellInterface(spec).constraints:
        assert c.left.evaluate(sizes) == c.right.evaluate(sizes), c.message
    rates = frozenset(r.name for r in spec.rates)
    for options in foldings(spec):
        for mask in (False, True):
            for training in (False, True):
                program = verify(
                    lower(spec, options, mask=mask, training=training, active_rates=rates)
                )
                results = run(program, arguments(program, sizes), sizes)
                for name, array in results.items():
                    assert np.isfinite(array).all(), (options, mask, training, name)


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_the_interface_agrees_with_the_program(path: Path) -> None:
    spec = parse_file(path)
    for options in foldings(spec):
        program = lower(spec, options)
        by_role: dict[str, dict] = {}
        for p in program.params:
            by_role.setdefault(p.role, {})[p.value.name] = p.value.type.shape
        interface = CellInterface(spec, options)
        assert interface.inputs == by_role["input"]
        assert interface.states == by_role.get("state", {})
        weights = {n: shape for n, (shape, _) in interface.weights.items()}
        assert by_role.get("weight", {}).items() <= weights.items()
        outputs = {r.name: r.value.type.shape for r in program.results if r.role.kind == "output"}
        assert interface.outputs == outputs
        final = [r.name for r in program.results if r.role.kind == "state"]
        assert final == [f"final_{n}" for n in by_role.get("state", {})]


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_a_full_mask_changes_nothing(path: Path) -> None:
    spec = parse_file(path)
    sizes = bind(spec)
    plain, masked = lower(spec), lower(spec, mask=True)
    args = arguments(masked, sizes)
    expected, found = run(plain, args, sizes), run(masked, args, sizes)
    assert list(expected) == list(found)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_right_padding_is_truncation(path: Path) -> None:
    """Also when what is masked is NaN; the output of the last valid step is repeated."""
    spec = parse_file(path)
    sizes = bind(spec)
    plain, masked = lower(spec), lower(spec, mask=True)
    args = arguments(masked, sizes)
    valid = 3
    inputs = [p.value.name for p in masked.params if p.role == "input"]
    short = {**args, **{n: args[n][:, :valid] for n in inputs}}
    args["valid"][:, valid:] = False
    for n in inputs:
        args[n][:, valid:] = np.nan
    expected, found = run(plain, short, sizes, valid), run(masked, args, sizes)
    for result in (r for r in masked.results if r.role.kind != "held"):
        array = expected[result.name]
        if result.role.kind == "output":
            last = np.repeat(array[:, -1:], TIME - valid, axis=1)
            array = np.concatenate([array, last], axis=1)
        np.testing.assert_array_equal(found[result.name], array)


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_left_padding_is_a_later_start(path: Path) -> None:
    spec = parse_file(path)
    sizes = bind(spec)
    plain, masked = lower(spec), lower(spec, mask=True)
    args = arguments(masked, sizes)
    inputs = [p.value.name for p in masked.params if p.role == "input"]
    short = {**args, **{n: args[n][:, 2:] for n in inputs}}
    args["valid"][:, :2] = False
    args["_shown"] = args["valid"]
    for n in inputs:
        args[n][:, :2] = np.nan
    expected, found = run(plain, short, sizes, TIME - 2), run(masked, args, sizes)
    for result in (r for r in masked.results if r.role.kind != "held"):
        array = found[result.name]
        if result.role.kind == "output":
            assert not array[:, :2].any()
            array = array[:, 2:]
        np.testing.assert_array_equal(array, expected[result.name])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("use_bias", [True, False])
def test_simple_rnn(use_bias: bool) -> None:
    program = lower(builtin("simple_rnn"), {"use_bias": use_bias})
    a = arguments(program, ODD)
    h, ys = a["h"], []
    for t in range(TIME):
        z = a["x"][:, t] @ a["kernel"] + h @ a["recurrent_kernel"] + a.get("bias", 0)
        h = np.tanh(z)
        ys.append(h)
    assert ("bias" in a) == use_bias
    found = run(program, a, ODD)
    np.testing.assert_allclose(found["h"], np.stack(ys, 1), atol=1e-12)
    np.testing.assert_allclose(found["final_h"], h, atol=1e-12)


@pytest.mark.parametrize("use_bias", [True, False])
def test_lstm(use_bias: bool) -> None:
    program = lower(builtin("lstm"), {"use_bias": use_bias})
    a = arguments(program, ODD)
    h, c, ys = a["h"], a["c"], []
    for t in range(TIME):
        z = a["x"][:, t] @ a["kernel"] + h @ a["recurrent_kernel"] + a.get("bias", 0)
        i, f, g, o = np.split(z, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        ys.append(h)
    found = run(program, a, ODD)
    np.testing.assert_allclose(found["h"], np.stack(ys, 1), atol=1e-12)
    np.testing.assert_allclose(found["final_c"], c, atol=1e-12)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("reset_after", [True, False])
def test_gru(use_bias: bool, reset_after: bool) -> None:
    options = {"use_bias": use_bias, "reset_after": reset_after}
    program = lower(builtin("gru"), options)
    a = arguments(program, ODD)
    bias = a.get("bias", np.zeros((2, 15)))
    b_x, b_h = bias if reset_after or not use_bias else (bias, np.zeros(15))
    h, ys = a["h"], []
    U_h = a["recurrent_kernel"][:, 10:]
    for t in range(TIME):
        x_z, x_r, x_h = np.split(a["x"][:, t] @ a["kernel"] + b_x, 3, axis=1)
        h_z, h_r, h_h = np.split(h @ a["recurrent_kernel"] + b_h, 3, axis=1)
        z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
        g = np.tanh(x_h + (r * h_h if reset_after else (r * h) @ U_h))
        h = z * h + (1 - z) * g
        ys.append(h)
    np.testing.assert_allclose(run(program, a, ODD)["h"], np.stack(ys, 1), atol=1e-12)


def cell(body: str, returns: str = "h[t]", declared: str = "") -> CellSpec:
    return check_text(
        f"cell: C\nunits: size\nx: input[units]\nh: state[units]\n{declared}\n{body}\n"
        f"return {returns}\n"
    )


def evaluate(spec: CellSpec, **kw: object) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    program = lower(spec, **kw)  # type: ignore[arg-type]
    args = arguments(program, ODD)
    return args, run(program, args, ODD)


def test_delays() -> None:
    delayed = cell("h[t] = 0.5 * h[t-2] + x[t-1] + x[t]")
    a, y = evaluate(delayed)
    assert CellInterface(delayed).states.keys() == {"h", "_x_1", "_h_2"}
    xs = [a["_x_1"], *np.moveaxis(a["x"], 1, 0)]
    hs = [a["_h_2"], a["h"]]
    for t in range(TIME):
        hs.append(0.5 * hs[-2] + xs[t] + xs[t + 1])
    np.testing.assert_allclose(y["h"], np.stack(hs[2:], 1), atol=1e-12)
    np.testing.assert_allclose(y["final__h_2"], hs[-2], atol=1e-12)
    np.testing.assert_allclose(y["final__x_1"], xs[-1], atol=1e-12)


def test_dropout_draws_only_in_training_and_only_what_is_active() -> None:
    spec = builtin("lstm")
    assert not {"seed", "dropout"} & {p.value.name for p in lower(spec, training=True).params}
    active = frozenset(["dropout"])
    assert "seed" not in {p.value.name for p in lower(spec, active_rates=active).params}
    names = [p.value.name for p in lower(spec, training=True, active_rates=active).params]
    assert names[-2:] == ["dropout", "seed"]


def test_one_mask_a_sequence_or_a_step_and_scaled() -> None:
    for per, same in (("sequence", True), ("step", False)):
        spec = cell(f'y = drop(x[t], 0.5, per="{per}")\nh[t] = h[t-1]', "y")
        a, y = evaluate(spec, training=True)
        ratio = y["y"] / a["x"]
        assert set(np.unique(ratio.round(6))) == {0.0, 2.0}
        assert (ratio.round(6) == ratio[:, :1].round(6)).all() == same


def test_sites_are_distinct_and_shared_by_name() -> None:
    two = cell("a = drop(x[t], 0.5)\nb = drop(x[t], 0.5)\nh[t] = h[t-1]", "a, b")
    _, y = evaluate(two, training=True)
    assert (y["a"] != y["b"]).any()
    shared = cell("a = drop(x[t], 0.5)\nb = a * 1\nh[t] = h[t-1]", "a, b")
    _, y = evaluate(shared, training=True)
    np.testing.assert_array_equal(y["a"], y["b"])


def test_zoneout() -> None:
    spec = cell("h[t] = zoneout(x[t], h[t-1], keep)", declared="keep: rate = 0.25")
    active = frozenset(["keep"])
    a, y = evaluate(spec, active_rates=active)
    np.testing.assert_allclose(y["h"][:, 0], 0.3 * a["h"] + 0.7 * a["x"][:, 0], atol=1e-12)
    a, y = evaluate(spec, active_rates=active, training=True)
    kept = y["h"][:, 0] == a["h"]
    np.testing.assert_array_equal(np.where(kept, a["h"], a["x"][:, 0]), y["h"][:, 0])
    a, y = evaluate(spec)
    np.testing.assert_array_equal(y["h"], a["x"])


def test_functions_given_by_name_or_text() -> None:
    spec = builtin("simple_rnn")
    programs = {
        f: lower(spec, functions={"activation": f})
        for f in ("relu", "lambda v: maximum(v, 0)", None)
    }
    a = arguments(programs["relu"], ODD)
    relu, text, none = (run(p, a, ODD)["h"] for p in programs.values())
    np.testing.assert_array_equal(relu, text)
    assert (none < 0).any()
    with pytest.raises(ValueError, match="did you mean tanh"):
        lower(spec, functions={"activation": "tanhh"})
    for text, code in (
        ("lambda v: v * foo", "E301"),
        ("lambda v: foo(v)", "E302"),
        ("lambda v: drop(v, 0.5)", "E508"),
        ("lambda v, w: v", "E501"),
        ("where", "E501"),
        ("lambda v: v * dropout", "E301"),
        ("lambda v: v * h", "E301"),
        ("lambda v: v @ v @ kernel", "E406"),
    ):
        with pytest.raises(SpecError) as caught:
            lower(spec, functions={"activation": text})
        assert [d.code for d in caught.value.diagnostics] == [code], text
        assert caught.value.diagnostics[0].span.line == 21
    with pytest.raises(ValueError, match="did you mean use_bias"):
        lower(spec, {"use_bia": True})
    with pytest.raises(TypeError, match="use_bias"):
        lower(spec, {"use_bias": "yes"})


NUMBERS = {
    "2 * x[t] - 1": lambda x: 2 * x - 1,
    "x[t] ** 3 / units": lambda x: x**3 / 5,
    "x[t] * (x[t] > 0)": lambda x: x * (x > 0),
    "where(x[t] > 0 and not x[t] > 0.5, 1, -x[t])": lambda x: np.where((x > 0) & ~(x > 0.5), 1, -x),
    "x[t] / sqrt(units)": lambda x: x / np.sqrt(5),
    "abs(x[t]) ** 0.5 + 2 ** x[t]": lambda x: np.abs(x) ** 0.5 + 2.0**x,
    "clip(x[t], -0.2, units // 2 - 1.75)": lambda x: np.clip(x, -0.2, 0.25),
    "x[t][0] * x[t][-1] + x[t]": lambda x: x[..., :1] * x[..., -1:] + x,
    "outer(x[t], x[t])": lambda x: x[..., :, None] * x[..., None, :],
    "outer(x[t], x[t]) @ x[t]": lambda x: x * (x * x).sum(-1, keepdims=True),
    "transpose(outer(x[t], x[t] + 1))[1]": lambda x: x * (x[..., 1:2] + 1),
    'einsum("i,i->", x[t], x[t])': lambda x: (x * x).sum(-1),
    'einsum("i,j,k->ki", x[t], x[t], x[t])': lambda x: (
        x[..., :, None] * x[..., None, :] * x.sum(-1)[..., None, None]
    ),
    "reshape(concat(x[t], x[t]), (2, -1))[1]": lambda x: x,
    "cumsum(x[t])": lambda x: np.cumsum(x, -1),
    "mean(outer(x[t], x[t]), axis=0)": lambda x: x.mean(-1, keepdims=True) * x,
    "max(x[t]) - min(x[t]) + sum(x[t])": lambda x: x.max(-1) - x.min(-1) + x.sum(-1),
    "layer_norm(x[t])": lambda x: (
        (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    ),
    "rms_norm(x[t], eps=0.1)": lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 0.1),
    "softmax(x[t])": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "log_softmax(x[t])": lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
    "relu6(9 * x[t])": lambda x: np.clip(9 * x, 0, 6),
    "leaky_relu(x[t])": lambda x: np.where(x > 0, x, 0.2 * x),
    "elu(x[t], alpha=2)": lambda x: np.where(x > 0, x, 2 * np.expm1(x)),
    "hard_sigmoid(4 * x[t])": lambda x: np.clip(4 * x / 6 + 0.5, 0, 1),
    "mish(x[t])": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "split(concat(x[t], x[t]), 2)[1]": lambda x: x,
}


@pytest.mark.parametrize("expression", NUMBERS)
def test_expressions_mean_what_numpy_means(expression: str) -> None:
    a, y = evaluate(cell(f"h[t] = h[t-1]\ny = {expression}", "y"))
    np.testing.assert_allclose(y["y"], NUMBERS[expression](a["x"]), atol=1e-9)


def test_names_of_values_are_the_users() -> None:
    program = lower(builtin("lstm"))
    assert program.scan is not None
    named = [op.result.name for op in program.scan.body if op.result.name != "_"]
    assert named == ["z", "z_i", "z_f", "z_g", "z_o", "i", "f", "g", "o", "c", "h"]
    assert all(op.span is not None for op in program.scan.body)


def test_equations_in_any_order_and_any_number() -> None:
    chain = "\n".join(f"a{i} = a{i + 1} + 1" for i in range(1500))
    a, y = evaluate(cell(f"h[t] = a0\n{chain}\na1500 = x[t]"))
    np.testing.assert_allclose(y["h"], a["x"] + 1500)


def test_returned_values_have_distinct_names() -> None:
    spec = cell("h[t] = tanh(x[t])", "h[t], h[t], x[t] * 2, x[t] * 3")
    assert list(CellInterface(spec).outputs) == ["h", "h_1", "output", "output_1"]


@pytest.mark.parametrize("value", ["big", "relu(big)", "where(big, 1, 0)", "drop(big, 0.5) * 1"])
@pytest.mark.parametrize("big", [True, False])
def test_truth_that_is_known_is_a_number_where_one_is_read(value: str, big: bool) -> None:
    spec = cell(f"y = {value}\nh[t] = x[t] + h[t-1]", "h[t], y", "big: option = True")
    _, y = evaluate(spec, options={"big": big})
    np.testing.assert_array_equal(y["y"], np.full((BATCH, TIME), float(big)))


def test_sizes_that_cannot_be_compared_become_constraints() -> None:
    spec = check_text(
        "cell: C\nunits: size\nhalf: size = units // 2\nx: input[units]\nh: state[half]\n"
        "a, b = split(x[t], 2)\nh[t] = a + 0.5 * h[t-1]\nreturn h[t], b\n"
    )
    sizes = {"units": 6, "half": 3}
    asked = CellInterface(spec).constraints
    assert asked
    assert all(c.left.evaluate(sizes) == c.right.evaluate(sizes) for c in asked)
    wrong = {"units": 7, "half": 3}
    assert any(c.left.evaluate(wrong) != c.right.evaluate(wrong) for c in asked)


INDEXED = """cell: Indexed
features: size
units: size
x: input[features]
h: state[units]
h[t] = h[t-1] + x[t][{index}]
return h[t]
"""


@pytest.mark.parametrize("index", ["2", "-3", "units", "features - 3", "features + 0"])
def test_an_index_past_its_axis_is_refused_when_sizes_are_known(index: str) -> None:
    """Compiled kernels would read what lies behind the row."""
    text = INDEXED.format(index=index)
    if index == "features + 0":
        with pytest.raises(SpecError, match=r"\[features\] has no element features"):
            check_text(text)
        return
    layer = oracle.layer_class(check_text(text))(units=2)
    with pytest.raises(ValueError, match=r"\[features\] has no element .*line 6.*features = 2"):
        layer(np.ones((1, 1, 2)))


def test_the_first_and_the_last_element_need_no_constraint() -> None:
    assert not CellInterface(check_text(INDEXED.format(index="0"))).constraints
    assert not CellInterface(check_text(INDEXED.format(index="-1"))).constraints
    layer = oracle.layer_class(check_text(INDEXED.format(index="1")))(units=2)
    assert layer(np.ones((1, 1, 2))).shape == (1, 2)


def test_the_example_of_the_module() -> None:
    assert doctest.testmod(sys.modules[lower.__module__]).failed == 0


@pytest.mark.parametrize("part", ["[2:5]", "[-4:]", "[4:0:-1]"])
def test_a_part_beyond_its_axis_is_refused_once_sizes_are_known(part: str) -> None:
    text = f"cell: Part\nn: size\nx: input[n]\nh: state\nh[t] = sum(x[t]{part})\nreturn h[t]\n"
    asked = [c for c in CellInterface(check_text(text)).constraints if "has no part" in c.message]
    holds = [
        all(c.left.evaluate({"n": n}) == c.right.evaluate({"n": n}) for c in asked) for n in (3, 5)
    ]
    assert holds == [False, True]
