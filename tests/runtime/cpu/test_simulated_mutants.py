"""Defects put into kernels and their planning on purpose: the simulated machine has to notice each.

Those of text are of the functions that run, those of planning are of what writes their blocks; both
are named by function, so that they survive a move.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rnncc.runtime.cpu.planning import (
    buffer_layout,
    executable,
    kernel_arguments,
    weight_packing,
)
from rnncc.runtime.planning import copies
from tests.support.cpu_simulator.memory import KernelFault, Race
from tests.support.cpu_simulator.places import text_of
from tests.support.cpu_simulator.simulate import Simulator, Ways
from tests.support.cpu_simulator.twins import Twins
from tests.support.twins import LIMIT, Shape

SHAPE: Shape = (18, 3, 3, 5)
SHARED = Ways(256, 10**6, False, 1, 1)  # threads share units
APART = Ways(1 << 19, 10**6, False, 1, 1)  # each has its rows
ALONE = replace(SHARED, helpers=0)  # and nobody comes to share them
BLOCKS = replace(APART, block=1)  # and row after row goes through all levels
COPIED = replace(APART, copied=True)  # and copies of all that gradients read
FUSED = Ways(1 << 19, 10**6, True, 1, 1)  # x @ W in the loop
NUMBERS = None  # noticed by what comes out


def own_text(function: Any) -> str:
    """A function's own lines, without decorators."""
    first = function.__code__.co_firstlineno - 1
    block = inspect.getblock([f"{line}\n" for line in text_of(function)[first:]])
    text = "".join(block)
    return text[text.index("def ") :]


class Changed:
    """Functions of kernels whose text has `old` get `new` in its place."""

    def __init__(self, where: str, old: str, new: str) -> None:
        self.where, self.old, self.new = where, old, new
        self.hits = 0

    def __call__(self, function: Any) -> Any:
        if not re.fullmatch(self.where, function.__name__):
            return function
        text, count = re.subn(self.old, self.new, own_text(function), flags=re.MULTILINE)
        if not count:
            return function
        self.hits += 1
        names: dict[str, Any] = dict(function.__globals__)
        exec(compile(text, "<mutant>", "exec"), names)
        return names[function.__name__]


def caught(
    what: str,
    kind: type[KernelFault] | None,
    ways: Ways,
    mutate: Changed | None = None,
    *,
    cell: str = "lstm",
    shape: Shape = SHAPE,
    variant: str = "plain",
) -> None:
    for seed in range(4):
        simulator = Simulator(32, 2, seed, ways)
        simulator.words.mutate = mutate
        try:
            error, _ = Twins.of(cell, variant, shape, simulator).worst()
        except KernelFault as found:
            assert kind is None or isinstance(found, kind), found
            break
        if kind is None and not error <= LIMIT["float64"]:
            break
    else:
        pytest.fail(f"{what}: nobody noticed" if kind is None else f"{what}: no {kind.__name__}")
    if mutate is not None:
        assert mutate.hits, "the text that was to be changed isn't there"


SCAN = "(forward|backward)_scan"
GENERATED: dict[str, tuple[str, str, str, type[KernelFault] | None, Ways]] = {
    "a dropped barrier": (SCAN, r"barrier\(.*\)", "0", Race, SHARED),
    "a row too far": (
        SCAN,
        r"\+ r \* h_1_stride_b",
        "+ (r + 1) * h_1_stride_b",
        KernelFault,
        APART,
    ),
    "a step too far": (
        SCAN,
        r"i_ptr \+ t \*",
        "i_ptr + (t + 1) *",
        KernelFault,
        APART,
    ),
    "a stale state": (
        SCAN,
        r"_in_ptr = h_1_ptr \+ \(t &",
        "_in_ptr = h_1_ptr + (max(t - 1, 0) &",
        None,
        APART,
    ),
    "a step too few": (SCAN, r"range\(T\)", "range(T - 1)", KernelFault, APART),
    "a reversed loop": (
        SCAN,
        r"range\(T - 1, -1, -1\)",
        "range(T)",
        None,
        APART,
    ),
    "a store left out": (SCAN, r"v\.store\(c_1_out_r .*\)", "pass", KernelFault, APART),
    "a lane tile too few": (
        SCAN,
        r"range\(lane_lo, lane_hi\)",
        "range(lane_lo, lane_hi - 1)",
        KernelFault,
        APART,
    ),
    "everybody makes all rows": (SCAN, r"own_rows\(B, shared, index, count\)", "0, B", Race, APART),
    "a block left out": (
        SCAN,
        r"range\(row_lo, row_hi, row_block\)",
        "range(row_lo, row_hi - 1, row_block)",
        KernelFault,
        BLOCKS,
    ),
    "the next gate": (SCAN, r"\(u \* 4 \+ 3\)", "(u * 4 + 2)", NUMBERS, APART),
    "a row too few in the last tile": (
        SCAN,
        r"rows = least \+ \(i < longer\)",
        "rows = 1",
        KernelFault,
        SHARED,
    ),
    "spilled where another loop spills": (
        SCAN,
        r"SPILLS_AT \+ 1 \*",
        "SPILLS_AT + 0 *",
        NUMBERS,
        APART,
    ),
    "the other thread's scratch": (
        SCAN,
        r"scratch_base \+ part \*",
        "scratch_base + 0 *",
        Race,
        APART,
    ),
}


