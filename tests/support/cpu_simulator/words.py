"""The words kernels are written in, as Python over a `Space`, and kernels bound to them.

A function of a kernel, a helper or an entry is the text that Numba compiles; what its global names
stand for is all that is another here.

Non-Goals: vectors (`lanes`); who runs when (`threads`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import CellType, FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from rnncc.common.machine import Machine
from rnncc.runtime.cpu.intrinsics.kernel_namespace import HostVectors, Raw
from rnncc.runtime.cpu.intrinsics.kernel_namespace import Vectors as VectorsWord
from rnncc.runtime.jit.helper import Helper
from rnncc.runtime.jit.kernel import CpuKernel
from tests.support.cpu_simulator.lanes import Vectors
from tests.support.cpu_simulator.memory import Space
from tests.support.cpu_simulator.places import TEXT, text_of

CODE = 1 << 60  # addresses from here on are of code
# NumPy's integers, which wrap as C's do.
INTEGERS = SimpleNamespace(
    uint64=lambda x: np.uint64(int(x) & (1 << 64) - 1),
    int64=lambda x: int(np.uint64(x).astype(np.int64)),
    float64=float,
)
Mutate = Callable[[Any], Any]


class Words:
    """Meanings. mutate: changes a kernel's function before it runs; tests of the tests."""

    def __init__(self, space: Space, machine: Machine) -> None:
        self.space, self.machine = space, machine
        self.codes: list[CpuKernel | Callable[..., None]] = []
        self.numbers: dict[Any, int] = {}
        self.bound: dict[Any, Callable[..., Any]] = {}
        self.vectors: dict[tuple[str, int], Vectors] = {}
        self.ran: set[str] = set()
        self.mutate: Mutate | None = None
        # What runs a part, looks at a word that others write, and lets others go on: `threads`.
        self.call_part: Callable[[int, int, int], None] = self.call
        self.turn: Callable[[], None] = lambda: None
        self.acquire: Callable[[int], None] = lambda address: None
        self.release: Callable[[int], None] = lambda address: None
        space_ = self.space
        self.raw: dict[str, Any] = {
            "word": lambda address, index: space_.word(address + 8 * index),
            "set_word": lambda address, index, value: space_.set_word(address + 8 * index, value),
            "words": lambda address, count: tuple(
                space_.word(address + 8 * n) for n in range(count)
            ),
            "set_words": lambda address, *values: [
                space_.set_word(address + 8 * n, x) for n, x in enumerate(values)
            ],
            "call_core": self.call,
            "call_kernel": lambda function, block, part: self.call_part(function, block, part),
            "atomic_add": partial(self._atomic, lambda old, x: old + x),
            "atomic_or": partial(self._atomic, lambda old, x: old | x),
            "atomic_swap": partial(self._atomic, lambda old, x: x),
            "atomic_load": self._atomic_load,
            "atomic_store": partial(self._atomic, lambda old, x: x),
            "fence": lambda: self.turn(),  # memory here is in order
            "pause": lambda: self.turn(),
            "give_way": lambda: self.turn(),
            "opaque": lambda number: number,
            "prefetch": lambda address: None,
            "flush_denormals": lambda: 0,
            "restore_denormals": lambda old: None,
        }

    # ---- code ------------------------------------------------------------------------------------

    def code(self, what: CpuKernel | Callable[..., None]) -> int:
        """Its address."""
        number = self.numbers.get(what)
        if number is None:
            number = self.numbers[what] = len(self.codes)
            self.codes.append(what)
        return CODE + number * 64

    def at(self, address: int) -> CpuKernel | Callable[..., None]:
        number, rest = divmod(address - CODE, 64)
        if rest or not 0 <= number < len(self.codes):
            raise self.space.fault(f"a call of {address:#x}, where there is no code")
        return self.codes[number]

    def call(self, address: int, *arguments: int) -> None:
        found = self.at(address)
        if not isinstance(found, CpuKernel):
            found(*arguments)
            return
        if len(arguments) != found.arguments:
            raise self.space.fault(f"{found} takes {found.arguments} arguments: {arguments}")
        self.ran.add(found.function.__name__)
        self.function(found.function)(*arguments)

    def function(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The function with these meanings of its names."""
        found = self.bound.get(original)
        if found is None:
            changed = original if self.mutate is None else self.mutate(original)
            found = self.bound[original] = self._bind(changed, original)
        return found

    def _bind(self, function: Any, original: Any) -> Callable[..., Any]:
        known, code = function.__globals__, function.__code__
        lines = known.get(TEXT) or text_of(original)
        names: dict[str, Any] = {TEXT: lines, "__name__": known.get("__name__")}
        hosts = next((x for x in known.values() if isinstance(x, HostVectors)), None)
        for name in code.co_names:
            if name in known:
                names[name] = self.meaning(known[name])
        if hosts is not None:
            width = self.meaning(hosts)
            names |= {n: x for n, x in (("VB", width.bytes), ("WIDTH", width.width)) if n in known}
        cells = tuple(CellType(self.meaning(c.cell_contents)) for c in function.__closure__ or ())
        made = FunctionType(code, names, function.__name__, function.__defaults__, cells)
        made.__qualname__ = function.__qualname__
        return made

    def meaning(self, value: Any) -> Any:
        match value:
            case Raw():
                return self.raw[value.name]
            case HostVectors():
                return self._vectors(value.dtype, self.machine.width(value.dtype))
            case VectorsWord():
                return self._vectors(value.dtype, value.width)
            case Helper():
                return self.function(value.function)
        return INTEGERS if value is np else value

    def _vectors(self, dtype: str, width: int) -> Vectors:
        key = dtype, width
        if key not in self.vectors:
            self.vectors[key] = Vectors(self.space, dtype, width)
        return self.vectors[key]

    # ---- atomics ---------------------------------------------------------------------------------

    def _atomic(self, combine: Callable[[int, int], int], address: int, value: int) -> int:
        self.turn()
        space, part = self.space, self.space.part
        space.part = -1  # what is atomic races with nothing
        try:
            old = space.word(address)
            space.set_word(address, combine(old, value))
        finally:
            space.part = part
        self.acquire(address)
        self.release(address)
        return old

    def _atomic_load(self, address: int) -> int:
        self.turn()
        space, part = self.space, self.space.part
        space.part = -1
        try:
            value = space.word(address)
        finally:
            space.part = part
        self.acquire(address)
        return value
