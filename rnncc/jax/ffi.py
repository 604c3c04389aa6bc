"""A handler of XLA's typed FFI that calls functions of NumPy arrays: views of XLA's own memory.

    call_out(key, owner, function, shapes, tensors)     in graphs, in place of jax.pure_callback

XLA hands over a frame of plain C structs (xla/ffi/api/c_api.h, shipped with jax). The handler is
one C function for all: it reads the frame by the offsets of that header's version 0.3, finds the
function by the text that the graph holds, and lets it fill the results in place. A tenth of a
pure_callback's cost, and no array of JAX's is made in between.

Texts are the same in every process, so that a cached graph finds what it means.

Non-Goals: devices other than the CPU; other versions of the header: `UNAVAILABLE` says so, and
`mechanism` goes on with pure_callback.
"""

from __future__ import annotations

import ctypes
import math
import re
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

Function = Callable[[list[np.ndarray], list[np.ndarray]], None]
VERSION = (0, 3)
_TARGET = "rnncc_call"
_MOST_VIEWS = 64  # of one array of one call
_EXECUTE = 3  # the one stage in which there are numbers
_INTERNAL = 13


# ---- memory --------------------------------------------------------------------------------------


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _int(address: int) -> int:
    return ctypes.c_int32.from_address(address).value


@dataclass(slots=True)
class _Views:
    """Arrays of one shape and dtype in XLA's memory, by their address: it uses the same again and
    again, and a view that is kept costs a tenth of a new one."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    found: dict[int, np.ndarray] = field(default_factory=dict)
    static: bool = field(init=False)

    def __post_init__(self) -> None:
        """static: every size is a number; those of jax.export may be symbols."""
        self.static = all(type(n) is int for n in self.shape)

    def at(self, buffer: int) -> np.ndarray:
        """What an XLA_FFI_Buffer holds."""
        address = _word(buffer + 24)
        if not self.static:
            rank = _word(buffer + 32)
            shape = tuple((ctypes.c_int64 * rank).from_address(_word(buffer + 40))) if rank else ()
            return self._new(address, shape)
        view = self.found.get(address)
        if view is None:
            if len(self.found) >= _MOST_VIEWS:
                self.found.clear()
            view = self.found[address] = self._new(address, self.shape)
        return view

    def _new(self, address: int, shape: tuple[int, ...]) -> np.ndarray:
        size = self.dtype.itemsize * math.prod(shape)
        if not size:
            return np.zeros(shape, self.dtype)
        memory: Any = (ctypes.c_char * size).from_address(address)
        return np.ndarray(shape, self.dtype, memory)


def _arrays(frame: int, views: Sequence[_Views]) -> list[np.ndarray]:
    """Of an XLA_FFI_Args or XLA_FFI_Rets."""
    buffers = (ctypes.c_int64 * len(views)).from_address(_word(frame + 32))
    return [v.at(buffer) for v, buffer in zip(views, buffers, strict=True)]


def _text(frame: int) -> bytes:
    """The first attribute of an XLA_FFI_Attrs, an XLA_FFI_ByteSpan."""
    span = _word(_word(frame + 40))
    return ctypes.string_at(_word(span), _word(span + 8))


@dataclass(frozen=True, slots=True)
class _Callee:
    """A function, and what its arrays are."""

    function: Function
    arguments: list[_Views]
    results: list[_Views]

    def __call__(self, arguments: int, results: int) -> None:
        self.function(_arrays(arguments, self.arguments), _arrays(results, self.results))


_callees: dict[bytes, _Callee] = {}


# ---- the handler ---------------------------------------------------------------------------------


class _ErrorArguments(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension_start", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("errc", ctypes.c_int),
    ]


def _handle(frame: int) -> int:
    """0, or the address of an error."""
    extension = _word(frame + 8)
    if extension and _int(extension + 8) == 1:  # XLA asks for the handler's version
        version = _word(extension + 24) + 24
        (ctypes.c_int32 * 2).from_address(version)[:] = [*VERSION]
        return 0
    if _int(frame + 32) != _EXECUTE:
        return 0
    try:
        _find(_text(frame + 120))(frame + 40, frame + 80)
    except Exception:
        return _error(frame, traceback.format_exc())
    return 0


def _find(key: bytes) -> _Callee:
    callee = _callees.get(key)
    if callee is None:
        name = key.decode().partition(":")[0]
        raise RuntimeError(f"the layer of a graph that runs {name} is gone: keep the model")
    return callee


def _error(frame: int, message: str) -> int:
    create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(_word(_word(frame + 16) + 48))
    arguments = _ErrorArguments(32, None, message.encode(), _INTERNAL)
    return int(create(ctypes.addressof(arguments)) or 0)


_handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int64)(_handle)


def _register() -> str:
    """Why there is no handler; nothing where XLA has it now."""
    if ctypes.sizeof(ctypes.c_void_p) != 8 or ctypes.sizeof(ctypes.c_size_t) != 8:
        return "not a 64-bit process"
    ffi = getattr(jax, "ffi", None)
    if ffi is None:
        return "this jax has no jax.ffi"
    header = Path(ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    try:
        text = header.read_text()
    except OSError:
        return "jax came without XLA's header"
    version = tuple(
        int(match[1]) if (match := re.search(rf"define XLA_FFI_API_{part} (\d+)", text)) else -1
        for part in ("MAJOR", "MINOR")
    )
    if version != VERSION:
        return f"XLA's FFI is version {version[0]}.{version[1]}, read is {VERSION[0]}.{VERSION[1]}"
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype = ctypes.py_object
    capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    address = ctypes.cast(_handler, ctypes.c_void_p).value
    ffi.register_ffi_target(_TARGET, capsule(address, None, None), platform="cpu", api_version=1)
    return ""


UNAVAILABLE = _register()


def call_out(
    key: str,
    owner: object,
    function: Function,
    results: Sequence[jax.ShapeDtypeStruct],
    tensors: Sequence[Any],
) -> Sequence[Any]:
    """The function's results, in a graph. key: tells it from others, in every process, and begins
    with the name of what it runs. owner: with it the function goes, and the call fails from then
    on."""
    kinds = [[_Views(tuple(t.shape), np.dtype(t.dtype)) for t in ts] for ts in (tensors, results)]
    key = " ".join([key, *(f"{v.dtype}{list(v.shape)}" for v in kinds[0])])
    encoded_key = key.encode()
    if encoded_key not in _callees:
        weakref.finalize(owner, _callees.pop, encoded_key, None).atexit = False
    _callees[encoded_key] = _Callee(function, *kinds)
    call = jax.ffi.ffi_call(_TARGET, tuple(results), vmap_method="sequential")
    computed: Sequence[Any] = call(*tensors, key=key)
    return computed
