"""What the templates of a kernel print: finished strings, in the shape of the loops around them.

Non-Goals: deciding anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rnncc.artifact.kernel_args import KernelArgument
from rnncc.common.user_text import Code

NARROW = 76  # of text that stands some loops deep


@dataclass
class Loop:
    var: str
    count: str


@dataclass
class CallView:
    """One core call of a tile: where its segments, start and result are."""

    lines: list[str]  # fill the segment table
    count: str
    cores: str
    table: str
    init: str
    init_j: str  # bytes from tile to tile of the rows it starts from
    init_rs: str  # bytes from row to row of them
    out: str
    out_stride: str
    tile_bytes: str
    rowwise: bool = False

    @property
    def init_at(self) -> str:
        return self.init if self.init_j == "0" else f"{self.init} + j * {self.init_j}"

    def init_of(self, row: str) -> str:
        """Where the tile that begins at this row starts from."""
        return self.init_at if self.init_rs == "0" else f"{self.init_at} + {row} * {self.init_rs}"


@dataclass
class StatementLoop:
    pointers: list[str]  # what reads the row's addresses, where it needs any
    lines: list[str]


@dataclass
class LaneView:
    kind: str = "lanes"
    comments: list[Code] = field(default_factory=list)
    outer: list[Loop] = field(default_factory=list)
    calls: list[CallView] = field(default_factory=list)
    acc_lines: list[str] = field(default_factory=list)
    row_lines: list[tuple[str, str]] = field(default_factory=list)  # address, where it is
    loops: list[StatementLoop] = field(default_factory=list)
    tiles: str = ""
    unit_blocks: str = ""  # a power of two
    unit_shift: str = ""  # its logarithm
    row_tile: str = ""
    fetch: str = ""  # whether the rows are asked for ahead
    blocks: str = ""
    direct: bool = False
    one_row: bool = False  # nothing of it depends on a row
    in_scan: bool = False  # threads have lanes of their own, from lane_lo to lane_hi

    @property
    def first_tile(self) -> str:
        return "lane_lo" if self.in_scan else "0"

    @property
    def end_tile(self) -> str:
        return "lane_hi" if self.in_scan else self.tiles

    @property
    def vectors(self) -> str:
        """Where the vectors are, of a stage that has nothing to add up."""
        return f"range({'lane_lo * VB, lane_hi' if self.in_scan else f'0, {self.blocks}'} * VB, VB)"

    @property
    def keep_row(self) -> list[str]:
        """What writes down a row's addresses."""
        return call_lines("set_words", ["row", *(place for _, place in self.row_lines)])


@dataclass
class RowView:
    kind: str = "row"
    comments: list[Code] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    outer: list[Loop] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)


@dataclass
class KernelView:
    name: str
    kind: str
    doc: Code
    words: list[str]  # statements that read them
    arguments: list[KernelArgument]
    step_lines: list[str]
    levels: list[list[LaneView | RowView]]
    reverse: bool
    one_row: KernelView | None = None  # the same where there is one row and nothing is saved

    @property
    def time(self) -> str:
        return time_of_step(self.reverse)


def time_of_step(reverse: bool) -> str:
    """Which of the sequence's steps a loop's step is."""
    return "T - 1 - step" if reverse else "step"


def call_lines(function: str, arguments: list[str], depth: int = 0) -> list[str]:
    """A call as lines, `depth` steps in: one line if it fits, else its arguments in lines of
    their own."""
    pad = "    " * depth
    flat = f"{pad}{function}({', '.join(arguments)})"
    if len(flat) <= NARROW:
        return [flat]
    lines, line = [f"{pad}{function}("], ""
    for argument in arguments:
        if line and len(pad) + 4 + len(line) + len(argument) + 2 > NARROW:
            lines.append(f"{pad}    {line}")
            line = ""
        line += f"{' ' if line else ''}{argument},"
    return [*lines, f"{pad}    {line}", f"{pad})"]
