"""What a direction's tables say of its kernels, and of results that a caller chooses.

Non-Goals: numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rnncc.artifact.kernel_args import addresses
from rnncc.artifact.kernel_tables import BufferSpec, DirectionSpec, KernelSpec, ResultSpec
from rnncc.common.size_expressions import evaluate
from rnncc.runtime.planning.call_key import CallKey
from rnncc.runtime.planning.layouts import axes_of


def touched(direction: DirectionSpec, kernel: KernelSpec) -> set[str]:
    """The buffers a kernel reads or writes."""
    names = addresses(kernel.words)
    if kernel.function is None:
        for stage in direction.stages:
            if stage.name not in kernel.stages:
                continue
            names |= {o.source.buffer for c in stage.cores for o in c.operands}
            names |= {c.out.buffer for c in stage.cores if c.out}
            if stage.grad:
                sources = (stage.grad.a, stage.grad.d, stage.grad.out)
                names |= {s.buffer for s in sources if s}
    return names


def chosen_results(direction: DirectionSpec, wanted: frozenset[str] | None) -> list[ResultSpec]:
    """The results asked for by these names; None is all but those of carries that nobody sees."""
    return [
        p
        for p in direction.results
        if p.kind != "residual" and (p.name in wanted if wanted is not None else p.kind != "held")
    ]


def needed_kernels(
    direction: DirectionSpec, places: Iterable[ResultSpec], wanted: frozenset[str] | None
) -> set[str]:
    """Kernels that such results depend on: of those behind the loop, not all."""
    kept = [p for p in direction.results if p.kind == "residual"]
    buffers = {s.buffer for p in (*places, *kept) for s in (p.source, *p.parts)}
    needed: set[str] = set()
    for kernel in reversed(direction.kernels):
        if wanted is None or kernel.phase != "after" or buffers.intersection(kernel.writes):
            needed.add(kernel.name)
            buffers |= touched(direction, kernel)
    return needed


def result_shape(
    place: ResultSpec, buffers: Mapping[str, BufferSpec], call: CallKey
) -> tuple[int, ...]:
    """Of a result, as its caller sees it."""
    sizes, axes = dict(call.sizes), axes_of(place, buffers)
    if call.last_only and place.kind == "output":
        axes = axes.replace("T", "")
    shape = [evaluate(s, sizes) for s in buffers[place.source.buffer].shape]
    if place.parts:
        along = [buffers[s.buffer].shape[place.axis] for s in place.parts]
        shape[place.axis] = sum(evaluate(s, sizes) for s in along)
    return (*({"B": call.batch, "T": call.time}[a] for a in axes), *shape)
