"""A grid of CUDA threads in Python, to run generated kernels where there is no GPU.

All blocks live at once, a greenlet a thread; a seeded scheduler lets some run far ahead of others.
Memory is poisoned, and every access is held against what barriers have ordered (`memory`), so a
missing barrier is an error in any order. A grid in which nobody can go on is a `Deadlock`.

The text that runs is the text numba-cuda compiles; only the meaning of its names is another.

Non-Goals: speed; weak memory beyond barriers; rounding of a GPU's own instructions.
"""

from __future__ import annotations

import contextvars
import math
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import greenlet
import numpy as np

from rnncc.artifact.grid_sync import Gpu
from rnncc.runtime.cuda.driver.target import DeviceMemory
from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from rnncc.runtime.cuda.kernels.matmuls import Product
from rnncc.runtime.cuda.kernels.namespace_bindings import meanings
from rnncc.runtime.jit.kernel import rebound
from tests.support.gpu_simulator.library import multiply
from tests.support.gpu_simulator.memory import GUARD, Fault, Space, Stamp, check

WARP = 32
READY, BLOCK, SHUFFLE, DONE = "ready", "syncthreads", "shuffle", "done"
ITEM = {"float32": 4, "float64": 8}
SHARED = 228 * 1024  # bytes a block may ask for
SHARED_BASE = 1 << 40  # addresses from here on are a block's own
SHARED_AT = SHARED_BASE + GUARD


class Deadlock(RuntimeError):
    """Nobody can go on."""


class Block:
    def __init__(self, index: int, grid: int, shared: int) -> None:
        self.index = index
        self.clock = [0] * grid  # what its threads have seen of every block; its own: its epoch
        self.threads: list[Thread] = []
        self.shared = Space(shared + 3 * GUARD, SHARED_BASE)
        if shared:
            self.shared.allocate(shared)


class Thread:
    __slots__ = (
        *("block", "copies", "index", "launch", "number"),
        *("runs", "seen", "slot", "spins", "state"),
    )

    def __init__(self, block: Block, index: int, number: int, launch: int) -> None:
        self.block, self.index, self.number, self.launch = block, index, number, launch
        self.state = READY
        self.slot: Any = None  # what it hands to its warp
        self.copies: list[tuple[int, Any]] = []  # into shared memory, that it hasn't waited for
        self.seen: list[int] = []  # clocks it has acquired and not yet shared with its block
        self.spins = False
        self.runs: Any = None


