"""The forward of an operation: tensors -> results, and what the backward needs.

Non-Goals: the way back (`operation`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.artifact.cell import MASKS
from rnncc.common.result_roles import final_name
from rnncc.common.unrolling import unroll_of
from rnncc.operations.calls import (
    Request,
    SavedCall,
    SymbolicShapes,
    content_key,
    known_of,
    stable_key,
)
from rnncc.operations.weights import WeightVersions, keep, new_version, serve
from rnncc.runtime.api.call import CellKernels, NumpyCall, draws, kernels_for
from rnncc.runtime.api.call_gradients import DirectionSaved
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.masking import masking
from rnncc.runtime.api.time_axis import Order
from rnncc.runtime.api.validation import Dims
from rnncc.runtime.common.memory_pool import aligned
from rnncc.runtime.cpu.execution import engine as runtime_engine

_MOST_SHAPES = 256  # sets of shapes whose sizes an operation remembers
_WORTH_IT = 2**17  # bytes that take longer to copy than kernels to be told another place


class Forward:
    """What an operation is, and its forward.

    native: the layer that says what is computed; its own weights aren't read. sizes: what every
    call has to agree with.
    """

    def __init__(self, native: Layer, sizes: Mapping[str, int]) -> None:
        self.native, self.cell, self.sizes = native, native.cell, dict(sizes)
        cell = self.cell
        self.dtype = np.dtype(native.dtype)
        self.key = content_key(native, self.sizes)
        self.stable_key = stable_key(self.key)
        self.order = Order(backwards=native.go_backwards)
        self.timed = [a.name for a in cell.inputs]
        self.is_timed = [n in self.timed for n in (*cell.arguments, *(s.name for s in cell.states))]
        self.states = [s.name for s in cell.states]
        self.outputs = [o.name for o in cell.outputs]
        self.owned = [a.name for a in (*cell.weights, *cell.constants)]
        self.results = [*self.outputs, *map(final_name, self.states)]
        self.rates: dict[str, float] = dict(native._chosen.rates)
        self.draws = draws(cell, self.rates)
        self.starting = tuple(s for s in cell.states if s.default)
        self.zeros = native.zero_output_for_mask and native.return_sequences
        self.made: dict[Any, Any] = {}  # what mechanisms make of it
        self._lent = frozenset([*cell.arguments, *self.states, *MASKS])
        self.versions = WeightVersions()
        self._known: dict[tuple[Dims, ...], SymbolicShapes] = {}
        self._engines: dict[tuple[bool, bool, str], CellKernels] = {}
        serve(self, native)

    def known(self, shapes: Iterable[Iterable[int | None]]) -> SymbolicShapes:
        """What the shapes of a call's arguments tell. ValueError where they don't fit the cell."""
        key = tuple([tuple(shape) for shape in shapes])
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_SHAPES:
                self._known.clear()
            known = self._known[key] = known_of(self.native, self.sizes, key)
        return known

    def plan(self) -> str:
        """Which kernels ran in the last calls, and why."""
        ran = self.made.get("on device", {}).values()
        plans = [*(e.plan() for _, e, _ in self._engines.values()), *(r.plan() for r in ran)]
        return "\n".join(plans) or "has not run"

    # ---- forward ------------------------------------------------------------------------------

    def forward(
        self,
        request: Request,
        tensors: Sequence[np.ndarray],
        seed: int | None,
        *,
        save: bool,
        lent: bool = False,
        out: Sequence[np.ndarray] = (),
    ) -> tuple[list[np.ndarray], SavedCall | None]:
        """Results, owned by the caller; with `save`, what `backward` needs.

        lent: nobody will write the tensors before the backward, or they are handed over again for
        it (`hand_again`). out: arrays to write the results into, which are those returned then."""
        call = self.begin(request, tensors, save and lent)
        if lent:
            call.lent = self._lent
        call.out = dict(zip(self.results, out, strict=True)) if out else {}
        ran = call.run(request.training, seed, save)
        results = placed([ran.results[n] for n in self.results], out)
        if not save:
            return results, None
        return results, SavedCall(request, call.known, DirectionSaved.of(call, ran))

    def hands_again(self, request: Request) -> bool:
        """Whether calls of this kind can do with tensors that are handed over again."""
        if request.masked or self.native.checkpoint_every:
            return False
        engine = self.engine(request.training, False).engine
        return type(engine) is runtime_engine.CpuEngine

    def hand_again(self, saved: SavedCall, tensors: Sequence[np.ndarray]) -> None:
        """The call's tensors, in memory that is there now: the same numbers."""
        kept = saved.direction.saved
        if kept is None:
            return
        assert kept.is_whole
        at = len(self.cell.arguments)
        arrays: dict[str, np.ndarray] = kept.arrays
        for name, array in zip(self.cell.arguments, tensors, strict=False):
            arrays[name] = self.order.run(array) if name in self.timed else array
        if saved.request.given:
            arrays.update(zip(self.states, tensors[at:], strict=False))
        arrays.update(zip(self.owned, tensors[len(tensors) - len(self.owned) :], strict=True))

    def begin(self, request: Request, tensors: Sequence[np.ndarray], lent: bool) -> OperationCall:
        """A call with its arrays. lent: its weights are of a version of their own."""
        cell = self.cell
        at = len(cell.arguments)
        read = dict(zip(cell.arguments, tensors, strict=False))
        known = self.known([a.shape for a in read.values()])
        assert known.batch is not None and known.time is not None
        mask = tensors[at] if request.masked else None
        at += request.masked
        own = tensors[len(tensors) - len(self.owned) :]
        version, weights = (new_version(), own) if lent else self.versions.find(own)
        arrays: dict[str, Any] = dict(zip(self.owned, weights, strict=True))
        arrays.update(read)
        if self.order.backwards:
            arrays.update({n: self.order.run(read[n]) for n in self.timed})
        states = dict(zip(self.states, tensors[at:], strict=False)) if request.given else {}
        shapes = {n: tuple(d or 0 for d in shape) for n, shape in known.states.items()}
        for name, array in states.items():
            if array.shape != shapes[name]:
                raise ValueError(
                    f"initial state {name} of {cell.name} has shape "
                    f"{list(array.shape)}, expected {list(shapes[name])}"
                )
        call = OperationCall(
            cell,
            self.native,
            arrays,
            known.sizes,
            known.batch,
            known.time,
            version,
            None,
            frozenset(() if request.given else self.states),
            self.dtype,
            self,
            known,
            {},
        )
        call.start(states, shapes)
        if mask is not None:
            resets = None
            if mask.ndim == 3:  # what counts, and before which steps rows start anew
                resets, mask = mask[1], mask[0] != 0
            call.masks = masking(
                mask,
                None,
                known.batch,
                known.time,
                zeros=self.zeros,
                backwards=self.order.backwards,
                resets=resets,
            )
        return call

    def engine(self, training: bool, masked: bool, resets: str = "") -> CellKernels:
        """The kernels of such calls."""
        kernels = self._engines.get((training, masked, resets))
        if kernels is None:
            native = self.native
            kernels = self._engines[training, masked, resets] = kernels_for(
                native._binding,
                self.rates,
                training=training,
                masked=masked,
                resets=resets,
                precision=native.precision,
                unroll=unroll_of(native.unroll),
            )
            keep(kernels.engine, native)
        return kernels


@dataclass(slots=True)
class OperationCall(NumpyCall):
    """One call of an operation. out: by name where results are wanted, if not in new arrays."""

    operation: Forward
    known: SymbolicShapes
    out: dict[str, np.ndarray]

    def kernels(self, training: bool, masked: bool, resets: str) -> CellKernels:
        return self.operation.engine(training, masked, resets)

    def seed(self, given: int | None) -> int:
        assert given is not None
        return given

    def places(self, cut: bool) -> dict[str, np.ndarray]:
        places = worth_it(self.out)
        if cut:
            results = zip(self.operation.outputs, self.known.results, strict=False)
            dtype = self.dtype
            places |= {n: self.out[n] if self.out else aligned(s, dtype) for n, s in results}
        return places


# ---- results in arrays of others -----------------------------------------------------------------


def worth_it(places: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those that kernels should write into themselves: a small one is copied sooner."""
    return {n: a for n, a in places.items() if a.nbytes >= _WORTH_IT}


def placed(found: list[np.ndarray], places: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same numbers in these places, if there are any."""
    if not places:
        return found
    for place, array in zip(places, found, strict=True):
        if array is not place:
            place[...] = array
    return [*places]
