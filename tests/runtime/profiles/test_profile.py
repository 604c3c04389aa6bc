"""Profiles: the layer's own kernels with stamps between stages, and pieces that fill the call."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import oracle
from rnncc.artifact.kernel_tables import KernelSpec, PieceSpec
from rnncc.driver import Derivation
from rnncc.layers import LSTM, RNN, Bidirectional, GRUCell, LSTMCell
from rnncc.runtime.cpu.execution import timed
from rnncc.runtime.cpu.execution.timed import CALL, RAN, RETURNED, RUN, Launched
from rnncc.runtime.cpu.kernels.stamps import BEGIN, END
from rnncc.runtime.cpu.planning.work import StageWork
from rnncc.runtime.jit.module_grammar import check_module
from rnncc.runtime.profiles.pieces import Threads, TimedCall, TimedPiece
from rnncc.runtime.profiles.profile import Profile
from rnncc.runtime.profiles.roofline import Roofline
from rnncc.runtime.profiles.rows import ProfileRow, rows_of
from tests.support.arrays import uniform
from tests.support.cases import NAMES, spec_of

CELLS = NAMES if os.environ.get("RNNCC_EVERY_CELL") else ["lstm", "matrix_memory", "spiking"]
LIMITS = Roofline(2, 1e9, 0.5e9, {1024: 1e9, 1024 * 1024: 1e9})
BATCH, TIME, FEATURES, UNITS = 5, 9, 7, 19


@pytest.fixture(scope="module")
def layer() -> Any:
    return rnncc.compile("lstm")(units=UNITS, seed=1)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return uniform(BATCH, TIME, FEATURES).astype("f")


@pytest.fixture(scope="module")
def call(layer: Any, x: np.ndarray) -> Profile:
    return layer.profile(x, repeats=3)


@pytest.fixture(scope="module")
def training(layer: Any, x: np.ndarray) -> Profile:
    start = np.zeros((2, BATCH, UNITS), "f")  # whose gradients are asked for at once
    return layer.profile(x, repeats=2, gradients=True, initial_state=tuple(start))


# ---- what runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CELLS)
def test_timed_kernels_are_the_kernels(name: str) -> None:
    """But for what writes stamps, line by line."""
    derivation = Derivation(spec_of(name))
    plain, stamped = (check_module(derivation.module(timed=t)) for t in (False, True))
    assert "stamp(stamps, " in stamped and "stamp" not in plain.replace("timestamp", "")
    assert bodies(stamped) == bodies(plain)


def bodies(text: str) -> list[str]:
    """The lines of kernels behind what they read of their blocks."""
    kernels = re.findall(r"^def \w+\(block, part\):\n(.*?)^(?=\S)", text, re.DOTALL | re.MULTILINE)
    assert kernels
    lines = [line for body in kernels for line in body.split("= words(block, ")[1].split("\n")[1:]]
    ours = re.compile(r"\s*(stamp\(stamps|stamps = |spent (\+)?= |begun = ticks)")
    return [line for line in lines if not ours.match(line)]


@pytest.mark.parametrize(
    ("name", "shape", "keywords"),
    [
        ("lstm", (BATCH, TIME, FEATURES), {}),
        ("lstm", (1, TIME, FEATURES), {}),
        ("simple_rnn", (1, TIME, FEATURES), {"unroll": 2}),
        ("lstm", (1, TIME, FEATURES), {"weights": "bfloat16"}),
        ("lstm", (130, 3, FEATURES), {"return_sequences": True, "time_major": True}),
        ("fast_weights", (3, 4, 6), {"return_state": True, "checkpoint_every": 3}),
    ],
)
def test_the_same_bits(name: str, shape: tuple[int, ...], keywords: Any) -> None:
    layer = rnncc.compile(name)(units=UNITS, seed=1, **keywords)
    x = uniform(*shape).astype("f")
    layer(x)
    own, other = layer(x), layer._stand_in("")(x)
    np.testing.assert_equal(own, other)
    if "unroll" in keywords:  # the same loops, written out, which take long to compile
        return
    (y, pullback), (z, timed_pullback) = layer.vjp(x), layer._stand_in("").vjp(x)
    np.testing.assert_equal(z, y)
    ones = tuple(map(np.ones_like, y)) if isinstance(y, tuple) else np.ones_like(y)
    gradients, others = pullback(ones), timed_pullback(ones)
    np.testing.assert_equal(others.inputs, gradients.inputs)
    np.testing.assert_equal(dict(others.weights), dict(gradients.weights))


def test_the_layer_stays_as_it_is(x: np.ndarray) -> None:
    layer = rnncc.compile("lstm")(UNITS, stateful=True, seed=1)
    layer(x)
    states, version, calls = layer.states, layer._store.current[0], layer._calls
    plan = layer.plan()
    layer.profile(x, repeats=2, gradients=True)
    assert states is not None and layer.states is not None
    np.testing.assert_equal(layer.states, states)
    assert (layer._store.current[0], layer._calls) == (version, calls)
    assert layer.plan().splitlines()[1] == plan.splitlines()[1]


# ---- what is told ----------------------------------------------------------------------------


def pieces(profile: Profile) -> Iterator[list[TimedPiece]]:
    """Of each thread, in order."""
    every = [*profile._call.pieces(profile.threads)]
    assert profile.threads.count == 1 + max(p.thread for p in every)
    for thread in range(profile.threads.count):
        yield sorted((p for p in every if p.thread == thread), key=lambda p: (p.begin, p.end))


def test_pieces_fill_the_call(call: Profile, training: Profile) -> None:
    """On every thread, one behind another, from its beginning to its end."""
    for profile in (call, training):
        for own in pieces(profile):
            assert own[0].begin == profile._call.begin and own[-1].end == profile._call.end
            assert all(a.end == b.begin for a, b in pairwise(own))
            assert all(p.begin <= p.end and 0 <= p.cores <= p.end - p.begin for p in own)
        totals = np.sum([row.by_thread for row in profile.rows], 0)
        np.testing.assert_allclose(totals, profile.timed_seconds, rtol=1e-9)
        np.testing.assert_allclose(np.sum([*profile.kinds.values()], 0), totals, rtol=1e-9)
        assert sum(row.seconds for row in profile.rows) == pytest.approx(profile.timed_seconds)


def test_two_threads() -> None:
    """Stamps written by hand: a launch of two parts, whose second ends later, then one of one."""
    kernel = KernelSpec("k", "scan", "B", "scan", (), (), function="k")
    told = (PieceSpec(0, "waiting"), PieceSpec(1, "stage", "s"), PieceSpec(1, "waiting"))
    work = {1: StageWork(1000)}
    two = Launched(0, "", "k", kernel, told, work, 0, 2, False, "float32")
    copies = Launched(1, "", "copies", None, (), {}, 8, 1, False, "float32")
    near, far = 1 << 40, 1 << 41  # stacks
    caller = [(CALL, 0, near), (RUN, 10, near), (RAN, 100, near + 64), (RETURNED, 110, near)]
    own = [(BEGIN, 15, near), (0, 16, 0), (1, 46, 20), (2, 50, 0), (END, 51, 0)]
    own += [(BEGIN | 1, 80, near), (END, 90, 0)]
    other = [(BEGIN, 20, far), (0, 22, 0), (1, 60, 30), (2, 61, 0), (END, 70, 0)]
    lines = [np.array(line, np.int64) for line in (caller, own, other)]
    call = TimedCall(lines, {0: two, 1: copies})
    threads = Threads.of_calls([call])
    found = sorted(
        (p.thread, p.begin, p.end, p.kind) for p in call.pieces(threads) if p.end > p.begin
    )
    assert found == [
        (0, 0, 10, "python"),
        (0, 10, 15, "other"),  # to the first launch
        (0, 15, 16, "waiting"),
        (0, 16, 46, "epilogue"),
        (0, 46, 50, "waiting"),
        (0, 50, 51, "other"),
        (0, 51, 70, "waiting"),  # for the other's part
        (0, 70, 80, "other"),
        (0, 80, 90, "copies"),
        (0, 90, 100, "other"),
        (0, 100, 110, "python"),
        (1, 0, 20, "waiting"),
        (1, 20, 22, "waiting"),
        (1, 22, 60, "epilogue"),
        (1, 60, 61, "waiting"),
        (1, 61, 70, "other"),
        (1, 70, 110, "waiting"),
    ]
    rows = {(row.stage, row.kind): row for row in rows_of([call], threads, LIMITS, 1.0)}
    assert rows["s", "contraction"].by_thread == (20, 30)
    assert rows["s", "epilogue"].by_thread == (10, 8)
    assert rows["", "python"].by_thread == (20, 0)
    assert rows["", "copies"].limit == pytest.approx(16 / 5e8)  # half of what two cores read
    assert rows["s", "contraction"].limit == pytest.approx(1000 / 5e8)  # of both together
    assert sum(row.seconds for row in rows_of([call], threads, LIMITS, 1.0)) == 110


def test_stages_of_the_plan(layer: Any, training: Profile) -> None:
    """Each is there, as often as it runs: of one part every step, of all parts together."""
    stood = layer._stand_in("")
    y, pullback = stood.vjp(uniform(BATCH, TIME, FEATURES).astype("f"))
    pullback(np.ones_like(y))
    planned: set[tuple[str, str]] = set()
    for line in stood.plan().splitlines():
        kernel = re.match(r"  (\w+): (\w+), ", line)
        stage = re.match(r"    (\w+): contraction", line)
        if kernel:
            name = kernel[1]
        if stage:
            planned.add((name, stage[1]))
    rows = [row for row in training.rows if row.kind == "contraction"]
    told = {(row.kernel, stage) for row in rows for stage in row.stage.split(", ")}
    assert planned == told
    for row in rows:
        parts = {len(p) for p in stage_parts(training, row)}
        assert parts == ({TIME} if row.kernel.endswith("scan") else {1}), row


def stage_parts(profile: Profile, row: ProfileRow) -> Iterator[list[int]]:
    """Of each part of the row's launches, the stamps of its stage."""
    for _, launch, stamps in profile._call.parts(profile.threads):
        if launch.what != row.kernel:
            continue
        numbers = stamps[1:, 0].tolist()
        if launch.pieces:
            numbers = [n for n in numbers if n < len(launch.pieces)]
            numbers = [n for n in numbers if launch.pieces[n].stage == row.stage]
        yield numbers


