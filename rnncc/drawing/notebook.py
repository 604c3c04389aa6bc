"""What notebooks ask of cells and layers, and what anybody may: equations, a table of weights.

Whatever needs the compiler is imported when it is asked for: written modules run without it.

Non-Goals: how equations are written (`walk`), what is drawn (`picture`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnncc.drawing.chosen import ChosenCell

MOST_SHOWN = 200  # equations that a notebook shows by itself
MOST_DRAWN = 60  # that it draws: a drawing of more takes seconds each time


class PlanText(str):
    """A plan: a text, whose lines stand as they are in a notebook, too."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self)}</pre>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))


class OfBoth:
    """A method of a class and of its objects, called with whichever it is asked of."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, layer: Any, kind: type) -> Any:
        return MethodType(self.function, kind if layer is None else layer)


class Shown:
    """Equations and pictures of a class of cells at its defaults, of a layer as it was made."""

    @OfBoth
    def latex(self: Any) -> str:
        r"""The equations of a step as LaTeX, an `aligned` of amsmath: of a layer with its options,
        functions and rates, of a class at their defaults.

        Equations that nothing reads under these options are left out; functions of the cell's own
        come first. ValueError for a layer that is made of layers, and of a module that was written
        without its cell's text.
        """
        from rnncc.drawing.latex import Latex
        from rnncc.drawing.walk import equations

        return equations(chosen_of(self), Latex())

    @OfBoth
    def _repr_latex_(self: Any) -> str | None:
        return f"$$\n{self.latex()}\n$$" if _is_shown(self) else None

    @OfBoth
    def _repr_svg_(self: Any) -> str | None:
        """The drawing, where matplotlib is there and the drawing has room."""
        if not _is_shown(self, MOST_DRAWN):
            return None
        from rnncc.drawing.picture import picture

        try:
            return picture(chosen_of(self), "svg").decode()
        except (ImportError, ValueError):
            return None

    @OfBoth
    def _repr_html_(self: Any) -> str | None:
        """Equations, and of a layer its weights with their shapes."""
        if getattr(self, "maker", None) is None:
            return None
        parts = []
        if _is_shown(self):
            from rnncc.drawing.mathml import MathML
            from rnncc.drawing.walk import equations

            parts.append(equations(chosen_of(self), MathML()))
        if isinstance(self, type):
            title = f"{self.maker.cell.name}: {self.maker.cell.doc}"  # type: ignore[attr-defined]
        else:
            title = repr(self)
            parts.append(_weights(self))
        return f"<div><p><code>{escape(title)}</code></p>{''.join(parts)}</div>"


def chosen_of(shown: Any) -> ChosenCell:
    """The cell of a class or layer as it is shown. ValueError where there is no text of one."""
    from rnncc.drawing.chosen import chosen_cell

    maker = getattr(shown, "maker", None)
    if maker is None:
        raise ValueError(f"{shown!r} has no cell: rnncc.compile makes layer classes")
    is_class = isinstance(shown, type)
    binding = maker.bind({}, {}, maker.cell.dtype) if is_class else shown._binding
    cell = binding.cell
    if binding.spec is None and hasattr(maker, "parts"):
        raise ValueError(
            f"{shown.name} is made of layers, and each has equations of its own: ask each of "
            "layer.parts for those of its `layer`"
        )
    if binding.spec is None:
        raise ValueError(
            f"this module of {cell.name} was written without the cell's text: run rnncc compile "
            f"{cell.source} without --variants"
        )
    rates: Mapping[str, float] = {} if is_class else shown._chosen.rates
    return chosen_cell(binding.spec(), dict(cell.options), dict(cell.functions), rates)


def _is_shown(shown: Any, most: int = MOST_SHOWN) -> bool:
    """Whether a notebook can show its equations without being asked: it has some, and not many."""
    maker = getattr(shown, "maker", None)
    if maker is None or hasattr(maker, "parts"):
        return False
    binding = maker.bind({}, {}, maker.cell.dtype) if isinstance(shown, type) else shown._binding
    return binding.spec is not None and len(binding.spec().equations) <= most


def _weights(layer: Any) -> str:
    """A table of weights and constants; sizes by name where they aren't known yet."""
    known = layer._store.shapes if layer._store is not None else {}
    arrays = [
        *((w, "") for w in layer.cell.weights),
        *((c, " (not trained)") for c in layer.cell.constants),
    ]
    rows = [
        (f"{a.name}{kind}", ", ".join(map(str, known.get(a.name, a.shape)))) for a, kind in arrays
    ]
    body = "".join(
        f"<tr><td>{escape(name)}</td><td>[{escape(shape)}]</td></tr>" for name, shape in rows
    )
    return (
        f"<table><thead><tr><th>weight</th><th>shape</th></tr></thead><tbody>{body}</tbody></table>"
    )
