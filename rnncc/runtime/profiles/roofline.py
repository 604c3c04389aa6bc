"""The machine's limits, measured beside what is held against them: FMA peak and read bandwidth.

Loops of LLVM's own instructions, float32, at the vector width rnncc uses, a thread a core. Reading
is measured for blocks from L1's size to memory's; a case's weights are looked up at their share a
core, since what is read every step stays in the cache it fits into.

Non-Goals: a judgement of the machine; frequencies: take the figures of one run together.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from rnncc.common.machine import host
from rnncc.runtime.common.memory_pool import aligned

CHAINS = 12  # independent sums: more than the latency of two FMA units needs
SIZES_KIB = (16, 32, 64, 256, 1024, 4096, 16384, 65536)


@dataclass(frozen=True, slots=True)
class Roofline:
    """fma: FLOP/s of all cores; fma_core: of one; read: bytes a core -> bytes/s of all cores."""

    cores: int
    fma: float
    fma_core: float
    read: dict[int, float]

    def read_at(self, size: int) -> float:
        """Bytes/s of reading `size` bytes over and over, a share on every core."""
        share = max(size / self.cores, 1)
        known = sorted(self.read)
        rates = [np.log(self.read[k]) for k in known]
        return float(np.exp(np.interp(np.log(share), np.log(known), rates)))

    def of(self, threads: int | None) -> Roofline:
        """That of fewer cores, where a case may not use them all."""
        if threads is None or threads >= self.cores:
            return self
        part = threads / self.cores
        read = {size: rate * part for size, rate in self.read.items()}
        return Roofline(threads, self.fma * part, self.fma_core, read)

    def best(self, other: Roofline) -> Roofline:
        """Of two measurements, the higher limits: a disturbed one is lower."""
        read = {size: max(rate, other.read[size]) for size, rate in self.read.items()}
        fma, core = max(self.fma, other.fma), max(self.fma_core, other.fma_core)
        return Roofline(self.cores, fma, core, read)

    @property
    def line(self) -> str:
        reads = ", ".join(
            f"{size // 1024} KiB {rate / 1e9:.0f}" for size, rate in sorted(self.read.items())
        )
        return (
            f"roofline: FMA {self.fma / 1e9:.0f} GFLOP/s on {self.cores} cores, "
            f"{self.fma_core / 1e9:.0f} on one; reads in GB/s, of so much a core: {reads}"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "cores": self.cores,
            "fma_gflops": self.fma / 1e9,
            "fma_one_core_gflops": self.fma_core / 1e9,
            "read_gb_s": {str(size): rate / 1e9 for size, rate in self.read.items()},
        }


def measure(seconds: float = 0.03, tries: int = 5) -> Roofline:
    """The best of some tries of about `seconds` each."""
    machine = host()
    code = _Code(machine.vector_bytes // 4)
    cores = machine.threads
    work = 2.0 * CHAINS * code.width
    memory = [aligned((CHAINS + 2) * code.width, "float32", zero=True) for _ in range(cores)]

    def fma(core: int, rounds: int) -> None:
        code.fma(rounds, memory[core].ctypes.data)

    peak = _rate(fma, work, cores, seconds, tries)
    one = _rate(fma, work, 1, seconds, tries)
    reads = {}
    for size in (1024 * kib for kib in SIZES_KIB):
        blocks = [aligned(size, np.uint8) for _ in range(cores)]
        for block in blocks:
            block[:] = 0  # pages of its own: those of zeros are one page in memory

        def read(core: int, rounds: int, blocks: list[Any] = blocks, size: int = size) -> None:
            code.read(rounds, size // 4, blocks[core].ctypes.data, memory[core].ctypes.data)

        reads[size] = _rate(read, float(size), cores, seconds, tries)
    return Roofline(cores, peak, one, reads)


def _rate(
    run: Callable[[int, int], None], work: float, cores: int, seconds: float, tries: int
) -> float:
    """Work a second of all cores together; `work` is a round's."""
    rounds, took = 1, 0.0
    while took < seconds / 2:  # how many rounds are long enough
        rounds *= 2
        start = time.perf_counter()
        run(0, rounds)
        took = time.perf_counter() - start
    best = 0.0
    for _ in range(tries):
        barrier, rates = threading.Barrier(cores), [0.0] * cores

        def one(core: int, barrier: Any = barrier, rates: list[float] = rates) -> None:
            barrier.wait()
            start = time.perf_counter()
            run(core, rounds)
            rates[core] = work * rounds / (time.perf_counter() - start)

        threads = [threading.Thread(target=one, args=(core,)) for core in range(cores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, sum(rates))
    return best


class _Code:
    """The two loops, compiled; ctypes gives the GIL away while they run."""

    def __init__(self, width: int) -> None:
        self.width = width
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features().flatten()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features, opt=3
        )
        module = llvm.parse_assembly(_fma_text(width) + _read_text(width))
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        i64, pointer = ctypes.c_int64, ctypes.c_void_p
        self.fma = ctypes.CFUNCTYPE(None, i64, pointer)(self._engine.get_function_address("fma"))
        self.read = ctypes.CFUNCTYPE(None, i64, i64, pointer, pointer)(
            self._engine.get_function_address("read")
        )


