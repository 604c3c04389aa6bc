"""The floor plan: packages import packages below them, modules import in no circle, and every
module stays one that a person reads in a sitting."""

from __future__ import annotations

import ast
import collections
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import rnncc.generated.cpu
import rnncc.generated.cuda
from rnncc.runtime.jit import module_grammar
from tests.support.cases import NAMES, module_text
from tests.support.paths import ROOT

PACKAGE = ROOT / "rnncc"
# Each imports from those above it alone. A name that ends in .* is a package with all it holds.
ORDER = (
    "common",
    "ir",
    "frontend",
    "artifact",
    "lowering",
    "drawing",
    "passes",
    "schedule",
    "emit.shared",
    "emit.cpu",
    "emit.cuda",
    "emit.c",
    "emit.onnx",
    "emit",
    "driver",
    "runtime.common",
    "runtime.jit",
    "runtime.planning",
    "runtime.cpu.intrinsics",
    "runtime.cpu.threads",
    "runtime.cpu.kernels",
    "runtime.cpu.planning",
    "runtime.cpu.execution",
    "runtime.cuda.kernels",
    "runtime.cuda.driver",
    "runtime.cuda.planning",
    "runtime.cuda.execution",
    "runtime.cuda.arrays",
    "files",
    "runtime.traces",
    "runtime.profiles",
    "runtime.api",
    "adapters",
    "operations",
    "compiler",
    "generated",
    "oracle",
    "reading",
    "layers",
    "models",
    "models.conventions",
    "models.plain",
    "models.onnx",
    "models.readers",
    "models.load",
    "export.to_onnx",
    "export.to_c",
    "export",
    "plot",
    "torch.*",
    "jax.*",
    "keras.*",
    "explaining",
    "editor",
    "cli",
)
# Folders whose modules nobody needs to know, but for what they hold.
BARE = ("runtime", "runtime.cpu", "runtime.cuda")
MOST_MODULES, MOST_LINES = 16, 500
MOST_LINES_OF_A_FUNCTION = 60


@dataclass(frozen=True)
class Import:
    """One module names another: for annotations alone and inside of functions, too."""

    importer: str
    imported: str


def files() -> Iterator[Path]:
    return (p for p in sorted(PACKAGE.rglob("*.py")) if "templates" not in p.parts)


def name_of(path: Path) -> str:
    """`rnncc/ir/ops.py` -> `ir.ops`, `rnncc/ir/__init__.py` -> `ir`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(p): ast.parse(p.read_text(encoding="utf-8")) for p in files()}
PATHS = {name_of(p): p for p in files()}


def imported_by_text(module: str, call: ast.Call) -> list[str]:
    """What `import_module` and its like are asked for: all modules that begin as is written."""
    if ast.unparse(call.func).rpartition(".")[2] not in ("import_module", "__import__"):
        return []
    match call.args[:1]:
        case [ast.Constant(str(name))]:
            return [name]
        case [ast.JoinedStr([ast.Constant(str(begin)), *_])] if begin.startswith("rnncc."):
            return [f"rnncc.{m}" for m in TREES if m.startswith(begin.removeprefix("rnncc."))]
    assert module == "", f"{module} imports what nobody can read from its text"
    return []  # the package hands on names from where they are


def imports_of(module: str, tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        named: list[str] = []
        if isinstance(node, ast.Import):
            named = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports by dots: say the whole name"
            named = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Call):
            named = imported_by_text(module, node)
        for name in named:
            if name.split(".")[0] == "rnncc":
                target = name.removeprefix("rnncc").removeprefix(".")
                while target not in TREES:
                    target = target.rpartition(".")[0]
                yield Import(module, target)


IMPORTS = [i for module, tree in TREES.items() for i in imports_of(module, tree)]


def package_of(module: str) -> str:
    """The entry of ORDER that a module belongs to; "" for the package itself."""
    if module in ORDER:
        return module
    if f"{module.split('.')[0]}.*" in ORDER:
        return f"{module.split('.')[0]}.*"
    return module.rpartition(".")[0]


def test_every_folder_has_its_place() -> None:
    packages = {package_of(m) for m in TREES} - {"", *BARE}
    assert packages == set(ORDER)
    for folder in BARE:
        assert not [
            m
            for m in TREES
            if m.rpartition(".")[0] == folder
            and m not in (*BARE, *ORDER)
            and PATHS[m].name != "__init__.py"
        ]


@pytest.mark.parametrize("package", ORDER)
def test_packages_import_from_those_above(package: str) -> None:
    """For types alone and inside of functions, too."""
    allowed = {*ORDER[: ORDER.index(package) + 1], *BARE}
    wrong = [
        i
        for i in IMPORTS
        if package_of(i.importer) == package
        and package_of(i.imported) not in allowed
        # The package's own names are handed on from where they are when they are first used.
        and not (i.imported == "" and package == "cli")
    ]
    assert not wrong


def test_layers_stand_on_the_compiler() -> None:
    """On it and the runtime: what it took to compile them is none of their business."""
    below = {
        package_of(i.imported).split(".")[0] for i in IMPORTS if i.importer.startswith("layers.")
    }
    assert below == {"layers", "compiler", "runtime", "common", "artifact"}


def circles() -> list[set[str]]:
    """Modules that import each other, over any way round."""
    graph: dict[str, set[str]] = collections.defaultdict(set)
    for i in IMPORTS:
        if i.importer and i.imported:  # the package itself names what it hands on
            graph[i.importer].add(i.imported)

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph[waiting.pop()] - found
            found |= new
            waiting += new
        return found

    reach = {m: reached(m) for m in TREES}
    return [{b for b in reach[a] if a in reach[b]} for a in sorted(TREES) if a in reach[a]]


def test_no_imports_in_circles() -> None:
    """Of any kind: what knows each other's types is one thing, or one of them knows too much."""
    assert not circles()


