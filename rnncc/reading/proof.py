"""Whether the equations that were read compute what the framework's own step does.

A reader draws numbers, has its framework compute a few steps of them in float64, outputs and
gradients, and hands all of it on as Draws. The equations run on the interpreter on the same
numbers. What differs is refused, with both numbers.

Non-Goals: drawing, frameworks (readers); kernels, which are tested against the interpreter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.lowering.cell_interface import check_text
from rnncc.oracle import layer_class
from rnncc.reading.text import CellText

# What rounding may do to a few steps: of a number and the largest of its array (torch's sixth in
# hardsigmoid's derivative is of float32); of the largest of all, where an array is what is left of
# sums that cancel.
_OFF, _LEFT = 1e-7, 1e-13
Numbers = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Draw:
    """Numbers, and what a framework makes of them; names are the text's.

    arguments: inputs [batch, time, ...] and contexts [batch, ...]; states [batch, ...] before the
    first step. outputs [batch, time, ...] in order, finals: states after the last step. Gradients,
    by the names of arguments, states and weights, of the sum of d_outputs * outputs and
    d_finals * finals.
    """

    arguments: Numbers
    states: Numbers
    weights: Numbers
    outputs: Sequence[np.ndarray]
    finals: Sequence[np.ndarray]
    d_outputs: Sequence[np.ndarray]
    d_finals: Sequence[np.ndarray]
    gradients: Numbers

    @property
    def largest(self) -> float:
        """Of what the framework has computed."""
        own = [*self.outputs, *self.finals, *self.gradients.values()]
        return max((float(np.abs(a).max()) for a in own if a.size), default=0.0)

    @property
    def is_finite(self) -> bool:
        """Whether the framework's own numbers are numbers."""
        own = [*self.outputs, *self.finals, *self.gradients.values()]
        return all(np.isfinite(a).all() for a in own)


class Disproved(TypeError):
    """Equations that compute something else; a sentence that goes on from the step's name."""


def prove(text: CellText, draws: Sequence[Draw], filename: str, off: float = _OFF) -> None:
    """Disproved where a draw's outputs or gradients differ, or fewer than two of the draws are
    numbers at all. off: what numbers of the equations may be rounded to."""
    known = [d for d in draws if d.is_finite]
    if len(known) < 2:
        raise Disproved(
            "can't be proven: of numbers drawn for its inputs, states and weights its own outputs "
            "or gradients are NaN or infinite"
        )
    layer = layer_class(check_text(text.text, filename))
    for draw in known:
        _compare(layer, text, draw, off)


def _compare(layer_type: Any, text: CellText, draw: Draw, off: float) -> None:
    layer = layer_type(**text.sizes, return_sequences=True, return_state=True)
    layer.build({n: (*a.shape,) for n, a in draw.arguments.items()})
    for own, leaves in ((layer.weights, text.weights), (layer.constants, text.constants)):
        for name, leaf in leaves.items():
            own[name] = draw.weights[name] if leaf.array is None else leaf.array
    results, pullback = layer.vjp(
        dict(draw.arguments), initial_state=dict(draw.states), training=False
    )
    expected, count = [*draw.outputs, *draw.finals], len(draw.outputs)
    if count > 1:
        results = (*results[0], *results[1:])
    names = [*(f"output {i + 1}" for i in range(len(draw.outputs))), *text.states]
    for name, ours, theirs in zip(names, results, expected, strict=True):
        _same(name, ours, theirs, draw.largest, off)
    several = [tuple(draw.d_outputs)] if count > 1 else draw.d_outputs
    grads = pullback((*several, *draw.d_finals))
    ours_by_name = {**grads.inputs, **grads.weights, **grads.initial_state}
    for name, theirs in draw.gradients.items():
        _same(f"the gradient of {name}", ours_by_name[name], theirs, draw.largest, off)


def _same(what: str, ours: np.ndarray, theirs: np.ndarray, largest: float, off: float) -> None:
    if ours.shape != theirs.shape:
        raise Disproved(
            f"is read wrongly: {what} has the shape {[*ours.shape]}, not {[*theirs.shape]}"
        )
    if not theirs.size:
        return
    apart = np.abs(ours - theirs)
    allowed = off * (np.abs(theirs) + np.abs(theirs).max()) + _LEFT * largest
    wrong = ~(apart <= allowed)
    if wrong.any():
        place = np.unravel_index(
            int(np.argmax(np.where(np.isnan(apart), np.inf, apart))), apart.shape
        )
        raise Disproved(
            f"is read wrongly: {what} at {[int(i) for i in place]} is {float(ours[place])!r} by "
            f"the equations, {float(theirs[place])!r} by its own code"
        )
