"""What llvmlite says of the host, and two environment variables, to a `Machine`.

A machine is an explicit value: golden files and tests build their own.

Non-Goals: the GPU; tuning, which is the schedule's; which thread layer runs, which is `dispatch`'s.
"""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm

ITEMSIZE = {"float32": 4, "float64": 8}
LANE_PAD = 16  # elements that rows of the CPU are padded to
VECTOR_BYTES = "RNNCC_VECTOR_BYTES"
NUM_THREADS = "RNNCC_NUM_THREADS"


class Misset(ValueError):
    """An environment variable holds what it can't."""


class Missing(RuntimeError):
    """This machine lacks what a target needs."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the schedule and the cores need to know; vector and cache sizes are in bytes."""

    vector_bytes: int = 32
    registers: int = 16
    threads: int = 1
    l1: int = 32 * 1024
    l2: int = 512 * 1024

    def __post_init__(self):
        if self.vector_bytes not in (16, 32, 64):
            raise ValueError(f"vector_bytes must be 16, 32 or 64, not {self.vector_bytes!r}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads!r}")

    def width(self, dtype: str) -> int:
        """Lanes of `dtype` in one vector."""
        return self.vector_bytes // ITEMSIZE[dtype]


def _vector_unit(features: dict[str, bool], triple: str) -> tuple[int, int]:
    """(vector bytes, registers) from the CPU's feature flags."""
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx2") or features.get("avx"):
        return 32, 16
    return 16, 32 if triple.startswith(("aarch64", "arm64")) else 16


def _override(name: str, allowed: tuple[int, ...] = ()) -> int | None:
    """A whole number from the environment, or None where the variable is unset or empty."""
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    wanted = f"one of {', '.join(map(str, allowed))}" if allowed else "a whole number of at least 1"
    if not text.isdecimal() or int(text) < 1 or (allowed and int(text) not in allowed):
        raise Misset(f"environment variable {name} must be {wanted}, not {text!r}")
    return int(text)


def _cache_bytes(level: int, default: int) -> int:
    """The data cache's size as Linux states it; the default where it doesn't."""
    for index in range(5):
        folder = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}")
        try:
            if (folder / "type").read_text().strip() == "Instruction":
                continue
            if int((folder / "level").read_text()) == level:
                return int((folder / "size").read_text().strip().removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return default


def _threads() -> int:
    """As many as the variable says, or Numba's; else as this process may run on."""
    for name in (NUM_THREADS, "NUMBA_NUM_THREADS"):
        forced = _override(name)
        if forced:
            return forced
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def host() -> Machine:
    """This machine, detected once a process."""
    vector_bytes, registers = _vector_unit(llvm.get_host_cpu_features(), llvm.get_default_triple())
    forced = _override(VECTOR_BYTES, (16, 32, 64))
    if forced == 64:
        # On a narrower CPU LLVM splits each vector, so that tests of this width run anywhere.
        registers = 32
    return Machine(
        vector_bytes=forced or vector_bytes,
        registers=registers,
        threads=_threads(),
        l1=_cache_bytes(1, 32 * 1024),
        l2=_cache_bytes(2, 512 * 1024),
    )
