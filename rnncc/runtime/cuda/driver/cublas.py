"""cuBLAS on raw addresses: matrix products on a stream, in a precision that each call names.

The library is whichever torch, cupy or NVIDIA's wheels brought; it is found by `cuda.pathfinder`
and called by its C interface. A call says itself how its operands may be rounded, so nothing that
torch or a caller has set (`allow_tf32`) changes it, and nothing has to be put back.

    float32      every product and sum in single precision
    tf32         operands rounded to 10 bits behind the point, sums in single precision
    bfloat16     operands rounded to 7 bits behind the point, sums in single precision

Non-Goals: which products there are (`step_matmuls`).
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import POINTER, byref, c_char_p, c_int, c_longlong, c_size_t, c_void_p
from typing import Any

from rnncc.runtime.cuda.kernels.matmuls import Product
from rnncc.runtime.cuda.kernels.toolkit import named

INSTALL = "pip install nvidia-cublas, or torch or cupy with CUDA"
# cublasComputeType_t and cudaDataType of the library's headers.
COMPUTE = {
    ("float32", "float32"): 68,
    ("float32", "tf32"): 77,
    ("float32", "bfloat16"): 75,
    ("float64", "float32"): 70,  # double precision has no other
    ("float64", "tf32"): 70,
    ("float64", "bfloat16"): 70,
}
KIND = {"float32": 0, "float64": 1}
NUMBER = {"float32": ctypes.c_float, "float64": ctypes.c_double}
DEFAULT_ALGORITHM = -1
WORKSPACE = 32 * 2**20  # bytes: what NVIDIA names for its largest devices


class CublasError(RuntimeError):
    """What cuBLAS said, and of what."""


def find() -> Any:
    """The loaded library. OSError says why there is none."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
    except ImportError:
        for name in ("libcublas.so.13", "libcublas.so.12"):
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
        raise OSError(f"cuBLAS isn't installed: {INSTALL}") from None
    try:
        with named():
            path = load_nvidia_dynamic_lib("cublas").abs_path
    except RuntimeError as error:
        raise OSError(f"cuBLAS isn't installed: {INSTALL}") from error
    return ctypes.CDLL(path or "libcublas.so.13")


def declared(library: Any) -> Any:
    """The library with the types of the functions that are called. AttributeError for one that is
    older than they are."""
    matrix = (c_void_p, c_int, c_int, c_longlong)  # address, kind, leading dimension, step
    types: dict[str, tuple[Any, ...]] = {
        "cublasCreate_v2": (POINTER(c_void_p),),
        "cublasGetVersion_v2": (c_void_p, POINTER(c_int)),
        "cublasSetStream_v2": (c_void_p, c_void_p),
        "cublasSetWorkspace_v2": (c_void_p, c_void_p, c_size_t),
        "cublasGemmStridedBatchedEx": (
            *(c_void_p, c_int, c_int, c_int, c_int, c_int),
            *(c_void_p, *matrix, *matrix),
            *(c_void_p, *matrix, c_int, c_int, c_int),
        ),
    }
    for name, arguments in types.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, c_int
    library.cublasGetStatusString.argtypes = (c_int,)
    library.cublasGetStatusString.restype = c_char_p
    return library


class Cublas:
    """The library on one device. Thread-safe; the device's context is the caller's current one."""

    def __init__(self, library: Any = None) -> None:
        """OSError, AttributeError: there is none, or one that is too old."""
        self.library = declared(find() if library is None else library)
        self.lock = threading.RLock()
        self.handle: c_void_p | None = None
        self.ones = {n: (kind(1.0), kind(0.0)) for n, kind in NUMBER.items()}

    def opened(self) -> c_void_p:
        """The library's state, made at the first product: it takes memory of the device."""
        if self.handle is None:
            handle = c_void_p()
            self.ask("cublasCreate_v2", byref(handle))
            self.handle = handle
        return self.handle

    def version(self) -> str:
        """Of the library, as 13.0.2."""
        version = c_int()
        self.ask("cublasGetVersion_v2", self.opened(), byref(version))
        major, rest = divmod(version.value, 10_000)
        return f"{major}.{rest // 100}.{rest % 100}"

    def ask(self, function: str, *arguments: Any) -> None:
        """CublasError unless it went well."""
        status = getattr(self.library, function)(*arguments)
        if status:
            said = self.library.cublasGetStatusString(status) or b"?"
            raise CublasError(f"{function}: {said.decode()}")

    def multiply(
        self,
        product: Product,
        places: tuple[int, int, int],
        dtype: str,
        precision: str = "float32",
        stream: Any = None,
        workspace: int = 0,
    ) -> None:
        """Launches a product; places: addresses of left, right and the result. workspace: the
        address of WORKSPACE bytes to use; 0: the library has its own."""
        left, right, out = places
        p, kind = product, KIND[dtype]
        one, zero = self.ones[dtype]
        with self.lock:  # a stream is of the handle
            handle = self.opened()
            self.ask("cublasSetStream_v2", handle, stream or None)
            if workspace:
                self.ask("cublasSetWorkspace_v2", handle, workspace, WORKSPACE)
            self.ask(
                "cublasGemmStridedBatchedEx",
                handle,
                int(p.left_t),
                int(p.right_t),
                *(p.rows, p.columns, p.k),
                byref(one),
                *(left, kind, p.leads[0], p.steps[0]),
                *(right, kind, p.leads[1], p.steps[1]),
                byref(one if p.adds else zero),
                *(out, kind, p.leads[2], p.steps[2]),
                p.count,
                COMPUTE[dtype, precision],
                DEFAULT_ALGORITHM,
            )
