"""The layout of cells: what it makes of spaces, what it leaves alone, and that it says the same."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from rnncc.frontend import formatting
from rnncc.frontend.diagnostics import SpecError
from rnncc.frontend.formatting import formatted
from rnncc.frontend.parse import parse
from tests.support.paths import ROOT

COLOURED = ROOT / "tests/editor/vscode/colours.rnn"  # no cell: words, and what colour each has
LAID_OUT = sorted(
    p
    for folder in ("rnncc", "examples", "tests")
    for p in (ROOT / folder).rglob("*.rnn")
    if p != COLOURED
)
MESSY = '''

"""doc
 kept  """
#a comment
####
cell:Foo


features :size
units: size=2*  features
x:input[ features ]
h:state[units]
W :weight[features,units]=constant( - .5 )#w
#   indented
f: function=lambda v,w:v/(1+abs( - v))+w
use: option=True
r : rate = 0
z=x[t]@W+h[ t - 1 ]*(W[ - 1 ] if use else -1)+ 2**-2
y = f (
z , # one
      # two

   W[0 ,:]
)
q = z[1:3:2]+ z[ 0 :units-1 ][0]
p = z+ \\
  y + z[0] *sum(q,axis= 0 )
h[t]=tanh(z+p+ drop(y,r,per = "step") ) if not use else - z
#last
return  h[t],(z)


'''
TIDY = '''"""doc
 kept  """
# a comment
####
cell: Foo

features: size
units: size = 2 * features
x: input[features]
h: state[units]
W: weight[features, units] = constant(-.5)  # w
#   indented
f: function = lambda v, w: v / (1 + abs(-v)) + w
use: option = True
r: rate = 0
z = x[t] @ W + h[t-1] * (W[-1] if use else -1) + 2 ** -2
y = f(
    z,  # one
    # two
    W[0, :]
)
q = z[1:3:2] + z[0 : units - 1][0]
p = z + \\
    y + z[0] * sum(q, axis=0)
h[t] = tanh(z + p + drop(y, r, per="step")) if not use else -z
# last
return h[t], (z)
'''


def test_what_is_laid_out() -> None:
    assert formatted(MESSY) == TIDY
    assert formatted(TIDY) == TIDY
    assert formatted(TIDY.replace("\n", "\r\n")) == TIDY


@pytest.mark.parametrize("path", LAID_OUT, ids=lambda p: p.stem)
def test_cells_of_the_project_are_at_rest(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert formatted(text) == text


@pytest.mark.parametrize("path", LAID_OUT[:20], ids=lambda p: p.stem)
def test_spaces_anywhere_come_back(path: Path) -> None:
    """A cell with spaces and line ends put where they say nothing has its own layout again,
    but for line breaks within brackets, which are its author's."""
    text, rng = path.read_text(encoding="utf-8"), random.Random(3)
    head, body = text.split("\n", 1)  # the docstring says what it says

    def apart(found: re.Match[str]) -> str:
        return " " * rng.randrange(3) + found[0] + " " * rng.randrange(3)

    lines = [
        line
        if "#" in line or '"' in line
        else re.sub(r"(?<![0-9]e)[-+*/@,()=:\]]", apart, line).strip()
        for line in body.split("\n")
    ]
    spread = "\n".join([head, *lines])
    for sign in ("**", "//", "==", ">=", "<="):  # which spaces would part
        spread = re.sub(r" *".join(map(re.escape, sign)), sign, spread)
    assert spread != text
    assert formatted(spread) == text


def test_names_may_still_be_wrong() -> None:
    assert "+ untold" in formatted(
        TIDY.replace("h[t] = ", "h[t] =   untold+ ").replace("untold+", "1+untold+")
    )


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("z = x", "z = = x", "16"),
        ("features: size", "features: sizes", "7"),
        ("(W[-1] if", "((W[-1] if", "16"),
        ("h[t] = tanh", "h[t] += tanh", "25"),
    ],
)
def test_lines_that_cannot_be_read(old: str, new: str, where: str) -> None:
    with pytest.raises(SpecError, match=rf"cell.rnn:{where}:"):
        formatted(TIDY.replace(old, new), "cell.rnn")


def test_a_layout_that_says_something_else_is_not_handed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(formatting, "_is_time", lambda *_: True)  # no space anywhere
    with pytest.raises(RuntimeError, match="would change what it says"):
        formatted("cell: A\nx: input[2]\nz = 1 if 2 else 3\nreturn x[t]\n")


def test_a_comment_that_is_lost_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = formatting._comment_or_blank
    monkeypatch.setattr(
        formatting, "_comment_or_blank", lambda line: "" if "last" in line else right(line)
    )
    with pytest.raises(RuntimeError, match="would change what it says"):
        formatted(TIDY)


def test_what_is_odd_but_right() -> None:
    text = "cell: A\nx: input[2]\nz = x[t][ (0) ]*- + -1;\n#\n#é\nreturn ((x[t])),z\n"
    assert formatted(text) == (
        "cell: A\nx: input[2]\nz = x[t][(0)] * -+-1;\n#\n# é\nreturn ((x[t])), z\n"
    )
    assert parse(formatted(text)).returns


def test_a_long_line_takes_no_time() -> None:
    many = ", ".join(["-1"] * 4_000)
    formatted(f"cell: A\nx: input[2]\nz = concat({many})\nreturn x[t] + z[0]\n")
