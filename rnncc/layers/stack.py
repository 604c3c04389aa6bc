"""Engines of cells one on top of the other -> the engine of them all.

    for each block of steps: first cell, second cell, ..., carrying their states to the next block

Fission rather than one loop over all cells: every cell's x @ kernel is one contraction over the
block, where a fused loop would have a level and a barrier for each cell in every step. A cell
writes into the rows the next one reads; at inference those are one block long, so memory doesn't
grow with time.

    training   one block, in which every cell keeps what its pullback needs

Non-Goals: kernels; names of arrays (`parts`), who reads which (`wiring`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from rnncc.artifact.cell import STEP_FLAGS
from rnncc.common.result_roles import final_name
from rnncc.layers.parts import Part
from rnncc.layers.wiring import StackWiring
from rnncc.runtime.api.layer_options import Engine, Tensors
from rnncc.runtime.api.validation import array_shape
from rnncc.runtime.common import memory_pool
from rnncc.runtime.common.memory_pool import write_into
from rnncc.runtime.cpu.execution import time_chunks
from rnncc.runtime.cpu.execution.time_chunks import borders

NOTHING: Tensors = MappingProxyType({})


@dataclass(slots=True)
class _Saved:
    """What the cells' pullbacks need, in order of the cells."""

    cells: list[Any]


