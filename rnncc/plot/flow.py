"""How much of a gradient is left, step by step back.

    state_t ─one step→ state_t+1, y_t+1        its pullback: d state_t+1 -> d state_t

The steps are run one by one, so that the gradient of every state is met on the way; it is that of
the whole sequence, from which it may differ by rounding.

Non-Goals: gradients of weights; dropout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncc.common.figures import new_figure
from rnncc.common.progress import working
from rnncc.layers.bidirectional import Bidirectional
from rnncc.layers.merges import turned
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.traces.traced_cell import twin

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradient_flow(layer: Layer, inputs: Any, *, initial_state: Any = None) -> Figure:
    """A figure with a line for each state: the norm, over rows and units, of the gradient that
    reaches it from the sum of the last step's outputs, over the number of steps back. Of both
    directions, a line for each state of each (forward.h, backward.h), from that direction's own
    outputs of the step that it runs last.

    layer: of rnncc or rnncc.layers. inputs, initial_state: as in a call.
    ImportError without matplotlib; TypeError and ValueError for what has no such gradients.
    """
    if not isinstance(layer, Layer):
        kind = type(layer).__name__
        raise TypeError(f"gradient_flow takes a layer of rnncc or rnncc.layers, not {kind}")
    norms = norms_of_states(layer, inputs, initial_state)
    figure = new_figure(6, 3.5)
    axis = figure.subplots()
    for name, values in norms.items():
        positive = np.where(values > 0, values, np.nan)  # a scale of logarithms has no zero
        axis.plot(1 + np.arange(len(values)), positive, label=name)
    axis.set_yscale("log")
    axis.set_xlabel("steps back from the last")
    axis.set_ylabel("norm of the gradient")
    axis.legend()
    return figure


def norms_of_states(layer: Layer, inputs: Any, initial_state: Any) -> dict[str, np.ndarray]:
    """By state, [time]: of the gradient that reaches it one step back, two, ... from the last."""
    if not layer.cell.states:
        raise ValueError(f"{layer.cell.name} has no states for a gradient to flow through")
    call = layer._enter(inputs, initial_state, None, None)
    if not call.time:
        raise ValueError("the inputs have no steps")
    with working(f"{layer.name}: gradients of {call.time:,} steps"):
        return _norms(layer, call.arrays, call.time)


def _norms(layer: Layer, arrays: Mapping[str, Any], time: int) -> dict[str, np.ndarray]:
    """arrays: inputs and states [batch, time, ...] as the layer runs them. Each of two directions
    has the gradients of its own outputs."""
    timed = {a.name for a in layer.cell.inputs}
    if isinstance(layer, Bidirectional):
        norms: dict[str, np.ndarray] = {}
        for side, part in enumerate(layer.parts):
            ours = {a.name: arrays[a.name] for a in (*layer.cell.inputs, *layer.cell.contexts)}
            read = {n: turned(side, a, n in timed) for n, a in ours.items()}
            for name, values in _norms(part.layer, {**read, **part.inside(arrays)}, time).items():
                norms[part.name(name)] = values
        return norms
    stepping = twin(layer)
    stepping.return_sequences, stepping.return_state = False, True
    stepping.time_major = stepping.go_backwards = stepping.stateful = False
    stepping._kept = {}
    stepping._prepare()
    names = [s.name for s in layer.cell.states]
    given = {n: arrays[n] for n in layer.cell.arguments}
    states: Any = {n: arrays[n] for n in names}
    pullbacks = []
    for t in range(time):
        step = {n: a[:, t : t + 1] if n in timed else a for n, a in given.items()}
        (y, *ends), pullback = stepping.vjp(step, initial_state=states, training=False)
        states = dict(zip(names, flat(ends), strict=True))
        pullbacks.append(pullback)
    like = y if isinstance(y, tuple) else (y,)
    ones: Any = tuple(np.ones_like(a) for a in like)
    dy: Any = ones if isinstance(y, tuple) else ones[0]
    d_states: Any = [None] * len(ends)
    reached: dict[str, list[float]] = {n: [] for n in names}
    for pullback in reversed(pullbacks):
        found = pullback((dy, *d_states), wrt=["initial_state"]).initial_state
        for name in names:
            reached[name].append(float(np.linalg.norm(np.asarray(found[name], np.float64))))
        d_states = like_groups(ends, [found[n] for n in names])
        dy = None
    return {n: np.array(v) for n, v in reached.items()}


def flat(groups: Any) -> list[Any]:
    """States one after another, of stacked cells, too."""
    return [s for g in groups for s in (g if isinstance(g, tuple) else (g,))]


def like_groups(groups: Any, states: list[Any]) -> list[Any]:
    """States together as these are."""
    rest = iter(states)
    return [tuple(next(rest) for _ in g) if isinstance(g, tuple) else next(rest) for g in groups]
