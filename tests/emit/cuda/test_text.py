"""The text of CUDA modules: tidy, complete, the same each time; imported where there is no GPU."""

from __future__ import annotations

import ast
import re

import numpy as np
import pytest

import rnncc
from rnncc.artifact.cell import Variant
from rnncc.runtime.cuda.kernels import kernel_namespace
from rnncc.runtime.jit.module_cache import text_module
from tests.conftest import Golden
from tests.support.cases import NAMES, render_module, spec_of

WIDTH = 200


@pytest.mark.parametrize("name", NAMES)
def test_modules_are_tidy(name: str) -> None:
    spec = spec_of(name)
    rates = frozenset(r.name for r in spec.rates)
    everything = Variant(mask=True, training=bool(rates), active_rates=rates)
    text = render_module(spec, variants=(everything,), target="cuda")
    wrong = [
        f"{number}: {line}"
        for number, line in enumerate(text.splitlines(), 1)
        if line != line.rstrip() or "\t" in line or len(line) > WIDTH
    ]
    assert not wrong
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert not re.search(r"\n{4,}", text), "more than two blank lines"
    check_words(ast.parse(text), name)


def check_words(module: ast.Module, name: str) -> None:
    """Every name a kernel reads is its own, the module's, Python's, or a number of its sizes."""
    outer = {"range", "min", "max"}
    for node in module.body:
        if isinstance(node, ast.ImportFrom):
            outer |= {a.asname or a.name for a in node.names}
        elif isinstance(node, ast.Assign):
            outer |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            found = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
            own = {n.id for n in found if isinstance(n.ctx, ast.Store)}
            own |= {a.arg for a in node.args.args}
            read = {n.id for n in found if isinstance(n.ctx, ast.Load)} - own - outer
            twin = node.name.endswith("_stationary")
            built_in = {n for n in read if twin and re.fullmatch(r"[A-Z]+(_\d+)*", n)}
            made = {k.name for k in module.body if isinstance(k, ast.FunctionDef)}
            assert not read - built_in - {"kernel", "stationary"} - made, (name, node.name)


def test_module(golden: Golden) -> None:
    plain = (Variant(),)
    text = render_module(spec_of("simple_rnn"), variants=plain, target="cuda")
    assert text == render_module(spec_of("simple_rnn"), variants=plain, target="cuda")
    golden(text, "simple_rnn.txt")


def test_a_written_module_needs_no_gpu_to_be_imported() -> None:
    module = text_module("gru_cuda", render_module(spec_of("gru"), target="cuda"))
    layer = module.GRU(units=3, seed=1)
    layer.build((None, None, 2))
    assert "has not run" in layer.plan()
    with pytest.raises(ValueError, match="--target cpu"):
        layer.to("cpu")


def test_names_mean_nothing_outside_of_kernels() -> None:
    with pytest.raises(TypeError, match=r"v\.load has a meaning inside of kernels only"):
        kernel_namespace.v.load(0)


def test_layers_move() -> None:
    x = np.linspace(-1, 1, 12, dtype="float32").reshape(1, 4, 3)
    layer = rnncc.compile("gru")(units=3, seed=1)
    y = layer(x)
    assert layer.to("cuda") is layer and "cuda" in layer.plan()
    np.testing.assert_array_equal(layer.to("cpu")(x), y)
    with pytest.raises(ValueError, match="target is one of cpu, cuda, not 'tpu'"):
        layer.to("tpu")
    with pytest.raises(ValueError, match="target is one of cpu, cuda, not 'tpu'"):
        rnncc.compile("gru", target="tpu")


def test_check_says_what_is_missing(rnncc_cli) -> None:
    ran = rnncc_cli("check", "simple_rnn", "--target", "cuda")
    if ran.code == 0:
        pytest.skip("there is a GPU here")
    assert ran.code == 1 and ran.err.startswith("rnncc: target cuda") and "Traceback" not in ran.err


def test_compile_says_what_for(rnncc_cli, tmp_path) -> None:
    out = tmp_path / "cell.py"
    ran = rnncc_cli("compile", "indrnn", "--target", "cuda", "-o", out)
    assert ran.code == 0 and "cuda, float32: tiers, blocks and threads" in ran.out
    assert "for cuda, float32" in out.read_text()
