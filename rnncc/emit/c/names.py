"""Identifiers of a C function: the user's names as they are, where C and the templates let them.

Non-Goals: the names of a file's functions and arrays, which begin with what the user calls it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from rnncc.emit.shared.kernel_names import Words

_KEYWORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline
    int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while _Bool _Complex _Imaginary asm typeof fortran
    alignas alignof and and_eq bitand bitor bool catch char8_t char16_t char32_t class compl concept
    const_cast consteval constexpr constinit co_await co_return co_yield decltype delete
    dynamic_cast explicit export false friend mutable namespace new noexcept not not_eq nullptr
    operator or or_eq private protected public reinterpret_cast requires static_assert static_cast
    template this thread_local throw true try typeid typename using virtual wchar_t xor xor_eq
"""
_OURS = "s n t j k real total left moved main NULL errno I"
_MATH = """
    acos asin atan atan2 acosh asinh atanh cos cosh erf erfc exp exp2 expm1 fabs floor fma fmod log
    log10 log1p log2 pow rint sin sinh sqrt tan tanh isnan isinf signbit round trunc ceil hypot j0
    j1 jn y0 y1 yn gamma lgamma tgamma nan
"""  # some of math.h are macros
RESERVED = frozenset((_KEYWORDS + _OURS + _MATH).split())


@dataclass
class CNames(Words):
    """Names of one function's variables, each once."""

    taken: set[str] = field(default_factory=lambda: {*RESERVED})

    def fresh_of(self, name: str, meaning: str) -> str:
        clean = re.sub(r"\W+", "_", name).strip("_") or "tmp"
        return self._take(clean if clean[0].isalpha() else f"x{clean}", "")

    def fresh(self, name: str) -> str:
        return self._take(name, "")
