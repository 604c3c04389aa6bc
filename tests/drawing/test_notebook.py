"""What notebooks show by themselves of layers, models, gradients, traces and figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
import rnncc.plot
from rnncc.drawing import notebook
from rnncc.drawing.notebook import PlanText
from rnncc.drawing.tables import MOST_ROWS, table
from rnncc.layers import RNN, Bidirectional, GRUCell, LSTMCell, SimpleRNN

X = np.random.default_rng(0).standard_normal((2, 3, 5)).astype("float32")


def rows_of(html: str) -> list[list[str]]:
    """Texts of a page's table, row by row."""
    rows = re.findall(r"<tr>(.*?)</tr>", re.sub(r"<math.*?</math>", "", html))
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]


def test_a_cell_is_drawn_beside_its_equations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Front ends show the HTML alone, where there is some."""
    cell = rnncc.compile("gru")
    shown = cell._repr_html_()
    assert shown.count("<math") == shown.count('src="data:image/svg+xml;base64,') == 1
    drawn: list[str] = []
    monkeypatch.setattr("rnncc.drawing.picture.picture", lambda *_: drawn.append("") or b"<svg/>")
    cell._repr_svg_(), cell._repr_html_()
    assert not drawn  # drawing is slow
    layer = rnncc.compile("gru")(units=4, reset_after=False)
    assert layer._repr_svg_() == "<svg/>" and len(drawn) == 1

    def none(*_: object) -> bytes:
        raise ImportError

    monkeypatch.setattr("rnncc.drawing.picture.picture", none)
    bare = rnncc.compile("simple_rnn")._repr_html_()
    assert "<math" in bare and "<img" not in bare


def test_layers_of_layers_show_each_kind_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "_drawn", lambda _: None)
    stack = RNN([LSTMCell(4), GRUCell(3), LSTMCell(4)])
    assert stack._repr_html_().count("<math") == 2
    assert Bidirectional(stack)._repr_html_().count("<math") == 2
    assert "2 more kinds" not in stack._repr_html_()
    monkeypatch.setattr(notebook, "MOST_KINDS", 1)
    assert stack._repr_html_().count("<math") == 1
    assert "and 1 more kinds of cells" in stack._repr_html_()
    cell = GRUCell(3)._repr_html_()
    assert cell.startswith("<div><div><code>GRUCell(units=3") and "<td>kernel</td>" in cell
    stack(X)
    assert isinstance(stack.plan(), PlanText)


def test_gradients_say_their_shapes_and_ranges() -> None:
    layer = SimpleRNN(4)
    y, pullback = layer.vjp({"x": X})
    found = pullback(np.ones_like(y))
    kernel = found.weights["kernel"]
    numbers = [f"{kernel.min():.4g}", f"{kernel.max():.4g}"]
    rows = rows_of(found._repr_html_())
    assert rows[0] == ["name", "shape", "smallest", "largest"]
    assert rows[1][:2] == ["inputs.x", "[2, 3, 5]"]
    assert rows[2] == ["weights.kernel", "[5, 4]", *numbers]
    assert repr(found).startswith("<gradients {'inputs.x': [2, 3, 5], 'weights.kernel': [5, 4]")
    assert callable(found._initial)  # nothing was computed for it
    assert repr(pullback(np.ones_like(y), wrt=["weights"])).startswith("<gradients {'weights.k")
    again = layer.vjp(X)[1].vjp(np.ones_like(y))[1]({"weights": {"kernel": kernel}})
    assert repr(again).startswith("<second gradients {'dy': [2, 4], 'inputs': [2, 3, 5]")
    assert "weights.kernel" in again._repr_html_()


def test_weights_and_traces_are_tables() -> None:
    layer = SimpleRNN(4, name="<b>")
    assert rows_of(layer.weights._repr_html_()) == [["name", "shape", "smallest", "largest"]]
    layer(X)
    layer.weights["bias"] = np.array([1, -2, 0.5, np.nan])
    assert rows_of(layer.weights._repr_html_())[-1] == ["bias", "[4]", "nan", "nan"]
    layer.weights["bias"] = np.zeros(4)
    traced = layer.trace(X)
    assert rows_of(traced._repr_html_())[-1][:2] == ["h", "[2, 3, 4]"]
    assert "<b>" not in traced._repr_html_()
    none = layer.trace(np.zeros((0, 3, 5), "float32"))
    assert rows_of(none._repr_html_())[-1] == ["h", "[0, 3, 4]", "", ""]


def test_models_show_their_parts(tmp_path: Path) -> None:
    dense: dict[str, Any] = {"type": "dense", "shape": [None, None, 2], "activation": "tanh"}
    dense["weights"] = [[[1.0, 2.0]], [0.5, 0.0]]
    path = tmp_path / "<i>.json"
    path.write_text(json.dumps({"in_shape": [None, None, 1], "layers": [dense]}))
    model = rnncc.load_model(path)
    rows = rows_of(model._repr_html_())
    assert rows[0] == ["part", "kind", "reads", "makes", "weights"]
    assert rows[1][:2] == ["0_dense", "dense"]
    assert rows[1][-1] == "kernel [1, 2], bias [2]"
    assert "<i>" not in model._repr_html_() and isinstance(model.plan(), PlanText)
    y, pullback = model.vjp(np.ones((1, 3, 1), "float32"))
    found = pullback(np.ones_like(y))
    assert "'weights.0_dense/kernel': [1, 2]" in repr(found)
    assert ["weights.0_dense/bias", "[2]"] in [r[:2] for r in rows_of(found._repr_html_())]


def test_long_tables_are_cut() -> None:
    shown = table(["a"], [[str(n)] for n in range(MOST_ROWS + 3)])
    assert f"<td>{MOST_ROWS - 1}</td>" in shown and f"<td>{MOST_ROWS}</td>" not in shown
    assert "and 3 more" in shown
    assert "more" not in table(["a"], [[str(n)] for n in range(MOST_ROWS)])


def test_figures_are_shown_without_pyplot() -> None:
    layer = rnncc.compile("gru")(units=4)
    for figure in (rnncc.plot.gates(layer, X), rnncc.plot.drawing(layer)):
        assert figure._repr_png_().startswith(b"\x89PNG")
