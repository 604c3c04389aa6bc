"""One run of a step on real tensors -> the operations it asked torch for, in order.

A dispatch mode hears of them below autograd, where linear layers, norms and einsum have become the
few hundred operations that torch's kernels know. Each has the user's line that asked for it, and
the autograd.Function in whose forward it ran.

Non-Goals: what operations mean (`words`); what becomes of two runs (`pairs`).
"""

from __future__ import annotations

import linecache
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from rnncc.reading.graph import Origin

_APPLY: CodeType = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]
OURS = ("torch", "rnncc", "contextlib", "functools", "unittest")
# Operations that hand a number to Python.
_TO_PYTHON = ("aten._local_scalar_dense.default", "aten.equal.default", "aten.is_nonzero.default")


class Refused(TypeError):
    """What a step does that equations can't; the whole message."""


@dataclass(slots=True, eq=False)
class FunctionCall:
    """One call of an autograd.Function."""

    function: Any
    args: Sequence[Any]


@dataclass(slots=True, eq=False)
class AtenCall:
    """outputs = name(*args, **keywords). values: what outputs held then. with_grad: whether
    autograd was listening."""

    name: str
    operation: Any
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: list[Any]
    values: list[Any]
    origin: Origin
    with_grad: bool
    inside: FunctionCall | None


@dataclass(slots=True)
class StepTrace:
    """calls, and what the step gave. given: what it was given, or a tree of that."""

    calls: list[AtenCall] = field(default_factory=list)
    given: Any = None
    returned: Any = None
    alive: list[Any] = field(default_factory=list)  # an id means what it does as long as it lives


def record(step: Callable[..., Any], given: Any, name: str) -> StepTrace:
    """Of step(*given). Refused for what hands numbers of tensors to Python."""
    trace = StepTrace(given=given)
    with _Recording(trace, name):
        trace.returned = step(*given)
    return trace


_here = threading.local()


def is_being_read() -> bool:
    """Whether what runs in this thread is being read: modules of ours then run torch's own
    operations, which can be."""
    return not torch.compiler.is_compiling() and getattr(_here, "depth", 0) > 0


@contextmanager
def being_read() -> Iterator[None]:
    """What runs within is being read."""
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        yield
    finally:
        _here.depth -= 1


class _Recording(TorchDispatchMode):
    def __init__(self, trace: StepTrace, name: str) -> None:
        super().__init__()
        self.trace, self.name = trace, name
        self._functions: dict[FrameType, FunctionCall] = {}
        self._made: set[int] = set()  # tensors made of numbers alone

    def __exit__(self, *details: Any) -> None:
        self._functions.clear()
        super().__exit__(*details)

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = dict(kwargs or {})
        name = str(operation)
        origin, inside = self._where(name)
        tensors = [t for t in pytree.tree_leaves((args, keywords)) if isinstance(t, Tensor)]
        known = all(id(t) in self._made for t in tensors)
        if name in _TO_PYTHON and not known:
            raise Refused(
                f"{self.name} can't be compiled: {origin} hands a tensor's number to Python: what "
                "depends on it (if, while, an index, int()) can't be one equation. Choose with "
                "torch.where"
            )
        returned = operation(*args, **keywords)
        outputs = [*returned] if isinstance(returned, tuple | list) else [returned]
        values = [t.detach().clone() if isinstance(t, Tensor) else t for t in outputs]
        if known or name == "aten.lift_fresh.default":
            self._made.update(id(t) for t in outputs)
        else:
            self._made.difference_update(id(t) for t in outputs)
        self.trace.alive += [*tensors, *outputs]
        self.trace.calls.append(
            AtenCall(
                name,
                operation,
                args,
                keywords,
                outputs,
                values,
                origin,
                torch.is_grad_enabled(),
                inside,
            )
        )
        return returned

    def _where(self, name: str) -> tuple[Origin, FunctionCall | None]:
        """The user's line, and the outermost Function around it."""
        user: FrameType | None = None
        last: FrameType | None = None
        inside = None
        for frame in _frames(sys._getframe(2)):
            root = frame.f_globals.get("__name__", "").partition(".")[0]
            if root not in OURS:
                user = user or frame
            elif frame.f_globals.get("__name__", "").startswith("torch.nn"):
                last = last or frame
            if frame.f_code is _APPLY:
                inside = self._functions.get(frame)
                if inside is None:
                    known = frame.f_locals
                    inside = FunctionCall(known["cls"], tuple(known["args"]))
                    self._functions[frame] = inside
        return _origin(name.removesuffix(".default"), user or last), inside


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """From an operation to where the recording began."""
    while frame is not None and frame.f_code is not record.__code__:
        yield frame
        frame = frame.f_back


def _origin(name: str, frame: FrameType | None) -> Origin:
    if frame is None:
        return Origin(name)
    file, line = frame.f_code.co_filename, frame.f_lineno
    return Origin(name, file, line, linecache.getline(file, line).strip())


def line_of(error: BaseException) -> str:
    """Where in the user's text an error came up; empty where nowhere."""
    found, at = None, error.__traceback__
    while at is not None:
        root = at.tb_frame.f_globals.get("__name__", "").partition(".")[0]
        if root not in OURS:
            found = at
        at = at.tb_next
    if found is None:
        return ""
    file, line = found.tb_frame.f_code.co_filename, found.tb_lineno
    return f" ({file}:{line}: {linecache.getline(file, line).strip()})"
