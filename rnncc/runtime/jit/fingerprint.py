"""A kernel's function -> a text that says all that machine code of it depends on.

    fingerprint(function)

That is its byte code, and what the names in it mean: numbers, words, helpers with their own byte
code. The file it came from may have changed since, or there may be none.

Non-Goals: what words become (the hash of the runtime's sources stands for that).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import CodeType
from typing import Any
from weakref import WeakKeyDictionary

from rnncc.runtime.jit.helper import Helper, Word

_known: WeakKeyDictionary[Helper, str] = WeakKeyDictionary()


class Unknown(TypeError):
    """A name means what no text tells apart from others."""


def fingerprint(function: Callable[..., Any]) -> str:
    """The same text for the same kernel, in every process. Unknown where there is none."""
    digest = hashlib.sha256(_spelt_function(function).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def spelt_code(code: CodeType) -> str:
    """Byte code and what belongs to it, without where it stands."""
    parts = [
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
        (code.co_code, code.co_exceptiontable),
        tuple([_spelt(value) for value in code.co_consts]),
    ]
    return repr(parts)


def _spelt_function(function: Callable[..., Any]) -> str:
    code, names = function.__code__, function.__globals__  # type: ignore[attr-defined]
    used = {n: names[n] for n in sorted(set(code.co_names)) if n in names}
    parts = [f"{n}={_spelt(v)}" for n, v in used.items()]
    cells = function.__closure__ or ()  # type: ignore[attr-defined]
    parts += [_spelt(cell.cell_contents) for cell in cells]
    parts += [_spelt(function.__defaults__)]  # type: ignore[attr-defined]
    return "\n".join([spelt_code(code), *parts])


def _spelt(value: object) -> str:
    if value is None or isinstance(value, bool | int | float | str | bytes | Word):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_spelt, value))})"
    if isinstance(value, CodeType):
        return spelt_code(value)
    if isinstance(value, Helper):
        digest = _known.get(value)
        if digest is None:
            spelt = f"{value.signature} {_spelt_function(value.function)}"
            digest = _known[value] = hashlib.sha256(spelt.encode()).hexdigest()
        return digest
    raise Unknown(f"{type(value).__name__} in a kernel")
