"""Statements are computed where they are read, if that spares memory, and only then."""

from __future__ import annotations

import numpy as np

from rnncc.compiler import check_text, compile_text
from rnncc.lowering.lower import lower
from rnncc.passes.pipeline import gradient, optimise
from rnncc.schedule.build import schedule
from rnncc.schedule.model import LaneStage

UNFOLDED = """cell: Unfolded
features: size
units: size
x: input[features]
h: state[units]
K: weight[features, units]
s: weight[units, units]
m: weight[units, units]
w: weight[units, units]
z = x[t] @ K
a = tanh(z + sum(w * sigmoid(s * (reshape(h[t-1], (units, 1)) - m)), axis=0))
b = tanh(z - sum(w * sigmoid(s * (reshape(a, (units, 1)) - m)), axis=0))
h[t] = tanh(z + sum(w * sigmoid(s * (reshape(b, (units, 1)) - m)), axis=0))
return h[t]
"""


def stages_of(text: str, backward: bool) -> list[LaneStage]:
    """Those of the loop."""
    program = lower(check_text(text))
    if backward:
        wrt = [p.value.name for p in program.params if p.role == "weight"]
        _, program = gradient(program, wrt)
    (scan,) = (k for k in schedule(optimise(program)).kernels if k.kind == "scan")
    return [s for level in scan.levels for s in level.stages if isinstance(s, LaneStage)]


def test_each_unfolding_computes_its_own_when_its_turn_comes() -> None:
    """All three sigmoids could be computed first: the states they are of have been saved."""
    stages = [s for s in stages_of(UNFOLDED, True) if "sigmoid" in {op.opcode for op in s.ops}]
    assert [[op.opcode for op in s.ops].count("sigmoid") for s in stages] == [1, 1, 1]
    # What they leave: a cotangent, whose sum m's gradient is, and two sums so far; then three.
    assert sorted(len(s.stores) for s in stages) == [3, 3, 4]


def test_a_statement_that_would_leave_more_behind_stays() -> None:
    """The accumulator would be kept instead of what is made of it."""
    text = UNFOLDED.split("z = ")[0].replace("s: weight", "U: weight")
    text = text.replace("m: weight[units, units]\nw: weight[units, units]\n", "")
    text += "q = sigmoid(h[t-1] @ U)\nh[t] = q * softmax(x[t] @ K + h[t-1])\nreturn h[t]\n"
    stages = stages_of(text, False)
    (own,) = (s for s in stages if "sigmoid" in {op.opcode for op in s.ops})
    assert own.groups and "q" in {store.value.name for store in own.stores}


def test_kernels_compute_the_same() -> None:
    """Against NumPy's own steps, and slopes by small differences."""
    rng = np.random.default_rng(3)
    layer = compile_text(UNFOLDED, dtype="float64")(units=19, return_sequences=True, seed=2)
    x = rng.standard_normal((5, 4, 3))
    layer.build(x.shape)
    weights = {n: rng.standard_normal(v.shape) * 0.3 for n, v in layer.weights.items()}
    for name, value in weights.items():
        layer.weights[name] = value

    def run(K: np.ndarray, s: np.ndarray, m: np.ndarray, w: np.ndarray) -> np.ndarray:
        h, ys = np.zeros((5, 19)), []
        for t in range(4):
            z, v = x[:, t] @ K, h
            for sign in (1, -1, 1):
                gate = 1 / (1 + np.exp(-s * (v[:, :, None] - m)))
                v = np.tanh(z + sign * (w * gate).sum(1))
            h = v
            ys.append(h)
        return np.stack(ys, 1)

    y, pullback = layer.vjp(x)
    np.testing.assert_allclose(y, run(**weights), rtol=0, atol=1e-12)
    dy = rng.standard_normal(y.shape)
    grads = pullback(dy).weights
    for name, value in weights.items():
        way, step = rng.standard_normal(value.shape), 1e-5
        up, down = (run(**{**weights, name: value + d * way}) for d in (step, -step))
        slope = ((up - down) * dy).sum() / (2 * step)
        np.testing.assert_allclose((grads[name] * way).sum(), slope, rtol=1e-7)
