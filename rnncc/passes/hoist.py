"""What doesn't depend on the carry leaves the loop.

Contractions, reductions, moves of elements and everything computed from weights alone go to
`before`, with whatever they need. Cheap lane-by-lane work stays in the step: there it costs less
than the memory to carry it in; what something that leaves needs, too, is made twice. Sums are
regrouped first, so that in `x @ W + h @ U + b` the terms that can leave, `x @ W + b`, leave
together.

    >>> from rnncc.lowering.examples import example, outline
    >>> cell = example("h[t] = tanh(x[t] @ W + h[t-1] @ U + b)")
    >>> outline(cell)
    scan:
      carry _h_1, from h
      x_1 = x[t]
        _0 = contract(x_1, W, labels=(k, kl, l))
        _1 = contract(_h_1, U, labels=(k, kl, l))
        _2 = add(_0, _1)
        _3 = add(_2, b)
        h_1 = tanh(_3)
      next _h_1 = h_1; last is final_h
      h_2[t] = h_1
    >>> outline(hoist(cell))
    before:
      _0 = contract(x, W, labels=(k, kl, l))
      _1 = add(b, _0)
    scan:
      carry _h_1, from h
      _2 = _1[t]
        _3 = contract(_h_1, U, labels=(k, kl, l))
        _4 = add(_2, _3)
        h_1 = tanh(_4)
      next _h_1 = h_1; last is final_h
      h_2[t] = h_1

Non-Goals: time blocks (the schedule), values that only leave the loop (`defer`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from rnncc.ir.builder import Builder
from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Program, Scan, Slice, Value, uses
from rnncc.ir.rewrite import (
    add_leaves,
    definitions,
    is_inner_add,
    prune,
    remap,
    remap_program,
    sum_of,
)

SPREADING = ("broadcast", "spread")
PLAIN = 2  # cycles a vector, at most, of what is made again


def hoist(program: Program) -> Program:
    if program.scan is None:
        return program
    program = _regroup(program)
    scan = program.scan
    assert scan is not None
    free, constant = _carry_free(scan)
    moving = _moving(scan, free - _of_own_matrices(scan), constant)
    return _moved(program, scan, moving, _made_again(moving, constant))


def hoist_weights(program: Program) -> Program:
    """What weights alone make leaves the loop before it is differentiated: its gradient is summed
    over rows and steps first, and then goes back to the weights once.

    >>> from rnncc.lowering.examples import example, outline
    >>> outline(hoist_weights(example("h[t] = tanh(-b) * h[t-1] + x[t] @ W")))
    before:
      _0 = neg(b)
      _1 = tanh(_0)
    scan:
      carry _h_1, from h
      x_1 = x[t]
        _2 = mul(_1, _h_1)
        _3 = contract(x_1, W, labels=(k, kl, l))
        h_1 = add(_2, _3)
      next _h_1 = h_1; last is final_h
      h_2[t] = h_1

    Parts of weights stay where they are read: their gradients are parts as well.
    """
    scan = program.scan
    if scan is None:
        return program
    _, constant = _carry_free(scan)
    trained = {p.value for p in program.params if p.role == "weight"}
    computed: list[Op] = []
    for op in scan.body:
        if op.result in constant and not op.result.type.axes and trained.intersection(op.operands):
            trained.update(op.results)
            if OPS[op.opcode].kind is not Kind.LAYOUT:
                computed.append(op)
    return _moved(program, scan, _with_operands(scan, computed))


def _moved(
    program: Program, scan: Scan, moving: Collection[Op], again: Collection[Op] = ()
) -> Program:
    """These ops before the loop, over all steps at once. again: of them, those that a step that
    reads them makes by itself."""
    if not moving:
        return program
    outer: dict[Value, Value] = {s.value: s.source for s in scan.xs}
    before, body = list(program.before), []
    for op in scan.body:
        if op not in moving or op in again:
            body.append(op)
        if op not in moving:
            continue
        lifted = _lift(op, outer)
        outer[op.result] = lifted.result
        before.append(lifted)
    xs = list(scan.xs)
    rename: dict[Value, Value] = {}
    for op in (op for op in moving if op not in again):
        lifted_value = outer[op.result]
        if "T" in lifted_value.type.axes:
            xs.append(Slice(op.result, lifted_value))
        else:
            rename[op.result] = lifted_value
    scan = Scan(scan.carries, tuple(xs), tuple(body), scan.ys, scan.reverse)
    return prune(remap_program(replace(program, before=tuple(before), scan=scan), rename))


def _lift(op: Op, outer: dict[Value, Value]) -> Op:
    """The op over all steps at once."""
    op = remap(op, outer)
    attrs = dict(op.attrs)
    if op.opcode == "uniform" and attrs["per"] == "step":
        attrs["axes"] = "".join(sorted(set(attrs["axes"]) | {"T"}))
    result = op.result
    type_ = OPS[op.opcode].infer(attrs, *(o.type for o in op.operands))
    return replace(op, attrs=attrs, results=(Value(result.name, type_),))


def _carry_free(scan: Scan) -> tuple[set[Value], set[Value]]:
    """Inner values that don't depend on a carry; those of them that depend on no step either."""
    carried = {c.value for c in scan.carries}
    varying = carried | {s.value for s in scan.xs}
    free, constant = {s.value for s in scan.xs}, set()
    dependent, moves = set(carried), set(varying)
    for op in scan.body:
        stepwise = op.opcode == "uniform" and op.attrs["per"] == "step"
        if dependent.intersection(op.operands):
            dependent.add(op.result)
        else:
            free.add(op.result)
        if moves.intersection(op.operands) or stepwise:
            moves.add(op.result)
        else:
            constant.add(op.result)
    return free, constant


