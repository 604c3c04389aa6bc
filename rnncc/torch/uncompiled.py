"""What torch.compile must not look into.

Behind a break of a graph Python goes on, and torch looks whether it can compile each function that
is called, also those of nodes that autograd runs: kernels' own, which write memory by its address.

Non-Goals: what a graph holds of a call (`ops`).
"""

from __future__ import annotations

from typing import Any, TypeVar

_F = TypeVar("_F", bound=type)


def run_as_is(node: _F) -> _F:
    """A class of autograd's whose methods run as they are, with all that they call."""
    try:
        from torch._C._dynamo import eval_frame as frames

        skip = frames._FrameAction.SKIP
        strategy: Any = frames._FrameExecStrategy(skip, skip)
        mark: Any = frames.set_code_exec_strategy
    except (ImportError, AttributeError):  # an older torch, which compiles them, in some minutes
        return node
    for name in ("forward", "backward", "setup_context", "jvp", "vmap"):
        method = node.__dict__.get(name)
        if isinstance(method, staticmethod):
            mark(method.__func__.__code__, strategy)
    return node
