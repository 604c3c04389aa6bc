"""Kernels compiled together: the objects they have alone, and what becomes of errors."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.runtime.jit import batch
from rnncc.runtime.jit.batch import make_ready
from rnncc.runtime.jit.compiler import compile_function
from rnncc.runtime.jit.kernel import COMPILING, CpuKernel
from rnncc.runtime.jit.module_cache import text_module
from rnncc.runtime.jit.object_cache import find
from tests.support.launching import launch

MODULE = '''"""Three kernels, for tests."""

from rnncc.runtime.jit.kernel import kernel
from rnncc.runtime.cpu.intrinsics.kernel_namespace import set_word, word


@kernel
def double(block, part):
    set_word(block, part, 2 * word(block, part))


@kernel
def wrong(block, part):
    set_word(block, part, "a text")


@kernel
def least(block, part):
    set_word(block, part, max(min(word(block, part), 7), -3))
'''


@pytest.fixture
def module(fresh_store: Path) -> ModuleType:
    return text_module("batch", f"{MODULE}\n\n# {fresh_store}\n")


def run(kernel: CpuKernel, value: int) -> int:
    return int(launch(kernel.address, np.array([value], np.int64))[0])


def test_all_are_loaded_and_kept_with_the_objects_they_have_alone(module: ModuleType) -> None:
    kernels = [module.double, module.least, module.double]
    make_ready(kernels, "two")
    assert all(k.loaded and k.seconds > 0 for k in kernels)
    assert run(module.double, 21) == 42
    assert [run(module.least, n) for n in (-9, -3, 5, 9)] == [-3, -3, 5, 7]
    for kernel in kernels:
        assert find(kernel.function) == compile_function(kernel.function, kernel.signature)


def test_what_is_cached_is_not_compiled(module: ModuleType, monkeypatch: Any) -> None:
    make_ready([module.double], "one")
    module.double._code = None
    monkeypatch.setattr(batch, "_compile", lambda *_: pytest.fail("compiled again"))
    make_ready([module.double], "one")
    assert run(module.double, 4) == 8


@pytest.mark.parametrize("threads", [True, False])
def test_an_error_is_raised_and_nothing_is_left_behind(
    module: ModuleType, monkeypatch: Any, threads: bool
) -> None:
    if not threads:

        def none(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", none)
    interval = sys.getswitchinterval()
    with pytest.raises(Exception, match="Cannot cast"):
        make_ready([module.double, module.wrong, module.least], "three")
    assert gc.isenabled() and sys.getswitchinterval() == interval
    assert not module.least.loaded
    assert not [t for t in threading.enumerate() if t.name == "rnncc-llvm"]
    make_ready([module.double, module.least], "two")
    assert run(module.double, 21) == 42


def test_errors_of_the_thread_are_raised(module: ModuleType, monkeypatch: Any) -> None:
    def full(kernel: CpuKernel, unit: object) -> None:
        raise MemoryError(kernel.function.__name__)

    monkeypatch.setattr(CpuKernel, "finish", full)
    with pytest.raises(MemoryError, match="double"):
        make_ready([module.double, module.least], "two")
    with COMPILING:
        assert not module.double.loaded


def test_a_dead_thread_leaves_the_rest_to_the_caller(module: ModuleType, monkeypatch: Any) -> None:
    """As in a child that forked where a signal's handler ran."""
    monkeypatch.setattr(batch.Finisher, "_run", lambda self: None)
    make_ready([module.double, module.least], "two")
    assert run(module.double, 21) == 42


CELL = """cell: Batched
features: size
units: size
x: input[features]
h: state[units]
kernel: weight[features, units] = glorot_uniform
scale: weight[units] = ones
h[t] = tanh({} * x[t] @ kernel + scale * h[t-1])
return h[t]
"""


@pytest.mark.parametrize("rows", [5, 1])
def test_a_first_call_compiles_its_cells_kernels_together(
    fresh_store: Path, monkeypatch: Any, rows: int
) -> None:
    alone: list[str] = []
    together: list[tuple[str, list[str]]] = []
    plain, make = CpuKernel._get, batch._compile

    def get(kernel: CpuKernel) -> Any:
        alone.append(kernel.function.__name__)
        return plain(kernel)

    def compile_all(kernels: list[CpuKernel], progress: Any) -> None:
        together.append((progress.what, [k.function.__name__ for k in kernels]))
        make(kernels, progress)

    monkeypatch.setattr(CpuKernel, "_get", get)
    monkeypatch.setattr(batch, "_compile", compile_all)
    layer = rnncc.compile_text(CELL.format(rows / 3))(units=3)
    x = np.ones((rows, 2, 4), "float32")
    layer(x)
    assert together[0][0] == "Batched, forward"
    assert any("forward_scan" in name for name in together[0][1])
    assert not any("backward" in name for _, names in together for name in names)
    y, pullback = layer.vjp(x)
    pullback(np.ones_like(y))
    assert together[-1][0] == "Batched, backward"
    assert not alone
