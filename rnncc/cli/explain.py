"""`rnncc explain`: the stages of a cell, or one of them, or what each pass changed.

With --html all of them are one page, on which a line shows what it became (`explaining`).
With RNNCC_DUMP=FOLDER every stage is written there too, one file each, numbered in order.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from rnncc.cli.compile import file_path, write_text
from rnncc.cli.report import print_json
from rnncc.cli.settings import Settings, UsageError, load
from rnncc.cli.stages import FORWARD, PULLBACK, TRAINING, WHOLE, Stage, all_stages, stage_names
from rnncc.common.progress import working
from rnncc.frontend.diagnostics import nearest
from rnncc.lowering.cell_interface import collecting_later

MARK, LOOKED_AT = b'content="rnncc explain"', 1024  # by which a page is known as ours
MOST_EQUATIONS = 500  # whose kernels are shown, unless they are asked for: they take the longest


@collecting_later()
def run(arguments: argparse.Namespace) -> int:
    wanted = arguments.after
    if wanted is not None and wanted not in stage_names():
        hint = nearest(wanted, stage_names()) or f"stages are {', '.join(stage_names())}"
        raise UsageError(f"--after {wanted}: no such stage: {hint}")
    target = page_path(arguments)
    settings = load(arguments.file, arguments.settings)
    if target:
        return write_page(target, settings, arguments)
    asked = wanted == "module" or bool(os.environ.get("RNNCC_DUMP"))
    few = len(settings.spec.equations) <= MOST_EQUATIONS
    with working(f"explaining {settings.spec.name}"):
        shows_module = asked or (wanted is None and few)
        stages = list(all_stages(settings, arguments.dtype, module=shows_module))
    if wanted is None and not asked and not few:
        stages.append(Stage(WHOLE, "module", "left out: --after module shows it\n"))
    dump(stages)
    shown = select(stages, wanted, backward=arguments.backward)
    if arguments.diff:
        shown = changes(stages, shown)
    if arguments.json:
        told = [{"part": s.part, "name": s.name, "text": s.text} for s in shown]
        print_json("explain", ok=True, cell=settings.spec.name, stages=told)
    elif len(shown) == 1:
        print(shown[0].text, end="")
    else:
        for stage in shown:
            print(f"{f'==== {stage.title} ':=<98}\n\n{stage.text}")
    return 0


def page_path(arguments: argparse.Namespace) -> Path | None:
    """Where the page goes; UsageError where it can't, or what is there is somebody else's."""
    if arguments.html is None:
        return None
    for flag in ("after", "diff", "backward"):
        if getattr(arguments, flag):
            raise UsageError(f"--html shows every stage: it goes without --{flag}")
    path = file_path(arguments.html, ".html", "a page's file")
    if path.exists():
        with path.open("rb") as file:
            if MARK not in file.read(LOOKED_AT):
                raise UsageError(f"{path} was not written by rnncc: remove it, or name another")
    return path


def write_page(target: Path, settings: Settings, arguments: argparse.Namespace) -> int:
    from rnncc.explaining.page import page_of

    if os.environ.get("RNNCC_DUMP"):
        dump(list(all_stages(settings, arguments.dtype)))
    with working(f"explaining {settings.spec.name}"):
        text = page_of(settings.derivation, arguments.dtype)
        write_text(target, text)
    if arguments.json:
        print_json("explain", ok=True, cell=settings.spec.name, output=str(target))
    else:
        print(
            f"{target}: {settings.spec.name}, {len(text.encode()) // 1000} kB; open it in a browser"
        )
    return 0


def select(found: Iterable[Stage], wanted: str | None, *, backward: bool) -> list[Stage]:
    """All stages, or those called `wanted`: the forward's unless it has none or `backward`."""
    shown = [s for s in found if not backward or s.part == PULLBACK or s.name == wanted]
    if wanted is None:
        return shown
    named = [s for s in shown if s.name == wanted]
    for part in (WHOLE, PULLBACK) if backward else (WHOLE, FORWARD, TRAINING):
        own = [s for s in named if s.part == part]
        if own:  # `differentiate` makes two programs, and both are its result
            return named if wanted == "differentiate" and not backward else own
    return named


def changes(found: list[Stage], shown: list[Stage]) -> list[Stage]:
    """For each program shown, its text against the pass before; the first of a part in full."""
    before: dict[Stage, Stage] = {}
    for earlier, later in itertools.pairwise(found):
        if earlier.part == later.part != WHOLE and later.name != "schedule":
            before[later] = earlier
    return [
        Stage(s.part, s.name, "".join(_diff(before[s], s))) if s in before else s for s in shown
    ]


def _diff(earlier: Stage, later: Stage) -> Iterator[str]:
    old, new = (s.text.splitlines(keepends=True) for s in (earlier, later))
    lines = list(difflib.unified_diff(old, new, earlier.name, later.name, n=1))
    yield from lines or [f"no change since {earlier.name}\n"]


def dump(found: list[Stage]) -> None:
    """Every stage as a file of the folder RNNCC_DUMP, when that is set."""
    folder = os.environ.get("RNNCC_DUMP")
    if not folder:
        return
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for number, stage in enumerate(found):
        suffix = {"module": "py", "spec": "rnn"}.get(stage.name, "txt")
        words = "-".join([*stage.part.split(), stage.name])
        (target / f"{number:02}-{words}.{suffix}").write_text(stage.text, encoding="utf-8")
