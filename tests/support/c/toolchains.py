"""Compilers for other machines, and what runs their programs here.

What isn't installed is said by name: `missing`. Programs are an exported folder's own test.

Non-Goals: what is tried with them (`tests.emit.c.test_targets`, `tests.attack.c`).
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
ZIG = (sys.executable, "-m", "ziglang", "cc")
CORTEX = (
    *("arm-none-eabi-gcc", "-mthumb", "--specs=rdimon.specs", "-nostartfiles"),
    *("-T", str(HERE / "cortex" / "memory.ld"), str(HERE / "cortex" / "start.c")),
)
QEMU = ("qemu-system-arm", "-nographic", "-semihosting-config", "enable=on,target=native")


@dataclass(frozen=True)
class Toolchain:
    """command: the compiler with its flags. runs: before the program's path. needs: programs and
    Python modules. feature: of this processor, as Linux calls it."""

    command: tuple[str, ...]
    runs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    feature: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> str:
        """What this machine lacks, or nothing."""
        modules = ["ziglang"] if self.command[:4] == ZIG else []
        programs = [p for p in (self.command[0], *self.runs[:1], *self.needs) if "/" not in p]
        absent = [p for p in programs if shutil.which(p) is None]
        absent += [m for m in modules if importlib.util.find_spec(m) is None]
        if absent:
            return f"no {', '.join(absent)}"
        if self.feature and self.feature not in processor_features():
            return f"a processor without {self.feature}"
        return ""

    def build(self, sources: Sequence[Path], program: Path) -> None:
        """AssertionError with what the compiler says."""
        command = [*self.command, *map(str, sources), "-o", str(program), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{' '.join(self.command)}: {done.stderr[-2000:]}"

    def run(self, program: Path) -> subprocess.CompletedProcess[str]:
        command = [*self.runs, str(program)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600)


def processor_features() -> set[str]:
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return set()
    return set(words)


def _toolchains() -> dict[str, Toolchain]:
    found: dict[str, Toolchain] = {}
    if platform.machine() in ("x86_64", "AMD64"):
        levels = (("v2", "sse4_2"), ("v3", "fma"), ("v4", "avx512vl"))
        for compiler in ("gcc", "clang"):
            for level, feature in levels:
                flags = ("-O3", f"-march=x86-64-{level}")
                found[f"{compiler}-{level}"] = Toolchain(
                    (compiler, *STRICT, *flags), feature=feature
                )
        found["zig-musl"] = Toolchain((*ZIG, "-target", "x86_64-linux-musl", *STRICT, "-O3"))
    checked = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    found["sanitizers"] = Toolchain(("gcc", *STRICT, *checked))
    found["valgrind"] = Toolchain(
        ("gcc", *STRICT, "-g", "-O2"),
        ("valgrind", "-q", "--error-exitcode=9", "--leak-check=full"),
    )
    found["aarch64"] = Toolchain(
        (*ZIG, "-target", "aarch64-linux-musl", *STRICT, "-O3"), ("qemu-aarch64",)
    )
    node = ("node", "--no-warnings", str(HERE / "wasi.mjs"))
    wasm = (*ZIG, "-target", "wasm32-wasi", *STRICT, "-O3")
    found["wasm"] = Toolchain(wasm, node)
    found["wasm-simd"] = Toolchain((*wasm, "-msimd128"), node)
    hard = ("-mfloat-abi=hard", *STRICT, "-Os")
    m4 = ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16")
    m7 = ("-mcpu=cortex-m7", "-mfpu=fpv5-d16")
    soft = ("-mcpu=cortex-m4", "-mfloat-abi=soft", *STRICT, "-Os")
    found["cortex-m4"] = Toolchain((*CORTEX, *m4, *hard), (*QEMU, "-M", "mps2-an386", "-kernel"))
    found["cortex-m4-soft"] = Toolchain((*CORTEX, *soft), (*QEMU, "-M", "mps2-an386", "-kernel"))
    found["cortex-m7"] = Toolchain((*CORTEX, *m7, *hard), (*QEMU, "-M", "mps2-an500", "-kernel"))
    return found


TOOLCHAINS = _toolchains()


if __name__ == "__main__":
    for name, toolchain in TOOLCHAINS.items():
        print(f"{name}: {toolchain.missing or 'is there'}")
