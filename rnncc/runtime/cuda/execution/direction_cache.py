"""What one direction keeps between calls on a GPU: executables by sizes, weights by version.

Non-Goals: running anything (`cuda.run`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.runtime.common.allocators import Allocator, HostAllocator
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.cpu.execution.job import Arrays, Residuals
from rnncc.runtime.cuda.driver.target import (
    CARRIER,
    CarriedAllocator,
    Carrier,
    CudaTarget,
    DeviceMemory,
)
from rnncc.runtime.cuda.planning.executable import CudaExecutable
from rnncc.runtime.cuda.planning.kernel_arguments import CudaArgumentBinder
from rnncc.runtime.cuda.planning.tiler import Tiler
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.layouts import Layout

KEPT_SHAPES = 32
KEPT_VERSIONS = 4


@dataclass
class CudaDirectionCache:
    """What one direction has prepared. Thread-safe."""

    direction: DirectionSpec
    dtype: str
    tier: str | None = None  # asked for, instead of the one that is chosen
    graphs: bool = True  # launches are kept as graphs where that can be
    made: OrderedDict[Any, CudaExecutable] = field(default_factory=OrderedDict)
    weights: OrderedDict[Any, tuple[Any, DeviceMemory]] = field(default_factory=OrderedDict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    last: CudaExecutable | None = None
    steps: int = 0  # of the last call, whatever its blocks
    layers: int = 1

    def __post_init__(self) -> None:
        open_in_children(self, "lock")
        self.item, self.np_dtype = ITEMSIZE[self.dtype], np.dtype(self.dtype)
        self.buffers = {b.name: b for b in self.direction.buffers}
        self.host = HostAllocator(self.np_dtype)
        names = [n for _, role, n in self.direction.params if role in ("weight", "constant")]
        self.weights_a_version = max(len(names), 1)

    def room(self, arrays: Arrays) -> Allocator:
        """Who makes arrays for a call."""
        carrier = arrays.get(CARRIER)
        return self.host if carrier is None else CarriedAllocator(carrier, self.np_dtype)

    def prepared(
        self, call: CallKey, residuals: Residuals, target: CudaTarget, precision: str = "float32"
    ) -> CudaExecutable:
        """What doesn't change between calls of these sizes and strides; made at the first."""
        gpu = target.gpu
        key = call, gpu, self.tier, precision
        with self.lock:
            executable = self.made.get(key)
            if executable is None:
                layouts = {
                    buffer: residuals.places[name][1]
                    for buffer, role, name in self.direction.params
                    if role == "residual"
                }
                binder = self.bound(call, target, layouts, precision)
                binding = binder.out
                Tiler(binder).tile(gpu, precision)
                executable = CudaExecutable(binding, self.direction, self.buffers, self.dtype, gpu)
                self.made[key] = executable
                if len(self.made) > KEPT_SHAPES:
                    self.made.popitem(last=False)
            else:
                self.made.move_to_end(key)
            self.last = executable
            return executable

    def bound(
        self, call: CallKey, target: CudaTarget, given: Mapping[str, Layout], precision: str
    ) -> CudaArgumentBinder:
        """The numbers of a call, in the first tier whose blocks are on the device at once if they
        wait for each other. What fits is known of a compiled kernel alone."""
        fits: dict[str, int] = {}
        while True:
            known = tuple(fits.items())
            binder = CudaArgumentBinder(
                self.direction, call, self.dtype, target.gpu, given, self.tier, known
            )
            binder.out.precision = precision
            tier = binder.bind().tier
            if tier is None or tier.waiting < 2 or self.tier is not None:
                return binder
            kernel, shared = binder.loop_kernel()
            fits[tier.kernel] = target.resident(kernel, self.dtype, tier.threads, shared)
            if tier.blocks <= fits[tier.kernel]:
                return binder

    def weight(self, version: object, name: str, array: Any, carrier: Carrier) -> DeviceMemory:
        """A weight on the device, copied once a version if it has to be."""
        if not carrier.copies:
            return carrier.enter(array, np.dtype(self.dtype))[0]
        # Nobody else's stream waits for the copy.
        key = (version, name, carrier.target, carrier.stream)
        with self.lock:
            entry = self.weights.get(key)
            if entry is None or entry[0] is not array:
                piece, strides = carrier.enter(array, np.dtype(self.dtype))
                assert strides is None, "weights are dense"
                entry = self.weights[key] = array, piece
                kept = self.weights_a_version * (self.layers - 1 + KEPT_VERSIONS)
                while len(self.weights) > kept:
                    self.weights.popitem(last=False)
            return entry[1]
