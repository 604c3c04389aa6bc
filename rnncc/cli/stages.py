"""A cell's every stage as text, in the order of the pipeline.

    spec | forward: lower, passes, schedule | training forward, pullback: the same | module

Non-Goals: showing them (`explain`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rnncc.artifact.cell import plain_variants
from rnncc.cli.settings import Settings
from rnncc.ir.printer import print_program
from rnncc.passes.pipeline import PIPELINE
from rnncc.schedule.printer import print_schedule

FORWARD, TRAINING, PULLBACK = "forward", "training forward", "pullback"
WHOLE = ""  # stages that belong to no one Program


@dataclass(frozen=True, slots=True)
class Stage:
    """`part`: forward, training forward, pullback, or empty for the whole cell."""

    part: str
    name: str
    text: str

    @property
    def title(self) -> str:
        return f"{self.part}: {self.name}" if self.part else self.name


def stage_names() -> tuple[str, ...]:
    """What --after accepts."""
    return ("spec", "lower", "differentiate", *(n for n, _ in PIPELINE), "schedule", "module")


def all_stages(settings: Settings, dtype: str, *, module: bool = True) -> Iterator[Stage]:
    """Every stage, first to last; `module`: that one, too."""
    yield Stage(WHOLE, "spec", settings.spec.text.rstrip() + "\n")
    programs = settings.derivation.plain
    parts = {
        FORWARD: programs.forward,
        TRAINING: programs.training,
        PULLBACK: programs.pullback,
    }
    for part, optimised in parts.items():
        before, text = None, ""
        for name, after in optimised.passes:
            if after is not before:
                before, text = after, print_program(after)
            shown = "differentiate" if name == "lower" and part != FORWARD else name
            yield Stage(part, shown, text)
        yield Stage(part, "schedule", print_schedule(optimised.schedule))
    if module:
        text = settings.derivation.module(
            dtype, plain_variants(unroll=settings.derivation.unroll), on_demand=True
        )
        yield Stage(WHOLE, "module", text)
