"""Drawings: what is in them and where it stands, files whole or not at all, bad and big cells."""

from __future__ import annotations

import collections
import graphlib
import itertools
import random
import sys
import xml.dom.minidom
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rnncc
import rnncc.layers
import rnncc.plot
from rnncc.compiler import load_spec
from rnncc.drawing.chosen import ChosenCell, chosen_cell
from rnncc.drawing.columns import columns_of, ranks_of
from rnncc.drawing.graph import MOST_NODES, drawing_of
from rnncc.drawing.notebook import MOST_DRAWN
from rnncc.drawing.picture import BOX, _boxes, picture
from rnncc.driver import Derivation
from rnncc.explaining.cell_drawing import cell_drawing
from rnncc.explaining.origins import Origins, TextPieces
from rnncc.lowering.cell_interface import check_text
from tests.support.paths import ROOT

pytest.importorskip("matplotlib", reason="matplotlib isn't installed")

Cli = Callable[..., Any]
START = "cell: Tiny\nx: input[3]\nh: state[3]\n"
CELLS = [
    *sorted((ROOT / "rnncc/cells").glob("*.rnn")),
    *sorted((ROOT / "tests/cells").glob("*.rnn")),
]


def of_text(body: str) -> ChosenCell:
    return chosen_cell(check_text(START + body, "tiny.rnn"))


def test_what_is_dense_and_what_goes_around() -> None:
    drawing = drawing_of(chosen_cell(load_spec("lstm")))
    kinds = {n.key: n.kind for n in drawing.nodes.values()}
    counts = collections.Counter(kinds.values())
    assert counts == {"input": 1, "state": 2, "weight": 3, "dense": 2, "pointwise": 6, "next": 2}
    assert kinds["x"] == "input" and kinds["c[t-1]"] == "state" and kinds["c[t]"] == "next"
    assert drawing.around == [("c[t]", "c[t-1]"), ("h[t]", "h[t-1]")]
    assert [n.key for n in drawing.nodes.values() if n.returned] == ["h[t]"]
    products = [b for a, b in drawing.arrows if a == "recurrent_kernel"]
    assert len(products) == 1 and (products[0], "z") in drawing.arrows
    assert {a for a, b in drawing.arrows if b == products[0]} == {"h[t-1]", "recurrent_kernel"}
    assert {a for a, b in drawing.arrows if b == "c[t]"} == {"c[t-1]", "f", "i", "g"}


def test_dense_is_what_is_computed_so() -> None:
    """Not what is written: a sum of rows multiplies nothing, and both drawings know it."""
    body = """W: weight[3, 3]
a = einsum("kl->k", W) * x[t]
b = einsum("k,kl->l", h[t-1], W)
h[t] = a + b
return h[t]
"""
    cell = of_text(body)
    kinds = {n.key: n.kind for n in drawing_of(cell).nodes.values()}
    assert kinds["a"] == "pointwise" and kinds["b"] == "dense"
    derivation = Derivation(cell.spec)
    pieces = TextPieces(cell.spec)
    boxes = cell_drawing(derivation.plain.lowered, Origins(pieces, derivation.plain)).boxes
    assert {p.box.lines[0]: p.box.kind for p in boxes}["b"] == "dense"
    assert {p.box.lines[0]: p.box.kind for p in boxes}["a"] != "dense"


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_every_cell_has_its_place(path: Path) -> None:
    """Arrows go to the right, no two boxes meet, every equation that is shown is there."""
    cell = chosen_cell(load_spec(path))
    drawing = drawing_of(cell)
    ranks = ranks_of([*drawing.nodes], drawing.arrows, frozenset())
    columns = columns_of(ranks, drawing.arrows)
    boxes = _boxes(columns, dict.fromkeys(drawing.nodes, 50.0), 0)
    assert {*drawing.nodes} <= boxes.keys()
    for a, b in drawing.arrows:
        assert boxes[a].x + 50 < boxes[b].x
    for a, b in itertools.combinations(drawing.nodes, 2):
        apart = boxes[a].x != boxes[b].x or abs(boxes[a].y - boxes[b].y) >= BOX
        assert apart, (a, b)
    for equation in cell.equations:
        assert {n.split("[t")[0] for n in drawing.nodes} & {t.name for t in equation.targets}


