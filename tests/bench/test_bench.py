"""The harness: bars, fits, tables, pictures, files, and every contender against the interpreter.

Non-Goals: times: nothing here asserts one.
"""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench import outputs, plot
from bench.__main__ import main
from bench.bars import Demand
from bench.case import FORWARD, TRAINING, Case, CaseError, check_drivable, draw
from bench.contenders import NAMES, contender
from bench.contenders.cells import CELLS, HEADS
from bench.harness import QUICK, BenchError, Crew, Effort, Timing, compare
from bench.markdown import with_sections
from bench.memory_suite import residual_bytes
from bench.race import Race, Raced, run_races
from bench.races_suite import races_suite
from bench.reference import expected, worst_error
from bench.result import Bar, Fit, Result
from bench.suites import SUITES, Suite
from bench.work import work_of
from rnncc.runtime.profiles.roofline import Roofline, measure
from tests.support.paths import ROOT

LIMITS = Roofline(2, 1e9, 0.5e9, {1024: 4e9, 1024 * 1024: 1e9})
SMALL = (3, 4, 5, 8)
ONCE = Effort(rounds=2, seconds=0.0, calls=1)


def raced(ours, peers, *, group="g", units=8, beside=None):
    """A race with these medians."""
    race = Race(Case("lstm", FORWARD, 2, 3, units, units), group=group)
    timings = [Timing("rnncc", "cpu kernels", 1e-7, [ours] * 3)]
    if beside is not None:
        race = replace(race, beside=Case("gru", FORWARD, 2, 3, units, units))
        timings.append(Timing("rnncc GRU", "cpu kernels", 1e-7, [beside] * 3, peer=False))
    timings += [Timing(n, "a loop", 1e-7, [t] * 3, memory=2**20) for n, t in peers.items()]
    return Raced(race, timings, LIMITS)


def a_result():
    races = [raced(1e-3, {"torch": 2e-3, "jax": 4e-3}, beside=1e-3), raced(2e-3, {"jax": 1e-3})]
    bars = [Bar("quick", 2.0, 1.0, least=True), Bar("slow", 2.0, 1.0), Bar("gone", None, 1.0)]
    fits = [Fit("time", "rnncc", (10, 20, 40), (1e-3, 2e-3, 4e-3))]
    return Result("latency", bars=bars, notes=["a note"], races=races, fits=fits, roofline=LIMITS)


# ---- bars ------------------------------------------------------------------------------------


def test_each_race_has_to_hold_and_the_worst_is_named():
    races = [raced(1.0, {"torch": 3.0, "jax": 2.0}), raced(1.0, {"torch": 1.2}, units=16)]
    bar = Demand("faster", "g", "speedup", 1.3).bar(races)
    assert bar.value == pytest.approx(1.2) and bar.passed is False
    assert "the worst of 2" in bar.what and "(2, 3, 16, 16)" in bar.what


def test_means_are_geometric():
    races = [raced(1.0, {"torch": 8.0}), raced(1.0, {"torch": 2.0})]
    bar = Demand("faster", "g", "speedup", 4.0, over="mean").bar(races)
    assert bar.value == pytest.approx(4.0)


def test_demands_choose_their_races_and_peers():
    races = [
        raced(1.0, {"torch": 9.0}, group="other"),
        raced(1.0, {"torch": 0.5, "rtneural-stl": 3.0}),
        raced(1.0, {"torch": 7.0}, units=256),
    ]
    assert Demand("", "other", "speedup", 1).bar(races).value == 9.0
    assert Demand("", "g", "speedup", 1, units=256).bar(races).value == 7.0
    tiny = Demand("", "g", "speedup", 1, against="rtneural").bar(races)
    assert tiny.value == 3.0 and "1 without a value" in tiny.what


