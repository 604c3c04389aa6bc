"""The names generated kernels are written in; a `Target` gives each of them its meaning.

    cuda          threadIdx, blockIdx, syncthreads ...
    v             arithmetic on one lane: load, store, fma, exp ... (`scalars`)
    F, SIZE       a number of the module's precision, and its bytes
    anew          the same integer, though no compiler knows: what follows from it is worked out
                  again rather than kept in registers from step to step
    give_up       the launch ends, with an error
    level_barrier, share, team_sum, row_key, uniform      (`cuda.loop_helpers`)

The kernels here are text until a target compiles them, so importing a module with kernels needs
no driver and no numba-cuda.

Non-Goals: the meanings.
"""

from __future__ import annotations

from typing import Any

COUNTER_BYTES = 128  # a counter has a line of the cache for itself


class Name:
    """A name whose meaning depends on the target."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __getattr__(self, part: str) -> Any:
        if part.startswith("__"):
            raise AttributeError(part)
        return Name(f"{self.name}.{part}")

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"{self.name} has a meaning inside of kernels only, which a target runs")


cuda, v = Name("cuda"), Name("v")
F, U, I = Name("F"), Name("U"), Name("I")  # noqa: E741
add_release, load_acquire, anew = Name("add_release"), Name("load_acquire"), Name("anew")
give_up = Name("give_up")
SIZE: Any = Name("SIZE")
level_barrier, share, team_sum = Name("level_barrier"), Name("share"), Name("team_sum")
row_key, uniform, mix = Name("row_key"), Name("uniform"), Name("mix")
