"""A kernel's Python function to an object file: Numba types and lowers it, LLVM runs once.

    machine_code(typed(function, "void(int64, int64)"))     # the second may be another thread's

Numba would compile every helper three times over (a function, a wrapper for Python, one for C),
optimise each alone and again inside each caller. Here a helper is lowered once a process and linked
unoptimised into the kernels that call it; what is optimised and turned into machine code is the
kernel, once, whole.

Non-Goals: where objects are kept and run (`object_cache`); what the words of kernels mean (`simd`,
`scalar_intrinsics`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from types import CellType, FunctionType
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.typing.templates import make_concrete_template

from rnncc.runtime.jit.fingerprint import Unknown, fingerprint
from rnncc.runtime.jit.front_end import Lowered, lower
from rnncc.runtime.jit.helper import Helper, Word
from rnncc.runtime.jit.integer_builtins import BUILTINS
from rnncc.runtime.jit.object_cache import ENTRY, symbol


class Library:
    """What Numba writes a function's LLVM into, and hands from a callee to its callers.

    It stands in for Numba's own, which would optimise each function alone and make machine code of
    it. The methods are those that Numba's lowering calls.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.codegen = cpu_target.target_context.codegen()
        self.callees: list[Any] = []
        self.text = ""
        self.recorded_timings: list[Any] = []

    def create_ir_module(self, name: str) -> ir.Module:
        module = ir.Module(name)
        module.triple, module.data_layout = _triple(), self.codegen._data_layout
        return module

    def add_ir_module(self, module: ir.Module) -> None:
        self.text = str(module)

    @cached_property
    def module(self) -> Any:
        """LLVM's, of which a helper's stays, for those who link it."""
        return llvm.parse_assembly(self.text)

    def add_linking_library(self, library: Any) -> None:
        if library not in self.callees:
            self.callees.append(library)

    def _ensure_finalized(self) -> None:
        """Nothing is: callers link what is here as it is."""


@cache
def _triple() -> str:
    return str(llvm.get_process_triple())


@dataclass(frozen=True, slots=True)
class Unit:
    """A kernel on its way from Python to LLVM. entry: the text of a C function that calls it, under
    the name ENTRY. began: when, of `time.perf_counter`."""

    began: float
    name: str
    library: Library
    called: str
    entry: str


_helpers: dict[Helper, Library] = {}


def load_registries() -> None:
    """What Numba would import at the first compile only."""
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


def compile_function(function: Callable[..., Any], signature: str) -> bytes:
    """The object file of a kernel."""
    return machine_code(typed(function, signature))


@global_compiler_lock
def typed(function: Callable[..., Any], signature: str) -> Unit:
    """A kernel for LLVM. What takes time is Python, so LLVM may work for another kernel."""
    began = time.perf_counter()
    lowered = _lower(function, signature)
    called, entry = lowered.fndesc.llvm_func_name, _entry(ENTRY, lowered.fndesc)
    return Unit(began, function.__name__, lowered.library, called, entry)


def machine_code(unit: Unit) -> bytes:
    """The object file. Nearly all is LLVM, in which no other thread waits for Python's lock."""
    data: bytes = _machine().emit_object(_optimised(unit))
    return data


def assembly(function: Callable[..., Any], signature: str) -> str:
    return str(_machine().emit_assembly(_optimised(typed(function, signature))))


def llvm_text(function: Callable[..., Any], signature: str) -> str:
    return str(_optimised(typed(function, signature)))


def _machine() -> Any:
    return cpu_target.target_context.codegen()._tm


# ---- Python to LLVM ----------------------------------------------------------------------------


def _lower(function: Callable[..., Any], signature: str) -> Lowered:
    """As `lower`, of what the function's words stand for; its number is of its content."""
    try:
        number = int(fingerprint(function)[:12], 16)
    except Unknown:
        number = None
    return lower(_meant(function), signature, number, Library(function.__name__))


def _meant(function: Callable[..., Any]) -> FunctionType:
    """The function with what its words stand for in place of the words; helpers made known."""
    code = function.__code__
    names = {n: _meaning(v) for n, v in function.__globals__.items() if n in code.co_names}
    names |= {n: own for n, own in BUILTINS.items() if n in code.co_names and n not in names}
    names["__name__"] = function.__module__
    closure = tuple(CellType(_meaning(c.cell_contents)) for c in function.__closure__ or ())
    return FunctionType(code, names, function.__name__, function.__defaults__, closure)


def _meaning(value: Any) -> Any:
    if isinstance(value, Word):
        return value.meaning()
    if isinstance(value, Helper) and value not in _helpers:
        lowered = _lower(value.function, value.signature)
        template = make_concrete_template(value.function.__name__, value, [lowered.signature])
        cpu_target.typing_context.insert_user_function(value, template)
        cpu_target.target_context.insert_user_function(value, lowered.fndesc, [lowered.library])
        _helpers[value] = lowered.library
    return value


# ---- LLVM to machine code ----------------------------------------------------------------------


def _optimised(unit: Unit) -> Any:
    module, called = unit.library.module, unit.called
    _link(module, unit.library.callees, [])
    for each in (*module.functions, *module.global_variables):
        if not each.is_declaration:
            each.linkage = llvm.Linkage.internal
    entry = unit.entry.replace(ENTRY, symbol(str(module)))
    module.get_function(called).linkage = llvm.Linkage.external
    module.link_in(llvm.parse_assembly(entry))
    module.get_function(called).linkage = llvm.Linkage.internal
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True  # of what is drawn; all else is vectors already
    passes = llvm.create_pass_builder(_machine(), options)
    passes.getModulePassManager().run(module, passes)
    _check(module, unit.name)
    return module


def _entry(name: str, described: Any) -> str:
    """A C function that calls Numba's. Its status is not looked at: kernels raise nothing."""
    context = cpu_target.target_context
    module = ir.Module(name)
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(described.argtypes))
    function = ir.Function(module, kind, name)
    builder = ir.IRBuilder(function.append_basic_block())
    inner = context.declare_function(module, described)
    context.call_conv.call_function(
        builder, inner, described.restype, described.argtypes, function.args
    )
    builder.ret_void()
    return str(module)


def _link(module: Any, libraries: list[Any], linked: list[Any]) -> None:
    for library in libraries:
        if library in linked:
            continue
        linked.append(library)
        if isinstance(library, Library):
            module.link_in(library.module, preserve=True)
            _link(module, library.callees, linked)
        else:  # one of Numba's, which holds all that it calls
            module.link_in(library._get_module_for_linking(), preserve=True)


def _check(module: Any, kernel: str) -> None:
    """Objects run without Python: what they call is LLVM's or the C library's."""
    for each in module.functions:
        name = each.name
        if each.is_declaration and name.startswith(("Py", "_Py", "numba", "NRT", "_ZN")):
            raise AssertionError(f"{kernel} would call {name}, which is Python's")
