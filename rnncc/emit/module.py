"""Schedules of a bound cell -> the text of one module: kernels, their tables, the cell, a class.

Deterministic: the same spec, options and rnncc give the same bytes. Vector width, threads and
tiles are not in the text; the runtime binds them.

Non-Goals: making Schedules (`driver`); writing files.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rnncc.artifact.cell import CellDescription, Variant
from rnncc.artifact.kernel_args import addresses
from rnncc.artifact.literals import literal
from rnncc.common.template_loader import render
from rnncc.common.user_text import Code, comment, documented, text_literal
from rnncc.common.version import __version__
from rnncc.emit.cpu.kernel_view import KernelWriter
from rnncc.emit.cpu.timed_kernels import TimedKernelWriter
from rnncc.emit.cuda.kernel_view import CudaKernelWriter
from rnncc.emit.shared.views import KernelView
from rnncc.emit.tables_view import direction_table
from rnncc.frontend.spec import CellSpec
from rnncc.ir.program import Program, Value
from rnncc.schedule.model import Schedule

# Who writes a target's kernels; its templates are in a folder of its name.
Writer = type[KernelWriter] | type[CudaKernelWriter]
WRITERS: dict[str, Writer] = {"cpu": KernelWriter, "cuda": CudaKernelWriter}
# Kernels that also write when they did what.
TIMED_WRITERS: dict[str, Writer] = {"cpu": TimedKernelWriter}


@dataclass(frozen=True, slots=True)
class Compiled:
    """One direction of one variant of a cell, before it is text.

    callers: what the engine calls parameters whose own names could be mistaken for others.
    """

    name: str
    schedule: Schedule
    callers: Mapping[Value, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CompiledVariant:
    """A variant of a cell; program: as it was lowered, which says what a caller sees."""

    variant: Variant
    program: Program
    directions: Sequence[Compiled]


@dataclass(frozen=True, slots=True)
class DirectionView:
    name: str
    kernels: list[KernelView]
    table: Code


def _direction(
    prefix: str,
    made: Compiled,
    source: Mapping[int, Code],
    target: str,
    one_row: bool,
    timed: bool,
) -> DirectionView:
    """one_row: its loops have twins for a row whose residuals nobody keeps."""
    name, plan = f"{prefix}{made.name}", made.schedule
    writer_of = (TIMED_WRITERS if timed else WRITERS)[target]
    writers = [writer_of(k, plan, source) for k in plan.kernels]
    views: list[Any] = [w.view() for w in writers]
    if one_row:
        for view, writer in zip(views, writers, strict=True):
            view.one_row = writer.twin()
            if isinstance(writer, KernelWriter) and writer.kernel.unroll > 1:
                view.inlined = writer.twin(inlined=True)
    for view in views:
        view.doc = _document(view, plan)
        if getattr(view, "one_row", None) is not None:
            view.one_row.doc = Code(f"`{name}_{view.name}` for one row that saves nothing.")
        if getattr(view, "inlined", None) is not None:
            view.inlined.doc = Code(f"`{name}_{view.name}_one_row`, its cores written out.")
        if getattr(view, "twin", None) is not None:
            view.twin.doc = view.doc
        if getattr(view, "summed", None) is not None:
            view.summed.doc = view.doc
        view.name = f"{name}_{view.name}"
    callers = {b: made.callers[b.value] for b in plan.buffers if b.value in made.callers}
    cores = target == "cpu"  # contractions alone go to cores there, and are told in tables
    table = direction_table(name.upper(), plan, views, callers, cores=cores)
    generated = [v for v, k in zip(views, plan.kernels, strict=True) if not (cores and k.is_plain)]
    return DirectionView(name, generated, table)


def _document(view: KernelView, made: Schedule) -> Code:
    """What the kernel runs over, and the shapes of the arrays it touches."""
    over = {
        "scan": f"Every step, {'backwards' if view.reverse else 'forwards'} in time: "
        f"{len(view.levels)} level{'s' if len(view.levels) != 1 else ''} a step{view.turns}.",
        "rows": "All rows at once, each part its share.",
        "grads": "Sums over rows and steps, each part its share of the lanes.",
        "weights": "What depends on weights alone.",
    }[view.kind]
    touched = addresses(view.arguments)
    alike: dict[str, list[str]] = {}
    for buffer in made.buffers:
        if buffer.name in touched:
            slots = ", a slot a step" if buffer.storage == "carry" else ""
            about = f"{buffer.described}  {buffer.storage}{slots}"
            alike.setdefault(about, []).append(buffer.name)
    lines = [
        line
        for about, names in alike.items()
        for line in textwrap.wrap(f"{', '.join(names):<20} {about}", 92, drop_whitespace=True)
    ]
    if not lines:
        return documented(over)
    inside = [Code(), *map(documented, lines)]
    shown = [f"    {line}" if line else "" for line in inside]
    return Code("\n".join([documented(over), *shown, "    "]))


@dataclass(frozen=True, slots=True)
class VariantView:
    literal: Code
    engine: str
    directions: list[DirectionView]

    @property
    def entry(self) -> str:
        """Its engine, by the variant, as an item of its own lines."""
        tables = ", ".join(["CELL", *(d.name.upper() for d in self.directions)])
        flat = f"{self.literal}: {self.engine}({tables})"
        if len(flat) < 96:
            return flat
        return f"{self.literal}: {self.engine}(\n        {tables},\n    )"


@dataclass(frozen=True, slots=True)
class ModuleView:
    title: Code
    version: str
    dtype: str
    size: int
    how: Code
    filename: Code
    sha: str
    spec: Code
    equations: list[Code]
    legend: list[str]
    variants: list[VariantView]
    cell: Code
    class_name: str

    @property
    def class_arguments(self) -> str:
        """What the layer's class is made of."""
        return ", ".join(["CELL", "_ENGINES", "__name__", *(["SPEC"] if self.spec else [])])

    @property
    def engines(self) -> Code:
        """The engine of each variant."""
        entries = [v.entry for v in self.variants]
        if len(entries) == 1 and "\n" not in entries[0]:
            return Code(f"{{{entries[0]}}}")
        return Code("".join(["{\n", *(f"    {entry},\n" for entry in entries), "}"]))

    def imports(self, module: str, names: str, body: str) -> Code:
        """The statement that imports what a text uses of these names; `name=word`: as that."""
        words = {*re.findall(r"\w+", body)}
        imported = [name.partition("=") for name in names.split()]
        used = [f"{name} as {word}" if word else name for name, _, word in imported]
        shown = [
            t for t, (name, _, word) in zip(used, imported, strict=True) if (word or name) in words
        ]
        lines = textwrap.wrap(", ".join(shown) + ",", 96)
        return Code("\n    ".join([f"from {module} import (", *lines]) + "\n)")


