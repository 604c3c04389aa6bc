"""What is made once a process, and is the same object for every thread: `@one_for_all`.

`functools.cache` hands each of the threads that ask first at once what it made itself, and keeps
one of these. An address taken in any other dangles as soon as its caller has let go of it.

Non-Goals: caches with a bound; what may be made twice (`functools.cache` does).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Held for a look into a dict alone, never while something is made: so no two wait for each other,
# nobody who forks has another thread in the middle.
_lock = threading.RLock()


def one_for_all(function: Callable[P, T]) -> Callable[P, T]:
    """The function, called once for each of its arguments, which are hashable. Threads that ask
    first at once may all call it: what the first of them made is what all of them get."""
    made: dict[Hashable, T] = {}

    @wraps(function)
    def kept(*args: P.args, **kwargs: P.kwargs) -> T:
        key = (args, *sorted(kwargs.items()))
        if key in made:
            return made[key]
        new = function(*args, **kwargs)
        with _lock:
            return made.setdefault(key, new)

    whole: Any = kept
    whole.cache_clear = made.clear
    return kept
