"""Equations as LaTeX and MathML: what both scripts say, and what bad or big texts get."""

from __future__ import annotations

import importlib.util
import re
import xml.dom.minidom
from pathlib import Path
from typing import Any

import pytest

import rnncc
import rnncc.layers
from rnncc.compiler import load_spec
from rnncc.drawing.chosen import ChosenCell, chosen_cell
from rnncc.drawing.latex import Latex
from rnncc.drawing.mathml import MathML
from rnncc.drawing.notebook import PlanText
from rnncc.drawing.walk import equations, rows
from rnncc.lowering.cell_interface import check_text
from tests.support.cases import render_module
from tests.support.paths import ROOT

CELLS = [
    *sorted((ROOT / "rnncc/cells").glob("*.rnn")),
    *sorted((ROOT / "tests/cells").glob("*.rnn")),
]
START = "cell: Tiny\nx: input[3]\nh: state[3]\n"


def lines(cell: ChosenCell) -> list[str]:
    return [f"{r.left} {r.sign} {r.right}" for r in rows(cell, Latex())]


def of_text(body: str, **bound: Any) -> list[str]:
    return lines(chosen_cell(check_text(START + body, "tiny.rnn"), **bound))


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_every_cell_is_read_by_others(path: Path) -> None:
    """By matplotlib's reader of mathematics and a reader of XML, with drops and without."""
    mathtext = pytest.importorskip("matplotlib.mathtext").MathTextParser("path")
    spec = load_spec(path)
    for rate in (0.0, 0.25):
        cell = chosen_cell(spec, rates={r.name: rate for r in spec.rates})
        for line in lines(cell):
            assert line.count("{") == line.count("}")
            mathtext.parse(f"${line}$")
        shown = equations(cell, MathML())
        assert len(xml.dom.minidom.parseString(shown).getElementsByTagName("mtr")) == len(
            lines(cell)
        )


def test_options_are_as_bound() -> None:
    """Nothing drawn at a rate of 0, nothing left that isn't read."""
    plain = lines(chosen_cell(load_spec("gru")))
    assert plain[-2:] == [
        r"h_{t} = z \odot h_{t - 1} + \left( 1 - z \right) \odot g",
        r"\mathrm{return}  h_{t}",
    ]
    assert r"g = \tanh\left( x_{h} + r \odot h_{h} \right)" in plain
    assert r"\mathrm{recurrent\_bias} = \mathrm{bias}[1]" in plain
    assert r"h_{k} = h_{t - 1} \, \mathrm{recurrent\_kernel}" in plain  # no h_dropped
    assert not [s for s in plain if "drop}" in s or "if" in s or s.startswith("U_")]
    cell = rnncc.compile("gru")
    layer = cell(units=4, use_bias=False, activation="relu", dropout=0.5)
    assert r"\operatorname{relu}" in layer.latex() and "bias" not in layer.latex()
    assert r"\operatorname{drop}\left( x_{t},\, 0.5 \right)" in layer.latex()
    assert cell.latex() == equations(chosen_cell(load_spec("gru")), Latex())
    assert "U_{z}" in cell(units=4, recurrent_dropout=0.5).latex()  # the option that it decides
    lambdas = cell(units=4, activation="lambda z: tanh(z) * z").latex()
    assert r"\mathrm{activation}\left( z \right) &= \tanh\left( z \right) \odot z" in lambdas


def test_parentheses_stand_where_they_are_needed() -> None:
    found = of_text(
        "a = (x[t] * x[t] + 1) * 2 - (x[t] - h[t-1]) / 3 / 4 * -x[t]\n"
        "b = (a ** 2) ** -0.5 + 1e-05 * abs(a) / sqrt(a * a + 1)\n"
        "h[t] = where((a < b) and not (a != b or a <= b), a, maximum(b, x_bar))\n"
        "x_bar = x[t] + 0\nreturn h[t], a - (b - (a + b)) - a * (b / a)\n"
    )
    assert found == [
        r"a = \left( x_{t} \odot x_{t} + 1 \right) \cdot 2 - "
        r"\frac{x_{t} - h_{t - 1}}{3} / 4 \odot \left( - x_{t} \right)",
        r"b = {\left( {a}^{2} \right)}^{- 0.5} + "
        r"\frac{10^{-5} \cdot \left| a \right|}{\sqrt{a \odot a + 1}}",
        r"h_{t} = \operatorname{where}\left( a < b \wedge \neg \left( a \neq b \vee a \leq b "
        r"\right),\, a,\, \operatorname{maximum}\left( b,\, x_{t} \right) \right)",
        r"\mathrm{return}  h_{t},\, a - \left( b - \left( a + b \right) \right) - "
        r"a \odot \frac{b}{a}",
    ]
    assert MathML().words("a < b") == "<mtext>a\u00a0&lt;\u00a0b</mtext>"


