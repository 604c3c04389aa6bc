"""The names of `names` for one target and precision: functions of this package, rebound.

A target brings instructions (load, store, barriers); what is arithmetic over them is the same text
everywhere (`scalars`, `cuda.loop_helpers`).

Non-Goals: instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from rnncc.runtime.cuda.kernels import loop_helpers, scalars
from rnncc.runtime.jit.kernel import rebound

NEST = (
    *("share", "level_barrier", "team_sum", "mix", "row_key", "uniform"),
    *("add_products", "put_sum"),
)


def meanings(
    instructions: Mapping[str, Any],
    lanes: Mapping[str, Any],
    compiled: Callable[[Any], Any] = lambda function: function,
) -> dict[str, Any]:
    """What a kernel's global names mean.

    instructions: cuda, word, F, U, I, math ... of the target. lanes: its functions of `v`.
    compiled: makes a device function of a Python one.
    """
    v = ModuleType("v")
    names: dict[str, Any] = {**instructions, "v": v}
    for name, function in lanes.items():
        setattr(v, name, function)
    for name in scalars.NAMES:
        if name not in lanes:
            setattr(v, name, compiled(rebound(getattr(scalars, name), names)))
    for name in NEST:
        names[name] = compiled(rebound(getattr(loop_helpers, name), names))
    return names