class Simulator:
    """A `cuda.target.Target`. threads: at most so many a block, that tests stay quick."""

    def __init__(
        self,
        seed: int = 0,
        *,
        multiprocessors: int = 4,
        threads: int = 32,
        size: int = 1 << 23,
        library: str = "",
        registers: int = 65_536,
    ) -> None:
        self.gpu = Gpu(
            "a simulated grid",
            multiprocessors,
            multiprocessors,
            shared=SHARED,
            threads=threads,
            library=library,
            registers=registers,
        )
        self.multiplied: list[tuple[Product, str]] = []
        self.random = random.Random(seed)
        self.space = Space(size)
        self.current: Any = None
        self.launches: list[tuple[str, int, int, bool]] = []
        self.names: dict[str, dict[str, Any]] = {}
        self.released: dict[int, list[int]] = {}  # counters: what was seen by who added to them
        self.fits: dict[str, int] = {}  # blocks of a tier's kernels, where fewer than of others
        self.mutate: Any = None  # changes a kernel's function before it runs: tests of the tests

    # ---- Target -------------------------------------------------------------------------------

    def enter(self) -> None:
        pass

    def empty(self, size: int, stream: Any = None) -> DeviceMemory:
        return self.space.allocate(size)

    def upload(self, array: np.ndarray, stream: Any = None) -> DeviceMemory:
        piece = self.space.allocate(array.nbytes)
        self.space.fill(piece.address, array)
        return piece

    def clear(self, piece: DeviceMemory, size: int, stream: Any = None) -> None:
        self.space.fill(piece.address, np.zeros(size, np.uint8))

    def download(self, address: int, array: np.ndarray, stream: Any = None) -> None:
        self.space.copy(address, array)

    def zeros(self, size: int) -> DeviceMemory:
        return self.upload(np.zeros(size, np.uint8))

    def ones(self, dtype: str, count: int = 1) -> DeviceMemory:
        return self.upload(np.ones(count, dtype))

    def multiply(
        self,
        product: Product,
        places: tuple[int, int, int],
        dtype: str,
        precision: str,
        *,
        stream: Any = None,
        workspace: int = 0,
    ) -> None:
        self.multiplied.append((product, precision))
        multiply(self.space, product, places, dtype, precision)

    def resident(self, kernel: CudaKernel, dtype: str, threads: int, shared: int) -> int:
        twin = kernel.name.endswith("_stationary")
        return min(self.fits.get("stationary" if twin else "grid", 1 << 20), self.gpu.resident)

    def launch(
        self,
        kernel: CudaKernel,
        dtype: str,
        grid: int,
        threads: int,
        words: np.ndarray,
        *,
        shared: int = 0,
        cooperative: bool = False,
        stream: Any = None,
    ) -> None:
        if cooperative and grid > self.gpu.resident:
            raise RuntimeError(f"{grid} blocks can't be on {self.gpu.name} at once")
        if dtype not in self.names:
            self.names[dtype] = self._names(dtype)
        function = kernel.function if self.mutate is None else self.mutate(kernel.function)
        self.launches.append((kernel.name, grid, threads, cooperative))
        names = {**self.names[dtype], **dict(kernel.constants)}
        self._run(rebound(function, names), grid, threads, words.tolist(), shared)

    # ---- threads ------------------------------------------------------------------------------

    def _run(self, function: Any, grid: int, threads: int, words: list[int], shared: int) -> None:
        number, self.released = len(self.launches), {}
        self.grid, self.block_size = grid, threads
        blocks = [Block(b, grid, shared) for b in range(grid)]
        with np.errstate(all="ignore"):
            for block in blocks:
                for i in range(threads):
                    thread = Thread(block, i, block.index * threads + i, number)
                    thread.runs = greenlet.greenlet(lambda: function(*words))
                    thread.runs.gr_context = contextvars.copy_context()
                    block.threads.append(thread)
            self._schedule(blocks)

    def _schedule(self, blocks: list[Block]) -> None:
        """Unfair: one block runs, mostly, until it can't go on or the dice say so."""
        live, stuck = list(blocks), set()
        favourite = self.random.choice(live)
        while live:
            if favourite not in live or favourite in stuck or self.random.random() < 0.1:
                favourite = self.random.choice([b for b in live if b not in stuck])
            if self._turn(favourite):
                stuck = set()
            else:
                stuck.add(favourite)
                if len(stuck) == len(live):
                    waits = Counter(t.state for b in live for t in b.threads)
                    raise Deadlock(f"nobody can go on: {dict(waits)}")
            live = [b for b in live if any(t.state != DONE for t in b.threads)]

    def _turn(self, block: Block) -> bool:
        """Runs who can run; whether anything was done but spinning."""
        ready = [t for t in block.threads if t.state == READY]
        self.random.shuffle(ready)
        progress = False
        for thread in ready:
            self.current, thread.spins = thread, False
            thread.runs.switch()
            if thread.runs.dead:
                thread.state = DONE
            progress |= not thread.spins
        return self._release(block) or progress

    def _release(self, block: Block) -> bool:
        threads, progress = block.threads, False
        for low in range(0, len(threads), WARP):
            warp = threads[low : low + WARP]
            if all(t.state == SHUFFLE for t in warp):
                for t in warp:
                    t.state = READY
                progress = True
        waiting = [t for t in threads if t.state == BLOCK]
        if waiting and len(waiting) + sum(t.state == DONE for t in threads) == len(threads):
            if len(waiting) < len(threads):
                raise Fault("some threads of a block have ended, others wait at syncthreads")
            for t in threads:
                block.clock = [max(a, b) for a, b in zip(block.clock, t.seen or block.clock)]
                t.state, t.seen = READY, []
            block.clock[block.index] += 1
            progress = True
        return progress

    def _wait(self, state: str) -> None:
        self.current.state = state
        greenlet.getcurrent().parent.switch()

    # ---- names --------------------------------------------------------------------------------

    def _names(self, dtype: str) -> dict[str, Any]:
        kind = {"float32": np.float32, "float64": np.float64}[dtype]

        def wide(x: Any) -> Any:
            return np.float64(x)

        lanes = {
            "load": lambda address: self._load(address, dtype),
            "broadcast": lambda address: self._load(address, dtype),
            "store": lambda address, x: self._store(address, x, dtype),
            "fma": lambda a, b, c: kind(wide(a) * wide(b) + wide(c)),
            "shuffle_xor": self._shuffle_xor,
            "shared_load": lambda i: self._load(SHARED_AT + ITEM[dtype] * i, dtype),
            "shared_load4": lambda i: self._shared_load4(i, dtype),
            "shared_store": lambda i, x: self._store(SHARED_AT + ITEM[dtype] * i, x, dtype),
            "copy": lambda i, address, inside: self._copy(i, address, inside, dtype, 1),
            "copy4": lambda i, address, inside: self._copy(i, address, inside, dtype, 4),
            "copied": lambda: self._copied(dtype),
        }
        instructions = {
            "cuda": _Cuda(self, kind),
            "F": kind,
            "U": np.uint64,
            "I": np.int64,
            "SIZE": ITEM[dtype],
            "math": _math(kind),
            "add_release": self._add_release,
            "load_acquire": self._load_acquire,
            "give_up": self._give_up,
            "anew": int,
        }
        return meanings(instructions, lanes)

    def _spaced(self, address: int) -> Space:
        return self.current.block.shared if address >= SHARED_BASE else self.space

    def _shared_load4(self, i: int, dtype: str) -> tuple[Any, ...]:
        if i % 4:
            raise Fault(f"four at once from element {i} of shared memory: misaligned")
        return tuple(self._load(SHARED_AT + ITEM[dtype] * (i + e), dtype) for e in range(4))

    def _copy(self, i: int, address: int, inside: bool, dtype: str, count: int) -> None:
        """Read now, there when it has been waited for."""
        item = ITEM[dtype]
        if i % count or address % (count * item):
            raise Fault(f"{count} at once from {address:#x} to element {i}: misaligned")
        zero = self.names[dtype]["F"](0.0)
        found = [self._load(address + e * item, dtype) if inside else zero for e in range(count)]
        self.current.copies += [(SHARED_AT + item * (i + e), x) for e, x in enumerate(found)]

    def _copied(self, dtype: str) -> None:
        copies, self.current.copies = self.current.copies, []
        for address, x in copies:
            self._store(address, x, dtype)

    def _load(self, address: int, dtype: str) -> Any:
        space, thread = self._spaced(address), self.current
        view, index, word = space.place(address, dtype, "a read")
        if space.state[word] != 2:
            raise Fault(f"a read at {address:#x} of what nobody wrote, by thread {thread.number}")
        check(space.written.get(word, ()), thread, "a read")
        space.read[word] = self._stamp(thread)
        return view[index]

    def _store(self, address: int, x: Any, dtype: str) -> None:
        space, thread = self._spaced(address), self.current
        view, index, word = space.place(address, dtype, "a write")
        if not isinstance(x, np.generic) or x.dtype != view.dtype:
            raise Fault(f"a write of {type(x).__name__} where {dtype} is meant")
        stamp, known = self._stamp(thread), space.written.get(word, [])
        if known and known[0].launch == thread.launch and view[index] == x:
            known.append(stamp)  # a value of no row in particular: who runs rows writes it
            return
        check(known[-1:], thread, "a write over a write")
        check([space.read[word]] if word in space.read else (), thread, "a write over a read")
        view[index] = x
        space.state[word : word + view.itemsize // 4] = 2
        space.written[word] = [stamp]

    def _stamp(self, thread: Thread) -> Stamp:
        block = thread.block
        return Stamp(thread.launch, block.index, thread.number, block.clock[block.index])

    def _shuffle_xor(self, x: Any, width: int) -> Any:
        thread = self.current
        thread.slot = x
        self._wait(SHUFFLE)  # everybody's is there
        low = thread.index - thread.index % WARP
        found = thread.block.threads[low + (thread.index % WARP ^ width)].slot
        self._wait(SHUFFLE)  # everybody has read
        return found

    def _add_release(self, address: int, n: int) -> None:
        view, index, _ = self.space.place(address, "int64", "an arrival")
        view[index] += n
        clock = self.current.block.clock
        old = self.released.get(address, clock)
        self.released[address] = [max(a, b) for a, b in zip(old, clock)]

    def _give_up(self) -> None:
        raise Deadlock("nobody came for so long that a GPU gives up")

    def _load_acquire(self, address: int) -> int:
        thread = self.current
        thread.spins = True
        greenlet.getcurrent().parent.switch()
        view, index, _ = self.space.place(address, "int64", "a wait")
        clock = self.released.get(address)
        if clock is not None:
            thread.seen = [max(a, b) for a, b in zip(thread.seen or clock, clock)]
        return int(view[index])


class _Cuda:
    def __init__(self, sim: Simulator, kind: Any) -> None:
        self.sim = sim
        # Registers: poisoned, and a thread's own.
        self.local = SimpleNamespace(array=lambda n, _: np.full(n, np.nan, kind))

    @property
    def threadIdx(self) -> Any:
        return SimpleNamespace(x=self.sim.current.index)

    @property
    def blockIdx(self) -> Any:
        return SimpleNamespace(x=self.sim.current.block.index)

    @property
    def blockDim(self) -> Any:
        return SimpleNamespace(x=self.sim.block_size)

    @property
    def gridDim(self) -> Any:
        return SimpleNamespace(x=self.sim.grid)

    def syncthreads(self) -> None:
        self.sim._wait(BLOCK)


def _math(kind: Any) -> Any:
    """`math` on NumPy scalars: no exceptions where C has infinities."""
    names = ["exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "fabs"]
    names += ["fmod", "copysign", "log2", "log10", "tan", "sinh", "cosh"]
    found = {n: getattr(np, n) for n in names}
    arcs = ("sin", "cos", "tan", "tan2", "sinh", "cosh", "tanh")
    found |= {f"a{n}": getattr(np, f"arc{n}") for n in arcs}
    found["erfc"] = lambda x: kind(math.erfc(x))
    return SimpleNamespace(**found, pow=np.power, erf=lambda x: kind(math.erf(x)))
