"""`python -m bench gpu` where there is no GPU: its cases, its parent, its tasks, on stand-ins.

Non-Goals: times.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from rich.console import Console

from bench.gpu import ahead as gpu_ahead
from bench.gpu import check as gpu_check
from bench.gpu import ready as gpu_ready
from bench.gpu import session as gpu_session
from bench.gpu import suite as gpu_suite
from bench.gpu import worker as gpu_worker
from bench.gpu.cases import Case, cases
from bench.gpu.session import Session
from bench.gpu.worker import Lost, Worker, handle
from bench.harness import Effort
from rnncc.artifact.grid_sync import TIERS
from rnncc.runtime.cuda.driver.current_target import using
from rnncc.runtime.cuda.driver.device import Device as NvidiaDevice
from tests.support.gpu_simulator.fake_driver import FakeDriver, driver_on_a_grid  # noqa: F401
from tests.support.gpu_simulator.grid import Simulator


class Device(Simulator):
    """With what `look` asks a device."""

    name, capability = "a simulated grid", (9, 0)

    def attribute(self, name: str) -> int:
        return {"CLOCK_RATE": 1_000_000}[name]

    def driver_version(self) -> str:
        return "13.0"


SMALL = [
    Case("bars", "LSTM", 2, 3, 8, False),
    Case("bars", "GRU", 2, 3, 8, True),
    Case("custom", "light_gru", 2, 3, 8, True, compiled=True),
    Case("options", "lstm", 2, 3, 8, False, "mask"),
    Case("tiers", "LSTM", 2, 3, 8, False),
]
LOOKED = {
    "name": "a GPU",
    "capability": [9, 0],
    "multiprocessors": 8,
    "peak": 1e12,
    "library": "cuBLAS 13",
    "driver": "13.0",
    "first launch": 1.0,
}
ARRAYS = {"CuPy": {"why": "ModuleNotFoundError"}, "torch": {"error": 1e-7}, "x": {"error": 1.0}}
GRAPHS = {"grid": {"error": 0.0, "said": "9 launches a call, as a CUDA graph"}}
BULK = {"tiles": {"error": 1e-6, "seconds": 1e-3}, "tf32": {"error": 1e-3, "seconds": 1e-4}}


class Answers:
    """A worker whose device is this process's CPU."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def ask(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
        self.asked.append(task)
        match task["do"]:
            case "look":
                return LOOKED
            case "bulk":
                return BULK
            case "graph":
                return GRAPHS
            case "arrays":
                return ARRAYS
            case "barrier":
                return {"seconds": 1e-6}
            case "check":
                return self.check(task)
        return handle({**task, "device": "cpu"})

    def check(self, task: dict[str, Any]) -> dict[str, Any]:
        if task["tier"] == "grid":
            raise Lost("no answer in time: it hangs")
        if task["tier"] == "stationary":
            return {"no tier": "no tier stationary: so it is"}
        if task["tier"] == "launches":
            return {"failed": "CudaError: an illegal address", "where": "device.py:1"}
        return {"error": math.nan if task["cell"] == "gru" else 1e-6, "whose": "values h"}

    def end(self) -> str:
        return ""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    for module in (gpu_ready, gpu_suite):
        monkeypatch.setattr(module, "cases", lambda: iter(SMALL))
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)