def test_names_and_work(call: Profile, training: Profile) -> None:
    """FLOPs as they are counted by hand, of every row and step; on the way back the first step has
    nothing to add, and what is behind the last one is asked for."""
    (scan,) = [row for row in call.rows if row.kernel == "forward_scan" and row.flops]
    assert (scan.level, scan.kind, scan.what) == (1, "contraction", "i, f, g, o, c[t], h[t]")
    before = sum(row.flops for row in call.rows if row.kernel == "forward_before_starts")
    ahead = 2 * BATCH * TIME * (FEATURES + UNITS) * 4 * UNITS
    assert before + scan.flops == ahead
    assert scan.gflops and scan.roofline and scan.bytes
    (sums,) = [row for row in training.rows if row.kernel == "backward_after_grads"]
    assert sums.flops == ahead + BATCH * TIME * 4 * UNITS  # those of the bias are additions alone
    back = sum(row.flops for row in training.rows if row.kernel.startswith("backward"))
    assert back == 2 * ahead + BATCH * TIME * 4 * UNITS
    assert not [row for row in call.rows if row.kind == "packing"]
    assert [row for row in call.packing if row.kind == "packing" and row.bytes]
    assert [row for row in training.rows if row.kind == "packing"] and not training.packing


def test_matrices_of_rows() -> None:
    """A row's own matrix is multiplied: two FLOPs an element, row and step."""
    layer = rnncc.compile("fast_weights")(units=UNITS, seed=1)
    profile = layer.profile(uniform(3, 4, 6).astype("f"), repeats=1)
    scan = [row for row in profile.rows if row.kernel == "forward_scan" and row.flops]
    assert [row.flops for row in scan] == [2 * 3 * 4 * UNITS * UNITS] * 2
    kinds = {row.kind for row in profile.rows}
    assert {"rows", "pointwise", "epilogue", "contraction", "python"} <= kinds


