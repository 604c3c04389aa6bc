"""A TextMate grammar without an editor: scopes of each character, and assertions held against them.

    found = scopes(grammar, lines)          # found[line][column] is a set of names
    wrong = failures(grammar, text)         # of a test file of vscode-tmgrammar-test

Of TextMate's rules those that ours has: `match` with `captures`, `begin` and `end`, `include`.

Non-Goals: what Oniguruma reads otherwise than `re`; vscode-tmgrammar-test knows (test_vscode.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Rule = dict[str, Any]
Scopes = list[set[str]]


def scopes(grammar: Rule, lines: list[str]) -> list[Scopes]:
    rules = [*flat(grammar, grammar["patterns"])]
    inside: Rule | None = None  # between `begin` and `end`
    found = []
    for line in lines:
        at = 0
        here: Scopes = [set() for _ in line]
        while at <= len(line):
            if inside is not None:
                end = re.compile(inside["end"]).search(line, at)
                paint(here, at, end.end() if end else len(line), inside["name"])
                if not end:
                    break
                at, inside = end.end(), None
                continue
            hits = [(m.start(), n, m) for n, r in enumerate(rules) if (m := first(r, line, at))]
            if not hits:
                break
            _, number, match = min(hits, key=lambda hit: hit[:2])
            rule = rules[number]
            if "name" in rule:
                paint(here, match.start(), match.end(), rule["name"])
            for group, named in rule.get("captures", {}).items():
                paint(here, *match.span(int(group)), named["name"])
            inside = rule if "begin" in rule else None
            at = max(match.end(), at + (match.end() == at))
        found.append(here)
    return found


def flat(grammar: Rule, patterns: list[Rule]) -> Iterator[Rule]:
    for rule in patterns:
        if "include" in rule:
            yield from flat(grammar, [grammar["repository"][rule["include"][1:]]])
        elif "match" in rule or "begin" in rule:
            yield rule
        else:
            yield from flat(grammar, rule["patterns"])


def first(rule: Rule, line: str, at: int) -> re.Match[str] | None:
    return re.compile(rule.get("match") or rule["begin"]).search(line, at)


def paint(here: Scopes, begin: int, end: int, name: str) -> None:
    for column in range(max(begin, 0), end):
        here[column].add(name)


ASSERTION = re.compile(
    r"# *(?:(?P<arrow><(?P<tail>~*)(?P<dashes>-+))|(?P<carets>\^+))(?P<said>.*)$"
)


def failures(grammar: Rule, text: str) -> tuple[int, list[str]]:
    """How many assertions there are, and those that don't hold."""
    header, *lines = text.splitlines()
    assert header.startswith('# SYNTAX TEST "source.rnn"')
    marks = [ASSERTION.match(line) for line in lines]
    shown = iter(scopes(grammar, [s for s, m in zip(lines, marks, strict=True) if not m]))
    here: Scopes = []
    made, wrong = 0, []
    for line, mark in zip(lines, marks, strict=True):
        if not mark:
            here = next(shown)
            continue
        columns = range(*mark.span("carets"))
        if mark["arrow"]:
            columns = range(len(mark["tail"]), len(mark["tail"]) + len(mark["dashes"]))
        wanted, _, unwanted = mark["said"].partition(" - ")
        for column in columns:
            made += 1
            got = here[column] if column < len(here) else set()
            if {*wanted.split()} - got or {*unwanted.split()} & got:
                wrong.append(f"{line}: column {column} has {sorted(got)}")
                break
    return made, wrong
