"""Ops of TensorFlow's that call functions of NumPy arrays: views of TensorFlow's own memory.

    call_out(key, callee, results, tensors, stateful=...)   in graphs, in place of tf.numpy_function

TensorFlow registers ops and kernels at run time through a C API (tensorflow/c/ops.h and kernels.h,
shipped with it). One kernel serves all: it finds the function by the text that the graph holds,
lets TensorFlow allocate the results, and lets the function fill them in place. Beside
tf.numpy_function no array is converted or copied, in no direction.

Two ops, of any tensors: `RnncCall` is of its inputs alone, so that TensorFlow may fold it, merge it
with its like or leave it out; `RnncSaving` leaves something behind, so it may not.

Non-Goals: devices other than the CPU (TensorFlow copies there and back); graphs in other processes;
a TensorFlow without these symbols: `UNAVAILABLE` says so, and `in_tensorflow` goes on with
tf.numpy_function.
"""

from __future__ import annotations

import ctypes
import math
import sys
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

Shapes = Sequence[tuple[int, ...]]
Fill = Callable[[list[np.ndarray], list[np.ndarray]], object]
PLAIN, SAVING = "RnncCall", "RnncSaving"
_MOST_VIEWS = 64  # of one input, or of results' shapes
_UNKNOWN, _INVALID, _UNIMPLEMENTED = 2, 3, 12  # TF_Code

_ADDRESS, _INT, _TEXT, _NOTHING = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, None
_SIGNATURES: dict[str, tuple[Any, ...]] = {  # what is returned, what is given
    "TF_NewStatus": (_ADDRESS,),
    "TF_DeleteStatus": (_NOTHING, _ADDRESS),
    "TF_SetStatus": (_NOTHING, _ADDRESS, _INT, _TEXT),
    "TF_GetCode": (_INT, _ADDRESS),
    "TF_Message": (_TEXT, _ADDRESS),
    "TF_NewOpDefinitionBuilder": (_ADDRESS, _TEXT),
    "TF_OpDefinitionBuilderAddAttr": (_NOTHING, _ADDRESS, _TEXT),
    "TF_OpDefinitionBuilderAddInput": (_NOTHING, _ADDRESS, _TEXT),
    "TF_OpDefinitionBuilderAddOutput": (_NOTHING, _ADDRESS, _TEXT),
    "TF_OpDefinitionBuilderSetIsStateful": (_NOTHING, _ADDRESS, ctypes.c_bool),
    "TF_OpDefinitionBuilderSetShapeInferenceFunction": (_NOTHING, _ADDRESS, _ADDRESS),
    "TF_ShapeInferenceContextSetUnknownShape": (_NOTHING, _ADDRESS, _ADDRESS),
    "TF_RegisterOpDefinition": (_NOTHING, _ADDRESS, _ADDRESS),
    "TF_NewKernelBuilder": (_ADDRESS, _TEXT, _TEXT, _ADDRESS, _ADDRESS, _ADDRESS),
    "TF_RegisterKernelBuilder": (_NOTHING, _TEXT, _ADDRESS, _ADDRESS),
    "TF_OpKernelConstruction_GetAttrSize": (_NOTHING, _ADDRESS, _TEXT, *3 * [_ADDRESS]),
    "TF_OpKernelConstruction_GetAttrString": (
        *(_NOTHING, _ADDRESS, _TEXT, _ADDRESS),
        *(ctypes.c_size_t, _ADDRESS),
    ),
    "TF_OpKernelConstruction_Failure": (_NOTHING, _ADDRESS, _ADDRESS),
    "TF_OpKernelContext_Failure": (_NOTHING, _ADDRESS, _ADDRESS),
    "TF_GetInput": (_NOTHING, _ADDRESS, _INT, _ADDRESS, _ADDRESS),
    "TF_AllocateOutput": (
        *(_ADDRESS, _ADDRESS, _INT, _INT),
        *(_ADDRESS, _INT, ctypes.c_size_t, _ADDRESS),
    ),
    "TF_NumDims": (_INT, _ADDRESS),
    "TF_Dim": (ctypes.c_int64, _ADDRESS, _INT),
    "TF_TensorByteSize": (ctypes.c_size_t, _ADDRESS),
    "TF_TensorData": (_ADDRESS, _ADDRESS),
    "TF_DeleteTensor": (_NOTHING, _ADDRESS),
}


# ---- memory --------------------------------------------------------------------------------------


class TensorFlowError(Exception):
    """TensorFlow said no: it has its own words for why."""


