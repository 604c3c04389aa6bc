"""Where in the text of kernels something happened, for people.

Non-Goals: what happened.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

TEXT = "__kernel_text__"  # a global of every function that is simulated: its module's lines


@dataclass
class Site:
    """Lines of the text that were being run, the innermost first."""

    frames: tuple[tuple[CodeType, int, Any], ...]
    what: str
    lines: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[object, int]:
        return (self.frames[0][0], self.frames[0][1]) if self.frames else (None, 0)

    def __str__(self) -> str:
        found = [self.what] if self.what else []
        for code, number, text in self.frames:
            lines = text or []
            line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
            found.append(f"    {code.co_name}, line {number}: {line}")
            stage = _stage(lines, number, code.co_firstlineno)
            if stage:
                found.append(f"        of: {stage}")
        return "\n".join(found)


def _stage(lines: list[str], number: int, first: int) -> str:
    """The comment in front of a line of a kernel: the equation, and the level."""
    found: list[str] = []
    for line in reversed(lines[first : number - 1]):
        text = line.strip()
        if text.startswith("# "):
            found.append(text.removeprefix("# "))
            if "---- level" in text:
                break
        elif found and "---- level" not in found[-1]:
            break
    return " | ".join(reversed(found[:3]))


def site(what: str = "") -> Site:
    """Where the simulated text is now."""
    frame: FrameType | None = sys._getframe(1)
    frames = []
    while frame is not None and len(frames) < 6:
        if TEXT in frame.f_globals:
            frames.append((frame.f_code, frame.f_lineno, frame.f_globals[TEXT]))
        frame = frame.f_back
    return Site(tuple(frames), what)


def text_of(function: Any) -> list[str]:
    """The lines of a function's module, whoever has them."""
    names = function.__globals__
    if TEXT in names:
        return names[TEXT]
    loader = names.get("__loader__")
    source = loader.get_source(names["__name__"]) if hasattr(loader, "get_source") else None
    return (source or "").splitlines()
