"""What a case's outputs should be: the interpreter's, in float64."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.case import TRAINING, Case, Data
from rnncc.cli.settings import builtin_cells
from rnncc.frontend.parse import parse_file
from rnncc.ir.interp import interpret
from rnncc.ir.program import Program
from rnncc.passes.lower import lower
from rnncc.passes.pipeline import gradient


def expected(case: Case, data: Data) -> dict[str, np.ndarray]:
    """`y`, and in training `dx` and `d_<weight>`."""
    program = lower(parse_file(builtin_cells()[case.cell]))
    sizes = {"features": case.features, "units": case.units}
    given = _arguments(program, data, sizes, case.batch)
    wrt = ["x", *(w for w in data.weights if w in given)]
    forward, pullback = gradient(program, wrt)
    out = interpret(forward, given, sizes, case.batch, case.time)
    results = {r.name: r for r in forward.results}
    y = next(out[n] for n, r in results.items() if r.role == "output")
    found = {"y": y}
    if case.mode == TRAINING:
        saved = [out[n] for n, r in results.items() if r.role == "residual"]
        names = [p.value.name for p in pullback.params if p.role == "residual"]
        given = {**given, **dict(zip(names, saved, strict=True))}
        for param in pullback.params:
            if param.role == "cotangent":
                shape = [s.evaluate(sizes) for s in param.value.type.shape]
                lead = [{"B": case.batch, "T": case.time}[a] for a in param.value.type.axes]
                given[param.value.name] = np.zeros([*lead, *shape])
        output = next(n for n, r in results.items() if r.role == "output")
        given[f"d_{output}"] = data.dy
        back = interpret(pullback, given, sizes, case.batch, case.time)
        found["dx"] = back["d_x"]
        found |= {f"d_{w}": back[f"d_{w}"] for w in wrt[1:]}
    return found


def _arguments(
    program: Program, data: Data, sizes: Mapping[str, int], batch: int
) -> dict[str, np.ndarray]:
    given: dict[str, np.ndarray] = {"x": data.x}
    for param in program.params:
        name = param.value.name
        if param.role == "state":
            shape = [s.evaluate(sizes) for s in param.value.type.shape]
            given[name] = np.zeros((batch, *shape))
        elif param.role == "weight":
            given[name] = data.weights[name]
        elif param.role == "rate":
            given[name] = np.array(0.0)
    return given


def worst_error(found: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> float:
    """The largest max|a - b| / max(1, max|b|) over all arrays; infinite when one is missing."""
    if set(right) - set(found):
        return float("inf")
    errors = [0.0]
    for name, b in right.items():
        a = np.asarray(found[name], np.float64)
        if a.shape != b.shape:
            return float("inf")
        errors.append(float(np.abs(a - b).max(initial=0) / max(1.0, np.abs(b).max(initial=0))))
    return max(errors)
