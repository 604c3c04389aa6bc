"""How many of a number of kernels are ready, for whoever waits: see `common.progress`.

Non-Goals: other things that take time.
"""

from __future__ import annotations

import threading

from rnncc.common.progress import working


class Progress(working):
    """`advance` may be called from any thread."""

    def __init__(self, what: str, count: int) -> None:
        self.what, self.count, self.ready = what, count, 0
        self._counting = threading.Lock()
        super().__init__(self.told)

    def advance(self) -> None:
        """One more."""
        with self._counting:
            self.ready += 1
            text = self.told
        self.say(text)

    @property
    def told(self) -> str:
        """What is said of it now."""
        kernels = "kernel" if self.count == 1 else "kernels"
        return f"compiling {self.what}: {self.ready} of {self.count} {kernels}"
