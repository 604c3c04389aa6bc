"""What forwards saved for backwards of graphs that can pass on tensors alone: found by a number.

A graph may run a forward whose backward never comes, or run one backward twice. So what is saved
is a cache: an entry is let go when its backward takes it, or when others came after it; a backward
that finds nothing runs its forward again, which gives the same bits. Operations whose backwards
came too late keep more from then on (a layer that is applied several times in one step).

Non-Goals: operations (`operation`).
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import Any

from rnncc.runtime.common.fork_safety import open_in_children

_LEAST, _MOST = 2, 64
_numbers = itertools.count(1)


class Pending:
    """Of one operation."""

    def __init__(self) -> None:
        self._entries: OrderedDict[int, Any] = OrderedDict()
        self._room = _LEAST
        self._lock = threading.Lock()
        open_in_children(self, "_lock")

    def put(self, saved: object | None) -> int:
        """The number of an entry; 0 of none."""
        if saved is None:
            return 0
        number = next(_numbers) & 0x7FFFFFFF
        with self._lock:
            self._entries[number] = saved
            while len(self._entries) > self._room:
                self._entries.popitem(last=False)
        return number

    def take(self, number: int) -> Any:
        """The entry of a number, which is let go; None where it is gone already."""
        with self._lock:
            entry = self._entries.pop(number, None)
            if entry is None and number:
                self._room = min(2 * self._room, _MOST)
            return entry
