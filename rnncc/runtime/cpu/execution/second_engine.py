"""Four directions of one cell + arrays -> gradients, and gradients of those.

The four run in a row, each reading what those before it saved (`passes.second`). The first two
only repeat a call and its pullback, so that whoever never asks for second derivatives keeps
nothing for them.

Non-Goals: checking what users give, arranging what they get (`second`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.result_roles import cotangent_name, final_name, gradient_name
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.cpu.execution.job import NO_RESIDUALS, Arrays, Job, Residuals
from rnncc.runtime.cpu.execution.report import plan_side
from rnncc.runtime.cpu.execution.run import Direction
from rnncc.runtime.cpu.execution.time_chunks import Saved


@dataclass(slots=True)
class SavedAgain:
    """What a second pullback owns: that of the first, and what four directions save."""

    first: Saved
    arrays: dict[str, Any]
    residuals: Residuals = NO_RESIDUALS

    def copy(self) -> SavedAgain:
        """For one more way back, which adds residuals of its own."""
        return SavedAgain(self.first, dict(self.arrays), self.residuals)


class CpuSecondEngine:
    """`layer_options.SecondEngine` on kernels. Thread-safe; owns no layer's state."""

    def __init__(
        self,
        cell: Any,
        forward: DirectionSpec,
        backward: DirectionSpec,
        backward_pullback: DirectionSpec,
        forward_pullback: DirectionSpec,
        side: Callable[..., Direction] = Direction,
    ) -> None:
        """side: makes a direction's side."""
        self.cell = cell
        self.dtype = np.dtype(cell.dtype)
        self._forward = side(forward, cell.dtype, cell=cell.name)
        self._backward = side(backward, cell.dtype, cell=cell.name)
        # What they read in place of weights are cotangents, other ones at every call.
        self._backward_pullback = side(backward_pullback, cell.dtype, kept_packs=0, cell=cell.name)
        self._forward_pullback = side(forward_pullback, cell.dtype, kept_packs=0, cell=cell.name)

    # ---- calls --------------------------------------------------------------------------------

    def gradients(self, saved: Saved, cotangents: Arrays) -> tuple[dict[str, Any], SavedAgain]:
        """Every gradient by parameter name, and what `second` needs.

        `saved` is what the first engine's forward saved, `cotangents` by name of result; a missing
        one is zero. The caller may change its arrays in place afterwards.
        """
        room = self._forward.room(saved.arrays)
        own = {cotangent_name(name): room.copy(array) for name, array in cotangents.items()}
        again = SavedAgain(saved, {**saved.arrays, **own})
        self._run(self._forward, again)
        return self._run(self._backward, again), again

    def second(
        self, again: SavedAgain, cotangents: Arrays, wanted: frozenset[str]
    ) -> dict[str, Any]:
        """Gradients of sum(cotangents * gradients), of those wanted that depend on anything.

        By parameter name, and `d.<result>` with respect to the cotangent of a result. May be
        called again with the same `again`.
        """
        again = again.copy()
        again.arrays |= {cotangent_name(gradient_name(n)): a for n, a in cotangents.items()}
        gradients = self._run(self._backward_pullback, again, wanted)
        results = [o.name for o in self.cell.outputs]
        results += [final_name(s.name) for s in self.cell.states]
        if wanted.difference(map(cotangent_name, results)):
            gradients |= self._run(self._forward_pullback, again, wanted)
        return gradients

    def _run(
        self, side: Direction, again: SavedAgain, wanted: frozenset[str] | None = None
    ) -> dict[str, Any]:
        """One direction: its results; what it saves joins what is known."""
        first = again.first
        arrays = {**again.arrays, **self._zeros(side, again)}
        job = Job(
            arrays,
            first.call,
            first.version,
            again.residuals,
            wanted,
            first_step=first.first_step,
        )
        side.steps, side.rows = first.call.time, first.call.batch
        run = side.run(job)
        again.residuals = again.residuals.joined(run.residuals())
        return run.results

    def _zeros(self, side: Direction, again: SavedAgain) -> Mapping[str, Any]:
        """For the cotangents nobody gave."""
        first, zeros = again.first, {}
        room = side.room(first.arrays)
        for buffer, role, name in side.direction.params:
            if role == "cotangent" and name not in again.arrays:
                decl = side.buffers[buffer]
                lead = [{"B": first.call.batch, "T": first.call.time}[a] for a in decl.axes]
                shape = [evaluate(s, dict(first.call.sizes)) for s in decl.shape]
                zeros[name] = room.zeros((*lead, *shape))
        return zeros

    # ---- what ran -------------------------------------------------------------------------------

    def plan(self) -> str:
        """The kernels of the last calls, their threads and tiles, and why."""
        sides = {
            "forward, again": self._forward,
            "backward, again": self._backward,
            "pullback of the backward": self._backward_pullback,
            "pullback of the forward": self._forward_pullback,
        }
        return "\n".join(line for title, side in sides.items() for line in plan_side(title, side))
