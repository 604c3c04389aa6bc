"""What is wrong with a file, in one sentence that begins with the file."""

from __future__ import annotations


class FileError(ValueError):
    """A file that can't be read, or isn't what it should be.

    where: the file, and what in it ("w.onnx: node lstm_1"). what: found, expected, what to do.
    """

    def __init__(self, where: object, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where, self.what = str(where), what

    def __reduce__(self) -> tuple[type[FileError], tuple[str, str]]:
        return type(self), (self.where, self.what)
