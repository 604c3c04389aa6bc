"""The first page as a newcomer follows it, word by word, in an environment that has nothing yet.

    python -m tests.newcomer [--package WHEEL] [--most SECONDS]

Blocks of docs/start.md with a title become files of an empty folder; lines of `sh` blocks run one
after another, those of pip in the checkout, in a fresh virtual environment with a cache of its own.
Prints what each took and the last line that it printed; ends with 1 where one fails, and where all
of them take longer than --most, ten minutes. --package: what is installed in place of `.`.

Packages come from wherever pip is set up to find them, 180 MB.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

from tests.newcomer.steps import Command, File, steps
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "start.md"
TEN_MINUTES = 600.0
SKIPPED = ("PYTHON", "RNNCC", "VIRTUAL_ENV")  # beginnings of what a newcomer's shell hasn't


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.newcomer")
    parser.add_argument("--package", default=".", help="a wheel, in place of the checkout")
    parser.add_argument("--most", type=float, default=TEN_MINUTES, help="seconds")
    given = parser.parse_args(argv)
    package = str(Path(given.package).resolve()) if given.package != "." else "."
    with tempfile.TemporaryDirectory(prefix="rnncc-newcomer-") as folder:
        return follow(Path(folder), package, given.most)


def follow(folder: Path, package: str, most: float) -> int:
    begun = time.perf_counter()
    venv.create(folder / "venv", with_pip=True)
    report("a virtual environment", time.perf_counter() - begun)
    work = folder / "work"
    work.mkdir(parents=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(SKIPPED)}
    environment |= {
        "PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{environment['PATH']}",
        "RNNCC_CACHE": str(folder / "cache"),
    }
    for step in steps(PAGE):
        if isinstance(step, File):
            (work / step.name).write_text(step.text, encoding="utf-8")
        elif not run(step, work, package, environment):
            return 1
    whole = time.perf_counter() - begun
    report("all of it", whole, f"at most {most:.0f}")
    return int(whole > most)


def run(step: Command, work: Path, package: str, environment: dict[str, str]) -> bool:
    words = [package if word == "." else word for word in shlex.split(step.line)]
    installs = "pip" in words
    begun = time.perf_counter()
    done = subprocess.run(
        ["/usr/bin/env", *words],  # which looks for a command on the newcomer's path
        cwd=ROOT if installs else work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if line.strip()]
    report(step.line, time.perf_counter() - begun, "" if installs or not said else said[-1])
    if done.returncode:
        print(f"{PAGE}:{step.at}: it ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return not done.returncode


def report(what: str, seconds: float, said: str = "") -> None:
    print(f"{seconds:7.1f} s  {what}" + (f"    {said}" if said else ""), flush=True)


if __name__ == "__main__":
    sys.exit(main())
