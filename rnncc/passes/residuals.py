"""What the forward saves for the pullback, and what the pullback computes again.

At first every forward value the pullback reads is saved. A value is recomputed instead when it
is cheap (at most one transcendental) and all it is made of is at hand: parameters, or values
saved anyway; a slice, when what it is a part of is. A carry and the value it hands on share one
buffer (the schedule's business), so when one of them is saved the other is free.

    LSTM: i, f, g, o and the history of c are saved; tanh(c) is computed again.

    >>> from rnncc.passes.differentiate import differentiate
    >>> from rnncc.lowering.examples import example
    >>> cell = example("f = sigmoid(x[t] @ W)", "g = tanh(f)", "h[t] = f * g + h[t-1]")
    >>> forward, pullback = differentiate(cell, ["x"])
    >>> [p.value.name for p in pullback.params if p.role == "residual"]
    ['g', 'f']
    >>> forward, pullback = residuals(forward, pullback)
    >>> [p.value.name for p in pullback.params if p.role == "residual"]
    ['f']
    >>> [op.result.name for op in pullback.scan.body if op.opcode == "tanh"]
    ['g']

Non-Goals: checkpointing over time.
"""

from __future__ import annotations

from dataclasses import replace

from rnncc.common.result_roles import ResultRole
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Param, Program, Result, Scan, Slice, Stack, Value
from rnncc.ir.rewrite import definitions, prune

CHEAP = 25  # cycles a vector: one exp or tanh, not two


def residuals(forward: Program, pullback: Program) -> tuple[Program, Program]:
    fwd, bwd = forward.scan, pullback.scan
    if fwd is None or bwd is None:
        return forward, pullback
    stacks = {s.target: s.value for s in fwd.ys}
    saved_params = {p.value for p in pullback.params if p.role == "residual"}
    saved = {
        s.value: s.source
        for s in bwd.xs
        if s.source in saved_params and stacks.get(s.source) is s.value
    }
    available = saved_params | {p.value for p in forward.params}
    at_hand = {s.value for s in fwd.xs if s.source in available}
    twins = {}
    for c in fwd.carries:
        if c.next.type == c.value.type:  # a number that is handed on is no row of the history
            twins[c.value], twins[c.next] = c.next, c.value
    again: dict[Value, Op] = {}
    defs = definitions(fwd.body)
    _save_sources(saved, defs, again)
    inner = set(fwd.entering()) | set(defs)
    for op in fwd.body:
        if op.result not in saved or op.result in again:
            continue
        for value in _recomputation(op.result, defs, saved, again, at_hand, twins, inner):
            again[value] = defs[value]
    forward, pullback = _rewrite(forward, pullback, again, defs)
    return _drop_unread(forward, _early_again(forward, pullback))


def _early_again(forward: Program, pullback: Program) -> Program:
    """What `before` spread out for all steps, or made of weights alone: the pullback does so,
    too."""
    defs = definitions(forward.before)
    roles = {p.value: p.role for p in forward.params}
    unchanging = {v for v, role in roles.items() if role in ("weight", "constant", "rate", "seed")}
    for op in forward.before:
        if all(o in unchanging for o in op.operands):
            unchanging.update(op.results)
    params = list(pullback.params)
    again: set[Value] = set()
    for param in params:  # it grows
        producer = defs.get(param.value)
        if producer is None:
            continue
        if producer.opcode in ("broadcast", "spread", "full") or param.value in unchanging:
            again.add(param.value)
            known = {p.value for p in params}
            more = [o for o in dict.fromkeys(producer.operands) if o not in known]
            params += [Param(o, roles.get(o, "residual")) for o in more]
    kept = tuple(p for p in params if p.value not in again)
    ops = (op for op in forward.before if op.result in again)
    return replace(pullback, params=kept, before=(*ops, *pullback.before))


def _save_sources(saved: dict[Value, Value], defs: dict[Value, Op], again: dict[Value, Op]) -> None:
    """Not what was spread out, but what was spread: it is smaller."""
    for value in list(saved):
        while value in defs and defs[value].opcode in ("broadcast", "spread"):
            op = defs[value]
            if value in saved and value is not op.operands[0]:
                saved.pop(value)
            again[value] = op
            (value,) = op.operands
            saved.setdefault(value, value)


