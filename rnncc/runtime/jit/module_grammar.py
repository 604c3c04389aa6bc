"""Whether a text is a module that rnncc's templates make: asked before one is written or run.

    Module    = docstring, imports of RUNTIME's names, then Assign | Function, one after another
    Assign    = NAME = Data, a name of the module's own; the last one, the cell's class, any name
    Data      = literal | NAME of the module's | call of a noun of RUNTIME with Data | v.bytes
    Function  = @decorator of RUNTIME, plain parameters, a docstring perhaps, Statement ...
    Statement = name = Value | name op= Value | call | for ... in range(...) | while | if
                | return | continue | break
    Value     = number | name | arithmetic | comparison | choice | call of a word of RUNTIME or of
                what belongs to `v`, `w` or `cuda` | element of a local array

So importing a module calls the nouns of RUNTIME on literals, and nothing else: kernels are
compiled and never run by Python. User's text is in comments, in docstrings and in literals alone.

Non-Goals: whether kernels compute what they should; Python in general.
"""

from __future__ import annotations

import ast

# What a module may call where it holds data; decorators of its functions; what kernels are written
# with. All of it is what `rnncc.generated` offers (tests hold the two together).
TABLES = (
    "Array BufferView CellDescription Constraint CopySpec CoreSpec DirectionSpec GradSpec "
    "KernelSpec OperandSpec PackSpec PieceSpec Rate SizeDescription StageSpec SummedSpec "
    "Variant gates"
)
ENGINES = "CpuEngine CpuSecondEngine CudaEngine CudaSecondEngine layer_class"
NOUNS = frozenset(f"{TABLES} {ENGINES} GroupShape host_vectors vectors".split())
DECORATORS = frozenset(("core", "inlined", "kernel", "one_row", "stationary", "summed"))
RUNTIME = {
    module: frozenset(names.split())
    for module, names in {
        "rnncc.generated.cpu": (
            "POINTERS_AT POINTER_BYTES SPILLS_AT TILE_BYTES TURN_AT Array BufferView "
            "CellDescription Constraint CopySpec CoreSpec CpuEngine CpuSecondEngine "
            "DirectionSpec GradSpec KernelSpec OperandSpec PackSpec PieceSpec Rate SizeDescription "
            "StageSpec Variant barrier block_rows call_core enter contract_rows copy_pieces "
            "draw_float32 draw_float64 fetch_tile flush_denormals gates host_vectors inlined "
            "kernel lane_range layer_class one_row opaque own_part own_rows restore_denormals "
            "STAMP_LINE row_key row_range segment segment_if set_word set_words share stamp "
            "ticks tile_rows word words"
        ),
        "rnncc.generated.cuda": (
            "COUNTER_BYTES F Array BufferView CellDescription Constraint CoreSpec CudaEngine "
            "CudaSecondEngine DirectionSpec GradSpec GroupShape KernelSpec OperandSpec PackSpec "
            "Rate SizeDescription StageSpec SummedSpec Variant anew cuda gates kernel "
            "layer_class level_barrier row_key share stationary summed team_sum uniform v"
        ),
        # Cores and row helpers, which know no cell.
        "rnncc.runtime.jit.kernel": "core",
        "rnncc.runtime.cpu.intrinsics.kernel_namespace": "vectors word",
    }.items()
}
BUILTINS = frozenset(("float", "max", "min", "range"))
SPACES = frozenset(("v", "w", "cuda"))  # names whose attributes are words, too

_OPERATORS = (
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow),
    *(ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift, ast.RShift),
    *(ast.USub, ast.UAdd, ast.Not, ast.Invert, ast.And, ast.Or),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)


class NotAModule(ValueError):
    """The text is none that templates make. A fault of rnncc's, or a file that was changed."""


