"""What the CUDA templates print: finished strings, in the shape of the loops around them.

Every stage is a loop over items, each of which belongs to one thread, or to one warp: a row and
an element of the stage's lanes, a row and a sum, an element of a gradient.

Non-Goals: deciding anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rnncc.artifact.kernel_args import KernelArgument, SizeOf
from rnncc.common.user_text import Code
from rnncc.emit.shared.views import Turn, turn_of, turns_of


@dataclass
class StageView:
    """for item in range(<mine>, <rows> * <count>): where the item is, then its lines.

    kind: "threads" | "warps": who an item belongs to; "tiles": a block has lanes of its own, whose
    sums `core` leaves in shared memory for some rows at a time.
    """

    kind: str = "threads"
    comments: list[Code] = field(default_factory=list)
    count: str = "1"  # items of one row
    places: list[str] = field(default_factory=list)  # lane, outer axes, row out of `item`
    lines: list[str] = field(default_factory=list)
    core: list[str] = field(default_factory=list)
    lanes: str = ""

    def first(self, anew: bool) -> str:
        """The first item of a thread or warp."""
        name = "first_warp" if self.kind == "warps" else "first_item"
        return f"anew({name})" if anew else name

    @property
    def stride(self) -> str:
        """From one item of a thread or warp to its next."""
        return "all_warps" if self.kind == "warps" else "all_items"


@dataclass
class CudaKernelView:
    name: str
    kind: str
    doc: Code
    words: list[tuple[str, KernelArgument]]  # identifier, what it is
    step_lines: list[str]
    levels: list[list[StageView]]
    reverse: bool
    anew: bool = False  # places of items aren't kept from step to step
    prologue: list[str] = field(default_factory=list)  # before the loop
    twin: CudaKernelView | None = None  # the same with weights in registers
    shapes: str = ""  # what decides a twin's numbers
    summed: CudaKernelView | None = None  # the same with sums that are made between launches
    unroll: int = 1  # steps that a turn of its loop writes out

    @property
    def turn(self) -> Turn:
        """Its loop over the steps of a launch."""
        return turn_of("step", self.unroll, ("step_lo", "step_hi"), 1)

    @property
    def turns(self) -> str:
        """How many steps a turn has, where it has several."""
        return turns_of(self.unroll)

    @property
    def time(self) -> str:
        """Which of the sequence's steps a loop's step is."""
        return "T - 1 - step" if self.reverse else "step"

    @property
    def arguments(self) -> list[KernelArgument]:
        return [argument for _, argument in self.words]

    @property
    def sizes(self) -> list[str]:
        """Words that are sizes."""
        return [name for name, argument in self.words if isinstance(argument, SizeOf)]
