"""Numbers of shapes -> sizes as a .rnn file names them: units, features, 4 * units.

Equal numbers are the same size: the layer is built for these. With names, layers of other sizes
run the same kernels; where a cell takes a number apart (of four units, the second), there are none.

Non-Goals: which shapes there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations_with_replacement

_MOST_PARTS = 16


class Sizes:
    """Of one cell. values: names and numbers, as they are declared."""

    def __init__(
        self,
        states: Iterable[Sequence[int]],
        inputs: Iterable[Sequence[int]],
        contexts: Iterable[Sequence[int]] = (),
        *,
        names: bool = True,
    ) -> None:
        self.values: dict[str, int] = {}
        self._named: dict[int, str] = {}
        self._names = names
        if not names:
            return
        for base, shapes in (("units", states), ("features", inputs), ("places", contexts)):
            for n in (n for shape in shapes for n in shape):
                if n > 1 and n not in self._named:
                    count = sum(name.startswith(base) for name in self.values)
                    name = f"{base}_{count + 1}" if count else base
                    self.values[name], self._named[n] = n, name

    def text(self, n: int) -> str:
        """A size's name, a sum of two, a multiple of one, or the number."""
        if n in self._named:
            return self._named[n]
        for name, value in self.values.items():
            if n % value == 0 and n // value <= _MOST_PARTS:
                return f"{n // value} * {name}"
        for a, b in combinations_with_replacement(self.values, 2):
            if self.values[a] + self.values[b] == n:
                return f"{a} + {b}"
        return str(n)

    def remember(self, n: int, text: str) -> None:
        """What a number is, where equations say it."""
        if self._names:
            self._named.setdefault(n, text)

    def shape(self, shape: Sequence[int]) -> str:
        """As an argument of `reshape`."""
        inner = ", ".join(map(self.text, shape))
        return f"({inner},)" if len(shape) == 1 else f"({inner})"

    def declared(self, shape: Sequence[int]) -> str:
        """As a declaration's brackets; nothing of a number."""
        return f"[{', '.join(map(self.text, shape))}]" if shape else ""
