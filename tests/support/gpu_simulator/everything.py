"""`python -m tests.support.gpu_simulator.everything [CELL ...]`: every cell, variant, tier and
shape on the simulated grid, forward and backward, against the interpreter; and where numba-cuda is
installed every kernel to PTX and machine code, for each architecture. `--only simulated|compiled`:
a half.

Six minutes of one core, and half an hour. What is done is kept in .pytest_cache, so a run
that was stopped goes on where it was; a change of any source begins anew, and so does `--anew`.
Exits with 1 if anything is off.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rnncc.runtime.cuda.kernels.copies import move
from rnncc.runtime.cuda.kernels.gemm_tiles import add_parts, contract
from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from tests.support import cases
from tests.support.gpu_simulator.machine_code import (
    BUILT_IN,
    CAPABILITIES,
    compiled,
    faults,
    kernels_of,
    twins_of,
    typed_once,
)
from tests.support.gpu_simulator.source import text_of
from tests.support.gpu_simulator.tiers import FEW, TIERS, shapes_for
from tests.support.gpu_simulator.tiers import simulator as simulator_of
from tests.support.gpu_simulator.twins import Twins
from tests.support.twins import LIMIT

LOG = cases.ROOT / ".pytest_cache" / "cuda_everything.jsonl"
# Sizes of loops whose weights stay on the chip: units, warps of a block, KiB of shared memory. A
# multiprocessor of an H100 full of weights, one of an A100 with weights in shared memory, too.
TWINS = {"plain": [(1024, 8, 227), (1024, 10, 163)]}
OTHER_TWINS = [(256, 8, 227)]
# Loops that spill, of those at 1024 units: the assembler keeps some addresses that the estimate of
# registers doesn't know of. Said, and no more than this.
SPILLS = {
    "compiled light_gru plain: backward_scan_stationary for sm_80: 56 bytes spilled",
    "compiled gru_d plain: forward_scan_stationary for sm_90: 24 bytes spilled",
}


class Log:
    """What was found, a line each; a line holds for as long as no source has changed."""

    def __init__(self, path: Path, anew: bool) -> None:
        self.path, self.sources = path, _digest()
        self.found: dict[str, Any] = {}
        if path.exists() and not anew:
            lines = map(json.loads, path.read_text().splitlines())
            self.found = {x["what"]: x for x in lines if x["sources"] == self.sources}
        elif anew:
            path.unlink(missing_ok=True)

    def once(self, what: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `run` gives, or gave."""
        if what not in self.found:
            begun = time.process_time()
            line = {"what": what, "sources": self.sources, **run()}
            line["seconds"] = round(time.process_time() - begun, 1)
            self.found[what] = line
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        found: dict[str, Any] = self.found[what]
        return found


def _digest() -> str:
    """Of every source that decides what is found."""
    found = hashlib.sha256()
    for folder in ("rnncc", "templates", "tests/runtime/cuda", "tests/support", "tests/cells"):
        for path in sorted((cases.ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".jinja", ".rnn"):
                found.update(path.read_bytes())
    return found.hexdigest()[:16]


# ---- the simulated grid ----------------------------------------------------------------------


def simulated(name: str, variant: str) -> dict[str, Any]:
    """The largest error of every tier and shape, and what is off."""
    wrong, errors = [], []
    for tier, registers in (*((t, 65_536) for t in TIERS), *(("stationary", r) for r in FEW)):
        for shape in shapes_for(name, tier):
            what = f"{tier}, {registers} registers, {shape}"
            simulator = simulator_of(tier, 5, registers)
            try:
                error, whose = Twins.of(name, variant, shape).worst(simulator, tier)
            except Exception as failed:
                wrong.append(f"{what}: {type(failed).__name__}: {failed}")
                continue
            errors.append(error)
            if not error <= LIMIT["float32"]:
                wrong.append(f"{what}: {whose} is off by {error:.1e}")
    said = f"{len(errors)} runs, largest error {max(errors, default=0.0):.1e}"
    return {"said": said, "wrong": wrong}


# ---- PTX and machine code ----------------------------------------------------------------------


class Assembled:
    """Kernels compiled, each text once: variants share many."""

    def __init__(self) -> None:
        self.known: dict[Any, list[tuple[list[str], int]]] = {}

    def of(self, kernels: Sequence[CudaKernel]) -> dict[str, Any]:
        wrong, most = [], 0
        for kernel in kernels:
            key = text_of(kernel.function), kernel.constants
            if key not in self.known:
                with typed_once():
                    made = [compiled(kernel, capability) for capability in CAPABILITIES]
                self.known[key] = [
                    (faults(text, report), report.registers) for text, report in made
                ]
            for capability, (found, registers) in zip(CAPABILITIES, self.known[key]):
                wrong += [
                    f"{kernel.name} for sm_{capability[0]}{capability[1]}: {f}" for f in found
                ]
                most = max(most, registers)
        arches = ", ".join(f"sm_{a}{b}" for a, b in CAPABILITIES)
        return {"said": f"{len(kernels)} kernels for {arches}, {most} registers", "wrong": wrong}


def with_twins(name: str, variant: str) -> list[CudaKernel]:
    """All kernels of a cell, those too that read sums of products; those whose weights stay on the
    chip take long, so built-in ones'."""
    own = kernels_of(name, variant)
    found = [*own, *(k.summed for k in own if k.summed is not None)]
    for units, warps, kib in TWINS.get(variant, OTHER_TWINS) if name in BUILT_IN else ():
        found += twins_of(name, units, 8, variant, warps, kib)
    return found


def sweeps(names: Sequence[str]) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What there is to do, in order."""
    pairs = cases.variants(names)
    for name, variant in pairs:
        yield f"simulated {name} {variant}", lambda n=name, v=variant: simulated(n, v)
    try:
        import cuda.bindings.nvjitlink  # noqa: F401
        import numba.cuda.types  # noqa: F401  numba's own `cuda` has no such module
    except ImportError:
        print("numba-cuda isn't installed: nothing is compiled")
        return
    made = Assembled()
    yield "compiled moves, tiles", lambda: made.of([move, contract, add_parts])
    for name, variant in pairs:
        yield (
            f"compiled {name} {variant}",
            lambda n=name, v=variant: made.of(with_twins(n, v)),
        )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.support.gpu_simulator.everything")
    parser.add_argument("cells", nargs="*", choices=[*cases.NAMES, []], metavar="CELL")
    parser.add_argument("--only", choices=["simulated", "compiled"], help="one of the two")
    parser.add_argument("--anew", action="store_true", help="forget what was done")
    parser.add_argument("--log", type=Path, default=LOG, help="where what was done is kept")
    asked = parser.parse_args(arguments)
    log, wrong = Log(asked.log, asked.anew), []
    for what, run in sweeps(asked.cells or cases.NAMES):
        if asked.only and not what.startswith(asked.only):
            continue
        found = log.once(what, run)
        print(f"{what:38} {found['said']}  ({found['seconds']} s)", flush=True)
        wrong += [f"{what}: {w}" for w in found["wrong"]]
        print("".join(f"    {w}\n" for w in found["wrong"]), end="", flush=True)
    print("\n".join(wrong) or "nothing is off")
    return int(bool({*wrong} - SPILLS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
