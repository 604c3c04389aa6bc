"""Kernels to PTX and machine code with no GPU and no driver; what the assembler says of them.

The loops of each built-in cell once here, variants and architectures in turn, so that every pair of
those is met by several cells; the largest loops under what adds to them, too. `python -m
tests.support.gpu_simulator.everything` has every kernel of every cell and variant for both.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

import pytest

from rnncc import compiler
from rnncc.artifact.cell import Variant
from rnncc.artifact.stationary_weights import BlockCapacity, numbers
from rnncc.common.size_expressions import evaluate
from rnncc.lowering.describe import describe
from rnncc.runtime.cuda.kernels.kernel import CudaKernel
from tests.conftest import Golden
from tests.runtime.cuda.test_mutants import changed
from tests.support import cases

CAPABILITIES = ((8, 0), (9, 0))
VARIANTS = ("plain", "mask", "drawn")
BUILT_IN = [n for n in cases.NAMES if "tests" not in cases.FILES[n].parts]
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


def kernels_of(name: str, variant: str) -> list[CudaKernel]:
    """Both directions' kernels."""
    return [k.function for k in tables_of(name, variant)]


def tables_of(name: str, variant: str) -> list[Any]:
    """What a module says of both directions' kernels."""
    spec = cases.spec_of(name)
    rates = frozenset(r.name for r in spec.rates)
    asked = {
        "plain": Variant(),
        "mask": Variant(mask=True),
        "drawn": Variant(training=True, active_rates=rates),
    }[variant]
    engine: Any = compiler.cuda_engine(spec, describe(spec), asked)
    sides = (engine._forward, engine._backward)
    return [k for side in sides for k in side.direction.kernels]


def compiled(kernel: CudaKernel, capability: tuple[int, int], dtype: str = "float32") -> Any:
    """PTX and the assembler's report."""
    from rnncc.runtime.cuda.kernels import ptx

    text = ptx.ptx(kernel, dtype, capability)
    assert f".target sm_{capability[0]}{capability[1]}" in text
    return text, ptx.assemble(text, capability)[1]


@contextmanager
def typed_once() -> Iterator[None]:
    """One kernel is compiled in here: numba types it once, whatever the architectures."""
    from numba.cuda import compiler

    whole, made = compiler._compile_pyfunc_with_fixup, []

    def first(*given: Any, **more: Any) -> Any:
        if not made:
            made.append(whole(*given, **more))
        return made[0]

    compiler._compile_pyfunc_with_fixup = first
    try:
        yield
    finally:
        compiler._compile_pyfunc_with_fixup = whole


# What is in no kernel of single precision, and why.
FORBIDDEN = {
    ".f64": "a double slipped in",
    ".local": "an array isn't in registers",
    "ld.global.nc": "a read that barriers don't order",
}


# What sin and cos of numbers above 1e5 are reduced by: libdevice's table, array and doubles.
REDUCTION = "__cudart_i2opi_f"


def faults(text: str, report: Any) -> list[str]:
    found = [f"{word}: {why}" for word, why in FORBIDDEN.items() if word in text]
    found = [] if REDUCTION in text else found
    return found + [f"{report.spilled} bytes spilled"] * bool(report.spilled)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant", "capability"), LOOPS, ids=[f"{n}-{v}-sm_{a}{b}" for n, v, (a, b) in LOOPS]
)
def test_loops_compile(name: str, variant: str, capability: tuple[int, int]) -> None:
    for kernel in kernels_of(name, variant):
        if kernel.name.endswith("scan"):
            assert not faults(*compiled(kernel, capability)), kernel.name


def twins_of(
    name: str, units: int, rows: int, variant: str = "plain", warps: int = 8, shared: int = 227
) -> list[CudaKernel]:
    """The loops whose weights can stay on the chip, for that size; where there are stages between
    their sums, not in blocks of more warps than usual."""
    sizes = cases.sizes_for(cases.spec_of(name), units, units)
    room = BlockCapacity(shared * 1024)
    found = []
    for table in tables_of(name, variant):
        twin = table.function.twin
        if twin is not None and (table.levels == 1 or warps == 8):
            made = numbers(
                twin.shapes,
                lambda text: evaluate(text, sizes),
                *(rows, warps, room, twin.words, table.levels),
            )
            assert not isinstance(made, str), made
            found.append(twin.built(made.constants))
    return found


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
