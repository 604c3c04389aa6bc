"""rnncc's own C: the cell as `rnncc.export.c` writes it, compiled by gcc, blocks of samples.

A call is a block through ctypes: about a microsecond more.

Non-Goals: sequences of many rows; what a single step takes.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from bench.case import FORWARD, Case, Data
from bench.contenders import Run

FLAGS = ("-std=c99", "-O3", "-march=native", "-shared", "-fPIC")


def unavailable() -> str:
    return "" if shutil.which("gcc") else "no gcc"


def refuses(case: Case) -> str:
    plain = not case.options and not case.masked and case.mode == FORWARD
    return "" if plain and case.stateful and case.batch == 1 else "one row that keeps its states"


def prepare(case: Case, data: Data) -> Run:
    library = _built(case, data)
    pointers = [ctypes.c_void_p] * 3
    library.net_block.argtypes, library.net_block.restype = [*pointers, ctypes.c_int], None
    library.net_init.argtypes, library.net_init.restype = pointers[:1], None
    state = np.zeros(library.state_bytes(), "uint8")
    x, y = data.x.copy(), np.empty((1, case.time, case.units), case.dtype)
    library.net_init(state.ctypes.data)
    given = state.ctypes.data, x.ctypes.data, y.ctypes.data, case.time
    block, kept = library.net_block, (state, x, y)  # addresses keep nothing alive

    def call(kept: object = kept) -> None:
        block(*given)

    def outputs() -> dict[str, np.ndarray]:
        library.net_init(state.ctypes.data)
        found = []
        for _ in range(2):
            call()
            found.append(y.copy())
        return {"y": np.concatenate(found, axis=1)}

    return Run("C99, gcc -O3 -march=native", call, outputs)


def _built(case: Case, data: Data) -> ctypes.CDLL:
    import rnncc
    import rnncc.export

    layer = rnncc.compile(case.cell, dtype=case.dtype)(units=case.units, return_sequences=True)
    layer.build(data.x.shape)
    layer.set_weights([data.weights[name] for name in layer.weights])
    with tempfile.TemporaryDirectory() as folder:
        made = rnncc.export.c(layer, Path(folder, "made"), name="net", block=64)
        size = made / "size.c"
        size.write_text('#include "net.h"\nint state_bytes(void) { return sizeof(net_state); }\n')
        library = made / "net.so"
        sources = [str(made / "net.c"), str(size)]
        subprocess.run(["gcc", *FLAGS, *sources, "-o", str(library), "-lm"], check=True)
        return ctypes.CDLL(str(library))
