"""`Device` over a driver that is a simulated grid: what it asks of NVIDIA's driver, in what order,
and how it packs words. And what is said where there is no driver.

A real driver's own refusals can't be tried here.
"""

from __future__ import annotations

import gc

import numpy as np
import pytest

import rnncc
from rnncc.runtime.cuda.driver import device as devices
from rnncc.runtime.cuda.driver.current_target import using
from rnncc.runtime.cuda.driver.device import CudaError, Device
from rnncc.runtime.cuda.kernels.copies import move
from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from tests.support.gpu_simulator.fake_driver import (  # noqa: F401
    ATTRIBUTES,
    CAPTURING,
    FakeDriver,
    driver_on_a_grid,
)
from tests.support.gpu_simulator.twins import Twins
from tests.support.twins import LIMIT


@pytest.mark.parametrize("tier", ["block", "grid"])
def test_layers_through_the_driver(driver: FakeDriver, tier: str) -> None:
    twins = Twins.of("simple_rnn", "plain", (5, 3, 3, 3))
    error, whose = twins.worst(Device(), tier)  # type: ignore[arg-type]
    assert error <= LIMIT["float32"], (whose, error)
    assert ("cuLaunchCooperativeKernel" in driver.asked) == (tier == "grid")
    twins.layer._engine(False, False)[1]._forward.weights.clear()
    twins.layer._engine(False, False)[1]._backward.weights.clear()


def test_memory_is_given_back(driver: FakeDriver) -> None:
    layer = rnncc.compile("simple_rnn", target="cuda")(units=3, seed=1)
    x = np.zeros((2, 3, 2), "float32")
    with using(Device()):
        layer(x)
        kept = len(driver.live)
        layer(x)
        assert len(driver.live) == kept, "weights and zeros stay, nothing else"


def test_giving_back_leaves_the_threads_context(driver: FakeDriver) -> None:
    """What is let go lies on one device; the thread may be at work on another."""
    device = Device()
    piece = device.empty(64)
    assert driver.context == "context"
    driver.context = "another device's"
    del piece
    assert "cuMemFreeAsync" in driver.asked and driver.context == "another device's"


def test_machine_code_that_the_driver_refuses(driver: FakeDriver) -> None:
    """A store that another machine has filled: what is no good here is compiled again."""
    driver.refused.add(b"0")
    device = Device()
    device.function(move, "float32")
    assert len(driver.kernels) == 2 and driver.asked.count("cuModuleLoadData") == 2
    driver.refused |= {b"2", b"3"}
    with pytest.raises(CudaError, match="cuModuleLoadData: CUDA_ERROR_INVALID_IMAGE"):
        device.function(move, "float64")


def test_kernels_that_nobody_has_leave_memory(driver: FakeDriver) -> None:
    """Their code stays on the device, for graphs that hold it, once."""
    device = Device()
    found = [device.function(CudaKernel(move.function), "float32")]
    driver.kernels.clear()
    gc.collect()
    assert not device.functions
    found.append(
        device.function(CudaKernel(move.function), "float32")
    )  # the same number, so the same
    assert found[0] == found[1] and driver.asked.count("cuModuleLoadData") == 1


@pytest.mark.parametrize("tier", ["grid", "launches"])
def test_launches_are_kept_as_graphs(driver: FakeDriver, tier: str) -> None:
    """The same memory again: one launch of all, on what the memory holds then."""
    layer = rnncc.compile("simple_rnn", target="cuda")(units=3, seed=1, return_sequences=True)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((2, 3, 2), "float32") for _ in range(6)]
    reference = rnncc.compile("simple_rnn")(units=3, seed=1, return_sequences=True)
    engine = layer._engine(False, False)[1]
    engine.use_tier(tier)
    with using(Device()):
        for x in inputs:
            np.testing.assert_allclose(layer(x), reference(x), atol=1e-6)
    assert driver.asked.count("cuGraphLaunch") >= 2
    assert "as a CUDA graph" in layer.plan()
    engine.use_tier(None)


def test_no_graphs(driver: FakeDriver) -> None:
    driver.no_graphs = True
    layer = rnncc.compile("simple_rnn", target="cuda")(units=3, seed=2)
    x = np.ones((2, 3, 2), "float32")
    with using(Device()):
        first = layer(x)
        for _ in range(5):
            np.testing.assert_array_equal(layer(x), first)
    assert "no CUDA graph (cuStreamBeginCapture: CUDA_ERROR_NOT_SUPPORTED" in layer.plan()


def test_blocks_that_do_not_fit_are_refused(driver: FakeDriver) -> None:
    driver.fits = 0
    twins = Twins.of("simple_rnn", "plain", (5, 3, 2, 3))
    with pytest.raises(RuntimeError, match="wait for each other, but only 0 fit"):
        twins.worst(Device(), "grid")  # type: ignore[arg-type]


def test_out_of_memory(driver: FakeDriver) -> None:
    with pytest.raises(MemoryError, match=r"1024 of 8192 MiB are free.*checkpoint_every"):
        Device().empty(1 << 41)


def test_old_devices_are_refused(driver: FakeDriver) -> None:
    driver.attributes |= {"COMPUTE_CAPABILITY_MAJOR": 6, "COMPUTE_CAPABILITY_MINOR": 1}
    with pytest.raises(RuntimeError, match=r"A fake GPU has compute capability 6.1: .* 7.0"):
        Device()


def test_no_device_of_that_number(driver: FakeDriver) -> None:
    with pytest.raises(RuntimeError, match="no CUDA device 3: the driver sees 1"):
        Device(3)


def test_no_driver() -> None:
    """Whatever is missing here is said, with what to do."""
    try:
        devices._driver()
    except RuntimeError as error:
        assert "target='cpu'" in str(error) or "rnncc[cuda]" in str(error)
    else:
        pytest.skip("there is a driver here")
