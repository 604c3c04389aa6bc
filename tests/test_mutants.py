"""Defects put into the compiler and its runtime on purpose: the suite has to notice each of them.

A mutant is a function by name and a piece of its text, so it survives a move of lines; a piece
that is no longer there fails its test, which then wants another. Those that can't change a number
are caught by what `test_structure` holds: counts, offsets, plans and the order of what is kept.

Non-Goals: kernels' own text and templates on a GPU (`runtime/cuda/test_mutants`), the words of
the CPU's kernels (`runtime/cpu/test_simulated_mutants`).
"""

from __future__ import annotations
import __future__

import importlib
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

import jinja2
import numpy as np
import pytest

from rnncc import oracle
from rnncc.common import template_loader
from rnncc.lowering.cell_interface import check_text
from tests.runtime.cpu import test_structure as structure
from tests.runtime.cpu import test_unrolled as unrolled
from tests.support import cases
from tests.support.calls.episodes import alone
from tests.support.cpu_simulator.simulate import Simulator
from tests.support.cpu_simulator.twins import Twins
from tests.support.twins import LIMIT

Check = Callable[[], object]


@dataclass(frozen=True)
class Mutant:
    """where: `module:function`, or a template's name; old, new: a piece of its text, and what
    stands there instead."""

    where: str
    old: str
    new: str
    caught_by: Check

    def __str__(self) -> str:
        return f"{self.where.removeprefix('rnncc.')} {self.old.splitlines()[0][:40]}"


def function_of(where: str) -> FunctionType:
    module, _, path = where.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        owner, found = found, inspect.getattr_static(found, name)
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    found = inspect.unwrap(found)
    assert isinstance(found, FunctionType), owner
    return found


def changed(mutant: Mutant, text: str) -> str:
    assert text.count(mutant.old) == 1, f"{mutant.where} has no single {mutant.old!r}"
    return text.replace(mutant.old, mutant.new)


@contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """The function with other code, wherever it is held, or the template with other text."""
    if mutant.where.endswith(".jinja"):
        yield from _with_template(mutant)
        return
    function = function_of(mutant.where)
    text = changed(mutant, textwrap.dedent(inspect.getsource(function)))
    start = text.index("def ")  # without decorators
    flags = __future__.annotations.compiler_flag
    code = compile(text[start:], f"<mutant of {mutant.where}>", "exec", flags=flags)
    found: dict[str, Any] = {}
    exec(code, dict(function.__globals__), found)
    whole, function.__code__ = function.__code__, found[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = whole


def _with_template(mutant: Mutant) -> Iterator[None]:
    text = changed(
        mutant, (template_loader.template_root() / mutant.where).read_text(encoding="utf-8")
    )
    whole = template_loader.environment()
    files = jinja2.FileSystemLoader(template_loader.template_root())
    own = jinja2.ChoiceLoader([jinja2.DictLoader({mutant.where: text}), files])
    other = whole.overlay(loader=own, cache_size=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template_loader, "environment", lambda: other)
        yield


# ---- what a number shows ---------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """Values and gradients of a cell on simulated kernels are those of the interpreter, whose own
    are worked out before anything is mutated: it runs some of the passes, too."""

    name: str
    variant: str = "plain"
    shape: tuple[int, int, int, int] = (5, 3, 4, 3)
    machine: tuple[int, int] = (32, 2)
    seeds: int = 1  # how many choices of those that are made for speed

    def twins(self, seed: int = 1) -> Twins:
        return Twins.of(self.name, self.variant, self.shape, Simulator(*self.machine, seed=seed))

    @cache  # noqa: B019  a handful, for the whole module
    def right(self) -> dict[str, np.ndarray]:
        twins = self.twins()
        return twins.results(twins.reference)

    def __call__(self) -> None:
        for seed in range(1, 1 + self.seeds):
            twins = self.twins(seed)
            error, whose = cases.worst(twins.results(twins.layer), self.right())
            assert error <= LIMIT["float64"], (whose, error)


def parametrised(test: Callable[..., None], *arguments: Any) -> Check:
    return lambda: test(*arguments)


def patching(test: Callable[[pytest.MonkeyPatch], None]) -> Check:
    def check() -> None:
        with pytest.MonkeyPatch.context() as patch:
            test(patch)

    return check


CONTRACTIONS = parametrised(structure.test_contractions_of_a_step, "lstm", (4, 4, 0), (0, 1, 4))
LEVELS = parametrised(structure.test_levels_of_a_step, "lstm", 1, 1)
SHARED = Numbers("lstm", shape=(5, 4, 6, 3), machine=(32, 3), seeds=5)  # copies, by threads
BARRED = Numbers("gru", shape=(40, 1, 4, 3), machine=(16, 3), seeds=5)  # threads that share units
NORMS = Numbers("layer_norm_lstm", shape=(16, 4, 3, 3), machine=(32, 3), seeds=3)
ODD = Numbers("lstm", shape=(5, 3, 3, 3))  # steps: the last slot of a ring of two isn't the first
LSTM, GRU = Numbers("lstm"), Numbers("gru")
UNROLLED = parametrised(unrolled.test_any_number_of_steps, 3)
ALONE = parametrised(unrolled.test_one_row, "float32", 18, False)
NARROW = parametrised(unrolled.test_one_row, "int8", 18, False)

RESTARTED = Numbers("lstm", variant="resets", shape=(5, 3, 6, 3))


NUMBERS = itertools.count()


@dataclass(frozen=True)
class Episodes:
    """Rows that start anew, on the interpreter, are their episodes called alone."""

    masked: bool = False
    backwards: bool = False

    def __call__(self) -> None:
        rng = np.random.default_rng(3)
        # A cell of its own: what is known of another test's isn't lowered again.
        text = cases.spec_of("lstm").text.replace("cell: LSTM", f"cell: Lstm{next(NUMBERS)}")
        layer = oracle.layer_class(check_text(text))(
            units=4, return_sequences=True, return_state=True, go_backwards=self.backwards, seed=1
        )
        x, h, c = (rng.standard_normal(s) for s in ((3, 7, 2), (3, 4), (3, 4)))
        layer.build(x.shape)
        resets, mask = rng.random((3, 7)) < 0.4, rng.random((3, 7)) < 0.6
        resets[0, -1], mask[0, -1] = True, False  # one that waits
        d = {n: rng.standard_normal(a.shape) for n, a in zip("yhc", layer(x), strict=True)}

        def call(inputs: Any, states: Any, mask: Any, d: Any, resets: Any = None) -> Any:
            found, pullback = layer.vjp(inputs["x"], initial_state=states, mask=mask, resets=resets)
            values = dict(zip("yhc", found, strict=True))
            handed = (d.get(n, np.zeros_like(a)) for n, a in values.items())
            gradients = pullback(tuple(handed))
            return values, {"x": gradients.inputs, **gradients.initial_state, **gradients.weights}

        kept = mask if self.masked else None
        ran = kept[:, ::-1] if kept is not None and self.backwards else kept
        if ran is not None:
            d["y"] = d["y"] * ran[..., None]
        ours = call({"x": x}, {"h": h, "c": c}, kept, d, resets)
        states, way = {"h": h, "c": c}, self.backwards
        theirs = alone(call, {"x": x}, states, d, resets, kept, backwards=way, outputs=("y",))
        for mine, own in zip(ours, theirs, strict=True):
            for name, array in own.items():
                valid = np.isfinite(array)
                np.testing.assert_allclose(mine[name][valid], array[valid], atol=1e-12)


PASSES = (
    Mutant(
        "rnncc.passes.simplify_layout:_slice_contract",
        'operand, labels.index(label), op.attrs["start"]',
        "operand, labels.index(label), 0 * op.attrs['start']",
        LSTM,
    ),
    Mutant(
        "rnncc.passes.simplify_arithmetic:_neg",
        "inner.operands[0] if inner else None",
        "op.operands[0]",
        Numbers("minimal_gated_unit"),
    ),
    Mutant(
        "rnncc.passes.simplify_layout:_add_pads",
        "ordered.append(here[0].operands[0])",
        "ordered.insert(0, here[0].operands[0])",
        LSTM,
    ),
    Mutant(
        "rnncc.passes.simplify_layout:_summed_product",
        'x = ctx.reduce("sum", x, axis)',
        'x = ctx.reduce("max", x, axis)',
        Numbers("scores"),
    ),
    Mutant(
        "rnncc.passes.steps_first:first_steps",
        'op.attrs["over"].replace("T", "")',
        'op.attrs["over"].replace("B", "")',
        Numbers("scores"),
    ),
    Mutant(
        "rnncc.passes.centred_sums:_without_centred",
        "b.neg(term) if minus else term",
        "term",
        Numbers("layer_norm_lstm"),
    ),
    Mutant(
        "rnncc.passes.hoist:_carry_free",
        "dependent.add(op.result)",
        "free.add(op.result)",
        LSTM,
    ),
    Mutant(
        "rnncc.passes.hoist:_regroup",
        "total = sum_of(b, [total, *rest])",
        "total = sum_of(b, [total, *rest[1:]])",
        GRU,
    ),
    Mutant(
        "rnncc.passes.hoist:_regroup",
        "if len(still) > 1",
        "if len(still) > 99",
        structure.test_gates_share_a_core,
    ),
    Mutant(
        "rnncc.passes.rotate:_rotatable",
        "return len(computed) == 1 and len(constant) == 1",
        "return False",
        LEVELS,
    ),
    Mutant(
        "rnncc.passes.rotate:_Rotation.carry",
        "final_terms.append(self.again(self.last, term, 1))",
        "final_terms.append(self.again(self.last, term, 0))",
        LSTM,
    ),
    Mutant("rnncc.passes.defer:_gains", 'return bool(op.attrs["over"]) or', "return", CONTRACTIONS),
    Mutant("rnncc.passes.defer:_carry_needs", "waiting += defs[value].operands", "pass", LSTM),
    Mutant(
        "rnncc.passes.defer:defer",
        "names = {s.target: outer[s.value]",
        "names = {s.target: outer[next(iter(moving)).result]",
        Numbers("two_inputs"),
    ),
    Mutant(
        "rnncc.passes.differentiate:differentiate",
        "program.unroll,",
        "1,",
        unrolled.test_programs_carry_it,
    ),
    Mutant("rnncc.passes.join:_Joining.is_gone", "return all(", "return not all(", CONTRACTIONS),
    Mutant(
        "rnncc.passes.join:_runs",
        "p.start == run[-1].end",
        "p.start == run[-1].start",
        CONTRACTIONS,
    ),
    Mutant(
        "rnncc.passes.join:_Joining.gates",
        "if group.gates not in self.rows:",
        "if not self.rows:",
        GRU,
    ),
    Mutant("rnncc.schedule.region:_Region.parts", "start = start + x", "start = x", LSTM),
    Mutant(
        "rnncc.emit.shared.statements:Statements._is_part",
        "return bool(view",
        "return not bool(view",
        ODD,
    ),
    Mutant(
        "rnncc.passes.residuals:_recomputation",
        "budget < 0",
        "budget < 10**6",
        structure.test_carries_and_residuals,
    ),
    Mutant(
        "rnncc.passes.residuals:_drop_unread",
        "if p.value in read or",
        "if p.value not in read or",
        LSTM,
    ),
)

SCHEDULE = (
    Mutant(
        "rnncc.schedule.levels:Levels._place",
        "placed.level + (not self._by_lane(operand, node))",
        "placed.level",
        Numbers("layer_norm_lstm"),
    ),
    Mutant(
        "rnncc.schedule.accumulate:accumulate",
        "rest = [v for v in rest if v not in rows and v is not begin]",
        "rest = [v for v in rest if v not in rows and v is not begin][:-1]",
        GRU,
    ),
    Mutant(
        "rnncc.schedule.contractions:_segment",
        'read.slot == "in" and read.buffer in zero_start',
        'read.slot == "in"',
        LSTM,
    ),
    Mutant(
        "rnncc.schedule.contractions:grad_stage",
        '- set(op.attrs["over"])',
        "- set()",
        LSTM,
    ),
    Mutant(
        "rnncc.schedule.contractions:_chunks",
        "// MAX_GROUP",
        "// 1",
        structure.test_gates_share_a_core,
    ),
    Mutant(
        "rnncc.schedule.region:part_of",
        "starts[behind] = starts.get(behind, Size.of(0)) + start",
        "starts[behind] = Size.of(0)",
        Numbers("shapes"),
    ),
    Mutant(
        "rnncc.schedule.hoisted_inputs:_hoisted",
        "rows[0] if rows else None",
        "None",
        LSTM,
    ),
)

EMIT = (
    Mutant(
        "rnncc.emit.shared.statements:Statements._links",
        "len(slow) < WORTH_SPLITTING",
        "len(slow) < 10**9",
        structure.test_an_epilogue_of_many_activations_is_cut,
    ),
    Mutant(
        "rnncc.emit.shared.addresses:Addresses.slot_address",
        'entering = "t + 1" if self.kernel.reverse else "t"',
        'entering = "t"',
        LSTM,
    ),
    Mutant(
        "rnncc.emit.shared.addresses:Addresses._pointer",
        "{entry} = {pointer} if {self.first} else {zeros}",
        "{entry} = {pointer}",
        LSTM,
    ),
    Mutant(
        "rnncc.emit.shared.statements:Statements._crossing",
        "if links.get(source, 0) < links.get(op, 0):",
        "if False:",
        LSTM,
    ),
    Mutant(
        "rnncc.emit.cpu.core_calls:_Segment.weight_strides",
        'return tile, self.word("_j", PackTileStride(*self.place))',
        "return tile, tile",
        Numbers("lstm", shape=(18, 3, 4, 3), machine=(16, 1)),
    ),
    Mutant("rnncc.emit.shared.views:KernelView.turn", "if self.reverse", "if False", LSTM),
    Mutant("rnncc.emit.shared.views:LaneView.vectors", "} * VB, VB)", "} * VB - VB, VB)", NORMS),
    Mutant("rnncc.emit.shared.views:turn_of", ', "    break"])', ', "    pass"])', UNROLLED),
    Mutant("rnncc.emit.shared.views:turn_of", "'+-'[way < 0]", "'+-'[way > 0]", UNROLLED),
    Mutant("rnncc.emit.cpu.core_calls:_Segment.sum_lines", "(self.condition)", '("")', ALONE),
    Mutant("rnncc.artifact.inlined_cores:numbers_of", "count * blocks", "count", ALONE),
)

TEMPLATES = (
    Mutant("cpu/kernel.jinja", "own_rows(B, shared,", "own_rows(B, 1,", SHARED),
    Mutant("cpu/kernel.jinja", "barrier(sync, index, count, generation)", "0", BARRED),
    Mutant("cpu/kernel.jinja", "row_range(n0, n1, part,", "row_range(n0, n1, 0,", NORMS),
    Mutant(
        "cpu/stages.jinja",
        "m += rows",
        "m += rows + 1",
        Numbers("lstm", shape=(5, 17, 3, 3), machine=(32, 1)),
    ),
    Mutant(
        "cpu/stages.jinja",
        "), spot & ({{ s.unit_blocks }} - 1)",
        "), 0",
        Numbers("lstm", shape=(18, 3, 4, 3), machine=(16, 1)),
    ),
)

RUNTIME = (
    # planning
    Mutant(
        "rnncc.runtime.cpu.planning.kernel_arguments:ArgumentBinder.inlined_numbers",
        "is not FULL",
        "is None",
        NARROW,
    ),
    Mutant(
        "rnncc.runtime.cpu.planning.kernel_arguments:ArgumentBinder.inlined_numbers",
        "> SUM_BLOCK",
        "> 2 * SUM_BLOCK",
        parametrised(unrolled.test_one_row, "float32", 97, False),
    ),
    Mutant(
        "rnncc.runtime.cpu.planning.tiling:TileBinder.even_tiles",
        'if kernel.kind != "scan":',
        "if True:",
        structure.test_tiles_of_rows_are_alike,
    ),
    Mutant(
        "rnncc.runtime.cpu.planning.tiling:TileBinder.parts",
        "min(self.threads, batch)",
        "1",
        structure.test_threads_take_rows_or_units,
    ),
    Mutant(
        "rnncc.runtime.cpu.planning.tiling:TileBinder.choose_starts",
        "if fits or",
        "if",
        structure.test_what_a_loop_starts_from,
    ),
    Mutant(
        "rnncc.runtime.planning.layouts:staggered",
        "row + CACHE_LINE if row % STAGGER == 0 else row",
        "row",
        structure.test_rows_avoid_powers_of_two,
    ),
    Mutant(
        "rnncc.runtime.planning.layouts:needs_room",
        "room(buffer, sizes) >",
        "0 >",
        LSTM,
    ),
    Mutant(
        "rnncc.runtime.cpu.planning.executable:Executable._lay_out",
        "at += (colour - at) % PAGE",
        "at += 0",
        structure.test_large_buffers_begin_at_different_places_of_a_page,
    ),
    Mutant(
        "rnncc.runtime.cpu.planning.weight_packing:Planner.launch",
        "self.binding.threads if",
        "1 if",
        patching(structure.test_packing_and_large_copies_are_shared),
    ),
    Mutant(
        "rnncc.runtime.common.memory_pool:size_class",
        "- 4, 0)",
        "- 3, 0)",
        structure.test_sizes_of_kept_memory,
    ),
    Mutant(
        "rnncc.runtime.cpu.execution.run:Direction.find",
        "self.ready.move_to_end(key)",
        "pass",
        structure.test_what_was_used_last_is_kept,
    ),
    Mutant(
        "rnncc.runtime.cpu.execution.run:Direction.prepared",
        "self.made.move_to_end(call)",
        "pass",
        structure.test_shapes_used_last_are_kept,
    ),
    # copies
    Mutant(
        "rnncc.runtime.cpu.planning.executable:Executable._moves",
        "q in p.share(part, parts)",
        "q in p.share(0, parts)",
        SHARED,
    ),
    Mutant(
        "rnncc.runtime.planning.copies:Move.share",
        "self.shape[axis] * p // parts for p in (part, part + 1)",
        "self.shape[axis] * p // parts for p in (0, part + 1)",
        SHARED,
    ),
    Mutant(
        "rnncc.runtime.planning.copies:Move.pieces",
        "axes[-1][1:] == (s * n, t * n)",
        "axes[-1][1] == s * n",
        LSTM,
    ),
    Mutant(
        "rnncc.runtime.planning.copies:Mover._start",
        "first = self.call.time if self.d.reverse else 0",
        "first = 0",
        ODD,
    ),
    Mutant("rnncc.runtime.planning.copies:Mover.slot", "(step & layout.ring)", "step", ODD),
    Mutant(
        "rnncc.runtime.cpu.execution.engine:_apart",
        "if n not in later}, later",
        "if n in later}, {}",
        structure.test_results_where_they_are_read_wait,
    ),
)


ALL, MASKED, BACK = Episodes(), Episodes(masked=True), Episodes(backwards=True)
RESETS = (
    Mutant(
        "rnncc.lowering.lower:_Lowering._restarted",
        "start, last\n",
        "last, start\n",
        ALL,
    ),
    Mutant("rnncc.lowering.lower:_Lowering._restarted", "self.resets == TO_STARTS", "False", ALL),
    Mutant("rnncc.runtime.api.masking:restarts", "= given[:, 1:]", "= given[:, :-1]", ALL),
    Mutant("rnncc.runtime.api.masking:restarts", "[:, ::-1] if backwards", " if backwards", BACK),
    Mutant("rnncc.runtime.api.masking:_crossed", "= anew[:, 1:]", "= anew[:, :-1]", BACK),
    Mutant("rnncc.runtime.api.masking:_crossed", "anew & valid", "anew", MASKED),
    Mutant("rnncc.runtime.api.masking:_crossed", "> before[:, :-1]", ">= before[:, :-1]", MASKED),
    Mutant("rnncc.runtime.api.masking:_crossed", "np.where(valid, c", "np.where(True, c", MASKED),
    Mutant("rnncc.runtime.api.call:CellCall.run", "else TO_STARTS", "else TO_ZEROS", ALL),
    Mutant(
        "rnncc.runtime.api.call_gradients:AskedGradients.hand_on",
        "add(name, gradients.pop(restart))",
        "gradients.pop(restart)",
        ALL,
    ),
    Mutant(
        "rnncc.runtime.planning.copies:Mover.slot",
        "(step & layout.ring)",
        "step",
        RESTARTED,
    ),
)


EVERY = (*RESETS, *PASSES, *SCHEDULE, *EMIT, *TEMPLATES, *RUNTIME)


def test_nobody_notices_what_is_whole() -> None:
    """A check that fails anyway would catch every mutant."""
    for check in dict.fromkeys(m.caught_by for m in EVERY):
        check()


@pytest.mark.parametrize("mutant", EVERY, ids=str)
def test_mutant_is_caught(mutant: Mutant) -> None:
    if isinstance(mutant.caught_by, Numbers):
        mutant.caught_by.right()
    with mutated(mutant):
        try:
            mutant.caught_by()
        except Exception:
            return
    pytest.fail("nobody noticed")
