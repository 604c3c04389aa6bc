"""The text of a kernel, in a file or out of the cache.

Non-Goals: kernels whose text nobody kept.
"""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from rnncc.runtime.jit import module_cache


def text_of(function: Any) -> str:
    """Also of a module that is in no file."""
    loader = function.__globals__.get("__loader__")
    if isinstance(loader, module_cache._Loader):
        lines = loader.text.splitlines(keepends=True)[function.__code__.co_firstlineno - 1 :]
        return "".join(inspect.getblock(lines))
    return textwrap.dedent(inspect.getsource(function))
