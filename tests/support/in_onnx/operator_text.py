"""RNN, GRU and LSTM as the text of ONNX's operators says them: NumPy, float64, one row at a time.

It shares nothing with the package. Where the text is silent: `input_forget` is f = 1 - i, and a
row of no steps has last states of zeros, both as in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
# alpha and beta where the operator of the same name has defaults.
TEXTS: dict[str, tuple[Callable[..., Array], tuple[float, ...]]] = {
    "Relu": (lambda x: np.maximum(0, x), ()),
    "Tanh": (np.tanh, ()),
    "Sigmoid": (lambda x: (1 + np.tanh(x / 2)) / 2, ()),  # the same, and exp can't overflow
    "Affine": (lambda x, a, b: a * x + b, (np.nan, np.nan)),
    "LeakyRelu": (lambda x, a: np.where(x >= 0, x, a * x), (0.01,)),
    "ThresholdedRelu": (lambda x, a: np.where(x >= a, x, 0), (1.0,)),
    "ScaledTanh": (lambda x, a, b: a * np.tanh(b * x), (np.nan, np.nan)),
    "HardSigmoid": (lambda x, a, b: np.minimum(np.maximum(a * x + b, 0), 1), (0.2, 0.5)),
    "Elu": (lambda x, a: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))), (1.0,)),
    "Softsign": (lambda x: x / (1 + np.abs(x)), ()),
    "Softplus": (lambda x: np.logaddexp(0, x), ()),
}
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def takes(name: str) -> tuple[bool, bool]:
    """Whether it takes alpha, and beta."""
    count = len(TEXTS[name][1])
    return count > 0, count > 1


def run(op: str, X: Array, W: Array, R: Array, **given: Any) -> tuple[Array, ...]:
    """Y, Y_h and, of LSTM, Y_c. given: the other inputs and attributes by their names."""
    layout = given.get("layout", 0)
    if layout:
        X = X.swapaxes(0, 1)
    time, batch, _ = X.shape
    ways, units = W.shape[0], R.shape[2]
    direction = given.get("direction", "forward")
    names = given.get("activations") or DEFAULTS[op] * ways
    functions = _functions(names, given.get("activation_alpha"), given.get("activation_beta"))
    lens = given.get("sequence_lens")
    lens = [time] * batch if lens is None else lens
    starts = [given.get(n) for n in ("initial_h", "initial_c")]
    if layout:
        starts = [None if s is None else s.swapaxes(0, 1) for s in starts]
    Y = np.zeros((time, ways, batch, units))
    last = np.zeros((2, ways, batch, units))
    for way in range(ways):
        own = functions[way * len(names) // ways : (way + 1) * len(names) // ways]
        B = given.get("B")
        bias = np.zeros((2, W.shape[1])) if B is None else B[way].astype(float).reshape(2, -1)
        P = given.get("P")
        peep = np.zeros((3, units)) if P is None else P[way].astype(float).reshape(3, units)
        for row in range(batch):
            H, C = (np.zeros(units) if s is None else s[way, row].astype(float) for s in starts)
            steps = range(lens[row])
            if direction == "reverse" or way == 1:
                steps = steps[::-1]
            for t in steps:
                x = X[t, row].astype(float)
                H, C = _step(op, x, H, C, W[way], R[way], bias, peep, own, given)
                Y[t, way, row] = H
            if lens[row]:
                last[:, way, row] = H, C
    states = list(last[: 2 if op == "LSTM" else 1])
    if layout:
        return (Y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in states))
    return (Y, *states)


def _step(
    op: str,
    x: Array,
    H: Array,
    C: Array,
    W: Array,
    R: Array,
    bias: Array,
    peep: Array,
    functions: list[Callable[[Array], Array]],
    given: dict[str, Any],
) -> tuple[Array, Array]:
    clip = given.get("clip")

    def bounded(v: Array) -> Array:
        return v if clip is None else np.clip(v, -clip, clip)

    gates = R.shape[0] // R.shape[1]
    Wx, RH = np.split(W.astype(float) @ x, gates), np.split(R.astype(float) @ H, gates)
    Wb, Rb = (np.split(b, gates) for b in bias)
    if op == "RNN":
        return functions[0](bounded(Wx[0] + RH[0] + Wb[0] + Rb[0])), C
    if op == "GRU":
        f, g = functions
        z = f(bounded(Wx[0] + RH[0] + Wb[0] + Rb[0]))
        r = f(bounded(Wx[1] + RH[1] + Wb[1] + Rb[1]))
        Rh = np.split(R.astype(float), 3)[2]
        if given.get("linear_before_reset", 0):
            h = g(bounded(Wx[2] + r * (Rh @ H + Rb[2]) + Wb[2]))
        else:
            h = g(bounded(Wx[2] + Rh @ (r * H) + Rb[2] + Wb[2]))
        return (1 - z) * h + z * H, C
    f, g, h = functions
    i_, o_, f_, c_ = (Wx[k] + RH[k] + Wb[k] + Rb[k] for k in range(4))
    i = f(bounded(i_ + peep[0] * C))
    forget = 1 - i if given.get("input_forget", 0) else f(bounded(f_ + peep[2] * C))
    C = forget * C + i * g(bounded(c_))
    o = f(bounded(o_ + peep[1] * C))
    # onnxruntime bounds what f and g are given, and not this; the text says "activations".
    return o * h(C if given.get("cell_unbounded") else bounded(C)), C


def _functions(
    names: list[str], alphas: list[float] | None, betas: list[float] | None
) -> list[Callable[[Array], Array]]:
    """Numbers are handed out in the order of the functions, to those that take one."""
    left = [list(alphas or ()), list(betas or ())]
    made = []
    for name in names:
        function, defaults = TEXTS[name]
        numbers = [float(np.float32(n.pop(0))) if n else d for n, d in zip(left, defaults)]
        made.append(lambda v, f=function, n=numbers: f(v, *n))
    return made
