"""Generated functions to machine code: `@kernel` for C-callable entries, `@helper` for the rest.

    @kernel
    def step(block, part):
        ...

    launch(step.address, block, parts)

Compilation waits for `.address`; Numba caches it beside the module's file. Numba's cache notices
changes of that file alone, so kernels of a module that isn't in the store are compiled from a copy
there, whose name carries a hash of all that ends up in the machine code.

Non-Goals: running kernels (`launch`); deciding what a kernel does.
"""

import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from numba import cfunc, njit
from numba.core import typed_passes, untyped_passes
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager

from .forks import open_in_children
from .store import import_module, store_dir, write_module


class LeanCompiler(CompilerBase):
    """Numba without the passes that generated text has no use for: a fifth less time.

    Left out: closures, `with` and `literal_unroll`, Numba-level inlining (LLVM's remains), array
    rewrites, dynamic raises. None of them can occur in a kernel.
    """

    PASSES = (
        untyped_passes.TranslateByteCode,
        untyped_passes.FixupArgs,
        untyped_passes.IRProcessing,
        untyped_passes.ReconstructSSA,
        typed_passes.NopythonTypeInference,
        typed_passes.AnnotateTypes,
        typed_passes.PreLowerStripPhis,
        typed_passes.NativeLowering,
        typed_passes.NoPythonBackend,
    )

    def define_pipelines(self):
        manager = PassManager("lean")
        for step in self.PASSES:
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]


# numpy's error model: a division by zero gives inf instead of a Python exception.
OPTIONS = {"cache": True, "error_model": "numpy", "pipeline_class": LeanCompiler}
helper = partial(njit, nogil=True, inline="never", **OPTIONS)

_COMPILING = threading.RLock()
open_in_children(sys.modules[__name__], "_COMPILING")


class Kernel:
    """A Python function over int64 arguments, its compiled address, and how long that took."""

    __slots__ = ("_compiled", "function", "seconds", "signature")

    def __init__(self, function, signature: str = "void(int64, int64)"):
        self.function, self.signature = function, signature
        self.seconds: float | None = None
        self._compiled: Any = None

    def __repr__(self):
        state = f"compiled in {self.seconds:.3f} s" if self.compiled else "not compiled"
        return f"<{self.function.__name__}: {state}>"

    def __call__(self, *args):
        """The Python function itself: generated entries are only ever run through `.address`."""
        raise TypeError(f"{self.function.__name__} is run through launch(kernel.address, …)")

    @property
    def compiled(self) -> bool:
        return self._compiled is not None

    @property
    def address(self) -> int:
        """Where the machine code is; compiled, or read from the cache, when first asked for."""
        if self._compiled is None:
            with _COMPILING:
                if self._compiled is None:
                    began = time.perf_counter()
                    self._compiled = self._compile()
                    self.seconds = time.perf_counter() - began
        return self._compiled.address

    def _compile(self):
        source = Path(self.function.__code__.co_filename)
        if source.parent != store_dir() and source.is_file():
            twin = import_module(write_module(source.stem, source.read_text("utf-8")))
            kernel = getattr(twin, self.function.__name__)
            kernel.address  # noqa: B018  compiles
            return kernel._compiled
        return cfunc(self.signature, **OPTIONS)(self.function)

    def assembly(self) -> str:
        """The machine code as text, for reading."""
        self.address  # noqa: B018  compiles
        return self._compiled._library.get_asm_str()

    def ir(self) -> str:
        self.address  # noqa: B018  compiles
        return self._compiled.inspect_llvm()


def kernel(function) -> Kernel:
    """An entry `void kernel(block, part)`."""
    return Kernel(function)


def core(function) -> Kernel:
    """A function of eight int64, called from kernels by address."""
    return Kernel(function, f"void({', '.join(['int64'] * 8)})")
