"""Templates lay out what they are given and decide nothing; what they print is tidy Python."""

from __future__ import annotations

import ast
import re

import jinja2
import pytest
from jinja2 import meta, nodes

from rnncc.artifact.cell import Variant
from rnncc.common.template_loader import environment, template_root
from rnncc.driver import Programs
from rnncc.lowering.lower import lower
from tests.support.cases import NAMES, module_text, render_module, spec_of

TEMPLATES = sorted(p.relative_to(template_root()).as_posix() for p in template_root().rglob("*.j*"))
ROOTS = [n for n in TEMPLATES if n.count(".") > 1]  # of files; those of macros are NAME.jinja
WIDTH = 160


def tree(name: str) -> nodes.Template:
    return environment().parse((template_root() / name).read_text(encoding="utf-8"))


def test_there_are_templates() -> None:
    assert "cpu/module.py.jinja" in ROOTS and len(TEMPLATES) > len(ROOTS)


@pytest.mark.parametrize("name", ROOTS)
def test_a_module_reads_one_name(name: str) -> None:
    assert meta.find_undeclared_variables(tree(name)) == {"m"}


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - set(ROOTS)))
def test_macros_read_their_arguments_alone(name: str) -> None:
    # `caller` is how jinja hands a macro the block it is called around.
    assert meta.find_undeclared_variables(tree(name)) <= {"caller"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_knows_a_backend(name: str) -> None:
    names = {n.name for n in tree(name).find_all(nodes.Name)}
    attributes = {n.attr for n in tree(name).find_all(nodes.Getattr)}
    assert not {"backend", "target", "machine"} & (names | attributes)


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_chooses_what_it_prints(name: str) -> None:
    """`{{ a if b else c }}`: views have the text that it is."""
    assert not [n.lineno for n in tree(name).find_all(nodes.CondExpr)]


def test_a_missing_value_is_an_error() -> None:
    found = environment()
    assert found.undefined is jinja2.StrictUndefined
    assert found.trim_blocks and found.lstrip_blocks and found.keep_trailing_newline
    with pytest.raises(jinja2.UndefinedError):
        found.from_string("{{ m.nothing }}").render(m=object())


@pytest.mark.parametrize("name", NAMES)
def test_modules_are_tidy(name: str) -> None:
    text = module_text(name)
    ast.parse(text)
    wrong = [
        f"{number}: {line}"
        for number, line in enumerate(text.splitlines(), 1)
        if line != line.rstrip() or "\t" in line or len(line) > WIDTH
    ]
    assert not wrong
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert not re.search(r"\n{4,}", text), "more than two blank lines"


@pytest.mark.parametrize("name", NAMES)
def test_modules_read_only_words_that_exist(name: str) -> None:
    """Every name a generated function reads is its own, the module's, or Python's."""
    module = ast.parse(module_text(name))
    outer = {"float", "range", "min", "max"}
    for node in module.body:
        if isinstance(node, ast.ImportFrom):
            outer |= {a.asname or a.name for a in node.names}
        elif isinstance(node, ast.Assign):
            outer |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.FunctionDef):
            outer.add(node.name)  # what a twin is the twin of
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
            own = {n.id for n in names if isinstance(n.ctx, ast.Store)}
            own |= {a.arg for a in node.args.args}
            read = {n.id for n in names if isinstance(n.ctx, ast.Load)}
            assert not read - own - outer - {"kernel"}, node.name


@pytest.mark.parametrize("name", NAMES)
def test_every_contraction_cites_its_equation(name: str) -> None:
    """However it was split, turned or moved on its way, in both directions."""
    program = lower(spec_of(name), {}, {})
    lines = {op.span.line for op in program.ops() if op.opcode == "contract" and op.span}
    for made in Programs(program).directions():
        for op in made.schedule.program.ops():
            if op.opcode == "contract":
                assert op.span is not None and op.span.line in lines, op


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_loop_says_what_it_multiplies(name: str) -> None:
    text = render_module(spec_of(name), variants=(Variant(),))
    loops = re.split(r"\n\n\n", text)
    for loop in [f for f in loops if "def forward_scan(" in f or "def backward_scan(" in f]:
        assert any(" @ " in line for line in loop.split("\n") if line.lstrip().startswith("# "))


@pytest.mark.parametrize("name", ["simple_rnn", "matrix_memory"])
def test_the_same_spec_gives_the_same_bytes(name: str) -> None:
    assert module_text(name) == render_module(spec_of(name))
