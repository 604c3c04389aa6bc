"""Second derivatives: a program -> four Programs in a row.

    forward             arguments -> residuals
    backward            arguments, residuals, cotangents of results -> gradients, its own residuals
    backward_pullback   cotangents of gradients -> gradients with respect to the cotangents of
                        results; cotangents of the arguments and residuals that backward reads
    forward_pullback    those -> second derivatives with respect to the arguments

`backward` is a pullback that `differentiate` made, so its own pullback is made the same way. What
that hands back to the residuals of the forward goes on through the forward's pullback, together
with what arguments got directly: so the last program's results are whole.

What one program leaves for another is a residual, and has one name that nothing else has: `x` is
an argument, `forward.z.0` and `backward.d_z.1` were saved, `handed.z` is the cotangent of z that
one pullback hands to the other; `d.h` is that of a result.

    >>> from rnncc.lowering.examples import example
    >>> four = second_order(example("h[t] = tanh(x[t] @ W + h[t-1])"), ["x", "W"])
    >>> for program in four:
    ...     print(*(p.value.name for p in program.params))
    ...     print("   ->", *(r.name for r in program.results))
    x h W
       -> forward.h.0
    W forward.h.0 x d.h d.final_h
       -> d_x d_W backward.d_h.0
    backward.d_h.0 d.h W x forward.h.0 d.d_x d.d_W
       -> handed.W handed.forward.h.0 handed.x d_d.h d_d.final_h
    W forward.h.0 x handed.forward.h.0 handed.x handed.W
       -> d_x d_W

Non-Goals: optimising any of the four (`pipeline.optimise`); third derivatives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from rnncc.common.result_roles import ResultRole, cotangent_name, handed_name
from rnncc.ir.program import Param, Program, Result, Value, uses
from rnncc.ir.rewrite import definitions, filled_with, prune, remap_program
from rnncc.ir.verify import verify
from rnncc.passes.differentiate import differentiate
from rnncc.passes.pipeline import gradient
from rnncc.passes.residuals import residuals
from rnncc.passes.simplify import simplify

CONSTANT = ("constant", "rate", "seed", "valid")


@dataclass(frozen=True, slots=True)
class SecondOrder:
    forward: Program
    backward: Program
    backward_pullback: Program
    forward_pullback: Program

    def __iter__(self) -> Iterator[Program]:
        """In the order they run."""
        yield from (self.forward, self.backward, self.backward_pullback, self.forward_pullback)


def second_order(program: Program, wrt: Collection[str]) -> SecondOrder:
    """The four programs; `wrt` names the parameters whose gradients are differentiated again."""
    forward, backward = _named("forward", *gradient(program, wrt))
    reads = [p.value.name for p in backward.params if _differentiable(p)]
    backward, back = _named("backward", *_pair(backward, reads))
    back = _without_zeros(back)
    crossing = {r.role.of for r in back.results if r.role.kind != "grad_cotangent"}
    forward, ahead = _from_crossing(forward, crossing, wrt)
    back, ahead = _hand_over(back, _without_zeros(ahead))
    return SecondOrder(*map(verify, (forward, backward, back, ahead)))


def _differentiable(param: Param) -> bool:
    return param.value.type.dtype == "float" and param.role not in CONSTANT


def _pair(
    program: Program, wrt: Collection[str], of: Collection[str] | None = None
) -> tuple[Program, Program]:
    """As `gradient`, of a program that is simplified: its values stay the same objects."""
    forward, pullback = differentiate(program, wrt, of)
    return residuals(verify(forward), verify(simplify(pullback)))


def _from_crossing(
    forward: Program, crossing: set[str], wrt: Collection[str]
) -> tuple[Program, Program]:
    """The forward with what both pullbacks read, and its pullback from all that crosses.

    Arguments cross, too: as results of the forward they collect what is handed back to them.
    """
    saved = [r for r in forward.results if r.role.kind == "residual"]
    own = [p.value for p in forward.params]
    arguments = [_output(v.name, v) for v in own if v.name in crossing]
    outputs = [_output(r.name, r.value) for r in saved]
    forward = prune(replace(forward, results=(*outputs, *arguments)))
    forward, ahead = _pair(forward, wrt, crossing)
    known = {r.value for r in saved}
    more = [r for r in forward.results if r.role.kind == "residual" and r.value not in known]
    forward = prune(replace(forward, results=(*saved, *more)))
    return _named("forward", forward, ahead)


def _output(name: str, value: Value) -> Result:
    return Result(ResultRole("output", name), value)


def _hand_over(back: Program, ahead: Program) -> tuple[Program, Program]:
    """What the last program reads of the one before it is a residual on both sides."""
    read = uses(ahead)
    handed = {p.value: p.of for p in ahead.params if p.role == "cotangent" and p.value in read}
    params = tuple(
        replace(p, role="residual") if p.value in handed else p
        for p in ahead.params
        if p.value in read
    )
    results = []
    for r in back.results:
        if r.role.kind == "grad_cotangent":
            results.append(r)
        elif r.role.of in handed.values():
            results.append(Result(ResultRole("residual", handed_name(r.role.of)), r.value))
    ahead = _rename(replace(ahead, params=params), {v: handed_name(n) for v, n in handed.items()})
    return prune(replace(back, results=tuple(results))), ahead


# ---- names -------------------------------------------------------------------------------------


def _named(prefix: str, forward: Program, pullback: Program) -> tuple[Program, Program]:
    """Each residual under one name of its own on both sides, and the pullback's cotangents."""
    names: dict[Value, str] = {}
    results = []
    for r in forward.results:
        if r.role.kind == "residual":
            named = r.name.startswith(f"{prefix}.") and r.name.count(".") > 1  # z.0 is not
            names[r.value] = r.name if named else f"{prefix}.{r.value.name}.{len(names)}"
            r = replace(r, role=ResultRole("residual", names[r.value]))
        results.append(r)
    own = {p.value for p in forward.params}  # whose cotangents are arguments of its pullback
    cotangents = [p for p in pullback.params if p.role == "cotangent" and p.value not in own]
    names |= {p.value: cotangent_name(p.of) for p in cotangents}
    return replace(forward, results=tuple(results)), _rename(pullback, names)


def _rename(program: Program, names: Mapping[Value, str]) -> Program:
    """Parameters under other names, everywhere they are read."""
    new = {v: Value(name, v.type) for v, name in names.items()}
    params = tuple(replace(p, value=new.get(p.value, p.value)) for p in program.params)
    return replace(remap_program(program, new), params=params)


# ---- zeros -------------------------------------------------------------------------------------


def _without_zeros(program: Program) -> Program:
    """Results that are zero by construction are nobody's business."""
    defs = definitions(program.ops())
    results = tuple(r for r in program.results if filled_with(r.value, defs) != 0)
    return prune(replace(program, results=results))
