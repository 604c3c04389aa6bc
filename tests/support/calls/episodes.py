"""What rows that start anew have to compute: each episode alone, as a call of its own.

Non-Goals: calling layers: a caller says how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Episode:
    """Some steps of a row, in the order of time. last: the row's last one in the order they run, of
    those that have a valid step."""

    row: int
    steps: slice
    last: bool


def episodes(
    resets: np.ndarray, mask: np.ndarray | None = None, backwards: bool = False
) -> Iterator[Episode]:
    """Of every row, in the order they run; none without a valid step."""
    batch, time = resets.shape
    for row in range(batch):
        cuts = [0, *(t for t in range(1, time) if resets[row, t]), time]
        found = [slice(a, b) for a, b in pairwise(cuts)]
        if mask is not None:
            found = [s for s in found if mask[row, s].any()]
        found = found[::-1] if backwards else found
        for number, steps in enumerate(found):
            yield Episode(row, steps, number == len(found) - 1)


# (inputs, states, mask or None, cotangents of outputs and last states by name) ->
# (outputs and last states by name, gradients by name)
Call = Callable[[Arrays, Arrays, Any, Arrays], tuple[Arrays, Arrays]]


def alone(
    call: Call,
    inputs: Arrays,
    states: Arrays,
    d: Mapping[str, np.ndarray],
    resets: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    backwards: bool = False,
    outputs: tuple[str, ...],
) -> tuple[Arrays, Arrays]:
    """Values and gradients as those of one call over all of them: outputs of every step as steps
    run, NaN where a step is masked; gradients of states and weights are sums."""
    time = resets.shape[1]
    values = {
        n: np.full_like(a, np.nan) if n in outputs else np.zeros_like(a) for n, a in d.items()
    }
    gradients: Arrays = {n: np.zeros(a.shape) for n, a in inputs.items()}
    gradients |= {n: np.zeros(a.shape) for n, a in states.items()}
    for e in episodes(resets, mask, backwards):
        one = slice(e.row, e.row + 1)
        own_mask = None if mask is None else mask[one, e.steps]
        ran = slice(time - e.steps.stop, time - e.steps.start) if backwards else e.steps
        own_d = {n: d[n][one, ran] for n in outputs}
        own_d |= {n: a[one] for n, a in d.items() if n not in outputs and e.last}
        found, grads = call(
            {n: a[one, e.steps] for n, a in inputs.items()},
            {n: a[one] for n, a in states.items()},
            own_mask,
            own_d,
        )
        for name, array in found.items():
            if name not in outputs:
                if e.last:
                    values[name][e.row] = array[0]
                continue
            valid = np.ones(array.shape[1], bool) if own_mask is None else own_mask[0]
            valid = valid[::-1] if backwards else valid
            values[name][e.row, ran][valid] = array[0, valid]
        for name, array in grads.items():
            if name in inputs:
                gradients[name][e.row, e.steps] = array[0]
            elif name in states:
                gradients[name][e.row] += array[0]
            else:
                gradients[name] = gradients.get(name, 0) + array
    return values, gradients
