"""Contractions as the cores take them: segments side by side in groups, gradients over rows.

Non-Goals: which contractions share a sum (`accumulate`); where their operands are (`region`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from rnncc.ir.program import Op, Value
from rnncc.schedule.accumulate import Sum
from rnncc.schedule.model import Acc, Buffer, GradStage, Group, Segment, View

MAX_GROUP = 4

ViewOf = Callable[[Value], View]


def groups(
    sums: Iterable[Sum], view: ViewOf, by_row: Callable[[Value], bool], zero_start: Set[Buffer]
) -> list[Group]:
    """Accumulators over the same operands side by side, at most MAX_GROUP of them."""
    by_key: dict[tuple[object, ...], list[Acc]] = {}
    for node in sums:
        ahead = node.start.contractions if node.start else ()
        contractions = (*ahead, *node.contractions)
        segments = tuple(_segment(c, view, zero_start) for c in contractions)
        rowwise = any(by_row(c.operands[1]) for c in contractions)
        first = node.start.init if node.start else node.init
        init = view(first) if first is not None else None
        acc = Acc(node.result, segments, contractions, init, len(ahead))
        key: tuple[object, ...] = (rowwise, len(ahead), *(s.shape_key() for s in segments))
        if rowwise:
            key = (*key, node.result)
        by_key.setdefault(key, []).append(acc)
    return [
        Group(tuple(part), bool(key[0])) for key, accs in by_key.items() for part in _chunks(accs)
    ]


def _segment(op: Op, view: ViewOf, zero_start: Set[Buffer]) -> Segment:
    la, lb, out = op.attrs["labels"]
    a, b = op.operands
    summed = [x for x in la if x in lb and x not in out]
    read = view(a)
    sizes = dict(zip(la, a.type.shape, strict=True))
    return Segment(
        read,
        view(b),
        tuple((_axis(la, x), _axis(lb, x)) for x in out[:-1]),
        tuple((la.index(x), lb.index(x)) for x in summed),
        tuple(sizes[x] for x in summed),
        lb.index(out[-1]) if out else None,
        read.slot == "in" and read.buffer in zero_start,
    )


def _axis(labels: str, label: str) -> int | None:
    return labels.index(label) if label in labels else None


def _chunks(accs: list[Acc]) -> list[list[Acc]]:
    """At most four side by side, as even as can be: 5 is 3 and 2."""
    count = -(-len(accs) // MAX_GROUP)
    size = -(-len(accs) // count)
    return [accs[i : i + size] for i in range(0, len(accs), size)]


def grad_stage(name: str, op: Op, target: View, view: ViewOf) -> GradStage:
    """A contraction or a sum over rows and steps."""
    kept = "".join(sorted({a for o in op.operands for a in o.type.axes} - set(op.attrs["over"])))
    if op.opcode == "sum_over":
        (d,) = op.operands
        axes = tuple((None, i) for i in range(len(d.type.shape) - 1))
        return GradStage(name, op, None, view(d), target, axes, None, (), kept)
    a, d = op.operands
    la, lb, out = op.attrs["labels"]
    m = next((x for x in reversed(out[:-1]) if x in la and x not in lb), None)
    summed = [x for x in la if x in lb and x not in out]
    sizes = dict(zip(la, a.type.shape, strict=True))
    outer = tuple((_axis(la, x) if x != m else None, _axis(lb, x)) for x in out[:-1])
    return GradStage(
        name,
        op,
        view(a),
        view(d),
        target,
        outer,
        (la.index(m), out.index(m)) if m else None,
        tuple((la.index(x), lb.index(x), sizes[x]) for x in summed),
        kept,
    )
