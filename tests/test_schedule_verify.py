"""A Schedule that can't be right is refused, whichever way it is broken, with the line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rnncc.ir.opdef import IRError
from rnncc.ir.program import Stack, Value
from rnncc.ir.sizes import Size
from rnncc.ir.verify import verify
from rnncc.lowering.cell_interface import check_text
from rnncc.lowering.lower import lower
from rnncc.passes.pipeline import gradient, optimise
from rnncc.schedule.build import schedule
from rnncc.schedule.model import (
    Buffer,
    GradStage,
    Group,
    LaneStage,
    RowStage,
    Schedule,
    Stage,
    Store,
    View,
)
from rnncc.schedule.verify import ScheduleError, verify_schedule

TEXT = """cell: Broken
n: size
x: input[n]
h: state[n]
K: weight[n, n]
U: weight[n, n]
w: weight[n]
b: weight[n]
s = softmax(x[t] @ K + b)
h[t] = tanh(h[t-1] @ U * exp(w) + s)
return h[t], s
"""


def parts() -> dict[str, Schedule]:
    """Both directions, made anew: the tests break them."""
    program = lower(check_text(TEXT))
    made = gradient(program, ["x", "h", "K", "U", "w", "b"])
    return {n: schedule(optimise(p)) for n, p in zip(("forward", "backward"), made, strict=True)}


def stages(made: Schedule, kind: type[Stage]) -> list[Stage]:
    every = [s for k in made.kernels for level in k.levels for s in level.stages]
    return [s for s in every if isinstance(s, kind)]


def lane_stage(made: Schedule, **has: bool) -> LaneStage:
    """The first that has stores, ops or groups as asked for."""
    for stage in stages(made, LaneStage):
        assert isinstance(stage, LaneStage)
        if all(bool(getattr(stage, name)) == wanted for name, wanted in has.items()):
            return stage
    raise AssertionError(has)


def row_stage(made: Schedule) -> RowStage:
    stage = stages(made, RowStage)[0]
    assert isinstance(stage, RowStage)
    return stage


def grad_stage(made: Schedule) -> GradStage:
    stage = stages(made, GradStage)[0]
    assert isinstance(stage, GradStage)
    return stage


def other(buffer: Buffer, **changed: object) -> Buffer:
    fields = {"name": "other", **changed}
    return replace(buffer, **fields)  # type: ignore[arg-type]


# ---- ways to break one ---------------------------------------------------------------------------


def drop_a_store(made: Schedule) -> None:
    stage = lane_stage(made, stores=True, ops=True)
    stage.stores.pop()


def drop_a_stage(made: Schedule) -> None:
    level = next(level for k in made.kernels for level in k.levels if level.stages)
    level.stages.clear()


def drop_the_last_kernel(made: Schedule) -> None:
    made.kernels.pop()


def turn_the_kernels_round(made: Schedule) -> None:
    made.kernels.reverse()


def turn_the_levels_round(made: Schedule) -> None:
    kernel = next(k for k in made.kernels if len(k.levels) > 1)
    kernel.levels.reverse()


def turn_the_statements_round(made: Schedule) -> None:
    stage = next(s for s in stages(made, LaneStage) if isinstance(s, LaneStage) and s.ops[1:])
    stage.ops.reverse()


def store_twice(made: Schedule) -> None:
    stage = lane_stage(made, stores=True, ops=True)
    stage.stores.append(stage.stores[0])


def store_in_the_caller_s(made: Schedule) -> None:
    stage = lane_stage(made, stores=True, ops=True)
    param = next(b for b in made.buffers if b.storage == "param" and b.axes == "BT")
    view = View(param, tuple(range(len(param.shape))))
    stage.stores[0] = Store(stage.stores[0].value, view)


def store_elsewhere(made: Schedule) -> None:
    """The rows of another shape."""
    stage = lane_stage(made, stores=True, ops=True)
    store = stage.stores[0]
    buffer = other(store.view.buffer, shape=(*store.view.buffer.shape, Size.of(2)))
    stage.stores[0] = Store(store.value, replace(store.view, buffer=buffer))


def store_once_for_all_rows(made: Schedule) -> None:
    for stage in stages(made, LaneStage):
        assert isinstance(stage, LaneStage)
        for at, store in enumerate(stage.stores if stage.axes else ()):
            buffer = other(store.view.buffer, axes="", storage="work")
            stage.stores[at] = Store(store.value, replace(store.view, buffer=buffer, slot=""))


def read_what_nobody_wrote(made: Schedule) -> None:
    stage = lane_stage(made, reads=True)
    value, view = next(iter(stage.reads.items()))
    stage.reads[value] = replace(view, buffer=other(view.buffer, storage="work"))


def read_nothing(made: Schedule) -> None:
    stage = lane_stage(made, reads=True, ops=True)
    stage.reads.clear()


def leave_out_a_segment(made: Schedule) -> None:
    stage = lane_stage(made, groups=True)
    group = stage.groups[0]
    accs = tuple(replace(a, segments=a.segments[1:]) for a in group.accs)
    stage.groups[0] = Group(accs, group.rowwise, group.start)


def leave_out_an_axis(made: Schedule) -> None:
    stage = lane_stage(made, groups=True)
    group = stage.groups[0]
    accs = tuple(replace(a, segments=(replace(a.segments[0], k=()),)) for a in group.accs)
    stage.groups[0] = Group(accs, group.rowwise, group.start)


def pack_too_early(made: Schedule) -> None:
    """A weight that isn't one: rows of the batch."""
    stage = lane_stage(made, groups=True)
    group = stage.groups[0]
    first = group.accs[0].segments[0]
    moved = replace(first, w=replace(first.w, buffer=other(first.w.buffer, storage="work")))
    accs = tuple(replace(a, segments=(moved, *a.segments[1:])) for a in group.accs)
    stage.groups[0] = Group(accs, False, group.start)


