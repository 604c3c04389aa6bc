"""Kernel -> KernelView of the same kernel that also writes when it did what.

    ...                                 a stage, as it is without
    stamp(stamps, 3, spent)             its number in `KernelSpec.pieces`; the cores' own ticks
    spent = 0

Loops, calls, statements and their order are those of `KernelWriter`: so are all results.

Non-Goals: reading what was written (`runtime.profiles`).
"""

from __future__ import annotations

from collections.abc import Iterable

from rnncc.artifact.kernel_args import StampBase
from rnncc.artifact.kernel_tables import PieceSpec
from rnncc.emit.cpu.kernel_view import KernelWriter
from rnncc.emit.shared.views import KernelView, LaneView
from rnncc.ir.program import Op
from rnncc.schedule.model import LaneStage, Stage, ops_of

LONGEST = 80  # of the names that a piece tells


class TimedKernelWriter(KernelWriter):
    """Writes one kernel's view, with its stamps."""

    def standard_words(self) -> None:
        super().standard_words()
        self.words.reserve("stamp_base", StampBase())

    def view(self) -> KernelView:
        view = super().view()
        if self.kernel.is_plain:
            return view
        view.pieces = [PieceSpec(0, "waiting")]
        view.begins = ["stamps = stamp_base + part * STAMP_LINE", "spent = 0"]
        if self.kernel.kind == "scan":
            view.begins.append("stamp(stamps, 0, 0)")
        shown = iter(view.levels)
        for number, level in enumerate(self.kernel.levels, 1):
            # A twin leaves stages out, and its numbers are those of the kernel's pieces.
            here = [not self.is_idle(stage) for stage in level.stages]
            parts = iter(next(shown) if any(here) else ())
            for stage, is_here in zip(level.stages, here, strict=True):
                stamps = self._stamps(view, self._piece(number, stage))
                if is_here:
                    part = next(parts)
                    part.stamps = stamps
                    if isinstance(part, LaneView) and not part.direct:
                        for call in part.calls:
                            call.timed = True
            waits = self._stamps(view, PieceSpec(number, "waiting"))
            view.waits += waits[:1] if any(here) else []
        return view

    def _stamps(self, view: KernelView, piece: PieceSpec) -> list[str]:
        view.pieces.append(piece)
        return [f"stamp(stamps, {len(view.pieces) - 1}, spent)", "spent = 0"]

    def _piece(self, level: int, stage: Stage) -> PieceSpec:
        what = self._names(ops_of(stage))
        if not isinstance(stage, LaneStage):
            return PieceSpec(level, "rows", stage.name, what)
        kind = "lanes" if not stage.groups else "sums" if stage.direct else "stage"
        own = [a for g in stage.groups if g.rowwise for a in g.accs]
        shape = tuple(map(str, stage.shape))
        terms = [(*shape, *map(str, s.k_sizes)) for a in own for s in a.segments]
        later = [
            (i, k)
            for i, group in enumerate(stage.groups)
            for k, segment in enumerate(group.accs[0].segments)
            if segment.skip_first
        ]
        return PieceSpec(level, kind, stage.name, what, tuple(terms), tuple(later))

    def _names(self, ops: Iterable[Op]) -> str:
        """What the equations behind some ops set."""
        lines = [str(c).lstrip("# ") for c in self.comments(ops)]
        names = ", ".join(
            dict.fromkeys(line.partition(" = ")[0] for line in lines if " = " in line)
        )
        return names if len(names) <= LONGEST else f"{names[:LONGEST]}..."