class StackEngine(StackWiring):
    """`layer_options.Engine` over those of the cells, first to last."""

    reads_gpu_arrays = False  # what one cell hands to the next is NumPy's

    def __init__(self, parts: Sequence[Part], engines: Sequence[Engine]) -> None:
        super().__init__(parts)
        self.engines = tuple(engines)
        self.dtype = np.dtype(parts[0].layer.dtype)
        self._shown = ""
        self._lasts: list[Any] = [None] * len(engines)
        self.on_gpu = all(engine.on_gpu for engine in engines)

    # ---- forward -------------------------------------------------------------------------------

    def forward(
        self,
        arrays: Tensors,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: Any,
        save: bool,
        last_only: bool,
        out: Tensors = NOTHING,
        first_step: int = 0,
        checkpoint_every: int | None = None,
        lent: frozenset[str] = frozenset(),
        carry: bool = False,
    ) -> tuple[dict[str, np.ndarray], _Saved | None]:
        """See `layer_options.Engine`."""
        own_arrays = [self.given(k, arrays) for k in range(len(self.parts))]
        own_sizes = [part.sizes(sizes) for part in self.parts]
        short = save or time <= time_chunks.LEAST_STEPS
        steps = time if short else min(time, self.block_steps(sizes, batch))
        self._shown = f"{-(-time // steps)} block(s) of at most {steps} steps, batch {batch}"
        results = {} if last_only else self._sequences(own_sizes[-1], batch, time, out)
        saved: list[Any] = []
        with ExitStack() as leases:
            if save:  # a pullback needs outputs of its own
                places = [NOTHING] * (len(self.parts) - 1)
            else:
                places = self._buffers(own_sizes, batch, steps, leases)
            places.append(results)
            for begin, end in borders(time, steps):
                cut = slice(begin, end) if steps < time else slice(None)
                feed = {n: arrays[n][:, cut] for n in self.first}
                flags = {n: arrays[n][:, cut] for n in STEP_FLAGS if n in arrays}
                for k, engine in enumerate(self.engines):
                    last = k == len(self.engines) - 1
                    span = cut if last else slice(0, end - begin)
                    own_results, kept = engine.forward(
                        {**own_arrays[k], **feed, **flags},
                        own_sizes[k],
                        batch,
                        end - begin,
                        version=version[k],
                        save=save,
                        last_only=last and last_only,
                        out={n: a[:, span] for n, a in places[k].items()},
                        first_step=first_step + begin,
                        checkpoint_every=checkpoint_every,
                        lent=self._lent(k, lent),
                        carry=not save,
                    )
                    saved.append(kept)
                    self._lasts[k] = engine.last
                    own_arrays[k] |= engine.carried(own_results)
                    if not last:
                        feed = {own: own_results[name] for own, name in self._reads[k]}
        if last_only:
            results = {o.name: own_results[o.name] for o in self.parts[-1].cell.outputs}
        results |= self._finals(own_arrays)
        return write_into(out, results), _Saved(saved) if save else None

    def repeat(
        self,
        arrays: Tensors,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: Any,
        last_only: bool,
        out: Tensors,
    ) -> Callable[[], None]:
        """See `layer_options.Engine`: every cell over the whole block, then the next."""
        self._shown = f"1 block(s) of at most {time} steps, batch {batch}"
        feed = {n: arrays[n] for n in self.first}
        flags = {n: arrays[n] for n in STEP_FLAGS if n in arrays}
        steps: list[Callable[[], None]] = []
        for k, engine in enumerate(self.engines):
            part, last = self.parts[k], k == len(self.engines) - 1
            own = part.sizes(sizes)
            if last:
                places = {o.name: out[o.name] for o in part.cell.outputs}
            else:
                shapes = {o.name: (batch, time, *array_shape(o, own)) for o in part.cell.outputs}
                places = {
                    n: memory_pool.POOL.array(shape, self.dtype) for n, shape in shapes.items()
                }
            finals = {
                final_name(s.name): out[final_name(part.name(s.name))] for s in part.cell.states
            }
            steps.append(
                engine.repeat(
                    {**self.given(k, arrays), **feed, **flags},
                    own,
                    batch,
                    time,
                    version=version[k],
                    last_only=last and last_only,
                    out=places | finals,
                )
            )
            self._lasts[k] = engine.last
            if not last:
                feed = self.read(k, places)

        def again() -> None:
            for step in steps:
                step()

        return again

    def carried(self, results: Tensors) -> dict[str, Any]:
        """See `layer_options.Engine`."""
        states = [part.name(s.name) for part in self.parts for s in part.cell.states]
        return {n: results[final_name(n)] for n in states}

    def _finals(self, carried: Sequence[Tensors]) -> dict[str, np.ndarray]:
        """Last states by their names outside. carried: what each cell's next block would read."""
        return {
            final_name(part.name(state.name)): values[state.name]
            for part, values in zip(self.parts, carried, strict=True)
            for state in part.cell.states
        }

    def _lent(self, k: int, lent: frozenset[str]) -> frozenset[str]:
        """What one cell puts out is there for the next one alone."""
        if k:
            return frozenset(self.below(k))
        return lent.intersection(self.first)

    def keep(self, layers: int) -> None:
        """See `layer_options.Engine`."""
        for engine in self.engines:
            engine.keep(layers)

    def block_steps(self, sizes: Mapping[str, int], batch: int) -> int:
        """How many steps at once need a small workspace in every cell."""
        cells = zip(self.parts, self.engines, strict=True)
        return min(engine.block_steps(part.sizes(sizes), batch) for part, engine in cells)

    def _sequences(
        self, sizes: Mapping[str, int], batch: int, time: int, out: Tensors
    ) -> dict[str, np.ndarray]:
        """Outputs of every step, whole: each block writes its own."""
        outputs = {}
        for output in self.parts[-1].cell.outputs:
            array = out.get(output.name)
            if array is None:
                shape = (batch, time, *array_shape(output, sizes))
                array = memory_pool.POOL.array(shape, self.dtype)
            outputs[output.name] = array
        return outputs

    def _buffers(
        self, sizes: Sequence[Mapping[str, int]], batch: int, steps: int, leases: ExitStack
    ) -> list[Tensors]:
        """Where one block of outputs goes, of every cell that another one reads. sizes: each
        cell's."""
        buffers: list[Tensors] = []
        for part, own in zip(self.parts[:-1], sizes[:-1], strict=True):
            arrays = {}
            for output in part.cell.outputs:
                shape = (batch, steps, *array_shape(output, own))
                size = math.prod(shape) * self.dtype.itemsize
                raw = leases.enter_context(memory_pool.POOL.borrow(size))
                arrays[output.name] = raw[:size].view(self.dtype).reshape(shape)
            buffers.append(arrays)
        return buffers

    # ---- backward ------------------------------------------------------------------------------

    def backward(
        self, saved: _Saved, cotangents: Tensors, wanted: frozenset[str], out: Tensors = NOTHING
    ) -> dict[str, np.ndarray]:
        """See `layer_options.Engine`."""
        results: dict[str, np.ndarray] = {}
        names = [o.name for o in self.parts[-1].cell.outputs]
        handed = {n: cotangents[n] for n in names if n in cotangents}
        for k in reversed(range(len(self.parts))):
            outside = self.outside[k]
            asked = self.asked(k, wanted)
            gradients = self.engines[k].backward(
                saved.cells[k],
                {**handed, **self.parts[k].finals(cotangents)},
                asked,
                {own: out[name] for own, name in outside.items() if own in asked and name in out},
            )
            self._lasts[k] = self.engines[k].last
            results |= {name: gradients[own] for own, name in outside.items() if own in gradients}
            handed = self.handed(k, gradients)
        return results

    # ---- what ran --------------------------------------------------------------------------------

    @property
    def last(self) -> Any:
        """What the last calls ran."""
        return self._shown, [*self._lasts]

    def plan(self, last: Any = None) -> str:
        """The blocks of time, and every cell's kernels."""
        shown, lasts = last or self.last
        lines = [
            f"{len(self.parts)} cells, each through a block of time before the next: "
            f"{shown or 'has not run'}"
        ]
        for part, engine, ran in zip(self.parts, self.engines, lasts, strict=True):
            plan = engine.plan(ran).splitlines()
            lines += [f"{part.prefix}:", *("  " + line for line in plan)]
        return "\n".join(lines)