def lose_a_result(made: Schedule) -> None:
    del made.places[made.program.results[0].value]


def narrow_a_result(made: Schedule) -> None:
    value = next(r.value for r in made.program.results if r.value.type.axes == "BT")
    view = made.places[value]
    made.places[value] = replace(view, buffer=other(view.buffer, axes="B"), slot="")


def start_a_carry_from_a_part(made: Schedule) -> None:
    carry = next(c for c in made.carries if not c.zero_start)
    view = made.places[carry.init]
    made.places[carry.init] = replace(view, starts=((0, Size.of(1)),))


def start_a_carry_from_one_row(made: Schedule) -> None:
    carry = next(c for c in made.carries if not c.zero_start)
    carry.init = Value("one row", replace(carry.init.type, axes=""))


def hand_nothing_on(made: Schedule) -> None:
    for stage in stages(made, LaneStage):
        assert isinstance(stage, LaneStage)
        stage.stores = [s for s in stage.stores if s.view.slot != "out"]


def call_two_buffers_the_same(made: Schedule) -> None:
    made.buffers.append(made.buffers[0])


def sum_nothing(made: Schedule) -> None:
    stage = row_stage(made)
    stage.source = None
    stage.copies.clear()


def sum_what_is_not_there(made: Schedule) -> None:
    stage = row_stage(made)
    assert stage.source is not None
    stage.source = replace(stage.source, buffer=other(stage.source.buffer))


def a_gradient_of_half_a_product(made: Schedule) -> None:
    stage = next(s for s in stages(made, GradStage) if isinstance(s, GradStage) and s.a)
    stage.a = None


def lanes_that_lie_apart(made: Schedule) -> None:
    stage = grad_stage(made)
    stage.d = replace(stage.d, axes=(None,) * len(stage.d.axes))


def a_gradient_of_rows(made: Schedule) -> None:
    grad_stage(made).kept = "B"


ANYWHERE: tuple[Callable[[Schedule], None], ...] = (
    drop_a_store,
    drop_a_stage,
    drop_the_last_kernel,
    turn_the_kernels_round,
    turn_the_statements_round,
    store_twice,
    store_in_the_caller_s,
    store_elsewhere,
    store_once_for_all_rows,
    read_what_nobody_wrote,
    read_nothing,
    leave_out_a_segment,
    leave_out_an_axis,
    pack_too_early,
    lose_a_result,
    narrow_a_result,
    start_a_carry_from_a_part,
    start_a_carry_from_one_row,
    hand_nothing_on,
    call_two_buffers_the_same,
    sum_nothing,
    sum_what_is_not_there,
)
FORWARD = (turn_the_levels_round,)
BACKWARD = (a_gradient_of_half_a_product, a_gradient_of_rows, lanes_that_lie_apart)
WAYS = [
    *((way, part) for way in ANYWHERE for part in ("forward", "backward")),
    *((way, "forward") for way in FORWARD),
    *((way, "backward") for way in BACKWARD),
]


@pytest.mark.parametrize(("way", "part"), WAYS, ids=lambda v: getattr(v, "__name__", v))
def test_a_broken_schedule_is_refused(way: Callable[[Schedule], None], part: str) -> None:
    made = parts()[part]
    assert verify_schedule(made) is made
    way(made)
    with pytest.raises(ScheduleError, match="the schedule can't be right") as caught:
        verify_schedule(made)
    assert str(caught.value).startswith("Broken")


def test_the_line_is_named() -> None:
    made = parts()["forward"]
    stage = next(s for s in stages(made, LaneStage) if isinstance(s, LaneStage) and s.ops[1:])
    stage.ops.reverse()
    with pytest.raises(ScheduleError, match=r"Broken \(line (9|10)\): "):
        verify_schedule(made)


# ---- Programs ------------------------------------------------------------------------------------


def test_a_carry_keeps_its_axes() -> None:
    program = lower(check_text(TEXT))
    assert program.scan is not None
    (carry,) = program.scan.carries
    for name in ("init", "final"):
        other = Value(name, replace(carry.value.type, axes=""))
        scan = replace(program.scan, carries=(replace(carry, **{name: other}),))
        params = (*program.params, replace(program.params[0], value=other))
        params = params if name == "init" else program.params
        with pytest.raises(IRError, match="carry h"):
            verify(replace(program, scan=scan, params=params, results=program.results[:1]))


def test_a_stack_holds_what_it_is_given() -> None:
    program = lower(check_text(TEXT))
    assert program.scan is not None
    first = program.scan.ys[0]
    flags = Value("flags", replace(first.target.type, dtype="bool"))
    scan = replace(program.scan, ys=(Stack(first.value, flags),))
    with pytest.raises(IRError, match="stack"):
        verify(replace(program, scan=scan, results=()))
