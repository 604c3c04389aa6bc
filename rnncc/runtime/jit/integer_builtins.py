"""`min` and `max` of two whole numbers, as kernels call them: two instructions each.

Numba's own are functions that it compiles by itself, machine code and all, at the first use in a
process, under names that tell what was compiled before.

Non-Goals: lanes, which have `minimum` and `maximum` of their own.
"""

from __future__ import annotations

from typing import Any

from numba import types

from rnncc.runtime.jit.intrinsics import primitive


def _chosen(relation: str) -> Any:
    def choose(context: Any, a: Any, b: Any) -> Any:
        """a where the relation holds, else b; both int64."""
        if (a, b) != (types.int64, types.int64):
            return None

        def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.select(builder.icmp_signed(relation, *args), *args)

        return types.int64(types.int64, types.int64), emit

    return primitive(choose)


BUILTINS = {"min": _chosen("<"), "max": _chosen(">")}
