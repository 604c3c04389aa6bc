"""Kernel -> KernelView for CUDA: everything a template prints, as finished strings.

Naming and addresses are those of the CPU's kernels; what differs is who runs which rows and lanes,
and that sums are loops where the CPU calls cores.

Non-Goals: which stages exist (`schedule`); numbers (`cuda.kernel_arguments`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rnncc.artifact.kernel_args import (
    BatchSize,
    Counters,
    GroupCount,
    InnerRows,
    KernelArgument,
    MemberCount,
    RowCount,
    StepCount,
    WaitingBlocks,
)
from rnncc.artifact.literals import literal
from rnncc.common.user_text import Code
from rnncc.emit.cuda.contractions import acc_name, contraction_lines, tile_address
from rnncc.emit.cuda.grad_stages import grad_view
from rnncc.emit.cuda.items import items_of
from rnncc.emit.cuda.row_stages import row_views
from rnncc.emit.cuda.statements import ScalarStatements
from rnncc.emit.cuda.stationary import Stationary, fits, item_lines
from rnncc.emit.cuda.summed import SummedGroups, summed_groups
from rnncc.emit.cuda.views import CudaKernelView, StageView
from rnncc.emit.shared.addresses import Addresses
from rnncc.emit.shared.kernel_names import Words
from rnncc.emit.shared.views import Loop
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op
from rnncc.schedule.model import GradStage, Kernel, LaneStage, RowStage, Schedule

# Of so many levels registers hold where each thread's items are, from step to step; of more, there
# aren't enough registers, and it is cheaper to work them out again than to spill them.
KEPT_LEVELS = 3
# What the templates themselves read, by the names they read it by.
SCAN: dict[str, KernelArgument] = {
    "T": StepCount(),
    "B": BatchSize(),
    "members": MemberCount(),
    "groups": GroupCount(),
    "counters": Counters(),
    "waiting": WaitingBlocks(),
}


class CudaKernelWriter:
    """Writes one kernel's view; `source` gives a line's text for comments."""

    def __init__(self, kernel: Kernel, schedule: Schedule, source: Mapping[int, Code]) -> None:
        self.kernel = kernel
        self.source = source
        self.words = Words()
        # Registers hold where a step's rows are, which NVVM wouldn't find out.
        self.at = Addresses(kernel, self.words, steps_named=True)
        self.leaves = {
            op.result: op for op in schedule.program.ops() if OPS[op.opcode].kind is Kind.LEAF
        }

    def view(self) -> CudaKernelView:
        kernel = self.kernel
        for name, argument in (SCAN if kernel.kind == "scan" else {"rows": RowCount()}).items():
            self.words.reserve(name, argument)
        if kernel.kind == "rows" and kernel.axes == "BT":
            self.words.reserve("n1", InnerRows())
        if kernel.kind == "grads":
            self.words.reserve("T", StepCount())
            self.words.reserve("B", BatchSize())
        levels = [[v for s in level.stages for v in self.stage(s)] for level in kernel.levels]
        view = self._kernel(levels)
        if any(fits(s, kernel) for level in kernel.levels for s in level.stages):
            view.twin = self.twin()
            if any(summed_groups(kernel)):
                view.summed = self.summed()
            # All are run with the same words.
            last = view.summed or view.twin
            for each in (view, view.twin):
                each.words = last.words
        return view

    def twin(self) -> CudaKernelView:
        """The kernel with the weights of its contractions in registers, wherever they can be."""
        stationary = Stationary(self.at)
        view = self._kernel(self._levels(lambda s: self.stationary_stage(s, stationary)))
        view.prologue, view.shapes = stationary.prologue, literal(tuple(stationary.shapes), 4)
        return view

    def summed(self) -> CudaKernelView:
        """The kernel that reads the sums of its contractions, wherever they are products."""
        groups = SummedGroups(self.at)
        return self._kernel(self._levels(lambda s: self.lane_stage(s, groups.sums(s))))

    def _levels(self, other: Callable[[LaneStage], StageView]) -> list[list[StageView]]:
        """Every stage's views, and the other one of stages whose contractions can be had so."""
        return [
            [
                view
                for s in level.stages
                for view in (
                    [other(s)]
                    if isinstance(s, LaneStage) and fits(s, self.kernel)
                    else self.stage(s)
                )
            ]
            for level in self.kernel.levels
        ]

    def _kernel(self, levels: list[list[StageView]]) -> CudaKernelView:
        kernel, lines = self.kernel, self.at.step_lines
        words = [(name, argument) for argument, name in self.words.arguments.items()]
        view = CudaKernelView(
            kernel.name, kernel.kind, Code(), words, lines, levels, kernel.reverse
        )
        view.unroll = kernel.unroll
        view.anew = kernel.kind == "scan" and len(levels) > KEPT_LEVELS
        return view

    def stage(self, stage: LaneStage | RowStage | GradStage) -> list[StageView]:
        if isinstance(stage, LaneStage):
            return [self.lane_stage(stage)]
        if isinstance(stage, RowStage):
            return row_views(self.at, stage, self.comments([stage.op]))
        return [grad_view(self.at, stage, self.comments([stage.op]))]

    def comments(self, ops: Iterable[Op | None]) -> list[Code]:
        """The equations behind some ops, each once, in the user's order."""
        lines = [op.span.line for op in ops if op is not None and op.span is not None]
        return [self.source[n] for n in dict.fromkeys(sorted(lines)) if n in self.source]

    def lane_stage(
        self, stage: LaneStage, sums: dict[tuple[int, int], str] | None = None
    ) -> StageView:
        """sums: what its contractions are, where others have made them."""
        at, shape = self.at, stage.shape
        names = [*(f"o{i}" for i in range(len(shape) - 1)), "lane"] if shape else []
        items = items_of(at, shape, names)
        outer = items.axes[:-1]
        view = StageView(count=items.count, places=items.places)
        view.places += ["q = lane * SIZE"] if shape else ["lane = 0", "q = 0"]
        view.comments = self.comments(stage.all_ops)
        for i in range(len(stage.groups)) if sums is None else ():
            view.lines += contraction_lines(at, stage, i, outer)
        view.lines += item_lines(sums or {})
        if stage.tiled is not None:
            (group,) = stage.groups
            for g in range(len(group.accs)):
                address = tile_address(at, stage.tiled, g, outer)
                view.lines.append(f"v.store({address}, {acc_name(0, g)})")
            return view
        view.lines += self.statements(stage, outer)
        return view

    def stationary_stage(self, stage: LaneStage, made: Stationary) -> StageView:
        view = StageView(kind="tiles", lanes=self.at.size(stage.shape[0]))
        view.comments = self.comments(stage.all_ops)
        view.core, sums = made.core_lines(stage)
        view.lines = [*item_lines(sums), *self.statements(stage, [])]
        return view

    def statements(self, stage: LaneStage, outer: list[Loop]) -> list[str]:
        """The stage's statements for one item, whose sums have their names."""
        registers = {
            acc.value: acc_name(i, g)
            for i, group in enumerate(stage.groups)
            for g, acc in enumerate(group.accs)
        }
        writer = ScalarStatements(self.at, stage, outer, registers, self.leaves)
        loops = writer.run(split=False)
        lines = [f"{name} = {place}" for name, place in writer.row_lines]
        return [*lines, *(line for loop in loops for line in loop.lines)]
