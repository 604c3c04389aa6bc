"""Where a C function finds rows: pointers and distances in elements, all of them numbers.

Sizes are known when C is written, and there is one row of a batch: a buffer is its row, or one of
each step of a block.

Non-Goals: which buffers there are, and who holds them (`unit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from math import prod

from rnncc.common.size_expressions import evaluate
from rnncc.emit.c.names import CNames
from rnncc.emit.shared.addresses import Addresses
from rnncc.emit.shared.views import Loop
from rnncc.ir.sizes import Size
from rnncc.schedule.model import Buffer, Kernel, View


class CAddresses(Addresses):
    """sizes: of the cell, by name. places: the pointer to each buffer's first element. in_place:
    states that are written where they are read. kept: those of every step of a block. asked:
    buffers that were pointed at."""

    def __init__(
        self,
        kernel: Kernel,
        sizes: Mapping[str, int],
        places: Mapping[Buffer, str],
        in_place: Set[Buffer] = frozenset(),
        kept: Set[Buffer] = frozenset(),
    ) -> None:
        super().__init__(kernel, CNames(), one_row=True)
        self.sizes, self.places, self.in_place, self.kept = sizes, places, in_place, kept
        self.asked: set[Buffer] = set()
        self.turns = kernel.kind == "scan" or "T" in kernel.axes  # whether there is a step `t`

    def number(self, size: Size | str) -> int:
        return evaluate(str(size), dict(self.sizes))

    def elements(self, buffer: Buffer) -> int:
        """Of a row."""
        return prod(self.number(s) for s in buffer.shape)

    def size(self, size: Size) -> str:
        return str(self.number(size))

    def axis_stride(self, buffer: Buffer, axis: int) -> str:
        return str(prod(self.number(s) for s in buffer.shape[axis + 1 :]))

    def pointer(self, view: View) -> str:
        place, step, start = self.row_of(view)
        place += f" + t * {step}" if step else ""
        return f"{place} + {start}" if start else place

    def row_of(self, view: View) -> tuple[str, int, int]:
        """A pointer, how many elements a step moves it on, and where the view's row begins."""
        buffer = view.buffer
        self.asked.add(buffer)
        place, step, start = self.places[buffer], 0, 0
        if buffer in self.kept:
            step = self.elements(buffer)
            start = {"in": 0, "out": step}[view.slot]
        elif view.slot == "out" and buffer not in self.in_place:
            place += "_next"
        if "T" in buffer.axes:
            step += self.elements(buffer)
        return place, step, start + self.offset(view)[1]

    def offset(self, view: View) -> tuple[Buffer, int]:
        """Whose row a view reads, and from which element on."""
        starts = sum(int(self.axis_stride(view.buffer, a)) * self.number(s) for a, s in view.starts)
        return view.buffer, starts

    def row_terms(self, view: View, variables: tuple[str, ...] = ("r0", "r")) -> str:
        return ""

    def outer_terms(self, view: View, outer: list[Loop]) -> str:
        pairs = zip(outer, view.axes[:-1], strict=True)
        return "".join(self.axis_term(view, n, loop.var) for n, (loop, _) in enumerate(pairs))

    def axis_term(self, view: View, axis: int, var: str) -> str:
        stride = self.view_stride(view, axis)
        return {"0": "", "1": f" + {var}"}.get(stride, f" + {var} * {stride}")
