"""Operations a Numba function may call that are LLVM instructions: Numba's `@intrinsic`, faster.

    @primitive
    def word(context, address, index):
        def emit(context, builder, sig, args):
            ...
        return types.int64(types.intp, types.intp), emit

The function gets the types of the arguments and returns a signature and what emits the code, or
None where the types don't fit. Numba's own decorator looks through all of its registries at every
call it types, which took a fifth of a cell's compile.

Non-Goals: which operations there are (`scalar_intrinsics`, `simd`, `tile_intrinsics`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from numba.core import types
from numba.core.errors import TypingError
from numba.core.registry import cpu_target
from numba.core.typing.templates import make_concrete_template
from numba.extending import models, register_model, typeof_impl


class Primitive:
    """literal: constants arrive as literal types."""

    def __init__(self, function: Callable[..., Any], literal: bool) -> None:
        self.function, self.literal = function, literal
        self.name = self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        parameters = inspect.signature(function).parameters.values()
        self.arity = len(parameters) - 1
        self.variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self.signatures: dict[tuple[types.Type, ...], Any] = {}
        self.type = PrimitiveType(self)

    def __call__(self, *args: object) -> None:
        raise TypeError(f"{self.name} is an operation of compiled functions")

    def typed(self, context: Any, args: tuple[types.Type, ...]) -> Any:
        """The signature for these types; its code made known to the target. TypingError if none."""
        if not self.literal:
            args = tuple(types.unliteral(a) for a in args)
        if args not in self.signatures:
            fits = self.variadic or len(args) == self.arity
            overload = self.function(context, *args) if fits else None
            if overload is None:
                argument_types = ", ".join(map(str, args))
                raise TypingError(
                    f"{self.name} takes {self.arity} arguments, not ({argument_types})"
                )
            signature, emit = overload
            self.signatures[args] = signature
            key = self.type.get_impl_key(signature)
            cpu_target.target_context._defns[key].append(emit, signature.args)
        return self.signatures[args]


class PrimitiveType(types.Function):
    """What Numba sees of a primitive."""

    def __init__(self, primitive: Primitive) -> None:
        self.primitive = primitive
        super().__init__(make_concrete_template(primitive.name, primitive, []))

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        return self.primitive.typed(context, tuple(args))

    def get_impl_key(self, sig: Any) -> Any:
        return self.primitive, sig.args


register_model(PrimitiveType)(models.OpaqueModel)


@typeof_impl.register(Primitive)
def _typeof(value: Primitive, context: Any) -> PrimitiveType:
    return value.type


def primitive(function: Any = None, *, literal: bool = False) -> Any:
    """A primitive out of a function of a typing context and the types of the arguments."""
    if function is None:
        return partial(primitive, literal=literal)
    return Primitive(function, literal)
