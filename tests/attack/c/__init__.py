"""Cells and models as C on every machine that can be had here: each folder's own test, which holds
steps and blocks against the Python layer.

An attempt is one subject and one toolchain of `tests.support.c.toolchains`; what isn't installed
is passed over, and `python -m tests.support.c.toolchains` says which. RNNCC_MODELS names a folder
of models from elsewhere.

Non-Goals: allocation, time and sizes (`tests.emit.c.test_targets`).
"""

from __future__ import annotations

import os
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import rnncc
import rnncc.export
from tests.attack import Attack
from tests.support.c.toolchains import TOOLCHAINS
from tests.support.c.units import built
from tests.support.paths import ROOT
from tests.support.random_cells import random_cell

CELLS = sorted(p.stem for p in (ROOT / "rnncc" / "cells").glob("*.rnn"))
SIZES = {
    "nested": {"unit_1": 3, "unit_2": 4, "unit_3": 2},
    "slstm": {"units": 12, "heads": 3},
}
RANDOM = 10
MODELS = ("amp_lstm.nam", "overdrive_lstm_1x16.nam", "rtneural_gru.json", "rtneural_lstm.json")
# (what, dtype or storage)
SUBJECTS = [
    *((cell, kind) for cell in CELLS for kind in ("float32", "float64")),
    *((cell, kind) for cell in ("lstm", "gru", "slstm") for kind in ("bfloat16", "int8")),
    *((f"random {n}", "float64") for n in range(RANDOM)),
    *((name, kind) for name in MODELS for kind in ("float32", "int8")),
]


def attempt(index: int, seed: int) -> str | None:
    chain = list(TOOLCHAINS)[index % len(TOOLCHAINS)]
    what, kind = SUBJECTS[index // len(TOOLCHAINS) % len(SUBJECTS)]
    toolchain = TOOLCHAINS[chain]
    if toolchain.missing:
        return None
    source = _exported(what, kind, seed)
    if source is None:
        return None
    with tempfile.TemporaryDirectory() as made:
        program = Path(made) / "program"
        try:
            toolchain.build([source / "net.c", source / "net_test.c"], program)
        except AssertionError as error:
            return f"{what}, {kind}, {chain}: {error}"
        done = toolchain.run(program)
    said = (done.stdout + done.stderr).strip()
    return None if done.returncode == 0 else f"{what}, {kind}, {chain}: {done.returncode}, {said}"


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@lru_cache(maxsize=1)
def _exported(what: str, kind: str, seed: int) -> Path | None:
    """The folder; None where there is no such model."""
    storage = kind if kind in ("bfloat16", "int8") else None
    kept = tempfile.TemporaryDirectory(prefix="rnncc_c_")
    _KEPT[:] = [kept]  # until the next subject, or the end
    folder = Path(kept.name) / "made"
    if what in MODELS:
        path = Path(os.environ.get("RNNCC_MODELS", ROOT.parent / "shared" / "models")) / what
        if not path.exists():
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = rnncc.load_model(path)
        return rnncc.export.c(model, folder, name="net", block=7, storage=storage)
    return rnncc.export.c(_layer(what, kind, seed), folder, name="net", block=7, storage=storage)


def _layer(what: str, kind: str, seed: int) -> Any:
    dtype = kind if kind.startswith("float") else "float32"
    if what.startswith("random "):
        cls = rnncc.compile_text(random_cell(int(what.split()[1]) + 1000 * seed))
        return built(cls(features=3, units=4, dtype=dtype, seed=1), (None, None, 3))
    layer = rnncc.compile(what)(**SIZES.get(what, {"units": 12}), dtype=dtype, seed=1)
    shapes = tuple((None, None, *([5] * len(i.shape))) for i in layer.cell.inputs)
    return built(layer, shapes if len(shapes) > 1 else shapes[0])


ATTACK = Attack(
    name="c",
    about="cells and models as C on other machines, against the Python layer",
    count=len(SUBJECTS) * len(TOOLCHAINS),
    short=1,
    attempt=attempt,
)
