"""Random cells as files of ONNX, run by others, against the reference that shares nothing with us.

Every attempt is a cell and a call of `tests/attack/cells` as inference has them: with lengths or a
mask, initial states, backwards, steps first. In float64 a Scan has to give the reference's numbers
in onnxruntime. Every third attempt, and those of operators that onnxruntime hasn't in float64, are
float32, which has to come close.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.attack import Attack

FLOAT32, FLOAT64 = 2e-4, 1e-9
# Of arguments near a step or a pole, where single rounding decides.
FAR = 1e3


def attempt(index: int, seed: int) -> str | None:
    from tests.attack.cells.compare import NUDGES, Caller, Unfit, _error, expect
    from tests.attack.cells.generate import make_case
    from tests.attack.cells.text import case_text, text_of

    case = make_case(index, seed)
    still = {"training": False, "stateful": False, "resets": False, "second": False, "wrt": ()}
    still |= {"initial": "all" if case.call.initial else "", "shapes": case.call.shapes}
    case = replace(case, call=replace(case.call, **still))
    try:
        bound, calls = expect(case)
    except Unfit:
        return None
    text, dtype = text_of(case.cell), "float32" if index % 3 == 0 else "float64"
    try:
        try:
            found = list(_found(bound, calls, text, dtype, Caller))
        except Lacking:
            dtype = "float32"
            found = list(_found(bound, calls, text, dtype, Caller))
    except Refused:
        return None
    except Exception as error:
        return f"{case_text(case)}\n{dtype}: {type(error).__name__}: {error}"
    shaken = [expect(case, n)[1] for n in range(1, NUDGES + 1)]
    for number, shown in enumerate(found):
        right = calls[number][1]
        for name, array in shown.items():
            wrong = _error(array, right[name]) if array.shape == right[name].shape else np.inf
            wobble = max(_error(s[number][1][name], right[name]) for s in shaken)
            # The reference was shaken by 1e-13.
            rounding = 1e-7 / 1e-13 if dtype == "float32" else 1.0
            least = FLOAT32 if dtype == "float32" else FLOAT64
            if not wrong <= least + FAR * rounding * wobble:
                return f"{case_text(case)}\n{dtype}: {name} of call {number + 1} is off by {wrong}"
    return None


class Refused(Exception):
    """A cell that tells a layer what it can't be."""


class Lacking(Exception):
    """An operator that onnxruntime hasn't for such numbers."""


def _found(bound: Any, calls: Any, text: str, dtype: str, caller: Any) -> Any:
    """What the file gives in each call, by the reference's names."""
    from rnncc import oracle
    from rnncc.export.to_onnx.door import graph_of
    from rnncc.frontend.diagnostics import SpecError
    from rnncc.lowering.cell_interface import check_text

    call = bound.call
    try:
        made = caller(bound, check_text(text, "cell.rnn"), "oracle")
    except SpecError:
        raise Refused from None
    layer = made.layer
    if dtype == "float32":
        cls = oracle.layer_class(check_text(text, "cell.rnn"), dtype)
        layer = made.layer = cls(**{**layer._chosen.keywords(), **_switches(layer)})
    given = calls[0][0]
    dims = {n: made._in(n, given.arrays[n]).shape for n in made.order}
    if not layer.built:
        layer.build(dims if len(dims) > 1 else next(iter(dims.values())))
    for kind in (layer.weights, layer.constants):
        for name in list(kind):
            kind[name] = given.arrays[name]
    unknown = [s.name for s in layer.cell.sizes if s.name not in layer.sizes]
    if unknown:
        raise Refused
    model = graph_of(
        layer,
        states=call.initial == "all",
        lengths=call.mask == "lengths",
        mask=call.mask == "mask",
        form="scan" if dtype == "float64" else "auto",
    )
    run = runner(model)
    names = [o.name for o in model.graph.output]
    for given, _ in calls:
        feed = {n: np.asarray(made._in(n, given.arrays[n]), dtype) for n in made.order}
        if call.mask == "lengths":
            feed["lengths"] = given.valid.sum(1)
        elif call.mask:
            feed["mask"] = given.valid
        feed |= {f"initial_{n}": np.asarray(a, dtype) for n, a in given.starts.items()}
        wanted = {i.name for i in model.graph.input}
        arrays = run({n: a for n, a in feed.items() if n in wanted})
        count = len(bound.cell.returns)
        shown = {f"y.{i}": made._out(f"y.{i}", y) for i, y in enumerate(arrays[:count])}
        finals = {f"state.{n}": s for n, s in zip(bound.states, arrays[count:])}
        assert len(arrays) == len(names)
        yield shown | (finals if call.return_state else {})


def _switches(layer: Any) -> dict[str, Any]:
    from tests.attack.cells.compare import SWITCHES

    return {n: getattr(layer, n) for n in SWITCHES}


def runner(model: Any) -> Any:
    """Inputs by name -> outputs in order."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    data = model.SerializeToString()
    try:
        session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        raise Lacking from None
    return lambda feed: session.run(None, feed)


ATTACK = Attack(
    name="exported",
    about="random cells as files of ONNX, in onnxruntime, against torch",
    count=3000,
    short=4,
    attempt=attempt,
)
