"""A Job of one direction -> the same over and over, on other arrays that lie alike.

What a Run looks up by names and strides is looked up once. What is left of a call is memory, the
packed weights of its version, and addresses, which the caller brings in order: of the arrays that
are read, of what a forward has saved, and of memory for the results.

Non-Goals: checks (callers compare shapes, strides and dtypes with those it was made of); blocks of
steps (`time_chunks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rnncc.runtime.common import memory_pool
from rnncc.runtime.common.memory_pool import address_of
from rnncc.runtime.cpu.execution.job import Arrays, Job, Residuals
from rnncc.runtime.cpu.execution.row_blocks import spans_of
from rnncc.runtime.cpu.execution.run import ANYWHERE, Direction, Run
from rnncc.runtime.cpu.kernels.executor import SAVED, Plan
from rnncc.runtime.cpu.planning.target import run_plan
from rnncc.runtime.cpu.planning.weight_packing import Packed

if TYPE_CHECKING:
    from rnncc.runtime.cpu.planning.executable import Executable


class Direct(Run):
    """One direction for arrays that lie like a Job's. Several threads may call it.

    names: of the arrays it reads, in the order of their addresses. constants: by name those of the
    Job's that were to be kept, for callers who have nothing else to bring. places: names and
    shapes of all that is written, in the order of its addresses; the results are among them.
    saved_bytes: of the memory a forward leaves for its pullback, aligned like all of ours.
    """

    __slots__ = ("_made", "_plan", "_rates", "constants", "names", "places", "saved_bytes")
    _plan: Plan
    _made: Executable

    def __init__(self, side: Direction, job: Job, kept: Iterable[str] = ()) -> None:
        super().__init__(side, job)
        arrays = dict(zip(self.names, self.arrays, strict=True))
        self.constants = {n: arrays[n] for n in arrays.keys() & set(kept)}
        del self.job, self.arrays, self._packed  # what a call brings isn't kept

    def _go(self, ready: object, packed: Packed, seed: int) -> None:
        """Nothing runs."""
        executable, choice = self.ready.prepared, self.ready.choice
        self._made, self._plan = executable, choice.plan
        self._rates = tuple([float(self.job.arrays[name]) for name in self.side.rate_names])
        self.names = tuple([name for _, name in self.side.params.given])
        self.places = choice.arrays
        self.saved_bytes = executable.saved_bytes
        self._packed = packed

    @property
    def fixed(self) -> list[int]:
        """Addresses of the constants, 0 of what a call brings, in the order of `names`."""
        constants = self.constants
        return [address_of(constants[n]) if n in constants else 0 for n in self.names]

    @property
    def is_whole(self) -> bool:
        """Whether kernels write all results where they are wanted."""
        return not self.ready.later

    def falls_apart(self, masks: Arrays) -> bool:
        """Whether a call with these masks is better run in blocks of its rows."""
        return bool(spans_of(self.side.direction, self._made.binding.call, masks))

    def packed(self, version: object, weights: Arrays, given: Sequence[int], seed: int) -> Packed:
        """The weights of this version, by name, as kernels read them."""
        side, executable = self.side, self._made
        key = (version, self._rates, executable.draws_weights and seed, executable.tile_key)
        return side.find_packed(key) or side.keep_packed(
            key, side.pack(executable, weights, seed, given)
        )

    def run(
        self,
        packed: Packed,
        given: Sequence[int],
        targets: Sequence[int],
        seed: int = 0,
        saved: int = ANYWHERE,
        residuals: Sequence[int] = (),
    ) -> None:
        """All kernels, over these addresses. saved: of memory for what a pullback reads."""
        side, plan = self.side, self._plan
        side.last, call = self._made, self._made.binding.call
        side.steps, side.rows = call.time, call.batch
        workspace = memory_pool.POOL.take(plan.workspace_bytes)
        try:
            base = address_of(workspace)
            addresses = packed.addresses
            run_plan(
                plan,
                [base, saved, packed.base, seed, 0, *given, *residuals, *addresses, *targets],
            )
        finally:
            memory_pool.POOL.give(workspace)

    # ---- from a forward to its pullback ---------------------------------------------------------

    def left(self, saved: int, packed: Packed, names: Iterable[str]) -> list[int]:
        """Addresses of residuals, by name."""
        places = {r.name: r.place for r in self._made.residuals}
        wanted = [places[n] for n in names]
        return [(saved if p.group == SAVED else packed.base) + p.offset for p in wanted]

    def looked_up(self, saved: int, packed: Packed, *owners: object) -> Residuals:
        """Residuals for a pullback that looks them up by name."""
        bases = {True: saved, False: packed.base}
        places = {
            r.name: (bases[r.place.group == SAVED] + r.place.offset, r.layout)
            for r in self._made.residuals
        }
        return Residuals(places, (packed, *owners))
