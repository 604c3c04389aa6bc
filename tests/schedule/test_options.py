"""Every combination of options is scheduled as the plain cell is: as many levels, contractions
fused with their epilogues, nothing beside them in the loop. A few are compiled and their plans
read. What is returned (`return_sequences`) is no business of a Schedule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest

import rnncc
from rnncc import compiler, oracle
from rnncc.driver import Programs
from rnncc.ir.program import Program
from rnncc.ir.sizes import Size
from rnncc.lowering.lower import lower
from rnncc.schedule.model import GradStage, LaneStage, RowStage, Schedule
from tests.support import cases
from tests.support.schedules import scan_of

ACTIVATIONS = ("tanh", "relu", "hard_sigmoid", "softsign", "lambda v: v / (1 + abs(v))")
GATES = ("sigmoid", "hard_sigmoid")
DRAWN = tuple(
    frozenset(names)
    for names in ((), ("dropout",), ("recurrent_dropout",), ("dropout", "recurrent_dropout"))
)
# cell: its options and its functions, with what they may be
CELLS: dict[str, tuple[dict[str, tuple[Any, ...]], dict[str, tuple[Any, ...]]]] = {
    "lstm": (
        {"use_bias": (True, False)},
        {"activation": ACTIVATIONS, "recurrent_activation": GATES},
    ),
    "gru": (
        {"use_bias": (True, False), "reset_after": (True, False)},
        {"activation": ACTIVATIONS, "recurrent_activation": GATES},
    ),
    "simple_rnn": ({"use_bias": (True, False)}, {"activation": ACTIVATIONS}),
}


def choices(of: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for values in product(*of.values()):
        yield dict(zip(of, values, strict=True))


class Both(NamedTuple):
    forward: Schedule
    backward: Schedule


def both(program: Program) -> Both:
    return Both(*(direction.schedule for direction in Programs(program).directions()))


@cache
def made(
    name: str,
    options: tuple[tuple[str, Any], ...],
    functions: tuple[tuple[str, Any], ...],
    mask: bool = False,
    rates: frozenset[str] = frozenset(),
) -> Both:
    spec = cases.spec_of(name)
    program = lower(
        spec,
        dict(options),
        dict(functions),
        mask=mask,
        training=bool(rates),
        active_rates=rates,
    )
    return both(program)


def shape(schedule: Schedule) -> tuple[int, Size, int]:
    """Levels of a step, what its contractions of one axis sum over, and its stages that contract.
    Gates side by side are one contraction of as many terms as theirs."""
    levels = scan_of(schedule).levels
    stages = [s for level in levels for s in level.stages if isinstance(s, LaneStage) and s.groups]
    segments = [c for s in stages for g in s.groups for a in g.accs for c in a.segments]
    return (
        len(levels),
        sum((sum(c.k_sizes, Size.of(0)) for c in segments), Size.of(0)),
        len(stages),
    )


def beside(schedule: Schedule) -> list[str]:
    """What of a step is neither a contraction with its epilogue nor lane by lane."""
    stages = [s for level in scan_of(schedule).levels for s in level.stages]
    return [s.name for s in stages if isinstance(s, RowStage | GradStage)]


@pytest.mark.parametrize("name", CELLS)
def test_every_combination_is_the_plain_cell_s_schedule(name: str) -> None:
    options, functions = CELLS[name]
    count = 0
    chosen_called = product(enumerate(choices(options)), enumerate(choices(functions)))
    for (c, chosen), (f, called) in chosen_called:
        reset = {k: v for k, v in chosen.items() if k == "reset_after"}
        plain = made(name, tuple(reset.items()), ())
        # Half of them for one, the other half for the next: each two choices meet somewhere.
        for i, (mask, rates) in enumerate(product((False, True), DRAWN)):
            if (i + i // 4 + c + f + f // len(GATES)) % 2:
                continue
            found = made(name, tuple(chosen.items()), tuple(called.items()), mask, rates)
            count += 1
            for ahead, right in (
                (found.forward, plain.forward),
                (found.backward, plain.backward),
            ):
                assert shape(ahead) == shape(right), (chosen, called, mask, rates)
                assert not beside(ahead), (chosen, called, mask, rates)
    made.cache_clear()
    assert count == 4 * np.prod([len(v) for v in (options | functions).values()])


@pytest.mark.parametrize("name", CELLS)
def test_a_step_of_the_usual_cells_is_one_level(name: str) -> None:
    for mask, rates in product((False, True), DRAWN):
        found = made(name, (), (), mask, rates)
        for schedule in (found.forward, found.backward):
            assert len(scan_of(schedule).levels) == 1


@pytest.mark.parametrize(
    ("name", "options"), [("lstm", {}), ("gru", {}), ("gru", {"reset_after": False})], ids=str
)
def test_a_mask_for_each_gate_is_no_level_more(name: str, options: dict[str, Any]) -> None:
    """Dropped states are made a step ahead; gates that read states of their own are cores side by
    side in one stage, of as many multiply-adds."""
    per_gate = tuple((options | {"dropout_per_gate": True}).items())
    plain = made(name, tuple(options.items()), ())
    for mask, rates in product((False, True), DRAWN):
        found = made(name, per_gate, (), mask, rates)
        for ahead, right in ((found.forward, plain.forward), (found.backward, plain.backward)):
            if "recurrent_dropout" in rates or not rates:
                assert shape(ahead) == shape(right), (mask, rates)
            assert len(scan_of(ahead).levels) == len(scan_of(right).levels), (mask, rates)
            assert not beside(ahead), (mask, rates)


def test_what_a_mask_adds_to_an_lstm() -> None:
    """Selects, and carries' stores: no stage, no other memory."""
    plain, masked = made("lstm", (), ()), made("lstm", (), (), True)
    for a, b, selects, loads in (
        (plain.forward, masked.forward, 3, 3),
        (plain.backward, masked.backward, 5, 2),
    ):
        ((one,), (two,)) = (scan_of(s).levels[0].stages for s in (a, b))
        assert isinstance(one, LaneStage) and isinstance(two, LaneStage)
        assert sum(op.opcode == "where" for op in two.ops) == selects
        assert len(two.stores) == len(one.stores) + (b is masked.backward)  # d_h of masked steps
        assert len(two.reads) <= len(one.reads) + loads


