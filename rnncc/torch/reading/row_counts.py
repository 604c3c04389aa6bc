"""Whether a step's Python asks how many rows there are: `if x.shape[0] > 100`.

Two runs of a few rows can't see what a third number of them would do. So a step is run once more on
tensors that hold nothing and have a symbol for rows, as torch's own compiler does; each question
about it that the user's code asks is a choice which equations can't make.

`len(x)` is a number as soon as it is asked for, and mostly a part of a shape then. Who asks for it
is run with some more numbers of rows, as people have them, and has to do the same with each. So is
what torch can't run on such tensors, as `lerp` with a tensor for its weight.

Non-Goals: what torch's own code asks, such as whether shapes broadcast: that changes no numbers.
"""

from __future__ import annotations

import linecache
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rnncc.torch.reading.trace import OURS, Refused, record

try:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import (
        DimDynamic,
        ShapeEnv,
        StatelessSymbolicContext,
    )
except ImportError:  # another torch has them elsewhere
    ShapeEnv = None

MANY = 1009  # rows: a prime, so that it is no other size by chance
OTHERS = (2, 8, 16, 20, 32, 50, 64, 100, 128, 256, 512, MANY)


def refuse_row_counts(run: Callable[..., Any], given: Callable[[int], Any], name: str) -> None:
    """Refused where run(*given(rows)) depends on a number of rows. given: trees of tensors."""
    if ShapeEnv is None:
        return
    asked = _Asked()
    mode = FakeTensorMode(shape_env=asked, allow_non_fake_inputs=True)

    def without_numbers(t: Tensor) -> Tensor:
        rows = torch.empty((MANY, *t.shape[1:]), dtype=t.dtype)
        sizes = [DimDynamic.DUCK, *[DimDynamic.STATIC] * (t.dim() - 1)]
        return mode.from_tensor(rows, symbolic_context=StatelessSymbolicContext(sizes))

    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        try:
            tensors = pytree.tree_map_only(Tensor, without_numbers, given(2))
            with mode:
                run(*tensors)
        except Exception:  # whatever it can't do with them: its numbers have been compared
            asked.takes_number = True
    if asked.where:
        question, file, line = asked.where[0]
        text = linecache.getline(file, line).strip()
        raise Refused(
            f"{name} can't be compiled: {file}:{line} asks how many rows there are "
            f"({question}): {text}. A step has to do the same for any number of them"
        )
    if asked.takes_number:
        _refuse_others(run, given, name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's log of what it can't run on such tensors: nothing is wrong."""
    log = logging.getLogger(FakeTensorMode.__module__)
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


def _refuse_others(run: Callable[..., Any], given: Callable[[int], Any], name: str) -> None:
    """Refused where some numbers of rows are asked other operations for than others."""
    first: list[str] | None = None
    for rows in OTHERS:
        done = [call.name for call in record(run, given(rows), name).calls]
        if first not in (None, done):
            raise Refused(
                f"{name} can't be compiled: it does something else with {rows} rows than with "
                f"{OTHERS[0]}. A step has to do the same for any number of them"
            )
        first = done


if ShapeEnv is not None:

    class _Asked(ShapeEnv):
        """Notes the user's lines that ask. where: (question, file, line). takes_number: whether one
        takes the number itself, to ask it or to give it to a shape."""

        def __init__(self) -> None:
            super().__init__()
            self.where: list[tuple[str, str, int]] = []
            self.takes_number = False

        def evaluate_expr(self, *args: Any, **keywords: Any) -> Any:
            before = len(self.guards)
            answer = super().evaluate_expr(*args, **keywords)
            for guard in self.guards[before:]:
                question = str(guard.expr)
                for symbol in guard.expr.free_symbols:
                    question = question.replace(str(symbol), "rows")
                frame = _asker(sys._getframe(1))
                if question == f"Eq(rows, {MANY})":
                    self.takes_number = True
                elif frame is not None:
                    self.where.append((question, frame.f_code.co_filename, frame.f_lineno))
            return answer


def _asker(frame: FrameType | None) -> FrameType | None:
    """Whose code asks: the user's, or None where it is torch's."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in OURS:
            return frame
        if module not in _SYMBOLS:
            return None
        frame = frame.f_back
    return None


# Where a symbol becomes a bool or an int.
_SYMBOLS = (
    "torch",
    "torch.fx.experimental.sym_node",
    "torch.fx.experimental.symbolic_shapes",
    "torch.fx.experimental.recording",
    "torch.utils._stats",
    "functools",
    "contextlib",
)
