"""Kernels to PTX and machine code with no GPU and no driver; what the assembler says of them.

The loops of each built-in cell once here, variants and architectures in turn, so that every pair of
those is met by several cells; the largest loops under what adds to them, too. `python -m
tests.support.gpu_simulator.everything` has every kernel of every cell and variant for both.
"""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

import pytest

from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from tests.conftest import Golden
from tests.support.gpu_simulator.machine_code import (
    BUILT_IN,
    CAPABILITIES,
    compiled,
    faults,
    kernels_of,
    twins_of,
    typed_once,
)
from tests.support.gpu_simulator.mutants import changed

VARIANTS = ("plain", "mask", "drawn")
# Nearest to the end of the registers: a mask and draws add to what the plain loop holds.
LARGE = [(n, v) for n in ("layer_norm_lstm", "light_gru") for v in ("mask", "drawn")]
LOOPS = [
    (name, variant, CAPABILITIES[i % 2])
    for i, (name, variant) in enumerate(
        dict.fromkeys([*((n, VARIANTS[i % 3]) for i, n in enumerate(BUILT_IN)), *LARGE])
    )
]


@pytest.fixture(scope="module", autouse=True)
def _compilers() -> None:
    pytest.importorskip("numba.cuda.types", reason="numba-cuda isn't installed")
    pytest.importorskip("cuda.bindings.nvjitlink", reason="nvJitLink isn't installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant", "capability"), LOOPS, ids=[f"{n}-{v}-sm_{a}{b}" for n, v, (a, b) in LOOPS]
)
def test_loops_compile(name: str, variant: str, capability: tuple[int, int]) -> None:
    for kernel in kernels_of(name, variant):
        if kernel.name.endswith("scan"):
            assert not faults(*compiled(kernel, capability)), kernel.name


def test_doubles_are_refused() -> None:
    """A bare number would make a kernel slow and nobody would notice."""
    from numba.core.errors import TypingError

    (scan,) = (k for k in kernels_of("lstm", "plain") if k.name == "forward_scan")
    mutant = changed(r"v\.tanh\((\w+)\)", r"v.tanh(\1) * 1.0")(scan.function)
    with pytest.raises(TypingError):
        compiled(CudaKernel(mutant), (9, 0))


# ---- what a simulated grid can't show: caches, and the order in which memory is seen ------------

ORDER = ["bar.sync", "red.release.gpu.global.add.u64", "ld.acquire.gpu.global.u64", "bar.sync"]


@pytest.fixture(scope="module")
def loop() -> tuple[str, bytes]:
    """A loop whose blocks wait for each other: PTX and machine code."""
    from rnncc.runtime.cuda.kernels import ptx

    (scan,) = (k for k in kernels_of("simple_rnn", "plain") if k.name == "forward_scan")
    text = ptx.ptx(scan, "float32", (9, 0))
    return text, ptx.assemble(text, (9, 0))[0]


def test_barrier_releases_and_acquires(loop: tuple[str, bytes]) -> None:
    """All of a block's writes come before its arrival, and the wait before all of its reads."""
    found = re.findall("|".join(dict.fromkeys(map(re.escape, ORDER))), loop[0])
    once = [x for x, before in zip(found, [None, *found]) if x != before]  # the wait is a loop
    assert once == ORDER


def test_waiting_empties_the_first_cache(loop: tuple[str, bytes], tmp_path: Path) -> None:
    """States take turns in two places, so a multiprocessor has the last but one in its own cache:
    every acquiring read has to be followed by what empties it, and the arrival comes after what
    makes a block's writes visible to all."""
    (tmp_path / "loop.cubin").write_bytes(loop[1])
    ran = subprocess.run(
        [disassembler(), "-c", "loop.cubin"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    code = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@\S+ )?([A-Z][\w.]*)", ran.stdout, re.M)
    waits = [i for i, op in enumerate(code) if op.startswith("LDG") and "STRONG.GPU" in op]
    assert waits and all(code[i + 1] == "CCTL.IVALL" for i in waits)
    (arrival,) = (i for i, op in enumerate(code) if op.startswith("RED"))
    assert "MEMBAR.ALL.GPU" in code[arrival - 4 : arrival]
    assert not any("CONSTANT" in op for op in code if op.startswith("LDG"))


def disassembler() -> str:
    try:
        found = files("nvidia-cuda-nvdisasm") or []
    except PackageNotFoundError:
        pytest.skip("nvdisasm isn't installed")
    return next(str(f.locate()) for f in found if f.name == "nvdisasm")


def test_old_devices_copy_by_themselves() -> None:
    """Copies on the side are sm_80's; before, threads load and store."""
    (twin,) = (k for k in twins_of("simple_rnn", 64, 2) if k.name.startswith("forward"))
    text, report = compiled(twin, (7, 5))
    assert "cp.async" not in text and not faults(text, report)
    assert "cp.async.cg.shared.global" in compiled(twin, (8, 0))[0]


# ---- figures -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_figures(golden: Golden) -> None:
    """Registers of an LSTM's kernels, held where the same compilers made them. Weights that stay on
    the chip: 128 a thread, as many as there are registers for; and on fewer multiprocessors with
    less shared memory, some of them there."""
    tools = [f"{p} {version(p)}" for p in ("numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")]
    lines = [f"# {', '.join(tools)}"]
    asked = [(k, CAPABILITIES) for k in kernels_of("lstm", "plain")]
    asked += [(k, ((9, 0),)) for k in twins_of("lstm", 1024, 8)]
    asked += [(k, ((8, 0),)) for k in twins_of("lstm", 1024, 8, warps=10, shared=163)]
    for kernel, capabilities in asked:
        with typed_once():
            made = [compiled(kernel, capability) for capability in capabilities]
        warps = dict(kernel.constants).get("WARPS")
        name = f"{kernel.name} {warps} warps" if warps else kernel.name
        for (text, report), (major, minor) in zip(made, capabilities, strict=True):
            assert not faults(text, report), kernel.name
            registers = f"{report.registers:4} registers {report.spilled} spilled"
            lines.append(f"{name:34} sm_{major}{minor} {registers}")
    kept = golden.folder / golden.default
    if not golden.update and kept.exists() and kept.read_text().splitlines()[0] != lines[0]:
        pytest.skip("other compilers than the figures are of")
    golden("\n".join(lines) + "\n")
