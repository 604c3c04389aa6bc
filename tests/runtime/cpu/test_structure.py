"""What can't change a number: how much work a step has, where memory lies, what is kept.

Speed itself is measured in `bench`; this holds the decisions it rests on.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest

from rnncc.artifact.cell import Variant
from rnncc.common.machine import Machine
from rnncc.ir.program import Op, Program
from rnncc.lowering.lower import lower
from rnncc.passes.pipeline import gradient, optimise
from rnncc.runtime.common.memory_pool import size_class
from rnncc.runtime.cpu.execution.engine import _apart
from rnncc.runtime.cpu.execution.run import KEPT_SHAPES, Direction, Ready
from rnncc.runtime.cpu.kernels.executor import plan_of
from rnncc.runtime.cpu.planning import executable
from rnncc.runtime.cpu.planning.bound_program import BoundProgram
from rnncc.runtime.cpu.planning.executable import COLOURED_BYTES, PAGE
from rnncc.runtime.cpu.planning.kernel_arguments import ArgumentBinder
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.layouts import Layout
from rnncc.schedule.build import schedule
from tests.support import cases
from tests.support.cases import render_module
from tests.support.cpu_simulator.simulate import Simulator, simulated_class

LSTM = ("x", "h", "c", "kernel", "recurrent_kernel", "bias")
MACHINE = Machine(32, 16, 2, l2=1 << 19)
SIZES = (("features", 24), ("units", 48))


def both(name: str) -> tuple[Program, Program]:
    forward, pullback = gradient(lower(cases.spec_of(name)), LSTM)
    return optimise(forward), optimise(pullback)


def contractions(ops: Iterable[Op]) -> int:
    return sum(op.opcode == "contract" for op in ops)


def sides() -> tuple[Direction, Direction]:
    """Of an LSTM's training, on a machine that is told, its kernels in Python."""
    sim = Simulator(seed=1)
    sim.machine = MACHINE
    kind = simulated_class(cases.spec_of("lstm"), "float32", simulator=sim)
    engine = kind.maker.bind({}, {}, "float32").engine(Variant())
    return engine._forward, engine._backward  # type: ignore[attr-defined]


def bound(
    side: Direction, batch: int, time: int, threads: int = 2, sizes: Any = SIZES, **more: Any
) -> BoundProgram:
    machine = more.pop("machine", MACHINE)
    call = CallKey(tuple(sizes), batch, time, more.pop("save", False), False, **more)
    return ArgumentBinder(side.direction, call, machine, "float32", threads, {}).bind()


# ---- passes and schedule ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [("lstm", (4, 4, 0), (0, 1, 4)), ("gru", (3, 3, 0), (0, 2, 8))],
)
def test_contractions_of_a_step(
    name: str, forward: tuple[int, ...], backward: tuple[int, ...]
) -> None:
    """Before the loop, in a step, after the loop."""
    for program, wanted in zip(both(name), (forward, backward)):
        scan = program.scan
        assert scan is not None
        parts = (program.before, scan.body, program.after)
        assert tuple(map(contractions, parts)) == wanted


def test_carries_and_residuals() -> None:
    forward, pullback = both("lstm")
    assert forward.scan and len(forward.scan.carries) == 2
    # d_c, a step's d_h that enters, and d_z of the step before: all four gates.
    assert pullback.scan and len(pullback.scan.carries) == 3
    saved = [r.value.name for r in forward.results if r.role.kind == "residual"]
    assert saved == ["c", "o", "g", "i", "_c_1", "f", "_h_1"]


@pytest.mark.parametrize(("name", "forward", "backward"), [("lstm", 1, 1), ("gru", 1, 1)])
def test_levels_of_a_step(name: str, forward: int, backward: int) -> None:
    for program, wanted in zip(both(name), (forward, backward)):
        (scan,) = [k for k in schedule(program).kernels if k.kind == "scan"]
        assert len(scan.levels) == wanted


def test_gates_share_a_core() -> None:
    (scan,) = [k for k in schedule(both("lstm")[0]).kernels if k.kind == "scan"]
    ((stage,),) = [level.stages for level in scan.levels]
    (group,) = stage.groups  # type: ignore[union-attr]
    assert len(group.accs) == 4 and group.accs[0].ahead == 1


def test_an_epilogue_of_many_activations_is_cut() -> None:
    text = render_module(cases.spec_of("lstm"), {}, {}, "float32", (Variant(),), target="cpu")
    body = text.split("def forward_scan(")[1].split("\ndef ")[0]
    assert body.count("for spot in") == 2  # the gates' activations, then tanh(c)


# ---- tiles and threads -----------------------------------------------------------------------


