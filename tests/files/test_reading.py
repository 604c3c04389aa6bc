"""Files that the libraries who own their formats wrote, read again bit for bit."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch

from rnncc.files import FileError, format_of, hdf5, read, write_whole
from rnncc.files.safetensors_files import safetensors_writer
from tests.support.files.written import WRITERS, in_hdf5, in_npz, in_safetensors

RNG = np.random.default_rng(0)
DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
ARRAYS: dict[str, np.ndarray] = {
    **{f"of.{d}": (RNG.standard_normal((3, 5)) * 50).astype(d) for d in DTYPES},
    "scalar": np.array(2.5, np.float32),
    "nothing": np.zeros((0, 7), np.float32),
}


@pytest.mark.parametrize("format", WRITERS)
def test_arrays_come_back(tmp_path: Path, format: str) -> None:
    """Of every dtype, whatever the file is called."""
    path = tmp_path / "weights.bin.npz"
    WRITERS[format](path, ARRAYS)
    tensors = read(path)
    assert tensors.format == format.split()[-1] == format_of(path) and tensors.where == str(path)
    pairs = {
        "hdf5": [(f"group/{n}", n) for n in ARRAYS],
        "keras": [(f"layers/gru/cell/vars/{i}", n) for i, n in enumerate(ARRAYS)],
        "json": [(f"state_dict/{n}", n) for n in ARRAYS if np.size(ARRAYS[n])],
    }.get(tensors.format, [(n, n) for n in ARRAYS])
    if tensors.format != "json":  # which has lists alone, of numbers that are float64
        assert {*tensors} == {n for n, _ in pairs}
    for theirs, name in pairs:
        array = ARRAYS[name]
        if tensors.format == "json":
            if array.ndim and array.dtype != bool:
                np.testing.assert_array_equal(tensors[theirs], array)
            continue
        found = tensors[theirs]
        assert found.dtype == array.dtype and found.shape == array.shape
        assert found.tobytes() == array.tobytes()


def test_metadata(tmp_path: Path) -> None:
    in_safetensors(tmp_path / "w", ARRAYS)
    assert read(tmp_path / "w").metadata == {"made_by": "a test"}
    in_hdf5(tmp_path / "w", ARRAYS)
    metadata = read(tmp_path / "w").metadata
    assert metadata == {"backend": "a test", "attributes": {"group": {"names": ["a", "b"]}}}


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    array = RNG.standard_normal((4, 3)).astype(ml_dtypes.bfloat16)
    data = array.tobytes()
    header = {"w": {"dtype": "BF16", "shape": [4, 3], "data_offsets": [0, len(data)]}}
    text = json.dumps(header).encode()
    (tmp_path / "w").write_bytes(len(text).to_bytes(8, "little") + text + data)
    found = read(tmp_path / "w")["w"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, array.astype(np.float32))


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    turned = {**ARRAYS, "view": np.arange(12.0).reshape(3, 4).T, "big": np.arange(3, dtype=">i4")}
    write_whole(path, safetensors_writer(turned, {"a": "b"}))
    found = safetensors.numpy.load_file(path)
    assert {*found} == {*turned}
    for name, array in turned.items():
        np.testing.assert_array_equal(found[name], array)
        np.testing.assert_array_equal(read(path)[name], array)


def test_json_lists_are_arrays(tmp_path: Path) -> None:
    document = {"a": {"w": [[1, 2.5], [3, 4]], "ragged": [[1], [2, 3]], "name": ["x"]}, "b": []}
    (tmp_path / "w").write_text(json.dumps(document))
    tensors = read(tmp_path / "w")
    assert tensors.metadata["document"] == document
    assert {n: a.tolist() for n, a in tensors.items()} == {
        "a/w": [[1, 2.5], [3, 4]],
        "a/ragged/0": [1],
        "a/ragged/1": [2, 3],
    }


# ---- what is refused -----------------------------------------------------------------------------


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def npy(array: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array, allow_pickle=True)
    return made.getvalue()


def listed(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: Any, offsets: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


REFUSED = {
    "empty": (b"", "it is empty"),
    "pickle": (pickle.dumps({"w": 1}), "it is a pickle, which is never unpickled"),
    "text": (b"hello", "it is of no format that is read"),
    "one array": (npy(np.zeros(3)), "one array without a name"),
    "other zip": (zipped({"a.txt": b"x"}), "a zip archive of no kind that is read; it holds a.txt"),
    "objects": (zipped({"a.npy": npy(np.array([{}, 1]))}), "tensor a: it is a pickle"),
    "texts": (zipped({"a.npy": npy(np.array(["x"]))}), "tensor a: it holds <U1 values"),
    "bomb": (zipped({"a.npy": npy(np.zeros(2**24))}), "would become 134,217,856"),
    "twice": (listed(b'{"a":1,"a":2}'), "it names 'a' twice"),
    "cut": (listed({"a": entry([2], [0, 8])}, bytes(7)), "it is cut"),
    "longer": (listed({"a": entry([2], [0, 8])}, bytes(9)), "goes on behind its last tensor"),
    "overlap": (
        listed({"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, bytes(12)),
        "tensor b: it begins at 4, the one before ends at 8",
    ),
    "huge": (listed({"a": entry([2**40, 2**40], [0, 8])}, bytes(8)), "tensor a: its offsets"),
    "negative": (listed({"a": entry([-2], [0, 8])}, bytes(8)), "is no array's shape"),
    "float8": (listed({"a": entry([8], [0, 8], "F8_E4M3")}, bytes(8)), "its dtype is 'F8_E4M3'"),
    "header": ((2**39).to_bytes(8, "little") + b"{}", "it is cut"),
    "deep": (b"[" * 10_000 + b"]" * 10_000, "too deep"),
    "wide": (b"[" + b"[]," * 500_001 + b"1]", "500,002 lists, more than 500,000"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(tmp_path: Path, what: str) -> None:
    data, message = REFUSED[what]
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(FileError) as caught:
        read(tmp_path / "w")
    assert message in str(caught.value) and str(caught.value).startswith(str(tmp_path / "w"))


def _linked(file: Any) -> None:
    file["w"] = h5py.ExternalLink("/etc/other.h5", "/w")


def _soft(file: Any) -> None:
    file["w"] = h5py.SoftLink("/")


def _outside(file: Any) -> None:
    file.create_dataset("w", (4,), "f4", external=[("/etc/hostname", 0, 16)])


def _circle(file: Any) -> None:
    file.create_group("a")["b"] = file["/"]


def _bomb(file: Any) -> None:
    file.create_dataset("w", (2**40,), "f4", chunks=(2**10,))


def _texts(file: Any) -> None:
    file["w"] = "a text"


HDF5_REFUSED = {
    _linked: "w: it is a link to elsewhere, never followed",
    _soft: "w: it is a link to elsewhere",
    _outside: "its numbers lie in other files",
    _circle: "it is there under two names",
    _bomb: "would become",
    _texts: "tensor w: it holds object values",
}


@pytest.mark.parametrize("make", HDF5_REFUSED, ids=lambda m: m.__name__)
def test_hdf5_refused(tmp_path: Path, make: Any) -> None:
    with h5py.File(tmp_path / "w", "w") as file:
        make(file)
    with pytest.raises(FileError, match=HDF5_REFUSED[make]):
        read(tmp_path / "w")


class Evil:
    def __reduce__(self) -> Any:
        return print, ("run",)


def test_torch_refused(tmp_path: Path) -> None:
    """Modules, programs, and names that no state_dict is made of: by the word, and not run."""
    path = tmp_path / "w.pt"
    for made, message in (
        (torch.nn.LSTM(3, 4), "a pickle that asks for 'torch.nn.modules.rnn LSTM'"),
        ({"w": Evil()}, "a pickle that asks for"),
        ({"w": bytearray(3)}, "a pickle that asks for"),
        ([torch.zeros(2)], "it holds a list, not a dict of tensors"),
        ({"w": torch.zeros(1).expand(2**34)}, "tensor w: its .* would become"),
        ({"w": torch.zeros(2, dtype=torch.complex64)}, "asks for 'torch ComplexFloatStorage'"),
        ({"w": torch.zeros(2, 2).to_sparse()}, "asks for"),
    ):
        for new in (True, False):
            torch.save(made, path, _use_new_zipfile_serialization=new)
            with pytest.raises(FileError, match=message):
                read(path)
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)
    with pytest.raises(FileError, match="it is a program of torch's"):
        read(path)


def test_torch_checkpoints(tmp_path: Path) -> None:
    """Dicts in dicts; bfloat16; what is beside the tensors."""
    module = torch.nn.GRU(3, 4).bfloat16()
    parts = {"model": module.state_dict(), "epoch": 3, "optimizer": {"state": {0: {}}}}
    torch.save(parts, tmp_path / "w")
    tensors = read(tmp_path / "w")
    assert tensors.metadata == {"epoch": 3}
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(tensors[f"model.{name}"], tensor.float().numpy())


def test_onnx_says_its_nodes(tmp_path: Path) -> None:
    WRITERS["onnx"](tmp_path / "w", ARRAYS)
    (node,) = read(tmp_path / "w").metadata["recurrent"]
    names = list(ARRAYS)
    assert node["inputs"] == {"X": "x", "W": names[0], "R": names[1], "B": names[2]}
    assert node["attributes"] == {"hidden_size": 4, "direction": "forward"}


def test_onnx_arrays_in_other_files(tmp_path: Path) -> None:
    """Beside the model they are read; elsewhere never."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "w.onnx"
    big = {"big": np.arange(2000, dtype="float32")}
    WRITERS["onnx"](path, {**big, **ARRAYS})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="beside", size_threshold=1000)
    np.testing.assert_array_equal(read(path)["big"], big["big"])
    (tmp_path / "beside").write_bytes((tmp_path / "in" / "beside").read_bytes())
    (tmp_path / "in" / "link").symlink_to(tmp_path / "beside")
    (tmp_path / "in" / "circle").symlink_to("circle")
    for location, message in (
        ("../beside", "outside of the model's folder"),
        (str(tmp_path / "beside"), "outside of the model's folder"),
        ("link", "outside of the model's folder"),
        ("none", "which is no file"),
        ("circle", "can't be read|which is no file"),
        ("a\0b", "can't be read"),
        ("", "can't be there"),
    ):
        model = onnx.load(path, load_external_data=False)
        (tensor,) = (t for t in model.graph.initializer if t.name == "big")
        tensor.external_data[0].value = location
        path.write_bytes(model.SerializeToString())
        with pytest.raises(FileError, match=f"tensor big: .*{message}"):
            read(path)
        model = onnx.load(tmp_path / "in" / "w.onnx", load_external_data=False)
        tensor = next(t for t in model.graph.initializer if t.name == "big")
        tensor.external_data[0].value = "beside"
        path.write_bytes(model.SerializeToString())


def test_hdf5_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped is a file that is refused."""
    in_hdf5(tmp_path / "w", ARRAYS)
    monkeypatch.setattr(hdf5, "_START", "import os; os.abort()")
    with pytest.raises(FileError, match=r"HDF5 doesn't get through it \(stopped by signal 6\)"):
        read(tmp_path / "w")


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
    with pytest.raises(FileError, match="it is a folder"):
        read(tmp_path)
    with pytest.raises(FileError, match="no regular file"):
        read("/dev/zero")


def test_one_array(tmp_path: Path) -> None:
    in_npz(tmp_path / "w.npz", {"a": np.array([1.0, np.nan, np.inf]), "b": np.ones(2)})
    tensors = read(tmp_path / "w.npz")
    np.testing.assert_array_equal(tensors.array("b", (2,)), [1, 1])
    for name, shape, message in (
        ("a", (3,), "tensor a: 2 of its 3 numbers are NaN or infinite"),
        ("b", (3,), r"tensor b: it has shape \[2\], expected \[3\]"),
        ("c", None, "it has no tensor c; it has a, b"),
    ):
        with pytest.raises(FileError, match=message):
            tensors.array(name, shape)