@pytest.mark.slow
def test_a_run(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is said, and the rest goes on."""
    monkeypatch.setattr("bench.gpu.timing.SECONDS", 0.0)
    said: list[str] = []
    kept: list[str] = []
    effort = Effort(report=said.append, partial=lambda r: kept.append(json.dumps(r.as_json())))
    session = Session(effort, worker=Answers, cells=("lstm", "gru"))
    result = gpu_suite.gpu_suite(effort, session)
    assert len(kept) == 6 + 1 + len(SMALL), "after each check, after all of them, after each case"
    assert [*result.timings] == [c.label for c in SMALL], said
    assert all(t[0].contender in ("rnncc", "as chosen") for t in result.timings.values())
    bars = {b.what: b for b in result.bars}
    assert bars["tier block against float64, 6 cells, worst gru"].passed is False
    assert "LSTM forward (2, 3, 8) against cuDNN float32" in bars
    assert "light_gru training (2, 3, 8) quicker than a torch loop" in bars
    assert "light_gru training (2, 3, 8) quicker than a loop of torch.compile" in bars
    assert "light_gru training (2, 3, 8) per FLOP of our LSTM" in bars
    assert "lstm mask forward (2, 3, 8) against without mask" in bars
    assert result.timings[SMALL[1].label][0].error < 1e-5, "ours is torch's GRU"
    failed = "\n".join(result.failures)
    assert "arrays, x: off by 1.0e+00" in failed
    assert {"arrays, CuPy: ModuleNotFoundError", "arrays, torch: right, 1.0e-07"} <= {*result.notes}
    assert "lstm grid: no answer in time: it hangs" in failed
    assert "lstm launches: CudaError: an illegal address (device.py:1)" in failed
    assert "gru block: off by nan" in failed
    assert any("lstm stationary: no tier" in line for line in said)
    assert any("a barrier of 128 blocks: 1.00 us" in n for n in result.notes)
    result.show(Console(width=160, quiet=True))


def test_loops_agree_with_ours(small: None) -> None:
    """The text that is raced against is the same cell."""
    for case in SMALL:
        if case.kind == "custom":
            found = handle({"do": "time", "case": case.as_json(), "device": "cpu"})
            errors = {t["name"]: t["error"] for t in found["timings"]}
            assert errors["rnncc"] < 1e-5 and errors["torch.compile"] < 1e-5


def test_time_is_up(small: None) -> None:
    session = Session(Effort(), worker=Answers, cells=("lstm",))
    session.began -= 60 * gpu_session.MINUTES
    result = gpu_suite.gpu_suite(session.effort, session)
    assert not result.timings
    assert f"{len(SMALL)} sizes were left out when the time was up" in result.notes
    assert any(n.startswith("not checked, for want of time: lstm block") for n in result.notes)


def test_no_gpu() -> None:
    class Nobody(Answers):
        def ask(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
            return {"failed": "rnncc.common.machine.Missing: no driver here"}

    session = Session(Effort(), worker=Nobody)
    result = gpu_suite.gpu_suite(session.effort, session)
    assert result.notes[0].startswith("python 3.")
    assert result.notes[1:] == ["nothing has run and nothing has been timed: no driver here"]
    assert all(bar.passed is None for bar in result.bars) and not result.failures


def test_ours_has_failed_and_graphs_are_wrong(small: None) -> None:
    """A contender's failure is a note; ours is a failure, and after a few of them nothing waits."""

    class Failing(Answers):
        def ask(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
            if task["do"] == "graph":
                return {"grid": {"error": math.nan, "said": "9 launches a call, as a CUDA graph"}}
            if task["do"] != "time":
                return super().ask(task, seconds)
            each = {"error": 0.0, "times": [], "why": "CudaError: no"}
            names = ("rnncc", "torch float32")
            return {"timings": [{"name": n, **each} for n in names], "weights": 1, "plan": ""}

    session = Session(Effort(), worker=Failing, cells=("lstm",))
    result = gpu_suite.gpu_suite(session.effort, session)
    assert "graphs, tier grid: other results than of the same launches" in result.failures
    assert f"{SMALL[0].label}: CudaError: no" in result.failures
    assert f"{SMALL[0].label}: torch float32: CudaError: no" in result.notes


def test_an_answer_that_nobody_expects(small: None) -> None:
    class Odd(Answers):
        def ask(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
            return super().ask(task, seconds) if task["do"] == "look" else {"odd": 1}

    session = Session(Effort(), worker=Odd, cells=("lstm",))
    failed = "\n".join(gpu_suite.gpu_suite(session.effort, session).failures)
    for what in ("'tier': 'grid'", "costs", *(c.label for c in SMALL)):
        assert what in failed


def test_every_case_on_a_gpu_that_only_compiles(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of torch and of ours where there are tiers and precisions; zeros come back."""
    made: list[str] = []
    monkeypatch.setattr(gpu_ahead, "machine_code", lambda kernel, *_: made.append(kernel.name))
    monkeypatch.setattr("bench.gpu.timing.SECONDS", 0.0)
    checks, warm = gpu_ready.to_do(["gru"])
    assert len(warm) == len(SMALL)
    with gpu_ahead.compiling(gpu_ahead.Compiling()):
        for task in [*checks[0], *warm, {"do": "look"}, {"do": "graph"}]:
            found = handle({**task, "device": "ahead"})
            assert "failed" not in found or "no tier" in found["failed"], found
        kinds = {}
        for case in SMALL:
            found = handle({"do": "time", "case": case.as_json(), "device": "ahead"})
            assert "failed" not in found, found
            kinds[case.kind] = {t["name"]: t["why"] for t in found["timings"]}
    assert {"forward_scan", "forward_scan_stationary", "barriers", "move"} <= {*made}
    assert {*kinds["bars"]} >= {"torch float32", "rnncc", "rnncc tf32", "rnncc without graphs"}
    assert {*kinds["tiers"]} >= {"as chosen", *TIERS, "without graphs"}
    assert not any(why for names in kinds.values() for why in names.values()), kinds


def test_what_is_held_against_the_library(small: None) -> None:
    """Outputs, the input's gradient and all the weights'."""
    from bench.gpu.timing import Where, built_in

    contenders, _ = built_in(SMALL[1], Where("cpu"))
    parts = [c.call() for c in contenders[:2]]
    assert [[*p.shape] for p in parts[0]] == [[*p.shape] for p in parts[1]]
    assert len(parts[0]) == 2 + 4


def test_cases_come_once_and_the_bars_first() -> None:
    found = [*cases()]
    assert found[0].kind == "bars" and found[-1].kind == "grid"
    timed = [(c.cell, c.batch, c.time, c.units, c.training) for c in found if c.kind != "tiers"]
    plain = [t for t in timed if t[0] in ("LSTM", "GRU")]
    assert len(plain) == len(set(plain)) == 2 * 2 * 2 * 6 * 7
    assert Case(**found[0].as_json()) == found[0]


# ---- tasks -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "BULK", (33, 20, 18))
    monkeypatch.setattr(gpu_check, "BARRIERS", 3)
    gpu_check.probe_of.cache_clear()
    with using(Device(seed=1, multiprocessors=8, threads=256, library="NumPy")):
        assert handle({"do": "bulk"})["tiles"]["error"] < 1e-6
        found = {t: handle({"do": "bulk"})[t]["error"] for t in ("float32", "tf32", "bfloat16")}
        assert found["float32"] < 1e-6 < found["tf32"] < found["bfloat16"] < 1e-1
    with using(Device(seed=1, multiprocessors=8, threads=64)):
        assert "NumPy" not in handle({"do": "look"})["library"]
        assert gpu_check.barrier_seconds(3, count=4) > 0
        errors = [handle({"do": "check", "cell": "simple_rnn", "tier": t}) for t in TIERS]
        assert all(e["error"] < gpu_ready.ERROR for e in errors)
        assert "no tier" in handle({"do": "check", "cell": "indrnn", "tier": "stationary"})
        assert handle({"do": "check", "cell": "none", "tier": "grid"})["failed"]
    gpu_check.probe_of.cache_clear()


def test_the_first_launch_through_the_driver(driver: FakeDriver) -> None:
    with using(NvidiaDevice()):
        found = handle({"do": "look"})
        assert not gpu_worker.broken()
    assert found["name"] == "A fake GPU" and found["driver"] == "13.0", found
    driver.attributes["CLOCK_RATE"] = 0  # what some say who don't tell
    with using(NvidiaDevice()):
        assert math.isnan(handle({"do": "look"})["peak"])


def test_a_worker_answers_and_can_be_lost() -> None:
    worker = Worker()
    try:
        assert "no task is called 'sing'" in worker.ask({"do": "sing"}, 60)["failed"]
        assert worker.process is not None
        worker.process.kill()
        with pytest.raises(Lost, match="the process ended"):
            worker.ask({"do": "sing"}, 60)
        assert "failed" in worker.ask({"do": "sing"}, 60), "begun anew"
    finally:
        worker.end()
    assert gpu_worker.Worker().end() == ""


def test_a_worker_whose_device_is_broken_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel has done to a context stays there: every later call would fail."""

    class Broken:
        def enter(self) -> None:
            pass

        def ask(self, function: str) -> None:
            assert function == "cuCtxSynchronize"
            raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    with using(Broken()):  # type: ignore[arg-type]
        assert "CUDA_ERROR_ILLEGAL_ADDRESS" in gpu_worker.broken()
    worker = Worker()
    monkeypatch.setattr(gpu_worker, "COMMAND", ("-c", "input(); print('what?')"))
    with pytest.raises(Lost, match=r"no answer but 'what\?"):
        worker.ask({"do": "sing"}, 60)
    code = """for line in __import__('sys').stdin: print('{"broken": "it"}', flush=True)"""
    monkeypatch.setattr(gpu_worker, "COMMAND", ("-c", code))
    try:
        assert worker.ask({"do": "sing"}, 60) == {"broken": "it"}
        assert worker.process is None
    finally:
        worker.end()


def test_a_hanging_worker_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    try:
        worker.ask({"do": "sing"}, 60)
        process = worker.process
        assert process is not None and process.stdout is not None
        monkeypatch.setattr(worker, "answers", type(worker.answers)())
        with pytest.raises(Lost, match="no answer in time"):
            worker.ask({"do": "sing"}, 0)
        assert process.poll() is not None
    finally:
        worker.end()