def test_layers_of_layers(x: np.ndarray) -> None:
    nested = Bidirectional(RNN([GRUCell(3, seed=1), LSTMCell(2, seed=2)]), merge_mode=None)
    profile = nested.profile(x, repeats=1, gradients=True)
    parts = {row.part for row in profile.rows if row.kernel}
    ways = [f"{way}.cell_{n}" for way in ("forward", "backward") for n in (0, 1)]
    assert parts == {*ways}
    np.testing.assert_equal(nested._stand_in("")(x), nested(x))
    single = RNN(LSTMCell(4, seed=1)).profile(x, repeats=1)
    assert {row.part for row in single.rows} == {""}


def test_no_steps(layer: Any) -> None:
    """All that is left is Python, or nothing at all runs."""
    profile = layer.profile(np.zeros((2, 0, FEATURES), "f"), repeats=1)
    assert not [row for row in profile.rows if row.flops]
    assert "python" in str(profile)


# ---- what is shown ---------------------------------------------------------------------------


def test_text(call: Profile, training: Profile) -> None:
    text = str(call)
    assert text.startswith("lstm, a call: ") and "forward_scan" in text and "once for new" in text
    assert "caller" in text and f"of {call.repeats} calls" in text
    assert str(training).startswith("lstm, vjp and pullback: ")
    assert "&" not in call._repr_html_() and call._repr_html_().startswith("<pre>lstm")
    assert call.overhead > -1 and "Profile(" in repr(call)


