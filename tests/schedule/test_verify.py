"""A Schedule that can't be right is refused, whichever way it is broken, with the line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

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
    Acc,
    Buffer,
    CarrySlot,
    GradStage,
    Kernel,
    LaneStage,
    Level,
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


@cache
def parts() -> dict[str, Schedule]:
    """Both directions."""
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


def with_stage(made: Schedule, stage: Stage, **fields: object) -> Schedule:
    """The schedule with another stage in this one's place."""
    instead = replace(stage, **fields)  # type: ignore[arg-type]
    kernels = []
    for kernel in made.kernels:
        levels = [
            replace(level, stages=tuple(instead if s is stage else s for s in level.stages))
            for level in kernel.levels
        ]
        kernels.append(replace(kernel, levels=tuple(levels)))
    return replace(made, kernels=tuple(kernels))


def with_kernel(made: Schedule, kernel: Kernel, **fields: object) -> Schedule:
    instead = replace(kernel, **fields)  # type: ignore[arg-type]
    return replace(made, kernels=tuple(instead if k is kernel else k for k in made.kernels))


def with_carry(made: Schedule, carry: CarrySlot, **fields: object) -> Schedule:
    instead = replace(carry, **fields)  # type: ignore[arg-type]
    return replace(made, carries=tuple(instead if c is carry else c for c in made.carries))


def with_place(made: Schedule, value: Value, view: View) -> Schedule:
    return replace(made, places={**made.places, value: view})


def with_accs(made: Schedule, change: Callable[[Acc], Acc], **fields: object) -> Schedule:
    """Of the first stage with contractions."""
    stage = lane_stage(made, groups=True)
    group = stage.groups[0]
    instead = replace(group, accs=tuple(map(change, group.accs)), **fields)  # type: ignore[arg-type]
    return with_stage(made, stage, groups=(instead, *stage.groups[1:]))


def drop_a_store(made: Schedule) -> Schedule:
    stage = lane_stage(made, stores=True, ops=True)
    return with_stage(made, stage, stores=stage.stores[:-1])


def drop_a_stage(made: Schedule) -> Schedule:
    kernel = made.kernels[0]
    return with_kernel(made, kernel, levels=(Level(()), *kernel.levels[1:]))


def drop_the_last_kernel(made: Schedule) -> Schedule:
    return replace(made, kernels=made.kernels[:-1])


def turn_the_kernels_round(made: Schedule) -> Schedule:
    return replace(made, kernels=made.kernels[::-1])


def turn_the_levels_round(made: Schedule) -> Schedule:
    kernel = next(k for k in made.kernels if len(k.levels) > 1)
    return with_kernel(made, kernel, levels=kernel.levels[::-1])


def turn_the_statements_round(made: Schedule) -> Schedule:
    stage = next(s for s in stages(made, LaneStage) if isinstance(s, LaneStage) and s.ops[1:])
    return with_stage(made, stage, ops=stage.ops[::-1])


def store_twice(made: Schedule) -> Schedule:
    stage = lane_stage(made, stores=True, ops=True)
    return with_stage(made, stage, stores=(*stage.stores, stage.stores[0]))


def store_in_the_caller_s(made: Schedule) -> Schedule:
    stage = lane_stage(made, stores=True, ops=True)
    param = next(b for b in made.buffers if b.storage == "param" and b.axes == "BT")
    view = View(param, tuple(range(len(param.shape))))
    store = Store(stage.stores[0].value, view)
    return with_stage(made, stage, stores=(store, *stage.stores[1:]))


def store_elsewhere(made: Schedule) -> Schedule:
    """The rows of another shape."""
    stage = lane_stage(made, stores=True, ops=True)
    store = stage.stores[0]
    buffer = other(store.view.buffer, shape=(*store.view.buffer.shape, Size.of(2)))
    moved = Store(store.value, replace(store.view, buffer=buffer))
    return with_stage(made, stage, stores=(moved, *stage.stores[1:]))


def store_once_for_all_rows(made: Schedule) -> Schedule:
    for stage in stages(made, LaneStage):
        assert isinstance(stage, LaneStage)
        if stage.axes:
            buffers = [other(s.view.buffer, axes="", storage="work") for s in stage.stores]
            views = [
                replace(s.view, buffer=b, slot="")
                for s, b in zip(stage.stores, buffers, strict=True)
            ]
            stores = (Store(s.value, v) for s, v in zip(stage.stores, views, strict=True))
            made = with_stage(made, stage, stores=tuple(stores))
    return made


