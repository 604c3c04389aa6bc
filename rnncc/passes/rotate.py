"""A contraction that only feeds the next step's carry moves to the start of that step.

    next d_h = e + dz @ U'        becomes        carry dz (zeros at first), carry e
                                                 d_h = e + dz_before @ U'      at the start

The textbook adjoint of a gated cell has two dependent stages a step: the pointwise backward,
then dz @ U' for the step before. Rotated, both are one stage: the contraction fills the
accumulators, the pointwise backward is its epilogue. Entry and exit are peeled: the first step
receives the cotangent of the final state in e (the contraction of zeros is skipped), and the
contraction of the last step's dz runs after the loop, where it gives the gradient of the
initial state.

Programs run one step at least: a caller answers for none.

Non-Goals: contractions that something else reads too.
"""

from __future__ import annotations

from dataclasses import replace

from rnncc.ir.builder import Builder
from rnncc.ir.program import Carry, Op, Program, Scan, Value, uses
from rnncc.passes.rewrite import add_leaves, definitions, prune, remap, remap_program


def rotate(program: Program) -> Program:
    scan = program.scan
    if scan is None:
        return program
    readers = uses(program)
    single = {v for v, rs in readers.items() if len(rs) == 1}
    defs = definitions(scan.body)
    inner = set(scan.entering()) | set(defs)
    first, prefix, last = Builder(), Builder(), Builder()
    carries: list[Carry] = []
    suffix: list[Op] = []
    names: dict[Value, Value] = {}
    moved: dict[Value, tuple[Value, Value]] = {}  # dz -> (dz of the step before, the last dz)
    for carry in scan.carries:
        rotated = _split(carry, defs, single, inner)
        if rotated is None:
            carries.append(carry)
            continue
        rest, contractions = rotated
        b = Builder(None, carry.name)
        e = _sum(b, rest) if rest else b.full(0.0, carry.value.type.shape)
        suffix += b.ops
        entry = Value(carry.name, carry.value.type)
        final = Value(carry.name, carry.final.type)
        carries.append(Carry(carry.name, carry.init, entry, e, final))
        # What only enters at the first step has left after it, and there is a first step.
        total: Value = entry
        total_final: Value | None = final if rest else None
        for op in contractions:
            u, w, flipped = _operands(op, inner)
            if u not in moved:
                zero = first.full(0.0, u.type.shape)
                start = first.emit("spread", zero, axes=u.type.axes) if u.type.axes else zero
                moved[u] = (Value(u.name, u.type), Value(u.name, u.type))
                carries.append(Carry(u.name, start, moved[u][0], u, moved[u][1]))
            for builder, source in ((prefix, moved[u][0]), (last, moved[u][1])):
                builder.span = op.span
                pair = (w, source) if flipped else (source, w)
                part = builder.contract(*pair, op.attrs["labels"], name=op.result.name)
                if builder is prefix:
                    total = builder.emit("add", total, part, name=carry.value.name)
                else:
                    total_final = (
                        part
                        if total_final is None
                        else builder.emit("add", total_final, part, name=carry.final.name)
                    )
        names[carry.value] = total
        assert total_final is not None
        names[carry.final] = total_final
    if not names:
        return program
    body = (*prefix.ops, *(remap(op, names) for op in (*scan.body, *suffix)))
    outer_names = {k: v for k, v in names.items() if k not in inner}
    program = replace(
        program,
        before=(*program.before, *first.ops),
        scan=Scan(
            tuple(replace(c, next=names.get(c.next, c.next)) for c in carries),
            scan.xs,
            body,
            tuple(replace(s, value=names.get(s.value, s.value)) for s in scan.ys),
            scan.reverse,
        ),
        after=(*last.ops, *(remap(op, outer_names) for op in program.after)),
        results=tuple(replace(r, value=outer_names.get(r.value, r.value)) for r in program.results),
    )
    return prune(remap_program(program, {}))


def _split(
    carry: Carry, defs: dict[Value, Op], single: set[Value], inner: set[Value]
) -> tuple[list[Value], list[Op]] | None:
    """The terms of next that stay, and the contractions that move."""
    if carry.next not in single:
        return None
    leaves = add_leaves(carry.next, defs, single)
    contractions = [
        defs[v] for v in leaves if v in defs and v in single and _rotatable(defs[v], inner, defs)
    ]
    if not contractions:
        return None
    results = {op.result for op in contractions}
    return [v for v in leaves if v not in results], contractions


def _rotatable(op: Op, inner: set[Value], defs: dict[Value, Op]) -> bool:
    if op.opcode != "contract" or op.attrs["over"]:
        return False
    computed = [o for o in op.operands if o in defs]
    constant = [o for o in op.operands if o not in inner]
    return len(computed) == 1 and len(constant) == 1


def _operands(op: Op, inner: set[Value]) -> tuple[Value, Value, bool]:
    a, b = op.operands
    return (a, b, False) if a in inner else (b, a, True)


def _sum(b: Builder, terms: list[Value]) -> Value:
    total = terms[0]
    for term in terms[1:]:
        total = b.emit("add", total, term)
    return total
