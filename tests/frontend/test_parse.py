"""Reading: what a CellSpec holds, and files that can't be read."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path

import pytest

from rnncc.frontend.diagnostics import Reporter, SpecError
from rnncc.frontend.elaborate import Defaults, sizes_of
from rnncc.frontend.library import SIGNATURES
from rnncc.frontend.parse import parse, parse_file, parse_function
from rnncc.frontend.spec import Lambda, LayoutChoice, Name
from rnncc.ir.sizes import Size
from rnncc.lowering import equations  # noqa: F401  (fills FUNCTIONS)
from rnncc.lowering.functions import FUNCTIONS
from tests.support.paths import ROOT

CELLS = sorted([*(ROOT / "rnncc/cells").glob("*.rnn"), *(ROOT / "tests/cells").glob("*.rnn")])


@pytest.mark.parametrize("path", CELLS, ids=lambda p: p.stem)
def test_cells_are_read(path: Path) -> None:
    spec = parse_file(path)
    assert spec.doc and spec.returns and not spec.poisoned
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_lstm() -> None:
    spec = parse_file(ROOT / "rnncc/cells/lstm.rnn")
    assert spec.name == "LSTM"
    assert spec.doc.startswith("Long short-term memory")
    assert [s.name for s in spec.sizes] == ["features", "units"]
    assert [s.name for s in spec.states] == ["h", "c"]
    assert [w.name for w in spec.weights] == ["kernel", "recurrent_kernel", "bias"]
    assert [w.initializer.name for w in spec.weights if w.initializer] == [
        "glorot_uniform",
        "orthogonal",
        "unit_forget_bias",
    ]
    assert {o.name: o.default for o in spec.options} == {
        "use_bias": True,
        "unroll": False,
        "dropout_per_gate": False,
    }
    assert [o.rate.name for o in spec.options if o.rate] == ["recurrent_dropout"]
    assert [r.name for r in spec.rates] == ["dropout", "recurrent_dropout"]
    assert len(spec.sha256) == 64


def test_defaults() -> None:
    gru = parse_file(ROOT / "rnncc/cells/gru.rnn")
    (bias,) = (w for w in gru.weights if w.name == "bias")
    assert isinstance(bias.layout, LayoutChoice)
    slstm = parse_file(ROOT / "rnncc/cells/slstm.rnn")
    sizes = sizes_of(slstm)
    assert sizes["units"] is None and sizes["heads"] == Size.of(4)
    written_out = Defaults(slstm, sizes, Reporter()).expand(Size.name("head_size"))
    assert str(written_out) == "(units // 4)"
    start = parse_file(ROOT / "tests/cells/learned_start.rnn")
    assert isinstance(start.states[0].initial, Name)


def test_line_ends_and_a_byte_order_mark_change_nothing() -> None:
    text = (ROOT / "rnncc/cells/gru.rnn").read_text()
    plain = parse(text)
    assert parse("\ufeff" + text.replace("\n", "\r\n")) == plain
    assert parse(text.replace("\n", "\r")) == plain


def test_functions_from_text() -> None:
    assert isinstance(parse_function("lambda v: v / (1 + abs(v))"), Lambda)
    for wrong in ("1 + 2", "lambda: 1", "lambda *v: 1", "lambda v: [v]", "lambda v", ""):
        with pytest.raises(SpecError):
            parse_function(wrong)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("missing.rnn", None, "E001"),
        ("folder.rnn", "folder", "E002"),
        ("cell.txt", b"cell: A", "E003"),
        ("binary.rnn", b"cell: A\nx\xff\xfe", "E004"),
        ("zeros.rnn", b"cell: A\n\0\0", "E004"),
        ("empty.rnn", b"", "E005"),
        ("blank.rnn", b"\n  \n", "E005"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes | str | None, code: str
) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        parse_file(path)
    assert [d.code for d in caught.value.diagnostics] == [code]
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_signatures_are_those_of_the_implementations(name: str) -> None:
    if name in ("drop", "zoneout"):
        return
    given = list(inspect.signature(FUNCTIONS[name]).parameters.values())[1:]
    signature = SIGNATURES[name]
    plain = [p for p in given if p.kind is not p.VAR_POSITIONAL]
    required = tuple(p.name for p in plain if p.default is p.empty)
    assert required == signature.required
    assert tuple(p.name for p in plain if p.default is not p.empty) == signature.optional
    assert any(p.kind is p.VAR_POSITIONAL for p in given) == signature.variadic


def test_every_function_has_a_signature() -> None:
    assert set(FUNCTIONS) | {"drop", "zoneout"} == set(SIGNATURES)


def test_any_prefix_of_a_cell_is_read_or_refused() -> None:
    """No text makes the reader fail in another way than by a SpecError."""
    text = (ROOT / "rnncc/cells/slstm.rnn").read_text()
    for end in range(0, len(text), 7):
        for piece in (text[:end], text[end:], text[:end] + text[end + 5 :]):
            try:
                parse(piece)
            except SpecError as error:
                assert str(error)
