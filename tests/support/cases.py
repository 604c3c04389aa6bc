"""Every cell with sizes, arguments and cotangents to try it on, and slopes to hold gradients to.

Non-Goals: asserting anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from rnncc.artifact.cell import Variant
from rnncc.common.result_roles import gradient_name
from rnncc.driver import DIFFERENTIABLE, Derivation
from rnncc.frontend.elaborate import sizes_of
from rnncc.frontend.parse import parse_file
from rnncc.frontend.spec import CellSpec
from rnncc.ir.interp import interpret
from rnncc.ir.program import Param, Program, Value
from rnncc.ir.rewrite import remap_program
from rnncc.ir.verify import verify
from rnncc.lowering.cell_interface import CellInterface
from rnncc.lowering.lower import lower
from tests.support.paths import ROOT

FILES = {
    path.stem: path
    for path in sorted([*ROOT.glob("rnncc/cells/*.rnn"), *ROOT.glob("tests/cells/*.rnn")])
}
NAMES = list(FILES)
# Gradients that are meant to differ from the slope.
NO_SLOPE = {
    "stopped_gradient": "a straight-through spike: flat forward, a sigmoid backward",
    "spiking": "surrogates: steps forward, slopes of their own backward",
}
SLOPED = [name for name in NAMES if name not in NO_SLOPE]
# States that their cells never let go negative.
POSITIVE = ("n", "energy", "power")

Arrays = dict[str, np.ndarray]


@cache
def spec_of(name: str) -> CellSpec:
    return parse_file(FILES[name])


def lowered(name: str, variant: str = "plain") -> Program:
    """The cell as it is, with a "mask", or "drawn": training, with every rate above zero."""
    spec = spec_of(name)
    drawn = variant == "drawn"
    rates = frozenset(r.name for r in spec.rates) if drawn else frozenset()
    return lower(spec, mask=variant == "mask", training=drawn, active_rates=rates)


def render_module(
    spec: CellSpec,
    options: Mapping[str, object] | None = None,
    functions: Mapping[str, object] | None = None,
    dtype: str = "float32",
    variants: Sequence[Variant] = (),
    *,
    second_order: bool = False,
    target: str = "cpu",
    on_demand: bool = False,
) -> str:
    """`Derivation.module` of a cell that nothing else is asked about."""
    return Derivation(spec, options or {}, functions or {}).module(
        dtype, variants, second_order=second_order, target=target, on_demand=on_demand
    )


@cache
def module_text(name: str, target: str = "cpu") -> str:
    """The cell's generated module, in single precision."""
    return render_module(spec_of(name), target=target)


def variants(names: Iterable[str]) -> list[tuple[str, str]]:
    """Each cell under every variant that differs."""
    drawn = [(n, "drawn") for n in names if spec_of(n).rates]
    return [(n, v) for n in names for v in ("plain", "mask")] + drawn


# ---- sizes -----------------------------------------------------------------------------------


