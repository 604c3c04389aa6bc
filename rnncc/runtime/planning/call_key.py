"""What one call is bound for.

Non-Goals: binding (`runtime.cpu.planning`, `runtime.cuda.planning`).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CallKey:
    """What a bound program is made for; hashable.

    strides, result_strides: (parameter's buffer or result's name, bytes from row to row of the
    batch, from step to step) of callers' arrays whose rows don't lie one after another. copies:
    (parameter's buffer, the caller's strides) of arrays that kernels can't read as they are.
    storage: of the weights that contractions read; "" leaves them as they are.
    """

    sizes: tuple[tuple[str, int], ...]
    batch: int
    time: int
    save: bool
    last_only: bool
    strides: tuple[tuple[str, int, int], ...] = ()
    result_strides: tuple[tuple[str, int, int], ...] = ()
    copies: tuple[tuple[str, tuple[int, ...]], ...] = ()
    storage: str = ""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = (self.sizes, self.batch, self.time, self.save, self.last_only)
        more = (self.strides, self.result_strides, self.copies, self.storage)
        object.__setattr__(self, "_hash", hash((values, more)))

    def __hash__(self) -> int:
        return self._hash  # worked out once: every call looks its like up