@pytest.mark.parametrize(
    "races, why",
    [([], "no such race ran"), ([raced(1.0, {})], "no peer took part")],
)
def test_a_bar_without_a_value_says_why(races, why):
    bar = Demand("faster", "g", "speedup", 1.0).bar(races)
    assert bar.value is None and bar.verdict == "skipped" and bar.measured == why


def test_our_own_case_beside_is_no_peer():
    one = raced(2.0, {"torch": 6.0}, beside=1.0)
    assert one.best_peer().contender == "torch"
    flops = work_of(one.race.case).flops / work_of(one.race.beside).flops
    assert one.per_flop() == pytest.approx(2.0 / flops)
    bar = Demand("", "", "per_flop", 1.15, least=False).bar([one])
    assert bar.value == pytest.approx(2.0 / flops) and bar.passed is False
    assert Demand("", "", "beside", 1.5).bar([one]).value == 0.5


def test_a_line_is_fitted_to_ratios():
    n = (10, 20, 40, 80)
    fit = Fit("time", "rnncc", n, tuple(1e-3 + 1e-4 * k for k in n))
    assert fit.line == pytest.approx((1e-3, 1e-4)) and fit.worst < 1e-9
    assert Fit("time", "rnncc", n, tuple(1e-6 * k * k for k in n)).worst > 0.3


# ---- work and limits -------------------------------------------------------------------------


def test_work_counts_contractions_of_any_cell():
    batch, time, features, units = 3, 4, 5, 8
    lstm = work_of(Case("lstm", FORWARD, *SMALL))
    assert lstm.before == 2 * batch * time * features * 4 * units
    assert lstm.step == 2 * batch * units * 4 * units and lstm.weights == 4 * units * 4 * units
    assert work_of(Case("lstm", TRAINING, *SMALL)).flops == 3 * lstm.flops
    heads = work_of(Case("slstm", FORWARD, *SMALL))
    assert heads.step == lstm.step / HEADS
    before = work_of(Case("gru", FORWARD, *SMALL, options=(("reset_after", False),)))
    assert before.flops == work_of(Case("gru", FORWARD, *SMALL)).flops


def test_time_at_the_limits_is_peak_or_reading():
    work = work_of(Case("lstm", FORWARD, 1, 100, 64, 64))
    slow = replace(LIMITS, read={1024: 1.0})
    assert work.seconds(LIMITS) >= work.flops / LIMITS.fma
    assert work.seconds(slow) > 100 * work.weights
    assert LIMITS.read_at(2 * 32 * 1024) == pytest.approx(2e9)  # halfway, a share on each core
    assert LIMITS.of(1).fma == 0.5e9 and LIMITS.of(None) is LIMITS


def test_limits_are_measured():
    found = measure(1e-4, 1)
    assert found.fma > 0 and all(rate > 0 for rate in found.read.values())
    assert json.dumps(found.as_json())
    assert found.best(replace(found, fma=2 * found.fma)).fma == 2 * found.fma


def test_residuals_are_counted_once():
    rows = 16 * 64 * 4
    assert residual_bytes("lstm", 16, 64) == 6 * rows  # c and c[t-1] share rows
    assert residual_bytes("gru", 16, 64) == 5 * rows


# ---- contenders ------------------------------------------------------------------------------

CUSTOM = [Case(key[0], FORWARD, *SMALL, options=tuple(key[1:])) for key in CELLS]
LSTM = Case("lstm", TRAINING, *SMALL)
DROPPED = Case(
    "lstm",
    TRAINING,
    *SMALL,
    options=(("recurrent_dropout", 0.3), ("dropout_per_gate", False)),
)


def error_of(name, case):
    """The worst error of a contender, here, or a skip."""
    taking = contender(name)
    assert not taking.refuses(case)
    if reason := taking.unavailable():
        pytest.skip(reason)
    run = taking.prepare(case, draw(case))
    found = run.outputs()
    run.call()
    return worst_error(found, expected(case, draw(case), undropped=run.undropped))


