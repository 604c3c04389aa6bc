"""Keras 3's `.keras`: a zip archive of a configuration, in JSON, and its weights, in HDF5.

Non-Goals: what the configuration means (`models`). Nothing in it is imported or executed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from rnncc.files.archive import Archive
from rnncc.files.hdf5 import read_hdf5
from rnncc.files.json_text import parsed
from rnncc.files.tensors import Tensors

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


def read_keras(archive: Archive) -> Tensors:
    """Weights by their paths in the HDF5 file. metadata: those of HDF5, "config" and, where it is
    there, "metadata", as Python has JSON.
    """
    where = archive.where
    config = parsed(archive.read(CONFIG), f"{where}: {CONFIG}")
    with tempfile.TemporaryDirectory(prefix="rnncc-") as folder:
        inner = Path(folder, WEIGHTS)
        inner.write_bytes(archive.read(WEIGHTS))
        tensors = read_hdf5(str(inner), where)
    metadata = {**tensors.metadata, "config": config}
    if METADATA in archive.names:
        metadata["metadata"] = parsed(archive.read(METADATA), f"{where}: {METADATA}")
    return Tensors(where, "keras", tensors, metadata)
