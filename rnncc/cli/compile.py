"""`rnncc compile`: one module file from a cell, and a summary of what is in it.

The file appears whole or not at all, and a file that rnncc didn't write is left alone, as is one
that was changed since: the last line of a file seals all lines before it.
"""

from __future__ import annotations

import argparse
import hashlib
import keyword
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rnncc.artifact.cell import plain_variants
from rnncc.cli.cells import parameter_count
from rnncc.cli.report import print_json
from rnncc.cli.settings import Settings, UsageError, find_cell, load
from rnncc.common.progress import working
from rnncc.files.writing import write_whole
from rnncc.runtime.jit.module_grammar import check_module
from rnncc.schedule.model import GradStage, LaneStage, Schedule

SEAL = "# Written by rnncc compile: sha256 "  # of all that stands before it
LARGEST = 1 << 28  # bytes of a file that is looked at
WRITTEN = (
    "plain; others (masked, drawn ...) are rendered from the module's text when a call needs them",
    "all that a call can need: nothing is rendered later",
)
_CHOSEN = {"cpu": "vectors, threads and tiles", "cuda": "tiers, blocks and threads"}


def run(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    target = output_path(arguments.file, arguments.output)
    refuse_overwriting(target, force=arguments.force)
    settings = load(arguments.file, arguments.settings)
    every = arguments.variants == "all"
    text = settings.derivation.module(
        arguments.dtype,
        ()
        if every
        else plain_variants(second_order=arguments.second_order, unroll=settings.derivation.unroll),
        second_order=arguments.second_order,
        target=arguments.target,
        on_demand=not every,
    )
    with working(f"writing {target}"):
        write_text(target, sealed(check_module(text)))
    seconds = time.perf_counter() - started
    if arguments.json:
        interface = settings.derivation.interface
        print_json(
            "compile",
            ok=True,
            cell=settings.spec.name,
            output=str(target),
            lines=len(text.splitlines()),
            seconds=seconds,
            target=arguments.target,
            dtype=arguments.dtype,
            variants=arguments.variants,
            bound={**settings.options, **settings.functions, **settings.sizes},
            equations=len(settings.spec.equations),
            parameters=str(parameter_count(interface)),
            weights={n: [*map(str, s)] for n, (s, _) in interface.weights.items()},
            states={n: [*map(str, s)] for n, s in interface.states.items()},
        )
        return 0
    made_for = f"{arguments.target}, {arguments.dtype}"
    summarise(settings, made_for, WRITTEN[every], target, len(text.splitlines()), seconds)
    return 0


def output_path(file: str, output: str | None) -> Path:
    """OUT.py, or FILE's name in the current folder; UsageError when it can't be imported."""
    path = file_path(output or find_cell(file).stem + ".py", ".py", "a module's file")
    if not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        raise UsageError(f"{path}: {path.stem} is not a name that can be imported")
    return path


def file_path(output: str, suffix: str, what: str) -> Path:
    """A file to be written; UsageError where none can be."""
    path = Path(output)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name the file to write")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file")
    if path.is_symlink() and _leads_to_itself(path):
        raise UsageError(f"{path} is a link that leads to itself")
    if path.suffix != suffix:
        raise UsageError(f"{path}: {what} ends in {suffix}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    return path


def _leads_to_itself(link: Path) -> bool:
    try:
        link.resolve(strict=True)
    except FileNotFoundError:
        return False
    except (OSError, RuntimeError):  # RuntimeError: Python 3.12 and before
        return True
    return False


def refuse_overwriting(path: Path, *, force: bool) -> None:
    if force or not path.exists():
        return
    why = _not_ours(path)
    if why:
        raise UsageError(f"{path} {why}: --force overwrites it")


def sealed(text: str) -> str:
    """The text, and a last line by which it is known again."""
    return f"{text}\n{SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n"


def _not_ours(path: Path) -> str:
    """Why the file can't be overwritten; "" for one as it was written."""
    other = "was not written by rnncc"
    if path.stat().st_size > LARGEST:
        return other
    # Line ends are whatever a tool that keeps files makes of them.
    text = path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
    body, seal, _ = text.rpartition(f"\n{SEAL}")
    if not seal:
        return other
    return "" if sealed(body) == text else "was changed since rnncc wrote it"


def write_text(path: Path, text: str) -> None:
    """Readers see the old file or the new one. OSError as the system says."""
    write_whole(path, lambda file: file.write(text.encode("utf-8")))


# ---- the summary -----------------------------------------------------------------------------


def summarise(
    settings: Settings, made_for: str, variants: str, target: Path, lines: int, seconds: float
) -> None:
    spec = settings.spec
    programs = settings.derivation.plain
    ahead, back = programs.training.schedule, programs.pullback.schedule
    interface = settings.derivation.interface
    saved = [r for r in programs.training.program.results if r.role.kind == "residual"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    rows = {
        "cell": f"{spec.name}: {_count(len(spec.equations), 'equation')}",
        "bound": _listed({**settings.options, **settings.functions, **settings.sizes}),
        "weights": ", ".join(f"{n}[{_dims(s)}]" for n, (s, _) in interface.weights.items())
        or "none",
        "parameters": str(parameter_count(interface)),
        "states": ", ".join(f"{n}[{_dims(s)}]" for n, s in interface.states.items()) or "none",
        "contractions": f"forward {_contractions(ahead)}; backward {_contractions(back)}",
        "saved": ", ".join(f"{r.name.split('.')[0]}{_axes(r.value.type.shape)}" for r in saved)
        or "nothing",
        "kernels": f"forward {_kernels(ahead)}; backward {_kernels(back)}",
        "variants": variants,
        "for": f"{made_for}: {_CHOSEN[made_for.split(',')[0]]} are chosen where it runs",
        "wrote": f"{target} ({lines} lines) in {seconds:.2f} s",
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=100)
    console.print(table, markup=False)


def _listed(bound: dict[str, object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in bound.items())


def _dims(shape: tuple[object, ...]) -> str:
    return ", ".join(map(str, shape))


def _axes(shape: tuple[object, ...]) -> str:
    return f"[T, B{''.join(f', {s}' for s in shape)}]"


def _contractions(made: Schedule) -> str:
    """Inside the loop and outside it; those of one kernel that share their operands are one."""
    inside: set[tuple[object, ...]] = set()
    outside: set[tuple[object, ...]] = set()
    for kernel in made.kernels:
        counted = inside if kernel.kind == "scan" else outside
        for stage in (s for level in kernel.levels for s in level.stages):
            if isinstance(stage, LaneStage):
                for group in stage.groups:
                    read = (g.a for acc in group.accs for g in acc.segments)
                    counted.add((kernel.name, frozenset((a.buffer, a.slot) for a in read)))
            elif isinstance(stage, GradStage) and stage.a is not None:
                counted.add((kernel.name, stage.a.buffer))
    return f"{len(inside)} in the loop, {len(outside)} outside"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _kernels(made: Schedule) -> str:
    scans = [k for k in made.kernels if k.kind == "scan"]
    levels = sum(len(k.levels) for k in scans)
    others = len(made.kernels) - len(scans)
    return f"{_count(levels, 'level')} a step, {_count(others, 'kernel')} around the loop"