@pytest.mark.parametrize("case", CUSTOM, ids=lambda c: c.name)
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_cells_as_users_write_them(name, case):
    assert error_of(name, case) < 1e-5
    assert error_of(name, replace(case, masked=True)) < 1e-5


@pytest.mark.parametrize("case", CUSTOM, ids=lambda c: c.name)
def test_gradients_of_users_cells(case):
    assert error_of("torch", replace(case, mode=TRAINING)) < 1e-5


@pytest.mark.parametrize("name", ["torch", "rnncc_torch"])
@pytest.mark.parametrize("lengths", ["near", "any"])
def test_packed_rows(name, lengths):
    assert error_of(name, replace(LSTM, lengths=lengths)) < 1e-5
    assert contender(name).refuses(replace(LSTM, lengths=lengths, mode=FORWARD))


@pytest.mark.parametrize("mode", [FORWARD, TRAINING])
def test_the_layer_that_a_torch_module_is_held_against(mode):
    assert error_of("rnncc_torch-layer", replace(LSTM, mode=mode)) < 1e-5


@pytest.mark.parametrize("name", ["jax", "openvino"])
def test_those_with_threads_of_their_own(name):
    """In a process each: tests that fork don't want their threads."""
    cases = [DROPPED, replace(CUSTOM[3], mode=TRAINING), CUSTOM[4]]
    with Crew() as crew:
        if reason := crew.unavailable(name):
            pytest.skip(reason)
        for case in (c for c in cases if not contender(name).refuses(c)):
            (timing,) = compare([(name, case)], ONCE, crew)
            assert timing.error < 1e-5


def test_dropout_of_a_loop_is_checked_with_our_own_draws():
    assert draw(DROPPED).kept.min() == 0.0
    assert error_of("torch", DROPPED) < 1e-5


NODES = [c for c in CUSTOM if not contender("onnxruntime").refuses(c)]


@pytest.mark.parametrize("case", NODES, ids=lambda c: c.name)
def test_nodes(case):
    assert error_of("onnxruntime", case) < 1e-5


@pytest.mark.parametrize("name", ["rnncc", "numpy", "torch", "onnxruntime"])
def test_states_are_kept_between_calls(name):
    assert error_of(name, Case("lstm", FORWARD, 1, 1, 8, 8, stateful=True)) < 1e-5


def test_a_missing_array_is_infinitely_wrong():
    assert worst_error({}, {"y": np.ones(2)}) == float("inf")
    assert worst_error({"y": np.ones(3)}, {"y": np.ones(2)}) == float("inf")


# ---- races, end to end -----------------------------------------------------------------------


def test_a_race_of_processes(monkeypatch):
    monkeypatch.delenv("RTNEURAL", raising=False)
    case = Case("lstm", FORWARD, 1, 4, 1, 8, stateful=True)
    races = [Race(case, ("numpy", "rtneural-stl", "keras-jax"), "tiny", beside=case)]
    outcome = run_races(races, ONCE, LIMITS)
    (found,), notes = outcome.found, outcome.notes
    assert [t.contender for t in found.timings] == ["rnncc", "rnncc LSTM state kept", "numpy"]
    assert found.speedup() > 0 and len(found.own.times) == 2
    assert all(t.error < 1e-5 and t.path for t in found.timings)
    assert any("RTNEURAL names no checkout" in n for n in notes)
    assert any(n.startswith("keras-jax: not in every race") for n in notes)


def test_a_wrong_peer_is_dropped_and_we_may_not_be(monkeypatch):
    case = Case("lstm", FORWARD, *SMALL)
    monkeypatch.setattr("bench.harness.expected", lambda *a, **k: {"y": np.zeros((*SMALL[:2], 8))})
    with Crew() as crew:
        dropped = {}
        assert compare([("numpy", case)], ONCE, crew, dropped) == []
        assert "is wrong: error" in dropped["numpy"]
        with pytest.raises(BenchError, match=r"rnncc: LSTM forward .* is wrong"):
            compare([("rnncc", case)], ONCE, crew, {})