def test_a_draw_of_a_step_is_one_level_too() -> None:
    spec = rnncc.compile_text(
        '"""A cell."""\ncell: Tiny\nunits: size\nx: input[units]\nh: state[units]\n'
        "U: weight[units, units] = orthogonal\nkeep: rate = 0.2\n"
        'h[t] = tanh(x[t] + drop(h[t-1], keep, per="step") @ U)\nreturn h[t]\n'
    ).maker.spec  # type: ignore[attr-defined]
    found = both(lower(spec, training=True, active_rates=frozenset({"keep"})))
    for schedule in (found.forward, found.backward):
        assert len(scan_of(schedule).levels) == 1
    x = cases.draw(np.random.default_rng(0), (3, 5, 17))
    values = []
    for cls in (compiler.layer_class(spec, "cpu", "float64"), oracle.layer_class(spec)):
        y, pullback = cls(seed=1, return_sequences=True).vjp(x, training=True, seed=3)
        values.append((y, pullback(np.cos(y)).inputs, pullback(np.cos(y)).weights["U"]))
    for a, b in zip(*values, strict=True):
        assert cases.error(a, b) <= 1e-12


# ---- compiled ----------------------------------------------------------------------------------

# Few, with every option in one of them.
PAIRS: list[tuple[str, dict[str, Any], bool, bool]] = [
    # cell, keywords, mask, training; with states' dropout a mask for each gate
    ("lstm", {"use_bias": False, "recurrent_dropout": 0.3, "return_sequences": True}, True, True),
    ("lstm", {"activation": "softsign", "dropout": 0.2, "recurrent_dropout": 0.3}, False, True),
    ("gru", {"recurrent_activation": "hard_sigmoid", "recurrent_dropout": 0.3}, True, True),
    ("gru", {"reset_after": False, "use_bias": False, "recurrent_dropout": 0.3}, False, True),
    ("simple_rnn", {"activation": "relu", "dropout": 0.2, "return_sequences": True}, True, True),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chosen", "mask", "training"), PAIRS, ids=str)
def test_plans_say_so(name: str, chosen: dict[str, Any], mask: bool, training: bool) -> None:
    spec = cases.spec_of(name)
    rng = np.random.default_rng(0)
    x = cases.draw(rng, (5, 6, 3))
    call: dict[str, Any] = {"training": training, "seed": 9}
    if mask:
        call["mask"] = rng.random((5, 6)) < 0.6
    found = []
    for cls in (compiler.layer_class(spec, "cpu", "float64"), oracle.layer_class(spec)):
        layer = cls(units=17, seed=1, **chosen)
        y, pullback = layer.vjp(x, **call)
        grads = pullback(np.cos(y))
        found.append([y, grads.inputs, *grads.weights.values()])
        if not isinstance(layer._last, oracle.OracleEngine):
            plan = layer.plan().splitlines()
    for a, b in zip(*found, strict=True):
        assert cases.error(a, b) <= 1e-11
    levels = "2 levels" if chosen.get("reset_after") is False else "1 level"
    scans = [line for line in plan if "_scan: " in line]
    assert len(scans) == 2 and all(f"scan, {levels} a step" in line for line in scans)
    assert sum("fused with its epilogue" in line for line in plan) >= 2
    assert ("masked" in plan[0]) == mask and ("training" in plan[0]) == training
