"""The launches of a call as one CUDA graph, where the same launches come again.

A launch takes Python some microseconds, a step of a small loop no more. What a call launches is
decided by its words: sizes, strides, and the addresses of all it reads and writes. Words that are
seen a second time are captured on a stream of our own and kept as a graph; from then on a call of
these words is one launch of it, on the caller's stream. In a loop of training, allocators hand out
the same memory again and again, so that nearly all calls are.

Launched one by one, as before: the first call of any words, calls whose seed is another each time,
and calls on a stream that its owner is capturing (torch.cuda.graph takes our launches in).

Non-Goals: changing addresses inside of a graph.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from rnncc.runtime.common.fork_safety import open_in_children

LEAST = 3  # launches that are worth a graph
KEPT = 32  # graphs of a plan: a long call has a block of steps after the other
SEEN = 64  # words of a plan that have come once


class LaunchGraph(Protocol):
    def launch(self, stream: Any) -> None: ...


Key = tuple[Any, bytes]
Launches = Callable[[Any, int], None]  # on a stream, with a workspace's address or 0


class Graphs:
    """Those of one plan. Thread-safe."""

    def __init__(self) -> None:
        self.kept: OrderedDict[Key, LaunchGraph] = OrderedDict()
        self.seen: OrderedDict[Key, None] = OrderedDict()
        self.why_not = ""
        self.lock = threading.RLock()
        open_in_children(self, "lock")

    def launch(self, words: bytes, run: Launches, target: Any, stream: Any) -> None:
        """The launches of `run`, or the graph of them. A graph stays with its stream, whose
        launches share what memory the library works in."""
        key = stream, words
        if self.why_not or target.is_capturing(stream):
            run(stream, 0)
            return
        with self.lock:
            graph = self.kept.get(key)
            if graph is not None:
                self.kept.move_to_end(key)
                graph.launch(stream)
                return
            if key not in self.seen:
                self.seen[key] = None
                if len(self.seen) > SEEN:
                    self.seen.popitem(last=False)
            else:
                graph = self._made(key, run, target, stream)
        if graph is None:
            run(stream, 0)
        else:
            graph.launch(stream)

    def _made(self, key: Key, run: Launches, target: Any, stream: Any) -> LaunchGraph | None:
        """A graph that is kept; None, and why, where the driver makes none."""
        del self.seen[key]
        try:
            graph: LaunchGraph = target.captured(run, stream)
        except RuntimeError as error:
            self.why_not = str(error)
            return None
        self.kept[key] = graph
        if len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return graph

    def said(self, launches: int) -> str:
        """For `plan()`."""
        count = f"{launches} launches a call"
        if self.why_not:
            return f"{count}, one by one: no CUDA graph ({self.why_not})"
        if not self.kept:
            return f"{count}; a CUDA graph, once the same addresses come again"
        return f"{count}, as a CUDA graph where the same addresses come again"
