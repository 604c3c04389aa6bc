"""Kernel -> KernelView: everything a template prints, as finished strings.

All naming and address arithmetic happens here; templates only lay out loops.

Non-Goals: which stages exist (`schedule`); numbers (`cpu.kernel_arguments`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rnncc.artifact.inlined_cores import blocks_name
from rnncc.artifact.kernel_args import (
    BatchSize,
    BlockLimit,
    FetchesRows,
    InnerRows,
    KernelArgument,
    OuterRows,
    PartCount,
    RowTile,
    ScratchBase,
    ScratchBytes,
    SpinLimit,
    StepCount,
    SyncWords,
    TileCount,
    UnitBlocks,
    UnitShift,
    VectorCount,
)
from rnncc.common.user_text import Code
from rnncc.emit.cpu.core_calls import core_call
from rnncc.emit.cpu.overwrites import overwrites, selected_rows
from rnncc.emit.cpu.row_calls import row_view
from rnncc.emit.shared.addresses import Addresses
from rnncc.emit.shared.kernel_names import Words
from rnncc.emit.shared.statements import Statements
from rnncc.emit.shared.views import STEP, KernelView, LaneView, Loop, RowView
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Value
from rnncc.schedule.model import (
    Buffer,
    Kernel,
    LaneStage,
    RowStage,
    Schedule,
    Stage,
    block_locals,
    unread,
)

# What the templates themselves read, by the names they read it by: of a kind of kernel, and of any
# with contractions.
OF_KIND: dict[str, dict[str, KernelArgument]] = {
    "scan": {
        "B": BatchSize(),
        "T": StepCount(),
        "parts": PartCount(),
        "shared": SpinLimit(),
        "sync": SyncWords(),
        "most_rows": BlockLimit(),
    },
    "rows": {"parts": PartCount(), "n0": OuterRows(), "n1": InnerRows(), "most_rows": BlockLimit()},
}
SCRATCH: dict[str, KernelArgument] = {
    "scratch_base": ScratchBase(),
    "scratch_bytes": ScratchBytes(),
}


def can_be_inlined(stage: LaneStage) -> bool:
    """Whether it makes something of its sums, of weights whose sizes its tables tell."""
    return bool(stage.groups) and not (stage.direct or any(g.rowwise for g in stage.groups))


class KernelWriter:
    """Writes one kernel's view; `source` gives a line's text for comments."""

    def __init__(
        self,
        kernel: Kernel,
        schedule: Schedule,
        source: Mapping[int, Code],
        words: Words | None = None,
        inlined: bool = False,
    ) -> None:
        """words: of the kernel that this is the twin of, for one row. inlined: its cores are
        written out."""
        self.kernel, self.schedule = kernel, schedule
        self.source = source
        self.one_row, self.inlined = words is not None, inlined
        self.words = words or Words()
        local = block_locals(schedule)
        self.at = Addresses(kernel, self.words, one_row=self.one_row, local=local)
        self.left_out: set[Buffer] = unread(schedule) if self.one_row else set()
        self.leaves = {
            op.result: op for op in schedule.program.ops() if OPS[op.opcode].kind is Kind.LEAF
        }

    def view(self) -> KernelView:
        kernel = self.kernel
        if kernel.is_plain:
            return KernelView(kernel.name, kernel.kind, Code(), [], [], [], [], False)
        self.standard_words()
        levels = []
        for level in kernel.levels:
            stages: list[LaneView | RowView] = []
            for stage in level.stages:
                if self.is_idle(stage):
                    continue
                if isinstance(stage, LaneStage):
                    stages.append(self.lane_stage(stage))
                elif isinstance(stage, RowStage):
                    stages.append(row_view(self.at, stage, self.comments([stage.op])))
            if stages:
                levels.append(stages)
        arguments, words, lines = self.words.arranged(), self.words.lines(), self.at.step_lines
        reads = self.reads([stage for level in levels for stage in level])
        return KernelView(
            *(kernel.name, kernel.kind, Code(), words, arguments, lines, levels, kernel.reverse),
            reads,
            unroll=kernel.unroll,
            alone=self.one_row,
        )

    def reads(self, stages: list[LaneView | RowView]) -> set[str]:
        """What they read of what a kernel begins with."""
        lanes = [s for s in stages if isinstance(s, LaneView)]
        in_scan = self.kernel.kind == "scan"
        asked = {
            "first": self.at.asks_for_first,
            "origin": self.at.asks_for_origin,
            "scratch": any(s.calls for s in lanes),
            "row_pointers": any(s.keeps_rows for s in lanes),
            "turn": in_scan and any(s.in_tiles for s in lanes),
            "own_lo": in_scan and len(lanes) < len(stages),
            "row_lo": not (self.one_row and all(s.in_tiles for s in lanes)),
        }
        return {name for name, read in asked.items() if read}

    def is_idle(self, stage: Stage) -> bool:
        """Whether all that the stage makes is left out."""
        if not isinstance(stage, LaneStage) or stage.tiled:
            return False
        return bool(stage.stores) and all(s.view.buffer in self.left_out for s in stage.stores)

    def twin(self, *, inlined: bool = False) -> KernelView | None:
        """A loop over one row whose residuals nobody keeps, over the words of the `view` made
        before: no loops over rows, and an epilogue in one piece, since no other row could fill the
        time in which its activations wait for each other. inlined: cores are written out, so that
        sums reach the epilogue in registers; None where there are none."""
        if self.kernel.kind != "scan":
            return None
        stages = [s for level in self.kernel.levels for s in level.stages]
        if inlined and not any(isinstance(s, LaneStage) and can_be_inlined(s) for s in stages):
            return None
        words = self.words.again()
        view = type(self)(self.kernel, self.schedule, self.source, words, inlined).view()
        assert len(view.arguments) == len(self.words.arguments), "a twin has words of its own"
        return view

    def standard_words(self) -> None:
        """What the template itself reads."""
        stages = [s for level in self.kernel.levels for s in level.stages]
        contracts = any(isinstance(s, LaneStage) and s.groups for s in stages)
        words = OF_KIND.get(self.kernel.kind, {}) | (SCRATCH if contracts else {})
        for name, argument in words.items():
            self.words.reserve(name, argument)

    def comments(self, ops: Iterable[Op | None]) -> list[Code]:
        """The equations behind some ops, each once, in the user's order."""
        lines = [op.span.line for op in ops if op is not None and op.span is not None]
        return [self.source[n] for n in dict.fromkeys(sorted(lines)) if n in self.source]

    def lane_stage(self, stage: LaneStage) -> LaneView:
        outer = [Loop(f"o{i}", self.at.size(s)) for i, s in enumerate(stage.shape[:-1])]
        in_scan = self.kernel.kind == "scan"
        view = LaneView(outer=outer, direct=stage.direct, one_row=self.one_row, in_scan=in_scan)
        view.column = self.at.column + STEP * len(outer)
        view.comments = self.comments(stage.all_ops)
        inlined = self.inlined and can_be_inlined(stage)
        if inlined:
            view.unit_blocks = blocks_name(stage.name)
            view.tiles = self.words(f"{stage.name}_tiles", TileCount(stage.name))
        elif stage.groups:
            view.unit_blocks = self.words(f"{stage.name}_u", UnitBlocks(stage.name))
            view.tiles = self.words(f"{stage.name}_tiles", TileCount(stage.name))
            if not self.one_row:
                view.unit_shift = self.words(f"{stage.name}_shift", UnitShift(stage.name))
            if stage.direct or not self.one_row:
                view.row_tile = self.words(f"{stage.name}_rows", RowTile(stage.name))
        else:
            lanes = str(stage.shape[-1]) if stage.shape else "1"
            view.blocks = self.words("blocks", VectorCount(lanes))
        targets = {s.value: s.view for s in stage.stores} if stage.direct else {}
        registers: dict[Value, str] = {}
        accs: list[tuple[str, str]] = []
        for i, group in enumerate(stage.groups):
            call = core_call(self.at, stage, i, targets.get(group.accs[0].value), outer, inlined)
            view.calls.append(call)
            for g, acc in enumerate(group.accs):
                lane = "u" if len(group.accs) == 1 else f"(u * {len(group.accs)} + {g})"
                registers[acc.value] = f"v.load(acc{i} + {lane} * VB)"
            if not stage.direct:
                several = not (group.rowwise or self.one_row)
                row = f" + (r - m) * {call.out_stride}" if several else ""
                accs.append((f"acc{i}", f"{call.out}{row}"))
        if not stage.direct:
            several = in_scan and not self.one_row
            selected = selected_rows(stage, self.leaves) if several else {}
            writer = Statements(
                *(self.at, stage, outer, registers, self.leaves, self.left_out),
                column=view.column + 12,
                selected=selected,
            )
            # A row's own matrix leaves its result for one row only, so its epilogue stays whole.
            rowwise = any(g.rowwise for g in stage.groups)
            shared = bool(stage.groups) and not rowwise and not self.one_row
            view.loops = writer.run(split=shared)
            view.row_lines = writer.row_lines
            for loop in view.loops:
                read = set(re.findall(r"\w+", " ".join(loop.lines)))
                loop.accs = [f"{name} = {place}" for name, place in accs if name in read]
            view.overwrites = [*overwrites(self.at, stage, selected, self.leaves)]
            view.streams = [name in writer.streamed for name, _ in view.row_lines]
            if shared and any(view.streams):
                view.fetch = self.words(f"{stage.name}_fetch", FetchesRows(stage.name))
        return view
