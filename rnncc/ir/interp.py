"""The meaning of a Program: a NumPy float64 interpreter, slow and plain, the oracle of every test.

Arrays are [B or 1, T or 1, *features]: an axis a value doesn't vary over has length 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from rnncc.ir.ops import OPS, Kind
from rnncc.ir.program import Op, Program, Type, Value


@dataclass
class Env:
    sizes: Mapping[str, int]
    batch: int
    time: int
    step: int = 0
    first_step: int = 0


def _expand(array: np.ndarray, type_: Type) -> np.ndarray:
    """A user's array, [B?, T?, *features], with an axis of length 1 for each axis it lacks."""
    array = np.asarray(array)
    array = array.astype(np.float64) if type_.dtype == "float" else array
    lead = iter(array.shape)
    shape = [next(lead) if a in type_.axes else 1 for a in "BT"]
    return array.reshape([*shape, *array.shape[len(type_.axes) :]])


def _squeeze(array: np.ndarray, type_: Type, env: Env) -> np.ndarray:
    shape = [n for n, a in zip((env.batch, env.time), "BT", strict=True) if a in type_.axes]
    full = [n if a in type_.axes else 1 for n, a in zip((env.batch, env.time), "BT", strict=True)]
    return np.broadcast_to(array, [*full, *array.shape[2:]]).reshape([*shape, *array.shape[2:]])


def _run(ops: Iterable[Op], values: dict[Value, np.ndarray], env: Env) -> None:
    for op in ops:
        opdef = OPS[op.opcode]
        operands = [values[o] for o in op.operands]
        if opdef.kind is Kind.POINTWISE:
            values[op.result] = opdef.numpy(*operands)
        else:
            values[op.result] = opdef.numpy(op, env, *operands)


def interpret(
    program: Program,
    arguments: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    batch: int,
    time: int,
    first_step: int = 0,
) -> dict[str, np.ndarray]:
    """Every result of the program by name, float64.

    `arguments` holds an array for each parameter, by name: [B, T, *features] with the axes its
    type has. `sizes` binds every size name. first_step: what draws count steps from, for a part
    of a sequence.
    """
    env = Env(sizes, batch, time, first_step=first_step)
    values = {p.value: _expand(arguments[p.value.name], p.value.type) for p in program.params}
    with np.errstate(all="ignore"):
        _run(program.before, values, env)
        if program.scan:
            _scan(program, values, env)
        _run(program.after, values, env)
    return {r.name: _squeeze(values[r.value], r.value.type, env) for r in program.results}


def constants_of(
    program: Program,
    arguments: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    more: Iterable[Op] = (),
) -> dict[Value, np.ndarray]:
    """What the program, and more ops behind it, make of these arguments alone before a loop, of
    one row: weights, perhaps states, and all that follows from them, [1, 1, *features], float64."""
    env = Env(sizes, 1, 1)
    values = {
        p.value: _expand(arguments[p.value.name], p.value.type)
        for p in program.params
        if p.value.name in arguments
    }
    with np.errstate(all="ignore"):
        for op in (*program.before, *more):
            if op.opcode != "uniform" and all(o in values for o in op.operands):
                _run([op], values, env)
    return values


def _scan(program: Program, values: dict[Value, np.ndarray], env: Env) -> None:
    scan = program.scan
    assert scan is not None
    carry = [values[c.init] for c in scan.carries]
    stacks: list[list[np.ndarray]] = [[] for _ in scan.ys]
    steps = range(env.time)
    for env.step in reversed(steps) if scan.reverse else steps:
        inner = dict(values)
        inner.update(zip((c.value for c in scan.carries), carry, strict=True))
        for xs in scan.xs:
            inner[xs.value] = values[xs.source][:, env.step : env.step + 1]
        _run(scan.body, inner, env)
        carry = [inner[c.next] for c in scan.carries]
        for stack, ys in zip(stacks, scan.ys, strict=True):
            stack.append(inner[ys.value])
    for c, array in zip(scan.carries, carry, strict=True):
        values[c.final] = array
    for ys, stack in zip(scan.ys, stacks, strict=True):
        ordered = stack[::-1] if scan.reverse else stack
        rows = max((s.shape[0] for s in ordered), default=1)
        features = [s.evaluate(env.sizes) for s in ys.value.type.shape]
        values[ys.target] = (
            np.concatenate([np.broadcast_to(s, (rows, *s.shape[1:])) for s in ordered], axis=1)
            if ordered
            else np.zeros((env.batch, 0, *features))
        )
    env.step = 0
