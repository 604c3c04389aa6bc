"""A jaxpr -> a list of equations, with what is called within opened.

jit, remat and calls are opened; loops of a constant length that are short are written out. Rules of
one's own for derivatives (custom_jvp, custom_vjp) stay one equation, which holds what it calls.

Non-Goals: what primitives mean (`words`).
"""

from __future__ import annotations

import linecache
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from rnncc.reading.graph import Origin, Unreadable

CALLS = frozenset(
    ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "core_closed_call")
)
_OWN_RULES = frozenset(("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"))
MOST_EQUATIONS = 4000  # of a step whose loops are written out


@dataclass(frozen=True, slots=True)
class FlatArray:
    """shape and dtype of a value of JAX's."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


Read = int | np.ndarray  # the number of a value, or a literal


@dataclass(slots=True)
class FlatEquation:
    """outputs = name(*inputs, **params). body: of an equation with rules of its own, what it calls;
    back: its gradient, of its one argument and a cotangent, where it has one argument."""

    name: str
    params: dict[str, Any]
    inputs: tuple[Read, ...]
    outputs: tuple[int, ...]
    origin: Origin
    body: Flat | None = None
    back: Flat | None = None


@dataclass(slots=True)
class Flat:
    """arrays: of all values, by their numbers. inputs: the closed-over ones first."""

    arrays: list[FlatArray] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    equations: list[FlatEquation] = field(default_factory=list)
    outputs: list[Read] = field(default_factory=list)

    def new(self, shape: Sequence[int], dtype: Any) -> int:
        self.arrays.append(FlatArray(tuple(shape), np.dtype(dtype)))
        return len(self.arrays) - 1


def flatten(closed: ClosedJaxpr | Jaxpr, rules: bool = True) -> Flat:
    """RefusedAt for loops that can't be written out. rules: whether gradients of what has rules of
    its own are asked for."""
    jaxpr = getattr(closed, "jaxpr", closed)
    flat = Flat()
    for var in (*jaxpr.constvars, *jaxpr.invars):
        flat.inputs.append(flat.new(var.aval.shape, _dtype(var.aval)))
    flat.outputs = [*_Opening(flat, rules).open(jaxpr, flat.inputs, Origin(""))]
    _leave_out(flat)
    return flat


def _leave_out(flat: Flat) -> None:
    """What nothing reads."""
    read = {v for v in flat.outputs if isinstance(v, int)}
    alive = []
    for e in reversed(flat.equations):
        if not read.isdisjoint(e.outputs):
            alive.append(e)
            read.update(v for v in e.inputs if isinstance(v, int))
    flat.equations = alive[::-1]


def _dtype(aval: Any) -> Any:
    """Of an array; keys of random numbers have none of NumPy's."""
    try:
        return np.dtype(aval.dtype)
    except TypeError:
        return np.dtype("V1")


class RefusedAt(Exception):
    """Unreadable, at an equation."""

    def __init__(self, origin: Origin, why: str) -> None:
        super().__init__(f"{origin} {why}")
        self.origin, self.why = origin, why