def _functions(path: str) -> SimpleNamespace:
    """Those of the library by their names without TF_; AttributeError for one it lacks."""
    library = ctypes.PyDLL(path)  # the interpreter's lock stays: they take no time
    functions = SimpleNamespace()
    for name, (result, *arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
        setattr(functions, name.removeprefix("TF_"), function)
    return functions


_api: Any = None


class _Status:
    """A TF_Status, for as long as the block lasts."""

    def __enter__(self) -> int:
        self._address: int = _api.NewStatus()
        return self._address

    def __exit__(self, *_: object) -> None:
        _api.DeleteStatus(self._address)


def _check(status: int) -> None:
    if _api.GetCode(status):
        raise TensorFlowError(_api.Message(status).decode())


@dataclass(slots=True)
class _Views:
    """Inputs of one place in TensorFlow's memory, by address: variables stay where they are, and a
    view that is kept costs a tenth of a new one. shape: as the graph knows it."""

    shape: tuple[int | None, ...] | None
    dtype: np.dtype[Any]
    found: dict[Any, np.ndarray] = field(default_factory=dict)
    open_axes: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.open_axes = [axis for axis, n in enumerate(self.shape or ()) if n is None]

    def of(self, tensor: int) -> np.ndarray:
        """What a TF_Tensor holds."""
        key: Any = _api.TensorData(tensor)
        if self.shape is None:
            axes = range(_api.NumDims(tensor))
            return _view(key, [_api.Dim(tensor, axis) for axis in axes], self.dtype)
        sizes = [_api.Dim(tensor, axis) for axis in self.open_axes]
        if sizes:
            key = key, *sizes
        view = self.found.get(key)
        if view is None:
            if len(self.found) >= _MOST_VIEWS:
                self.found.clear()
            rest = iter(sizes)
            shape = [next(rest) if n is None else n for n in self.shape]
            address = key[0] if sizes else key
            view = self.found[key] = _view(address, shape, self.dtype)
        if _api.TensorByteSize(tensor) != view.nbytes:
            raise ValueError(f"a tensor hasn't the shape that its graph was told: {[*view.shape]}")
        return view


def _view(address: int, shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    size = dtype.itemsize * math.prod(shape)
    if not size:
        return np.zeros(shape, dtype)
    memory: Any = (ctypes.c_char * size).from_address(address)
    return np.ndarray(shape, dtype, memory)


@dataclass(slots=True)
class _Callee:
    """What an op calls, and what its arrays are. fill: (arrays, results to fill). shapes: of its
    results, by its arrays; types: their TF_DataTypes and dtypes."""

    fill: Fill
    shapes: Callable[[list[np.ndarray]], Shapes]
    arguments: list[_Views]
    types: list[tuple[int, np.dtype[Any]]]
    places: dict[tuple[int, ...], Any] = field(default_factory=dict)

    def __call__(self, context: int, status: int, held: Any) -> None:
        """held: room for the tensors that keep the memory of the arrays."""
        arrays, base = [], ctypes.addressof(held)
        for at, views in enumerate(self.arguments):
            _api.GetInput(context, at, base + 8 * at, status)
            tensor = held[at]
            if not tensor:
                _check(status)
            arrays.append(views.of(tensor))
        results, at = [], len(arrays)
        for number, shape in enumerate(self.shapes(arrays)):
            kind, dtype = self.types[number]
            sizes = self.places.get(shape)
            if sizes is None:
                if len(self.places) >= _MOST_VIEWS:
                    self.places.clear()
                sizes = self.places[shape] = (ctypes.c_int64 * len(shape))(*shape)
            size = dtype.itemsize * math.prod(shape)
            tensor = _api.AllocateOutput(context, number, kind, sizes, len(shape), size, status)
            if not tensor:
                _check(status)
            held[at] = tensor
            at += 1
            results.append(_view(_api.TensorData(tensor), shape, dtype))
        self.fill(arrays, results)


_callees: dict[str, _Callee] = {}


# ---- the kernel ----------------------------------------------------------------------------------

_keys: list[str] = [""]  # a kernel holds the place of its text: nothing is to be freed with it
_statuses: list[int] = []  # TF_Statuses that nobody uses now


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def _create(construction: int) -> int:
    with _Status() as status:
        try:
            count, size = ctypes.c_int32(), ctypes.c_int32()
            places = ctypes.byref(count), ctypes.byref(size)
            _api.OpKernelConstruction_GetAttrSize(construction, b"key", *places, status)
            _check(status)
            text = ctypes.create_string_buffer(size.value + 1)
            arguments = text, size.value + 1, status
            _api.OpKernelConstruction_GetAttrString(construction, b"key", *arguments)
            _check(status)
            key = text.value.decode()
            if key not in _keys:
                _keys.append(key)
            return _keys.index(key)
        except BaseException as error:
            _api.SetStatus(status, *_said(error))
            _api.OpKernelConstruction_Failure(construction, status)
            return 0


@ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
def _compute(number: int, context: int) -> None:
    tensors: Any = ()
    status = _statuses.pop() if _statuses else _api.NewStatus()
    try:
        callee = _find(_keys[number])
        tensors = (ctypes.c_void_p * (len(callee.arguments) + len(callee.types)))()
        callee(context, status, tensors)
    except BaseException as error:  # nothing may be raised through TensorFlow's frames
        _api.SetStatus(status, *_said(error))
        _api.OpKernelContext_Failure(context, status)
    for tensor in tensors:
        if tensor:
            _api.DeleteTensor(tensor)
    _statuses.append(status)


def _find(key: str) -> _Callee:
    callee = _callees.get(key)
    if callee is None:
        name = key.partition(":")[0]
        raise RuntimeError(f"the layer of a graph that runs {name} is gone: keep the model")
    return callee


def _said(error: BaseException) -> tuple[int, bytes]:
    """A TF_Code and a message, as tf.numpy_function has them."""
    code = _UNKNOWN
    if isinstance(error, ValueError | TypeError):
        code = _INVALID
    elif isinstance(error, NotImplementedError):
        code = _UNIMPLEMENTED
    lines = "".join(traceback.format_tb(error.__traceback__))
    return code, f"{type(error).__name__}: {error}\n{lines}".encode()


# ---- registration --------------------------------------------------------------------------------


def _library() -> str:
    """The file that holds TensorFlow's C API."""
    paths = sorted(Path(tf.sysconfig.get_lib()).glob("libtensorflow_framework.so*"))
    return str(paths[0]) if paths else ""


def _register(path: str) -> str:
    """Why there are no ops; nothing where TensorFlow has them now."""
    global _api
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return "not a 64-bit process of CPython"
    if not path:
        return "TensorFlow came without libtensorflow_framework.so"
    try:
        _api = _functions(path)
    except OSError as error:
        return f"TensorFlow's library can't be loaded: {error}"
    except AttributeError as error:
        return f"TensorFlow's C API is of another version: {error}"
    try:
        for name, stateful in ((PLAIN, False), (SAVING, True)):
            _register_op(name.encode(), stateful)
    except TensorFlowError as error:
        return f"TensorFlow refused an op: {error}"
    return ""


def _register_op(name: bytes, stateful: bool) -> None:
    builder = _api.NewOpDefinitionBuilder(name)
    for attribute in (b"key: string", b"given: list(type) >= 0", b"results: list(type) >= 0"):
        _api.OpDefinitionBuilderAddAttr(builder, attribute)
    _api.OpDefinitionBuilderAddInput(builder, b"tensors: given")
    _api.OpDefinitionBuilderAddOutput(builder, b"found: results")
    _api.OpDefinitionBuilderSetIsStateful(builder, stateful)
    # Shapes are told in Python, where the sizes are known; the C function says: unknown.
    unknown = ctypes.cast(_api.ShapeInferenceContextSetUnknownShape, ctypes.c_void_p)
    _api.OpDefinitionBuilderSetShapeInferenceFunction(builder, unknown)
    with _Status() as status:
        _api.RegisterOpDefinition(builder, status)
        _check(status)
        functions = [ctypes.cast(f, ctypes.c_void_p) for f in (_create, _compute)]
        kernel = _api.NewKernelBuilder(name, b"CPU", *functions, None)
        _api.RegisterKernelBuilder(name, kernel, status)
        _check(status)


UNAVAILABLE = _register(_library())


def call_out(
    key: str,
    owner: object,
    fill: Fill,
    shapes: Callable[[list[np.ndarray]], Shapes],
    types: Sequence[tf.DType],
    tensors: Sequence[Any],
    *,
    stateful: bool,
) -> list[Any]:
    """The results of an op of this graph. key: tells it from others, and begins with the name of
    what it runs. owner: with it the function goes, and the op fails from then on."""
    kinds = [[t.dtype.as_datatype_enum for t in tensors], [t.as_datatype_enum for t in types]]
    arguments = [_Views(_static(t), np.dtype(t.dtype.as_numpy_dtype)) for t in tensors]
    results = [(k, np.dtype(t.as_numpy_dtype)) for k, t in zip(kinds[1], types, strict=True)]
    shapes_of = " ".join(f"{v.dtype}{v.shape}" for v in arguments)
    key = f"{key} {shapes_of}"
    if key not in _callees:
        weakref.finalize(owner, _callees.pop, key, None).atexit = False
    _callees[key] = _Callee(fill, shapes, arguments, results)
    lists = [tf.compat.v1.AttrValue.ListValue(type=ks) for ks in kinds]
    attributes = {
        "key": tf.compat.v1.AttrValue(s=key.encode()),
        "given": tf.compat.v1.AttrValue(list=lists[0]),
        "results": tf.compat.v1.AttrValue(list=lists[1]),
    }
    graph = tf.compat.v1.get_default_graph()
    name = SAVING if stateful else PLAIN
    op = graph.create_op(name, [*tensors], [*types], attrs=attributes)
    return list(op.outputs)


def _static(tensor: Any) -> tuple[int | None, ...] | None:
    """The shape as the graph knows it."""
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
