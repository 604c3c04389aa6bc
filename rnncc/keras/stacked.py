"""StackedRNNCells: cells on top of each other as one cell; and what else may stand for a cell.

Non-Goals: what runs when (`rnncc.layers.stack`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import keras

from rnncc.common.layer_keywords import KerasLayerKeywords
from rnncc.keras.cells import Cell, KerasAbstractCell
from rnncc.keras.recurrent import PACKAGE
from rnncc.keras.traced import PythonCell, is_python_cell


@keras.saving.register_keras_serializable(PACKAGE)
class StackedRNNCells(KerasAbstractCell):
    """Cells on top of each other as one: each reads what the one below puts out.

    cells: a list of cells, or of what `Cell` takes. TypeError for what is no cell, ValueError for
    none, one twice, or one that can't read what the one below puts out.
    """

    def __init__(self, cells: Sequence[Any], **keywords: Unpack[KerasLayerKeywords]) -> None:
        super().__init__(**keywords)
        if not isinstance(cells, list | tuple):
            raise TypeError(f"cells is a list of cells, not {cells!r}")
        if not cells:
            raise ValueError("cells is empty: StackedRNNCells takes one cell or more")
        self.cells = [as_cell(cell) for cell in cells]
        leaves = self.leaves()
        if len({id(leaf) for leaf in leaves}) < len(leaves):
            raise ValueError("one cell is there twice: make a cell for every place")
        if self.settled:
            _ = self.native  # refuses cells that don't fit

    def leaves(self) -> list[Cell]:
        return [leaf for cell in self.cells for leaf in cell.leaves()]

    def build(self, input_shape: Any) -> None:
        """Make the variables of every cell."""
        for cell in self.cells:
            if not cell.built:
                cell.build(input_shape)
            input_shape, _ = cell.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Keywords of the constructor."""
        cells = [keras.saving.serialize_keras_object(cell) for cell in self.cells]
        return {**super().get_config(), "cells": cells}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> StackedRNNCells:
        """Cells out of `get_config()`."""
        return cls(**{**config, "cells": [_deserialized(c) for c in config["cells"]]})


def _deserialized(config: Any) -> Any:
    return keras.saving.deserialize_keras_object(config)


def as_cell(given: Any, /, **keywords: Any) -> KerasAbstractCell:
    """A cell, a list of them stacked, one in Python, or what `Cell` takes. TypeError for anything
    else."""
    if isinstance(given, keras.layers.StackedRNNCells):
        given = given.cells
    if isinstance(given, list | tuple):
        given = StackedRNNCells(given)
    if isinstance(given, KerasAbstractCell):
        if keywords:
            raise TypeError(f"{next(iter(keywords))} is chosen where the cell is made")
        return given
    if is_python_cell(given):
        return PythonCell(given, **keywords)
    return Cell(given, **keywords)