class _Opening:
    """Writes equations of jaxprs within jaxprs into one list."""

    def __init__(self, flat: Flat, rules: bool) -> None:
        self.flat, self.rules = flat, rules

    def open(self, jaxpr: Any, given: Sequence[Read], within: Origin) -> list[Read]:
        """What the jaxpr makes of those. given: its constants, then its arguments."""
        env: dict[Any, Read] = dict(zip((*jaxpr.constvars, *jaxpr.invars), given, strict=True))

        def read(v: Any) -> Read:
            return literal(v.val, v.aval.dtype) if isinstance(v, Literal) else env[v]

        for eqn in jaxpr.eqns:
            self.jaxpr = jaxpr
            origin = _origin(eqn, within)
            inputs = [read(v) for v in eqn.invars]
            try:
                outputs = self._equation(eqn, inputs, origin)
            except Unreadable as why:
                raise RefusedAt(origin, str(why)) from None
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: list[Read], origin: Origin) -> Sequence[Read]:
        name, params = eqn.primitive.name, dict(eqn.params)
        if name in CALLS:
            inner, constants = _inner(params)
            return self.open(inner, [*constants, *inputs], origin)
        if name == "scan":
            return self._loop(eqn, inputs, origin)
        if name == "cond" and isinstance(inputs[0], np.ndarray):
            branch = params["branches"][int(inputs[0])]
            return self.open(branch.jaxpr, [*_constants(branch), *inputs[1:]], origin)
        body = back = None
        if name in _OWN_RULES:
            body = flatten(params.get("call_jaxpr") or params["fun_jaxpr"], self.rules)
            back = self._back(eqn) if self.rules else None
        outputs = tuple(self.flat.new(v.aval.shape, _dtype(v.aval)) for v in eqn.outvars)
        self.flat.equations.append(
            FlatEquation(name, params, tuple(inputs), outputs, origin, body, back)
        )
        if len(self.flat.equations) > MOST_EQUATIONS:
            raise Unreadable(f"makes more than {MOST_EQUATIONS} operations of a step")
        return outputs

    def _back(self, eqn: Any) -> Flat | None:
        """JAX's own gradient of an equation with one argument that isn't a literal."""
        free = [v for v in eqn.invars if not isinstance(v, Literal)]
        if len(free) != 1 or len(eqn.outvars) != 1 or eqn.effects:
            return None
        alone = self.jaxpr.replace(
            eqns=[eqn], invars=free, outvars=[*eqn.outvars], constvars=[], effects=eqn.effects
        )
        run = jaxpr_as_fun(ClosedJaxpr(alone, []))
        x, y = (jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in (*free, *eqn.outvars))
        if not all(jax.numpy.issubdtype(a.dtype, jax.numpy.floating) for a in (x, y)):
            return None

        def gradient(x: Any, d: Any) -> Any:
            return jax.vjp(lambda v: run(v)[0], x)[1](d)

        return flatten(jax.make_jaxpr(gradient)(x, y), rules=False)

    def _loop(self, eqn: Any, inputs: list[Read], origin: Origin) -> list[Read]:
        """A scan within the step, step by step."""
        params = eqn.params
        constants, carries = params["num_consts"], params["num_carry"]
        fixed, carry = inputs[:constants], inputs[constants : constants + carries]
        stacks = inputs[constants + carries :]
        closed = params["jaxpr"]
        steps = range(params["length"])
        rows: list[list[Read]] = []
        for i in reversed(steps) if params["reverse"] else steps:
            parts = [self._row(x, i, origin) for x in stacks]
            found = self.open(closed.jaxpr, [*_constants(closed), *fixed, *carry, *parts], origin)
            carry = found[:carries]
            rows.append(found[carries:])
        if params["reverse"]:
            rows.reverse()
        if not rows and len(eqn.outvars) > carries:
            raise Unreadable("runs over no steps")
        stacked = [self._stack([*column], origin) for column in zip(*rows, strict=True)]
        return [*carry, *stacked]

    def _array(self, x: Read) -> FlatArray:
        return FlatArray(x.shape, x.dtype) if isinstance(x, np.ndarray) else self.flat.arrays[x]

    def _add(self, name: str, params: Any, inputs: Sequence[Read], shape: Any, origin: Any) -> int:
        out = self.flat.new(shape, self._array(inputs[0]).dtype)
        self.flat.equations.append(FlatEquation(name, params, tuple(inputs), (out,), origin))
        return out

    def _row(self, x: Read, i: int, origin: Origin) -> Read:
        shape = self._array(x).shape
        part = self._add("take_row", {"index": i}, [x], (1, *shape[1:]), origin)
        return self._add("squeeze", {"dimensions": (0,)}, [part], shape[1:], origin)

    def _stack(self, rows: list[Read], origin: Origin) -> Read:
        shape = self._array(rows[0]).shape
        places = tuple(range(1, len(shape) + 1))
        dims = {"broadcast_dimensions": places, "shape": (1, *shape)}
        parts = [self._add("broadcast_in_dim", dims, [r], (1, *shape), origin) for r in rows]
        return self._add("concatenate", {"dimension": 0}, parts, (len(rows), *shape), origin)


def _inner(params: dict[str, Any]) -> tuple[Any, list[Read]]:
    closed = params.get("jaxpr", params.get("call_jaxpr"))
    return getattr(closed, "jaxpr", closed), _constants(closed)


def _constants(closed: Any) -> list[Read]:
    return [np.asarray(c) for c in getattr(closed, "consts", ())]


def literal(value: Any, dtype: Any) -> np.ndarray:
    """A literal; a float32 as the shortest decimal that rounds to it, which is what was written."""
    array = np.asarray(value, dtype)
    if array.dtype == np.float32 and array.ndim == 0:
        return np.asarray(float(str(array[()])))
    return array


# ---- where it comes from -------------------------------------------------------------------------


def _origin(eqn: Any, within: Origin) -> Origin:
    name = eqn.primitive.name
    for file, line in _frames(eqn.source_info):
        return Origin(name, file, line, linecache.getline(file, line).strip())
    return Origin(name, within.file, within.line, within.text)


def _frames(source: Any) -> Iterator[tuple[str, int]]:
    """The innermost frame outside of JAX, if there is one."""
    try:
        from jax._src import source_info_util

        frame = source_info_util.user_frame(source.traceback)
    except Exception:  # another version of JAX: no line is better than no message
        return
    if frame is not None and not frame.file_name.startswith("<frozen"):
        yield frame.file_name, frame.start_line


# ---- the same in every process -------------------------------------------------------------------


def text_of(flat: Flat) -> str:
    """What is computed, as a key."""
    lines = [_shown(flat, flat.inputs)]
    for e in flat.equations:
        params = {k: v for k, v in sorted(e.params.items()) if is_plain(v)}
        body = "".join(f"{{{text_of(f)}}}" for f in (e.body, e.back) if f is not None)
        lines.append(f"{_shown(flat, e.outputs)}={e.name}{params}({_shown(flat, e.inputs)}){body}")
    lines.append(_shown(flat, flat.outputs))
    return "\n".join(lines)


def _shown(flat: Flat, values: Sequence[Read]) -> str:
    def one(v: Read) -> str:
        if isinstance(v, np.ndarray):
            return f"{v.dtype}{v.tolist()}"
        a = flat.arrays[v]
        return f"{v}:{a.dtype}{[*a.shape]}"

    return ",".join(map(one, values))


def is_plain(value: Any) -> bool:
    """Whether a parameter says what it is: functions and jaxprs don't."""
    if isinstance(value, tuple | list):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | int | float | bool | np.dtype | type)