@pytest.mark.parametrize("what", GENERATED)
def test_generated_text(what: str) -> None:
    where, old, new, kind, ways = GENERATED[what]
    caught(what, kind, ways, Changed(where, old, new), cell="gru" if "spill" in what else "lstm")


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (r"blk - index \* most_rows", "blk", Race),
        (r"origin = .*", "origin = 0", KernelFault),
        (r"origin = .*", "origin = blk + 1", KernelFault),
    ],
)
def test_rows_of_a_block(old: str, new: str, kind: type[KernelFault]) -> None:
    """Where levels leave something for one another."""
    caught(new, kind, BLOCKS, Changed(SCAN, old, new), cell="layer_norm_lstm")


RUNTIME: dict[str, tuple[str, str, str, type[KernelFault] | None, Ways]] = {
    "shares that leave one out": (
        "share",
        r"n \* \(part \+ 1\)",
        "(n - 1) * (part + 1)",
        None,
        APART,
    ),
    "lanes that are left out": (
        "lane_range",
        r"n \* \(index \+ 1\) // count",
        "(n * (index + 1) - 1) // count",
        KernelFault,
        SHARED,
    ),
    "a barrier that is one behind": ("barrier", "<= generation", "< generation", Race, SHARED),
    "a barrier for the first alone": ("barrier", r"range\(count\)", "range(1)", Race, SHARED),
    "a latecomer works": ("check_in", "return -1, 0", "return 0, 1", Race, ALONE),
    "segments over one another": (
        "segment",
        r"index \* SEGMENT_BYTES",
        "0 * SEGMENT_BYTES",
        None,
        FUSED,
    ),
    "a tail of no rows": (
        "contract_lanes",
        r"rows = least \+ \(i < longer\)",
        "rows = least + 1",
        KernelFault,
        SHARED,
    ),
    "sums begin anew": ("sum_rows", r"if begun else", "if False else", None, APART),
    "blocks that are no part of deep sums": (
        "core_.*",
        r"so_far, so_far_rs = out, out_rs",
        "pass",
        NUMBERS,
        APART,
    ),
    "pieces that are no part of deep sums": ("contract_rows", "here, out_rs$", "0, 0", None, APART),
    "columns over one another": (
        "copy_columns",
        r"\+ k \* row_bytes",
        "",
        None,
        COPIED,
    ),
    "the other thread's columns": (
        "sum_rows",
        r"columns = table \+ word\(call, 12\)",
        "columns = word(call, 5)",
        KernelFault,
        COPIED,
    ),
    "a last row left out": (
        "sum_rows",
        r"range\(first, last\)",
        "range(first, last - 1)",
        KernelFault,
        APART,
    ),
    "a k too few": (
        "core_.*",
        r"min\(k - begin, (\d+)\)",
        r"min(k - begin, \1) - 1",
        NUMBERS,
        APART,
    ),
    "a k too many": (
        "core_.*",
        r"min\(k - begin, (\d+)\)",
        r"min(k - begin, \1) + 1",
        None,
        APART,
    ),
    "a unit too many is packed": (
        "pack",
        r"units - unit, w\.width",
        "units - unit + 1, w.width",
        KernelFault,
        APART,
    ),
    "a job too few is packed": (
        "pack_all",
        r"range\(word\(block, 0\)\)",
        "range(word(block, 0) - 1)",
        KernelFault,
        APART,
    ),
    "a piece too few is copied": (
        "copy_pieces",
        r"range\(count\)",
        "range(count - 1)",
        KernelFault,
        APART,
    ),
    "squares that aren't turned": (
        "copy_strided",
        r"w\.transpose_tile\(square\)",
        "square",
        NUMBERS,
        APART,
    ),
    "the tail of a copy": ("copy_strided", r"n - i\)$", "n - i - 1)", KernelFault, APART),
    "words of the call before": (
        "perform",
        r"word\(plan, FIXUPS\)\):",
        "word(plan, FIXUPS) - 1):",
        KernelFault,
        APART,
    ),
    "zeros aren't": ("perform", r"set_word\(zeros, i, 0\)", "pass", KernelFault, APART),
    "nobody clears what threads meet at": (
        "run_launches",
        r"set_word\(sync, i, 0\)",
        "pass",
        KernelFault,
        SHARED,
    ),
    "nobody waits for the workers": (
        "lead",
        r"while atomic_load\(control \+ DONE\) < parts:",
        "while False:",
        KernelFault,
        APART,
    ),
}
LONG: Shape = (2, 67, 3, 2)  # more rows than a gradient takes at once
DEEP: Shape = (18, 2, 2, 300)  # sums of blocks, taken in pieces


