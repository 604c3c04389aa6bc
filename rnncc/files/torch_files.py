"""torch's files of a state_dict. Read by torch.load(weights_only=True), if torch is there.

They are pickles in a zip archive (before torch 1.6: pickles one behind the other). Their opcodes
are looked at first, without running them: what a state_dict needs is a short list of names, and
whatever else one asks for is refused before torch sees it.

Non-Goals: modules that were saved whole; what the names mean (`models`).
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from rnncc.files import limits
from rnncc.files.archive import Archive
from rnncc.files.errors import FileError
from rnncc.files.needed import needed
from rnncc.files.tensors import Tensors, checked_name, from_bfloat16, sized

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that old files begin with
_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_NAMES = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch Size",
    "torch.nn.parameter Parameter",
    *(f"torch {kind}Storage" for kind in _STORAGES),
}
_LEGACY_PICKLES = 5  # a number, a version, sizes of the machine, the tensors, their storages
# What names are made of otherwise, or runs what they name; neither is in a state_dict.
_NEVER = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")


def is_torch_archive(names: list[str]) -> bool:
    return any(n == "data.pkl" or n.endswith("/data.pkl") for n in names)


def read_torch(file: BinaryIO, where: str, archive: Archive | None, length: int) -> Tensors:
    """Tensors by their names in the state_dict; where dicts are in dicts, joined by ".".

    archive: the file as a zip archive; None for the old form. metadata: texts and numbers that are
    in the dict, too. FileError for modules and other pickles.
    """
    if archive is None:
        _check_legacy(file, where)
    else:
        pickles = [n for n in archive.names if n.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or any(n.rpartition("/")[2] == "constants.pkl" for n in archive.names):
            raise FileError(where, "it is a program of torch's, never run: save a state_dict")
        _check_pickle(io.BytesIO(archive.read(pickles[0], limits.PICKLE)), where)
    with needed("torch", where):
        import torch
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle makes torch raise
        first = str(error).partition("\n")[0]
        raise FileError(where, f"torch doesn't read it: {first:.200}") from None
    arrays: dict[str, np.ndarray] = {}
    metadata: dict[str, Any] = {}
    unpacked = 0
    for name, value in _flat(found, where, "", 0):
        if not isinstance(value, torch.Tensor):
            metadata[name] = value
            continue
        label = f"{where}: tensor {name}"
        unpacked += sized(label, tuple(value.shape), value.element_size())
        limits.check_unpacked(label, unpacked, length)
        limits.check_count(where, len(arrays) + 1, limits.TENSORS, "tensors")
        arrays[name] = _array(torch, value, label)
    return Tensors(where, "torch", arrays, metadata)


def _array(torch: Any, value: Any, label: str) -> np.ndarray:
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise FileError(label, "it is sparse, quantized or without numbers: save it dense")
    value = value.detach().contiguous()
    found: np.ndarray
    if value.dtype == torch.bfloat16:
        bits = value.view(torch.int16).numpy().view(np.uint16)
        return from_bfloat16(bits)
    try:
        found = value.numpy()
    except TypeError:
        raise FileError(label, f"it holds {value.dtype} values, which NumPy hasn't") from None
    return found


def _flat(value: Any, where: str, prefix: str, level: int) -> Iterator[tuple[str, Any]]:
    limits.check_count(where, level, limits.LEVELS, "levels of dicts")
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise FileError(where, f"it holds a {kind}, not a dict of tensors: save a state_dict")
    for key, inner in value.items():
        if not isinstance(key, str):
            continue  # an optimizer's state goes by numbers
        name = checked_name(where, f"{prefix}{key}")
        if isinstance(inner, Mapping):
            yield from _flat(inner, where, f"{name}.", level + 1)
        else:
            yield name, inner


def _check_legacy(file: BinaryIO, where: str) -> None:
    file.seek(0)
    begun = io.BytesIO(file.read(limits.PICKLE))
    for _ in range(_LEGACY_PICKLES):
        _check_pickle(begun, where)


def _check_pickle(data: BinaryIO, where: str) -> None:
    """Of one pickle, up to its end: that it asks for nothing but what a state_dict is made of."""
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            limits.check_count(where, count, limits.OPCODES, "opcodes in its pickle")
            if opcode.name in _NEVER or (opcode.name == "GLOBAL" and argument not in _NAMES):
                asked = argument if opcode.name == "GLOBAL" else opcode.name
                raise FileError(
                    where,
                    f"it is a pickle that asks for {asked!r:.80}, which is never run: save a "
                    "state_dict (torch.save(module.state_dict(), ...))",
                )
    except FileError:
        raise
    except Exception as error:  # pickletools' ValueError, UnicodeDecodeError, ...
        raise FileError(where, f"its pickle is damaged: {error!s:.200}") from None
