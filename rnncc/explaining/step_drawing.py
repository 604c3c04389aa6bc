"""A Schedule as boxes: kernels side by side, in each its levels, in each level its stages.

Stages of one level don't wait for each other; between two levels everybody does.

Non-Goals: what a stage computes, line by line (`schedule.printer`).
"""

from __future__ import annotations

from dataclasses import dataclass

from rnncc.drawing.density import DENSE, ROW, kind_of
from rnncc.explaining.layered import GAP, LINE, Box, PlacedBox
from rnncc.explaining.origins import Origins
from rnncc.schedule.model import (
    Buffer,
    GradStage,
    Kernel,
    LaneStage,
    RowStage,
    Schedule,
    Stage,
    ops_of,
)

HEAD = 2 * LINE + 8  # pixels of a kernel's title
MOST = 30  # letters of a line


@dataclass(frozen=True)
class KernelFrame:
    """waits: where one level ends, in pixels from the left."""

    title: str
    x: int
    width: int
    height: int
    waits: tuple[int, ...]
    boxes: tuple[PlacedBox, ...]


@dataclass(frozen=True)
class StepDrawing:
    width: int
    height: int
    kernels: tuple[KernelFrame, ...]


def step_drawing(schedule: Schedule, origins: Origins) -> StepDrawing:
    residuals = {r.value for r in schedule.program.results if r.role.kind == "residual"}
    saved = {schedule.places[v].buffer for v in residuals if v in schedule.places}
    frames, x = [], 10
    for kernel in schedule.kernels:
        frame = _frame(kernel, x, saved, origins)
        frames.append(frame)
        x += frame.width + GAP
    height = max((f.height for f in frames), default=0)
    return StepDrawing(x - GAP + 10, height + 20, tuple(frames))


def _frame(kernel: Kernel, x: int, saved: set[Buffer], origins: Origins) -> KernelFrame:
    each = {"scan": "each step", "rows": "all rows", "grads": "sums over rows", "weights": "once"}
    turn = ", backwards" if kernel.reverse else ""
    title = f"{kernel.name}: {each.get(kernel.kind, kernel.kind)}{turn}"
    left, lowest = x + GAP, 0
    waits, boxes = [], []
    for number, level in enumerate(kernel.levels):
        if number:
            waits.append(left)
            left += GAP
        top, widest = 10 + HEAD, 0
        for at, stage in enumerate(level.stages):
            box = _box(f"{kernel.name} {number} {at}", stage, saved, origins)
            boxes.append(PlacedBox(box, left, top))
            top += box.height + GAP
            widest = max(widest, box.width)
        left, lowest = left + widest + GAP, max(lowest, top)
    width = max(left - x, round(len(title) * 6.6) + 2 * GAP)
    return KernelFrame(title, x, width, lowest - 10, tuple(waits), tuple(boxes))


def _box(key: str, stage: Stage, saved: set[Buffer], origins: Origins) -> Box:
    ops = ops_of(stage)
    source = origins.of(
        [*ops, *(s.value for s in stage.stores)] if isinstance(stage, LaneStage) else ops
    )
    titles = dict.fromkeys(origins.pieces.title(n) for n in sorted(source.equations))
    lines = [_clipped("; ".join(titles) or stage.name)]
    if isinstance(stage, LaneStage):
        kind = kind_of(ops)
        cores = sum(len(a.ops) for g in stage.groups for a in g.accs)
        said = [f"{_count(cores, 'product')}"] * bool(cores)
        said += [_count(len(stage.ops), "statement")] * bool(stage.ops)
        written = {s.view.buffer for s in stage.stores}
    elif isinstance(stage, RowStage):
        kind, said, written = ROW, [f"{stage.op.opcode} over a row"], {stage.target.buffer}
    else:
        kind = DENSE if isinstance(stage, GradStage) and stage.a is not None else ROW
        said, written = ["summed over rows"], {stage.target.buffer}
    lines.append(", ".join([kind, *said]))
    kept = written & saved
    if kept:
        named = sorted({b.value.name for b in kept} & origins.pieces.sets.keys())
        more = len(kept) - len(named)
        said = [*named, *[f"{more} more" if named else _count(more, "array")] * bool(more)]
        lines.append(_clipped(f"saves {', '.join(said)}"))
    return Box(key, tuple(lines), f"{kind} saves" if kept else kind, source)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _clipped(text: str) -> str:
    return text if len(text) <= MOST else text[: MOST - 1] + "…"
