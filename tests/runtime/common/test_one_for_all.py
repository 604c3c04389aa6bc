"""What a process has once, whoever asks for it first."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

from rnncc.runtime.common.one_for_all import one_for_all
from tests.attack.threads import at_once
from tests.support.paths import ROOT


def test_threads_that_ask_first_get_the_same_object() -> None:
    @one_for_all
    def slow(name: str, *, far: bool = False) -> list[str]:
        time.sleep(0.05)
        return [name]

    made = at_once(lambda number: slow("a"))
    assert all(one is made[0] for one in made)
    assert slow("a") is made[0]
    assert slow("b") is not made[0]
    assert slow("a", far=True) is not made[0]


def test_tables_whose_addresses_are_kept_are_made_once() -> None:
    from rnncc.common.machine import host
    from rnncc.runtime.cpu.kernels.microkernels import Cores

    cores = Cores("float32", host())
    together = threading.Barrier(8)

    class Late(dict):  # type: ignore[type-arg]
        """Every thread has looked before any has put its own in."""

        def get(self, *args: int) -> object:
            found = super().get(*args)
            together.wait()
            return found

    cores._tables = Late()
    tables = at_once(lambda number: cores.row_table(1))
    assert all(table is tables[0] for table in tables)


def test_numba_is_imported_where_no_signal_handler_raises() -> None:
    """Half imported, it couldn't be imported again in this process."""
    code = """
import sys, threading
where = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("numba.core.compiler", "numba.cpython.unicode"):
            where.append(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Watch())
import rnncc
from rnncc.runtime.jit.compiler_import import compiler
compiler()
print(where)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "[False, False]\n", ran.stderr
