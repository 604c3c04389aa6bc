"""Tables of HTML, as notebooks show them; what holds arrays is one of their names and shapes.

Non-Goals: equations (`notebook`); tables for a terminal (`runtime.api.summary`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any

import numpy as np

MOST_ROWS = 200  # of a table that nobody asked for


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Texts in rows; behind the first 200 the rest is counted."""
    rest = iter(rows)
    lines = [_line("td", row) for row in islice(rest, MOST_ROWS)]
    left = sum(1 for _ in rest)
    if left:
        lines.append(f'<tr><td colspan="{len(heads)}">and {left} more</td></tr>')
    head = _line("th", heads)
    return f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>"


def shape_text(shape: Iterable[object]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def shapes_text(arrays: Mapping[str, Any]) -> str:
    """`{'kernel': [5, 16]}`, as what holds arrays says in one line."""
    return f"{{{', '.join(f'{n!r}: {shape_text(np.shape(a))}' for n, a in arrays.items())}}}"


def named_arrays(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Arrays in tuples, lists and dicts, by where they are: `inputs`, `inputs[1]`, `inputs.x`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from named_arrays(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, tuple | list):
        for number, item in enumerate(value):
            yield from named_arrays(f"{name}[{number}]", item)
    elif value is not None:
        yield name, value


class ArraysShown:
    """What holds arrays and says which: a notebook shows their shapes and between which numbers
    theirs lie."""

    __slots__ = ()

    def _shown_arrays(self) -> tuple[str, Iterable[tuple[str, Any]]]:
        """What they are, and arrays by name."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        title, arrays = self._shown_arrays()
        rows = ((name, shape_text(np.shape(array)), *_range(array)) for name, array in arrays)
        heads = ("name", "shape", "smallest", "largest")
        return f"<div><p><code>{escape(title)}</code></p>{table(heads, rows)}</div>"


def _range(array: Any) -> tuple[str, str]:
    """The smallest and the largest number of an array or a tensor; nothing of an empty one."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().double()
    numbers = np.asarray(array)
    if not numbers.size:
        return "", ""
    return f"{float(numbers.min()):.4g}", f"{float(numbers.max()):.4g}"


def _line(tag: str, texts: Iterable[str]) -> str:
    cells = "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
    return f"<tr>{cells}</tr>"
