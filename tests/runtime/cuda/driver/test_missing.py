"""What a machine lacks, or has too little of: each ends in one clear message, or in the next tier.

Non-Goals: refusals that `test_device` has (old devices, memory, blocks asked for that don't fit).
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.artifact import grid_sync
from rnncc.common.machine import Missing
from rnncc.runtime.cuda.driver import current_target
from rnncc.runtime.cuda.driver import device as devices
from rnncc.runtime.cuda.driver.device import CudaError, Device, DeviceGraph
from rnncc.runtime.cuda.kernels import ptx, toolkit
from rnncc.runtime.cuda.kernels.copies import move
from rnncc.runtime.cuda.kernels.machine_code_cache import machine_code
from tests.support.gpu_simulator.fake_driver import FakeDriver, driver_on_a_grid  # noqa: F401
from tests.support.gpu_simulator.grid import Simulator
from tests.support.gpu_simulator.twins import Twins
from tests.support.twins import LIMIT

# ---- nothing to run on, nothing to compile with ------------------------------------------------


def bindings(monkeypatch: pytest.MonkeyPatch, fake: Any) -> None:
    """NVIDIA's bindings with this driver behind them."""
    package = SimpleNamespace(driver=fake)
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(bindings=package))
    monkeypatch.setitem(sys.modules, "cuda.bindings", package)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", fake)
    devices.device.cache_clear()


def test_no_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(Missing, match=r"needs numba-cuda .*: pip install 'rnncc\[cuda\]'"):
        devices._driver()


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def cuInit(flags: int) -> Any:
        raise RuntimeError("Failure finding libcuda.so")

    bindings(monkeypatch, SimpleNamespace(cuInit=cuInit))
    layer = rnncc.compile("simple_rnn", target="cuda")(units=3)
    with pytest.raises(Missing, match=r"no NVIDIA driver on this machine .* use target='cpu'"):
        layer(np.zeros((1, 2, 3), "float32"))


def test_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Status(int):
        name = "CUDA_ERROR_NO_DEVICE"

    bindings(monkeypatch, SimpleNamespace(cuInit=lambda flags: (Status(100),)))
    with pytest.raises(Missing, match=r"no usable GPU: cuInit says CUDA_ERROR_NO_DEVICE"):
        current_target.current()


@pytest.mark.parametrize("kind", ["import", "library"])
def test_no_toolkit(monkeypatch: pytest.MonkeyPatch, fresh_store: Any, kind: str) -> None:
    class DynamicLibNotFoundError(RuntimeError):
        """As cuda-pathfinder names it."""

    def compiled(*_: Any) -> str:
        if kind == "import":
            raise ImportError("No module named 'numba.cuda.types'")
        raise DynamicLibNotFoundError("No such file: libnvrtc.so.13\nlistdir ...")

    monkeypatch.setattr(ptx, "ptx", compiled)
    with pytest.raises(Missing, match=r"part of them is missing \(No .*\): pip install"):
        machine_code(move, "float32", (9, 0))


def test_mistakes_of_our_own_are_none_of_that(
    monkeypatch: pytest.MonkeyPatch, fresh_store: Any
) -> None:
    def compiled(*_: Any) -> str:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ptx, "ptx", compiled)
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        machine_code(move, "float32", (9, 0))


def test_code_of_another_machine(monkeypatch: pytest.MonkeyPatch, fresh_store: Any) -> None:
    """A store that was filled where there is a compiler serves where there is none."""
    monkeypatch.setattr(ptx, "ptx", lambda *_: ".visible .entry told(")
    monkeypatch.setattr(ptx, "can_assemble", lambda: False)
    made = machine_code(move, "float32", (9, 0))
    assert made == ("told", b".visible .entry told(\0")
    monkeypatch.setattr(ptx, "ptx", None)
    monkeypatch.setattr("importlib.metadata.version", None)  # whatever is installed
    assert machine_code(move, "float32", (9, 0)) == made


def test_an_assembler_older_than_the_compiler(
    monkeypatch: pytest.MonkeyPatch, fresh_store: Any
) -> None:
    """The driver has an assembler, too."""

    class nvJitLinkError(Exception):
        pass

    def assemble(*_: Any) -> Any:
        raise nvJitLinkError("ERROR_PTX_COMPILE (4): Unsupported .version 9.1")

    monkeypatch.setattr(ptx, "ptx", lambda *_: ".visible .entry told(")
    monkeypatch.setattr(ptx, "can_assemble", lambda: True)
    monkeypatch.setattr(ptx, "assemble", assemble)
    assert machine_code(move, "float32", (9, 0))[1].startswith(b".visible")


