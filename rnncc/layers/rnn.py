"""RNN, a layer of cells, one or several on top of each other; StackedRNNCells, several as one.

Non-Goals: what runs when (`stack`); cells (`cells`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, Unpack

from rnncc.common.layer_keywords import StackKeywords
from rnncc.layers.cells import AbstractCell, Cell
from rnncc.layers.config import deserialize, options_of, serializable, serialize
from rnncc.layers.stacked import Stacked, maker_of
from rnncc.runtime.api.layer import Layer

OneCell: TypeAlias = AbstractCell | Layer


@serializable
class StackedRNNCells(AbstractCell):
    """Cells on top of each other as one cell: each reads what the one below puts out.

    cells: a list of what RNN takes. Its states are those of all cells, in order; its output is the
    last one's. TypeError for what is no cell; ValueError for none, for one cell twice, and for a
    cell that can't read what the one below puts out.
    """

    def __init__(
        self, cells: Sequence[OneCell | Sequence[OneCell]], name: str | None = None
    ) -> None:
        if not isinstance(cells, list | tuple):
            raise TypeError(f"cells is a list of cells, not {cells!r}")
        if not cells:
            raise ValueError("cells is empty: StackedRNNCells takes one cell or more")
        self.cells = [as_cell(cell, f"cell {i}") for i, cell in enumerate(cells)]
        layers = [layer for cell in self.cells for layer in cell.layers]
        if len({id(layer) for layer in layers}) < len(layers):
            raise ValueError("one cell is there twice: make a cell for every place")
        super().__init__(layers, name or "stacked_rnn_cells")

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {**state, "cells": [copy.copy(c) for c in self.cells], "layers": ()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        layers = tuple(layer for cell in state["cells"] for layer in cell.layers)
        super().__setstate__({**state, "layers": layers})

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor, cells as `rnncc.layers.serialize` writes them."""
        return {"cells": [serialize(cell) for cell in self.cells], "name": self.name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> StackedRNNCells:
        """Cells out of `get_config()`, their weights new."""
        return cls(**{**config, "cells": [deserialize(c) for c in config["cells"]]})

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self.cells))}]"


def as_cell(given: Any, what: str = "cell") -> AbstractCell:
    """A cell, a layer as one, or a list of them stacked. TypeError for anything else."""
    if isinstance(given, AbstractCell):
        return given
    if isinstance(given, list | tuple):
        return StackedRNNCells(given)
    return Cell(given, what=what)


@serializable
class RNN(Stacked):
    """A recurrent layer of a cell.

    cell: LSTMCell(64) and the like; Peephole(units=64) of a class made by `rnncc.compile`;
    StackedRNNCells([...]) of these, or just the list. Layer and cell share their weights.
    Keywords are those of every layer: return_sequences, return_state, seed, name and the others
    that `rnncc.Layer` lists. seed is what dropout draws from; initial weights are drawn by the
    cells, from seeds of their own.

    RNN(LSTMCell(10)) computes what LSTM(10) does, bit for bit, on the same kernels. The last
    states of stacked cells are returned in groups, one for each cell, and given and trained so:
    y, (h, c), (h, c). As `initial_state`, one after another or a dict will do as well.
    TypeError for what is no cell, and for a keyword that is the cell's.
    """

    def __init__(
        self,
        cell: OneCell | Sequence[OneCell],
        return_sequences: bool = False,
        return_state: bool = False,
        **keywords: Unpack[StackKeywords],
    ) -> None:
        self._cell = as_cell(cell)
        chosen = {"return_sequences": return_sequences, "return_state": return_state}
        self._stack(self._cell.layers, {**chosen, **keywords})

    @property
    def cells(self) -> list[AbstractCell]:
        """The cells, first to last."""
        inner = self._cell
        return [*inner.cells] if isinstance(inner, StackedRNNCells) else [inner]

    @property
    def state_size(self) -> Any:
        """See `rnncc.layers.Cell.state_size`."""
        return self._cell.state_size

    @property
    def output_size(self) -> Any:
        """See `rnncc.layers.Cell.output_size`."""
        return self._cell.output_size

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_cell": copy.copy(self._cell), "maker": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "maker": maker_of(state["_cell"].layers)})

    def __repr__(self) -> str:
        arguments = [repr(self._cell), *(f"{k}={v!r}" for k, v in self._shown().items())]
        return f"{type(self).__name__}({', '.join(arguments)})"

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor, the cell as `rnncc.layers.serialize` writes it."""
        return {"cell": serialize(self._cell), **options_of(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RNN:
        """A layer out of `get_config()`, its weights new."""
        return cls(**{**config, "cell": deserialize(config["cell"])})