def test_tiles_of_rows_are_alike() -> None:
    forward, _ = sides()
    made = bound(forward, batch=10, time=3, threads=1, machine=Machine(64, 32, 1))
    scan = next(k for k in made.kernels if k.kernel.kind == "scan")
    row_tile = made.tilings[scan.kernel.stages[0]].row_tile
    assert row_tile == 5  # not 6 and 4


def test_threads_take_rows_or_units() -> None:
    forward, _ = sides()
    many = {k.kernel.kind: (k.parts, k.why) for k in bound(forward, 16, 9).kernels}
    assert many["scan"] == (2, "2 threads, each its rows of the batch: no barrier")
    few = bound(forward, 1, 40, sizes=(("features", 24), ("units", 320)))
    shared = {k.kernel.kind: (k.parts, k.why) for k in few.kernels}
    assert shared["scan"] == (2, "2 threads share the units: one barrier a level")
    tiny = bound(forward, 1, 1)
    assert {k.parts for k in tiny.kernels} == {1}


def test_what_a_loop_starts_from() -> None:
    forward, _ = sides()
    assert bound(forward, batch=16, time=9, threads=1).fused
    assert not bound(forward, batch=2, time=9, threads=1).fused


def test_packing_and_large_copies_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[list[int]] = []

    def noted(launches: Any, *rest: Any) -> Any:
        plans.append([launch.parts for launch in launches])
        return plan_of(launches, *rest)

    monkeypatch.setattr(executable, "plan_of", noted)
    forward, _ = sides()
    forward.target.shared_bytes = 1 << 18  # type: ignore[misc]
    call = CallKey((("features", 200), ("units", 90)), 16, 300, False, False)
    made = Direction.prepare(forward, call, {})
    packing = plans.pop()
    made.choice(None)
    assert 2 in packing
    assert plans.pop().count(2) >= 3  # x @ W, the loop, and outputs on their way out


# ---- memory ----------------------------------------------------------------------------------


def test_sizes_of_kept_memory() -> None:
    assert [size_class(n) for n in (1, 64, 65, 1000, 4097, 100_000)] == [
        *(64, 64, 128, 1024, 4608, 106_496),
    ]
    assert all(n <= size_class(n) <= n + max(n // 8, 64) for n in range(1, 40_000, 97))


def test_large_buffers_begin_at_different_places_of_a_page() -> None:
    forward, _ = sides()
    forward.target.gap = 0  # type: ignore[misc]
    call = CallKey((("features", 24), ("units", 128)), 16, 40, True, False)
    made = Direction.prepare(forward, call, {})
    large = [
        made.place(name).offset % PAGE
        for name, size in made.binding.bytes.items()
        if size >= COLOURED_BYTES and name in {b.name for b in forward.direction.buffers}
    ]
    assert len(large) >= 4 and len(set(large)) >= 4


def test_rows_avoid_powers_of_two() -> None:
    forward, _ = sides()
    layouts = bound(forward, 4, 5, sizes=(("features", 24), ("units", 128)), save=True).layouts
    rows = [x.b for x in layouts.values() if x.b] + [x.t for x in layouts.values() if x.t]
    assert any(row % 512 == 64 for row in rows)


def test_results_where_they_are_read_wait() -> None:
    """What would be written over while it is still read is written afterwards; the rest at once."""
    memory = np.zeros((2, 4))
    x, apart = memory[:1], np.zeros((1, 4))
    own, later = _apart({"y": x, "h": apart}, {"x": memory})
    assert list(own) == ["h"] and list(later) == ["y"]


# ---- what is kept ----------------------------------------------------------------------------


def test_what_was_used_last_is_kept() -> None:
    forward, _ = sides()
    make = partial(Ready, None, None, ())  # type: ignore[arg-type]
    blank = type("Made", (), {"prepared": None})
    for n in range(KEPT_SHAPES):
        forward.keep_ready(n, blank())  # type: ignore[arg-type]
    assert forward.find(0) is not None
    forward.keep_ready("new", make())
    assert forward.find(0) is not None and forward.find(1) is None


def test_shapes_used_last_are_kept() -> None:
    forward, _ = sides()
    made: list[CallKey] = []

    def prepare(call: CallKey, given: dict[str, Layout]) -> Any:
        made.append(call)
        return object()

    forward.prepare = prepare  # type: ignore[method-assign, assignment]
    calls = [CallKey(SIZES, 1, n + 1, False, False) for n in range(KEPT_SHAPES + 1)]
    residuals: Any = type("None_", (), {"places": {}})()
    for call in [*calls[:-1], calls[0], calls[-1], calls[0]]:
        forward.prepared(call, residuals)
    assert len(made) == len(calls)
