"""What stands where in a text, for editors."""

from __future__ import annotations

import pytest

from rnncc.cli.settings import builtin_cells
from rnncc.editor.document import Document
from rnncc.frontend.causes import CAUSES

TEXT = '''"""A cell by somebody (2020)."""
cell: Mine
features: size
units: size
x: input[features]
h: state[units]
W: weight[features, 2 * units] = glorot_uniform
U: weight[units, 2 * units] = orthogonal
act: function = tanh
use: option = True
exp = act(x[t] @ W + h[t-1] @ U)  # a name of a function
a, b = split(
    exp * exp(exp), 2
)
h[t] = (a if use else 1) * h[t-1] + b
return h[t]
'''


def at(document: Document, marked: str) -> tuple[int, int]:
    """Of `before|after`, the place of the bar."""
    before = marked.replace("|", "")
    line = next(i for i, text in enumerate(document.lines) if before in text)
    return line + 1, document.lines[line].index(before) + marked.index("|") + 1


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (
            "|W:",
            ["W: weight[features, 2 * units]", "weight of shape `[features, 2 * units]`", "fan"],
        ),
        ("@ |W", ["weight of shape `[features, 2 * units]`"]),
        ("W| +", ["weight of shape"]),
        ("+ |h[t-1]", ["h: state[units]", "h[t] = (a if use", "`[units]`"]),
        ("a|, b", ["a, b = split(\n    exp * exp(exp), 2\n)", "value of shape `[units]`"]),
        ("|exp =", ["exp = act(", "`[2 * units]`"]),
        ("|exp(exp)", ["exp(v)"]),
        ("= |split", ["split(v, n, axis=)", "equal parts"]),
        ("= |orthogonal", ["orthonormal"]),
        ("|act:", ["act: function = tanh"]),
        (": |weight[features", ["trained"]),
        (": |Mine", ["cell: Mine", "by somebody (2020)"]),
    ],
)
def test_hover(place: str, said: list[str]) -> None:
    document = Document(TEXT)
    assert not document.diagnostics
    word = document.word(*at(document, place))
    assert word is not None
    text = document.hover(word)
    assert all(words in text for words in said), text


@pytest.mark.parametrize(
    "place", ["# a |name", "A |cell by", "= |True", "2020|)", "@ U)| ", "U)  |# a"]
)
def test_nothing_to_hover(place: str) -> None:
    document = Document(TEXT)
    word = document.word(*at(document, place))
    assert word is None or document.hover(word) == ""


def test_definitions() -> None:
    document = Document(TEXT)
    word = document.word(*at(document, "+ |h[t-1]"))
    assert word is not None
    assert [(s.line, s.col) for s in document.definitions(word)] == [(6, 1), (15, 1)]
    word = document.word(*at(document, "+ b|"))
    assert word is not None
    assert [(s.line, s.col) for s in document.definitions(word)] == [(12, 4)]


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("V: ", {"weight", "option"}, {"W", "tanh", "cell"}),
        ("V: weight[3] = gl", {"glorot_uniform"}, {"weight", "W"}),
        ("g: function = ", {"sigmoid", "lambda"}, {"W", "zeros"}),
        ("V: weight[", {"units", "features"}, {"W", "tanh"}),
        ("z = ta", {"tanh", "W", "a", "act", "if", "units"}, {"weight", "zeros"}),
        ("z = 1  # ", set(), {"tanh"}),
        ("cell: ", set(), {"weight"}),
    ],
)
def test_completion(line: str, some: set[str], none: set[str]) -> None:
    """While the line isn't one yet."""
    document = Document(TEXT.replace("act: function", f"{line}\nact: function"))
    found = {o.name for o in document.offers(9, len(line) + 1)}
    assert some <= found
    assert not none & found


def mended(text: str) -> list[str]:
    """The text with each mend made, once."""
    document = Document(text)
    made = []
    for mend in document.mends(1, len(document.lines)):
        lines = list(document.lines)
        line = lines[mend.span.line - 1]
        lines[mend.span.line - 1] = (
            line[: mend.span.col - 1] + mend.text + line[mend.span.end - 1 :]
        )
        made.append("\n".join(lines))
    return made


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@ W +", "@ Ww +"),
        ("h[t-1] @", "hh[t-1] @"),
        ("= act(", "= akt("),
        ("weight[units,", "wieght[units,"),
        ("weight[units,", "weight[unit,"),
        ("glorot_uniform", "glorot_unifrom"),
        ("h[t-1] @", "h @"),
        ("@ W +", "@ W[t] +"),
        ("exp * exp", "exp \uff0a exp"),
        ("features: size\n", ""),
    ],
)
def test_mends_lead_back(old: str, new: str) -> None:
    wrong = TEXT.replace(old, new, 1)
    assert Document(wrong).diagnostics
    right = sorted(TEXT.split("\n"))
    assert any(sorted(text.split("\n")) == right for text in mended(wrong)), mended(wrong)


def test_any_text_is_answered() -> None:
    """Every example of a mistake, every place: nothing raises."""
    texts = [c.marked().replace("«", "").replace("»", "") for c in CAUSES.values() if c.example]
    for text in [*texts, "", "\n", "é", "\ufeff", '"""', "cell:", "x[", "\0", "a\r\nb"]:
        if len(text) > 2_000:
            continue
        document = Document(text)
        for line in range(len(document.lines) + 2):
            for col in (1, 4, 99):
                word = document.word(line, col)
                if word:
                    document.hover(word)
                    document.definitions(word)
                document.offers(line, col)
        document.mends(0, 99)


@pytest.mark.parametrize("name", [*builtin_cells()])
def test_shapes_of_every_cell(name: str) -> None:
    """Each declared array and each value of the built-in cells says its shape."""
    document = Document(builtin_cells()[name].read_text(encoding="utf-8"))
    assert document.spec is not None
    for equation in document.spec.equations:
        for target in equation.targets:
            word = document.word(target.span.line, target.span.col)
            assert word is not None
            said = document.hover(word)
            assert target.name in said
            if target.back is not None:
                assert "of shape" in said
