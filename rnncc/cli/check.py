"""`rnncc check`: a cell's kernels against its meaning.

Values and gradients of the kernels are held against the NumPy float64 interpreter's: error means
max|a - b| / max(1, max|b|). Gradients in float64 are also held against central differences along
random directions, which know nothing of how rnncc differentiates: |a - b| / max(1e-3, |b|).

All of it once more in float64 with some steps masked.

Non-Goals: dropout, other options than --set gives: the tests' business.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rnncc import oracle
from rnncc.artifact.cell import CellDescription
from rnncc.cli.probe import probe_sizes
from rnncc.cli.report import print_json
from rnncc.cli.settings import Settings, UsageError, load
from rnncc.common.progress import working
from rnncc.common.result_roles import final_name
from rnncc.compiler import layer_class
from rnncc.frontend.spec import Call, CellSpec, Name, walk
from rnncc.lowering.cell_interface import CellInterface, examined
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.common.learning import NeverLearns, sentences

BATCH, TIME = 5, 7
MOST_NUMBERS = 2**24
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
GRADIENT_TOLERANCE = {"float32": 1e-4, "float64": 1e-11}  # sums over rows and steps
SLOPE_TOLERANCE = 1e-6
DIRECTIONS = 3
STEP = 1e-4
# Right padding, left padding, a row without a valid step, holes, and a whole row.
MASK = np.array(
    [[c == "1" for c in row] for row in ("1111000", "0011111", "0000000", "0101101", "1111111")]
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what was compared, over which array, and how far apart."""

    what: str
    array: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.error <= self.limit  # NaN fails


def run(arguments: argparse.Namespace) -> int:
    settings = load(arguments.file, arguments.settings)
    sizes = probe_sizes(settings)
    bound(settings, sizes)
    cell = settings.derivation.cell()
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    findings = []
    name = settings.spec.name
    with working(f"checking {name}") as line, warnings.catch_warnings():
        warnings.simplefilter("ignore", NeverLearns)  # said below
        for finding in check_cell(settings, sizes, arguments.target):
            findings.append(finding)
            line.say(f"checking {name}: {finding.what}, {finding.array} is done")
    failed = sum(not f.passed for f in findings)
    notes = [*_notes(settings.spec, cell)]
    if arguments.json:
        _print_json(settings.spec, sizes, findings, notes)
        return int(failed > 0)
    console.print(_table(settings.spec, sizes, findings))
    for note in notes:
        console.print(note, markup=False)
    console.print(f"{failed} of {len(findings)} FAILED" if failed else "all right")
    return int(failed > 0)


def _notes(spec: CellSpec, cell: CellDescription) -> Iterator[str]:
    """What a reader of the findings has to know."""
    if stops_gradients(spec):
        yield "no slopes: with stop_gradient or surrogate, gradients are meant to differ from them"
    for _, sentence in sentences(cell):
        yield sentence
    others = sum(1 for _ in examined(spec)) - 1
    if others:
        many = "1 other choice" if others == 1 else f"{others} other choices"
        yield f"no mistakes under {many} of options; --set checks one."


def _print_json(
    spec: CellSpec, sizes: Mapping[str, int], findings: list[Finding], notes: list[str]
) -> None:
    print_json(
        "check",
        ok=all(f.passed for f in findings),
        cell=spec.name,
        batch=BATCH,
        time=TIME,
        sizes=dict(sizes),
        findings=[
            {
                "what": f.what,
                "array": f.array,
                "error": f.error,
                "limit": f.limit,
                "passed": f.passed,
            }
            for f in findings
        ],
        notes=notes,
    )


def bound(settings: Settings, sizes: Mapping[str, int]) -> None:
    """UsageError where arrays of these sizes would be large: every one is held several times."""
    program = settings.derivation.plain.lowered
    values = [p.value for p in program.params] + [op.result for op in program.ops()]
    count = 0
    for value in values:
        lead = BATCH * TIME if value.type.axes else 1
        count += lead * math.prod(size.evaluate(sizes) for size in value.type.shape)
    if count > MOST_NUMBERS:
        listed = ", ".join(f"{n}={v}" for n, v in sizes.items())
        raise UsageError(
            f"{settings.spec.name} with {listed} has more than the {MOST_NUMBERS:,} numbers that "
            "check tries: give smaller sizes with --set"
        )


