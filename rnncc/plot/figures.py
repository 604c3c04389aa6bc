"""What is drawn, as arrays.

Non-Goals: what they show (`gates`, `flow`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rnncc.common.layer_keywords import CallKeywords
from rnncc.common.spelling import nearest_name


class Traceable(Protocol):
    """A layer or module of any of the frameworks."""

    @property
    def trace(self) -> Callable[..., Mapping[str, Any]]:
        """As `rnncc.Layer.trace`."""


class TracedKeywords(CallKeywords, total=False):
    """Those of a call that is traced, of whichever framework."""

    hx: Any  # torch's
    initial_states: Any  # of stacks


def trace_of(traced: Any, inputs: Any, keywords: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Arrays by name: of a trace, or of a layer or module that is traced now.

    TypeError for what is neither, and for inputs of what was traced already."""
    if hasattr(traced, "trace"):
        if inputs is None:
            raise TypeError(f"{type(traced).__name__} is a layer: give its inputs, too")
        traced = traced.trace(inputs, **keywords)
    elif not isinstance(traced, Mapping):
        raise TypeError(f"give a layer or its trace, not {type(traced).__name__}")
    elif inputs is not None or keywords:
        raise TypeError("a trace is of a call that has been made: give no inputs and arguments")
    return {name: as_array(value) for name, value in traced.items()}


def as_array(value: Any) -> np.ndarray:
    """A tensor of any framework as numbers of float64."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().double()
    return np.asarray(value, np.float64)


def chosen_gates(
    arrays: Mapping[str, np.ndarray], names: Sequence[str] | None
) -> dict[str, np.ndarray]:
    """Those with these names, else all with one axis of units whose numbers lie in [0, 1].

    ValueError for a name that isn't there or has other axes, and where nothing is a gate."""
    if names is None:
        found = {n: a for n, a in arrays.items() if a.ndim == 3 and _is_gate(a)}
        if not found:
            known = ", ".join(arrays)
            raise ValueError(f"nothing here lies between 0 and 1 as gates do: names= of {known}")
        return found
    if isinstance(names, str):
        names = [names]
    for name in names:
        if name not in arrays:
            near = nearest_name(str(name), [*arrays])
            hint = f"did you mean {near}?" if near else f"one of {', '.join(arrays)}"
            raise ValueError(f"nothing is called {name!r}: {hint}")
        if arrays[name].ndim != 3:
            shape = [*arrays[name].shape]
            raise ValueError(f"{name} has shape {shape}, expected [batch, time, units]")
    return {n: arrays[n] for n in names}


def _is_gate(array: np.ndarray) -> bool:
    return bool(array.size and array.min() >= 0 and array.max() <= 1)
