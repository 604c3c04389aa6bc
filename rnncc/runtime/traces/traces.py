"""What `trace` gives back: arrays by the names of the equations.

Non-Goals: pictures of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rnncc.common.spelling import nearest_name
from rnncc.drawing.tables import ArraysShown, shapes_text


class CellTrace(ArraysShown, Mapping[str, Any]):
    """Arrays [batch, time, ...] by name, in the order of the equations; [time, batch, ...] where
    the layer is time_major. The cell's outputs are among them.

    KeyError says what there is, and of a name that has no array why.
    """

    def __init__(
        self, owner: str, arrays: Mapping[str, Any], left_out: Mapping[str, str] | None = None
    ) -> None:
        self.owner, self._arrays, self.left_out = owner, dict(arrays), dict(left_out or {})

    def __getitem__(self, name: str) -> Any:
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(self._missing(name)) from None

    def _missing(self, name: object) -> str:
        if name in self.left_out:
            return f"{self.owner} has no array for {name}: {self.left_out[str(name)]}"
        near = nearest_name(str(name), [*self._arrays])
        hint = f"did you mean {near}?" if near else f"one of {', '.join(self._arrays)}"
        return f"{self.owner} names nothing {name!r}: {hint}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"<trace of {self.owner} {shapes_text(self)}>"

    def _shown_arrays(self) -> tuple[str, Iterable[tuple[str, Any]]]:
        return f"trace of {self.owner}", self.items()