def sizes_for(spec: CellSpec, units: int = 5, features: int = 3) -> dict[str, int]:
    """Every size of the cell. Defaults stay where they fit, else they are 2 or 1."""
    declared = sizes_of(spec)
    odd = {"rows": 2, "columns": 3, "places": 4, "unit_2": 1 + units // 2, "head_size": units}
    for most in (10**6, 2, 1):
        sizes: dict[str, int] = {}
        for name, default in declared.items():
            if default is None or (name == "head_size" and default.is_constant):
                like = "unit" in name or name in odd
                sizes[name] = odd.get(name, units if like else features)
            elif default.is_constant:
                sizes[name] = min(default.constant, most)
            else:
                sizes[name] = max(1, default.evaluate(sizes))
        if fits(spec, sizes):
            return sizes
    raise AssertionError(f"no sizes for {spec.name}")


def fits(spec: CellSpec, sizes: Mapping[str, int]) -> bool:
    interface = CellInterface(spec)
    shapes = [*interface.states.values(), *(s for s, _ in interface.weights.values())]
    return all(size.evaluate(sizes) >= 1 for shape in shapes for size in shape) and all(
        c.left.evaluate(sizes) == c.right.evaluate(sizes) for c in interface.constraints
    )


# ---- arguments -------------------------------------------------------------------------------


def draw(rng: np.random.Generator, shape: Sequence[int], positive: bool = False) -> np.ndarray:
    """Numbers between 0.1 and 0.9, of either sign: away from the kinks that are at 0."""
    size = rng.uniform(0.1, 0.9, shape)
    return size if positive else size * rng.choice([-1.0, 1.0], shape)


@dataclass
class Case:
    """A Program with arguments, by the names of its parameters."""

    program: Program
    sizes: Mapping[str, int]
    batch: int = 2
    time: int = 5
    seed: int = 0
    arguments: Arrays = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        for p in self.program.params:
            self.arguments.setdefault(p.value.name, self._argument(p, rng))

    def _argument(self, param: Param, rng: np.random.Generator) -> np.ndarray:
        shape = self.shape(param.value)
        if param.role == "rate":
            return np.array(0.3)
        if param.role == "seed":
            return np.array(self.seed + 7)
        if param.role == "valid":  # one row whole, the rest with holes and padding
            if param.value.name == "_shown":
                return np.logical_or.accumulate(self.arguments["valid"], axis=1)
            valid = rng.random(shape) < 0.6
            valid[0] = True
            return valid
        return draw(rng, shape, param.role == "state" and param.value.name in POSITIVE)

    def shape(self, value: Value) -> list[int]:
        lead = [{"B": self.batch, "T": self.time}[a] for a in value.type.axes]
        return lead + [s.evaluate(self.sizes) for s in value.type.shape]

    @property
    def wrt(self) -> list[str]:
        return [p.value.name for p in self.program.params if p.role in DIFFERENTIABLE]

    def run(self, program: Program | None = None, **changed: np.ndarray) -> Arrays:
        arguments = {**self.arguments, **changed}
        return interpret(program or self.program, arguments, self.sizes, self.batch, self.time)

    def cotangents(self) -> Arrays:
        """One for every result that isn't a residual, by the result's name."""
        rng = np.random.default_rng(self.seed + 1)
        results = [r for r in self.program.results if r.role.kind != "residual"]
        return {r.name: draw(rng, self.shape(r.value)) for r in results}

    def residuals(self, forward: Program) -> list[np.ndarray]:
        """In the order in which the pullback takes them."""
        found = self.run(forward)
        return [found[r.name] for r in forward.results if r.role.kind == "residual"]

    def pull(
        self, forward: Program, pullback: Program, cotangents: Mapping[str, np.ndarray]
    ) -> Arrays:
        """Gradients, by the names of the parameters."""
        saved = iter(self.residuals(forward))
        brought = {gradient_name(result): d for result, d in cotangents.items()}
        given = {}
        own = {p.value for p in forward.params}  # a pullback's own residuals are no new ones
        shared = [p.value in own for p in pullback.params]
        pullback, roles = distinct(pullback)
        for (new, (name, role)), is_argument in zip(roles.items(), shared, strict=True):
            if role == "residual" and not is_argument:
                given[new] = next(saved)
            elif role == "cotangent":
                given[new] = brought[name]
            else:
                given[new] = self.arguments[name]
        found = interpret(pullback, given, self.sizes, self.batch, self.time)
        return {r.role.of: found[r.name] for r in pullback.results}


def distinct(program: Program) -> tuple[Program, dict[str, tuple[str, str]]]:
    """The program under parameter names that are all different: the interpreter goes by name.

    Also the new names, in order, with the old name and the role of each.
    """
    params = tuple(
        replace(p, value=Value(f"{p.value.name}__{i}", p.value.type))
        for i, p in enumerate(program.params)
    )
    pairs = list(zip(program.params, params, strict=True))
    renamed = remap_program(program, {old.value: new.value for old, new in pairs})
    roles = {new.value.name: (old.value.name, old.role) for old, new in pairs}
    return verify(replace(renamed, params=params)), roles


# ---- errors ----------------------------------------------------------------------------------


def error(found: np.ndarray, right: np.ndarray) -> float:
    """max |a - b| / max(1, max |b|); infinite where either isn't finite."""
    assert found.shape == right.shape, (found.shape, right.shape)
    found, right = found.astype(np.float64), right.astype(np.float64)
    if not (np.isfinite(found).all() and np.isfinite(right).all()):
        return np.inf
    scale = max(1.0, float(np.abs(right).max(initial=0)))
    return float(np.abs(found - right).max(initial=0)) / scale


def worst(found: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> tuple[float, str]:
    """The largest error, and whose it is."""
    assert found.keys() == right.keys()
    return max((error(found[name], right[name]), name) for name in right)


def slope_errors(
    value: Callable[[np.ndarray], float],
    at: np.ndarray,
    gradient: np.ndarray,
    rng: np.random.Generator,
    directions: int = 3,
    step: float = 1e-4,
) -> Iterable[float]:
    """|gradient . d - slope along d| / max(|slope|, 1e-3), for random directions d."""
    for _ in range(directions):
        direction = rng.standard_normal(at.shape)
        direction /= max(1.0, float(np.linalg.norm(direction)))

        def central(h: float, d: np.ndarray = direction) -> float:
            return (value(at + h * d) - value(at - h * d)) / (2 * h)

        # Richardson: what two steps agree on, so that the step's own error is left out.
        slope = (4 * central(step / 2) - central(step)) / 3
        claimed = float((gradient * direction).sum())
        yield abs(claimed - slope) / max(abs(slope), 1e-3)


def total(results: Mapping[str, np.ndarray], cotangents: Mapping[str, np.ndarray]) -> float:
    return float(sum((results[name] * d).sum() for name, d in cotangents.items()))
