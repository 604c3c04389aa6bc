"""No text of a spec is executed: whatever stands in it is a comment or a literal of a module.

Each hostile text would leave a mark among the builtins if it ran; modules are rendered for both
targets, checked, and imported.
"""

from __future__ import annotations

import ast
import builtins
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rnncc.artifact.cell import Variant
from rnncc.artifact.literals import quoted
from rnncc.common.template_loader import environment
from rnncc.common.user_text import Code, comment, documented, text_literal
from rnncc.frontend.diagnostics import SpecError
from rnncc.lowering.cell_interface import check_text
from rnncc.runtime.jit.module_grammar import NotAModule, check_module
from tests.conftest import Ran
from tests.support.cases import render_module
from tests.support.paths import ROOT

RUN = '__import__("builtins").__dict__.__setitem__("rnncc_was_here", 1)'
HOSTILE = {
    "quotes": f'"""\n{RUN}\n"""',
    "one line": f'"""; {RUN}; """',
    "single quotes": f"'''; {RUN}; '''",
    "backslash": '\\"""; ' + RUN + '; """',
    "last backslash": "ends with \\",
    "last quote": 'ends with "',
    "many quotes": '"' * 7,
    "windows": "C:\\users\\new\\N{x}\\x\\u12\\777",
    "template": "{{ m.cell }}{% raw %}{# #}</script>&lt;<&>",
    "format": "%s %(x)s {0} {x!r}",
    "control": f"a\x0b{RUN}\x0c{RUN}\x1c{RUN}\x85{RUN}\x1b[31m\x7f\b",
    "separators": f"a\u2028{RUN}\u2029{RUN}",
    "turned": "a\u202e\u2066b",
    "encoding": "-*- coding: utf-7 -*-",
    "long": "x" * 4_000,
    "letters": "Größe, 大小, \N{GREEK SMALL LETTER ALPHA}, \N{ROCKET}",
}
CELL = """{doc}
cell: Cell  # {comment}
units: size  # {comment}
kind: option = {option}
x: input[units]
# {comment}
w: weight[units]
h: state[units]
u = x[t] * (1 if kind == {option} else 2)  # {comment}
h[t] = einsum("i,i->i", u, w) + h[t-1]  # {comment}
# {comment}
return h[t]  # {comment}
"""


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    yield
    ran = builtins.__dict__.pop("rnncc_was_here", None)
    assert ran is None, "text of the user's was executed"


def imported(text: str, target: str = "cpu", filename: str = "<text>") -> dict[str, object]:
    """The module of a cell, checked and run."""
    spec = check_text(text, filename)
    made = render_module(spec, variants=(Variant(),), target=target, on_demand=True)
    module: dict[str, object] = {"__name__": "hostile"}
    exec(compile(check_module(made), "<module>", "exec"), module)
    assert module["SPEC"] == spec.text
    return module


@pytest.mark.parametrize("target", ["cpu", "cuda"])
@pytest.mark.parametrize("name", HOSTILE)
def test_any_text_anywhere(name: str, target: str) -> None:
    hostile = HOSTILE[name]
    line = hostile.replace("\n", " ")
    text = CELL.format(doc=quoted(hostile), comment=line, option=quoted(hostile))
    module = imported(text, target, f"folder/{line}.rnn")
    assert module["CELL"].doc == hostile  # type: ignore[attr-defined]
    assert module["CELL"].options == (("kind", hostile),)  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", ["\0", "\ud800", "\udcff"])
@pytest.mark.parametrize("place", ["# {}", '"{}"', "z = {}"])
def test_what_is_no_text_is_refused_where_it_stands(bad: str, place: str) -> None:
    text = CELL.format(doc='"""d"""', comment="c", option="1").replace(
        "x: input", place.format(f"a{bad}") + "\nx: input"
    )
    with pytest.raises(SpecError) as caught:
        check_text(text)
    (found,) = caught.value.diagnostics
    assert (found.code, found.span.line) == ("E004", 5)
    assert found.span.col == place.index("{}") + 2
    str(caught.value).encode()


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_every_end_of_a_line_is_one(end: str) -> None:
    text = CELL.format(doc='"""d"""', comment="c", option="1").replace("\n", end)
    spec = check_text("\ufeff" + text)
    assert [e.span.line for e in spec.equations] == [9, 10]


@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_lines_are_counted_as_python_counts_them(odd: str) -> None:
    """What `str.splitlines` takes for the end of a line is none: comments cite the right ones."""
    text = CELL.format(doc='"""d"""', comment=f"a{odd}b", option="1")
    made = render_module(check_text(text), variants=(Variant(),))
    (equation,) = {line.strip() for line in made.split("\n") if "# h[t] = einsum" in line}
    assert equation.endswith("(<text>:10)") and comment(odd) in equation


