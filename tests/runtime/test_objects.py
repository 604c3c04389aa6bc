"""Machine code in the store: found by another process, which then needs no Numba; told apart."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rnncc.runtime import objects
from rnncc.runtime.codegen import compile_function
from rnncc.runtime.kernel import Kernel, kernel
from rnncc.runtime.launch import launch
from rnncc.runtime.memory import aligned
from rnncc.runtime.store import import_module
from rnncc.runtime.words import set_word, word

ROOT = Path(__file__).parent.parent.parent
MODULE = '''"""Two kernels, for tests."""

from rnncc.runtime.kernel import kernel
from rnncc.runtime.words import set_word, word


@kernel
def double(block, part):
    set_word(block, part, 2 * word(block, part))


@kernel
def triple(block, part):
    set_word(block, part, 3 * word(block, part))
'''
CALL = """
import sys
import numpy as np
import rnncc

layer = rnncc.compile("simple_rnn")(units=3, seed=1)
y, pullback = layer.vjp(np.ones((2, 4, 5), "float32"))
grads = pullback(np.ones_like(y))
print("numba" in sys.modules, y.sum(), grads.inputs.sum())
"""


@pytest.fixture
def module(fresh_store: Path, tmp_path: Path):
    path = tmp_path / f"kernels_{tmp_path.name}.py"
    path.write_text(MODULE)
    return import_module(path)


def run(made: Kernel, value: int) -> int:
    block = aligned((1,), np.int64, zero=True)
    block[0] = value
    launch(made.address, block.ctypes.data)
    return int(block[0])


def test_an_object_is_kept_and_found(module, fresh_store: Path) -> None:
    assert run(module.double, 21) == 42
    assert module.double.seconds is not None
    assert [p.name.split(".")[1] for p in fresh_store.glob("kernels_*.o")] == ["double"]
    again = Kernel(module.double.function, 2)
    assert run(again, 4) == 8
    assert again.seconds is None, "compiled although the store had it"
    assert run(module.triple, 5) == 15


def test_another_machine_or_source_is_another_object(module, monkeypatch, tmp_path: Path) -> None:
    assert run(module.double, 1) == 2
    path = Path(module.__file__)
    text = path.read_text()
    path.write_text(text.replace("2 * word", "4 * word"))
    objects._source_hash.cache_clear()
    assert objects.find(module.double.function) is None
    path.write_text(text)
    objects._source_hash.cache_clear()
    assert objects.find(module.double.function) is not None
    monkeypatch.setattr(objects, "_target", lambda: "another machine")
    objects._source_hash.cache_clear()
    assert objects.find(module.double.function) is None
    objects._source_hash.cache_clear()


def test_a_kernel_no_file_tells_apart_is_not_kept(fresh_store: Path) -> None:
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
