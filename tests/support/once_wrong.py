"""Cells that once gave wrong numbers, each for its kind, and the sizes to try them with.

Non-Goals: asserting anything.
"""

from __future__ import annotations

from collections.abc import Mapping

SIZES: Mapping[str, int] = {"features": 3, "units": 5}
_WEIGHTS = {
    "K": "[features, units]",
    "W": "[features, units]",
    "U": "[units, units]",
    "A": "[features, 2]",
    "B": "[2, units]",
    "C": "[features, 4]",
    "b": "[units]",
    "w": "[units]",
    "v": "[units]",
}


def _cell(*lines: str, give: str = "h[t]", h: str = "[units]", x: str = "[features]") -> str:
    text = "\n".join((*lines, f"return {give}"))
    sizes = [n for n in SIZES if n in text + h + x or any(n in _WEIGHTS[k] for k in _read(text))]
    declared = [f"{n}: size" for n in sizes] + [f"x: input{x}"]
    declared += [f"h: state{h}"] * ("h[t]" in text)
    declared += [f"{n}: weight{_WEIGHTS[n]} = glorot_uniform" for n in _read(text)]
    return "\n".join(("cell: Once", *declared, text, ""))


def _read(text: str) -> list[str]:
    return [
        n for n in _WEIGHTS if n in set("".join(c if c.isalnum() else " " for c in text).split())
    ]


CELLS: dict[str, str] = {
    # The sum of a weight's gradient over steps was kept in a carry, which a kernel holds for rows.
    "exp(-w)": _cell("h[t] = exp(-w) * h[t-1] + x[t] @ K"),
    "1 - w": _cell("h[t] = (1 - w) * h[t-1] + x[t] @ K"),
    "softplus(w)": _cell("h[t] = softplus(w) * h[t-1] + x[t] @ K"),
    "sigmoid(-w)": _cell("h[t] = sigmoid(-w) * h[t-1] + x[t] @ K"),
    "cos(w)": _cell("h[t] = 0.5 * cos(w) * h[t-1] + x[t] @ K"),
    "1 - U": _cell("h[t] = tanh(h[t-1] @ (1 - U) + x[t] @ K)"),
    "softplus(W)": _cell("h[t] = tanh(h[t-1] + x[t] @ softplus(W))"),
    "A @ B": _cell("h[t] = tanh(x[t] @ (A @ B) + h[t-1])"),
    "einsum": _cell('h[t] = tanh(x[t] @ einsum("ij,jk->ik", A, B) + h[t-1])'),
    "U @ U'": _cell("h[t] = tanh(x[t] @ K + h[t-1] @ (U @ transpose(U)))"),
    "0.5 * w": _cell("h[t] = tanh(x[t] @ K + h[t-1] * (0.5 * w))"),
    "where": _cell("h[t] = where(h[t-1] > 0.3, h[t-1], hard_tanh(1 - w)) + x[t] @ K"),
    "used twice": _cell("z = tanh(x[t] @ (W - K)) @ U", "h[t] = h[t-1] @ U - x[t] @ K + z * w - w"),
    "w + w": _cell("h[t] = (w + w) * tanh(x[t] @ K) + h[t-1] @ (U / (U * U + 2))"),
    "w @ w": _cell("h[t] = 0.3 * h[t-1] * (w @ w) + x[t] @ K * sum(U @ v)"),
    # A product of weights was packed before it was made.
    "A @ B @ U": _cell("h[t] = tanh(x[t] @ ((A @ B) @ U)) + 0.5 * h[t-1] * ((w @ U) @ U)"),
    # A size as a number was made before the loop, and a part of it was looked for in memory.
    "mean[1]": _cell("h[t] = mean(outer(h[t-1], v), axis=1)[1] + x[t]", h="[units]", x="[units]"),
    # A state that nothing reads again has a cotangent of zeros, which stood in for its history.
    "nothing remembered": _cell("h[t] = x[t] @ K", give="where(w >= 0.5, 0.5, x[t] @ W)"),
    # What all rows of a step share, a part of a cotangent's sum over rows, each of them wrote.
    "parts of sums": _cell(
        "h[t] = erf(concat(sum(A, axis=0), min(B, axis=1)) + erf(x[t] @ C))", h="[4]"
    ),
    # A divisor was handed on from zeros: zeros over zeros in the first step.
    "log": _cell("h[t] = 0.5 * h[t-1] + tanh(x[t] + U @ log(h[t-1] + 9))", x="[units]"),
    "sqrt": _cell(
        "a, c = split(sqrt(concat(h[t-1], x[t]) + 9), 2)",
        "h[t] = 0.5 * h[t-1] + tanh(a @ U + c)",
        x="[units]",
    ),
    # Zeros were made only when weights change, and so were outputs of weights alone.
    "stop_gradient": _cell("h[t] = tanh(x[t] * w + stop_gradient(v)) + 0.5 * h[t-1]", x="[units]"),
    "threshold": _cell("h[t] = where(x[t] <= w, x[t], 0.3) + 0.5 * h[t-1]", x="[units]"),
    "tanh(W)": _cell(give="x[t], tanh(W)"),
    "turned weight": _cell(give="x[t], cumsum(W, axis=0), transpose(U)"),
    "state of weights": _cell("h[t] = tanh(w)", give="h[t], h[t-1] + x[t] @ K, w"),
    # Sums along the last axis, whichever was asked for.
    "cumsum": _cell("h[t] = 0.5 * h[t-1] + cumsum(x[t], axis=0)", h="[3, 2]", x="[3, 2]"),
    "cumax": _cell("h[t] = 0.5 * h[t-1] + cumax(x[t], axis=0)", h="[3, 2]", x="[3, 2]"),
    # Two parts of what is the same all along are one view: that a part was forgotten was said.
    "rolled number": _cell(
        "h[t] = tanh(x[t] @ K) + 0.5 * h[t-1]",
        give="h[t] + roll(broadcast(sum(x[t]), (units,)), 2)",
    ),
    # A number among what is moved had no buffer.
    "numbers side by side": _cell(
        "h[t] = tanh(x[t] @ K) + w + 0.5 * h[t-1]",
        give="concat(0 * h[t], x[t]), cumsum(0 * h[t] + 1), h[t]",
    ),
    # A state that a single number is given to had its shape in one place and not in another.
    "scalar": _cell(
        "h[t] = tanh(sum(x[t])) + 0.5 * sum(h[t-1])", give="h[t], h[t-1]", h="[3]", x="[3]"
    ),
}