def test_columns_of_any_graph() -> None:
    """Without arrows, with long ones, at random: right of what they come from, each place once."""
    assert columns_of({}, []).columns == ((),)
    with pytest.raises(graphlib.CycleError):
        ranks_of(["a", "b"], [("a", "b"), ("b", "a")], frozenset())
    rng = random.Random(4)
    for _ in range(20):
        count = rng.randrange(1, 30)
        names = [f"n{i}" for i in range(count)]
        pairs = {tuple(sorted(rng.sample(range(count), 2))) for _ in range(2 * count) if count > 1}
        arrows = [(names[a], names[b]) for a, b in sorted(pairs)]
        late = frozenset(n for n in names if all(b != n for _, b in arrows))
        found = columns_of(ranks_of(names, arrows, late), arrows)
        at = {n: i for i, column in enumerate(found.columns) for n in column}
        assert sum(map(len, found.columns)) == len(at) and {*names} <= at.keys()
        for arrow, way in found.ways.items():
            assert (way[0], way[-1]) == arrow
            assert [at[n] for n in way] == [*range(at[way[0]], at[way[-1]] + 1)]


def test_draw_writes_each_format(rnncc_cli: Cli, tmp_path: Path) -> None:
    for suffix, begin in ((".svg", b"<?xml"), (".PNG", b"\x89PNG"), (".pdf", b"%PDF")):
        ran = rnncc_cli("draw", "gru", "-o", tmp_path / f"gru{suffix}")
        assert (ran.code, ran.err) == (0, "")
        data = (tmp_path / f"gru{suffix}").read_bytes()
        assert data.startswith(begin) and f"{len(data):,} bytes" in ran.out
    xml.dom.minidom.parse(str(tmp_path / "gru.svg"))
    plain = (tmp_path / "gru.pdf").stat().st_size
    rnncc_cli("draw", "gru", "--set", "use_bias=False", "-o", tmp_path / "gru.pdf")
    assert (tmp_path / "gru.pdf").stat().st_size < plain


def test_draw_refuses(rnncc_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One clear line, and no file, nor what was there changed."""
    (tmp_path / "kept.svg").write_text("mine")
    long = "".join(f"a{i + 1} = a{i} + 1\n" for i in range(MOST_NODES))
    (tmp_path / "big.rnn").write_text(f"{START}a0 = x[t]\n{long}h[t] = a1\nreturn a{MOST_NODES}\n")
    for arguments, said, code in (
        (
            ("lstm", "-o", tmp_path / "a.jpg"),
            r"a picture's name ends in one of .svg, .png, .pdf",
            2,
        ),
        (("lstm", "-o", tmp_path / "svg"), "a picture's name ends in", 2),
        (("lstn", "-o", tmp_path / "a.svg"), "did you mean lstm", 2),
        (("lstm", "-o", tmp_path / "none/a.svg"), "No such file or directory", 1),
        ((tmp_path / "big.rnn", "-o", tmp_path / "kept.svg"), f"room for {MOST_NODES}", 2),
    ):
        ran = rnncc_cli("draw", *arguments)
        assert (ran.code, ran.out) == (code, "")
        assert said in ran.err and ran.err.count("\n") == 1, ran.err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ran = rnncc_cli("draw", "lstm", "-o", tmp_path / "kept.svg")
    assert ran.code == 1 and "pip install 'rnncc[plot]'" in ran.err
    assert rnncc.compile("lstm")._repr_svg_() is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.rnn", "kept.svg"]
    assert (tmp_path / "kept.svg").read_text() == "mine"


def test_layers_are_drawn_as_they_were_made() -> None:
    cell = rnncc.compile("simple_rnn")
    assert cell._repr_svg_().lstrip().startswith("<?xml")
    long = "".join(f"a{i + 1} = a{i} + 1\n" for i in range(MOST_DRAWN))
    many = f"{START}a0 = x[t]\n{long}h[t] = a{MOST_DRAWN}\nreturn h[t]\n"
    assert rnncc.compile_text(many)._repr_svg_() is None  # nobody waits for it unasked
    texts = [
        {t.get_text() for t in rnncc.plot.drawing(c).axes[0].texts}
        for c in (cell, cell(units=4, activation="relu"))
    ]
    assert any(r"\tanh" in t for t in texts[0]) and not any(r"\tanh" in t for t in texts[1])
    with pytest.raises(ValueError, match="made of layers"):
        rnncc.plot.drawing(rnncc.layers.RNN([rnncc.layers.LSTMCell(4)] * 1))
    for wrong in (3, int, "lstm"):
        with pytest.raises(TypeError, match="a drawing is of a class"):
            rnncc.plot.drawing(wrong)


def test_a_label_has_room_or_is_cut() -> None:
    """Names as long as they may be, equations as long as they may be, a cell that does nothing."""
    name = "a" * 190
    body = f"{name} = tanh(x[t])\nh[t] = {' + '.join([name] * 90)}\nreturn h[t], 2 * x[t]\n"
    data = picture(of_text(body), "png")
    width = int.from_bytes(data[16:20], "big")
    assert 300 < width < 1500, width
    assert picture(of_text("h[t] = h[t-1]\nreturn x[t]\n"), "svg")
