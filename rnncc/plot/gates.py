"""Gates over time, and how often they stand at their bounds.

Non-Goals: gradients (`flow`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from rnncc.common.figures import new_figure
from rnncc.plot.figures import Traceable, TracedKeywords, chosen_gates, trace_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gates(
    traced: Mapping[str, Any] | Traceable,
    inputs: Any = None,
    *,
    names: Sequence[str] | None = None,
    row: int = 0,
    **keywords: Unpack[TracedKeywords],
) -> Figure:
    """A figure with a picture for each gate of one row: units up, time to the right.

    traced: what `trace` gave, or a layer of rnncc, rnncc.torch or rnncc.keras with its inputs and
    keywords of a call. names: what is shown, [batch, time, units] each; None is all that lies
    between 0 and 1. row: of the batch.
    ImportError without matplotlib; TypeError and ValueError for what can't be shown.
    """
    shown = chosen_gates(trace_of(traced, inputs, keywords), names)
    batch = len(next(iter(shown.values())))
    if not -batch <= row < batch:
        raise ValueError(f"row is {row}, the trace has {batch} rows")
    figure = new_figure(7, 0.6 + 1.5 * len(shown))
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, array) in zip(axes, shown.items(), strict=True):
        values = array[row].T  # [units, time]
        low = 0.0 if values.min(initial=0) >= 0 else float(values.min())
        high = max(1.0, float(values.max(initial=1)))
        image = axis.imshow(
            values, aspect="auto", origin="lower", interpolation="nearest", vmin=low, vmax=high
        )
        axis.set_ylabel(f"{name}, unit")
        figure.colorbar(image, ax=axis)
    axes[-1].set_xlabel("step")
    return figure


def saturation(
    traced: Mapping[str, Any] | Traceable,
    inputs: Any = None,
    *,
    names: Sequence[str] | None = None,
    margin: float = 0.1,
    **keywords: Unpack[TracedKeywords],
) -> Figure:
    """A figure with a point for each unit of each gate: how often it is open, and how often shut.

    A gate is open within `margin` of 1, shut within it of its lower bound: 0, or -1 where it goes
    below 0. Shares are of all rows and steps. traced, inputs, names, keywords: as for `gates`.
    ImportError without matplotlib; TypeError and ValueError for what can't be shown.
    """
    if not 0 < margin < 0.5:
        raise ValueError(f"margin is a number between 0 and 0.5, not {margin!r}")
    shown = chosen_gates(trace_of(traced, inputs, keywords), names)
    figure = new_figure(5, 5)
    axis = figure.subplots()
    for name, array in shown.items():
        bound = 0.0 if array.min(initial=0) >= 0 else -1.0
        opened = np.mean(array >= 1 - margin, axis=(0, 1))
        shut = np.mean(array <= bound + margin, axis=(0, 1))
        axis.scatter(opened, shut, label=name, s=14, alpha=0.7)
    axis.plot([0, 1], [1, 0], color="0.8", linewidth=1, zorder=0)  # as far as shares go
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.set_xlabel(f"share of steps within {margin:g} of 1")
    axis.set_ylabel(f"share of steps within {margin:g} of the lower bound")
    axis.legend()
    return figure
