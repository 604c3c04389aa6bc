"""A page for each decision: docs/decisions.md is one text to be read in a row, and has them all.

parts(text)         the decisions in it
index(text)         what the site shows in its place: number, title and date of each
page(part, of)      one of them, with links to those before and behind it
linked(text)        `decisions.md#d8` of other pages leads to the decision's own
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

HEADING = re.compile(r"^## (\d+)\. (.+?) \{#d\1\}$", re.MULTILINE)
DATE = re.compile(r"\A\*(\d{4}-\d\d-\d\d)\*\n\n")
LINK = re.compile(r"\]\((?!https?:|#|\.\./)([\w./-]+\.(?:md|png))(#[\w-]+)?\)")


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    title: str
    date: str
    text: str

    @property
    def path(self) -> str:
        return f"decisions/{self.number}.md"


def parts(text: str) -> list[Part]:
    """Raises ValueError where a number is missing or a decision has no date."""
    found = []
    matches = [*HEADING.finditer(text)]
    ends = [*(m.start() for m in matches[1:]), len(text)]
    for match, end in zip(matches, ends, strict=True):
        said = text[match.end() : end].strip() + "\n"
        date = DATE.match(said)
        if not date or int(match[1]) != len(found) + 1:
            raise ValueError(f"decision {match[1]}, {match[2]}: a date, and numbers in a row")
        found.append(Part(int(match[1]), match[2], date[1], said[date.end() :]))
    return found


def index(text: str) -> str:
    before = text[: HEADING.search(text).start()]  # type: ignore[union-attr]
    rows = [
        f'| <span id="d{p.number}"></span>{p.number} | [{p.title}]({p.path}) | {p.date} |'
        for p in parts(text)
    ]
    return "\n".join((before.rstrip(), "", "| | decision | since |", "| --- | --- | --- |", *rows))


def page(part: Part, of: list[Part]) -> str:
    text = linked(part.text)
    text = LINK.sub(lambda m: f"](../{m[1]}{m[2] or ''})", text)
    text = re.sub(r"\]\(#d(\d+)\)", r"](\1.md)", text)
    return "\n".join(
        (f"# {part.number}. {part.title}", "", f"*{part.date}*", "", text, *beside(part, of))
    )


def beside(part: Part, of: list[Part]) -> Iterator[str]:
    yield from ("---", "")
    around = [p for p in of if abs(p.number - part.number) == 1]
    links = [f"[{p.number}. {p.title}]({p.number}.md)" for p in around]
    yield " · ".join((*links, "[all](../decisions.md)"))


def linked(text: str) -> str:
    return re.sub(r"\]\(decisions\.md#d(\d+)\)", r"](decisions/\1.md)", text)
