"""What notebooks ask of cells and layers, and what anybody may: equations, a table of weights.

Whatever needs the compiler is imported when it is asked for: written modules run without it.

Non-Goals: how equations are written (`walk`), what is drawn (`picture`).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from html import escape
from itertools import islice
from types import MethodType
from typing import TYPE_CHECKING, Any

from rnncc.drawing.tables import shape_text, table

if TYPE_CHECKING:
    from rnncc.drawing.chosen import ChosenCell

MOST_SHOWN = 200  # equations that a notebook shows by itself
MOST_DRAWN = 60  # that it draws: a drawing of more takes seconds each time
MOST_KINDS = 4  # of cells in one thing that is shown


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
        return _drawn(chosen_of(self)) if _is_shown(self) else None

    @OfBoth
    def _repr_html_(self: Any) -> str | None:
        """Equations and the drawing, and of a layer its weights with their shapes; of one made of
        layers the equations of each kind of them."""
        if getattr(self, "maker", None) is None:
            return None
        if isinstance(self, type):
            title = f"{self.maker.cell.name}: {self.maker.cell.doc}"  # type: ignore[attr-defined]
            return page(title, _cells(self))
        return str(self._shown_as(repr(self)))

    def _shown_as(self: Any, title: str) -> str:
        """A layer under another title: its cells, its weights."""
        return page(title, _cells(self), _weights(self))


def page(title: str, cells: Iterable[ChosenCell], rest: str = "") -> str:
    """What a notebook shows: the title, equations and drawings of cells, each that differs from the
    others once, of four at most, then the rest, which is HTML."""
    from rnncc.drawing.mathml import MathML
    from rnncc.drawing.walk import equations

    kinds: dict[str, ChosenCell] = {}
    for cell in cells:
        kinds.setdefault(equations(cell, MathML()), cell)
    shown = [text + _image(cell) for text, cell in islice(kinds.items(), MOST_KINDS)]
    if len(kinds) > MOST_KINDS:
        shown.append(f"<p>and {len(kinds) - MOST_KINDS} more kinds of cells</p>")
    tag = "pre" if "\n" in title else "code"
    return f"<div><div><{tag}>{escape(title)}</{tag}></div>{''.join(shown)}{rest}</div>"


def shown_cell(binding: Any, rates: Mapping[str, float]) -> ChosenCell | None:
    """A bound cell, if it has equations and a notebook room for them."""
    from rnncc.drawing.chosen import chosen_cell

    if binding.spec is None or len(binding.spec().equations) > MOST_SHOWN:
        return None
    cell = binding.cell
    return chosen_cell(binding.spec(), dict(cell.options), dict(cell.functions), rates)


def _cells(layer: Any) -> list[ChosenCell]:
    return [chosen_of(single) for single in _single(layer) if _is_shown(single)]


def _single(layer: Any) -> list[Any]:
    """Itself, or the layers that it is made of, and those that these are made of."""
    if not hasattr(layer.maker, "parts"):
        return [layer]
    return [single for part in layer.parts for single in _single(part.layer)]


def _image(cell: ChosenCell) -> str:
    """Apart from the page, whose styles and names it would share otherwise."""
    svg = _drawn(cell)
    if svg is None:
        return ""
    data = b64encode(svg.encode()).decode()
    alt = f"a step of {escape(cell.spec.name)}, drawn"
    return f'<p><img alt="{alt}" src="data:image/svg+xml;base64,{data}"/></p>'


_last_drawn: list[tuple[ChosenCell, str | None]] = []  # a notebook asks twice, and drawing is slow


def _drawn(cell: ChosenCell) -> str | None:
    """As SVG, where matplotlib is there and the drawing has room."""
    for known, svg in _last_drawn:
        if known == cell:
            return svg
    if len(cell.spec.equations) > MOST_DRAWN:
        return None
    from rnncc.drawing.picture import picture

    try:
        drawn = picture(cell, "svg").decode()
    except ImportError:  # may be there the next time
        return None
    except ValueError:
        drawn = None
    _last_drawn[:] = [(cell, drawn)]
    return drawn


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


def _is_shown(shown: Any) -> bool:
    """Whether a notebook can show its equations without being asked: it has some, and not many."""
    maker = getattr(shown, "maker", None)
    if maker is None or hasattr(maker, "parts"):
        return False
    binding = maker.bind({}, {}, maker.cell.dtype) if isinstance(shown, type) else shown._binding
    return binding.spec is not None and len(binding.spec().equations) <= MOST_SHOWN


def _weights(layer: Any) -> str:
    """A table of weights and constants; sizes by name where they aren't known yet."""
    known = layer._store.shapes if layer._store is not None else {}
    arrays = [
        *((w, "") for w in layer.cell.weights),
        *((c, " (not trained)") for c in layer.cell.constants),
    ]
    rows = ((f"{a.name}{kind}", shape_text(known.get(a.name, a.shape))) for a, kind in arrays)
    return table(("weight", "shape"), rows)
