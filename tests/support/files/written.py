"""A small file of each format, by the library that owns it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.numpy

RNG = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "rnn.weight_ih_l0": RNG.standard_normal((12, 5)).astype("float32"),
    "rnn.weight_hh_l0": RNG.standard_normal((12, 3)).astype("float32"),
    "rnn.bias_ih_l0": RNG.standard_normal(12).astype("float32"),
    "rnn.bias_hh_l0": RNG.standard_normal(12).astype("float16"),
    "step": np.array(7),
}


def in_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    safetensors.numpy.save_file(arrays, path, {"made_by": "a test"})


def in_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(path.open("wb"), **arrays)  # type: ignore[arg-type]


def in_packed_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(path.open("wb"), **arrays)  # type: ignore[arg-type]


def in_hdf5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Every second one in chunks, packed."""
    with h5py.File(path, "w") as file:
        for i, (name, array) in enumerate(arrays.items()):
            packed: dict[str, Any] = {"compression": "gzip", "shuffle": True}
            chunked = i % 2 and array.ndim and array.size
            file.create_dataset(f"group/{name}", data=array, **packed if chunked else {})
        file.attrs["backend"] = "a test"
        file["group"].attrs["names"] = np.array(["a", "b"], h5py.string_dtype())


def in_json(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.write_text(json.dumps({"state_dict": {n: a.tolist() for n, a in arrays.items()}}))


def in_torch(path: Path, arrays: dict[str, np.ndarray], **how: Any) -> None:
    import torch

    torch.save({n: torch.from_numpy(a.copy()) for n, a in arrays.items()}, path, **how)


def in_old_torch(path: Path, arrays: dict[str, np.ndarray]) -> None:
    in_torch(path, arrays, _use_new_zipfile_serialization=False)


def in_onnx(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Initializers beside one GRU node that reads the first three."""
    import onnx
    from onnx import helper

    held = [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["time", 1, 5])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    names = ["x", *list(arrays)[:3]]
    node = helper.make_node("GRU", names, ["y"], "gru", hidden_size=4, direction="forward")
    graph = helper.make_graph([node], "graph", [x], [y], held)
    onnx.save(helper.make_model(graph), path)


def in_keras(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The archive as Keras 3 makes it, without Keras."""
    import zipfile

    inner = io.BytesIO()
    with h5py.File(inner, "w") as file:
        for i, array in enumerate(arrays.values()):
            file.create_dataset(f"layers/gru/cell/vars/{i}", data=array)
    config = {"class_name": "Sequential", "config": {"layers": []}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.0"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", inner.getvalue())


WRITERS = {
    "safetensors": in_safetensors,
    "npz": in_npz,
    "packed npz": in_packed_npz,
    "hdf5": in_hdf5,
    "keras": in_keras,
    "torch": in_torch,
    "old torch": in_old_torch,
    "onnx": in_onnx,
    "json": in_json,
}
