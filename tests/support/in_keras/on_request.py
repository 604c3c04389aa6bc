"""Runs the checks of this folder as another process asks for them, on Keras's backend.

    python -m tests.support.in_keras.on_request

A check is a function of a file, `layers.test_masks`, with all its parameters. First out goes a line
with the names of all; then for each line in, a check's name, one with what became of it. Lines out
are JSON: what else is printed goes where errors do.
"""

from __future__ import annotations

import collections
import json
import os
import sys
from pathlib import Path
from typing import IO, Any

import pytest

FOLDER = Path(__file__).parent


def name_of(path: Path, function: str) -> str:
    return f"{path.stem.removeprefix('check_')}.{function}"


class OnRequest:
    """A plugin of pytest, in place of its loop over all that was collected."""

    def __init__(self, requests: IO[str], answers: IO[str]) -> None:
        self.requests, self.answers = requests, answers
        self.reports: list[pytest.TestReport] = []
        self.files: dict[str, tuple[str, str]] = {}  # those that have no checks here: why

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            path = Path(report.nodeid)
            self.files[name_of(path, "")] = outcome_of([report])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = collections.defaultdict(list)
        for item in session.items:
            assert isinstance(item, pytest.Function)
            items[name_of(item.path, item.originalname)].append(item)
        self.answer([*items])
        for line in self.requests:
            name = line.strip()
            self.reports.clear()
            for item in items[name]:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            file = name.partition(".")[0] + "."
            self.answer(self.files.get(file) or outcome_of(self.reports))
        return True

    def answer(self, value: Any) -> None:
        self.answers.write(json.dumps(value) + "\n")
        self.answers.flush()


def outcome_of(reports: list[Any]) -> tuple[str, str]:
    """What became of a check, and why. reports: of its parameters, each step of them."""
    failed = [r for r in reports if r.failed]
    if failed:
        texts = [f"{r.nodeid}\n{r.longreprtext}\n{r.capstdout}{r.capstderr}" for r in failed]
        return "failed", "\n".join(texts)
    skipped = [r for r in reports if r.skipped and not hasattr(r, "wasxfail")]
    if skipped and not any(r.passed for r in reports if getattr(r, "when", "") == "call"):
        return "skipped", str(skipped[0].longrepr[2]).removeprefix("Skipped: ")
    return ("passed", "") if reports else ("failed", "no such check")


def main() -> None:
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    options = ("-q", "-p", "no:cacheprovider", "-o", "python_files=check_*.py")
    sys.exit(pytest.main([*options, str(FOLDER)], plugins=[OnRequest(requests, answers)]))


if __name__ == "__main__":
    main()
