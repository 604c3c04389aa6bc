"""A function of kernels to Numba's LLVM: the passes that generated text has a use for, and no more.

    lowered = lower(function, "void(int64, int64)", number, library)

Left out: closures, `with` and `literal_unroll`, Numba-level inlining (LLVM's remains), array
rewrites, dynamic raises, checks of Numba's IR after each pass. None of them occur in a kernel, or
find anything in one. What a call of these types means is looked up once a process.

Non-Goals: what names in kernels stand for, linking, machine code (`compiler`).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from numba import types
from numba.core import (
    bytecode,
    compiler,
    funcdesc,
    lowering,
    sigutils,
    typed_passes,
    untyped_passes,
)
from numba.core.registry import cpu_target
from numba.core.targetconfig import ConfigStack
from numba.core.types.misc import unliteral

PASSES = (
    untyped_passes.ExtractByteCode,
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference,
    typed_passes.PreLowerStripPhis,
)
# Of whole numbers these mean the same whether one is a constant or not.
ALIKE_FOR_CONSTANTS = frozenset(
    getattr(operator, prefix + name)
    for name in ("add", "sub", "mul", "floordiv", "mod", "lshift", "rshift", "and_", "or_", "xor")
    for prefix in ("", "i")
    if hasattr(operator, prefix + name)
) | {operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne}


class Typing(type(cpu_target.typing_context)):  # type: ignore[misc]
    """Numba's own typing context, which remembers.

    Numba looks through all meanings of an operator, NumPy's for arrays too, at each use; the types
    decide which it is, so it is found once. What isn't found is not remembered.
    """

    def __init__(self) -> None:
        self.__dict__ = cpu_target.typing_context.__dict__
        self.known: dict[Any, Any] = {}

    def refresh(self) -> None:
        """Done once, when this module is imported."""

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        if kws:
            return super().resolve_function_type(func, args, kws)
        args = tuple(args)
        if getattr(func, "typing_key", func) in ALIKE_FOR_CONSTANTS and all(
            isinstance(arg, types.Integer) for arg in args
        ):
            args = tuple([unliteral(arg) for arg in args])
        found = self.known.get((func, args))
        if found is None:
            found = super().resolve_function_type(func, args, kws)
            if found is not None:
                self.known[func, args] = found
        return found


_typing = Typing()


class Lean(compiler.CompilerBase):  # type: ignore[misc]
    """Numba's state for one function, and its way through the passes."""

    def lower(self, identity: Any) -> Any:
        """The function's description; its LLVM is in the library."""
        state, target = self.state, self.state.targetctx
        # Numba asks LLVM, which another thread may keep busy, and parses a text for it; only what
        # a debugger reads would say the size.
        target.get_abi_sizeof = lambda kind: 0
        state.func_id, state.lifted, state.lifted_from = identity, (), None
        with ConfigStack().enter(state.flags.copy()):
            for step in PASSES:
                step().run_pass(state)
            described = funcdesc.PythonFunctionDescriptor.from_specialized_function(
                state.func_ir,
                state.typemap,
                state.return_type,
                state.calltypes,
                mangler=target.mangler,
                inline=state.flags.forceinline,
                noalias=state.flags.noalias,
                abi_tags=[state.flags.get_mangle_string()],
            )
            with target.push_code_library(state.library):
                lowering.Lower(target, state.library, described, state.func_ir).lower()
        return described

    def define_pipelines(self) -> list[Any]:
        """None: there is one way."""
        return []


@dataclass(frozen=True, slots=True)
class Lowered:
    """A function's LLVM is in the library that was given for it."""

    library: Any
    fndesc: Any
    signature: Any


def lower(function: FunctionType, signature: str, number: int | None, library: Any) -> Lowered:
    """What Numba makes of a function: its module, not optimised, and what that is linked with.

    number: what tells it from others of its name in the module's text; None: Numba's count, which
    depends on what else was compiled.
    """
    args, result = sigutils.normalize_signature(signature)
    flags = compiler.Flags()
    # numpy's error model: a division by zero gives inf instead of a Python exception. Nothing in a
    # kernel counts references.
    chosen = {"error_model": "numpy", "nopython": True, "_nrt": False}
    cpu_target.options.parse_as_flags(flags, chosen)
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.no_compile = True
    identity = bytecode.FunctionIdentity.from_function(function)
    if number is not None:
        identity.unique_id = number
        identity.unique_name = f"{identity.func_qualname}${number}"
    lean = Lean(_typing, cpu_target.target_context, library, args, result, flags, {})
    described = lean.lower(identity)
    return Lowered(library, described, lean.state.return_type(*args))