def check_cell(
    settings: Settings, sizes: Mapping[str, int], target: str = "cpu"
) -> Iterator[Finding]:
    """Every comparison, in order: errors of float32 and float64, then gradients."""
    for dtype in TOLERANCE:
        probe = Probe(settings, sizes, dtype, target=target)
        yield from probe.values()
        yield from probe.gradients()
    last = Probe(settings, sizes, "float64", sequences=False, target=target)
    yield from last.values()
    yield from last.gradients()
    masked = Probe(settings, sizes, "float64", masked=True, target=target)
    yield from masked.values()
    yield from masked.gradients()
    if not stops_gradients(settings.spec):
        yield from probe.slopes()
        yield from masked.slopes()


def stops_gradients(spec: CellSpec) -> bool:
    """Whether the cell's own text calls stop_gradient or surrogate."""
    own = ("stop_gradient", "surrogate")
    roots = [*(e.value for e in spec.equations), *(f.default for f in spec.functions)]
    return any(
        (isinstance(node, Call) and node.function in own)
        or (isinstance(node, Name) and node.name in own)
        for root in roots
        for node in walk(root)
    )


class Probe:
    """A layer and arguments for it, drawn once."""

    def __init__(
        self,
        settings: Settings,
        sizes: Mapping[str, int],
        dtype: str,
        *,
        sequences: bool = True,
        masked: bool = False,
        target: str = "cpu",
    ) -> None:
        spec = settings.spec
        self.dtype, self.sizes = dtype, dict(sizes)
        self.label = (dtype if sequences else f"{dtype} last step,") + " masked" * masked
        self.rng = np.random.default_rng(12345)
        self.call: dict[str, Any] = {"mask": MASK} if masked else {}
        free = _free(settings.derivation.interface)
        own = {n: v for n, v in sizes.items() if n in settings.sizes or n in free}
        keywords: dict[str, Any] = {**own, **settings.options, **settings.functions}
        keywords |= {"return_sequences": sequences, "return_state": True, "seed": 7}
        self.layer = layer_class(spec, target, dtype)(**keywords)
        self.oracle = oracle.layer_class(spec)(**keywords)
        self.cell = self.layer.cell
        self.program = settings.derivation.plain.lowered
        params = self.program.params
        self.inputs = {
            p.value.name: self._draw(p) for p in params if p.role in ("input", "context")
        }
        self.states = {p.value.name: self._draw(p) for p in params if p.role == "state"}
        shown = self.results(self.inputs, self.states)  # builds the weights
        self.dy = {name: self.rng.standard_normal(a.shape) for name, a in shown.items()}
        self.oracle(self._arranged(self.inputs))
        self.oracle.set_weights(self.layer.get_weights())
        self.finals = [final_name(s.name) for s in self.cell.states]
        self.outputs = [o.name for o in self.cell.outputs]

    def _draw(self, param: Any) -> np.ndarray:
        type_ = param.value.type
        shape = [{"B": BATCH, "T": TIME}[a] for a in type_.axes]
        shape += [s.evaluate(self.sizes) for s in type_.shape]
        drawn = self.rng.uniform(0.1, 0.9, shape)  # positive: some states are sums of squares
        if param.role != "state":
            drawn = drawn * self.rng.choice([-1.0, 1.0], shape)
        return drawn.astype(self.dtype)

    def results(
        self, inputs: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The layer's results by the names of the Program's."""
        begun = dict(states) or None
        return self._named(self.layer(self._arranged(inputs), initial_state=begun, **self.call))

    def _arranged(self, inputs: Mapping[str, np.ndarray]) -> Any:
        arrays = [inputs[name] for name in self.cell.arguments]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    def _named(self, found: Any) -> dict[str, np.ndarray]:
        outputs = [o.name for o in self.cell.outputs]
        finals = [final_name(s.name) for s in self.cell.states]
        parts = found if isinstance(found, tuple) and finals else (found,)
        first = parts[0] if len(outputs) > 1 else (parts[0],)
        return dict(zip([*outputs, *finals], [*first, *parts[1:]], strict=True))

    # ---- values ----

    def values(self) -> Iterator[Finding]:
        begun = dict(self.states) or None
        right = self._named(
            self.oracle(self._arranged(self.inputs), initial_state=begun, **self.call)
        )
        for name, array in self.results(self.inputs, self.states).items():
            limit = TOLERANCE[self.dtype]
            yield Finding(f"{self.label} values", name, _error(array, right[name]), limit)

    # ---- gradients ----

    def gradients(self) -> Iterator[Finding]:
        """The pullback's, against the interpreter's."""
        right = self._gradients(self.oracle)
        for name, gradient in self._gradients(self.layer).items():
            limit = GRADIENT_TOLERANCE[self.dtype]
            yield Finding(f"{self.label} gradients", name, _error(gradient, right[name]), limit)

    def slopes(self) -> Iterator[Finding]:
        """The pullback's gradients, against differences of the layer's values."""
        for name, gradient in self._gradients(self.layer).items():
            error = max(self._slope_error(name, gradient) for _ in range(DIRECTIONS))
            yield Finding(f"{self.label} slopes", name, error, SLOPE_TOLERANCE)

    def _gradients(self, layer: Layer) -> dict[str, np.ndarray]:
        """By the names of inputs, states and weights."""
        begun = dict(self.states) or None
        _, pullback = layer.vjp(
            self._arranged(self.inputs), initial_state=begun, training=False, **self.call
        )
        grads = pullback(self._cotangents(self.dy))
        inputs = grads.inputs if isinstance(grads.inputs, tuple) else (grads.inputs,)
        input_grads = dict(zip(self.cell.arguments, inputs, strict=True))
        return {**input_grads, **(grads.initial_state if self.states else {}), **grads.weights}

    def _cotangents(self, dy: Mapping[str, np.ndarray]) -> Any:
        outputs = tuple(dy[n] for n in self.outputs)
        first = outputs if len(outputs) > 1 else outputs[0]
        return (first, *(dy[n] for n in self.finals))

    def _slope_error(self, name: str, gradient: np.ndarray) -> float:
        """Along one random direction; past a kink another one is tried."""
        error = float("inf")
        for _ in range(3):
            direction = self.rng.standard_normal(gradient.shape)
            direction /= max(1.0, float(np.linalg.norm(direction)))
            claimed = float((gradient * direction).sum())
            # Richardson: what two steps agree on, so that the step's own error is left out.
            wide, narrow = (self._slope(name, direction, h) for h in (STEP, STEP / 2))
            slope = (4 * narrow - wide) / 3
            error = min(error, abs(claimed - slope) / max(1e-3, abs(slope)))
            if error <= SLOPE_TOLERANCE:
                break
        return error

    def _slope(self, name: str, direction: np.ndarray, step: float) -> float:
        up, down = (self._moved(name, direction * sign) for sign in (step, -step))
        return (up - down) / (2 * step)

    def _moved(self, name: str, change: np.ndarray) -> float:
        """sum(dy * y) with one array moved."""
        inputs, states = dict(self.inputs), dict(self.states)
        weights = self.layer.weights
        if name in inputs:
            inputs[name] = inputs[name] + change
        elif name in states:
            states[name] = states[name] + change
        else:
            before = weights[name].copy()
            weights[name] = before + change
        results = self.results(inputs, states)
        if name in weights:
            weights[name] = before
        return float(sum((self.dy[n] * a).sum() for n, a in results.items()))


def _error(found: np.ndarray, right: np.ndarray) -> float:
    scale = max(1.0, float(np.abs(right).max(initial=0)))
    return float(np.abs(found - right).max(initial=0)) / scale


def _free(interface: CellInterface) -> set[str]:
    """Sizes a layer is given: those no input's shape shows and no default fills."""
    shapes = [*interface.inputs.values(), *interface.contexts.values()]
    shown = {str(size) for shape in shapes for size in shape}
    return {d.name for d in interface.spec.sizes if d.default is None and d.name not in shown}


def _table(spec: CellSpec, sizes: Mapping[str, int], findings: list[Finding]) -> Table:
    bound = ", ".join(f"{n} {v}" for n, v in sizes.items())
    title = f"{spec.name}: batch {BATCH}, time {TIME}, {bound}"
    table = Table(title=title, title_justify="left")
    for heading in ("what", "array"):
        table.add_column(heading)
    for heading in ("error", "limit", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for f in findings:
        if last not in ("", f.what):
            table.add_section()
        verdict = "[green]pass[/]" if f.passed else "[red]FAIL[/]"
        table.add_row(
            "" if f.what == last else f.what, f.array, f"{f.error:.1e}", f"{f.limit:.0e}", verdict
        )
        last = f.what
    return table