def test_arguments_of_a_lambda_are_its_own() -> None:
    """Whatever the cell calls by their names."""
    text = f"{START}act: function = lambda v: tanh(v) * v\nrate: rate = 0\n"
    cell = check_text(f"{text}v = drop(x[t], rate)\nh[t] = act(v + h[t-1])\nreturn h[t]\n", "a.rnn")
    assert lines(chosen_cell(cell))[:2] == [
        r"\mathrm{act}\left( v \right) = \tanh\left( v \right) \odot v",
        r"h_{t} = \operatorname{act}\left( x_{t} + h_{t - 1} \right)",
    ]


def test_written_modules_have_their_text_or_say_so(tmp_path: Path) -> None:
    spec = load_spec("simple_rnn")
    for on_demand in (True, False):
        path = tmp_path / f"written_{on_demand}.py"
        path.write_text(render_module(spec, on_demand=on_demand), encoding="utf-8")
        found = importlib.util.spec_from_file_location(path.stem, path)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        layer = module.SimpleRNN(units=4)
        assert "<td>kernel</td>" in layer._repr_html_()
        if on_demand:
            assert layer.latex() == module.SimpleRNN.latex() == rnncc.compile("simple_rnn").latex()
        else:
            assert layer._repr_latex_() is None
            with pytest.raises(ValueError, match="written without the cell's text"):
                layer.latex()


def test_what_is_as_deep_as_a_text_may_be() -> None:
    for sign in ("+", "*", "/", "-"):
        found = of_text(f"h[t] = x[t] {f'{sign} x[t] ' * 190}\nreturn h[t]\n")
        assert found[0].count("x_{t}") == 191
    for function in ("tanh", "abs", "(x[t] ** ", "(2 / "):
        deep = f"{function}(" * 90 + "x[t]" + ")" * (90 + 90 * function.startswith("("))
        cell = chosen_cell(check_text(f"{START}h[t] = {deep}\nreturn h[t]\n", "deep.rnn"))
        assert len(lines(cell)[0]) > 500 and len(equations(cell, MathML())) > 1000


def test_what_has_no_equations_says_so(tmp_path: Path) -> None:
    stack = rnncc.layers.RNN([rnncc.layers.LSTMCell(4), rnncc.layers.GRUCell(3)])
    with pytest.raises(ValueError, match=r"made of layers.*layer\.parts"):
        stack.latex()
    assert stack._repr_latex_() is None
    assert "cell_1.kernel" in stack._repr_html_()
    assert r"\tanh" in stack.parts[0].layer.latex()
    assert rnncc.Layer._repr_html_() is None and rnncc.Layer._repr_latex_() is None
    with pytest.raises(ValueError, match=r"rnncc\.compile makes"):
        rnncc.Layer.latex()


def test_notebooks_show_layers_and_plans() -> None:
    cell = rnncc.compile_text(f"{START}h[t] = x[t]\nreturn h[t]\n")
    assert "<math" in cell._repr_html_()
    assert re.fullmatch(r"\$\$\n\\begin\{aligned\}.*\n\$\$", cell._repr_latex_(), re.DOTALL)
    layer = rnncc.compile("lstm")(units=4, name="<i>")
    assert "[features, 4 * units]" in layer._repr_html_()
    layer.build((None, None, 3))
    assert "<td>kernel</td><td>[3, 16]</td>" in layer._repr_html_()
    assert "<i>" not in layer._repr_html_()
    plan = layer.plan()
    assert isinstance(plan, PlanText) and plan._repr_html_().startswith("<pre>LSTM(units=4")
    long = "".join(f"a{i + 1} = a{i} + 1\n" for i in range(300))
    many = rnncc.compile_text(f"{START}a0 = x[t]\n{long}h[t] = a300\nreturn h[t]\n")
    assert many._repr_latex_() is None and "<math" not in many._repr_html_()
    assert many.latex().count("&=") == 302
