"""Every cell on simulated kernels against the interpreter: values and all gradients.

Pairwise: each cell under each variant meets one machine, one shape.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import cases
from tests.support.cpu_simulator.simulate import Simulator
from tests.support.cpu_simulator.twins import Twins
from tests.support.paths import ROOT
from tests.support.twins import LIMIT, Shape

SHAPES: tuple[Shape, ...] = ((5, 3, 4, 3), (18, 2, 3, 7), (3, 5, 2, 4), (2, 1, 3, 1))
MACHINES = ((32, 2), (16, 3), (64, 1), (64, 2))  # bytes of a vector, threads
# Where a row of a state is units * units.
SLOW = ("matrix_memory", "fast_weights", "context_attention")


def pairs() -> list[tuple[str, str, Shape, tuple[int, int], str]]:
    found = []
    for i, (name, variant) in enumerate(cases.variants(cases.NAMES)):
        shape = SHAPES[0] if name in SLOW else SHAPES[i % 4]
        dtype = "float64" if (i + i // 2) % 2 else "float32"  # each cell in both
        found.append((name, variant, shape, MACHINES[i // 4 % 4], dtype))
    return found


@pytest.mark.parametrize(("name", "variant", "shape", "machine", "dtype"), pairs())
def test_cell(name: str, variant: str, shape: Shape, machine: tuple[int, int], dtype: str) -> None:
    simulator = Simulator(*machine, seed=len(name) + shape[0])
    error, whose = Twins.of(name, variant, shape, simulator, dtype).worst()
    assert error <= LIMIT[dtype], (whose, error)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["layer_norm_lstm", "delays", "shapes"])
def test_parts_of_rows(name: str, dtype: str) -> None:
    """Whole rows need no padding, parts of them do: vectors of the last part end behind a caller's
    array."""
    simulator = Simulator(64, 2, seed=1)
    error, whose = Twins.of(name, "plain", (8, 2, 2, 8), simulator, dtype).worst()
    assert error <= LIMIT[dtype], (whose, error)


def test_no_compiler_is_asked() -> None:
    """Nor Numba imported: a process that has it runs the kernels, too."""
    text = """
        import sys
        from tests.support.cpu_simulator.simulate import Simulator
        from tests.support.cpu_simulator.twins import Twins
        error, _ = Twins.of("gru", "mask", (5, 3, 4, 3), Simulator()).worst()
        assert error < 1e-12 and "numba" not in sys.modules
    """
    code = "\n".join(line.strip() for line in text.splitlines())
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
