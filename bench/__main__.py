"""`python -m bench SUITE [--quick] [--json FILE] [--plot FILE] [--markdown FILE] [--strict]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from bench.harness import QUICK, BenchError, Effort
from bench.markdown import with_sections
from bench.outputs import check_writable, per_suite, write
from bench.plot import check_plottable, picture
from bench.races_suite import check_names
from bench.result import Result, load
from bench.suites import SUITES, Suite, run
from rnncc.frontend.diagnostics import SpecError, nearest

ALL = "all"
RACES = (*(name for name, entry in SUITES.items() if isinstance(entry, Suite)), "scaling")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        results = _measured(arguments)
        _write(arguments, results)
    except BenchError as error:
        print(f"bench: {error}\n{error.details}".strip(), file=sys.stderr)
        return 2
    except SpecError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted: nothing is written", file=sys.stderr)
        return 130
    if any(r.failures for r in results):
        return 2
    missed = any(bar.passed is False for r in results for bar in r.bars)
    return int(missed and arguments.strict)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, in turns.")
    parser.add_argument("suite", metavar="SUITE", help=f"{', '.join(SUITES)}, or {ALL}")
    parser.add_argument("--quick", action="store_true", help="a few cases and turns: a smoke test")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the suite there")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="put the suite's section there, or renew it"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bar is missed")
    parser.add_argument("--spec", metavar="FILE", help="custom: a cell of your own")
    parser.add_argument("--only", metavar="NAMES", help="these contenders, with commas, and rnncc")
    parser.add_argument("--cap", type=float, metavar="S", help="deepbench: seconds a shape")
    parser.add_argument("--check", action="store_true", help="gpu: right first, as it always is")
    return parser


def _measured(arguments: argparse.Namespace) -> list[Result]:
    """Everything that can be wrong is found before anything is measured."""
    names = list(SUITES) if arguments.suite == ALL else [arguments.suite]
    if unknown := [n for n in names if n not in SUITES]:
        hint = nearest(unknown[0], SUITES) or f"there are {', '.join(SUITES)}, {ALL}"
        raise BenchError(f"no suite is called {unknown[0]!r}: {hint}")
    effort = _effort(arguments)
    if arguments.json:
        check_writable("--json", arguments.json)
    if arguments.markdown:
        check_writable("--markdown", arguments.markdown)
    if arguments.plot:
        check_plottable(arguments.plot)
        check_writable("--plot", arguments.plot)
    if (busy := load()) is not None and busy > 0.5:
        print(f"bench: load average {busy}: others want the cores, too", file=sys.stderr)
    console = Console(width=None if sys.stdout.isatty() else 160)
    results: list[Result] = []
    for name in names:
        with Console(stderr=True).status(f"{name} ...") as status:
            found = replace(
                effort,
                report=_reporter(name, status),
                partial=lambda result: _write_json(arguments, [*results, result]),
            )
            results.append(run(name, found))
        results[-1].show(console)
    return results


def _reporter(name: str, status: Status) -> Callable[[str], None]:
    """What runs: on a terminal the line that changes, in a log a line each."""
    if sys.stderr.isatty():
        return lambda what: status.update(f"{name}: {escape(what)}")
    return lambda what: print(f"bench: {name}: {what}", file=sys.stderr, flush=True)


def _effort(arguments: argparse.Namespace) -> Effort:
    if arguments.spec is not None and arguments.suite != "custom":
        raise BenchError(f"--spec goes with the suite custom, not {arguments.suite}")
    if arguments.cap is not None and arguments.cap <= 0:
        raise BenchError(f"--cap takes seconds above zero, not {arguments.cap:g}")
    if arguments.cap is not None and arguments.suite not in ("deepbench", ALL):
        raise BenchError(f"--cap goes with the suite deepbench, not {arguments.suite}")
    if arguments.only is not None and arguments.suite not in (*RACES, ALL):
        raise BenchError(f"--only goes with {', '.join(RACES)}; {arguments.suite} has its own")
    effort = QUICK if arguments.quick else Effort()
    only = [n.strip() for n in (arguments.only or "").split(",") if n.strip()]
    if arguments.only is not None and not only:
        raise BenchError("--only takes contenders' names with commas between")
    cap = effort.cap if arguments.cap is None else arguments.cap
    # rnncc alone is a choice, too: a name that is in every race anyway.
    chosen = (*check_names(only), "rnncc") if only else ()
    spec = arguments.spec
    if spec is not None and Path(spec).exists():
        spec = str(Path(spec).resolve())  # contenders run in the harness's own folder
    return replace(effort, spec=spec, only=chosen, cap=cap)


def _write(arguments: argparse.Namespace, results: list[Result]) -> None:
    _write_json(arguments, results)
    if arguments.plot:
        for result in results:
            path = per_suite(arguments.plot, result.suite, len(results) > 1)
            write("--plot", path, picture(result, path.suffix.removeprefix(".")))
    if arguments.markdown:
        path = arguments.markdown
        old = path.read_text("utf-8") if path.exists() else ""
        write("--markdown", path, with_sections(old, results, date.today()).encode())


def _write_json(arguments: argparse.Namespace, results: list[Result]) -> None:
    if arguments.json:
        text = json.dumps([r.as_json() for r in results], indent=2) + "\n"
        write("--json", arguments.json, text.encode())


if __name__ == "__main__":
    sys.exit(main())
