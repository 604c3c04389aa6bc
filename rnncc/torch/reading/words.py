"""What torch's operations are, by name; filled by `elementwise`, `along`, `layouts`, `products`.

A word takes (reads, the operation's arguments), tensors as Traced, and gives a Traced for each
output. In-place operations have the words of those that aren't. A view's `put` gives the whole with
another part.

Non-Goals: who calls them (`replay`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from rnncc.reading.graph import Kind, Unreadable
from rnncc.reading.recorder import Recorder
from rnncc.reading.traced import Length, Traced
from rnncc.torch.reading.pairs import BatchCount, length


class Reads(Protocol):
    """What words write with. shapes: of the outputs. dtype: the floats that the step counts in."""

    r: Recorder
    shapes: Sequence[tuple[Length, ...]]
    dtype: torch.dtype


Word = Callable[..., Any]
WORDS: dict[str, Word] = {}
PUTS: dict[str, Word] = {}


def word(*names: str) -> Callable[[Word], Word]:
    """names: of operations, with their overload where it matters."""

    def keep(function: Word) -> Word:
        WORDS.update(dict.fromkeys(names, function))
        return function

    return keep


def put(*names: str) -> Callable[[Word], Word]:
    """Of views: (reads, whole, part, number of the output, the view's further arguments)."""

    def keep(function: Word) -> Word:
        PUTS.update(dict.fromkeys(names, function))
        return function

    return keep


def found(table: dict[str, Word], name: str) -> Word | None:
    """Of `aten.add.Tensor`: what is known of it, or of `add`."""
    space, _, rest = name.partition(".")
    if space != "aten":
        return None
    own = rest.removesuffix(".default")
    base, _, overload = own.partition(".")
    plain = base[:-1] if base.endswith("_") and not base.endswith("__") else base
    for key in (f"{plain}.{overload}", plain):
        if key in table:
            return table[key]
    return None


def value_of(x: Any) -> Traced:
    """An operand: numbers stand for themselves."""
    if isinstance(x, Traced):
        return x
    if isinstance(x, BatchCount):
        raise Unreadable("computes with the batch size: rows of a batch stay apart")
    if isinstance(x, complex) or not isinstance(x, bool | int | float):
        raise Unreadable(f"takes {x!r}, no number")
    return Traced(x)


def lengths(shape: Sequence[Any]) -> list[Length]:
    return [length(n) for n in shape]


def whole(x: Any, what: str) -> int:
    """A number that doesn't depend on the batch."""
    if isinstance(x, BatchCount):
        raise Unreadable(f"takes the batch size as {what}")
    return int(x)


def kind_of(dtype: torch.dtype) -> Kind:
    """Unreadable for complex numbers."""
    if dtype == torch.bool:
        return "bool"
    if dtype.is_complex:
        raise Unreadable(f"counts in {dtype}")
    return "float" if dtype.is_floating_point else "int"


def in_dtype(reads: Reads, x: Traced, dtype: torch.dtype | None) -> Traced:
    """As a cast does. Unreadable for other floats than the step's."""
    if dtype is None:
        return x
    kind = kind_of(dtype)
    if kind == "float" and dtype != reads.dtype:
        raise Unreadable(f"casts to {dtype}: equations count in one kind of floats")
    return reads.r.convert(x, kind)
