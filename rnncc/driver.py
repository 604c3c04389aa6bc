"""From a cell to the text of its module: the one place that knows the sequence of the steps.

    spec, options, functions -> description
                             -> Program -> training forward, pullback -> passes -> Schedule -> text

A `Derivation` is of a cell with options and functions bound, `Programs` are of one variant of it,
`Optimised` is one Program on its way. A step is taken when it is first asked for, and once.

Whoever finds kernels in the cache asks for a description alone: so what differentiates, schedules
and writes is imported by the steps that need it.

Non-Goals: reading and checking text (`lowering.cell_interface`); engines and classes of layers
(`compiler`); anything that a step itself does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

from rnncc.artifact.cell import CellDescription, Variant, variants_of
from rnncc.common.progress import working
from rnncc.common.result_roles import cotangent_name
from rnncc.common.unrolling import unroll_of
from rnncc.frontend.elaborate import bind_options
from rnncc.frontend.spec import CellSpec
from rnncc.ir.program import Program
from rnncc.lowering.cell_interface import CellInterface
from rnncc.lowering.describe import description_of
from rnncc.lowering.lower import lower

if TYPE_CHECKING:
    from rnncc.emit.module import Compiled, CompiledVariant
    from rnncc.passes.second import SecondOrder
    from rnncc.schedule.model import Schedule

DIFFERENTIABLE = ("input", "context", "state", "restart", "held", "weight")  # roles of parameters


@dataclass(frozen=True, eq=False)
class Derivation:
    """A checked cell with options and functions bound, and what is derived from it."""

    spec: CellSpec
    options: Mapping[str, object] = field(default_factory=dict)
    functions: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: CellSpec, cell: CellDescription) -> Derivation:
        """With the options and functions that a description of the cell tells."""
        return cls(spec, dict(cell.options), dict(cell.functions))

    @cached_property
    def interface(self) -> CellInterface:
        """Shapes, rates and constraints; raises as `CellInterface` does."""
        return CellInterface(self.spec, self.options, self.functions)

    def cell(self, dtype: str = "float32") -> CellDescription:
        """The cell as its layers see it; raises as `describe` does."""
        return description_of(self.interface, dtype)

    @cached_property
    def plain(self) -> Programs:
        """Nothing is masked or drawn. SpecError: mistakes that the options and functions show."""
        return self._lowered(Variant(unroll=self.unroll))

    @property
    def unroll(self) -> int:
        """What a layer asks for that doesn't say (`common.unrolling`)."""
        asked = bind_options(self.spec, self.options).get("unroll", False)
        assert isinstance(asked, int), asked  # checked where it was read
        return unroll_of(asked)

    def programs(self, variant: Variant) -> Programs:
        """One variant's; they are kept for the plain cell alone, which more than one step reads."""
        same = replace(variant, second_order=False, storage="")
        return self.plain if same == Variant(unroll=self.unroll) else self._lowered(variant)

    def _lowered(self, variant: Variant) -> Programs:
        lowered = lower(
            self.spec,
            self.options,
            self.functions,
            mask=variant.mask,
            resets=variant.resets,
            training=variant.training,
            active_rates=variant.active_rates,
        )
        return Programs(replace(lowered, unroll=variant.unroll))

    def module(
        self,
        dtype: str = "float32",
        variants: Sequence[Variant] = (),
        *,
        second_order: bool = False,
        target: str = "cpu",
        on_demand: bool = False,
        timed: bool = False,
    ) -> str:
        """The module's text: kernels for these variants, else for all that a layer may ask for.

        second_order: without `variants`, those of second derivatives are among them. target: a
        folder of templates. on_demand: the module holds the cell's text in place of the equations
        alone, and renders what it lacks when a call first asks for it. timed: its kernels also
        write when they did what (`emit.cpu.timed_kernels`).
        """
        with working(f"writing kernels of {self.spec.name}"):
            from rnncc.emit.module import module_text

            cell = self.cell(dtype)
            compiled = map(self._compiled, variants or variants_of(cell, second_order=second_order))
            return module_text(
                self.spec, cell, compiled, target=target, on_demand=on_demand, timed=timed
            )

    def _compiled(self, variant: Variant) -> CompiledVariant:
        from rnncc.emit.module import CompiledVariant

        programs = self.programs(variant)
        directions = programs.directions(second_order=variant.second_order)
        return CompiledVariant(variant, programs.lowered, directions)


@dataclass(frozen=True, eq=False)
class Programs:
    """A lowered Program, and what it becomes where gradients are asked for."""

    lowered: Program

    @cached_property
    def gradient(self) -> tuple[Program, Program]:
        """Training forward and pullback, before the passes."""
        from rnncc.passes.pipeline import gradient

        return gradient(self.lowered, self._differentiable())

    @cached_property
    def second_order(self) -> SecondOrder:
        """The four Programs of second derivatives, before the passes."""
        from rnncc.passes.second import second_order

        return second_order(self.lowered, self._differentiable())

    def _differentiable(self) -> list[str]:
        return [p.value.name for p in self.lowered.params if p.role in DIFFERENTIABLE]

    @cached_property
    def forward(self) -> Optimised:
        """Values alone."""
        return Optimised(self.lowered)

    @cached_property
    def training(self) -> Optimised:
        """Values, and what the pullback needs of them."""
        return Optimised(self.gradient[0])

    @cached_property
    def pullback(self) -> Optimised:
        """Cotangents of results -> gradients."""
        return Optimised(self.gradient[1])

    def directions(self, *, second_order: bool = False) -> list[Compiled]:
        """What a module has kernels for, in the order it runs: both directions, or all four of
        second derivatives."""
        from rnncc.emit.module import Compiled

        if second_order:
            four = self.second_order
            made = ((f.name, Optimised(getattr(four, f.name))) for f in fields(four))
            return [Compiled(name, optimised.schedule) for name, optimised in made]
        forward, pullback = self.gradient
        # A residual is one value on both sides, until passes rename either.
        saved = {r.value: r.name for r in forward.results if r.role.kind == "residual"}
        names = {p.value: saved[p.value] for p in pullback.params if p.role == "residual"}
        names |= {p.value: cotangent_name(p.of) for p in pullback.params if p.role == "cotangent"}
        return [
            Compiled("forward", self.training.schedule),
            Compiled("backward", self.pullback.schedule, names),
        ]


@dataclass(frozen=True, eq=False)
class Optimised:
    """One Program on its way through the passes to a Schedule."""

    start: Program

    @cached_property
    def passes(self) -> tuple[tuple[str, Program], ...]:
        """The Program after each pass of PIPELINE, before them the one that was lowered."""
        from rnncc.passes.pipeline import stages

        return tuple(stages(self.start))

    @property
    def program(self) -> Program:
        """After all of them."""
        return self.passes[-1][1]

    @cached_property
    def schedule(self) -> Schedule:
        """Its kernels, their levels and buffers."""
        from rnncc.schedule.build import schedule

        return schedule(self.program)
