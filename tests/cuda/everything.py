"""`python -m tests.cuda.everything [CELL ...]`: every cell, variant, tier and shape on the
simulated grid, forward and backward, against the interpreter; and every kernel to PTX and machine
code where numba-cuda is installed. Some minutes; exits with 1 if anything is off.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests import cases
from tests.cuda.test_cells import TIERS, shapes_for, simulator
from tests.cuda.test_ptx import CAPABILITIES, compiled, kernels_of
from tests.cuda.twins import LIMIT, Twins


def simulated(names: Sequence[str]) -> list[str]:
    wrong = []
    for name, variant in cases.variants(names):
        errors = {
            (tier, shape): Twins.of(name, variant, shape).worst(simulator(tier, 5), tier)[0]
            for tier in TIERS
            for shape in shapes_for(name, tier)
        }
        worst = max(errors.values())
        print(f"{name:20} {variant:6} {len(errors):3} runs, largest error {worst:.1e}", flush=True)
        wrong += [f"{name} {variant} {k}: {e}" for k, e in errors.items() if e > LIMIT["float32"]]
    return wrong


def assembled(names: Sequence[str]) -> list[str]:
    wrong = []
    for name, variant in cases.variants(names):
        for kernel in kernels_of(name, variant):
            for capability in CAPABILITIES:
                text, report = compiled(kernel, capability)
                if report.spilled or ".f64" in text:
                    wrong.append(f"{kernel.name} of {name} {variant} for {capability}: {report}")
        print(f"{name:20} {variant:6} compiled", flush=True)
    return wrong


def main(arguments: Sequence[str]) -> int:
    names = list(arguments) or cases.NAMES
    wrong = simulated(names)
    try:
        import numba.cuda.types  # noqa: F401  numba's own `cuda` has no such module
    except ImportError:
        print("numba-cuda isn't installed: nothing was compiled")
    else:
        wrong += assembled(names)
    print("\n".join(wrong) or "nothing is off")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
