"""Schedules: few levels a step, gates side by side, and stages of a level that don't wait."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from rnncc.frontend.spec import CellSpec
from rnncc.ir.sizes import Size
from rnncc.lowering.cell_interface import check_text
from rnncc.lowering.lower import lower
from rnncc.schedule.model import (
    Buffer,
    GradStage,
    LaneStage,
    RowStage,
    Schedule,
    Stage,
    View,
)
from rnncc.schedule.printer import print_schedule
from tests.support import cases
from tests.support.schedules import PARTS, scan_of, schedules, schedules_of

# ---- levels ------------------------------------------------------------------------------------

# A new level begins only where an op needs all lanes of an earlier value.
LEVELS = {
    # cell: (options, levels of a step forward, and backward)
    "simple_rnn": ({}, 1, 1),
    "lstm": ({}, 1, 1),
    "gru": ({}, 1, 1),
    "gru, reset before": ({"reset_after": False}, 2, 2),
    "peephole_lstm": ({}, 1, 1),
    "coupled_lstm": ({}, 1, 1),
    "projected_lstm": ({}, 2, 2),
    "minimal_gated_unit": ({}, 2, 2),
    "recurrent_highway": ({}, 3, 3),
    "indrnn": ({}, 1, 1),
    "sru": ({}, 1, 1),
    "nested": ({}, 1, 1),
}


@pytest.mark.parametrize("what", LEVELS)
def test_levels_of_a_step(what: str) -> None:
    options, ahead, back = LEVELS[what]
    made = schedules_of(lower(cases.spec_of(what.split(",")[0]), options))
    assert len(scan_of(made["inference"]).levels) == ahead
    assert len(scan_of(made["forward"]).levels) == ahead
    assert len(scan_of(made["backward"]).levels) == back


@pytest.mark.parametrize("name", ["lstm", "gru", "simple_rnn", "peephole_lstm"])
def test_masks_and_dropout_of_inputs_add_no_level(name: str) -> None:
    spec = cases.spec_of(name)
    dropped = lower(spec, training=True, active_rates=frozenset({"dropout"}))
    for made in (schedules(name, "mask"), schedules_of(dropped)):
        for part in PARTS:
            assert len(scan_of(made[part]).levels) == 1, part


# ---- what a step does --------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["inference", "forward"])
def test_lstm_is_one_stage_with_its_gates_side_by_side(part: str) -> None:
    ((stage,),) = [level.stages for level in scan_of(schedules("lstm")[part]).levels]
    assert isinstance(stage, LaneStage)
    (group,) = stage.groups
    assert len(group.accs) == 4 and not group.rowwise
    reads = [[s.a for s in acc.segments] for acc in group.accs]
    assert reads == [reads[0]] * 4, "every gate reads the same x and h"


def test_lstm_backward_is_one_contraction_over_four_gates() -> None:
    made = schedules("lstm")["backward"]
    ((stage,),) = [level.stages for level in scan_of(made).levels]
    assert isinstance(stage, LaneStage)
    (group,) = stage.groups
    (acc,) = group.accs
    (segment,) = acc.segments
    assert segment.skip_first, "dz is zero before the last step"
    assert scan_of(made).reverse


def test_gates_are_stored_side_by_side() -> None:
    """No stage puts them together, and nobody waits for one."""
    made = schedules("lstm")["backward"]
    ((stage,),) = [level.stages for level in scan_of(made).levels]
    assert isinstance(stage, LaneStage)
    units = Size.name("units")
    packed = [s for s in stage.stores if s.view.buffer.shape == (4 * units,)]
    assert {s.view.buffer.name for s in packed} == {"d_z"}
    starts = {s.value.name: dict(s.view.starts).get(0, Size.of(0)) for s in packed}
    names = ("d_z_i", "d_z_f", "d_z_g", "d_z_o")
    assert starts == {name: n * units for n, name in enumerate(names)}


def test_gradients_of_weights_run_after_the_loop() -> None:
    made = schedules("lstm")["backward"]
    inside = [s for level in scan_of(made).levels for s in level.stages]
    assert not [s for s in inside if isinstance(s, GradStage)]
    kinds = [k.kind for k in made.kernels]
    assert "grads" in kinds[kinds.index("scan") :]


def test_inference_saves_nothing() -> None:
    made = schedules("lstm")["inference"]
    assert not made.histories
    results = [b.name for b in made.buffers if b.storage == "result"]
    assert len(results) == 1  # h; the last states are where the carries end


def test_histories_are_the_carries_own() -> None:
    """h and c of every step are saved by not overwriting them."""
    made = schedules("lstm")["forward"]
    results = [b for b in made.buffers if b.storage == "result"]
    assert {b.value.name for b in results} == {"h", "i", "f", "g", "o"}
    assert sum(len(targets) for targets in made.histories.values()) == 3


# ---- one form for every spelling ---------------------------------------------------------------


def canonical(made: Schedule) -> str:
    """The text without the user's lines and names, in order of appearance."""
    text = re.sub(r" +# line \d+", "", print_schedule(made))
    names: dict[str, str] = {}
    kept = "param|work|result|carry|kernel|level|core|float|lanes|rows|over|units|features"
    kept += "|contract|add|sub|mul|tanh|sigmoid|concat|sum_over|load|stage|axis|B|T|BT"
    return re.sub(
        r"\b[A-Za-z_]\w*",
        lambda m: m[0] if re.fullmatch(kept, m[0]) else names.setdefault(m[0], f"n{len(names)}"),
        text,
    )