def read_what_nobody_wrote(made: Schedule) -> Schedule:
    stage = lane_stage(made, reads=True)
    value, view = next(iter(stage.reads.items()))
    lost = replace(view, buffer=other(view.buffer, storage="work"))
    return with_stage(made, stage, reads={**stage.reads, value: lost})


def read_nothing(made: Schedule) -> Schedule:
    return with_stage(made, lane_stage(made, reads=True, ops=True), reads={})


def leave_out_a_segment(made: Schedule) -> Schedule:
    return with_accs(made, lambda a: replace(a, segments=a.segments[1:]))


def leave_out_an_axis(made: Schedule) -> Schedule:
    return with_accs(made, lambda a: replace(a, segments=(replace(a.segments[0], k=()),)))


def pack_too_early(made: Schedule) -> Schedule:
    """A weight that isn't one: rows of the batch."""

    def moved(acc: Acc) -> Acc:
        first, *rest = acc.segments
        w = replace(first.w, buffer=other(first.w.buffer, storage="work"))
        return replace(acc, segments=(replace(first, w=w), *rest))

    return with_accs(made, moved, rowwise=False)


def lose_a_result(made: Schedule) -> Schedule:
    lost = made.program.results[0].value
    return replace(made, places={v: p for v, p in made.places.items() if v is not lost})


def narrow_a_result(made: Schedule) -> Schedule:
    value = next(r.value for r in made.program.results if r.value.type.axes == "BT")
    view = made.places[value]
    return with_place(made, value, replace(view, buffer=other(view.buffer, axes="B"), slot=""))


def start_a_carry_from_a_part(made: Schedule) -> Schedule:
    carry = next(c for c in made.carries if not c.zero_start)
    view = made.places[carry.init]
    return with_place(made, carry.init, replace(view, starts=((0, Size.of(1)),)))


def start_a_carry_from_one_row(made: Schedule) -> Schedule:
    carry = next(c for c in made.carries if not c.zero_start)
    return with_carry(made, carry, init=Value("one row", replace(carry.init.type, axes="")))


def hand_nothing_on(made: Schedule) -> Schedule:
    for stage in stages(made, LaneStage):
        assert isinstance(stage, LaneStage)
        kept = tuple(s for s in stage.stores if s.view.slot != "out")
        made = with_stage(made, stage, stores=kept)
    return made


def call_two_buffers_the_same(made: Schedule) -> Schedule:
    return replace(made, buffers=(*made.buffers, made.buffers[0]))


def keep_a_buffer_for_nothing(made: Schedule) -> Schedule:
    spare = other(lane_stage(made, stores=True).stores[0].view.buffer, storage="work")
    return replace(made, buffers=(*made.buffers, spare))


def sum_nothing(made: Schedule) -> Schedule:
    return with_stage(made, row_stage(made), source=None, copies=())


def sum_what_is_not_there(made: Schedule) -> Schedule:
    stage = row_stage(made)
    assert stage.source is not None
    lost = replace(stage.source, buffer=other(stage.source.buffer))
    return with_stage(made, stage, source=lost)


def a_gradient_of_half_a_product(made: Schedule) -> Schedule:
    stage = next(s for s in stages(made, GradStage) if isinstance(s, GradStage) and s.a)
    return with_stage(made, stage, a=None)


def lanes_that_lie_apart(made: Schedule) -> Schedule:
    stage = grad_stage(made)
    return with_stage(made, stage, d=replace(stage.d, axes=(None,) * len(stage.d.axes)))


def a_gradient_of_rows(made: Schedule) -> Schedule:
    return with_stage(made, grad_stage(made), kept="B")


ANYWHERE: tuple[Callable[[Schedule], Schedule], ...] = (
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
    keep_a_buffer_for_nothing,
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
def test_a_broken_schedule_is_refused(way: Callable[[Schedule], Schedule], part: str) -> None:
    made = parts()[part]
    assert verify_schedule(made) is made
    with pytest.raises(ScheduleError, match="the schedule can't be right") as caught:
        verify_schedule(way(made))
    assert str(caught.value).startswith("Broken")


def test_the_line_is_named() -> None:
    made = turn_the_statements_round(parts()["forward"])
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
