"""Random cells as files of ONNX, run by others, against the reference that shares nothing with us.

Every attempt is a cell and a call of `tests/attack/cells` as inference has them: with lengths or a
mask, initial states, backwards, steps first. In float64 a Scan has to give the reference's numbers
in onnxruntime. Every third attempt, and those of operators that onnxruntime hasn't in float64, are
float32, which has to come close. Every fourth is the cell that reads a node RNN, GRU or LSTM of any
options, which has to become that node again, and to give what the operator's text says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.attack import Attack

FLOAT32, FLOAT64 = 2e-4, 1e-9
# Of arguments near a step or a pole, where single rounding decides.
FAR = 1e3
LARGE = 40.0
# What a rounding of float32 may throw over.
STEPS = (
    "%",
    "//",
    "mod",
    "floor",
    "ceil",
    "round",
    "trunc",
    "sign",
    "heaviside",
    "<",
    ">",
    "==",
    "!=",
)


def attempt(index: int, seed: int) -> str | None:
    return _node(seed * 1_000_003 + index) if index % 4 == 3 else _cell(index, seed)


# ---- nodes ---------------------------------------------------------------------------------------


def _node(number: int) -> str | None:
    """Each direction of a drawn node, as a layer, back to a node."""
    from rnncc.models.onnx.node_weights import NodeArrays, layers_of
    from rnncc.models.onnx.settings import settings_of
    from tests.support.in_onnx.drawn_nodes import drawn
    from tests.support.in_onnx.exported import graph, kinds

    given = drawn(number, layouts=False)
    what = f"{number}: {given.op} {given.attributes}"
    arrays = {n: given.arrays.get(n) for n in ("W", "R", "B", "P")}
    settings = settings_of(given.op, given.attributes)
    layers = layers_of(settings, NodeArrays(*arrays.values()))
    begun = {n: f"initial_{n}" for n in settings.kind.states}
    begun = {n: name for n, name in begun.items() if name in given.arrays}
    with np.errstate(all="ignore"):
        full = replace(given, outputs=("Y", "Y_h", "Y_c")[: 3 if given.op == "LSTM" else 2])
        outputs = full.expected()
    right, most = outputs["Y"], max(abs(a).max(initial=0) for a in outputs.values())
    lengths = given.arrays.get("sequence_lens")
    for i, layer in enumerate(layers):
        try:
            model = graph(layer, form="node", lengths=lengths is not None, states=True)
        except ValueError as error:
            if _is_line(given, i):
                continue
            return f"{what}: {error}"
        if kinds(model) != [given.op]:
            return f"{what}: became {kinds(model)}"
        if given.op == "LSTM" and "clip" in given.attributes:
            continue  # onnxruntime leaves a bound out
        feed = {"x": given.arrays["X"]}
        for name in settings.kind.states:
            zeros = np.zeros((given.arrays["X"].shape[1], given.units), "f")
            feed[f"initial_{name}"] = given.arrays[begun[name]][i] if name in begun else zeros
        if lengths is not None:
            feed["lengths"] = lengths.astype("i8")
        found = runner(model)(feed)[0]
        expected = right[:, i]
        if settings.directions[i] == "reverse":
            expected = expected[::-1]
        if not most <= LARGE:  # Softplus of large numbers is infinite in onnxruntime's nodes
            continue
        wrong = abs(found - expected).max(initial=0)
        if not wrong <= FLOAT32 * max(1, abs(expected).max(initial=0)):
            return f"{what}: direction {i} is off by {wrong}"
    return None


def _is_line(given: Any, direction: int) -> bool:
    """Whether 1 - gate is a line of its own, in which nobody sees the gate."""
    names = given.attributes.get("activations")
    if not names or not (given.op == "GRU" or given.attributes.get("input_forget")):
        return False
    roles = {"GRU": 2, "LSTM": 3}[given.op]
    return names[roles * direction] == "Affine"


# ---- cells ---------------------------------------------------------------------------------------


def _cell(index: int, seed: int) -> str | None:
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
    steps = any(word in text for word in STEPS)
    if steps:
        dtype = "float64"
    try:
        try:
            found = list(_found(bound, calls, text, dtype, Caller))
        except Lacking:
            if steps:
                return None
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