def _fma_text(width: int) -> str:
    """fma(rounds, block): CHAINS vectors v = v * x + y; x and y come from the block."""
    vector, stride = f"<{width} x float>", width * 4
    lines = [
        f"declare {vector} @llvm.fma.v{width}f32({vector}, {vector}, {vector})",
        "define void @fma(i64 %n, ptr %m) {",
        "entry:",
        f"  %x = load {vector}, ptr %m, align 64",
        f"  %at = getelementptr i8, ptr %m, i64 {stride}",
        f"  %y = load {vector}, ptr %at, align 16",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [0, %entry], [%j, %loop]",
    ]
    for k in range(CHAINS):
        lines.append(f"  %a{k} = phi {vector} [zeroinitializer, %entry], [%b{k}, %loop]")
    for k in range(CHAINS):
        call = f"call {vector} @llvm.fma.v{width}f32"
        lines.append(f"  %b{k} = {call}({vector} %a{k}, {vector} %x, {vector} %y)")
    lines += ["  %j = add i64 %i, 1", "  %more = icmp slt i64 %j, %n"]
    lines += ["  br i1 %more, label %loop, label %end", "end:"]
    for k in range(CHAINS):
        lines.append(f"  %p{k} = getelementptr i8, ptr %m, i64 {stride * (k + 2)}")
        lines.append(f"  store {vector} %b{k}, ptr %p{k}, align 16")
    return "\n".join([*lines, "  ret void", "}", ""])


def _read_text(width: int) -> str:
    """read(rounds, floats, block, out): sums of the block, eight vectors at a time."""
    vector, ways = f"<{width} x float>", 8
    lines = [
        "define void @read(i64 %n, i64 %size, ptr %m, ptr %o) {",
        "entry:",
        "  br label %round",
        "round:",
        "  %i = phi i64 [0, %entry], [%j, %next]",
    ]
    for k in range(ways):
        lines.append(f"  %r{k} = phi {vector} [zeroinitializer, %entry], [%b{k}, %next]")
    lines += ["  br label %loop", "loop:", "  %at = phi i64 [0, %round], [%to, %loop]"]
    for k in range(ways):
        lines.append(f"  %a{k} = phi {vector} [%r{k}, %round], [%b{k}, %loop]")
    for k in range(ways):
        lines.append(f"  %q{k} = add i64 %at, {k * width}")
        lines.append(f"  %p{k} = getelementptr float, ptr %m, i64 %q{k}")
        lines.append(f"  %v{k} = load {vector}, ptr %p{k}, align {width * 4}")
        lines.append(f"  %b{k} = fadd {vector} %a{k}, %v{k}")
    lines += [f"  %to = add i64 %at, {ways * width}", "  %more = icmp slt i64 %to, %size"]
    lines += ["  br i1 %more, label %loop, label %next", "next:"]
    lines += ["  %j = add i64 %i, 1", "  %again = icmp slt i64 %j, %n"]
    lines += ["  br i1 %again, label %round, label %end", "end:"]
    for k in range(ways):
        lines.append(f"  %s{k} = getelementptr i8, ptr %o, i64 {k * width * 4}")
        lines.append(f"  store {vector} %b{k}, ptr %s{k}, align 16")
    return "\n".join([*lines, "  ret void", "}", ""])
