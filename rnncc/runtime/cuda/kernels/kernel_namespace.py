"""The names generated kernels are written in; a `Target` gives each of them its meaning.

    cuda          threadIdx, blockIdx, syncthreads ...
    v             arithmetic on one lane: load, store, fma, exp ... (`scalars`)
    F, SIZE       a number of the module's precision, and its bytes
    anew          the same integer, though no compiler knows: what follows from it is worked out
                  again rather than kept in registers from step to step
    give_up       the launch ends, with an error
    level_barrier, share, team_sum, row_key, uniform, add_products, put_sum
                  (`cuda.loop_helpers`)

The kernels here are text until a target compiles them, so importing a module with kernels needs
no driver and no numba-cuda.

Non-Goals: the meanings.
"""

from __future__ import annotations

from typing import Any

COUNTER_BYTES = 128  # a counter has a line of the cache for itself


class TargetName:
    """A name whose meaning depends on the target."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __getattr__(self, part: str) -> Any:
        if part.startswith("__"):
            raise AttributeError(part)
        return TargetName(f"{self.name}.{part}")

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"{self.name} has a meaning inside of kernels only, which a target runs")


cuda, v = TargetName("cuda"), TargetName("v")
F, U, I = TargetName("F"), TargetName("U"), TargetName("I")  # noqa: E741
add_release, load_acquire, anew = (
    TargetName("add_release"),
    TargetName("load_acquire"),
    TargetName("anew"),
)
give_up = TargetName("give_up")
SIZE: Any = TargetName("SIZE")
level_barrier, share, team_sum = (
    TargetName("level_barrier"),
    TargetName("share"),
    TargetName("team_sum"),
)
add_products, put_sum = TargetName("add_products"), TargetName("put_sum")
row_key, uniform, mix = TargetName("row_key"), TargetName("uniform"), TargetName("mix")
