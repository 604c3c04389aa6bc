"""Zip archives from strangers: whole, plainly packed, every name once, no bombs.

Non-Goals: what is in them (`npz`, `keras_files`).
"""

from __future__ import annotations

import os
import struct
import zipfile
from typing import BinaryIO

from rnncc.files import limits
from rnncc.files.errors import FileError

_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_END, _LOCATOR, _WIDE_END = 22, 20, 56  # bytes of an archive's last records


class Archive:
    """An open zip archive. names: of its files, in order."""

    def __init__(self, file: BinaryIO, where: str, most_directory: int = limits.DIRECTORY) -> None:
        """FileError before anything is unpacked; its list is checked before it is read."""
        self.where = where
        self._length = file.seek(0, os.SEEK_END)
        self._check_end(file, most_directory)
        file.seek(0)
        try:
            self._zip = zipfile.ZipFile(file)
        except Exception as error:  # whatever a damaged list makes zipfile raise
            raise FileError(where, f"it is no whole zip archive: {error!s:.200}") from None
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in self._zip.infolist():
            self._enter(entry)
        unpacked = sum(e.file_size for e in self._entries.values())
        limits.check_unpacked(where, unpacked, self._length)

    def _check_end(self, file: BinaryIO, most_directory: int) -> None:
        file.seek(max(0, self._length - _END - _LOCATOR - _WIDE_END))
        tail = file.read()
        end = tail[-_END:]
        if end[:4] != b"PK\x05\x06" or end[-2:] != b"\0\0":
            raise FileError(self.where, "it is cut, or goes on behind its end")
        (directory,) = struct.unpack("<L", end[12:16])
        if tail[-_END - _LOCATOR :].startswith(b"PK\x06\x07"):  # of more than 2 GiB
            (directory,) = struct.unpack("<Q", tail[40:48])
        limits.check_count(self.where, directory, most_directory, "bytes in its list of files")

    def _enter(self, entry: zipfile.ZipInfo) -> None:
        name = entry.filename
        if name in self._entries:
            raise FileError(self.where, f"it holds {name:.80} twice")
        if entry.flag_bits & 1 or entry.compress_type not in _PACKED:
            raise FileError(self.where, f"{name:.80} is encrypted, or packed in an unusual way")
        self._entries[name] = entry

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def size(self, name: str) -> int:
        """Unpacked bytes, as the list says."""
        return self._entries[name].file_size

    def open(self, name: str) -> BinaryIO:
        """To be read from the beginning on; a checksum that is wrong raises at the end."""
        return self._zip.open(self._entries[name])  # type: ignore[return-value]

    def read(self, name: str, most: int | None = None) -> bytes:
        """All of one file. FileError for more bytes than most, and for what doesn't unpack."""
        if most is not None:
            limits.check_count(f"{self.where}: {name}", self.size(name), most, "bytes")
        try:
            with self.open(name) as file:
                data = file.read(self.size(name) + 1)
        except Exception as error:  # zlib's, zipfile's
            raise FileError(f"{self.where}: {name}", f"it doesn't unpack: {error}") from None
        if len(data) != self.size(name):
            raise FileError(f"{self.where}: {name}", "it is cut, or goes on behind its end")
        return data

    def close(self) -> None:
        self._zip.close()
