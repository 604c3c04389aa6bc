"""A bound spec -> the text of one module: kernels, their tables, the cell, a Layer class.

Deterministic: the same spec, options and rnncc give the same bytes. Vector width, threads and
tiles are not in the text; the runtime binds them.

Non-Goals: writing files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rnncc import __version__
from rnncc.emit.describe import describe
from rnncc.emit.kernel_view import KernelWriter
from rnncc.emit.loader import render
from rnncc.emit.tables_view import direction_table, literal
from rnncc.emit.views import KernelView
from rnncc.frontend.spec import CellSpec
from rnncc.ir.program import Program
from rnncc.passes.lower import lower
from rnncc.passes.pipeline import gradient, optimise
from rnncc.schedule.build import schedule
from rnncc.schedule.description import Variant, variants_of
from rnncc.schedule.model import Buffer, Schedule

DIFFERENTIABLE = ("input", "context", "state", "held", "weight")


@dataclass(frozen=True, slots=True)
class Compiled:
    """Both directions of one variant of a cell, before they are text."""

    program: Program
    forward: Schedule
    backward: Schedule
    residual_names: dict[str, str]  # the pullback's parameter buffer -> the forward's result


def compile_program(program: Program) -> Compiled:
    """Differentiate, optimise and schedule a lowered program."""
    wrt = [p.value.name for p in program.params if p.role in DIFFERENTIABLE]
    forward, pullback = gradient(program, wrt)
    ahead, back = schedule(optimise(forward)), schedule(optimise(pullback))
    saved = [r.name for r in forward.results if r.role == "residual"]
    params = [p.value for p in pullback.params if p.role == "residual"]
    buffers = {b.value: b.name for b in back.buffers if b.storage == "param"}
    names = {buffers[v]: n for v, n in zip(params, saved, strict=True) if v in buffers}
    return Compiled(program, ahead, back, names)


@dataclass(frozen=True, slots=True)
class DirectionView:
    name: str
    kernels: list[KernelView]
    table: str


def _direction(
    name: str, made: Schedule, source: Mapping[int, str], names: dict[str, str]
) -> DirectionView:
    views = [KernelWriter(k, made, source).view() for k in made.kernels]
    for view in views:
        view.doc = _document(view, made)
        view.name = f"{name}_{view.name}"
    callers: dict[Buffer, str] = {b: names[b.name] for b in made.buffers if b.name in names}
    table = direction_table(name.upper(), made, views, callers)
    generated = [v for v, k in zip(views, made.kernels, strict=True) if not k.is_plain]
    return DirectionView(name, generated, table)


def _document(view: KernelView, made: Schedule) -> list[str]:
    """What the kernel runs over, and the shapes of the arrays it touches."""
    over = {
        "scan": f"Every step, {'backwards' if view.reverse else 'forwards'} in time: "
        f"{len(view.levels)} level{'s' if len(view.levels) > 1 else ''} a step.",
        "rows": "All rows at once, each part its share.",
        "grads": "Sums over rows and steps, each part its share of the lanes.",
        "weights": "What depends on weights alone.",
    }[view.kind]
    touched = {r[1] for r in view.requests if r[0] == "address"}
    lines = [over, ""]
    for buffer in made.buffers:
        if buffer.name in touched:
            dims = ", ".join([*buffer.axes, *map(str, buffer.shape)])
            slots = ", a slot a step" if buffer.storage == "carry" else ""
            lines.append(f"{buffer.name:<20} [{dims}]  {buffer.storage}{slots}")
    return [*lines, ""] if len(lines) > 2 else [over]


@dataclass(frozen=True, slots=True)
class VariantView:
    literal: str
    directions: list[DirectionView]


@dataclass(frozen=True, slots=True)
class ModuleView:
    title: str
    version: str
    dtype: str
    size: int
    how: str
    filename: str
    sha: str
    equations: list[str]
    legend: list[str]
    variants: list[VariantView]
    cell: str
    class_name: str


def render_module(
    spec: CellSpec,
    options: Mapping[str, object] | None = None,
    functions: Mapping[str, object] | None = None,
    dtype: str = "float32",
    variants: Sequence[Variant] = (),
) -> str:
    """The module's text, with kernels for these variants, else for all that a layer may ask for."""
    cell = describe(spec, options or {}, functions or {}, dtype)
    source = {
        n: f"{line.strip()}  ({_stem(spec)}:{n})"
        for n, line in enumerate(spec.text.splitlines(), 1)
        if line.strip()
    }
    views: list[VariantView] = []
    legend: list[str] = []
    for variant in variants or variants_of(cell):
        program = lower(
            spec,
            options or {},
            functions or {},
            mask=variant.mask,
            training=variant.training,
            active_rates=variant.active_rates,
        )
        made = compile_program(program)
        directions = [
            _direction(f"{variant.prefix}forward", made.forward, source, {}),
            _direction(f"{variant.prefix}backward", made.backward, source, made.residual_names),
        ]
        views.append(VariantView(repr(variant), directions))
        legend = legend or _legend(made.forward)
    first = (spec.doc or spec.name).strip().splitlines()[0]
    return render(
        "cpu/module.py.jinja",
        m=ModuleView(
            title=first if first.startswith(spec.name) else f"{spec.name}: {first}",
            version=__version__,
            dtype=dtype,
            size=4 if dtype == "float32" else 8,
            how=f"run `rnncc compile {_stem(spec)}`",
            filename=_stem(spec),
            sha=spec.sha256[:16],
            equations=[line.rstrip() for line in _equation_lines(spec)],
            legend=legend,
            variants=views,
            cell=literal(cell),
            class_name=spec.name,
        ),
    )


def _stem(spec: CellSpec) -> str:
    return str(spec.filename).replace("\\", "/").rsplit("/", 1)[-1]


def _equation_lines(spec: CellSpec) -> list[str]:
    """The equations as the user wrote them: every line after the last declaration."""
    lines = spec.text.splitlines()
    start = min((e.span.line for e in spec.equations), default=1)
    return lines[start - 1 :]


def _legend(made: Schedule) -> list[str]:
    """The arrays a caller sees and their shapes."""
    rows = []
    for param in made.program.params:
        if param.role in ("input", "context", "state", "weight", "constant"):
            dims = ", ".join([*param.value.type.axes, *map(str, param.value.type.shape)])
            rows.append(f"{param.value.name:<18} [{dims}]  {param.role}")
    return rows
