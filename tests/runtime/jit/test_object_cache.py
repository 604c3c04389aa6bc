"""Machine code in the store: found by another process, which then needs no Numba; told apart."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rnncc.common.machine import Machine, host
from rnncc.runtime.cpu.intrinsics.kernel_namespace import set_word, word
from rnncc.runtime.cpu.kernels.gemm import contract_bulk
from rnncc.runtime.jit import object_cache
from rnncc.runtime.jit.compiler import compile_function
from rnncc.runtime.jit.fingerprint import Unknown, fingerprint
from rnncc.runtime.jit.kernel import CpuKernel, kernel
from rnncc.runtime.jit.module_cache import text_module
from tests.support.launching import launch
from tests.support.paths import ROOT

MODULE = '''"""Two kernels, for tests."""

from rnncc.runtime.jit.kernel import kernel
from rnncc.runtime.cpu.intrinsics.kernel_namespace import set_word, word


@kernel
def double(block, part):
    set_word(block, part, 2 * word(block, part))


@kernel
def triple(block, part):
    set_word(block, part, 3 * word(block, part))
'''
HELPED = '''"""A kernel with helpers."""

from rnncc.runtime.jit.helper import helper
from rnncc.runtime.jit.kernel import kernel
from rnncc.runtime.cpu.intrinsics.kernel_namespace import set_word, word

FACTOR = 2


@helper(returns="int64")
def inner(x):
    return x + 1


@helper(returns="int64")
def outer(x):
    return inner(x) * FACTOR


@kernel
def apply(block, part):
    set_word(block, part, outer(word(block, part)))
'''
TWO = "void(int64, int64)"
CALL = """
import sys
import numpy as np
import rnncc

layer = rnncc.compile("simple_rnn")(units=3, seed=1)
y, pullback = layer.vjp(np.ones((2, 4, 5), "float32"))
grads = pullback(np.ones_like(y))
print("numba" in sys.modules, y.sum(), grads.inputs.sum())
"""


def test_an_object_doesnt_tell_what_was_compiled_before_it() -> None:
    """Of a kernel with functions that LLVM doesn't inline: their names are in the object."""
    first, second = (compile_function(contract_bulk.function, TWO) for _ in range(2))
    assert first == second


@pytest.fixture
def module(fresh_store: Path) -> ModuleType:
    """Of this test alone: another's would have its machine code already."""
    return text_module("kernels", f"{MODULE}\n\n# {fresh_store}\n")


def run(made: CpuKernel, value: int) -> int:
    return int(launch(made.address, np.array([value], np.int64))[0])


def test_an_object_is_kept_and_found(module, fresh_store: Path) -> None:
    assert run(module.double, 21) == 42
    assert module.double.seconds is not None
    assert [p.name.split(".")[1] for p in fresh_store.glob("kernels.*.o")] == ["double"]
    again = CpuKernel(module.double.function, 2)
    assert run(again, 4) == 8
    assert again.seconds is None, "compiled although the store had it"
    assert run(module.triple, 5) == 15


def test_another_machine_or_kernel_is_another_object(module, monkeypatch) -> None:
    assert run(module.double, 1) == 2
    other = text_module("kernels", MODULE.replace("2 * word", "4 * word"))
    assert object_cache.find(other.double.function) is None
    assert object_cache.find(module.double.function) is not None
    monkeypatch.setattr(object_cache, "_target", lambda: "another machine")
    assert object_cache.find(module.double.function) is None


@pytest.mark.parametrize("part", ["get_host_cpu_name", "get_process_triple", "_version", "host"])
def test_all_that_decides_machine_code_tells_it_apart(module, monkeypatch, part: str) -> None:
    made = {object_cache._entry(module.double.function)}
    object_cache._target.cache_clear()
    try:
        with monkeypatch.context() as patch:
            other = Machine(vector_bytes=64 if host().vector_bytes != 64 else 32)
            home = object_cache if hasattr(object_cache, part) else object_cache.llvm
            patch.setattr(home, part, lambda *_: other if part == "host" else "another")
            made.add(object_cache._entry(module.double.function))
    finally:
        object_cache._target.cache_clear()
    assert len(made) == 2 == len({name for name, _ in made})


def test_what_names_mean_tells_kernels_apart(fresh_store: Path) -> None:
    """Numbers of the module, helpers, helpers of helpers; a name that no text can tell apart."""
    text = HELPED
    prints = set()
    for old, new in [
        ("", ""),
        ("FACTOR = 2", "FACTOR = 3"),
        ("x + 1", "x + 2"),
        ("def outer(x):\n    return inner(x)", "def outer(x):\n    return x"),
    ]:
        made = text_module("helped", text.replace(old, new) if old else text)
        prints.add(fingerprint(made.apply.function))
    assert len(prints) == 4
    made = text_module("helped", text.replace("FACTOR = 2", "FACTOR = object()"))
    with pytest.raises(Unknown, match="object in a kernel"):
        fingerprint(made.apply.function)
    assert object_cache.find(made.apply.function) is None


def test_a_file_changed_since_it_was_imported(fresh_store: Path, tmp_path: Path) -> None:
    """What is kept is what ran, not what the file says by now."""
    path = tmp_path / "changing.py"

    def imported() -> CpuKernel:
        spec = importlib.util.spec_from_file_location("changing", path)
        assert spec is not None and spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made.double

    path.write_text(MODULE)
    old = imported()
    path.write_text(MODULE.replace("2 * word", "4 * word") + "# longer\n")
    assert run(old, 1) == 2
    assert run(imported(), 1) == 4


def test_a_kernel_inside_of_a_function_is_not_kept(fresh_store: Path) -> None:
    found = []
    for factor in (2, 3):

        @kernel
        def scale(block, part):
            set_word(block, part, factor * word(block, part))  # noqa: B023

        found.append(run(scale, 7))
    assert found == [14, 21]
    assert not list(fresh_store.glob("*scale*"))


def test_a_kernel_that_needs_python_is_refused() -> None:
    def bad(block, part):
        print(part)

    with pytest.raises(AssertionError, match="which is Python's"):
        compile_function(bad, "void(int64, int64)")


def test_a_second_process_needs_no_numba(tmp_path: Path) -> None:
    environment = {**os.environ, "RNNCC_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def once() -> list[str]:
        command = [sys.executable, "-c", CALL]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    first, second = once(), once()
    assert (first[0], second[0]) == ("True", "False")
    assert first[1:] == second[1:]
