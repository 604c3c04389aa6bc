"""Cells and calls of them, as trees of our own.

Everything here reads a cell from these trees: the text that is compiled (`text`), what is right
(`reference`), and what is left of a cell that fails (`shrink`).

    Expr = Num | Word | Ref | Apply | Group | If | Item | Cut
    Cell = declarations, equations, what is returned

Non-Goals: rnncc's own trees: nothing is shared with them. Spans, mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

Option = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Num:
    value: bool | int | float


@dataclass(frozen=True, slots=True)
class Word:
    """A text: einsum's subscripts, a value of an option, per="step"."""

    value: str


@dataclass(frozen=True, slots=True)
class Ref:
    """back: how many steps back, or None for what carries no time."""

    name: str
    back: int | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """A call, or an operator by its sign."""

    function: str
    args: tuple[Expr, ...]
    keywords: tuple[tuple[str, Expr], ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class If:
    condition: Expr
    yes: Expr
    no: Expr


@dataclass(frozen=True, slots=True)
class Item:
    value: Expr
    indices: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """begin:end:step, where an index stands."""

    begin: Expr | None = None
    end: Expr | None = None
    step: Expr | None = None

    @property
    def given(self) -> tuple[Expr, ...]:
        return tuple(x for x in (self.begin, self.end, self.step) if x is not None)


Expr = Num | Word | Ref | Apply | Group | If | Item | Cut


def children(expr: Expr) -> tuple[Expr, ...]:
    """In the order in which they stand in the text."""
    match expr:
        case Apply():
            return (*expr.args, *(value for _, value in expr.keywords))
        case Group():
            return expr.items
        case If():
            return expr.yes, expr.condition, expr.no
        case Item():
            return (expr.value, *expr.indices)
        case Cut():
            return expr.given
    return ()


def rebuilt(expr: Expr, parts: tuple[Expr, ...]) -> Expr:
    """expr with other children."""
    match expr:
        case Apply():
            count = len(expr.args)
            names = [name for name, _ in expr.keywords]
            return replace(expr, args=parts[:count], keywords=tuple(zip(names, parts[count:])))
        case Group():
            return Group(parts)
        case If():
            return If(parts[1], parts[0], parts[2])
        case Item():
            return Item(parts[0], parts[1:])
        case Cut():
            rest = iter(parts)
            bounds = (expr.begin, expr.end, expr.step)
            return Cut(*(None if b is None else next(rest) for b in bounds))
    return expr


def walk(expr: Expr) -> Iterator[Expr]:
    """expr and all in it, in the order of the text."""
    yield expr
    for child in children(expr):
        yield from walk(child)


def mapped(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """expr with `change` made to every node, the innermost first."""
    parts = children(expr)
    return change(rebuilt(expr, tuple(mapped(p, change) for p in parts)) if parts else expr)


# ---- cells -----------------------------------------------------------------------------------

Shape = tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """input, context, state, weight or constant. start: a state's first value, or an initializer.

    other: (condition, shape): the shape where the condition doesn't hold.
    """

    kind: str
    name: str
    shape: Shape
    start: Expr | None = None
    other: tuple[Expr, Shape] | None = None


@dataclass(frozen=True, slots=True)
class Size:
    name: str
    default: Expr | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """params: () where `body` is the name of another function."""

    name: str
    params: tuple[str, ...]
    body: Expr


@dataclass(frozen=True, slots=True)
class Scalar:
    """An option or a rate. An option's default may be a rate: whether that isn't 0."""

    kind: str
    name: str
    default: Option | Ref


Declaration = Array | Size | Function | Scalar


@dataclass(frozen=True, slots=True)
class Equation:
    """targets: names, and True where it is a state's."""

    targets: tuple[tuple[str, bool], ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Cell:
    name: str
    declarations: tuple[Declaration, ...]
    equations: tuple[Equation, ...]
    returns: tuple[Expr, ...]

    def arrays(self, *kinds: str) -> list[Array]:
        return [d for d in self.declarations if isinstance(d, Array) and d.kind in kinds]

    @property
    def sizes(self) -> list[Size]:
        return [d for d in self.declarations if isinstance(d, Size)]

    @property
    def functions(self) -> list[Function]:
        return [d for d in self.declarations if isinstance(d, Function)]

    def scalars(self, kind: str) -> list[Scalar]:
        return [d for d in self.declarations if isinstance(d, Scalar) and d.kind == kind]

    def expressions(self) -> Iterator[Expr]:
        """What equations and the return say, in the order of the text."""
        yield from (e.value for e in self.equations)
        yield from self.returns

    def words(self) -> set[str]:
        """Every function and operator in it."""
        whole = [*self.expressions(), *(f.body for f in self.functions)]
        return {n.function for e in whole for n in walk(e) if isinstance(n, Apply)}


def pruned(cell: Cell) -> Cell:
    """Without what nothing that is returned or kept reads."""
    setters = {name: e for e in cell.equations for name, _ in e.targets}
    functions = {f.name: f for f in cell.functions}
    alive: set[str] = set()
    fresh = [*cell.returns, *(Ref(s.name) for s in cell.arrays("state"))]
    while fresh:
        found: list[Expr] = []
        for node in (n for e in fresh for n in walk(e)):
            name = getattr(node, "name", None) or getattr(node, "function", None)
            if name is None or name in alive:
                continue
            alive.add(name)
            if name in setters:
                found.append(setters[name].value)
                alive.update(n for n, _ in setters[name].targets)
                found += [setters[n].value for n, _ in setters[name].targets]
            if name in functions:
                found.append(functions[name].body)
            for d in cell.declarations:
                if d.name == name:
                    found += _read_by(d)
        fresh = found
    return replace(
        cell,
        declarations=tuple(d for d in cell.declarations if d.name in alive),
        equations=tuple(e for e in cell.equations if any(n in alive for n, _ in e.targets)),
    )


def _read_by(declared: Declaration) -> list[Expr]:
    match declared:
        case Array():
            start = [declared.start] if declared.kind == "state" and declared.start else []
            other = [declared.other[0], *declared.other[1]] if declared.other else []
            return [*declared.shape, *start, *other]
        case Size():
            return [declared.default] if declared.default else []
        case Scalar(default=Ref() as rate):
            return [rate]
    return []


# ---- calls -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """How a layer of the cell is made and called, twice.

    sizes: of every declared size. given: which of them are keywords of the layer.
    shapes: batch and time of the first call and of the second.
    mask: "", "mask" or "lengths". nan: what masked inputs hold is NaN. resets: rows start anew here
    and there. initial: "", "all" or
    "some" states are given. arrange: inputs are a "tuple" or a "dict".
    again: a pullback is called again, and the second time outputs alone are asked for, too.
    second: second derivatives, too. wrt: gradients asked for, () is all. seed: of all numbers.
    """

    sizes: Mapping[str, int]
    given: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...] = ((2, 3),)
    options: Mapping[str, Option] = field(default_factory=dict)
    functions: Mapping[str, str | None] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    training: bool = False
    mask: str = ""
    nan: bool = False
    resets: bool = False
    zero_output_for_mask: bool = False
    go_backwards: bool = False
    time_major: bool = False
    return_sequences: bool = True
    return_state: bool = False
    stateful: bool = False
    initial: str = ""
    arrange: str = "tuple"
    checkpoint_every: int | None = None
    unroll: bool | int = False
    again: bool = False
    second: bool = False
    wrt: tuple[str, ...] = ()
    seed: int = 0

    def unlike_default(self) -> dict[str, Any]:
        """Fields that say something."""
        plain = Call({}, ())
        pairs = {f.name: getattr(self, f.name) for f in fields(self)}
        needed = ("sizes", "given", "shapes")
        return {n: v for n, v in pairs.items() if n in needed or v != getattr(plain, n)}


@dataclass(frozen=True, slots=True)
class Case:
    cell: Cell
    call: Call
