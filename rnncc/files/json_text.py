"""JSON from strangers: bounded, every name once; and the arrays that lists of numbers are.

Non-Goals: what a document means (`models`).
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import numpy as np

from rnncc.files import limits
from rnncc.files.errors import FileError
from rnncc.files.tensors import Tensors


def parsed(text: bytes, where: str, most: int = limits.TEXT) -> Any:
    """The document. FileError for what is none, is too long or too deep, or names a thing twice."""
    limits.check_count(where, len(text), most, "bytes of JSON")
    limits.check_count(where, text.count(b"[") + text.count(b"{"), limits.BRACKETS, "lists")
    limits.check_count(where, text.count(b":"), limits.BRACKETS, "names")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [n for n, _ in pairs]
            twice = next(n for n in names if names.count(n) > 1)
            raise FileError(where, f"it names {twice!r:.80} twice")
        return found

    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=once)
    except FileError:
        raise
    except RecursionError:
        raise FileError(where, "its lists are too deep in each other") from None
    except ValueError as error:  # JSON's own, of UTF-8, of numbers with too many digits
        raise FileError(where, f"it is no JSON: {error!s:.200}") from None


def read_json(file: BinaryIO, where: str) -> Tensors:
    """Lists of numbers, and lists of such of one length, are arrays: called by the names and
    positions that lead to them, joined by "/" ("layers/0/weights/1"). metadata: {"document": ...},
    the whole text as Python has it.
    """
    file.seek(0)
    text = file.read(limits.TEXT + 1)
    document = parsed(text, where)
    arrays: dict[str, np.ndarray] = {}
    _collect(document, "", arrays, where, 0)
    return Tensors(where, "json", arrays, {"document": document})


def _collect(value: Any, name: str, arrays: dict[str, np.ndarray], where: str, level: int) -> None:
    if level > limits.LEVELS:
        raise FileError(where, f"{name:.80}... has more than {limits.LEVELS} levels")
    if isinstance(value, list):
        array = nested_numbers(value)
        if array is not None:
            limits.check_count(where, len(arrays) + 1, limits.TENSORS, "tensors")
            arrays[name or "data"] = array
            return
        value = {str(i): v for i, v in enumerate(value)}
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, list | dict):
                _collect(inner, f"{name}/{key}" if name else key, arrays, where, level + 1)


def nested_numbers(value: list[Any]) -> np.ndarray | None:
    """A list of numbers, or of such lists of one length, as a float64 array; None for others."""
    shape: list[int] = []
    inner: Any = value
    while isinstance(inner, list) and inner and len(shape) < limits.RANK:
        shape.append(len(inner))
        inner = inner[0]
    if not shape or not _is_nested(value, shape):
        return None
    return np.array(value, np.float64).reshape(shape)


def _is_nested(value: list[Any], shape: list[int]) -> bool:
    if len(value) != shape[0]:
        return False
    if len(shape) == 1:
        return all(type(v) is float or (type(v) is int and abs(v) < 2**1000) for v in value)
    return all(isinstance(v, list) and _is_nested(v, shape[1:]) for v in value)