def module_text(
    spec: CellSpec,
    cell: CellDescription,
    variants: Iterable[CompiledVariant],
    *,
    target: str = "cpu",
    on_demand: bool = False,
    timed: bool = False,
) -> str:
    """The module's text: kernels of these variants, their tables, the cell, a class.

    target: a folder of templates. on_demand: the module holds the cell's text in place of the
    equations alone, and renders what it lacks when a call first asks for it. timed: kernels also
    write when they did what, on the CPU.
    """
    stem = _stem(spec)
    source = {
        n: comment(f"{line.strip()}  ({stem}:{n})")
        for n, line in enumerate(spec.text.split("\n"), 1)
        if line.strip()
    }
    views: list[VariantView] = []
    legend: list[str] = []
    for compiled in variants:
        variant = compiled.variant
        # Step after step of one row is what is called without a gradient in mind.
        alone = target == "cpu" and not (variant.training or variant.second_order or on_demand)
        directions = [
            _direction(variant.prefix, d, source, target, alone and d.name == "forward", timed)
            for d in compiled.directions
        ]
        order = "Second" if variant.second_order else ""
        engine = f"{target.capitalize()}{order}Engine"
        views.append(VariantView(Code(repr(variant)), engine, directions))
        legend = legend or _legend(compiled.program)
    first = (spec.doc.strip() or spec.name).split("\n")[0]
    title = first if first.startswith(spec.name) else f"{spec.name}: {first}"
    return render(
        f"{target}/module.py.jinja",
        m=ModuleView(
            title=documented(title),
            version=__version__,
            dtype=cell.dtype,
            size=4 if cell.dtype == "float32" else 8,
            how=documented(f"run `rnncc compile {stem}`"),
            filename=documented(stem),
            sha=spec.sha256[:16],
            spec=text_literal(spec.text) if on_demand else Code(),
            equations=[] if on_demand else list(map(documented, _equation_lines(spec))),
            legend=legend,
            variants=views,
            cell=literal(cell, 0, len("CELL = ")),
            class_name=spec.name,
        ),
    )


def _stem(spec: CellSpec) -> str:
    return str(spec.filename).replace("\\", "/").rsplit("/", 1)[-1]


def _equation_lines(spec: CellSpec) -> list[str]:
    """The equations as the user wrote them, indented: every line after the last declaration."""
    lines = spec.text.split("\n")
    start = min((e.span.line for e in spec.equations), default=1)
    wanted = lines[start - 1 : -1 if not lines[-1].strip() else None]
    return [f"    {line}".rstrip() for line in wanted]


def _legend(program: Program) -> list[str]:
    """The arrays a caller sees and their shapes."""
    rows = []
    for param in program.params:
        if param.role in ("input", "context", "state", "restart", "weight", "constant"):
            dims = ", ".join([*param.value.type.axes, *map(str, param.value.type.shape)])
            rows.append(f"{param.value.name:<18} [{dims}]  {param.role}")
    return rows
