"""What names in kernels stand for, besides numbers: functions that they call, and words.

    @helper(returns=PAIR)
    def share(n, part, parts):
        return n * part // parts, n * (part + 1) // parts

Non-Goals: entries (`kernel`); which words there are (`kernel_namespace`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

PAIR, THREE, FOUR = (f"UniTuple(int64, {count})" for count in (2, 3, 4))


class Word:
    """Stands for what `meaning` returns, which only compiling imports."""

    def meaning(self) -> Any:
        raise NotImplementedError


class Helper:
    """A function over int64 that kernels call; compiled into each of them, and never alone."""

    __slots__ = ("__weakref__", "function", "signature")

    def __init__(self, function: Callable[..., Any], returns: str, takes: str) -> None:
        self.function = function
        count = len(inspect.signature(function).parameters)
        self.signature = f"{returns}({', '.join([takes] * count)})"

    def __repr__(self) -> str:
        return f"<helper {self.function.__name__}: {self.signature}>"


def helper(function: Any = None, *, returns: str = "void", takes: str = "int64") -> Any:
    """A helper; what it returns and takes is said in Numba's words. A pair: returns=PAIR.

    Types are stated rather than found from a call, so that it is compiled once, whatever constants
    it is called with.
    """
    if function is None:
        return partial(Helper, returns=returns, takes=takes)
    return Helper(function, returns, takes)
