"""Layers that run on the interpreter: slow, float64 inside, the reference of tests and `check`.

Non-Goals: speed; kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from rnncc.artifact.cell import CellDescription, Variant
from rnncc.common.result_roles import cotangent_name, gradient_name
from rnncc.compiler import layer_class as _layer_class
from rnncc.driver import Derivation, Programs
from rnncc.frontend.spec import CellSpec
from rnncc.ir.interp import interpret
from rnncc.ir.program import Param, Program, Value
from rnncc.ir.rewrite import remap_program
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.common.memory_pool import write_into
from rnncc.runtime.cpu.execution.time_chunks import LEAST_STEPS

NOTHING: Mapping[str, np.ndarray] = MappingProxyType({})


def layer_class(spec: CellSpec, dtype: Any = "float64") -> type[Layer]:
    """The layer class of a checked cell, without kernels."""
    return _layer_class(spec, "cpu", dtype, oracle_engine)


def oracle_engine(
    spec: CellSpec, cell: CellDescription, variant: Variant
) -> OracleEngine | OracleSecondEngine:
    programs = Derivation.of(spec, cell).programs(variant)
    kind = OracleSecondEngine if variant.second_order else OracleEngine
    return kind(programs, np.dtype(cell.dtype))


@dataclass(frozen=True)
class _Saved:
    arrays: dict[str, np.ndarray]
    sizes: Mapping[str, int]
    batch: int
    time: int
    first_step: int


class OracleEngine:
    """`layer_options.Engine` over `ir.interp`."""

    on_gpu = reads_gpu_arrays = False

    def __init__(self, programs: Programs, dtype: np.dtype[Any]) -> None:
        self.program, self.dtype = programs.lowered, dtype
        self.training, pullback = programs.gradient
        self.pullback = _distinct(pullback)
        # The forward's results that the pullback takes, by the names it takes them under.
        values = {r.value: r.name for r in self.training.results}
        renamed = zip(pullback.params, self.pullback.params, strict=True)
        self.residuals = {
            new.value.name: values[old.value] for old, new in renamed if old.role == "residual"
        }

    def forward(
        self,
        arrays: Mapping[str, Any],
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: object,
        save: bool,
        last_only: bool,
        out: Mapping[str, np.ndarray] = NOTHING,
        first_step: int = 0,
        checkpoint_every: int | None = None,
        lent: frozenset[str] = frozenset(),
        carry: bool = False,
    ) -> tuple[dict[str, np.ndarray], _Saved | None]:
        program = self.training if save else self.program
        arguments = {n: np.asarray(a) for n, a in arrays.items()}
        for p in program.params:
            if p.role == "held":
                shape = [s.evaluate(sizes) for s in p.value.type.shape]
                arguments.setdefault(p.value.name, np.zeros((batch, *shape)))
        computed = interpret(program, arguments, sizes, batch, time, first_step)
        saved = None
        if save:
            kept = {n: np.array(a) for n, a in arguments.items()}
            kept |= {new: computed[name] for new, name in self.residuals.items()}
            saved = _Saved(kept, sizes, batch, time, first_step)
        results = {}
        for r in program.results:
            if r.role.kind in ("output", "state") or (carry and r.role.kind == "held"):
                array = computed[r.name]
                last = last_only and r.role.kind == "output"
                results[r.name] = np.array(array[:, -1] if last else array, self.dtype)
        return write_into(out, results), saved

    def backward(
        self,
        saved: _Saved,
        cotangents: Mapping[str, np.ndarray],
        wanted: frozenset[str],
        out: Mapping[str, np.ndarray] = NOTHING,
    ) -> dict[str, np.ndarray]:
        arguments = {}
        for p in self.pullback.params:
            name = p.value.name
            if p.role == "cotangent":
                arguments[name] = self._cotangent(p, cotangents, saved)
            else:
                arguments[name] = saved.arrays[name]
        computed = interpret(
            self.pullback, arguments, saved.sizes, saved.batch, saved.time, saved.first_step
        )
        gradients = {r.role.of: computed[r.name] for r in self.pullback.results}
        own = {n: np.array(a, self.dtype) for n, a in gradients.items() if n in wanted}
        return write_into(out, own)

    def carried(self, results: Mapping[str, Any]) -> dict[str, Any]:
        last = [r for r in self.program.results if r.role.kind in ("state", "held")]
        return {r.role.of: results[r.name] for r in last if r.name in results}

    def repeat(
        self,
        arrays: Mapping[str, Any],
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: object,
        last_only: bool,
        out: Mapping[str, np.ndarray],
    ) -> Callable[[], None]:
        def again() -> None:
            self.forward(
                arrays,
                sizes,
                batch,
                time,
                version=version,
                save=False,
                last_only=last_only,
                out=out,
            )

        return again

    def block_steps(self, sizes: Mapping[str, int], batch: int) -> int:
        return LEAST_STEPS

    def _cotangent(
        self, param: Param, cotangents: Mapping[str, np.ndarray], saved: _Saved
    ) -> np.ndarray:
        cotangent = cotangents.get(param.of)
        every_step = _zeros(param.value, saved)
        if cotangent is not None and cotangent.ndim < every_step.ndim:  # of the last step
            every_step[:, -1] = cotangent
            return every_step
        return every_step if cotangent is None else cotangent

    def stored(self, storage: str) -> OracleEngine:
        """What is computed is not how it is stored."""
        return self

    def keep(self, layers: int) -> None:
        """Nothing is made of weights."""

    last: Any = None

    def plan(self, last: Any = None) -> str:
        return "the interpreter, float64, one step after another"


class OracleSecondEngine:
    """`layer_options.SecondEngine` over `ir.interp`."""

    def __init__(self, programs: Programs, dtype: np.dtype[Any]) -> None:
        self.programs, self.dtype = programs.second_order, dtype

    def gradients(
        self, saved: _Saved, cotangents: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], _Saved]:
        known = saved.arrays | {cotangent_name(name): np.array(a) for name, a in cotangents.items()}
        again = replace(saved, arrays=known)
        known |= self._run(self.programs.forward, again)
        results = self._run(self.programs.backward, again)
        known |= _residuals(self.programs.backward, results)
        return self._gradients(self.programs.backward, results), again

    def second(
        self, saved: _Saved, cotangents: Mapping[str, np.ndarray], wanted: frozenset[str]
    ) -> dict[str, np.ndarray]:
        known = saved.arrays | {
            cotangent_name(gradient_name(name)): a for name, a in cotangents.items()
        }
        again = replace(saved, arrays=known)
        handed = self._run(self.programs.backward_pullback, again)
        known |= _residuals(self.programs.backward_pullback, handed)
        gradients = self._gradients(self.programs.backward_pullback, handed)
        gradients |= self._gradients(
            self.programs.forward_pullback, self._run(self.programs.forward_pullback, again)
        )
        return {n: a for n, a in gradients.items() if n in wanted}

    def _run(self, program: Program, saved: _Saved) -> dict[str, np.ndarray]:
        arguments = {}
        for p in program.params:
            name = p.value.name
            arguments[name] = saved.arrays[name] if name in saved.arrays else _zeros(p.value, saved)
        return interpret(program, arguments, saved.sizes, saved.batch, saved.time, saved.first_step)

    def _gradients(
        self, program: Program, found: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Those of parameters, by name."""
        gradients = [r for r in program.results if r.role.is_gradient]
        return {r.role.of: np.array(found[r.name], self.dtype) for r in gradients}

    def plan(self) -> str:
        return "the interpreter, float64, four programs one after another"


def _residuals(program: Program, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {r.name: found[r.name] for r in program.results if r.role.kind == "residual"}


def _zeros(value: Value, saved: _Saved) -> np.ndarray:
    lead = [{"B": saved.batch, "T": saved.time}[a] for a in value.type.axes]
    return np.zeros([*lead, *(s.evaluate(saved.sizes) for s in value.type.shape)])


def _distinct(pullback: Program) -> Program:
    """Residuals and cotangents under names of their own: the interpreter is called by name."""
    params = []
    for i, p in enumerate(pullback.params):
        name = p.value.name
        if p.role == "residual":
            name = f"_residual_{i}_{name}"
        elif p.role == "cotangent":
            name = f"_cotangent_{name}"
        params.append(replace(p, value=Value(name, p.value.type)))
    names = {old.value: new.value for old, new in zip(pullback.params, params, strict=True)}
    return replace(remap_program(pullback, names), params=tuple(params))
