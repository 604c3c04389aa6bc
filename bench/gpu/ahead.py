"""`python -m bench.gpu.ahead`: kernels of `bench gpu` into the store, where there is no GPU.

    RNNCC_CACHE=FOLDER python -m bench.gpu.ahead [--multiprocessors N] [--capability 9.0] [--jobs N]

All that `bench gpu --check` checks and times is gone through on a device that compiles what it is
asked to launch, and launches nothing. A machine with a GPU that then has FOLDER, and the same
sources, needs no compiler: neither numba-cuda nor NVIDIA's toolkit; its minutes are for measuring.

Non-Goals: results, which are zeros.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.gpu.worker import Task, handle
from rnncc.artifact.grid_sync import Gpu
from rnncc.runtime.cuda.driver.current_target import using
from rnncc.runtime.cuda.driver.target import DeviceMemory, HostArrays
from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from rnncc.runtime.cuda.kernels.machine_code_cache import machine_code

H100 = Gpu("a GPU to come", 132, 132, shared=227 * 1024, library="cuBLAS")


class Compiling:
    """A `Target` that compiles kernels; memory is the host's, and zero."""

    def __init__(self, gpu: Gpu = H100, capability: tuple[int, int] = (9, 0)) -> None:
        self.gpu, self.capability = gpu, capability
        self.name, self.kernels = gpu.name, set[tuple[CudaKernel, str]]()
        self.cublas = SimpleNamespace(version=lambda: "none")

    def enter(self) -> None:
        pass

    def attribute(self, name: str) -> int:
        return 1

    def driver_version(self) -> str:
        return "none"

    def empty(self, size: int, stream: Any = None) -> DeviceMemory:
        array = np.zeros(max(size, 1), np.uint8)
        return DeviceMemory(array.ctypes.data, array)

    def upload(self, array: np.ndarray, stream: Any = None) -> DeviceMemory:
        return DeviceMemory(array.ctypes.data, array)

    def clear(self, piece: DeviceMemory, size: int, stream: Any = None) -> None:
        pass

    def download(self, address: int, array: np.ndarray, stream: Any = None) -> None:
        array[...] = 0

    def zeros(self, size: int) -> DeviceMemory:
        return self.empty(size)

    def ones(self, dtype: str, count: int = 1) -> DeviceMemory:
        return self.empty(count * np.dtype(dtype).itemsize)

    def multiply(self, *_: Any, **__: Any) -> None:
        pass

    def is_capturing(self, stream: Any) -> bool:
        return True

    def captured(self, run: Any, stream: Any) -> Any:
        raise RuntimeError("nothing is launched here")

    def resident(self, kernel: CudaKernel, dtype: str, threads: int, shared: int) -> int:
        self.launch(kernel, dtype)
        return self.gpu.resident

    def launch(self, kernel: CudaKernel, dtype: str, *_: Any, **__: Any) -> None:
        if (kernel, dtype) not in self.kernels:
            machine_code(kernel, dtype, self.capability)
            self.kernels.add((kernel, dtype))


@contextmanager
def compiling(target: Compiling) -> Iterator[None]:
    """Layers of this process, and torch's modules with tensors of the CPU, run there."""
    with using(target):  # type: ignore[arg-type]
        try:
            import torch  # noqa: F401
        except ImportError:
            yield
            return
        from rnncc.torch import on_device, recurrence

        kept = recurrence.is_elsewhere, on_device.carrier_of
        recurrence.is_elsewhere = lambda tensor: True  # type: ignore[attr-defined]
        on_device.carrier_of = lambda tensor: _Tensors(target)  # type: ignore[assignment,arg-type,return-value]
        try:
            yield
        finally:
            recurrence.is_elsewhere, on_device.carrier_of = kept  # type: ignore[attr-defined]


class _Tensors(HostArrays):
    """Tensors in, tensors out."""

    copies = False

    def enter(self, array: Any, dtype: Any, lead: int = 0) -> Any:
        array = array.detach().numpy() if hasattr(array, "detach") else array
        return super().enter(array, dtype, lead)

    def leave(self, piece: DeviceMemory, shape: Any, dtype: Any, out: Any = None) -> Any:
        import torch

        found = torch.from_numpy(super().leave(piece, shape, dtype))
        return found if out is None else out.copy_(found)


def compiled(
    task: Task, gpu: Gpu, capability: tuple[int, int]
) -> tuple[str, float, dict[str, Any]]:
    """A task gone through: what it is, seconds, and what came of it."""
    began = time.perf_counter()
    with compiling(Compiling(gpu, capability)):
        found = handle({**task, "device": "ahead"})
    return str(task), time.perf_counter() - began, found


def main(argv: Sequence[str] | None = None) -> int:
    from bench.gpu.ready import to_do
    from rnncc.cli.settings import builtin_cells

    parser = argparse.ArgumentParser("python -m bench.gpu.ahead")
    parser.add_argument("--multiprocessors", type=int, default=H100.multiprocessors)
    parser.add_argument("--shared", type=int, default=H100.shared, help="bytes of a block")
    parser.add_argument("--capability", default="9.0")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("cells", nargs="*", help="these alone, and nothing that is timed")
    asked = parser.parse_args(argv)
    n = asked.multiprocessors
    gpu = replace(H100, multiprocessors=n, resident=n, shared=asked.shared)
    major, minor = (int(x) for x in asked.capability.split("."))
    checks, warm = to_do(asked.cells or builtin_cells())
    tasks: list[Task] = [t for job in checks for t in job] + [*warm] * (not asked.cells)
    tasks += [{"do": "look"}, {"do": "bulk"}, {"do": "graph"}, {"do": "arrays"}] * (not asked.cells)
    failed = 0
    with ProcessPoolExecutor(asked.jobs) as pool:
        run = partial(compiled, gpu=gpu, capability=(major, minor))
        for at, (what, seconds, found) in enumerate(pool.map(run, tasks), 1):
            wrong = found.get("failed", "")
            failed += bool(wrong)
            print(f"{at}/{len(tasks)} {what}: {seconds:.1f} s {wrong}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
