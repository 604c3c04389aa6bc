"""What one direction keeps between calls: executables by sizes, packed weights by version.

Non-Goals: running anything (`run`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.machine import ITEMSIZE
from rnncc.runtime.common.allocators import HostAllocator
from rnncc.runtime.common.fork_safety import open_in_children
from rnncc.runtime.cpu.execution.job import Arrays, Residuals
from rnncc.runtime.cpu.planning.executable import Executable, Params, ResultChoice
from rnncc.runtime.cpu.planning.kernel_arguments import ArgumentBinder
from rnncc.runtime.cpu.planning.target import HOST, CpuTarget
from rnncc.runtime.cpu.planning.weight_packing import Packed
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.layouts import Layout

KEPT_SHAPES = 64
KEPT_VERSIONS = 4


@dataclass(slots=True)
class Ready:
    """What arrays with these strides take. later: results that kernels can't write where their
    caller wants them."""

    prepared: Executable
    choice: ResultChoice
    later: tuple[str, ...]


Ran = tuple[Executable | None, int]


@dataclass
class DirectionCache:
    """What one direction has prepared: a bounded number of call shapes and of weights' versions.

    Thread-safe."""

    direction: DirectionSpec
    dtype: str
    made: OrderedDict[CallKey, Executable] = field(default_factory=OrderedDict)
    ready: OrderedDict[Any, Ready] = field(default_factory=OrderedDict)
    packs: OrderedDict[Any, Packed] = field(default_factory=OrderedDict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    last: Executable | None = None
    steps: int = 0  # of the last call, whatever its blocks
    kept_packs: int = KEPT_VERSIONS
    target: CpuTarget = HOST

    def __post_init__(self) -> None:
        open_in_children(self, "lock")
        self.item, self.np_dtype = ITEMSIZE[self.dtype], np.dtype(self.dtype)
        self.buffers = {b.name: b for b in self.direction.buffers}
        self.params = Params.of(self.direction)
        self.host = HostAllocator(self.np_dtype, self.target.pool)
        self.rate_names = [n for _, role, n in self.direction.params if role == "rate"]

    def keep(self, layers: int) -> None:
        """Room for what is made of the weights of so many layers, and of a few versions more."""
        self.kept_packs = max(layers, 1) - 1 + KEPT_VERSIONS

    @property
    def ran(self) -> Ran:
        """The last run, and how many steps it was a block of."""
        return self.last, self.steps

    def room(self, arrays: Arrays) -> HostAllocator:
        """Who makes arrays for a call."""
        return self.host

    def find(self, key: Any) -> Ready | None:
        """What arrays with these strides take, if it is known."""
        with self.lock:
            ready = self.ready.get(key)
            if ready is not None:
                self.ready.move_to_end(key)
                self.last = ready.prepared
            return ready

    def keep_ready(self, key: Any, made: Ready) -> Ready:
        with self.lock:
            self.ready[key] = made
            if len(self.ready) > KEPT_SHAPES:
                self.ready.popitem(last=False)
            return made

    def prepared(self, call: CallKey, residuals: Residuals) -> Executable:
        """What doesn't change between calls of these sizes and strides; made at the first."""
        with self.lock:
            executable = self.made.get(call)
            if executable is None:
                layouts = {
                    buffer.name: residuals.places[name][1] for buffer, name in self.params.residuals
                }
                executable = self.prepare(call, layouts)
                self.made[call] = executable
                if len(self.made) > KEPT_SHAPES:
                    self.made.popitem(last=False)
            else:
                self.made.move_to_end(call)
            self.last = executable
            return executable

    def prepare(self, call: CallKey, given: dict[str, Layout]) -> Executable:
        """given: where the rows of residuals are."""
        target = self.target
        binder = ArgumentBinder(
            self.direction, call, target.machine, self.dtype, target.threads, given
        )
        return Executable(binder.bind(), self.direction, self.params, self.buffers, target)
