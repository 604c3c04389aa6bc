"""What texts and files of weights may ask for: right, or refused with the number, and soon."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import oracle
from rnncc.cli import main
from rnncc.frontend import limits
from rnncc.frontend.diagnostics import SpecError
from rnncc.frontend.limits import DECLARATIONS, EQUATIONS, LINES, MISTAKES, UNCLOSED
from rnncc.frontend.parse import parse_function
from rnncc.lowering.cell_interface import CellInterface, check_text, diagnose
from tests.attack.bounds import SECONDS, cell, examined
from tests.attack.forked import in_child
from tests.support.cases import spec_of
from tests.support.paths import ROOT

# What explodes takes hours; a machine that is shared may take three times as long as a quiet one.
SOON = 3 * SECONDS


def codes(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        check_text(text)
    return [d.code for d in caught.value.diagnostics]


def chain(form: str, n: int, first: str) -> str:
    return cell(first, *(form.format(i, i - 1) for i in range(1, n)), value=f"a{n - 1}")


# ---- texts -----------------------------------------------------------------------------------


def nested(form: str, n: int) -> str:
    lines = ["f0: function = lambda v: tanh(v)"]
    lines += [f"f{i}: function = lambda v: {form.format(i - 1)}" for i in range(1, n)]
    return cell(*lines, f"z = f{n - 1}(x[t])", value="z")


def sizes(form: str, n: int) -> str:
    lines = ["s0: size = units", *(f"s{i}: size = {form.format(i - 1)}" for i in range(1, n))]
    return cell(*lines, f"V: weight[s{n - 1}]", value="V")


EXPLOSIVE: dict[str, tuple[str, str]] = {
    "functions that call twice": (nested("f{0}(f{0}(v))", 18), "E514"),
    "functions of functions": (nested("f{0}(v)", 500), "E118"),
    "functions of nothing": (nested("f{0}(f{0}(v))", 60).replace("tanh(v)", "v"), "E514"),
    "sizes by sizes": (sizes("s{0} * (s{0} + 1)", 29), "E422"),
    "quotients of quotients": (sizes("(s{0} + 1) // (s{0} + 2)", 40), "E422"),
    "squares of sizes": (chain("a{0} = a{1} * a{1}", 40, "a0 = units + features + 1"), "E422"),
    "squares of numbers": (chain("a{0} = a{1} * a{1}", 60, "a0 = 3"), "E512"),
    "powers of powers": (cell("z = 9 ** 9 ** 9 ** 9"), "E512"),
    "splits": (cell("V: weight[1000]", *(f"z{i} = split(V, 1000)[0]" for i in range(900))), "E514"),
    "delays": (cell("z = x[t-1000] * 2", value="h[t-1000]"), "E424"),
    "a long text": ("#" * 1_000_001, "E119"),
    "a long line": (cell("z = " + "x[t] + " * 20_000 + "1"), "E119"),
    "a long name": (cell("a" * 201 + " = 1"), "E119"),
    "declarations": (cell(*(f"a{i}: size" for i in range(DECLARATIONS))), "E119"),
    "equations": (cell(*(f"a{i} = 1" for i in range(EQUATIONS))), "E119"),
    "lines": (cell(*["$"] * LINES), "E119"),
    "brackets": (cell(*["z = ("] * 20_000), "E119"),
    "strings": (cell(*["z = '''a", ""] * 20_000), "E101"),
    "parentheses": (cell("z = " + "(" * 9_000 + "1" + ")" * 9_000), "E101"),
    "signs": (cell("z = " + "-" * 900 + "x[t]"), "E118"),
    "a comparison": (cell("z = " + "1 < " * 4_000 + "1"), "E109"),
    "axes": (cell("V: weight[" + "units, " * 900 + "units]", value="V"), "E423"),
    "digits": (cell("z = " + "9" * 19_000), "E101"),
    "letters": (cell("z = " + "é" * 19_000), "E105"),
}


@pytest.mark.parametrize("name", EXPLOSIVE)
def test_what_would_explode_is_refused_soon(name: str) -> None:
    text, code = EXPLOSIVE[name]
    assert in_child(lambda: examined(text, SOON)) is None
    assert code in codes(text)


def test_ten_thousand_equations_in_any_order() -> None:
    link = "a{0} = tanh(a{1}) * 0.5"
    ordered = chain(link, 10_000, "a0 = x[t]")
    lines = ordered.split("\n")
    turned = "\n".join([*lines[:7], *reversed(lines[7:-2]), *lines[-2:]])
    for text in (ordered, turned):
        assert in_child(lambda text=text: examined(text, SOON)) is None
        assert len(check_text(text).equations) == 10_001


def test_options_that_fold() -> None:
    lines = [f"o{i}: option = True" for i in range(60)]
    text = cell(*lines, *(f"a{i} = x[t] if o{i} else h[t-1]" for i in range(60)), value="a0 + a1")
    assert in_child(lambda: examined(text, SOON)) is None
    assert set(codes(text)) == {"E405"}
    # Nobody has tried the choice under which the weight is read, and nobody says it never is.
    deep = "V"
    for i in range(60):
        deep = f"({deep} if o{i} else 0)" if i % 20 else f"{deep} * 1"
    flags = [line.replace("True", "False") for line in lines]
    uses = [f"b{i} = 1 if o{i} else 2" for i in range(60)]
    assert not diagnose(check_text(cell(*flags, "V: weight[1]", *uses, f"z = {deep}", value="z")))


def test_a_size_read_off_others_in_any_order() -> None:
    lines = [f"s{i}: size = s{i - 1} + 1" for i in range(1999, 0, -1)][-900:]
    text = cell(*lines, "s0: size = units", "V: weight[s900]", "Y: weight[s899 + 1]", value="V + Y")
    assert in_child(lambda: examined(text, SOON)) is None
    check_text(text)


@pytest.mark.parametrize("n", [1, 2, 500])
def test_sizes_that_go_round_are_told_from_those_that_lead_there(n: int) -> None:
    ring = [f"r{i}: size = r{(i + 1) % n} + 1" for i in range(n)]
    text = cell("a: size = b", "b: size = r0", *ring, "V: weight[a]", value="V")
    with pytest.raises(SpecError) as caught:
        check_text(text)
    found = [d.message for d in caught.value.diagnostics if d.code == "E420"]
    assert found == [f"size r{i} is defined by itself" for i in range(n)]
    two = cell("p: size = p + m", "m: size = q", "q: size = q", "V: weight[p]", value="V")
    assert codes(two).count("E420") == 2


def test_functions_given_as_text_have_the_same_bounds() -> None:
    for text in ("lambda v: " + "v + " * 10_000 + "v", "lambda v: " + "-" * 500 + "v"):
        with pytest.raises(SpecError, match=r"characters of a line|nested too deeply"):
            parse_function(text)
    with pytest.raises(SpecError, match="nested too deeply"):
        rnncc.compile("lstm")(units=3, activation="lambda v: " + " + ".join(["v"] * 300))


def test_many_mistakes_end_with_how_many_more() -> None:
    with pytest.raises(SpecError) as caught:
        check_text(cell(*(f"z{i} = unknown{i}" for i in range(1234 + MISTAKES))))
    assert len(caught.value.diagnostics) == 1234 + MISTAKES
    assert str(caught.value).split("\n")[-1] == "and 1,234 more"
    assert str(caught.value).count("error[") == MISTAKES
    assert len(codes(cell(*["z = ("] * 20_000))) == UNCLOSED + 1


def test_the_reference_names_the_limits() -> None:
    text = (ROOT / "docs/language.md").read_text(encoding="utf-8")
    bounds = text[text.index("## Bounds") : text.index("## A weight that never learns")]
    named = (
        *(limits.CHARACTERS, limits.LINE_CHARACTERS, limits.NAME_CHARACTERS, limits.DECLARATIONS),
        *(limits.EQUATIONS, limits.EXPRESSIONS, limits.LEVELS, limits.WORK, limits.STATES),
        *(limits.PARTS, limits.RANK, limits.TERMS, limits.FACTORS, limits.FOLDINGS),
    )
    assert [f"{n:,}" for n in named] == re.findall(
        r"\d[\d,]*\d", bounds.partition("#limits)):")[2].replace("2**53", "")
    )[: len(named)]
    assert f"more than {MISTAKES} the rest is counted" in text


# ---- sizes that have to be equal -----------------------------------------------------------------

HEADS = """cell: C
units: size
heads: size = 4
head: size = units // heads
x: input[units]
h: state[units]
A: weight[heads, head]
B: weight[heads]
z = {}
h[t] = tanh(x[t] + h[t-1] * z)
return h[t]
"""


@pytest.mark.parametrize(
    "value", ["sum(sum(A / B, axis=1))", "sum(A @ B)", 'einsum("ij,j->", A, B)']
)
def test_sizes_that_agree_by_chance_are_refused_with_their_line(value: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_text(HEADS.format(value))
    (found,) = caught.value.diagnostics
    assert found.code in ("E404", "E405", "E415") and found.span.line == 9
    assert "head" in found.message


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("sum(reshape(A, units) * x[t]) + sum(B)", 1),  # heads * head is units where that divides
        ("sum(concat(split(x[t], 2)) * h[t-1]) + sum(A[0]) + sum(B)", 1),
        ("sum(A[0]) + sum(B) + sum(x[t])", 0),
    ],
)
def test_sizes_that_agree_where_division_comes_out_even_are_meant(value: str, count: int) -> None:
    text = HEADS.format("0").replace("* z", f"* ({value})")
    assert len({c.message for c in CellInterface(check_text(text)).constraints}) >= count


def test_sizes_that_differ_when_they_are_bound_name_line_and_numbers() -> None:
    text = HEADS.format("sum(reshape(A, units) * x[t]) + sum(B)")
    layer = oracle.layer_class(check_text(text))()
    with pytest.raises(ValueError) as caught:
        layer(np.zeros((2, 3, 10)))
    assert "(line 9)" in str(caught.value)
    assert "is 8 and" in str(caught.value) and "is 10 with" in str(caught.value)
    layer = oracle.layer_class(check_text(text))()
    assert layer(np.zeros((2, 3, 12))).shape == (2, 12)


# ---- files of weights ----------------------------------------------------------------------------


def lstm(**keywords: Any) -> Any:
    return oracle.layer_class(spec_of("lstm"))(units=5, **keywords)


def rewritten(data: bytes, change: Callable[[str, bytes], bytes], **packing: Any) -> bytes:
    """An archive of the same names with other contents."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", **packing) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def described(**changed: Any) -> Callable[[str, bytes], bytes]:
    """A change of what a file says of itself."""

    def change(name: str, data: bytes) -> bytes:
        if name != "_about.npy":
            return data
        about = {**json.loads(data[128:]), **changed}
        return npy(np.frombuffer(json.dumps(about).encode(), np.uint8))

    return change


