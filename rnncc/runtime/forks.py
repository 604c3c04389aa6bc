"""Locks that a forked child finds open: of the threads that may have held them, none is there.

Non-Goals: what a lock protected: every change under one leaves its data whole at each step.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_kept: dict[tuple[int, str], weakref.ref[Any]] = {}


def open_in_children(owner: Any, name: str) -> None:
    """`owner.name`, a lock, is replaced by a new one after a fork."""
    key = id(owner), name
    _kept[key] = weakref.ref(owner, lambda _: _kept.pop(key, None))


def _open() -> None:
    for (_, name), found in list(_kept.items()):
        owner = found()
        if owner is not None:
            setattr(owner, name, threading.RLock())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open)
