"""Every row of the table of causes is found in its own example, exactly where it is marked."""

from __future__ import annotations

import pytest

from rnncc.frontend import meanings
from rnncc.frontend.causes import CAUSES, Cause
from rnncc.frontend.diagnostics import WIDEST, SpecError
from rnncc.frontend.library import INITIALIZERS, SIGNATURES
from rnncc.lowering.cell_interface import check_text

ROWS = [cause for cause in CAUSES.values() if cause.example]
OF_FILES = {"E001", "E002", "E003", "E004", "E005"}  # tests/frontend/test_parse.py


def unmark(text: str) -> tuple[str, int, int, int]:
    """The text without its markers, and the line, column and end they stand for."""
    at = text.index("«")
    line = text[:at].count("\n") + 1
    col = at - (text[:at].rfind("\n") + 1) + 1
    end = col + text.index("»") - at - 1
    return text.replace("«", "").replace("»", ""), line, col, end


def errors_of(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        check_text(text, "cell.rnn")
    return caught.value


def test_every_cause_has_an_example() -> None:
    assert {c.code for c in CAUSES.values() if not c.example} == OF_FILES
    assert len(ROWS) >= 35
    assert not [c.code for c in CAUSES.values() if not c.mend.endswith(".")]


def test_every_function_and_initializer_says_what_it_means() -> None:
    assert set(meanings.FUNCTIONS) == set(SIGNATURES)
    assert set(meanings.INITIALIZERS) == INITIALIZERS


@pytest.mark.parametrize("cause", ROWS, ids=lambda c: c.code)
def test_example(cause: Cause) -> None:
    text, line, col, end = unmark(cause.marked())
    error = errors_of(text)
    found = [(d.code, d.span.line, d.span.col, d.span.end) for d in error.diagnostics]
    assert found == [(cause.code, line, col, end)]
    rendered = str(error).split("\n")
    assert rendered[0].startswith(f"cell.rnn:{line}:{col}: error[{cause.code}]: ")
    whole = text.split("\n")[line - 1]
    shown = whole if len(whole) <= WIDEST else whole[:WIDEST] + "..."
    assert rendered[1] == f"{line:>5} | " + shown
    assert rendered[2] == "      | " + " " * (col - 1) + "^" * (end - col)


# What Python accepts and the language doesn't, and other ways to the same causes.
# fmt: off
VARIANTS = [
    ("E101", "z = «'»never closed"),
    ("E103", "«while» units:\n    z = 1\n    y = 2"),
    ("E103", "«if» units:\n    z = 1"),
    ("E103", "«def» f(v):\n    return v"),
    ("E103", "«import» numpy"),
    ("E103", "«pass»"),
    ("E104", "z = softmax«[»x[t]"),
    ("E105", "z = tanh(«ｘ»[t])"),
    ("E105", "z = tanh(x[t]) «−» 1"),
    ("E105", "«α» = 3"),
    ("E109", "z = where(«x[t] == x[t] == x[t]», 1, 0)"),
    ("E110", 'z = tanh(«f"x"»)'),
    ("E110", "z = tanh(«[x[t], x[t]]»)"),
    ("E110", "z = sum(«[v for v in units]»)"),
    ("E110", "z = «x.shape»"),
    ("E110", "z = concat(«*x[t]»)"),
    ("E110", "z = («lambda v: v»)(x[t])"),
    ("E110", "z = tanh(«{}»)"),
    ("E110", "z = softmax(x[t], **«units»)"),
    ("E111", "z = «100000000000000000» * x[t]"),
    ("E112", "z = «x[t] & x[t]»"),
    ("E112", "z = «~x[t]»"),
    ("E112", "z = where(«x[t] is x[t]», 1, 0)"),
    ("E113", "z = x[t] * «2j»"),
    ("E113", "z = x[t] * «...»"),
    ("E113", "z = x[t] * «b'a'»"),
    ("E115", "«z[0]» = 3"),
    ("E115", "«(a, b)[0]» = 3"),
    ("E116", "z = «_y»"),
    ("E117", "«t» = 3"),
    ("E117", "«t»: weight[units]"),
    ("E118", "«z» = " + " + ".join(["x[t]"] * 400)),
    ("E205", "«seed»: weight[units]"),
    ("E210", "r: rate = «True»\nz = drop(x[t], r)"),
    ("E210", "r: rate = «-0.1»\nz = drop(x[t], r)"),
    ("E210", "z = drop(x[t], «1.0»)"),
    ("E218", "«class»: function = tanh"),
    ("E218", "«if» = 3"),
    ("E218", "«in»[t] = x[t]"),
    ("E218", "«True» : size"),
    ("E302", "act: function = «tanj»\nz = act(x[t])"),
    ("E303", "z = tanh(«x»[0])"),
    ("E304", "z = 2\ny = «z[t]»"),
    ("E304", "«z[t]» = 2"),
    ("E306", "z = x[«t - 0»]"),
    ("E306", "z = x[«t - units»]"),
    ("E306", "z = tanh(x[t])[«t»]"),
    ("E306", "z = x[«t - 1.5»]"),
    ("E317", "c: state[units]\nc[t] = c[«t-" + "9" * 400 + "»]"),
    ("E308", "«units» = 3"),
    ("E308", "«x[t]» = 3"),
    ("E312", "act: function = tanh\nz = act(1) + «act»"),
    ("E314", "z = «x»(1)"),
    ("E315", "«a» = b\nb = c\nc = a"),
    ("E315", "c: state[units]\n«c[t]» = c[t] + 1"),
    ("E316", "«n»: size"),
    ("E316", "«deep»: option = True"),
    ("E316", "«act»: function = tanh"),
    ("E316", "«r»: rate = 0"),
    ("E316", "«y»: input[units]"),
    ("E316", "«V»: weight[units]\nz = V * 2"),
    ("E316", "«V»: weight[units]\ndeep: option = True\nz = h[t-1] * (V if deep else V)"),
    ("E404", "z = «h[t-1] @ W»"),
    ("E405", "z = «where(x[t] > 0, x[t], h[t-1])»"),
    ("E405", "z = «maximum(x[t], h[t-1])»"),
    ("E406", "V: weight[2, 2, units]\nz = x[t] @ W @ «V»"),
    ("E408", "z = «x[t][0, 0]»"),
    ("E408", "V: weight[3]\nz = V[«-4»]"),
    ("E410", "z = «split(W, 2)»"),
    ("E405", "z = «stack(x[t], h[t-1])»"),
    ("E410", "z = «mean(units)»"),
    ("E410", "z = «flip(W)»"),
    ("E411", "z = «stack(x[t], x[t], axis=2)»"),
    ("E402", "z = «roll(x[t], 1.5)»"),
    ("E412", "z = «split(x[t], 0)»"),
    ("E413", "«a, b = tanh(x[t])»"),
    ("E413", "«a = split(x[t], 2)»"),
    ("E414", "z = «reshape(x[t], (7,))»"),
    ("E415", 'z = «einsum("ij,j", W, x[t])»'),
    ("E415", 'z = «einsum("ii->i", U)»'),
    ("E415", 'z = «einsum("i->j", x[t])»'),
    ("E415", 'z = «einsum("i,i->,", x[t], x[t])»'),
    ("E415", 'z = «einsum("i,i->i", x[t], h[t-1])»'),
    ("E501", "z = «tanh()»"),
    ("E501", "act: function = lambda a, b: a * b\nz = «act(x[t])»"),
    ("E503", "z = «min(x[t], 0)»"),
    ("E504", "V: weight[units] if «units» else weight[1]\nz = V * 2"),
    ("E505", "z = where(«x[t]» and x[t], 1, 0)"),
    ("E508", "act: function = lambda v: «zoneout(v, v, 0.5)»\nz = act(x[t])"),
    ("E512", "z = x[t] * («10.0 ** 400»)"),
    ("E306", "z = x[«t:2»]"),
    ("E306", "z = h[«t-1, 2:3»]"),
    ("E408", "z = «x[t][0, 1:]»"),
    ("E409", "z = W[«1.5»:]"),
    ("E409", "z = split(x[t], 2)[«0:1»]"),
    ("E425", "V: weight[3]\nz = V[«2:2»] * x[t][0]"),
    ("E425", "V: weight[3]\nz = V[«-4:»] * x[t][0]"),
    ("E425", "z = x[t][«features:»]"),
    ("E425", "z = x[t][«:features + 1»]"),
    ("E425", "z = x[t][«2:1:1»]"),
    ("E425", "z = x[t][«1:2:-1»]"),
    ("E426", "z = x[t][::«features»]"),
    ("E515", "z = «surrogate(1, x[t] > 0)»"),
    ("E515", "z = «surrogate(heaviside(x[t]), h[t-1])»"),
    ("E515", "z = «surrogate(heaviside(x[t]), 1, of=2)»"),
]
# fmt: on


@pytest.mark.parametrize(("code", "example"), VARIANTS)
def test_variant(code: str, example: str) -> None:
    text, line, col, end = unmark(Cause(code, "", example).marked())
    found = [(d.code, d.span.line, d.span.col, d.span.end) for d in errors_of(text).diagnostics]
    assert found == [(code, line, col, end)]


def test_every_mistake_of_a_file_at_once_and_in_order() -> None:
    text = (
        "cell: Bad\nfeatures: size\nunits: size\nx: input[features]\nh: state[units]\n"
        "W: wieght[features, units]\nU: weight[features, units] = zeros\n"
        "a = 1 +\nb = tanh(x[t)\nc = unknwon * 2\nd = a + b + c\ne = h[t-1] @ U\n"
        "f = x[t] @ W\nh[t] = tanhh(e) + d + f\nreturn h[t]\n"
    )
    found = [(d.code, d.span.line) for d in errors_of(text).diagnostics]
    assert found == [
        ("E201", 6),
        ("E101", 8),
        ("E104", 9),
        ("E301", 10),
        ("E404", 12),
        ("E302", 14),
    ]


def test_what_a_wrong_line_reads_is_used() -> None:
    """One message, not one more for every name that stands on that line alone."""
    for line, code in (
        ("z = tanh(V * y[t]", "E104"),
        ("z = tanh(V * y[t]))", "E101"),
        ("z = V * y[t] + ½", "E105"),
        ("z = " + "-" * 5000 + "V * y[t]", "E118"),
        ("z = V * y[t] * " + "9" * 5000, "E101"),
    ):
        text = Cause("", "", f"y: input[units]\nV: weight[units]\n{line}").marked()
        assert [(d.code, d.span.line) for d in errors_of(text).diagnostics] == [(code, 10)]
    assert "too many digits" in str(errors_of(text))


def test_of_a_long_line_what_matters_is_shown() -> None:
    text = Cause("", "", "z = x[t]" + " + x[t]" * 60 + " + nothing" + " + x[t]" * 60).marked()
    _, line, caret = str(errors_of(text)).split("\n")
    assert line.startswith("    8 | ...") and line.endswith("...") and len(line) < 180
    assert line[caret.index("^") : caret.rindex("^") + 1] == "nothing"


def test_an_unclosed_bracket_hides_nothing() -> None:
    text = Cause("", "", "a = tanh(x[t]\nb = nothing").marked()
    assert [(d.code, d.span.line) for d in errors_of(text).diagnostics] == [
        ("E104", 8),
        ("E301", 9),
    ]


def test_the_style_of_an_error() -> None:
    text = Cause("", "", "z = sigmoid(x[t] @ U)").marked()
    assert str(errors_of(text)) == (
        "cell.rnn:8:13: error[E404]: matmul inner sizes differ: features and units\n"
        "    8 | z = sigmoid(x[t] @ U)\n"
        "      |             ^^^^^^^^\n"
        "        x[t] : [features]  (line 4)     U : [units, units]  (line 7)"
        "     help: declare U: weight[features, units]"
    )


def test_suggestions() -> None:
    def help_of(example: str) -> str:
        return errors_of(Cause("", "", example).marked()).diagnostics[0].help

    assert help_of("z = unitz * 2") == "did you mean units?"
    assert help_of("z = sofmax(x[t])") == "did you mean softmax?"
    assert help_of("V: wieght[units]") == "did you mean weight?"
    assert help_of("V: weight[feature]\nz = V * 2") == "did you mean features?"
    assert help_of("z = max(x[t], 0)") == "maximum(a, b) is the larger of two"
    assert help_of("z = tanh(h)") == "write h[t] or h[t-1]"
    assert help_of("z = 1 if x[t] > 0 else 2") == "write where(condition, a, b)"


def test_a_mistake_under_some_options_says_which() -> None:
    text = Cause("", "", "deep: option = True\nz = x[t] if deep else x[t] + h[t-1]").marked()
    (found,) = errors_of(text).diagnostics
    assert found.code == "E405"
    assert found.notes[-1] == "with deep = False"


def test_columns_are_characters() -> None:
    text = Cause("", "", 'm: option = "é"\nz = 1 if m == "ééé" else nothing').marked()
    (found,) = errors_of(text).diagnostics
    assert (found.span.col, found.span.end) == (26, 33)


def test_lines_within_brackets_keep_their_numbers() -> None:
    text = Cause("", "", "z = tanh(x[t]\n         + nothing)").marked()
    (found,) = errors_of(text).diagnostics
    assert (found.span.line, found.span.col, found.span.end) == (9, 12, 19)
