"""HDF5: groups of datasets with attributes, as Keras writes them. Read by h5py, in a process of its
own: on a damaged file HDF5 may run in a circle without an end, or take the process with it.

Non-Goals: what is read (`hdf5_reader`); Keras's names (`models`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rnncc.files.errors import FileError
from rnncc.files.hdf5_reader import ABOUT, ARRAYS
from rnncc.files.safetensors_files import read_safetensors
from rnncc.files.tensors import Tensors

_START = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); " + (
    "from rnncc.files.hdf5_reader import main; main(*sys.argv[1:])"
)
_SECONDS, _BYTES_A_SECOND = 60, 2_000_000  # by the clock: a slow machine isn't a damaged file


def read_hdf5(path: str, where: str) -> Tensors:
    """Datasets by their paths, without a leading "/". metadata: the root's attributes; under
    "attributes", those of groups and datasets by path; texts, numbers and lists of them.

    where: what messages call the file. FileError: it is damaged, or holds what isn't read.
    """
    with tempfile.TemporaryDirectory(prefix="rnncc-") as folder:
        died = _run(os.path.abspath(path), where, folder)
        try:
            answer = json.loads(Path(folder, ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise FileError(
                where, f"HDF5 doesn't get through it ({died}): is it damaged?"
            ) from None
        if "error" in answer:
            raise FileError(*answer["error"])
        with Path(folder, ARRAYS).open("rb") as file:
            arrays = read_safetensors(file, where)
    return Tensors(where, "hdf5", arrays, answer["metadata"])


def _run(path: str, where: str, folder: str) -> str:
    """Why the process ended."""
    argument = json.dumps([os.path.abspath(p) for p in sys.path])
    command = [sys.executable, "-c", _START, argument, path, where, folder]
    limit = _SECONDS + os.stat(path).st_size / _BYTES_A_SECOND
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return f"no end in {limit:.0f} s"
    if ended.returncode < 0:
        return f"stopped by signal {-ended.returncode}"
    return ended.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200] or "no answer"
