"""What one direction ran last -> lines of `plan()`: kernels, threads, tiles, and why.

Non-Goals: choosing any of it (`cpu.kernel_arguments`).
"""

from __future__ import annotations

from rnncc.runtime.cpu.execution.run import Direction, Ran


def plan_side(title: str, side: Direction, ran: Ran | None = None) -> list[str]:
    """One direction's kernels. ran: of an earlier call than the last."""
    prepared, steps, rows = ran or side.ran
    if prepared is None:
        return [f"{title}: has not run"]
    binding = prepared.binding
    call = binding.call
    time, batch = str(call.time), str(call.batch)
    if steps != call.time:
        time = f"{steps} in blocks, the last one of {time}"
    if rows != call.batch:
        batch = f"{rows} in blocks of rows that go on, the last one of {batch}"
    lines = [f"{title}: batch {batch}, time {time}, {dict(call.sizes)}"]
    stages = {s.name: s for s in side.direction.stages}
    for bound in binding.kernels:
        kernel = bound.kernel
        levels = f"{kernel.levels} level{'s' if kernel.levels > 1 else ''}"
        levels += " a step" if kernel.kind == "scan" else ""
        levels += f", {kernel.unroll} steps a turn" if kernel.unroll > 1 else ""
        origin = "generated" if kernel.function else "contractions alone, nothing generated"
        if bound.one_row:
            origin += " for one row that saves nothing"
            origin += ", its cores written out" if bound.inlined else ""
            origin += ", rendered on demand" if kernel.function.render_one_row else ""
        lines.append(f"  {kernel.name}: {kernel.kind}, {levels}, {origin}; {bound.why}")
        for name in kernel.stages:
            tiling, stage = binding.tilings[name], stages[name]
            tile = f"tile {tiling.row_tile} rows x {tiling.unit_blocks} vectors a gate"
            gates = "+".join(str(c.gates) for c in stage.cores)
            what = f"contraction, gates {gates}, fused with its epilogue"
            starts = [c.start for c in stage.cores if c.start]
            if starts:
                where = "in the loop too" if binding.fused.issuperset(starts) else "before the loop"
                what += f"; what doesn't depend on the step before is summed {where}"
            if stage.grad:
                what = "contraction over rows and steps"
            elif kernel.function is None:
                what = "contraction"
            storage = binding.storage(stage).name
            if storage and any(p for c in stage.cores for p in c.packs):
                what += f", weights of {storage}"
            if name in binding.far:
                what += ", weights asked for ahead"
            lines.append(f"    {name}: {what}, {tile}")
    return lines