@pytest.mark.parametrize("named", ["CUDA_HOME", "CUDA_PATH", ""])
def test_a_toolkit_that_no_variable_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    """Those who look for its libraries look where the variable says."""
    for part in ("bin", "nvvm"):
        (tmp_path / "toolkit" / part).mkdir(parents=True)
    compiler = tmp_path / "toolkit" / "bin" / "nvcc"
    compiler.touch(0o755)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("PATH", str(compiler.parent))
    if named:
        monkeypatch.setenv(named, "/elsewhere")
    before = dict(os.environ)
    with toolkit.named():
        expected = "/elsewhere" if named else str(tmp_path / "toolkit")
        assert os.environ[named or "CUDA_HOME"] == expected
        assert len(os.environ) == len(before) + (not named)
    assert dict(os.environ) == before


def test_compiling_names_the_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba.cuda.types", reason="numba-cuda isn't installed")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(toolkit, "folder", lambda: Path("/found"))
    monkeypatch.setattr(ptx, "_ptx", lambda *_: os.environ["CUDA_HOME"])
    assert ptx.ptx(move, "float32") == "/found"
    assert "CUDA_HOME" not in os.environ


def test_a_forked_process(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    piece, graph = device.empty(64), DeviceGraph(device, 0)
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    with pytest.raises(MemoryError):
        device.empty(1 << 41)
    driver.cuMemsetD8Async = lambda *_: driver.cuMemAllocAsync(1 << 41, 0)  # type: ignore[method-assign]
    with pytest.raises(CudaError, match=r"forked process can't use its parent's GPU.*'spawn'"):
        device.clear(piece, 64)
    live = len(driver.live)
    del piece, graph
    assert len(driver.live) == live, "a copy gave back what is the parent's"
    assert "cuGraphExecDestroy" not in driver.asked


# ---- blocks that wait for each other and don't fit -----------------------------------------------

SHAPE = (9, 6, 3, 4)


@pytest.fixture(params=[SHAPE])
def heavy(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Twins:
    """A layer whose loop is shared by blocks, small as it is."""
    monkeypatch.setattr(grid_sync, "BLOCK_WORK", 0)
    monkeypatch.setattr(grid_sync, "SHARE_WORK", 64)
    twins = Twins.of("gru", "plain", request.param)
    engine = twins.layer._engine(False, False)[1]
    for side in (engine._forward, engine._backward):
        side.made.clear()
    return twins


@pytest.mark.parametrize(
    ("fits", "said"),
    [
        (
            {},
            "tier stationary: 5 blocks of 2 warps share 9 lanes, 3 groups of them the batch; weig",
        ),
        ({"stationary": 11}, "tier stationary: 5 blocks of 2 warps .* 2 groups of them the batch"),
        (
            {"stationary": 4},
            "tier stationary: 3 blocks of 3 warps share 9 lanes; weights stay in r",
        ),
        ({"stationary": 2}, "tier grid: 2 blocks .*: 9 lanes need 3 blocks at once, 2 fit"),
        ({"stationary": 2, "grid": 3}, "tier grid: 2 blocks share 9 lanes;"),
        ({"stationary": 2, "grid": 1}, "tier launches: .* resident, and 1 of the loop would fit"),
        ({"stationary": 0, "grid": 0}, "tier launches"),
    ],
)
def test_the_next_tier(heavy: Twins, fits: dict[str, int], said: str) -> None:
    simulator = Simulator(seed=1, multiprocessors=16, threads=64)
    simulator.fits = fits
    error, whose = heavy.worst(simulator)
    assert error <= LIMIT["float32"], (whose, error)
    plan = heavy.layer.plan().split("backward:")[0]
    assert re.search(said, plan), plan
    together = [blocks for _, blocks, _, waits in simulator.launches if waits]
    assert bool(together) == ("launches" not in said)


@pytest.mark.parametrize("heavy", [(20, 2, 2, 3)], indirect=True)  # too wide for one block
def test_the_next_tier_through_the_driver(driver: FakeDriver, heavy: Twins) -> None:
    driver.fits = 0
    error, whose = heavy.worst(Device())  # type: ignore[arg-type]
    assert error <= LIMIT["float32"], (whose, error)
    assert "cuOccupancyMaxActiveBlocksPerMultiprocessor" in driver.asked
    assert "cuLaunchCooperativeKernel" not in driver.asked
    assert "tier launches" in heavy.layer.plan()


def test_too_large_for_the_chip() -> None:
    """Weights for which blocks have no room are read at every step, and the plan says why."""
    h200 = grid_sync.Gpu("H200", 132, 132, shared=227 * 1024)
    why = "weights of 16 warps take 512 KiB of a block, more than it has room for"
    found = grid_sync.choose(grid_sync.ScanWork(8, 2048, 16_777_216, 1, why_not=why), h200)
    assert found.name == "grid" and found.why.endswith(why)
