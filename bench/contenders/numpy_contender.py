"""NumPy: a Python loop over steps, x @ kernel of all steps before it. Forward only."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.case import FORWARD, Case, Data
from bench.contenders import Run
from bench.contenders.cells import code_of, ops_of, refuses_cell


def unavailable() -> str:
    return ""


def refuses(case: Case) -> str:
    return refuses_cell(case) if case.mode == FORWARD else "no gradients"


def prepare(case: Case, data: Data) -> Run:
    code, ops, w = code_of(case), ops_of("numpy"), data.weights
    assert code is not None
    x = np.ascontiguousarray(data.x.swapaxes(0, 1))
    mask = data.mask.T if case.masked else None

    def start() -> Any:
        return [np.zeros(s, case.dtype) for s in code.shapes(case.batch, case.units)]

    states = start()

    def run() -> np.ndarray:
        """Outputs [time, batch, units]."""
        nonlocal states
        if not case.stateful:
            states = start()
        rows = []
        for t, z in enumerate(code.before(ops, w, x)):
            new = code.step(ops, w, z, None, *states)
            if mask is not None:
                like = [mask[t].reshape(-1, *[1] * (a.ndim - 1)) for a in new]
                new = tuple(map(np.where, like, new, states))
            states = new
            rows.append(states[0])
        return np.stack(rows).reshape(case.time, case.batch, -1)

    def outputs() -> dict[str, np.ndarray]:
        y = np.concatenate([run(), run()]) if case.stateful else run()
        return {"y": y.swapaxes(0, 1)}

    return Run(f"numpy {np.__version__}, a Python loop", run, outputs)