@pytest.mark.parametrize("what", RUNTIME)
def test_runtime_text(what: str) -> None:
    where, old, new, kind, ways = RUNTIME[what]
    shape = LONG if "begin anew" in what else DEEP if "deep" in what else SHAPE
    cell = "fast_weights" if "squares" in what else "lstm"  # whose state is a matrix
    caught(what, kind, ways, Changed(where, old, new), cell=cell, shape=shape)


# ---- planning ----------------------------------------------------------------------------------


def _twice(original: Callable[..., Any], change: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: change(original(*args, **kwargs), *args)


def _shrunk(binding: Any, *_: object) -> Any:
    name = max(binding.bytes, key=binding.bytes.__getitem__)
    binding.bytes[name] -= 32
    return binding


PLANNING: dict[str, tuple[Any, str, Callable[..., Any], type[KernelFault] | None]] = {
    "a buffer a vector too small": (kernel_arguments.ArgumentBinder, "bind", _shrunk, KernelFault),
    "rows without padding": (buffer_layout, "is_padded", lambda found, *_: False, KernelFault),
    "parts of rows without room": (buffer_layout, "room", lambda found, *_: 16, None),
    "no start from zeros": (copies.Mover, "starts", lambda found, *_: found[1:], KernelFault),
    "a start that is computed isn't copied": (
        copies.Mover,
        "_start",
        lambda found, *_: replace(found, source=found.target),
        KernelFault,
    ),
    "nothing is packed": (weight_packing.Planner, "_pack", lambda found, *_: 0, KernelFault),
    "constants of a sum aren't packed": (
        weight_packing.Planner,
        "_init",
        lambda found, *_: 0,
        KernelFault,
    ),
    "a gate's weights begin a unit late": (
        weight_packing.Planner,
        "_gate",
        lambda found, *_: (found[0], found[1] + 8),
        None,
    ),
    "a stride of the wrong axis": (
        kernel_arguments.ArgumentBinder,
        "range_stride",
        lambda found, *_: found + 64,
        None,
    ),
    "an entering slot leaves": (copies, "slot_offset", lambda found, *_: 0, None),
    "results are copied a row early": (
        copies.Mover,
        "results",
        lambda found, *_: found[:-1],
        KernelFault,
    ),
    "what weights alone decide is made once a call's time": (
        executable.Executable,
        "_weight_buffers",
        lambda found, *_: [],
        KernelFault,
    ),
}


@pytest.mark.parametrize("what", PLANNING)
def test_planning(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, change, kind = PLANNING[what]
    monkeypatch.setattr(where, name, _twice(getattr(where, name), change))
    cell = "shapes" if "alone" in what else "gru"
    caught(what, kind, APART, cell=cell, variant="mask")


@pytest.mark.parametrize("ways", [SHARED, APART, FUSED, COPIED])
def test_unmutated_passes(ways: Ways) -> None:
    for cell in ("lstm", "gru"):
        twins = Twins.of(cell, "plain", SHAPE, Simulator(32, 2, 0, ways))
        assert twins.worst()[0] <= LIMIT["float64"]
