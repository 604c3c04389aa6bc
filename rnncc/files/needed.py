"""Libraries that own a format, imported when a file of it is met."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rnncc.files.errors import FileError

_EXTRAS = {"h5py": "files", "onnx": "files", "torch": "torch"}


@contextmanager
def needed(library: str, where: str) -> Iterator[None]:
    """Around its import: a FileError says how to get what isn't installed."""
    try:
        yield
    except ImportError:
        how = f"pip install 'rnncc[{_EXTRAS[library]}]'"
        raise FileError(
            where, f"to read it takes {library}, which isn't installed: {how}"
        ) from None