def test_chrome_trace(call: Profile, tmp_path: Path) -> None:
    """Events of a thread lie one in another, as a viewer wants them."""
    path = tmp_path / "trace.json"
    call.chrome_trace(path)
    events = json.loads(path.read_text())["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    assert {e["tid"] for e in events} == {*range(call.threads.count)}
    names = [e["name"] for e in spans]
    assert names.count("forward_scan") in (1, 2) and "lstm" in names  # a part each
    for thread in range(call.threads.count):
        open_until: list[float] = []
        own = [e for e in spans if e["tid"] == thread]
        for event in sorted(own, key=lambda e: (e["ts"], -e["dur"])):
            end = event["ts"] + event["dur"]
            while open_until and open_until[-1] <= event["ts"] + 1e-3:
                open_until.pop()
            assert event["ts"] >= 0 and event["dur"] >= 0
            assert not open_until or end <= open_until[-1] + 1e-3
            open_until.append(end)
    with pytest.raises(OSError, match="nowhere"):
        call.chrome_trace(tmp_path / "nowhere" / "trace.json")


def test_timeline(training: Profile) -> None:
    pytest.importorskip("matplotlib")
    figure = training.timeline()
    (axis,) = figure.axes
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels[0] == "caller" and len(labels) == training.threads.count
    assert training.timeline(0, training.timed_seconds / 1e3)
    for start, stop in ((1e9, None), (-1, 1), (0, 0)):
        with pytest.raises(ValueError, match="nothing lies between"):
            training.timeline(start, stop)


# ---- what is refused -------------------------------------------------------------------------


def test_room(layer: Any, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """More is taken where stamps need it, up to a limit."""
    monkeypatch.setattr(timed, "FIRST_ROOM", 4)
    profile = layer.profile(x, repeats=1)
    assert max(row.times for row in profile.rows if row.kind == "epilogue") >= TIME
    assert timed.STAMPS.room is None
    monkeypatch.setattr(timed, "MOST_STAMPS", 5)
    with pytest.raises(ValueError, match="more than 5: profile fewer steps"):
        layer.profile(x, repeats=1)
    assert timed.STAMPS.room is None and not timed.STAMPS.lines.any()


def test_refusals(layer: Any, x: np.ndarray) -> None:
    for keywords, kind, what in (
        ({"repeats": 0}, ValueError, "repeats is 0, expected 1"),
        ({"repeats": 10**9}, ValueError, "expected 1 to 1000"),
        ({"repeats": 2.5}, TypeError, "repeats is a whole number, not 2.5"),
        ({"repeats": True}, TypeError, "repeats is a whole number"),
        ({"gradients": 1}, TypeError, "gradients is True or False"),
        ({"mask": np.ones((BATCH, TIME))}, TypeError, "mask"),
    ):
        with pytest.raises(kind, match=what):
            layer.profile(x, **keywords)
    with pytest.raises(ValueError, match="features"):
        layer.profile(uniform(BATCH, TIME, 3).astype("f"))
    slow = oracle.layer_class(spec_of("lstm"))(units=3)
    with pytest.raises(ValueError, match="this LSTM runs on the interpreter"):
        slow.profile(uniform(2, 3, 4))
    gpu = rnncc.compile("lstm", target="cuda")(units=3)
    with pytest.raises(ValueError, match=r'runs on a GPU.*\.to\("cpu"\)'):
        gpu.profile(x)
    both = Bidirectional(rnncc.compile("lstm", target="cuda")(units=3))
    with pytest.raises(ValueError, match="this LSTM runs on a GPU"):
        both.profile(x)


def test_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generated module is profiled by its text; one without says what to do."""
    from rnncc.cli import main

    x = uniform(2, 4, 3).astype("f")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["compile", "simple_rnn", "-o", str(tmp_path / "profiled_own.py")]) == 0
    bare = tmp_path / "unprofiled_own.py"
    assert main(["compile", "simple_rnn", "--variants", "all", "-o", str(bare)]) == 0
    import profiled_own  # type: ignore[import-not-found]
    import unprofiled_own  # type: ignore[import-not-found]

    layer = profiled_own.SimpleRNN(units=5, seed=1)
    assert "forward_scan" in {row.kernel for row in layer.profile(x, repeats=1).rows}
    np.testing.assert_array_equal(layer._stand_in("")(x), layer(x))
    with pytest.raises(ValueError, match="without the cell's text"):
        unprofiled_own.SimpleRNN(units=5).profile(x)


def test_lstms_by_name(x: np.ndarray) -> None:
    """A layer that has no weights yet gets them, as of a call."""
    layer = LSTM(UNITS, seed=1)
    assert not layer.built
    layer.profile(x, repeats=1)
    assert layer.built
