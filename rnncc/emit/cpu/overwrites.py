"""Rows that start anew: what a step hands on is written as it is, and over it in those rows.

    every vector    h_out = select(restart of the row, start, h)
    ->              h_out = h
    then, a row     if restart of the row: h_out = start

A flag of a row is the same for all of its lanes, and few rows have one: so it is asked once a row
and step, not in every vector, and what later loops of the epilogue read again is there already.

Non-Goals: selects that something else in the stage reads; flags of lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeGuard

from rnncc.emit.shared.addresses import Addresses
from rnncc.emit.shared.views import Overwrite
from rnncc.ir.program import Op, Value
from rnncc.schedule.model import LaneStage, Store, View

Selected = Mapping[Op, Store]  # a select by a flag of the row -> where what it gives is stored


def selected_rows(stage: LaneStage, leaves: Mapping[Value, Op]) -> Selected:
    """The selects of a stage that are only stored, each once and for all of the row's lanes, of
    an argument of the call or a number and anything else."""
    if len(stage.shape) != 1:
        return {}
    read = {o for op in stage.ops for o in op.operands}
    stores: dict[Value, list[Store]] = {}
    for store in stage.stores:
        stores.setdefault(store.value, []).append(store)
    found = {}
    for op in stage.ops:
        if op.opcode != "where" or op.result in read or len(stores.get(op.result, ())) != 1:
            continue
        flag, start, last = op.operands
        (store,) = stores[op.result]
        whole = store.is_whole and store.view.buffer.shape == stage.shape
        given = stage.reads.get(flag)
        of_row = _is_given(given) and all(axis is None for axis in given.axes)
        number = start in leaves and "value" in leaves[start].attrs
        if (
            whole
            and last not in leaves
            and of_row
            and (number or _is_given(stage.reads.get(start)))
        ):
            found[op] = store
    return found


def _is_given(view: View | None) -> TypeGuard[View]:
    """Whether it is there still when a stage is done: a carry's next slot may be the same."""
    return view is not None and view.buffer.storage == "param"


def overwrites(
    at: Addresses, stage: LaneStage, selected: Selected, leaves: Mapping[Value, Op]
) -> Iterator[Overwrite]:
    """A statement for each flag; its rows are `r`, its lanes `q`."""
    flags = dict.fromkeys(op.operands[0] for op in selected)
    for flag in flags:
        lines = []
        for op, store in selected.items():
            if op.operands[0] is not flag:
                continue
            start = op.operands[1]
            lines.append(f"v.store({_row(at, store.view)} + q, {_start(at, stage, start, leaves)})")
        yield Overwrite(f"v.any(v.broadcast({_row(at, stage.reads[flag])}) != 0.0)", lines)


def _start(at: Addresses, stage: LaneStage, start: Value, leaves: Mapping[Value, Op]) -> str:
    if start in leaves:
        return f"v.splat({float(leaves[start].attrs['value'])!r})"
    view = stage.reads[start]
    if view.axes[-1] is None:
        return f"v.broadcast({_row(at, view)})"
    return f"v.load({_row(at, view)} + q)"


def _row(at: Addresses, view: View) -> str:
    return at.pointer(view) + at.row_terms(view)
