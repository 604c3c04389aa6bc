"""What may crash or hang, in a forked child: a finding is what it returned, raised or died of.

Non-Goals: machines that can't fork.
"""

from __future__ import annotations

import os
import select
import signal
import time
import traceback
from collections.abc import Callable


def in_child(work: Callable[[], str | None], seconds: float = 60.0) -> str | None:
    """`work`'s finding; a child that dies of a signal, or isn't done in time, is one."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            finding = work()
        except BaseException:
            finding = traceback.format_exc()
        os.write(writer, (finding or "")[:60_000].encode(errors="replace"))
        os._exit(0)
    os.close(writer)
    text, done = b"", False
    until = time.monotonic() + seconds
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while not done and time.monotonic() < until:
            if select.select([pipe], [], [], 0.5)[0]:
                piece = pipe.read(65536)
                text, done = text + piece, not piece
    if not done:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not done:
        return f"not done after {seconds:.0f} s"
    if os.WIFSIGNALED(status):
        return f"died of {signal.Signals(os.WTERMSIG(status)).name}"
    return text.decode() or None
