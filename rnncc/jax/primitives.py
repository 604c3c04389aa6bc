"""Calls of kernels as primitives of JAX's, with their derivatives and what vmap makes of them.

    run       tensors -> results
    save      tensors -> results, handle                    the same, where a derivative follows
    push      handle, tensors, tangents -> tangents         linear in the last; its transpose:
    pull      handle, tensors, cotangents -> gradients
    curve     tensors, cotangents, tangents of both -> tangents of gradients; its transpose:
    seconds   tensors, cotangents, tangents -> gradients of sum(tangents * gradients)
    bend      tensors, tangents, tangents -> what curves a push; only its transpose is computed

So forward and reverse mode may be asked for in any order, twice: `seconds` is one kernel's, and all
of them are parts of it (`numbers`). A third derivative is refused, and so is forward mode of
forward mode, which would need one.

Parameters. call: a Callee. given, wanted: of the tensors; present: of the cotangents of results:
which of them are among the operands, and which gradients are asked for.

Non-Goals: what kernels compute (`rnncc.operations`); how XLA calls them (`callee`); what vmap makes
of them (`batching`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from rnncc.jax.batching import batched
from rnncc.jax.callee import Callee
from rnncc.jax.flags import Flags, chosen, cut, spread


def _primitive(name: str) -> Primitive:
    primitive = Primitive(f"rnncc_{name}")
    primitive.multiple_results = True
    return primitive


run_p, save_p, push_p, pull_p = map(_primitive, ("run", "save", "push", "pull"))
curve_p, seconds_p, bend_p = map(_primitive, ("curve", "seconds", "bend"))


# ---- derivatives ---------------------------------------------------------------------------------


def _is_zero(tangent: Any) -> bool:
    return type(tangent) is ad.Zero or tangent.dtype == jax.dtypes.float0


def _flags(tangents: Sequence[Any]) -> Flags:
    return tuple(not _is_zero(t) for t in tangents)


def _zero(value: Any) -> Any:
    return ad.Zero(jax.typeof(value).to_tangent_aval())


def _sum(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
    return [ad.add_tangents(x, y) for x, y in zip(a, b, strict=True)]


def _jvp_run(primals: Sequence[Any], tangents: Sequence[Any], *, call: Callee) -> Any:
    given = _flags(tangents)
    *results, handle = save_p.bind(*primals, call=call)
    pushed = push_p.bind(handle, *primals, *chosen(tangents, given), call=call, given=given)
    return results, pushed


def _jvp_save(primals: Sequence[Any], tangents: Sequence[Any], *, call: Callee) -> Any:
    given = _flags(tangents)
    *results, handle = save_p.bind(*primals, call=call)
    pushed = push_p.bind(handle, *primals, *chosen(tangents, given), call=call, given=given)
    return [*results, handle], [*pushed, _zero(handle)]


def _transpose_push(cotangents: Sequence[Any], *operands: Any, call: Callee, given: Flags) -> Any:
    handle, tensors, _ = cut(operands, 1, call.operands)
    present = _flags(cotangents)
    nothing = [None] * (1 + call.operands)
    if not any(present):
        return [*nothing, *(ad.Zero(t.aval) for t in operands[1 + call.operands :])]
    pulled = pull_p.bind(
        *handle, *tensors, *chosen(cotangents, present), call=call, wanted=given, present=present
    )
    return [*nothing, *pulled]


def _jvp_push(
    primals: Sequence[Any], tangents: Sequence[Any], *, call: Callee, given: Flags
) -> Any:
    handle, tensors, pushed = cut(primals, 1, call.operands)
    _, d_tensors, d_pushed = cut(tangents, 1, call.operands)
    results = push_p.bind(*primals, call=call, given=given)
    found: list[Any] = [_zero(r) for r in results]
    if not all(map(_is_zero, d_pushed)):
        moved = [ad.instantiate_zeros(t) for t in d_pushed]
        found = push_p.bind(*handle, *tensors, *moved, call=call, given=given)
    bent = _flags(d_tensors)
    if any(bent):
        more = bend_p.bind(
            *tensors, *pushed, *chosen(d_tensors, bent), call=call, given=given, wanted=bent
        )
        found = _sum(found, more)
    return results, found


def _transpose_bend(
    cotangents: Sequence[Any], *operands: Any, call: Callee, given: Flags, wanted: Flags
) -> Any:
    tensors, pushed, _ = cut(operands, call.operands, sum(given))
    present = _flags(cotangents)
    nothing = [None] * (call.operands + sum(given))
    if not any(present):
        return [*nothing, *(ad.Zero(t.aval) for t in operands[len(nothing) :])]
    second = seconds_p.bind(
        *tensors,
        *chosen(cotangents, present),
        *pushed,
        call=call,
        present=present,
        given=given,
        back=(False,) * len(present),
        wanted=wanted,
    )
    return [*nothing, *second]


def _jvp_pull(
    primals: Sequence[Any], tangents: Sequence[Any], *, call: Callee, wanted: Flags, present: Flags
) -> Any:
    _, tensors, cotangents = cut(primals, 1, call.operands)
    _, d_tensors, d_cotangents = cut(tangents, 1, call.operands)
    results = pull_p.bind(*primals, call=call, wanted=wanted, present=present)
    given = _flags(d_tensors)
    moved = tuple(spread(_flags(d_cotangents), present, False))
    found = curve_p.bind(
        *tensors,
        *cotangents,
        *chosen(d_tensors, given),
        *(t for t in d_cotangents if not _is_zero(t)),
        call=call,
        wanted=wanted,
        present=present,
        given=given,
        moved=moved,
    )
    return results, found


def _transpose_pull(
    cotangents: Sequence[Any], *operands: Any, call: Callee, wanted: Flags, present: Flags
) -> Any:
    """A pull is linear in its cotangents."""
    handle, tensors, linear = cut(operands, 1, call.operands)
    nothing = [None] * (1 + call.operands)
    given = tuple(spread(_flags(cotangents), wanted, False))
    if not any(given):
        return [*nothing, *(ad.Zero(c.aval) for c in linear)]
    asked = [d for d in cotangents if not _is_zero(d)]
    pushed = push_p.bind(*handle, *tensors, *asked, call=call, given=given)
    return [*nothing, *chosen(pushed, present)]


def _transpose_curve(
    cotangents: Sequence[Any],
    *operands: Any,
    call: Callee,
    wanted: Flags,
    present: Flags,
    given: Flags,
    moved: Flags,
) -> Any:
    read = call.operands + sum(present)
    tensors, kept, linear = cut(operands, call.operands, sum(present))
    asked = tuple(spread(_flags(cotangents), wanted, False))
    if not any(asked):
        return [*[None] * read, *(ad.Zero(t.aval) for t in linear)]
    second = seconds_p.bind(
        *tensors,
        *kept,
        *(d for d in cotangents if not _is_zero(d)),
        call=call,
        present=present,
        given=asked,
        back=moved,
        wanted=given,
    )
    back, grads = cut(second, sum(moved))
    return [*[None] * read, *grads, *back]


def _jvp_linear(
    primitive: Primitive,
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    call: Callee,
    present: Flags,
    **flags: Flags,
) -> Any:
    """Curves and seconds are linear in the tangents they read; by all else it would be a third
    derivative."""
    read = call.operands + sum(present)
    if not all(map(_is_zero, tangents[:read])):
        raise _no_third(call)
    results = primitive.bind(*primals, call=call, present=present, **flags)
    moved = [ad.instantiate_zeros(t) for t in tangents[read:]]
    return results, primitive.bind(*primals[:read], *moved, call=call, present=present, **flags)


def _transpose_seconds(
    cotangents: Sequence[Any],
    *operands: Any,
    call: Callee,
    present: Flags,
    given: Flags,
    back: Flags,
    wanted: Flags,
) -> Any:
    read = call.operands + sum(present)
    asked = _flags(cotangents)
    moved = tuple(spread(asked[: sum(back)], back, False))
    tangents = tuple(spread(asked[sum(back) :], wanted, False))
    if not any(asked):
        return [*[None] * read, *(ad.Zero(t.aval) for t in operands[read:])]
    d_back, d_tensors = cut(cotangents, sum(back))
    curved = curve_p.bind(
        *operands[:read],
        *(d for d in d_tensors if not _is_zero(d)),
        *(d for d in d_back if not _is_zero(d)),
        call=call,
        wanted=given,
        present=present,
        given=tangents,
        moved=moved,
    )
    return [*[None] * read, *curved]


def _jvp_bend(*_: Any, call: Callee, **__: Any) -> Any:
    raise _no_third(call)


def _no_third(call: Callee) -> NotImplementedError:
    return NotImplementedError(
        f"third derivatives of {call.name} are not available: kernels are made of first and second "
        "ones"
    )


# ---- shapes and kernels --------------------------------------------------------------------------


def _define(
    primitive: Primitive, name: str, jvp: Callable[..., Any], transpose: Callable[..., Any] | None
) -> None:
    def abstract(*operands: Any, call: Callee, **flags: Any) -> Any:
        shapes = call.shapes(name, operands, **flags)
        return [jax.core.ShapedArray(s.shape, s.dtype) for s in shapes]

    def computed(*operands: Any, call: Callee, **flags: Any) -> Any:
        return tuple(call.call_out(name, operands, **flags))

    def eagerly(*operands: Any, **flags: Any) -> Any:
        return _jitted(primitive, tuple(sorted(flags.items())))(*operands)

    primitive.def_impl(eagerly)
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(computed, multiple_results=True))
    ad.primitive_jvps[primitive] = jvp
    if transpose is not None:
        ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = partial(batched, primitive)


@lru_cache(maxsize=1024)
def _jitted(primitive: Primitive, flags: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    return jax.jit(partial(primitive.bind, **dict(flags)))


_define(run_p, "run", _jvp_run, None)
_define(save_p, "save", _jvp_save, None)
_define(push_p, "push", _jvp_push, _transpose_push)
_define(pull_p, "pull", _jvp_pull, _transpose_pull)
_define(curve_p, "curve", partial(_jvp_linear, curve_p), _transpose_curve)
_define(seconds_p, "seconds", partial(_jvp_linear, seconds_p), _transpose_seconds)
_define(bend_p, "bend", _jvp_bend, _transpose_bend)
