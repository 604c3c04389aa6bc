"""What the templates of a kernel print: finished strings, in the shape of the loops around them.

Non-Goals: deciding anything.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from rnncc.artifact.kernel_args import KernelArgument
from rnncc.artifact.kernel_tables import PieceSpec
from rnncc.common.user_text import Code

WIDTH = 100  # of a line
STEP = 4  # of a loop, to its body


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
    column: int = 0  # where a call of its core stands
    rowwise: bool = False
    vectors: str = ""  # of a tile whose core is written out: a name in capitals
    sums: list[str] = field(default_factory=list)  # what is added to it
    timed: bool = False  # how long cores take is added up

    def core(self, row: str, rows: str) -> list[str]:
        """The call for the tile `j` of so many rows from a row on; or the core itself."""
        lines = self._core(row, rows)
        return ["begun = ticks()", *lines, "spent += ticks() - begun"] if self.timed else lines

    def _core(self, row: str, rows: str) -> list[str]:
        start = self.init if self.init_j == "0" else f"{self.init} + j * {self.init_j}"
        if self.vectors:
            first = f"tile = v.load_tile(1, {self.vectors}, {start}, 0)"
            return [first, *self.sums, f"v.store_tile(tile, {self.out}, 0)"]
        if self.init_rs != "0":
            start += f" + {row} * {self.init_rs}"
        core = f"word({self.cores}, {rows})"
        rest = [start, self.init_rs, self.out, self.out_stride]
        return call_lines("call_core", [core, self.table, self.count, row, "j", *rest], self.column)

    def all_rows(self, row_tile: str, lo: str, hi: str) -> list[str]:
        """The call for all rows, of the tiles from lo to hi."""
        rows = ["blk", "row_end", row_tile, lo, hi]
        places = [self.init, self.init_j, self.init_rs, self.out, self.out_stride, self.tile_bytes]
        arguments = [self.cores, self.table, self.count, *rows, *places]
        return call_lines("contract_rows", arguments, self.column)


@dataclass
class StatementLoop:
    """pointers, accs: what reads the row's addresses, and where its sums are, as far as it needs
    any of them."""

    pointers: list[str]
    lines: list[str]
    accs: list[str] = field(default_factory=list)


@dataclass
class Overwrite:
    """What is written over a row's lanes, if it is one of those."""

    condition: str
    lines: list[str]


@dataclass
class LaneView:
    kind: str = "lanes"
    comments: list[Code] = field(default_factory=list)
    column: int = 0  # where what is inside of the outer loops stands
    outer: list[Loop] = field(default_factory=list)
    calls: list[CallView] = field(default_factory=list)
    row_lines: list[tuple[str, str]] = field(default_factory=list)  # address, where it is
    streams: list[bool] = field(default_factory=list)  # of these, which lie elsewhere every step
    loops: list[StatementLoop] = field(default_factory=list)
    overwrites: list[Overwrite] = field(default_factory=list)  # once they are done
    tiles: str = ""
    unit_blocks: str = ""  # a power of two
    unit_shift: str = ""  # its logarithm
    row_tile: str = ""
    fetch: str = ""  # whether the rows are asked for ahead
    blocks: str = ""
    direct: bool = False
    one_row: bool = False  # nothing of it depends on a row
    in_scan: bool = False  # threads have lanes of their own, from lane_lo to lane_hi
    stamps: list[str] = field(default_factory=list)  # what says that it is done

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
    def own_vectors(self) -> str:
        """Where this thread's vectors are, of a stage of a loop over steps."""
        if not self.calls:
            return self.vectors
        return f"range(lane_lo * {self.unit_blocks} * VB, lane_hi * {self.unit_blocks} * VB, VB)"

    @property
    def in_tiles(self) -> bool:
        return bool(self.calls) and not self.direct

    @property
    def keeps_rows(self) -> bool:
        """Whether addresses of rows are written down."""
        return self.in_tiles and bool(self.row_lines) and not self.one_row

    @property
    def fetch_rows(self) -> list[str]:
        """What asks for those rows of a tile that lie elsewhere every step."""
        places = bin(sum(1 << i for i, streams in enumerate(self.streams) if streams))
        rows = ["row_pointers", "m - blk", "rows"]
        arguments = [self.fetch, *rows, places, "j", f"{self.unit_blocks} * VB"]
        return call_lines("fetch_tile", arguments, self.column + 2 * STEP)

    @property
    def keep_row(self) -> list[str]:
        """What writes down a row's addresses."""
        row = "row_pointers + (r - blk) * POINTER_BYTES"
        places = [place for _, place in self.row_lines]
        return call_lines("set_words", [row, *places], self.column + STEP)


