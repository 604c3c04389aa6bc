"""`compiler`, and Numba with it: imported when a kernel is first compiled, and then whole.

Numba registers types while it is imported. A signal handler that raises in the middle, as Ctrl-C's
does, would leave half of them registered, and every later compile of the process would fail. Python
runs handlers in the main thread alone, so it is another thread that imports.
"""

from __future__ import annotations

import importlib
import threading
from types import ModuleType

from rnncc.runtime.common.fork_safety import held_in_forks

_IMPORTING = threading.RLock()
held_in_forks(_IMPORTING)  # a forked child would find Numba in the middle for good
_compiler: ModuleType | None = None


def compiler() -> ModuleType:
    """`rnncc.runtime.jit.compiler`. Raises what importing it raised."""
    if _compiler is None:
        raised: list[BaseException] = []
        thread = threading.Thread(target=_import, args=(raised,), name="rnncc-imports-numba")
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is going home
            _import(raised)
        else:
            thread.join()
        if raised:
            raise raised[0]
    assert _compiler is not None
    return _compiler


def _import(raised: list[BaseException]) -> None:
    global _compiler
    with _IMPORTING:
        if _compiler is None:
            try:
                module = importlib.import_module("rnncc.runtime.jit.compiler")
                module.load_registries()
                _compiler = module
            except BaseException as error:
                raised.append(error)
