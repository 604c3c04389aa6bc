"""ARM's machine code of kernels, as text, from a machine that isn't one.

    python -m tests.arm.assembly FEATURES MODULE:NAME ...     a JSON object of texts

A process of its own: what words mean is settled when a process first compiles. FEATURES are
extensions of the plain core, such as +lse,+rcpc.

Non-Goals: running it (`tests/arm/run`).
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from functools import cache

import llvmlite.binding as llvm

from rnncc.common.machine import Machine
from rnncc.runtime.common.weight_formats import BFLOAT16, FULL, INT8
from tests.support.paths import ROOT

TRIPLE = "aarch64-unknown-linux-gnu"
NEON = Machine(vector_bytes=16, registers=32)
CORES = {"float32": FULL, "float64": FULL, "bfloat16": BFLOAT16, "int8": INT8}


def has_arm() -> bool:
    """Whether this LLVM can make it."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        llvm.Target.from_triple(TRIPLE)
    except RuntimeError:
        return False
    return True


@cache
def arm_assembly(features: str, *names: str) -> dict[str, str]:
    """By name: `module:kernel`, or `core:float32:6x4`."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, features, *names],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    texts: dict[str, str] = json.loads(done.stdout)
    return texts


def loops(assembly: str) -> list[list[str]]:
    """Instructions from a label to a branch back to it."""
    lines = [line.split("//")[0].strip() for line in assembly.splitlines()]
    found = []
    for end, line in enumerate(lines):
        back = re.match(r"(?:b|b\.\w+|cbn?z\s+\w+,|tbn?z\s+\w+, #\d+,)\s+(\.LBB\w+)$", line)
        label = f"{back[1]}:" if back else ""
        if label in lines[:end]:
            found.append(lines[lines.index(label) + 1 : end + 1])
    return found


def _assembly(name: str, features: str) -> str:
    from rnncc.runtime.cpu.kernels.microkernels import Cores

    module, *rest = name.split(":")
    if module == "core":
        storage = CORES[rest[0]]
        dtype = "float32" if storage.name else rest[0]
        rows, vectors = map(int, rest[1].split("x"))
        kernel = Cores(dtype, NEON, storage).kernel(rows, vectors)
    else:
        kernel = importlib.import_module(module)
        for each in rest[0].split("."):
            kernel = kernel() if each == "()" else getattr(kernel, each)
    text = re.sub(r"target (triple|datalayout) = .*", "", kernel.ir())
    text = re.sub(r'"(target-cpu|target-features)"="[^"]*"', "", text)
    target = llvm.Target.from_triple(TRIPLE).create_target_machine(features=features, opt=3)
    return str(target.emit_assembly(llvm.parse_assembly(f'target triple = "{TRIPLE}"\n{text}')))


def _main() -> None:
    from rnncc.runtime.cpu.intrinsics import scalar_intrinsics

    # Before anything takes them over from there.
    scalar_intrinsics.IS_X86, scalar_intrinsics.IS_ARM = False, True
    assert has_arm()
    features, *names = sys.argv[1:]
    print(json.dumps({name: _assembly(name, features) for name in names}))


if __name__ == "__main__":
    _main()