def test_what_rnncc_lacks_is_named():
    case = Case("lstm", FORWARD, *SMALL, options=(("no_such_option", 1),))
    outcome = run_races([Race(case, optional=True)], ONCE, LIMITS)
    assert not outcome.found and not outcome.failures and "no_such_option" in outcome.notes[0]


def test_a_failure_of_ours_ends_a_race_and_not_the_run(monkeypatch, capsys):
    broken = Case("lstm", FORWARD, *SMALL, options=(("no_such_option", 1),))
    suite = Suite(tuple(Race(c, quick=True) for c in (broken, Case("lstm", FORWARD, *SMALL))))
    monkeypatch.setitem(SUITES, "inference", suite)
    monkeypatch.setattr("bench.races_suite.limits", lambda effort: LIMITS)
    assert main(["inference", "--quick"]) == 2
    shown = capsys.readouterr().out
    assert "FAILED LSTM no_such_option=1" in shown and "LSTM forward (3, 4, 5, 8)" in shown


def test_shapes_beyond_the_cap_are_named(monkeypatch):
    monkeypatch.setattr("bench.races_suite.limits", lambda effort: LIMITS)
    suite = Suite((Race(Case("lstm", TRAINING, 128, 25, 4096, 4096)),), capped=True)
    result = races_suite("deepbench", suite, replace(QUICK, quick=False, cap=1.0))
    assert not result.races
    assert "more than 1 s" in result.notes[0] and "(128, 25, 4096, 4096)" in result.notes[0]


# ---- suites ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, s in SUITES.items() if isinstance(s, Suite)])
def test_suites_of_races_are_sound(name):
    suite = SUITES[name]
    assert any(r.quick for r in suite.races)
    for race in suite.races:
        assert set(race.contenders) <= set(NAMES)
        assert work_of(race.case).flops > 0
    groups = {r.group for r in suite.races} | {""}
    assert all(d.group in groups for d in suite.demands)


def test_the_readme_names_every_suite():
    text = (ROOT / "bench/README.md").read_text("utf-8")
    assert not [name for name in SUITES if f"python -m bench {name} " not in text]


def test_suites_load_nothing_that_others_need():
    heavy = "torch", "jax", "keras", "tensorflow", "onnxruntime", "openvino", "matplotlib"
    code = f"import sys, bench.suites, bench.plot; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_suite_without_its_library_says_so(monkeypatch, capsys):
    monkeypatch.setitem(SUITES, "spine", "no_such_library.suite:run")
    assert main(["spine"]) == 2
    assert "spine needs no_such_library" in capsys.readouterr().err


TWO_INPUTS = """
cell: Two
features: size
units: size
x: input[features]
y: input[units]
h: state[units]
W: weight[features, units] = glorot_uniform
h[t] = h[t-1] + x[t] @ W + y[t]
return h[t]
"""


def test_a_users_cell_has_to_be_drivable(tmp_path):
    file = tmp_path / "two.rnn"
    file.write_text(TWO_INPUTS)
    with pytest.raises(CaseError, match="one input"):
        check_drivable(str(file))
    assert check_drivable("indrnn") == "indrnn"


# ---- what is shown and written ---------------------------------------------------------------


def test_json_of_a_result():
    found = json.loads(json.dumps(a_result().as_json()))
    keys = {"suite", "machine", "roofline", "races", "timings", "fits", "bars", "notes", "failures"}
    assert set(found) == keys
    race = found["races"][0]
    assert race["best_peer"] == "torch" and race["speedup"] == pytest.approx(2.0)
    assert race["case"]["cell"] == "lstm" and race["floor_ms"] > 0
    ours = race["timings"][0]
    assert ours["median_ms"] == pytest.approx(1.0)
    assert ours["roofline"] == pytest.approx(race["floor_ms"])
    assert [b["passed"] for b in found["bars"]] == [True, False, None]
    assert "numpy" in found["machine"]["packages"]