def test_a_call_is_written_once() -> None:
    """Which variant runs is decided for layers, Keras and torch in one place; a layer of layers
    asks for its parts' variants, and a plan for the one that nothing was asked of."""
    deciding = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "variant_of"
    }
    assert deciding == {"runtime.api.call", "runtime.api.layer_base", "layers.parts"}


def test_the_way_back_is_written_once() -> None:
    """From what a call has left, for layers, Keras and torch; a layer of layers asks the engines of
    its parts."""
    calling = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("engine.backward")
    }
    assert calling == {"runtime.api.call_gradients", "layers.directions"}


def test_folders_are_small() -> None:
    held = collections.Counter(
        m.rpartition(".")[0] for m in TREES if PATHS[m].name != "__init__.py"
    )
    assert not {f: n for f, n in held.items() if f.startswith("runtime") and n > MOST_MODULES}


def test_modules_are_short() -> None:
    assert not [m for m, p in PATHS.items() if len(p.read_text().splitlines()) > MOST_LINES]


def long_functions() -> set[str]:
    """Functions and methods, nested ones too, of more lines than one reads at once."""
    return {
        f"{module}.{node.name}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    }


def test_functions_are_short() -> None:
    assert not long_functions()


def offered(framework: str) -> set[str]:
    """The names that a framework's package hands on to users."""
    imports = (n for n in ast.walk(TREES[framework]) if isinstance(n, ast.ImportFrom))
    return {a.name for n in imports for a in n.names}


def test_what_docstrings_point_at_is_there() -> None:
    """Whom a module leaves its Non-Goals to: another, or something that is defined."""
    modules = {p: ast.parse(p.read_text(encoding="utf-8")) for p in PACKAGE.rglob("*.py")}
    known = {"v"}
    for path, tree in modules.items():
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        known |= {".".join(parts[i:j]) for j in range(1, len(parts) + 1) for i in range(j)}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                known.add(node.name)
            elif isinstance(node, ast.Assign):
                known |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    lost = [
        f"{path.relative_to(PACKAGE)}: `{name}`"
        for path, tree in sorted(modules.items())
        for name in re.findall(
            r"`([\w.]+)`", (ast.get_docstring(tree) or "").partition("Non-Goals")[2]
        )
        if name.removeprefix("rnncc.") not in known and name.rpartition(".")[2] not in known
    ]
    assert not lost


def test_a_name_means_one_thing() -> None:
    """No two classes of one name, but for what users know by that name in each framework."""
    public = {f: offered(f) for f in ("layers", "keras", "torch")}
    homes: dict[str, set[str]] = collections.defaultdict(set)
    for module, tree in TREES.items():
        for node in ast.iter_child_nodes(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                if node.name not in public.get(module.split(".")[0], ()):
                    homes[node.name].add(module)
    assert not {n: found for n, found in homes.items() if len(found) > 1}


# ---- what doesn't change once it is made ---------------------------------------------------------

FINISHED = ("ir", "schedule", "artifact", "frontend.spec")
COLLECTS = {  # dataclasses that are still being made, never part of what their module hands on
    "ir.interp.Env": "where the interpreter stands in time",
    "schedule.build._Build": "what becomes a Schedule",
    "schedule.region.Identifiers": "names that are taken, for all regions",
    "schedule.region._Lanes": "what becomes a LaneStage",
}


def dataclasses_of(module: str) -> Iterator[tuple[str, ast.ClassDef, dict[str, str]]]:
    """Each with the keywords of its decorator."""
    for node in (n for n in TREES[module].body if isinstance(n, ast.ClassDef)):
        for decorator in node.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            given = decorator.keywords if isinstance(decorator, ast.Call) else []
            if ast.unparse(called) == "dataclass":
                keywords = {str(k.arg): ast.unparse(k.value) for k in given}
                yield f"{module}.{node.name}", node, keywords


def test_what_is_handed_on_is_frozen() -> None:
    """Programs, Schedules, tables and specs are values: nobody who is given one may change it, nor
    what its fields hold."""
    loose: set[str] = set()
    for module in (m for m in TREES if m.startswith(FINISHED)):
        for name, node, keywords in dataclasses_of(module):
            held = [ast.unparse(f.annotation) for f in node.body if isinstance(f, ast.AnnAssign)]
            changing = [t for t in held if re.search(r"\b(list|dict|set)\b", t)]
            if keywords.get("frozen") != "True" or changing:
                loose.add(name)
    assert loose == {*COLLECTS}


# ---- generated modules -------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["cpu", "cuda"])
@pytest.mark.parametrize("name", NAMES)
def test_generated_modules_import_one_module(name: str, target: str) -> None:
    tree = ast.parse(module_text(name, target))
    named = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert named == {f"rnncc.generated.{target}"}
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Import)]


