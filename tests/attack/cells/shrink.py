"""A case that fails -> the smallest one that fails in the same way.

Changes are tried in turns, the boldest first, until none of them leaves a case that fails alike.
What isn't a cell any longer is left aside: the reference and rnncc's own checks say so.

Non-Goals: finding the smallest of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.attack.cells.compare import Finding, Unfit, observe
from tests.attack.cells.text import normal
from tests.attack.cells.tree import (
    Apply,
    Call,
    Case,
    Cell,
    Equation,
    Expr,
    If,
    Item,
    Num,
    Ref,
    children,
    mapped,
    pruned,
    rebuilt,
    walk,
)

SECONDS = 90.0
# What a call does without, the boldest first.
PLAIN = (
    "second",
    "again",
    "stateful",
    "mask",
    "resets",
    "nan",
    "zero_output_for_mask",
    "go_backwards",
    "time_major",
    "initial",
    "checkpoint_every",
    "unroll",
    "wrt",
    "arrange",
    "return_state",
    "training",
)


def shrink(finding: Finding, seconds: float = SECONDS) -> Finding:
    """The same kind of failure of a smaller case."""
    end = time.monotonic() + seconds
    tried = {repr(finding.case)}
    improved = True
    while improved:
        improved = False
        for change in CHANGES:
            again = True
            while again:
                again = False
                for case in change(finding.case):
                    if time.monotonic() > end:
                        return finding
                    smaller = _fails(case, finding, tried)
                    if smaller is not None:
                        finding, improved, again = smaller, True, True
                        break
    return finding


def _fails(case: Case, finding: Finding, tried: set[str]) -> Finding | None:
    try:
        case = normal(replace(case, cell=pruned(case.cell)))
    except (ValueError, RecursionError):
        return None
    if repr(case) in tried:
        return None
    tried.add(repr(case))
    if not case.cell.arrays("input"):
        return None
    try:
        found = observe(case, finding.engine)
    except Unfit:
        return None
    if found is None or found.kind != finding.kind:
        return None
    if (
        found.kind == "refused"
        and found.found[:60].partition("error")[2] != (finding.found[:60].partition("error")[2])
    ):
        return None
    return found


# ---- calls -----------------------------------------------------------------------------------


def _plainer_calls(case: Case) -> Iterator[Case]:
    call = case.call
    plain = Call({}, ())
    for name in PLAIN:
        if getattr(call, name) != getattr(plain, name):
            yield replace(case, call=replace(call, **{name: getattr(plain, name)}))
    if not call.return_sequences:
        yield replace(case, call=replace(call, return_sequences=True))
    if len(call.shapes) > 1:
        for shape in call.shapes:
            yield replace(case, call=replace(call, shapes=(shape,)))
        first = call.shapes[0]
        if call.shapes != (first, first):
            yield replace(case, call=replace(call, shapes=(first, first)))
    for at, (batch, time_) in enumerate(call.shapes):
        for shape in ((1, time_), (2, time_), (batch, 1), (batch, 2), (batch, 3)):
            if shape < (batch, time_):
                shapes = (*call.shapes[:at], shape, *call.shapes[at + 1 :])
                yield replace(case, call=replace(call, shapes=shapes))
    for kind in ("options", "functions", "rates"):
        given = getattr(call, kind)
        for name in given:
            rest = {n: v for n, v in given.items() if n != name}
            yield replace(case, call=replace(call, **{kind: rest}))


def _smaller_sizes(case: Case) -> Iterator[Case]:
    sizes = dict(case.call.sizes)
    everything = tuple(sizes)
    for name, value in sizes.items():
        for smaller in (1, 2, 3):
            if smaller < value:
                call = replace(case.call, sizes={**sizes, name: smaller}, given=everything)
                yield replace(case, call=call)


def _fewer_sizes(case: Case) -> Iterator[Case]:
    """A size in the place of another, or a number."""
    sizes = dict(case.call.sizes)
    for name, value in sizes.items():
        for other in [n for n in sizes if n != name]:
            yield _renamed(case, name, Ref(other), sizes[other])
        yield _renamed(case, name, Num(value), value)


def _renamed(case: Case, name: str, by: Expr, value: int) -> Case:
    def change(node: Expr) -> Expr:
        return by if node == Ref(name) else node

    cell = case.cell
    declared = []
    for d in cell.declarations:
        if d.name == name:
            continue
        if hasattr(d, "shape"):
            d = replace(d, shape=tuple(mapped(s, change) for s in d.shape))
        elif getattr(d, "default", None) is not None and not isinstance(
            d.default, bool | int | float | str
        ):
            d = replace(d, default=mapped(d.default, change))
        declared.append(d)
    equations = tuple(replace(e, value=mapped(e.value, change)) for e in cell.equations)
    returns = tuple(mapped(e, change) for e in cell.returns)
    sizes = {n: v for n, v in case.call.sizes.items() if n != name}
    call = replace(case.call, sizes=sizes, given=tuple(sizes))
    return Case(Cell(cell.name, tuple(declared), equations, returns), call)


# ---- cells -----------------------------------------------------------------------------------


def _with(case: Case, **changed: object) -> Case:
    return replace(case, cell=replace(case.cell, **changed))


def _fewer_returns(case: Case) -> Iterator[Case]:
    returns = case.cell.returns
    if len(returns) > 1:
        for value in returns:
            yield _with(case, returns=(value,))
        for at in range(len(returns)):
            yield _with(case, returns=returns[:at] + returns[at + 1 :])
    for state in case.cell.arrays("state"):
        if returns != (Ref(state.name, 0),):
            yield _with(case, returns=(Ref(state.name, 0),))


def _fewer_states(case: Case) -> Iterator[Case]:
    """A state becomes a temporary, an input or a number."""
    cell = case.cell
    for state in cell.arrays("state"):
        if len(cell.arrays("state")) > 1:
            for by in (Num(0.5), *(Ref(i.name, 0) for i in cell.arrays("input"))):
                yield _without(case, state.name, by)
        if state.start is not None:
            declared = tuple(replace(d, start=None) if d is state else d for d in cell.declarations)
            yield _with(case, declarations=declared)


def _without(case: Case, name: str, by: Expr) -> Case:
    cell = case.cell

    def change(node: Expr) -> Expr:
        return by if isinstance(node, Ref) and node.name == name else node

    equations = tuple(
        replace(e, value=mapped(e.value, change))
        for e in cell.equations
        if name not in [n for n, _ in e.targets]
    )
    returns = tuple(mapped(e, change) for e in cell.returns)
    declared = tuple(d for d in cell.declarations if d.name != name)
    return replace(case, cell=Cell(cell.name, declared, equations, returns))


def _fewer_temporaries(case: Case) -> Iterator[Case]:
    """A temporary's value where it is read."""
    for equation in case.cell.equations:
        ((name, timed), *rest) = equation.targets
        if not timed and not rest:
            yield _without(case, name, equation.value)


