"""Kernels to PTX and machine code with no GPU and no driver; what the assembler says of them.

Pairwise here: each built-in cell's loops under one variant, for one architecture.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

from rnncc import compiler
from rnncc.emit.describe import describe
from rnncc.runtime.cuda.kernel import Kernel
from rnncc.runtime.sizes import evaluate
from rnncc.schedule.description import Variant
from rnncc.schedule.stationary import numbers
from tests import cases
from tests.conftest import Golden
from tests.cuda.test_mutants import changed

CAPABILITIES = ((8, 0), (9, 0))
BUILT_IN = [n for n in cases.NAMES if "tests" not in cases.FILES[n].parts]
PAIRS = [
    (name, variant, CAPABILITIES[i % 2])
    for i, (name, variant) in enumerate(cases.variants(BUILT_IN))
    if i % 3 == 0
]


@pytest.fixture(scope="module", autouse=True)
def _compilers() -> None:
    pytest.importorskip("numba.cuda.types", reason="numba-cuda isn't installed")
    pytest.importorskip("cuda.bindings.nvjitlink", reason="nvJitLink isn't installed")


def kernels_of(name: str, variant: str) -> list[Kernel]:
    """Both directions' kernels."""
    spec = cases.spec_of(name)
    rates = frozenset(r.name for r in spec.rates)
    asked = {
        "plain": Variant(),
        "mask": Variant(mask=True),
        "drawn": Variant(training=True, active_rates=rates),
    }[variant]
    engine: Any = compiler.cuda_engine(spec, describe(spec), asked)
    sides = (engine._forward, engine._backward)
    return [k.function for side in sides for k in side.direction.kernels]


def compiled(kernel: Kernel, capability: tuple[int, int], dtype: str = "float32") -> Any:
    from rnncc.runtime.cuda import offline

    text = offline.ptx(kernel, dtype, capability)
    return text, offline.assemble(text, capability)[1]


@pytest.mark.parametrize(("name", "variant", "capability"), PAIRS)
def test_loops_compile(name: str, variant: str, capability: tuple[int, int]) -> None:
    for kernel in kernels_of(name, variant):
        if not kernel.name.endswith("scan"):
            continue
        text, report = compiled(kernel, capability)
        assert f".target sm_{capability[0]}{capability[1]}" in text
        assert ".f64" not in text, f"{kernel.name}: a double slipped in"
        assert not report.spilled, f"{kernel.name}: {report}"


def twins_of(name: str, units: int, rows: int) -> list[Kernel]:
    """Both loops with weights in registers, for that size."""
    sizes = {"units": units, "features": units}
    found = []
    for kernel in kernels_of(name, "plain"):
        if kernel.twin is not None:
            shapes = kernel.twin.shapes
            made = numbers(shapes, lambda text: evaluate(text, sizes), rows, 8, 227 * 1024)
            assert not isinstance(made, str), made
            found.append(kernel.twin.built(made.constants))
    return found


def test_weights_stay_in_registers() -> None:
    """At the largest size that fits: 128 weights a thread."""
    for kernel in twins_of("lstm", 1024, 8):
        text, report = compiled(kernel, (9, 0))
        assert ".f64" not in text
        assert "ld.local" not in text and "st.local" not in text, "an array is no registers"
        assert not report.spilled, f"{kernel.name}: {report}"


def test_doubles_are_refused() -> None:
    """A bare number would make a kernel slow and nobody would notice."""
    from numba.core.errors import TypingError

    (scan,) = (k for k in kernels_of("lstm", "plain") if k.name == "forward_scan")
    mutant = changed(r"v\.tanh\((\w+)\)", r"v.tanh(\1) * 1.0")(scan.function)
    with pytest.raises(TypingError):
        compiled(Kernel(mutant), (9, 0))


def test_figures(golden: Golden) -> None:
    """Registers of an LSTM's kernels, held where the same compilers made them."""
    tools = [f"{p} {version(p)}" for p in ("numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")]
    lines = [f"# {', '.join(tools)}"]
    for kernel in [*kernels_of("lstm", "plain"), *twins_of("lstm", 512, 8)]:
        for capability in CAPABILITIES:
            _, report = compiled(kernel, capability)
            arch = f"sm_{capability[0]}{capability[1]}"
            lines.append(
                f"{kernel.name:26} {arch} {report.registers:4} registers {report.spilled} spilled"
            )
            assert not report.spilled
    kept = golden.folder / golden.default
    if not golden.update and kept.exists() and kept.read_text().splitlines()[0] != lines[0]:
        pytest.skip("other compilers than the figures are of")
    golden("\n".join(lines) + "\n")
