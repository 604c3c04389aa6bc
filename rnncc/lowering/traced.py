"""A cell -> the same cell that returns every value its equations name.

    return h[t]   ->   return h[t], z_f, f, c[t], ...        the text's lines stay where they are

The rest of the way is every cell's: what is returned can't be optimised away, so a name that the
passes would have merged into something else is there, because it is asked for.

Non-Goals: kernels and layers of it (`compiler`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from rnncc.frontend.spec import Call, CellSpec, Expr, Name, Number, Target, Timed
from rnncc.ir.program import Program, Value
from rnncc.lowering.cell_interface import CellInterface
from rnncc.lowering.lower import elaborate

OF_WEIGHTS = "it is a matrix of weights alone, the same at every step: look at layer.weights"
CONSTANT = "it is known when the cell is compiled, whatever the data"
UNUSED = "nothing reads it under these options, and it needs {}, which the layer doesn't have"


@dataclass(frozen=True, slots=True)
class NamedValue:
    """What an equation names: the expression that reads it, and whether it is true or false."""

    name: str
    read: Expr
    is_flag: bool


class TracedSpec:
    """spec: returns what the cell returns, then `values` in the order of the equations, but for
    those that it returns itself. returned: of each value of `values` or of the cell's own outputs,
    where among what is returned it is. left_out: names without an array -> why."""

    def __init__(
        self, spec: CellSpec, options: Mapping[str, object], functions: Mapping[str, object]
    ) -> None:
        self._own, self._options, self._functions = spec, options, functions
        self.left_out: dict[str, str] = {}
        named = [*self._named()]
        own = {_key(e): place for place, e in reversed([*enumerate(spec.returns)])}
        asked = [v for v in named if _key(v.read) not in own]
        asked = [*self._computed(asked)]
        self.spec = _returning(spec, asked)
        places = own | {_key(v.read): len(spec.returns) + i for i, v in enumerate(asked)}
        self.values = [v for v in named if v.name not in self.left_out]
        self.returned = {v.name: places[_key(v.read)] for v in self.values}

    def _named(self) -> Iterator[NamedValue]:
        """What equations set to values of their own at every step."""
        _, equations = elaborate(self._own, self._options, self._functions)
        for equation in self._own.equations:
            for target in equation.targets:
                operand = equations.values[target.name, target.back]
                read = _reading(target)
                if not isinstance(operand, Value):
                    self.left_out[target.name] = CONSTANT
                elif not operand.type.axes and len(operand.type.shape) > 1:
                    self.left_out[target.name] = OF_WEIGHTS
                elif operand.type.dtype == "bool":
                    span = target.span
                    bits = (read, Number(1, span), Number(0, span))
                    yield NamedValue(target.name, Call("where", bits, (), span, span), True)
                else:
                    yield NamedValue(target.name, read, False)

    def _computed(self, asked: list[NamedValue]) -> Iterator[NamedValue]:
        """Those that the layer's weights are enough for: one that no output or state depends on may
        read others, which it was made without."""
        whole = _returning(self._own, asked)
        rates = frozenset(r.name for r in self._own.rates)
        program, _ = elaborate(
            whole, self._options, self._functions, training=True, active_rates=rates
        )
        outputs = [r.value for r in program.results if r.role.kind == "output"]
        for value, output in zip(asked, outputs[len(self._own.returns) :], strict=True):
            missing = _weights_behind(program, output) - self._weights
            if missing:
                self.left_out[value.name] = UNUSED.format(" and ".join(sorted(missing)))
            else:
                yield value

    @cached_property
    def _weights(self) -> set[str]:
        interface = CellInterface(self._own, self._options, self._functions)
        return {*interface.weights, *interface.constants}


def _returning(spec: CellSpec, values: list[NamedValue]) -> CellSpec:
    """The text says so, too: it tells one cell from another wherever kernels are kept."""
    names = ", ".join(v.name for v in values)
    returns = (*spec.returns, *(v.read for v in values))
    return replace(spec, text=f"{spec.text}\n# traced: {names}\n", returns=returns)


def _reading(target: Target) -> Name | Timed:
    if target.back is None:
        return Name(target.name, target.span)
    return Timed(target.name, target.back, target.span)


def _key(read: Expr) -> object:
    """What is read, wherever it is written."""
    match read:
        case Name():
            return read.name
        case Timed(back=0):
            return read.name
        case Call(function="where", args=(Name() | Timed() as flag, Number(1), Number(0))):
            return "where", flag.name
    return id(read)


def _weights_behind(program: Program, output: Value) -> set[str]:
    """The weights and constants that an output of a lowered Program depends on within a step."""
    assert program.scan is not None
    needed = {s.value for s in program.scan.ys if s.target == output}
    for op in reversed(program.scan.body):
        if not needed.isdisjoint(op.results):
            needed.update(op.operands)
    return {p.value.name for p in program.params if p.role in ("weight", "constant")} & {
        v.name for v in needed if not v.type.axes
    }