def _starts_dropped(case: Case) -> Iterator[Case]:
    cell = case.cell
    for d in cell.arrays("state"):
        if d.start is not None:
            declared = tuple(replace(x, start=None) if x is d else x for x in cell.declarations)
            yield _with(case, declarations=declared)


def _smaller_expressions(case: Case) -> Iterator[Case]:
    """Each expression in turn replaced by one of its own, a number or a name of what is known."""
    cell = case.cell
    for at, equation in enumerate(cell.equations):
        for value in _smaller(equation.value):
            equations = list(cell.equations)
            equations[at] = Equation(equation.targets, value)
            yield _with(case, equations=tuple(equations))
    for at, expr in enumerate(cell.returns):
        for value in _smaller(expr):
            yield _with(case, returns=(*cell.returns[:at], value, *cell.returns[at + 1 :]))


def _smaller(expr: Expr) -> Iterator[Expr]:
    """The expression with one node in it made smaller, outer ones first."""
    yield from _instead(expr)
    parts = children(expr)
    for at, part in enumerate(parts):
        for smaller in _smaller(part):
            yield rebuilt(expr, (*parts[:at], smaller, *parts[at + 1 :]))


def _instead(expr: Expr) -> Iterator[Expr]:
    match expr:
        case Apply(args=args, keywords=keywords):
            yield from (a for a in args if isinstance(a, Apply | Ref | Item | If))
            for at in range(len(keywords)):
                yield replace(expr, keywords=keywords[:at] + keywords[at + 1 :])
            yield Num(0.5)
        case If():
            yield from (expr.yes, expr.no)
        case Item():
            yield expr.value
            yield Num(0.5)
        case Ref(_, back) if back is not None and back > 1:
            yield Ref(expr.name, 1)
            yield Num(0.5)
        case Ref():
            yield Num(0.5)
        case Num(value) if value not in (0.5, 1, 2, True, False, 0, -1):
            yield Num(1)
            yield Num(0.5)


def _plainer_shapes(case: Case) -> Iterator[Case]:
    """Fewer axes of an array, and each 1 or a name."""
    cell = case.cell
    for d in cell.arrays("input", "context", "state", "weight", "constant"):
        shapes = [d.shape[:at] + d.shape[at + 1 :] for at in range(len(d.shape))]
        for at, size in enumerate(d.shape):
            if isinstance(size, Apply):
                names = [n for n in walk(size) if isinstance(n, Ref)]
                shapes += [(*d.shape[:at], n, *d.shape[at + 1 :]) for n in names]
        for shape in shapes:
            changed = replace(d, shape=shape, other=None)
            declared = tuple(changed if x is d else x for x in cell.declarations)
            yield _with(case, declarations=declared)


CHANGES: tuple[Callable[[Case], Iterator[Case]], ...] = (
    _fewer_returns,
    _plainer_calls,
    _fewer_states,
    _smaller_expressions,
    _fewer_temporaries,
    _starts_dropped,
    _smaller_sizes,
    _plainer_shapes,
    _fewer_sizes,
)
