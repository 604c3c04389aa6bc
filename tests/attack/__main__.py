"""`python -m tests.attack [NAME ...] [--count N] [--seed S]`: the long forms, with what they found.

A run that was stopped goes on where it stopped: attempts made and findings are kept in
`.attack/<name>-<seed>.json`, and `--fresh` begins again. The exit status is 1 if anything was
found.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import traceback

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.attack import Attack
from tests.support.paths import ROOT

# Each is a module of this package.
ATTACKS: tuple[str, ...] = (
    "bounds",
    "c",
    "cells",
    "compiled",
    "doors",
    "exported",
    "files",
    "guard",
    "load",
    "models",
    "names",
    "onnx",
    "reading",
    "text",
    "threads",
    "cache",
    "kills",
    "forks",
    "torch",
)

FOLDER = ROOT / ".attack"
SAVE_SECONDS = 2.0  # what a stop may lose


def attack_of(name: str) -> Attack:
    attack: Attack = importlib.import_module(f"tests.attack.{name}").ATTACK
    return attack


class Record:
    """How far a run has come, and what it found: on disk, whole at any time."""

    def __init__(self, attack: Attack, seed: int, fresh: bool) -> None:
        self.path = FOLDER / f"{attack.name}-{seed}.json"
        self.made, self.seconds = 0, 0.0
        self.findings: list[tuple[int, str]] = []
        if self.path.exists() and not fresh:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            self.made, self.seconds = kept["made"], kept["seconds"]
            self.findings = [(index, text) for index, text in kept["findings"]]

    def save(self) -> None:
        FOLDER.mkdir(exist_ok=True)
        beside = self.path.with_suffix(f".{os.getpid()}")
        kept = {"made": self.made, "seconds": self.seconds, "findings": self.findings}
        beside.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        beside.replace(self.path)


def try_once(attack: Attack, index: int, seed: int) -> str | None:
    """A finding; an exception that nobody expected is one."""
    try:
        return attack.attempt(index, seed)
    except Exception:
        return traceback.format_exc()


def run(attack: Attack, count: int, seed: int, fresh: bool, console: Console) -> Record:
    record = Record(attack, seed, fresh)
    columns = (
        TextColumn(f"{attack.name:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[found]} found"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=count, completed=record.made, found=len(record.findings))
        saved = began = time.monotonic()
        for index in range(record.made, count):
            finding = try_once(attack, index, seed)
            if finding is not None:
                record.findings.append((index, finding))
                progress.console.print(
                    f"{attack.name} {index} (seed {seed}):\n{finding}\n", markup=False
                )
            record.made = index + 1
            now = time.monotonic()
            if finding is not None or now - saved > SAVE_SECONDS:
                record.seconds += now - began
                began = saved = now
                record.save()
            progress.update(bar, completed=record.made, found=len(record.findings))
        record.seconds += time.monotonic() - began
        record.save()
    return record


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ATTACKS)}; all")
    parser.add_argument("--count", type=int, help="attempts; without it what each takes itself for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="don't go on from an earlier run")
    given = parser.parse_args()
    unknown = [n for n in given.names if n not in ATTACKS]
    if unknown:
        parser.error(f"no attack is called {unknown[0]}; there are {', '.join(ATTACKS)}")
    console = Console()
    table = Table("attack", "what is tried", "attempts", "found", "seconds")
    found = 0
    for name in given.names or ATTACKS:
        attack = attack_of(name)
        record = run(attack, given.count or attack.count, given.seed, given.fresh, console)
        found += len(record.findings)
        row = (attack.name, attack.about, f"{record.made:,}", f"{len(record.findings):,}")
        table.add_row(*row, f"{record.seconds:.0f}")
    console.print(table)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