def check_module(text: str) -> str:
    """The text itself. NotAModule with the first line that no template makes."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotAModule(f"not a module of rnncc: {error}") from None
    _Module().check(tree)
    return text


def _demand(held: bool, node: ast.AST, what: str) -> None:
    if not held:
        line = getattr(node, "lineno", 1)
        raise NotAModule(f"not a module of rnncc: line {line}: {what} is nothing a template makes")


class _Module:
    def __init__(self) -> None:
        self.names: set[str] = set()  # of the module, so far
        self.nouns: set[str] = set()

    def check(self, tree: ast.Module) -> None:
        _demand(bool(tree.body), tree, "an empty text")
        _demand(_is_text(tree.body[0]), tree.body[0], "a module without a docstring")
        for node in tree.body[1:]:
            match node:
                case ast.ImportFrom():
                    self.imports(node)
                case ast.Assign(targets=[ast.Name(id=name)]):
                    self.data(node.value)
                    last = node is tree.body[-1] and _calls(node.value, "layer_class")
                    self.bind(name, node, again=last)
                case ast.FunctionDef():
                    self.function(node)
                    self.bind(node.name, node)
                case _:
                    _demand(False, node, type(node).__name__)

    def bind(self, name: str, node: ast.AST, *, again: bool = False) -> None:
        _demand(name == "_ENGINES" or not name.startswith("_"), node, name)
        _demand(again or name not in self.names, node, f"another {name}")
        self.names.add(name)

    def imports(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        _demand(node.level == 0 and module in RUNTIME, node, f"an import from {module}")
        for alias in node.names:
            _demand(alias.name in RUNTIME[module], node, f"an import of {alias.name}")
            self.bind(alias.asname or alias.name, node)
            if alias.name in NOUNS:
                self.nouns.add(alias.asname or alias.name)

    # ---- data -----------------------------------------------------------------------------------

    def data(self, node: ast.AST) -> None:
        match node:
            case ast.Constant():
                pass
            case ast.Name(id=name):
                _demand(name in self.names or name == "__name__", node, name)
            case ast.Tuple(elts=items) | ast.Set(elts=items):
                for item in items:
                    self.data(item)
            case ast.Dict(keys=keys, values=values):
                for key in keys:
                    _demand(key is not None, node, "an unpacked dict")
                for item in (*filter(None, keys), *values):
                    self.data(item)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
                pass
            case ast.BinOp(op=ast.Mult(), left=left, right=right):
                self.data(left)
                self.data(right)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                _demand(name in self.nouns or name == "frozenset", node, f"a call of {name}")
                for keyword in keywords:
                    _demand(keyword.arg is not None, node, "an unpacked dict")
                for item in (*args, *(k.value for k in keywords)):
                    self.data(item)
            case ast.Attribute(value=ast.Name(id="v"), attr="bytes"):
                _demand("v" in self.names, node, "v")
            case _:
                _demand(False, node, type(node).__name__)

    # ---- kernels --------------------------------------------------------------------------------

    def function(self, node: ast.FunctionDef) -> None:
        _demand(len(node.decorator_list) == 1, node, "a function that is no kernel")
        (decorator,) = node.decorator_list
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        known = isinstance(called, ast.Name) and called.id in DECORATORS
        _demand(known and called.id in self.names, decorator, "this decorator")  # type: ignore[attr-defined]
        if isinstance(decorator, ast.Call):
            for item in decorator.args:
                self.data(item)
            _demand(not decorator.keywords, decorator, "a keyword here")
        parameters = node.args
        rest = (
            parameters.vararg,
            parameters.kwarg,
            parameters.kwonlyargs,
            parameters.posonlyargs,
            parameters.defaults,
        )
        plain = not any(rest) and not any(a.annotation for a in parameters.args)
        _demand(plain and node.returns is None, node, "such parameters")
        _Kernel(self.names, node).check()


class _Kernel:
    def __init__(self, outer: set[str], node: ast.FunctionDef) -> None:
        self.node = node
        own, called = {a.arg for a in node.args.args}, outer | BUILTINS
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                own.add(inner.id)
        for name in own:
            # What it calls means the same all through the kernel.
            _demand(name not in called and name[:2] != "__", node, f"{name} as a variable")
        self.own, self.called, self.known = own, called, own | called
        self.spaces = outer & SPACES

    def check(self) -> None:
        body = self.node.body
        self.block(body[1:] if _is_text(body[0]) else body)

    def block(self, body: list[ast.stmt]) -> None:
        for node in body:
            self.statement(node)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[target], value=value):
                self.target(target)
                self.value(value)
            case ast.AugAssign(target=ast.Name(), value=value):
                self.value(value)
            case ast.Expr(value=ast.Call() as call):
                self.value(call)
            case ast.For(target=ast.Name(), iter=iterated, body=body, orelse=[]):
                self.value(iterated)
                self.block(body)
            case ast.While(test=test, body=body, orelse=[]):
                self.value(test)
                self.block(body)
            case ast.If(test=test, body=body, orelse=orelse):
                self.value(test)
                self.block(body)
                self.block(orelse)
            case ast.Return(value=None) | ast.Continue() | ast.Break():
                pass
            case _:
                _demand(False, node, type(node).__name__)

    def target(self, node: ast.AST) -> None:
        match node:
            case ast.Name():
                pass
            case ast.Tuple(elts=items):
                for item in items:
                    self.target(item)
            case ast.Subscript(value=ast.Name(id=name), slice=index):
                _demand(name in self.own, node, f"an element of {name}")
                self.value(index)
            case _:
                _demand(False, node, type(node).__name__)

    def value(self, node: ast.AST) -> None:
        match node:
            case ast.Name(id=name):
                # Numbers in capitals are built into a kernel for its sizes.
                _demand(name in self.known or name.isupper(), node, name)
            case ast.Constant(value=value):
                _demand(isinstance(value, bool | int | float), node, "a text")
            case ast.BinOp(left=left, op=op, right=right):
                self.parts(node, [op], left, right)
            case ast.UnaryOp(op=op, operand=operand):
                self.parts(node, [op], operand)
            case ast.BoolOp(op=op, values=values):
                self.parts(node, [op], *values)
            case ast.Compare(left=left, ops=ops, comparators=right):
                self.parts(node, ops, left, *right)
            case ast.IfExp(test=test, body=yes, orelse=no):
                self.parts(node, [], test, yes, no)
            case ast.Tuple(elts=items):
                self.parts(node, [], *items)
            case ast.Subscript(value=ast.Name(id=name), slice=index):
                _demand(name in self.own, node, f"an element of {name}")
                self.value(index)
            case ast.Attribute():
                self.word(node)
            case ast.Call(func=func, args=args, keywords=[]):
                _demand(isinstance(func, ast.Name | ast.Attribute), func, "a call of this")
                if isinstance(func, ast.Name):
                    _demand(func.id in self.called, func, f"a call of {func.id}")
                else:
                    self.word(func)
                self.parts(node, [], *args)
            case _:
                _demand(False, node, type(node).__name__)

    def parts(self, node: ast.AST, operators: list, *values: ast.AST) -> None:
        for operator in operators:
            _demand(isinstance(operator, _OPERATORS), node, type(operator).__name__)
        for value in values:
            self.value(value)

    def word(self, node: ast.AST) -> None:
        """`v.fma`, `cuda.blockIdx.x`."""
        while isinstance(node, ast.Attribute):
            _demand(not node.attr.startswith("_"), node, node.attr)
            node = node.value
        known = isinstance(node, ast.Name) and node.id in self.spaces
        _demand(known, node, "an attribute of this")


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _calls(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
