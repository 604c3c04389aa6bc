"""What a GPU computes, against float64: cells in their tiers, products and tiles, barriers.

Non-Goals: order, processes (`suite`, `worker`); times of layers (`timing`).
"""

from __future__ import annotations

import math
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import rnncc
from rnncc.cli.check import Probe
from rnncc.cli.probe import probe_sizes
from rnncc.cli.settings import load
from rnncc.runtime.common.precision import PRECISIONS
from rnncc.runtime.cuda.driver.current_target import current
from rnncc.runtime.cuda.driver.target import CudaTarget, HostArrays
from rnncc.runtime.cuda.kernels.gemm_tiles import Contraction, TileOperand, contract, launch_of
from rnncc.runtime.cuda.kernels.kernel import RANGES, kernel
from rnncc.runtime.cuda.kernels.kernel_namespace import level_barrier
from rnncc.runtime.cuda.kernels.matmuls import Work
from rnncc.runtime.cuda.planning.gemm_choice import bulk_of

BARRIERS = 2000
BULK = (1536, 1024, 512)  # m, n, k
FMA_LANES = 128  # float32 multiply-adds of a multiprocessor a cycle
PACKAGES = (
    *("rnncc", "numpy", "numba", "llvmlite", "numba-cuda", "cuda-bindings", "cuda-pathfinder"),
    *("cuda-toolkit", "nvidia-cublas", "nvidia-nvjitlink", "nvidia-nvvm", "nvidia-cuda-nvrtc"),
    *("torch", "nvidia-cudnn-cu13", "cupy-cuda13x", "triton"),
)


def installed() -> dict[str, Any]:
    """Packages by name; what is asked before anything can fail."""
    return {"python": sys.version.split()[0], **{p: _version(p) for p in PACKAGES}}


def look() -> dict[str, Any]:
    """The device; one launch has come back."""
    target: Any = current()
    clock = target.attribute("CLOCK_RATE") * 1e3
    counter = HostArrays(target).empty(256)
    words = np.array([0, 1, 0, 1, counter.address, 1], np.int64)
    began = time.perf_counter()
    target.launch(barriers, "float32", 1, 32, words)
    target.download(counter.address, np.zeros(1, np.int64))
    found: dict[str, Any] = {
        "name": target.name,
        "capability": list(target.capability),
        "multiprocessors": target.gpu.multiprocessors,
        "resident": target.gpu.resident,
        "library": target.gpu.library or target.gpu.no_library,
        "peak": 2.0 * FMA_LANES * target.gpu.multiprocessors * clock or math.nan,
        "first launch": time.perf_counter() - began,
        "driver": target.driver_version(),
    }
    if target.gpu.library:
        target.enter()
        try:
            found["library"] = f"cuBLAS {target.cublas.version()}"
        except RuntimeError as error:
            found["library"] = str(error)
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# ---- cells -----------------------------------------------------------------------------------


@cache
def probe_of(cell: str, masked: bool, units: int = 0) -> Probe:
    """units: so many, instead of few."""
    settings = load(cell, [])
    sizes = probe_sizes(settings)
    if units:
        sizes["units"] = units
    return Probe(settings, sizes, "float32", masked=masked, target="cuda")


def cell_error(cell: str, tier: str, masked: bool = False, units: int = 0) -> dict[str, Any]:
    """The largest error of values and gradients, float32, and whose; or why there is no such
    tier."""
    probe = probe_of(cell, masked, units)
    engine: Any = probe.layer._engine(False, masked)[1]
    engine.use_tier(tier)
    try:
        found = [*probe.values(), *probe.gradients()]
    except ValueError as error:
        if "no tier" not in str(error):
            raise
        return {"no tier": str(error)}
    finally:
        engine.use_tier(None)
    worst = max(found, key=lambda f: f.error if f.error == f.error else np.inf)
    return {"error": worst.error, "whose": f"{worst.what} {worst.array}"}


# ---- graphs ----------------------------------------------------------------------------------