def _moving(scan: Scan, free: set[Value], weight_only: set[Value]) -> dict[Op, None]:
    defs = definitions(scan.body)
    chosen: dict[Op, None] = {}
    # What all rows of a step have in common, no row of the loop may write.
    rowless = {op.result for op in scan.body if "B" not in op.result.type.axes}
    shared = rowless - weight_only

    def choose(op: Op) -> None:
        if op in chosen:
            return
        for operand in op.operands:
            if operand in defs:
                choose(defs[operand])
        chosen[op] = None

    for op in scan.body:
        kind = OPS[op.opcode].kind
        heavy = kind not in (Kind.POINTWISE, Kind.LEAF) and op.opcode not in (
            *SPREADING,
            "slice",
        )
        if op.result in weight_only and kind is not Kind.LEAF and op.opcode not in SPREADING:
            choose(op)
        elif op.result in free and (heavy or op.result in shared):
            choose(op)
        elif (
            op.opcode == "add"
            and op.result in free
            and set(op.operands) & {c.result for c in chosen if c.opcode in ("contract", "add")}
        ):
            choose(op)  # x @ W + b: the bias starts the accumulator
    return chosen


def _of_own_matrices(scan: Scan) -> set[Value]:
    """What products with a matrix of each row's own lead to, where the step's arithmetic makes that
    matrix and no later step needs the product: no other row reads the matrix, and a step has it in
    the cache. `defer` takes what is behind it out of the loop."""
    defs = definitions(scan.body)
    later = {c.next for c in scan.carries}
    for op in reversed(scan.body):
        if later.intersection(op.results):
            later.update(op.operands)
    led: set[Value] = set()
    for op in scan.body:
        own = op.opcode == "contract" and all("B" in o.type.axes for o in op.operands)
        matrices = [defs.get(o) for o in op.operands if own and len(o.type.shape) > 1]
        made = any(m is not None and OPS[m.opcode].kind is Kind.POINTWISE for m in matrices)
        if led.intersection(op.operands) or (made and op.result not in later):
            led.update(op.results)
    return led


def _made_again(moving: Iterable[Op], constant: Collection[Value]) -> set[Op]:
    """Of ops that move and that each step has a row of, what is cheaper to make than to read: what
    spreads out something smaller, and arithmetic on nothing but that."""
    made: set[Op] = set()
    small: set[Value] = set()
    for op in moving:
        opdef = OPS[op.opcode]
        plain = opdef.kind is Kind.POINTWISE and opdef.cost <= PLAIN
        if opdef.kind is Kind.LEAF:
            small.update(op.results)
        elif op.result in constant:
            continue
        elif op.opcode in SPREADING or (plain and all(o in small for o in op.operands)):
            made.add(op)
            small.update(op.results)
    return made


def _with_operands(scan: Scan, wanted: Iterable[Op]) -> list[Op]:
    """These ops of the body and those that they need, in order."""
    needed = {v for op in wanted for v in op.results}
    for op in reversed(scan.body):
        if needed.intersection(op.results):
            needed.update(op.operands)
    return [op for op in scan.body if needed.intersection(op.results)]


def _regroup(program: Program) -> Program:
    """In each sum, the terms without a carry first, so that they form a sum of their own."""
    scan = program.scan
    assert scan is not None
    free, _ = _carry_free(scan)
    readers = uses(program)
    single = {v for v, rs in readers.items() if len(rs) == 1}
    defs = definitions(scan.body)
    inner_adds = {
        o
        for op in scan.body
        if op.opcode == "add"
        for o in op.operands
        if is_inner_add(o, defs, single)
    }
    names: dict[Value, Value] = {}
    body: list[Op] = []
    for op in scan.body:
        if op.opcode == "add" and op.result not in inner_adds and op.result not in free:
            leaves = add_leaves(op.result, defs, single)
            inner_values = {s.value for s in scan.xs} | {c.value for c in scan.carries}
            still = [v for v in leaves if v in free or (v not in defs and v not in inner_values)]
            # A number costs nothing where it is; outside it would be an epilogue of its own.
            still = [v for v in still if v not in defs or OPS[defs[v].opcode].kind is not Kind.LEAF]
            rest = [v for v in leaves if v not in still]
            contracts = [v for v in still if v in defs and defs[v].opcode == "contract"]
            if len(still) > 1 and contracts and rest:
                b = Builder(op.span, op.result.name)
                plain = [v for v in still if v not in contracts]
                total = sum_of(b, [*plain, *contracts])
                total = sum_of(b, [total, *rest])
                body += [remap(o, names) for o in b.ops]
                names[op.result] = names.get(total, total)
                continue
        body.append(remap(op, names))
    if not names:
        return program
    new = replace(program, scan=replace(scan, body=tuple(body)))
    return prune(remap_program(new, names))
