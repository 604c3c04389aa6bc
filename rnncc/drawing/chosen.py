"""A cell under given options, as papers write it: choices made, functions called by what they are,
drops at a rate of 0 left out, and without the equations that nothing reads then.

Non-Goals: what is computed (`lowering`); shapes; how it looks (`walk`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from rnncc.frontend.elaborate import bind_options, fold
from rnncc.frontend.spec import (
    Binary,
    Call,
    CellSpec,
    Conditional,
    Equation,
    Expr,
    Lambda,
    Layout,
    Name,
    Number,
    Text,
    Timed,
    children,
)
from rnncc.lowering.equations import bind_functions

Function = str | Lambda
_BARE = (Name, Timed, Number)
DROPPING = {"drop": 1, "zoneout": 2}  # -> which argument is the rate; the first is what is left


@dataclass(frozen=True)
class ChosenCell:
    """What is looked at. options, functions, rates: all of them, by name. hidden: names that mean
    something else here, a lambda's arguments. aliases: names whose equation is nothing but another
    name or a number under these options, and isn't written so."""

    spec: CellSpec
    options: Mapping[str, bool | int | float | str]
    functions: Mapping[str, Function]
    rates: Mapping[str, float]
    hidden: frozenset[str] = frozenset()
    aliases: Mapping[str, Expr] = field(default_factory=dict)

    def resolved(self, expr: Expr | Layout) -> Expr | Layout:
        """The expression that stands there once what is known is left out."""
        while True:
            following = self._following(expr)
            if following is expr:
                return expr
            expr = following

    def _following(self, expr: Expr | Layout) -> Expr | Layout:
        match expr:
            case Name(name=name, span=span) if name not in self.hidden:
                if name in self.options:
                    value = self.options[name]
                    return Text(value, span) if isinstance(value, str) else Number(value, span)
                if name in self.rates:
                    return Number(self.rates[name], span)
                return self.aliases.get(name, expr)
            case Conditional():
                known = None if self.hidden else fold(expr.condition, self.options)
                if isinstance(known, bool):
                    return expr.yes if known else expr.no
            case Binary(op="+"):
                if _is_zero(self.resolved(expr.right)):
                    return expr.left
            case Call(function=name) if name in DROPPING and self._is_left_out(expr):
                return expr.args[0]
            case Call(function=name, args=(only,)) if self._called(name) == "linear":
                return only
            case Call(function=name):
                called = self._called(name)
                if isinstance(called, str) and called != name:
                    return replace(expr, function=called)
        return expr

    def _called(self, name: str) -> Function:
        return self.functions.get(name, name)

    def _is_left_out(self, call: Call) -> bool:
        place = DROPPING[call.function]
        rates = [k.value for k in call.keywords if k.name == "rate"] + [*call.args[place:]]
        return bool(rates and call.args) and _is_zero(self.resolved(rates[0]))

    def walk(self, expr: Expr | Layout) -> Iterator[Expr | Layout]:
        """An expression and all inside it, as it is shown."""
        rest = [expr]
        while rest:
            node = self.resolved(rest.pop())
            yield node
            rest.extend(reversed(children(node)))

    @cached_property
    def equations(self) -> tuple[Equation, ...]:
        """Those that set a state, or that something shown reads; in the text's order."""
        setting: dict[str, list[int]] = {}
        for at, equation in enumerate(self.spec.equations):
            for target in equation.targets:
                setting.setdefault(target.name, []).append(at)
        kept = {
            at
            for at, e in enumerate(self.spec.equations)
            if any(t.back is not None for t in e.targets)
        }
        waiting: list[Expr | Layout] = [*self.spec.returns]
        waiting += [self.spec.equations[at].value for at in sorted(kept)]
        while waiting:
            for name in self.names([waiting.pop()]):
                for at in setting.get(name, ()):
                    if at not in kept:
                        kept.add(at)
                        waiting.append(self.spec.equations[at].value)
        return tuple(e for at, e in enumerate(self.spec.equations) if at in kept)

    def names(self, shown: Iterable[Expr | Layout]) -> Iterator[str]:
        """What is read there, as often as it is."""
        for expr in shown:
            for node in self.walk(expr):
                if isinstance(node, Name | Timed):
                    yield node.name

    @cached_property
    def lambdas(self) -> dict[str, Lambda]:
        """The functions that are called by a name of the cell's own."""
        found: dict[str, Lambda] = {}
        waiting: list[tuple[ChosenCell, Expr | Layout]] = [
            *((self, e.value) for e in self.equations),
            *((self, e) for e in self.spec.returns),
        ]
        while waiting:
            cell, expr = waiting.pop()
            for node in cell.walk(expr):
                called = cell._called(node.function) if isinstance(node, Call) else ""
                if isinstance(node, Call) and isinstance(called, Lambda):
                    if node.function not in found:
                        found[node.function] = called
                        waiting.append((self.inside(called), called.body))
        return {n: found[n] for n in self.functions if n in found}

    def inside(self, function: Lambda) -> ChosenCell:
        """The cell as a lambda's body sees it."""
        return replace(self, hidden=frozenset(function.params))


def chosen_cell(
    spec: CellSpec,
    options: Mapping[str, object] | None = None,
    functions: Mapping[str, object] | None = None,
    rates: Mapping[str, float] | None = None,
) -> ChosenCell:
    """The checked cell with these bound, the rest at its defaults. An option that a rate decides is
    on where that rate isn't 0. ValueError and TypeError as a layer's constructor."""
    chosen = {r.name: float(r.default) for r in spec.rates} | dict(rates or {})
    decided: dict[str, object] = {
        o.name: chosen[o.rate.name] != 0
        for o in spec.options
        if o.rate is not None and o.rate.name in chosen
    }
    bound = bind_options(spec, {**decided, **(options or {})})
    cell = ChosenCell(spec, bound, bind_functions(spec, functions or {}), chosen)
    named = (e for e in spec.equations if len(e.targets) == 1 and e.targets[0].back is None)
    written = [e for e in named if not isinstance(e.value, _BARE)]
    found = {e.targets[0].name: cell.resolved(e.value) for e in written}
    return replace(cell, aliases={n: e for n, e in found.items() if isinstance(e, _BARE)})


def _is_zero(expr: Expr | Layout) -> bool:
    return isinstance(expr, Number) and not isinstance(expr.value, bool) and expr.value == 0
