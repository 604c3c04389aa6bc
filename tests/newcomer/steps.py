"""What a page asks of its reader, in order: files to be written and lines to be typed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.pages.running import blocks


@dataclass(frozen=True, slots=True)
class File:
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    line: str
    at: int  # the page's line


def steps(page: Path) -> Iterator[File | Command]:
    """Raises ValueError for a block that says neither where to save nor what to type."""
    for block in blocks(page):
        if block.name:
            yield File(block.name, block.text)
        elif block.language == "sh":
            for n, line in enumerate(block.text.splitlines()):
                yield Command(line.partition("  #")[0].rstrip(), block.line + n)
        elif block.language != "text":
            raise ValueError(f"{page}:{block.line}: where is a reader to put this?")