def test_tables_name_the_best_peer_and_the_verdicts():
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    a_result().show(console)
    text = console.export_text()
    for word in ("torch", "2.00", "MISS", "pass", "skipped", "a note", "FMA 1 GFLOP/s"):
        assert word in text


@pytest.mark.parametrize(
    "result",
    [
        a_result(),
        replace(a_result(), fits=[]),
        Result("compile", bars=[Bar("cold", 5.0, 4.0, "s"), Bar("other", 0.0, 0.0)]),
        Result("empty"),
    ],
    ids=["growth", "times", "bars", "nothing"],
)
def test_pictures(result, tmp_path):
    pytest.importorskip("matplotlib")
    outputs.write("--plot", tmp_path / "a.png", plot.picture(result, "png"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_markdown_replaces_its_own_section_alone():
    first = with_sections("# Figures\n", [a_result()], date(2026, 1, 2))
    assert "| LSTM forward (2, 3, 8, 8) | 1 (1-1) |" in first and "**2**" in first
    assert "quick | 2 x | >= 1 x | pass" in first
    again = with_sections(first + "\nThe end.\n", [a_result()], date(2027, 1, 2))
    assert again.count("### latency") == 1 and "2027-01-02" in again and "2026-01-02" not in again
    assert again.startswith("# Figures") and again.endswith("The end.\n")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    path.write_text("old")

    def broken(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(BenchError, match="No space left"):
        outputs.write("--json", path, b"new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["latncy"], "no suite is called 'latncy': did you mean latency?"),
        (["zzz"], "there are latency, inference"),
        (["tiny", "--json", "{folder}"], "a folder; it takes a file's name"),
        (["tiny", "--json", "{folder}/no/out.json"], "there is no folder"),
        (["tiny", "--markdown", "{folder}/no/out.md"], "there is no folder"),
        (["tiny", "--only", "tourch"], "no contender is called 'tourch'"),
        (["spine", "--only", "torch"], "--only goes with latency, inference"),
        (["tiny", "--cap", "3"], "--cap goes with the suite deepbench, not tiny"),
        (["tiny", "--spec", "my.rnn"], "--spec goes with the suite custom, not tiny"),
        (["custom", "--spec", "nothing.rnn"], "nothing.rnn can't be read"),
        (["deepbench", "--cap", "0"], "--cap takes seconds above zero"),
    ],
)
def test_mistakes_end_in_one_message(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bench.races_suite.limits", lambda effort: LIMITS)
    assert main([a.format(folder=tmp_path) for a in arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_plots_are_refused_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    assert main(["tiny", "--plot", str(tmp_path / "a.xyz")]) == 2
    assert "a name that ends in one of" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert main(["tiny", "--plot", str(tmp_path / "a.png")]) == 2
    assert "--plot needs matplotlib: pip install 'rnncc[bench]'" in capsys.readouterr().err


def test_the_command_from_end_to_end(tmp_path, monkeypatch, capsys):
    suite = Suite(
        (Race(Case("lstm", FORWARD, *SMALL), ("numpy", "torch"), "g", quick=True),),
        (Demand("faster", "g", "speedup", 1e9),),
    )
    monkeypatch.setitem(SUITES, "inference", suite)
    monkeypatch.setattr("bench.races_suite.limits", lambda effort: LIMITS)
    json_file, text_file = tmp_path / "out.json", tmp_path / "out.md"
    command = ["inference", "--quick", "--only", "numpy", "--strict"]
    written = ["--json", str(json_file), "--markdown", str(text_file)]
    assert main([*command, *written]) == 1  # --strict: the bar can't be reached
    (found,) = json.loads(json_file.read_text())
    assert [t["contender"] for t in found["races"][0]["timings"]] == ["rnncc", "numpy"]
    assert "### inference" in text_file.read_text()
    assert "MISS" in capsys.readouterr().out
