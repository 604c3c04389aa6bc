"""Names that mean something to a GPU's side of things, on the simulated grid."""

from __future__ import annotations

import numpy as np
import pytest

from rnncc.compiler import layer_class
from rnncc.frontend.spec import CellSpec
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.cuda.driver.current_target import using
from tests.attack.names import outcome
from tests.support.gpu_simulator.grid import Simulator

ROWS = (
    "kernel=zeros recurrent=ones state=counters other=sums input=copies value=parts bias=seed_",
    "kernel=cuda recurrent=v state=F other=item input=lane value=left units=self cell=SIZE",
)


def made(spec: CellSpec) -> type[Layer]:
    return layer_class(spec, "cuda", "float64")


@pytest.mark.parametrize("row", ROWS)
def test_other_names_give_the_same_bits(row: str) -> None:
    names = dict(pair.split("=") for pair in row.split())
    with using(Simulator(1, multiprocessors=4, threads=32, registers=65_536)):
        right = outcome({}, True, False, made)
        found = outcome({f"q_{role}": name for role, name in names.items()}, True, False, made)
    for a, b in zip(found, right, strict=True):
        np.testing.assert_array_equal(a, b)