def one_mask(text: str) -> str:
    """The LSTM without its equations and option for a dropout mask a gate."""
    text = re.sub(r"(dropout_per_gate: |W_i, |U_i, ).*\n", "", text)
    return re.sub(r"z = \(\n +(.*)\n +if not (.*\n)+    \)\n\)", r"z = \1", text)


LSTM = one_mask(cases.spec_of("lstm").text)
TOGETHER = LSTM[LSTM.index("\nz = ") : LSTM.index("i = recurrent")]
APART = """
K_i, K_f, K_g, K_o = split(kernel, 4, axis=1)
U_i, U_f, U_g, U_o = split(recurrent_kernel, 4, axis=1)
b_i, b_f, b_g, b_o = split(bias if use_bias else zero, 4)
zero = bias * 0
d_x = drop(x[t], dropout)
d_h = drop(h[t-1], recurrent_dropout)
z_i = d_x @ K_i + d_h @ U_i + b_i
z_f = d_x @ K_f + d_h @ U_f + b_f
z_g = d_x @ K_g + d_h @ U_g + b_g
z_o = d_x @ K_o + d_h @ U_o + b_o
"""
BY_SUMS = """
x_i, x_f, x_g, x_o = split(drop(x[t], dropout) @ kernel, 4)
h_i, h_f, h_g, h_o = split(drop(h[t-1], recurrent_dropout) @ recurrent_kernel, 4)
b_i, b_f, b_g, b_o = split(bias, 4)
on = 1 if use_bias else 0
z_i = x_i + h_i + on * b_i
z_f = x_f + h_f + on * b_f
z_g = x_g + h_g + on * b_g
z_o = x_o + h_o + on * b_o
"""


def lstm(equations: str) -> CellSpec:
    return check_text(LSTM.replace(TOGETHER.strip(), equations.strip()))


@pytest.mark.parametrize("spelling", [APART, BY_SUMS], ids=["apart", "by sums"])
@pytest.mark.parametrize("part", PARTS)
def test_spellings_give_one_schedule(spelling: str, part: str) -> None:
    found = canonical(schedules_of(lower(lstm(spelling)))[part])
    assert found == canonical(schedules("lstm")[part])


