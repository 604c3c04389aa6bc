"""`python -m bench SUITE [--quick] [--json FILE] [--strict]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.harness import QUICK, BenchError, Effort
from bench.result import load
from bench.suites import SUITES


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, in turns.")
    parser.add_argument("suite", choices=[*SUITES, "all"])
    parser.add_argument("--quick", action="store_true", help="fewer turns: a smoke test")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bar is missed")
    parser.add_argument("--check", action="store_true", help="gpu: right first (it always is)")
    arguments = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 150)
    effort = QUICK if arguments.quick else Effort()
    names = list(SUITES) if arguments.suite == "all" else [arguments.suite]
    results = []
    if (busy := load()) is not None and busy > 0.5:
        print(f"bench: load average {busy}: others want the cores, too", file=sys.stderr)
    for name in names:
        try:
            with Console(stderr=True).status(f"{name} ..."):
                results.append(SUITES[name](effort))
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        results[-1].show(console)
    if arguments.json:
        text = json.dumps([r.as_json() for r in results], indent=2)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    missed = any(bar.passed is False for r in results for bar in r.bars)
    return int(missed and arguments.strict)


if __name__ == "__main__":
    sys.exit(main())
