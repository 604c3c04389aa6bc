"""Calls whose arrays lie like those of one before: what is looked up once, whoever brings them.

    FastPath       which arrays kernels read, by their numbers among a call's, on the way there
    BackwardPath   the same on the way back, and where gradients belong

What runs call by call, addresses in and kernels, is each framework's own: it asks its tensors, with
nothing in between.

Non-Goals: who may take such a path; memory for results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rnncc.artifact.cell import MASKS, CellDescription, Variant
from rnncc.common.result_roles import cotangent_name, final_name
from rnncc.runtime.api.call import NO_PLACES
from rnncc.runtime.api.time_axis import Order
from rnncc.runtime.cpu.execution.engine import CpuEngine
from rnncc.runtime.cpu.execution.fast_path import Direct
from rnncc.runtime.cpu.planning.weight_packing import Packed

MOST_PATHS = 64  # of one kind of call
Shape = tuple[int, ...]


class SizesOfCall(Protocol):
    """What shapes tell; a call of a path has all of it."""

    @property
    def sizes(self) -> dict[str, int]: ...
    @property
    def batch(self) -> int | None: ...
    @property
    def time(self) -> int | None: ...


@dataclass(slots=True)
class BackwardPath:
    """A backward: what runs, which cotangents it reads and where gradients belong.

    given: addresses, 0 of what a call brings: `read` and `handed` are (place there, number of the
    tensor or cotangent), `steps` places of masks. left: residuals in order. targets: of each array
    that is written, the number of what asked for it, -1 where nobody did, and its shape.
    """

    direct: Direct
    given: list[int]
    read: list[tuple[int, int]]
    handed: list[tuple[int, int]]
    steps: list[int]
    left: list[str]
    targets: list[tuple[int, Shape]]


class FastPath:
    """Calls of one kind, in one direction. at: of arguments and states by name, which tensor they
    are; the mask stands between them, weights behind. constants: what no call brings."""

    def __init__(
        self,
        cell: CellDescription,
        rates: Mapping[str, float],
        order: Order,
        known: SizesOfCall,
        engine: CpuEngine,
        variant: Variant,
        direct: Direct,
        given: bool,
        masked: bool,
    ) -> None:
        self.cell, self.order, self.engine, self.variant = cell, order, engine, variant
        self.direct, self.given, self.masked = direct, given, masked
        assert known.batch is not None and known.time is not None
        self.sizes, self.batch, self.time = known.sizes, known.batch, known.time
        self.at = {n: i for i, n in enumerate(cell.arguments)}
        self.arguments = len(self.at)
        states = [s.name for s in cell.states] if given else []
        self.at |= {n: i for i, n in enumerate(states, self.arguments + masked)}
        self.first_weight = len(self.at) + masked
        self.timed = {a.name for a in cell.inputs}
        self.results = {o.name: i for i, o in enumerate(cell.outputs)}
        finals = enumerate(cell.states, len(self.results))
        self.results |= {final_name(s.name): i for i, s in finals}
        self.constants: dict[str, Any] = {**direct.constants, **rates}
        self._given = direct.fixed
        self._read, self._steps = self._brought(direct)

    def _brought(self, direct: Direct) -> tuple[list[tuple[int, int]], list[int]]:
        """Of what kernels read: (place, number of the tensor), and the places of masks."""
        read = [(i, self.at[n]) for i, n in enumerate(direct.names) if n in self.at]
        return read, [direct.names.index(n) for n in MASKS if n in direct.names]

    def named(
        self, arrays: Sequence[np.ndarray], weights: Mapping[str, np.ndarray], seed: int
    ) -> dict[str, Any]:
        """All that a call reads by name, as its steps run. arrays: its own, weights left out."""
        read: dict[str, Any] = {**weights, **self.constants, "seed": seed}
        for name, at in self.at.items():
            read[name] = self.order.run(arrays[at]) if name in self.timed else arrays[at]
        return read

    def saved(
        self, named: dict[str, Any], version: object, packed: Packed, left: int, owner: object
    ) -> Any:
        """What the engine's own backward needs. left: the address of what kernels have saved."""
        residuals = self.direct.looked_up(left, packed, owner)
        return self.engine.saved(named, self.sizes, self.batch, self.time, version, residuals)

    def backward_path(
        self,
        saved: Any,
        cotangents: Mapping[str, np.ndarray],
        asked: Mapping[str, tuple[int, Shape]],
        dtype: np.dtype[Any],
        strided: Mapping[str, np.ndarray] = NO_PLACES,
    ) -> BackwardPath | None:
        """What backwards like this one run; None where they have to be looked up each time.

        cotangents: as the engine takes them. asked: by name of a parameter the number of what asks
        for its gradient, and its shape. strided: places like those that gradients are written to,
        where they aren't dense."""
        out = {**strided}
        if not self.order.is_plain:
            for name in self.timed & asked.keys():
                out[name] = self.order.run(np.empty(asked[name][1], dtype))
        wanted = frozenset(asked)
        direct = self.engine.direct_back(saved, cotangents, wanted, out, self.constants)
        if direct is None:
            return None
        brought = {cotangent_name(n): self.results[n] for n in cotangents}
        numbers = {n: at for n, (at, _) in asked.items()}
        read, steps = self._brought(direct)
        return BackwardPath(
            direct,
            direct.fixed,
            read,
            [(i, brought[n]) for i, n in enumerate(direct.names) if n in brought],  # others: zeros
            steps,
            [name for _, name in direct.side.params.residuals],
            [(numbers.get(n, -1), shape) for n, shape in direct.places],
        )
