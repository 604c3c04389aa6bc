"""A dtype and a machine to whole-row helpers by address: reductions, copies, weight packing.

Their text is one rendered module in the store (templates/cpu/rows.py.jinja), each compiled when its
address is first asked for. Kernels call them with `raw.call_core`, so a cell's own compile never
contains them; Python calls them with `Rows.call`.

Non-Goals: anything a cell's equations decide.
"""

import ctypes
from dataclasses import dataclass

from rnncc.common.machine import ITEMSIZE, Machine, host
from rnncc.common.template_loader import render
from rnncc.runtime.common.one_for_all import one_for_all
from rnncc.runtime.jit.kernel import CORE_ARGUMENTS, CpuKernel
from rnncc.runtime.jit.module_cache import keyed_module

_CALL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * CORE_ARGUMENTS)


@dataclass(frozen=True, slots=True)
class Reduction:
    """One kind of reduction as the template writes it."""

    name: str
    identity: str
    lanes: str
    rest: str
    fold: str


@dataclass(frozen=True, slots=True)
class StridedCopy:
    """One kind of strided copy as the template writes it."""

    name: str
    doc: str
    vector: str
    first: str  # n - i lanes of it
    scalar: str
    turns: bool = False  # whether it has squares of vectors for a source that lies the other way


REDUCTIONS = (
    Reduction("sum", "0.0", "acc + v.load(at)", "acc + rest", "fold_add"),
    Reduction("max", "-v.inf", "v.maximum(acc, v.load(at))", "v.maximum(acc, rest)", "fold_max"),
    Reduction("prod", "1.0", "acc * v.load(at)", "acc * rest", "fold_mul"),
    Reduction("min", "v.inf", "v.minimum(acc, v.load(at))", "v.minimum(acc, rest)", "fold_min"),
)
COPIES = (
    StridedCopy(
        "copy",
        "dst = src, element by element.",
        "v.load(at)",
        "v.load_first(at, n - i)",
        "w.get(at)",
        turns=True,
    ),
    StridedCopy(
        "add",
        "dst += src, element by element.",
        "v.load(to) + v.load(at)",
        "v.load_first(to, n - i) + v.load_first(at, n - i)",
        "w.get(to) + w.get(at)",
    ),
)


@dataclass(frozen=True, slots=True)
class RowsView:
    """What the template says of the module."""

    dtype: str
    width: int
    size: int
    reductions: tuple[Reduction, ...] = REDUCTIONS
    copies: tuple[StridedCopy, ...] = COPIES


class RowKernels:
    """The row helpers of one dtype on one machine, by name."""

    NAMES = (
        *(f"reduce_{axis}_{kind.name}" for kind in REDUCTIONS for axis in ("last", "axis")),
        *(f"{kind.name}_strided" for kind in COPIES),
        "dot_last",
        "cumsum_last",
        "pack",
    )

    def __init__(self, dtype: str, machine: Machine):
        width = machine.width(dtype)
        view = RowsView(dtype, width, ITEMSIZE[dtype])
        self.module = keyed_module(
            f"rows_{dtype}x{width}", repr(view), lambda: render("cpu/rows.py.jinja", m=view)
        )
        self._entries: dict = {}

    def kernel(self, name: str) -> CpuKernel:
        if name not in self.NAMES:
            raise ValueError(f"no row helper {name!r}; there are {', '.join(self.NAMES)}")
        return getattr(self.module, name)

    def address(self, name: str) -> int:
        return self.kernel(name).address

    def call(self, name: str, *args: int) -> None:
        """Runs one from Python; missing trailing arguments are 0. Releases the GIL."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _CALL(self.address(name))
        entry(*args, *[0] * (CORE_ARGUMENTS - len(args)))


@one_for_all
def rows(dtype: str, machine: Machine | None = None) -> RowKernels:
    """The row helpers of that dtype, for the host unless another machine is named."""
    return RowKernels(dtype, machine or host())