def test_own_weights_a_gate_give_one_core_too() -> None:
    """Weights declared apart: nobody has to write 4 * units."""
    text = LSTM
    declared = text[text.index("kernel:") : text.index("activation:")]
    weights = "".join(
        f"K_{g}: weight[features, units] = glorot_uniform\n"
        f"U_{g}: weight[units, units] = orthogonal\nb_{g}: weight[units] = zeros\n"
        for g in "ifgo"
    )
    gates = "".join(f"z_{g} = x[t] @ K_{g} + h[t-1] @ U_{g} + b_{g}\n" for g in "ifgo")
    text = text.replace(declared, weights).replace(TOGETHER, f"\n{gates}")
    text = re.sub(r"(use_bias|unroll|dropout|recurrent_dropout): .*\n", "", text)
    made = schedules_of(lower(check_text(text)))
    for part, gates_side_by_side in (("inference", 4), ("forward", 4), ("backward", 1)):
        ((stage,),) = [level.stages for level in scan_of(made[part]).levels]
        assert isinstance(stage, LaneStage)
        (group,) = stage.groups
        assert len(group.accs) == gates_side_by_side


# ---- every cell --------------------------------------------------------------------------------


def reads(stage: Stage) -> Iterator[View]:
    if isinstance(stage, LaneStage):
        for group in stage.groups:
            for acc in group.accs:
                for segment in acc.segments:
                    yield from (segment.a, segment.w)
                if acc.init is not None:
                    yield acc.init
        yield from stage.reads.values()
    elif isinstance(stage, RowStage):
        yield from (v for v in (stage.source, *(a for a, _ in stage.copies)) if v is not None)
    else:
        yield from (v for v in (stage.a, stage.d) if v is not None)


def writes(stage: Stage) -> Iterator[View]:
    if isinstance(stage, LaneStage):
        yield from (store.view for store in stage.stores)
    elif isinstance(stage, RowStage):
        yield from (stage.target, *(b for _, b in stage.copies))
    else:
        yield stage.target


def place(view: View) -> tuple[Buffer, str]:
    """A carry entering and the same carry leaving are different rows."""
    return view.buffer, view.slot


@pytest.mark.parametrize(("name", "variant"), cases.variants(cases.NAMES))
def test_stages_of_a_level_do_not_wait_for_each_other(name: str, variant: str) -> None:
    for part, made in schedules(name, variant).items():
        for kernel in made.kernels:
            for level in kernel.levels:
                for stage in level.stages:
                    others = [s for s in level.stages if s is not stage]
                    written = {place(v) for s in others for v in writes(s)}
                    read = {place(v) for v in reads(stage)}
                    assert not read & written, (part, kernel.name, stage.name)


@pytest.mark.parametrize(("name", "variant"), cases.variants(cases.NAMES))
def test_what_is_read_was_written(name: str, variant: str) -> None:
    for part, made in schedules(name, variant).items():
        given = {b for b in made.buffers if b.storage == "param"}
        carried = {c.buffer for c in made.carries}
        written: set[Buffer] = set()
        for kernel in made.kernels:
            for level in kernel.levels:
                for stage in level.stages:
                    for view in reads(stage):
                        known = given | carried | written
                        assert view.buffer in known, (part, kernel.name, view.buffer.name)
                written |= {v.buffer for stage in level.stages for v in writes(stage)}
        for result in made.program.results:
            buffer = made.places[result.value].buffer if result.value in made.places else None
            assert buffer is None or buffer in given | carried | written, result.name


@pytest.mark.parametrize("name", cases.NAMES)
def test_printed_schedules_are_the_same_each_time(name: str) -> None:
    again = schedules_of(cases.lowered(name))
    for part, made in schedules(name).items():
        text = print_schedule(made)
        assert text == print_schedule(again[part])
        assert text.count("\nkernel ") == len(made.kernels)
        assert "%" not in text  # no value shown by its address or number