def _recomputation(
    value: Value,
    defs: dict[Value, Op],
    saved: dict[Value, Value],
    again: dict[Value, Op],
    at_hand: set[Value],
    twins: dict[Value, Value],
    inner: set[Value],
) -> list[Value]:
    """The ops to run to have `value` again, in order; empty when it must be saved."""
    order: list[Value] = []
    budget = CHEAP

    def lies_whole(v: Value) -> bool:
        return v in at_hand or v in saved or twins.get(v) in saved

    def reach(v: Value, top: bool) -> bool:
        nonlocal budget
        if v not in inner or v in at_hand or v in order or v in again:
            return True
        # A twin may stand in only if it is saved for sure, not itself up for recomputation.
        if not top and (v in saved or twins.get(v) in saved):
            return True
        if v not in defs:
            return False
        op = defs[v]
        opdef = OPS[op.opcode]
        weights_only = not op.result.type.axes
        # A draw is a function of seed and place: masks are drawn again, not kept. A part of what
        # is saved whole is read there.
        light = (
            weights_only
            or opdef.kind in (Kind.POINTWISE, Kind.LEAF, Kind.RANDOM)
            or op.opcode in ("broadcast", "spread")
            or (op.opcode in ("slice", "strided_slice") and lies_whole(op.operands[0]))
        )
        if opdef.kind is Kind.POINTWISE and not weights_only:
            budget -= opdef.cost
        if not light or budget < 0 or not all(reach(o, False) for o in op.operands):
            return False
        order.append(v)
        return True

    return order if reach(value, True) else []


def _rewrite(
    forward: Program, pullback: Program, again: dict[Value, Op], defs: dict[Value, Op]
) -> tuple[Program, Program]:
    fwd, bwd = forward.scan, pullback.scan
    assert fwd is not None and bwd is not None
    sources = {s.value: s.source for s in fwd.xs}
    targets = {s.value: s.target for s in fwd.ys}
    prefix = [op for v, op in defs.items() if v in again]
    slices = {s.value: s for s in bwd.xs if s.value not in again}
    new_stacks: list[Stack] = []
    new_params: list[Param] = []
    known = {p.value for p in pullback.params}
    roles = {p.value: p.role for p in forward.params}
    inner = set(fwd.entering()) | set(defs)
    for op in prefix:
        for operand in op.operands:
            if operand in again or operand in slices:
                continue
            if operand in inner:
                source = sources.get(operand) or targets.get(operand)
                if source is None:
                    source = Value(operand.name, operand.type.with_axes(operand.type.axes + "T"))
                    new_stacks.append(Stack(operand, source))
                    targets[operand] = source
                slices[operand] = Slice(operand, source)
                operand = source
            if operand not in known:
                known.add(operand)
                new_params.append(Param(operand, roles.get(operand, "residual")))
    bwd = Scan(bwd.carries, tuple(slices.values()), (*prefix, *bwd.body), bwd.ys, bwd.reverse)
    pullback = prune(replace(pullback, scan=bwd, params=(*new_params, *pullback.params)))
    fwd = replace(fwd, ys=(*fwd.ys, *new_stacks))
    return replace(forward, scan=fwd), pullback


def _drop_unread(forward: Program, pullback: Program) -> tuple[Program, Program]:
    """Only the residuals the pullback reads, on both sides, under the same names."""
    read = {o for op in pullback.ops() for o in op.operands}
    if pullback.scan:
        read |= {s.source for s in pullback.scan.xs}
        read |= {v for c in pullback.scan.carries for v in (c.init, c.next)}
    read |= {r.value for r in pullback.results}
    params = tuple(p for p in pullback.params if p.value in read or p.role == "cotangent")
    own = {p.value for p in forward.params}  # a pullback's own residuals are no new ones
    wanted = [p.value for p in params if p.role == "residual" and p.value not in own]
    kept = tuple(r for r in forward.results if r.role.kind != "residual")
    saved = tuple(Result(ResultRole("residual", f"{v.name}.{i}"), v) for i, v in enumerate(wanted))
    return prune(replace(forward, results=(*kept, *saved))), replace(pullback, params=params)
