"""A jaxpr that was traced with float32 here and there, computed in float64.

What a step closes over keeps its dtype when the step is traced with float64: operations on that
alone are of float32, and would refuse wider numbers.

Non-Goals: speed; loops of a length that isn't constant, which no step has that can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from rnncc.jax.reading.flat import CALLS, literal

_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def in_float64(jaxpr: Any, given: Sequence[Any]) -> list[Any]:
    """given: its constants, then its arguments."""
    env = dict(zip((*jaxpr.constvars, *jaxpr.invars), map(_wide, given), strict=True))

    def read(v: Any) -> Any:
        return _wide(literal(v.val, v.aval.dtype)) if isinstance(v, Literal) else env[v]

    for eqn in jaxpr.eqns:
        inputs = [read(v) for v in eqn.invars]
        if eqn.primitive.name in CALLS:
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            constants = getattr(inner, "consts", ())
            results = in_float64(getattr(inner, "jaxpr", inner), [*constants, *inputs])
        elif eqn.primitive.name == "scan":
            results = _loop(eqn.params, inputs)
        else:
            params = {k: _DOUBLE if _is_single(v) else v for k, v in eqn.params.items()}
            found = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(params))
            results = found if eqn.primitive.multiple_results else [found]
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _loop(params: dict[str, Any], inputs: list[Any]) -> list[Any]:
    """A scan within the step, step by step."""
    fixed, carries = params["num_consts"], params["num_carry"]
    carry, stacks = inputs[fixed : fixed + carries], inputs[fixed + carries :]
    closed, steps = params["jaxpr"], range(params["length"])
    rows = []
    for i in reversed(steps) if params["reverse"] else steps:
        given = [*closed.consts, *inputs[:fixed], *carry, *(x[i] for x in stacks)]
        found = in_float64(closed.jaxpr, given)
        carry = found[:carries]
        rows.append(found[carries:])
    if params["reverse"]:
        rows.reverse()
    return [*carry, *(jnp.stack([*column]) for column in zip(*rows, strict=True))]


def _is_single(value: Any) -> bool:
    return isinstance(value, np.dtype | type) and value in (_SINGLE, np.float32)


def _wide(x: Any) -> Any:
    return jnp.asarray(x, _DOUBLE) if x.dtype == _SINGLE else x
