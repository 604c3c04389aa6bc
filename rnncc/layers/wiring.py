"""What the parts of a layer read of one another and of the whole, by name.

    StackWiring        the first cell reads the inputs, each other what the one below puts out
    DirectionsWiring   both read the same arguments, the second one over steps turned round

Engines over NumPy's arrays are wired so (`stack`, `directions`), and so are layers over tensors of
a graph, whose parts are nodes of it.

Non-Goals: what runs when; how outputs are merged (`merges`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rnncc.layers.parts import Part

Named = Mapping[str, Any]


def turned_view(array: Any) -> Any:
    """NumPy's array, the last step first."""
    return array[:, ::-1]


class StackWiring:
    """Cells one on top of the other. outside: of each, names outside of what it reads and no other
    cell makes, by its own."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self.first = [a.name for a in parts[0].cell.inputs]
        # What each cell reads: outputs of the one below by the names of its own inputs.
        self._reads = [
            [(a.name, o.name) for a, o in zip(above.cell.inputs, below.cell.outputs, strict=True)]
            for below, above in pairwise(self.parts)
        ]
        self.outside = [dict(part.pairs) for part in self.parts]
        self.outside[0] |= {n: n for n in self.first}
        for k, part in enumerate(self.parts):
            contexts = [c.name for c in part.cell.contexts]
            self.outside[k] |= {n: part.name(n) if k else n for n in contexts}

    def given(self, k: int, arrays: Named) -> dict[str, Any]:
        """What a cell reads beside its inputs."""
        part = self.parts[k]
        read = part.inside(arrays)
        for context in part.cell.contexts:
            read[context.name] = arrays[context.name if k == 0 else part.name(context.name)]
        return read | part.beside(arrays)

    def read(self, k: int, found: Named) -> dict[str, Any]:
        """What a cell puts out, by the names the one above reads it under."""
        reads = self._reads[k] if k + 1 < len(self.parts) else []
        return {own: found[o] for own, o in reads if o in found}

    def asked(self, k: int, wanted: frozenset[str]) -> frozenset[str]:
        """The gradients of a cell that are wanted, or that others which are need."""
        own = {own for own, name in self.outside[k].items() if name in wanted}
        return frozenset(own.union(self.below(k) if self.wants(k, wanted) else ()))

    def wants(self, k: int, wanted: frozenset[str]) -> bool:
        """Whether gradients below this cell are asked for."""
        return any(not wanted.isdisjoint(self.outside[i].values()) for i in range(k))

    def below(self, k: int) -> list[str]:
        """What a cell reads of the one below."""
        return [own for own, _ in self._reads[k - 1]] if k else []

    def handed(self, k: int, found: Named) -> dict[str, Any]:
        """Gradients of what a cell reads of the one below, by the names they have there."""
        return {o: found[own] for own, o in self._reads[k - 1] if own in found} if k else {}


class DirectionsWiring:
    """A layer that runs forwards and one that runs backwards. turn: an array over steps, the last
    one first. outside: of each, names outside of what it reads, by its own."""

    def __init__(self, parts: Sequence[Part], turn: Callable[[Any], Any] = turned_view) -> None:
        self.parts, self._turn = tuple(parts), turn
        self.timed = {a.name for a in parts[0].cell.inputs}
        cells = [part.cell for part in parts]
        arguments = [[*(a.name for a in c.inputs), *(a.name for a in c.contexts)] for c in cells]
        # (own name, name outside) of what each direction reads: the arguments of the first.
        self._reads = [[*zip(own, arguments[0], strict=True)] for own in arguments]
        sides = zip(self.parts, self._reads, strict=True)
        self.outside = [dict(part.pairs) | dict(reads) for part, reads in sides]

    def given(self, side: int, arrays: Named) -> dict[str, Any]:
        """What a direction reads, in the order in which it runs."""
        part = self.parts[side]
        read = part.inside(arrays)
        for own, name in self._reads[side]:
            read[own] = self.turned(side, name, arrays[name])
        return read | part.beside(arrays)

    def turned(self, side: int, name: str, array: Any) -> Any:
        """What has the shape of an argument, in the order in which a direction runs, or back."""
        return self._turn(array) if side and name in self.timed else array

    def asked(self, side: int, wanted: frozenset[str]) -> frozenset[str]:
        """The gradients of a direction that are wanted."""
        return frozenset(own for own, name in self.outside[side].items() if name in wanted)
