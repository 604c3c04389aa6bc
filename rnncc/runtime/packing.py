"""Weights -> the order the cores read them in, once a version of the weights.

Non-Goals: when (`engine`); the order itself (`rows.pack`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncc.runtime.bind import PackLayout, pack_layout
from rnncc.runtime.machine import host
from rnncc.runtime.memory import address_of, aligned
from rnncc.runtime.rows import rows
from rnncc.runtime.tables import Source, Stage

if TYPE_CHECKING:
    from rnncc.runtime.call import Run


@dataclass(slots=True)
class Packed:
    """Everything that depends on weights alone."""

    memory: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)  # by the request they answer
    _places: tuple[int, np.ndarray, np.ndarray] | None = None

    def places(self, points: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of what is packed, and addresses; the same numbers serve the same tiles."""
        if self._places is None or self._places[0] != len(self.arrays):
            numbers = np.array([points[n] for n in self.arrays], np.int64)
            where = np.array([address_of(a) for a in self.arrays.values()], np.int64)
            self._places = len(self.arrays), numbers, where
        return self._places[1:]


def pack_weights(run: Run, packed: Packed, names: tuple[str, ...]) -> None:
    """Packs the weights of these stages, if they are not packed yet."""
    for name in names:
        stage = next(s for s in run.side.direction.stages if s.name == name)
        if stage.kind != "lanes":
            continue
        for i, core in enumerate(stage.cores):
            for k, pack in enumerate(core.packs):
                key = f"pack|{name}|{i}|{k}"
                if pack is not None and key not in packed.arrays:
                    packed.arrays[key] = _pack(run, stage, i, k)
            key = f"init|{name}|{i}"
            if core.init is not None and key not in packed.arrays:
                packed.arrays[key] = _init(run, stage, i)


def _stride(run: Run, source: Source, axis: int | None) -> int:
    if axis is None:
        return 0
    behind = source.axes[axis]
    return 0 if behind is None else run.memory[source.buffer].layout.strides[behind]


def _base(run: Run, source: Source) -> int:
    layout = run.memory[source.buffer].layout
    at = run.memory[source.buffer].address
    for axis, size in source.starts:
        at += run.binding.size(size) * layout.strides[axis]
    return at


def _pack(run: Run, stage: Stage, i: int, k: int) -> np.ndarray:
    pack = stage.cores[i].packs[k]
    assert pack is not None
    tiling = run.binding.tilings[stage.name]
    row = len(pack.gates) * tiling.unit_blocks * host().vector_bytes
    layout: PackLayout = pack_layout(run.binding, stage, i, k, row)
    out = aligned((max(layout.bytes, 1),), np.uint8)
    units = run.binding.size(stage.shape[-1]) if stage.shape else 1
    helper = rows(run.side.dtype, host())
    first = pack.gates[0]
    counts = layout.k_counts
    inner = pack.k[-2:]
    k1, ks1 = (counts[-2], inner[0]) if len(counts) > 1 else (1, None)
    k2, ks2 = (counts[-1], inner[-1]) if counts else (1, None)
    ranges = [range(n) for n in (*layout.outer_counts, *counts[:-2])]
    axes = (*pack.outer, *pack.k[:-2])
    lead = (*layout.outer, *layout.k[: max(len(counts) - 2, 0)])
    for index in product(*ranges):
        target = out.ctypes.data + sum(n * s for n, s in zip(index, lead, strict=True))
        gates = [
            _base(run, g)
            + sum(n * _stride(run, g, a) for n, a in zip(index, axes, strict=True))
            for g in pack.gates
        ]
        desc = np.array(
            [
                k1, k2, _stride(run, first, ks1), _stride(run, first, ks2), len(gates),
                tiling.unit_blocks, _stride(run, first, pack.lane), units, *gates,
            ],
            np.int64,
        )
        helper.call("pack", target, desc.ctypes.data, 0, tiling.tiles)
    return out


def _init(run: Run, stage: Stage, i: int) -> np.ndarray:
    """Rows of constants in the tiles' order; gates without one start from zeros."""
    sources = stage.cores[i].init
    assert sources is not None
    tiling = run.binding.tilings[stage.name]
    vector = host().vector_bytes
    width = vector // run.item
    outer = [run.binding.size(s) for s in stage.shape[:-1]]
    units = run.binding.size(stage.shape[-1])
    shape = (*outer, tiling.tiles, tiling.unit_blocks, len(sources), width)
    out = aligned(shape, run.side.dtype, zero=True)
    for g, source in enumerate(sources):
        if source is None:
            continue
        row = np.zeros((*outer, tiling.tiles * tiling.unit_blocks * width), run.side.dtype)
        row[..., :units] = _constant(run, source, (*outer, units))
        out[..., g, :] = row.reshape(*outer, tiling.tiles, tiling.unit_blocks, width)
    return out


def _constant(run: Run, source: Source, shape: tuple[int, ...]) -> np.ndarray:
    memory = run.memory[source.buffer]
    strides = tuple(_stride(run, source, i) for i in range(len(source.axes)))
    raw = memory.owner.reshape(-1).view(np.uint8)
    offset = _base(run, source) - memory.base
    return np.ndarray(shape, run.side.dtype, raw, offset, strides)
