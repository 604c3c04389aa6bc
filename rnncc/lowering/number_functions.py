"""Rounding, remainders, truth and numbers, steps and what stands for their slopes -> primitive ops.

What goes in steps has a gradient of 0 everywhere; `surrogate` gives it another.

Non-Goals: operators (`expressions`), which mean the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from rnncc.frontend.spec import Call, Expr, Layout, Name, Timed, walk
from rnncc.ir.program import Value
from rnncc.ir.sizes import Size
from rnncc.lowering.expressions import Evaluator
from rnncc.lowering.functions import axis_of, function, known
from rnncc.lowering.operands import Operand, Refusal


@function
def mod(ev: Evaluator, a: Operand, b: Operand) -> Operand:
    """With the sign of the divisor, as Python's and NumPy's."""
    return ev.b.mod(*ev.broadcast(ev.number(a), ev.number(b)))


@function
def floor_divide(ev: Evaluator, a: Operand, b: Operand) -> Operand:
    return ev.b.floor_divide(*ev.broadcast(ev.number(a), ev.number(b)))


# ---- truth and numbers -----------------------------------------------------------------------


def truth(ev: Evaluator, v: Operand) -> Value | bool:
    """What isn't 0 is true, NaN with it."""
    if isinstance(v, bool) or (isinstance(v, Value) and v.type.dtype == "bool"):
        return v
    if isinstance(v, int | float):
        return bool(v)
    unequal: Value = ev.b.ne(ev.value(v), 0.0)
    return unequal


@function
def bool_(ev: Evaluator, v: Operand) -> Operand:
    return truth(ev, v)


@function
def logical_not(ev: Evaluator, v: Operand) -> Operand:
    true = truth(ev, v)
    return not true if isinstance(true, bool) else ev.b.not_(true)


def _of_all(ev: Evaluator, kind: str, name: str, v: Operand, axis: Operand) -> Operand:
    true = truth(ev, v)
    x = ev.value(true)
    return ev.b.gt(ev.b.reduce(kind, x, axis_of(x, axis, name)), 0.0)


@function
def any_(ev: Evaluator, v: Operand, axis: Operand = None) -> Operand:
    return _of_all(ev, "max", "any", v, axis)


@function
def all_(ev: Evaluator, v: Operand, axis: Operand = None) -> Operand:
    return _of_all(ev, "min", "all", v, axis)


@function
def int_(ev: Evaluator, v: Operand) -> Operand:
    """Without what is behind the point; of a number that is known a whole one, as sizes are."""
    if isinstance(v, int | float):
        return int(v)
    return v if isinstance(v, Size) else ev.b.trunc(ev.value(v))


@function
def float_(ev: Evaluator, v: Operand) -> Operand:
    return float(v) if isinstance(v, int | float) else ev.value(v)


# ---- steps and their slopes ------------------------------------------------------------------


@function
def heaviside(ev: Evaluator, v: Operand, at_zero: Operand = 0) -> Operand:
    """0 below, 1 above; NaN stays NaN."""
    b, x = ev.b, ev.value(v)
    edge = b.where(b.eq(x, 0.0), known(at_zero, "at_zero"), b.stop_gradient(x))
    return b.where(b.gt(x, 0.0), 1.0, b.where(b.lt(x, 0.0), 0.0, edge))


@function
def surrogate(ev: Evaluator, forward: Operand, backward: Operand, of: Operand = None) -> Operand:
    """The value of the first; its derivative with respect to `of` is the second, by whatever else
    the first is made of 0."""
    if not isinstance(of, Value) or of.type.dtype != "float":
        raise Refusal("E515", reason="of= is the value that it is differentiated by")
    value, slope = ev.number(forward), ev.number(backward)
    value, x, slope = ev.broadcast(value, of, slope)
    return ev.b.surrogate(value, x, slope)


def argument_of(ev: Evaluator, node: Call) -> Operand:
    """What a surrogate without of= is differentiated by: the one value that both of its
    expressions read, or the first alone, where the second reads none."""
    named = {k.name: k.value for k in node.keywords}
    parts = dict(zip(("forward", "backward"), node.args, strict=False)) | named
    forward, backward = (dict(_values(ev, parts[p])) for p in ("forward", "backward"))
    both = [name for name in forward if name in backward] if backward else [*forward]
    if len(both) == 1:
        return forward[both[0]]
    texts = [
        name if back is None else f"{name}[t{f'-{back}' if back else ''}]" for name, back in both
    ]
    if not both:
        raise Refusal("E515", reason="its expressions read no value that both have", help=_HELP)
    raise Refusal("E515", reason=f"its expressions both read {' and '.join(texts)}", help=_HELP)


_HELP = "say what it is differentiated by: of=v"
_Key = tuple[str, int | None]


def _values(ev: Evaluator, expr: Expr) -> Iterator[tuple[_Key, Value]]:
    """The names in an expression that stand for numbers of the run."""
    nodes: Iterator[Expr | Layout] = walk(expr)
    for node in nodes:
        if isinstance(node, Name | Timed):
            operand = ev.evaluate(node)
            if isinstance(operand, Value) and operand.type.dtype == "float":
                yield (node.name, node.back if isinstance(node, Timed) else None), operand
