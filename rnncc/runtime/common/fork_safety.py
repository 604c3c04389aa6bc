"""Locks in forked children: of the threads that may have held them, none is there.

    open_in_children(owner, name)    # what it protects is whole at each step: the child has it anew
    held_in_forks(lock)              # what it protects isn't: a fork waits until nobody changes it

Non-Goals: locks of libraries that rnncc doesn't take while others may fork.
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


_held: list[Any] = []


def held_in_forks(lock: Any) -> None:
    """No other thread has the lock while this one forks. Locks are taken as they were named."""
    _held.append(lock)


def _hold() -> None:
    for lock in _held:
        lock.acquire()


def _let_go() -> None:
    for lock in reversed(_held):
        lock.release()


def _open() -> None:
    _let_go()
    for (_, name), reference in list(_kept.items()):
        owner = reference()
        if owner is not None:
            setattr(owner, name, threading.RLock())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_open)