def graph_errors() -> dict[str, Any]:
    """Calls that are captured and replayed against those before: how far apart, and how they were
    launched. One memory holds other numbers at every call, whose states each reads anew."""
    found = {}
    layer = rnncc.compile("gru", target="cuda")(units=256, return_sequences=True, seed=3)
    engine: Any = layer._engine(False, False)[1]
    inputs = np.random.default_rng(5).standard_normal((6, 4, 24, 256), "float32")
    for tier in ("stationary", "grid", "launches"):
        engine.use_tier(tier)
        engine.use_graphs(False)
        right = [layer(x) for x in inputs]
        engine.use_graphs(True)
        again = [layer(x) for x in inputs]
        error = max(float(np.abs(a - b).max()) for a, b in zip(again, right, strict=True))
        found[tier] = {"error": error, "said": engine.plan().splitlines()[-2].strip()}
    engine.use_tier(None)
    return found


# ---- products --------------------------------------------------------------------------------


def bulk_errors() -> dict[str, Any]:
    """One product by tiles, and by the library in each precision: error, and seconds."""
    target, (m, n, k) = current(), BULK
    carrier = HostArrays(target)
    rng = np.random.default_rng(0)
    a, w = rng.standard_normal((m, k), "float32"), rng.standard_normal((k, n), "float32")
    right = a.astype(float) @ w
    pieces = [carrier.enter(x, np.dtype("float32"))[0] for x in (a, w)]
    out = carrier.empty(4 * m * n)
    points: dict[Any, int] = {"a": pieces[0].address, "w": pieces[1].address, "out": out.address}
    c = Contraction(
        TileOperand("a", 0, (0, 4 * k), (0, 4)),
        TileOperand("w", 0, k=(0, 4 * n), n=4),
        TileOperand("out", 0, (0, 4 * n), n=4),
        (m, n, k),
        m,
        k,
    )

    def tiled() -> None:
        made = launch_of(c, 4, target.gpu.multiprocessors)
        words = np.array([0, 1, 0, 1, *made.words], np.int64)
        for i, point, at in made.patches:
            words[RANGES + i] = points.get(point, 0) + at
        shared = 4 * made.shared
        target.launch(contract, "float32", made.blocks, 256, words, shared=shared)

    def library(precision: str) -> None:
        (work,) = bulk_of([c], target.gpu, 4, precision).pieces
        assert isinstance(work, Work), "a plain product"
        x = work.multiply
        left, right, to = (points[point] + at for point, at in (x.left, x.right, x.out))
        target.multiply(x.product, (left, right, to), "float32", precision)

    runs: dict[str, Any] = {"tiles": tiled}
    if target.gpu.library:
        runs |= {p: lambda p=p: library(p) for p in PRECISIONS}
    found = {}
    for name, run in runs.items():
        times = []
        for _ in range(4):
            got = np.empty((m, n), "float32")
            target.download(out.address, got)  # everything before is done
            began = time.perf_counter()
            run()
            target.download(out.address, np.zeros(1, "float32"))
            times.append(time.perf_counter() - began)
        target.download(out.address, got)
        error = float(np.abs(got - right).max() / np.abs(right).max())
        found[name] = {"error": error, "seconds": min(times)}
    return found


# ---- barriers --------------------------------------------------------------------------------


@kernel
def barriers(step_lo, step_hi, level_lo, level_hi, counter, waiting):
    for generation in range(step_lo + 1, step_hi + 1):
        level_barrier(counter, waiting, generation)


def barrier_seconds(blocks: int, count: int = BARRIERS) -> float:
    """Of one barrier among so many blocks."""
    target: CudaTarget = current()
    carrier = HostArrays(target)
    counter, times = carrier.empty(256), []
    for _ in range(4):
        target.clear(counter, 256)
        target.download(counter.address, np.zeros(1, np.int64))  # everything before is done
        words = np.array([0, count, 0, 1, counter.address, blocks], np.int64)
        began = time.perf_counter()
        threads = target.gpu.threads
        target.launch(barriers, "float32", blocks, threads, words, cooperative=True)
        target.download(counter.address, np.zeros(1, np.int64))
        times.append(time.perf_counter() - began)
    return min(times) / count
