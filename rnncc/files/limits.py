"""How much a file may hold, and become: what is beyond is refused with the number.

A file of any size is read that holds what it says; these bound what a short one may ask for.
"""

from __future__ import annotations

from rnncc.files.errors import FileError

# Unpacked bytes may be so many times the file's, and as many again whatever its size: trained
# numbers hardly pack, zeros do.
TIMES, ANY = 4, 2**26
TENSORS = 65_536
NAME = 1_000  # characters of a tensor's name
LEVELS = 64  # groups within groups
RANK = 32  # axes of an array
HEADER = 2**23  # bytes of a safetensors file's list of tensors
DIRECTORY = 2**23  # bytes of a zip archive's list of files
TEXT = 2**24  # bytes of a JSON text
BRACKETS = 500_000  # lists and objects of a JSON text; as many names
PICKLE = 2**23  # bytes of the pickle in torch's archives
OPCODES = 1_000_000  # what that pickle does
ATTRIBUTE = 2**22  # bytes of an HDF5 attribute
ATTRIBUTES = 2**25  # bytes of all of them


def check_unpacked(where: str, unpacked: int, length: int) -> None:
    """FileError where a file of length bytes would become too many."""
    most = TIMES * length + ANY
    if unpacked > most:
        raise FileError(
            where, f"its {length:,} bytes would become {unpacked:,}, more than {most:,}"
        )


def check_count(where: str, count: int, most: int, what: str) -> None:
    if count > most:
        raise FileError(where, f"it has {count:,} {what}, more than {most:,}")