@pytest.mark.parametrize("module", [rnncc.generated.cpu, rnncc.generated.cuda])
def test_the_grammar_knows_what_is_offered(module: object) -> None:
    offered = set(module.__all__)  # type: ignore[attr-defined]
    assert module_grammar.RUNTIME[module.__name__] == offered  # type: ignore[attr-defined]
    assert all(hasattr(module, n) for n in offered)


# ---- names that mean something -----------------------------------------------------------------

MEANT = {  # text that only one module writes and reads: others have its classes and functions
    "common.result_roles": ("d_", "d.", "final_"),
    "artifact.kernel_args": ("|",),
    "artifact.cell": ("_shown",),
}


def meant(module: str) -> set[str]:
    """Such text that a module takes names apart by, or puts them together with."""
    every = {text for texts in MEANT.values() for text in texts}
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            found.add(str(node.values[0].value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            parting = node.func.attr in ("removeprefix", "startswith", "split")
            found |= {a.value for a in node.args if parting and isinstance(a, ast.Constant)}
        elif isinstance(node, ast.Constant) and node.value == "_shown":
            found.add("_shown")
    return every & {text for text in found if isinstance(text, str)}


def test_names_that_mean_something_are_made_in_one_place() -> None:
    assert {m: meant(m) for m in TREES if meant(m)} == {m: set(t) for m, t in MEANT.items()}


# ---- tests -------------------------------------------------------------------------------------

TESTS = ROOT / "tests"
HELPING = ("support", "attack", "arm", "newcomer")  # shared, or longer than a test may take
NO_MIRRORS = (*HELPING, "bench", "docs", "examples")  # of the checkout's other folders


def misplaced(path: Path) -> str:
    """What is wrong with where a module of tests lies; "" if nothing is."""
    folder = path.parent.relative_to(TESTS)
    top = folder.parts[0] if folder.parts else ""
    is_test = path.name.startswith("test_")
    if top in HELPING:
        return "a test among what helps tests" if is_test else ""
    if not (top in NO_MIRRORS or (PACKAGE / folder / "__init__.py").is_file()):
        return f"rnncc has no folder {folder}"
    return "" if is_test or path.name == "conftest.py" else "a helper outside of tests/support"


def test_tests_mirror_the_package() -> None:
    """A module's tests are in the folder that it is in; those of the whole lie at the top."""
    wrong = {str(p.relative_to(TESTS)): misplaced(p) for p in TESTS.rglob("*.py") if misplaced(p)}
    assert not wrong


def imported_tests(path: Path) -> set[str]:
    """Test modules that another module of tests takes names from, in other processes, too."""
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    named = re.findall(r"from (tests[\w.]*) import (\w+)", path.read_text(encoding="utf-8"))
    found = {f"{module}.{name}" if name.startswith("test_") else module for module, name in named}
    return {m for m in found - {own} if m.rpartition(".")[2].startswith("test_")}


def test_tests_do_not_import_tests() -> None:
    """What two need is in tests/support. Defects are shown to tests themselves."""
    found = {str(p.relative_to(TESTS)): imported_tests(p) for p in TESTS.rglob("*.py")}
    assert {p: m for p, m in found.items() if m} == {
        "test_mutants.py": {"tests.runtime.cpu.test_structure", "tests.runtime.cpu.test_unrolled"}
    }


def test_folders_of_tests_are_small() -> None:
    held = collections.Counter(p.parent for p in TESTS.rglob("*.py") if p.name != "__init__.py")
    assert not {str(f): n for f, n in held.items() if n > MOST_MODULES}
