"""Which row, outer axes and lane an item is: the lines that take its number apart.

    shape [heads, head_size]      lane = item % head_size
                                  left = item // head_size
                                  o0 = left % heads
                                  r = row_lo + left // heads

Non-Goals: who runs which items (templates).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rnncc.artifact.kernel_args import InnerRows
from rnncc.emit.shared.addresses import Addresses
from rnncc.emit.shared.views import Loop
from rnncc.ir.sizes import Size


@dataclass
class Items:
    """count: items of a row. axes: a variable for each axis, the last one first to vary."""

    count: str
    axes: list[Loop]
    places: list[str]


def items_of(at: Addresses, shape: Sequence[Size], names: Sequence[str]) -> Items:
    """The items of rows of this shape; `names`: a variable for each axis."""
    sizes = [at.size(s) for s in shape]
    axes = [Loop(n, s) for n, s in zip(names, sizes, strict=True)]
    lines, left = [], "item"
    for axis in reversed(axes):
        if axis.count == "1":
            lines.append(f"{axis.var} = 0")
            continue
        lines.append(f"{axis.var} = {left} % {axis.count}")
        lines.append(f"left = {left} // {axis.count}")
        left = "left"
    lines += row_of(at, left)
    counted = [s for s in sizes if s != "1"]
    return Items(" * ".join(counted) or "1", axes, lines)


def row_of(at: Addresses, left: str) -> list[str]:
    """The row variables, as `Addresses` has them, out of a row's number."""
    if at.in_scan:
        return [f"r = row_lo + {left}"]
    if at.kernel.kind == "rows" and at.kernel.axes == "BT":
        steps = at.words("n1", InnerRows())
        return [f"r0 = {left} // {steps}", f"r = {left} % {steps}"]
    return [f"r = {left}"]
