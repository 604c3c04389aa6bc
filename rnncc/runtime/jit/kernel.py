"""C-callable entries out of Python functions: `@kernel`, `@core`, `@entry`.

    @kernel
    def step(block, part):
        ...

    launch(step.address, block, parts)

Machine code is read from the store, or compiled and put there, when `.address` is first asked for;
only compiling imports Numba, so a process that finds everything in the store never does.

Non-Goals: compiling (`compiler`); the cache of machine code (`object_cache`); running kernels
(`dispatch`).
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from rnncc.runtime.common.fork_safety import held_in_forks
from rnncc.runtime.jit.compiler_import import compiler
from rnncc.runtime.jit.object_cache import MachineCode, find, llvm_lock, load, save

CORE_ARGUMENTS = 8

COMPILING = threading.RLock()
# A child that forks in the middle would find LLVM and Numba in the middle, and their locks taken.
held_in_forks(COMPILING)
held_in_forks(llvm_lock())


class CpuKernel:
    """A Python function over int64 arguments, its machine code, and how long compiling took.

    seconds: None where nothing had to be compiled, or hasn't been yet. one_row: the kernel that may
    run in its place, on the same block, where a batch is one row and nothing is saved;
    `render_one_row` makes it when it is first asked for, where its module was written without.
    inlined: of such a twin the one whose cores are written out, to be `built` for its tiles.
    """

    __slots__ = (
        *("_built", "_code", "_one_row", "arguments", "function", "inlined"),
        *("render_one_row", "seconds"),
    )

    def __init__(self, function: Callable[..., Any], arguments: int) -> None:
        self.function, self.arguments = function, arguments
        self.seconds: float | None = None
        self._one_row: CpuKernel | None = None
        self.render_one_row: Callable[[], CpuKernel | None] | None = None
        self.inlined: CpuKernel | None = None
        self._built: dict[tuple[tuple[str, int], ...], CpuKernel] = {}
        self._code: MachineCode | None = None

    def built(self, constants: Mapping[str, int]) -> CpuKernel:
        """The kernel with these numbers for its names in capitals."""
        key = tuple(sorted(constants.items()))
        with COMPILING:
            found = self._built.get(key)
            if found is None:
                bound = rebound(self.function, constants)
                found = self._built[key] = CpuKernel(bound, self.arguments)
        return found

    def __repr__(self) -> str:
        took = "from the store" if self.seconds is None else f"compiled in {self.seconds:.3f} s"
        return f"<{self.function.__name__}: {took if self.loaded else 'not loaded'}>"

    def __call__(self, *args: object) -> None:
        """The Python function itself: generated entries are only ever run through `.address`."""
        raise TypeError(f"{self.function.__name__} is run through launch(kernel.address, …)")

    @property
    def signature(self) -> str:
        return f"void({', '.join(['int64'] * self.arguments)})"

    @property
    def loaded(self) -> bool:
        return self._code is not None

    @property
    def one_row(self) -> CpuKernel | None:
        if self._one_row is None and self.render_one_row is not None:
            with COMPILING:
                self._one_row = self._one_row or self.render_one_row()
        return self._one_row

    @one_row.setter
    def one_row(self, twin: CpuKernel) -> None:
        self._one_row = twin

    @property
    def any_loaded(self) -> bool:
        """Whether it or a twin has been run; nothing is rendered to find out."""
        twins = (self._one_row, self.inlined, *self._built.values())
        return self.loaded or any(t.any_loaded for t in twins if t is not None)

    @property
    def address(self) -> int:
        """Where the machine code is."""
        if self._code is None:
            with COMPILING:
                if self._code is None:
                    self._code = self._get()
        return self._code.address

    def _get(self) -> MachineCode:
        if not self.load_cached():
            self.finish(compiler().typed(self.function, self.signature))
        assert self._code is not None
        return self._code

    def load_cached(self) -> bool:
        """Whether its machine code was in the cache, and is loaded now."""
        cached = find(self.function)
        if cached is not None:
            self._code = load(cached, self.function)
        return cached is not None

    def finish(self, unit: Any) -> None:
        """Makes machine code of what was typed, keeps it and loads it. May run on any thread: it
        takes none of the locks that whoever waits for it holds."""
        data = compiler().machine_code(unit)
        self.seconds = time.perf_counter() - unit.began
        save(self.function, data)
        self._code = load(data, self.function)

    def assembly(self) -> str:
        """The machine code as text, for reading; compiled anew."""
        return compiler().assembly(self.function, self.signature)

    def ir(self) -> str:
        """The optimised LLVM text, for reading; compiled anew."""
        return compiler().llvm_text(self.function, self.signature)


def kernel(function: Callable[..., Any]) -> CpuKernel:
    """An entry `void kernel(block, part)`, over the names that its module has so far."""
    return CpuKernel(settled(function), 2)


def settled(function: Any) -> Any:
    """The function with its module's names as they are now: what the module binds later, such as
    a cell's class of the user's own name, is none of its words."""
    return rebound(function, {})


def rebound(function: Any, names: Mapping[str, Any]) -> Any:
    """The same function with other meanings of its global names."""
    known = {**function.__globals__, **names}
    code, closure = function.__code__, function.__closure__
    bound = FunctionType(code, known, function.__name__, function.__defaults__, closure)
    bound.__qualname__, bound.__doc__ = function.__qualname__, function.__doc__
    return bound


def one_row(plain: CpuKernel) -> Callable[[Callable[..., Any]], CpuKernel]:
    """The twin of a kernel for batches of one row that saves nothing."""

    def twin(function: Callable[..., Any]) -> CpuKernel:
        plain.one_row = one_row_kernel = CpuKernel(settled(function), 2)
        return one_row_kernel

    return twin


def inlined(plain: CpuKernel) -> Callable[[Callable[..., Any]], CpuKernel]:
    """The twin of a kernel for one row whose cores are written out."""

    def twin(function: Callable[..., Any]) -> CpuKernel:
        plain.inlined = inlined_kernel = CpuKernel(settled(function), 2)
        return inlined_kernel

    return twin


def core(function: Callable[..., Any]) -> CpuKernel:
    """A function of eight int64, called from kernels by address."""
    return CpuKernel(function, CORE_ARGUMENTS)


def entry(function: Callable[..., Any]) -> CpuKernel:
    """A function of as many int64 as it has parameters, called from Python by address."""
    return CpuKernel(function, len(inspect.signature(function).parameters))