def kernel(data: bytes) -> Callable[[str, bytes], bytes]:
    return lambda name, old: data if name == "kernel.npy" else old


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "w.npz"
    lstm(features=3, seed=1).save(path)
    return path.read_bytes()


ABOUT = [
    ({"sizes": {"units": float("inf")}}, "sizes has 'units' = inf"),
    ({"sizes": {"units": 1e3}}, "sizes has 'units' = 1000.0"),
    ({"sizes": {"units": True}}, "the size 'units' is True"),
    ({"sizes": {"units": 0}}, "the size 'units' is 0"),
    ({"sizes": {"units": 10**300}}, "the size 'units' is 1000"),
    ({"sizes": {"units": None}}, "sizes has 'units' = None"),
    ({"sizes": [5]}, r"sizes are given by name, not \[5\]"),
    ({"options": 3}, "options are given by name, not 3"),
    ({"options": {"use_bias": [1]}}, r"options has 'use_bias' = \[1\]"),
    ({"functions": {"activation": 1}}, "functions has 'activation' = 1"),
    ({"cell": ["LSTM"]}, r"cell is a text, not \['LSTM'\]"),
    ({"sha256": 7}, "sha256 is a text, not 7"),
]


@pytest.mark.parametrize(("changed", "message"), ABOUT)
def test_what_a_file_says_of_itself(
    saved: bytes, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(rewritten(saved, described(**changed)))
    for layer in (lstm(), lstm(features=3)):
        with pytest.raises(ValueError, match=message) as caught:
            layer.load(path, strict=False)
        assert str(caught.value).startswith(f"{path} holds no weights of a layer: _about")


HUGE = npy(np.zeros(0, np.float32)).replace(b"(0,)", b"(3, 99999999999)", 1)
CONTENTS = {
    "objects": (kernel(npy(np.array([None, 1]))), "kernel holds object values"),
    "texts": (kernel(npy(np.array(["a"]))), "kernel holds <U1 values"),
    "records": (kernel(npy(np.zeros(2, "i4,f4"))), "kernel holds .* values"),
    "a shape": (kernel(npy(np.zeros((3, 20, 1)))), r"has shape \[3, 20, 1\], expected \[3, 20\]"),
    "no numbers": (kernel(HUGE), "kernel"),
    "more": (kernel(npy(np.zeros((3, 20))) + b"more"), "kernel is cut, or goes on behind its end"),
    "nothing": (kernel(b""), "holds no weights of a layer"),
    "a list": (lambda n, d: npy(np.zeros(3)) if n == "_about.npy" else d, "_about is no text"),
    "no json": (
        lambda n, d: npy(np.frombuffer(b"[" * 9999, np.uint8)) if n == "_about.npy" else d,
        "holds no weights of a layer",
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_contents_of_a_file(saved: bytes, tmp_path: Path, name: str) -> None:
    change, message = CONTENTS[name]
    path = tmp_path / "w.npz"
    path.write_bytes(rewritten(saved, change))
    for layer in (lstm(), lstm(features=3)):
        with pytest.raises(ValueError, match=message) as caught:
            layer.load(path)
        assert str(path) in str(caught.value)


def test_files_that_unpack_to_much(saved: bytes, tmp_path: Path) -> None:
    """A few bytes that would become many: neither read nor made room for."""
    path = tmp_path / "w.npz"
    packing = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 9}
    path.write_bytes(rewritten(saved, kernel(npy(np.zeros((30_000_000,), np.float32))), **packing))
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match="bytes would become 120,"):
        lstm().load(path)
    path.write_bytes(rewritten(saved, lambda _, data: data, **packing))
    lstm().load(path)  # packed by someone, but no more than it says
    # Its sizes are the file's own word: the arrays aren't that long.
    path.write_bytes(rewritten(saved, described(sizes={"units": 5, "features": 10**9})))
    with pytest.raises(
        ValueError, match=r"kernel has shape \[3, 20\], expected \[1000000000, 20\]"
    ):
        lstm().load(path)


def test_archives_that_lie(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.npz"

    def refused(data: bytes, message: str) -> None:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message) as caught:
            lstm(features=3).load(path)
        assert str(caught.value).startswith(f"{path} holds no weights of a layer: ")

    out = io.BytesIO(saved)
    with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("kernel.npy", npy(np.ones((3, 20))))
    refused(out.getvalue(), "it holds kernel.npy twice")
    out = io.BytesIO(saved)
    with zipfile.ZipFile(out, "a") as archive:
        for i in range(2_000):
            archive.writestr(f"w{i}.npy", b"")
    refused(out.getvalue(), "bytes in its list of files, more than 2,048")
    refused(saved + b"more", "it is cut, or goes on behind its end")
    long = bytearray(saved)
    long[-10:-6] = struct.pack("<L", 2**31)
    refused(bytes(long), "bytes in its list of files, more than 2,048")
    refused(
        rewritten(saved, lambda _, d: d, compression=zipfile.ZIP_LZMA), "packed in an unusual way"
    )
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="it is not a file"):
        lstm().load(tmp_path / "pipe")


# ---- commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10**5, 10**8, 2**53])
def test_check_bounds_the_sizes_it_tries(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "lstm", "--set", f"units={size}"]) == 2
    assert "more than the 16,777,216 numbers that check tries" in capsys.readouterr().err


@pytest.mark.parametrize("size", [2**53 + 1, 10**30, "9" * 5000, 0])
def test_sizes_that_are_no_sizes(size: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "lstm", "--set", f"units={size}"]) == 2
    assert "at least 1 and at most 2**53" in capsys.readouterr().err


def test_explain_leaves_the_kernels_of_a_long_cell_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.rnn"
    path.write_text(chain("a{0} = -a{1} * 0.5", 600, "a0 = x[t]"))
    assert main(["explain", str(path)]) == 0
    assert capsys.readouterr().out.endswith("left out: --after module shows it\n\n")
