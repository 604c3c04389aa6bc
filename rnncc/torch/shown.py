"""What notebooks show of a module of ours: its cells' equations and drawings, its tensors' shapes.

Non-Goals: modules that hold ours, which are torch's to show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.nn.parameter import is_lazy

from rnncc.drawing.chosen import ChosenCell
from rnncc.drawing.notebook import page, shown_cell
from rnncc.drawing.tables import shape_text, table
from rnncc.torch.recipe import Recipe


class ShownModule:
    """A module that knows its cells."""

    def _shown_cells(self) -> Iterable[ChosenCell]:
        """Those whose equations a notebook has room for; none while they aren't known."""
        raise NotImplementedError

    def _repr_html_(self: Any) -> str:
        tensors = table(("tensor", "shape"), _rows(self))
        return page(repr(self), self._shown_cells(), tensors)


def cells_of(recipes: Iterable[Recipe]) -> Iterator[ChosenCell]:
    """Of what kernels run, as they were bound."""
    for recipe in recipes:
        cell = shown_cell(recipe.binding(), dict(recipe.rates))
        if cell is not None:
            yield cell


def _rows(module: Any) -> Iterator[tuple[str, str]]:
    """Parameters, then buffers."""
    for kind, tensors in (
        ("", module.named_parameters()),
        (" (not trained)", module.named_buffers()),
    ):
        for name, t in tensors:
            trained = kind or ("" if t.requires_grad else " (frozen)")
            yield name + trained, "not known yet" if is_lazy(t) else shape_text(t.shape)