@dataclass
class RowView:
    kind: str = "row"
    comments: list[Code] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    outer: list[Loop] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    stamps: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Turn:
    """A loop over steps: `for {index} in {range}:`, and what each step that it writes out begins
    with."""

    index: str
    range: str
    openings: list[list[str]]


def turn_of(step: str, count: int, bounds: tuple[str, str], way: int) -> Turn:
    """A loop of so many steps a turn from the first bound to before the second, one way or the
    other (1, -1); its last turn ends where the steps do."""
    start, end = bounds
    if count == 1:
        whole = end if (start, way) == ("0", 1) else f"{start}, {end}"
        return Turn(step, f"range({whole})" if way == 1 else f"range({whole}, -1)", [[]])
    openings = [[f"# ---- step 1 of {count}", f"{step} = begin"]]
    for n in range(1, count):
        place = [f"# ---- step {n + 1} of {count}", f"{step} = begin {'+-'[way < 0]} {n}"]
        openings.append([*place, f"if {step} == {end}:", "    break"])
    return Turn("begin", f"range({start}, {end}, {way * count})", openings)


def turns_of(unroll: int) -> str:
    return f", {unroll} steps a turn" if unroll > 1 else ""


@dataclass
class KernelView:
    """reads: what its levels read of what a kernel begins with, by name. alone: it is the twin for
    one row. pieces: what it writes the times of; begins: what says that they begin; waits: of each
    level, what says that the others are done with it, too."""

    name: str
    kind: str
    doc: Code
    words: list[str]  # statements that read them
    arguments: list[KernelArgument]
    step_lines: list[str]
    levels: list[list[LaneView | RowView]]
    reverse: bool
    reads: Set[str] = frozenset()
    one_row: KernelView | None = None  # the same where there is one row and nothing is saved
    unroll: int = 1  # steps that a turn of its loop writes out
    alone: bool = False
    inlined: KernelView | None = None  # the one for one row, its cores written out
    pieces: list[PieceSpec] = field(default_factory=list)
    begins: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)

    @property
    def own_rows(self) -> str:
        """What a thread calls its rows: they are cut into blocks, or are one."""
        return "blk, row_end" if self.alone else "row_lo, row_hi"

    @property
    def origin(self) -> str:
        """The row that is the first of those a thread has room for in a block's own buffers."""
        if self.kind == "scan":
            return "blk if shared else blk - index * most_rows"
        return "blk - part * most_rows"

    @property
    def turn(self) -> Turn:
        """Its loop over steps."""
        if self.reverse:
            return turn_of("t", self.unroll, ("T - 1", "-1"), -1)
        return turn_of("t", self.unroll, ("0", "T"), 1)

    @property
    def turns(self) -> str:
        """How many steps a turn has, where it has several."""
        return turns_of(self.unroll)

    @property
    def first_step(self) -> str:
        return "T - 1" if self.reverse else "0"


def call_lines(function: str, arguments: list[str], column: int) -> list[str]:
    """A call that stands in this column, as lines: one if it fits, else its arguments in lines of
    their own."""
    flat = f"{function}({', '.join(arguments)})"
    if column + len(flat) <= WIDTH:
        return [flat]
    lines, line = [f"{function}("], ""
    for argument in arguments:
        if line and column + STEP + len(line) + len(argument) + 2 > WIDTH:
            lines.append(f"    {line}")
            line = ""
        line += f"{' ' if line else ''}{argument},"
    return [*lines, f"    {line}", ")"]