def test_a_docstring_says_what_was_given() -> None:
    for hostile in HOSTILE.values():
        text = f'"""{documented(hostile)}"""'
        assert ast.literal_eval(text) == hostile
        assert ast.literal_eval(quoted(hostile)) == hostile
        for whole in (hostile, f"{hostile}\n", f"{hostile}\n'''", f"{hostile}'", f"{hostile} \n"):
            shown = text_literal(whole)
            assert ast.literal_eval(str(shown)) == whole and " \n" not in shown
        assert "\n" not in comment(hostile) and len(comment(hostile).splitlines()) == 1


def test_the_command_line_runs_nothing(
    rnncc_cli: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`explain`, `compile` and the import of what it wrote, of a file of any name."""
    monkeypatch.chdir(tmp_path)
    hostile = 'a"""; open("ran", "w"); """'
    path = tmp_path / f"{hostile}.rnn"
    text = CELL.format(doc=quoted(hostile), comment=f"{hostile}\u2028{RUN}", option=quoted(hostile))
    path.write_text(text, encoding="utf-8")
    assert rnncc_cli("explain", path).code == 0
    assert rnncc_cli("explain", path, "--after", "module").code == 0
    assert rnncc_cli("compile", path, "-o", "made.py", "--set", f"kind={hostile}").code == 0
    done = subprocess.run(
        [sys.executable, "-c", "import made; assert made.Cell"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


# ---- the two doors ---------------------------------------------------------------------------


@pytest.mark.parametrize("raw", ['say "hi"', "it's", "a\\b", "two\nlines", "\u2028", "é"])
def test_templates_print_no_raw_text(raw: str) -> None:
    template = environment().from_string("{{ m }}")
    with pytest.raises(TypeError, match="neither Code nor a line of ours"):
        template.render(m=raw)
    assert template.render(m=Code(raw)) == raw
    assert template.render(m="a = v.load(b + q)  # line 3") == "a = v.load(b + q)  # line 3"


def with_line(line: str) -> Callable[[str], str]:
    return lambda text: text.replace("\nSIZE = 4\n", f"\nSIZE = 4\n{line}\n")


def in_kernel(line: str) -> Callable[[str], str]:
    old = "    old = flush_denormals()\n"
    return lambda text: text.replace(old, f"    {line}\n{old}", 1)


CHANGES = {
    "a call": with_line(RUN),
    "an import": with_line("import os"),
    "an import of a module": with_line("from os import system"),
    "an import that is none": with_line(
        "from rnncc.runtime.cpu.intrinsics.kernel_namespace import import_module"
    ),
    "an import from here": with_line("from . import x"),
    "a star": with_line("from rnncc.runtime.cpu.intrinsics.kernel_namespace import *"),
    "a call in data": with_line("X = print(1)"),
    "a word in data": with_line("X = word(1, 2)"),
    "an attribute": with_line("X = kernel.__globals__"),
    "a text that is formatted": with_line('X = f"{SIZE}"'),
    "a comprehension": with_line("X = [x for x in (1, 2)]"),
    "a lambda": with_line("X = lambda: 1"),
    "a class": with_line("class X: pass"),
    "a function": with_line("def f(): pass"),
    "a decorator": with_line("@print\ndef f(): pass"),
    "a decorator's argument": with_line("@one_row(print(1))\ndef f(): pass"),
    "a default": with_line("@kernel\ndef f(a=print(1)): pass"),
    "an annotation": with_line("@kernel\ndef f(a: print(1)): pass"),
    "an annotated name": with_line("X: print(1) = 2"),
    "an if": with_line("if SIZE: pass"),
    "a walrus": with_line("X = (y := 3)"),
    "another word": with_line("words = 3"),
    "a name of Python's": with_line("__builtins__ = 3"),
    "a second one in line": with_line("X = 1; print(2)"),
    "text in a kernel": in_kernel('x = "text"'),
    "a call in a kernel": in_kernel("print(1)"),
    "an unknown name in a kernel": in_kernel("x = os"),
    "an attribute in a kernel": in_kernel("x = v.load.__class__"),
    "an attribute of a local": in_kernel("x = block.real"),
    "a word hidden in a kernel": in_kernel("words = 3"),
    "a builtin hidden in a kernel": in_kernel("range = 3"),
    "an import in a kernel": in_kernel("import os"),
    "a global": in_kernel("global x"),
    "no docstring": lambda text: text[text.index("from rnncc") :],
    "no Python": lambda text: text + "(",
    "a null": lambda text: text + "\0",
    "nothing": lambda text: "",
}


@pytest.fixture(scope="module")
def module() -> str:
    spec = check_text(CELL.format(doc='"""d"""', comment="c", option="1"))
    return render_module(spec, variants=(Variant(),))


@pytest.mark.parametrize("name", CHANGES)
def test_a_module_is_made_of_what_templates_make(name: str, module: str) -> None:
    assert check_module(module) is module
    changed = CHANGES[name](module)
    assert changed != module
    with pytest.raises(NotAModule, match="not a module of rnncc: "):
        check_module(changed)


def test_a_fault_is_told_with_its_line(module: str) -> None:
    line = module.count("\n", 0, module.index("\nSIZE = 4")) + 3
    with pytest.raises(NotAModule, match=f"line {line}: an import from os is nothing"):
        check_module(CHANGES["an import of a module"](module))
