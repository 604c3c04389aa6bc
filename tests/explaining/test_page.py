"""The page of a cell: each line says where it comes from, and a browser lights it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rnncc.cli.settings import builtin_cells
from rnncc.driver import Derivation
from rnncc.explaining.layered import Box, layered
from rnncc.explaining.origins import TextPieces
from rnncc.explaining.page import PageMaker, page_of
from rnncc.explaining.unseen import ALIAS, KNOWN, MOVED, TAKEN, UNREAD, reasons
from rnncc.lowering.cell_interface import check_text
from tests.support.cases import NAMES, spec_of
from tests.support.random_cells import random_cell

Cli = Callable[..., Any]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TEXT, EQUATIONS, DECLARED, VALUES = range(4)
HOSTILE = '''"""</script><script>alert(1)</script> & <b>"quoted"</b> \u202e"""
cell: Odd
x: input[3]
h: state[3]
W: weight[3, 3]
scale: option = "</script><!--"
z = (
    x[t] @ W  # <img src=x onerror=alert(2)>
    + h[t-2]
)
h[t] = tanh(z) if scale == "</script><!--" else z
return h[t]
'''


def derivation_of(cell: str) -> Derivation:
    return Derivation(spec_of(cell) if cell in NAMES else check_text(cell, "odd.rnn"))


def stages_of(data: dict[str, Any]) -> dict[str, list[Any]]:
    found = {"source": data["source"], "module": data["module"], "core": data["core"]}
    for part in data["parts"]:
        found[f"{part['name']}: schedule"] = part["schedule"]
        found |= {f"{part['name']}: {p['name']}": p["lines"] for p in part["passes"] if p["lines"]}
    return found


def unlinked(data: dict[str, Any]) -> list[str]:
    """Lines of Programs and Schedules that come from nothing, but for their names."""
    return [
        f"{stage}: {line[TEXT]}"
        for stage, lines in stages_of(data).items()
        if ": " in stage
        for line in lines[1:]
        if not line[EQUATIONS] and not line[DECLARED]
    ]


def wrong(derivation: Derivation, data: dict[str, Any]) -> list[str]:
    """Lines whose sources aren't what they say themselves, or aren't in the text."""
    spec, stages = derivation.spec, stages_of(data)
    equations = {n for line in data["source"] for n in line[EQUATIONS]}
    declared = {d.span.line for d in spec.declarations}
    found = []
    for stage, lines in stages.items():
        for line in lines:
            cited = re.search(r"# line (\d+)$", line[TEXT])
            # A piece of the text over several lines is known by its first, which is no further.
            first = max((e for e in line[EQUATIONS] if cited and e <= int(cited[1])), default=0)
            inside = cited and "\n".join(spec.text.split("\n")[first - 1 : int(cited[1])])
            if cited and (not first or "return " in str(inside)[1:]):
                found.append(f"{stage}: {line[TEXT]}")
            if not (set(line[EQUATIONS]) <= equations and set(line[DECLARED]) <= declared):
                found.append(f"{stage}: {line[TEXT]} is of lines that are not there")
    return found


@pytest.mark.parametrize("cell", ["lstm", "layer_norm_lstm"])
def test_every_line_is_linked_both_ways(cell: str) -> None:
    derivation = derivation_of(cell)
    data = PageMaker(derivation).data("float32")
    assert not unlinked(data) and not wrong(derivation, data)
    first = [line for line in data["parts"][0]["passes"][0]["lines"] if "# line" in line[TEXT]]
    computing = [line for line in first if " = slice(" not in line[TEXT]]
    moving = {n for line in first for n in line[EQUATIONS]}  # such an equation has no gradient
    moving -= {n for line in computing for n in line[EQUATIONS]}
    lowered = {n for line in data["parts"][0]["passes"][0]["lines"] for n in line[EQUATIONS]}
    assert len(lowered) >= 7
    for stage, lines in stages_of(data).items():
        reached = {n for line in lines for n in line[EQUATIONS]}
        assert stage == "core" or lowered - moving <= reached, stage  # back from each equation
        assert lowered <= reached or "forward" not in stage, stage
    arrays = {d.span.line for d in derivation.spec.weights}
    for stage, lines in stages_of(data).items():
        assert stage == "core" or arrays <= {n for line in lines for n in line[DECLARED]}, stage
    kernels = "\n".join(line[TEXT] for line in data["module"]).partition("@kernel")[0].count("\n")
    bare = [line for line in data["module"][kernels:] if not line[EQUATIONS]]
    assert not [
        line for line in bare if re.search(r" = v\.|v\.store|call_core|contract_rows", line[TEXT])
    ]


@pytest.mark.parametrize(
    "cell",
    [*builtin_cells(), "matrix_memory", "noise", HOSTILE, *map(random_cell, range(6))],
)
def test_any_cell_has_a_page(cell: str) -> None:
    derivation = derivation_of(cell)
    data = PageMaker(derivation).data("float64")
    assert not unlinked(data) and not wrong(derivation, data)


def test_a_value_is_the_same_in_every_stage() -> None:
    data = PageMaker(derivation_of("simple_rnn")).data("float32")
    made = [
        [line for line in lines if re.search(r"\w+ = tanh\(", line[TEXT])]
        for stage, lines in stages_of(data).items()
        if stage.startswith("forward: ")
    ]
    assert len(made) > 3 and all(len(lines) == 1 for lines in made)
    assert len({tuple(lines[0][VALUES]) for lines in made}) == 1


def test_a_declaration_leads_to_what_names_it() -> None:
    source = PageMaker(derivation_of("simple_rnn")).data("float32")["source"]
    by_text = {line[TEXT].partition(":")[0].partition(" =")[0]: line for line in source}
    sums = [line[EQUATIONS] for line in source if " = activation(" in line[TEXT]]
    assert by_text["activation"][EQUATIONS] == sums[0] and len(sums) == 1
    shaped = {source[n - 1][TEXT].partition(":")[0] for n in by_text["features"][DECLARED]}
    assert shaped == {"x", "kernel"}


def test_nothing_of_a_cell_is_markup() -> None:
    page = page_of(derivation_of(HOSTILE))
    assert page.count("</script>") == 2 and "<!--" not in page and "<img" not in page
    assert "<b>" not in page and "\u202e" not in page
    assert page.isascii() or not [c for c in page if not c.isprintable() and c != "\n"]
    assert not re.search(r"<[^>]+(?:src|href)=|url\((?!#)|https?:", page)


def test_without_products_there_is_no_core() -> None:
    text = "cell: P\nx: input[3]\nh: state[3]\nh[t] = tanh(x[t] + h[t-1])\nreturn h[t]\n"
    data = PageMaker(derivation_of(text)).data("float32")
    assert data["core"] == [] and "multiplies no matrices" in data["of_core"]


def test_boxes_stand_below_what_they_read_and_apart() -> None:
    arrows = [("a", "b"), ("b", "c"), ("a", "c"), ("d", "c"), ("c", "e"), ("a", "e")]
    drawn = layered([Box(k, (k * 9, "two")) for k in "abcde"], arrows)
    at = {p.box.key: p for p in drawn.boxes}
    assert all(at[a].y + at[a].box.height < at[b].y for a, b in arrows)
    assert len(drawn.paths) == len(arrows)
    for p in drawn.boxes:
        assert p.x >= 0 and p.x + p.box.width <= drawn.width and p.y + p.box.height <= drawn.height
        for q in drawn.boxes:
            apart = p.x + p.box.width < q.x or q.x + q.box.width < p.x
            assert p is q or p.y != q.y or apart
    many = [(str(a), str(b)) for b in range(60) for a in range(b)]
    assert layered([Box(str(k), ("",)) for k in range(60)], many).boxes == ()


# ---- the command -------------------------------------------------------------------------------


def test_the_command_writes_a_page_and_writes_it_anew(tmp_path: Path, rnncc_cli: Cli) -> None:
    page = tmp_path / "page.html"
    ran = rnncc_cli("explain", "simple_rnn", "--set", "use_bias=False", "--html", page)
    assert (ran.code, ran.err) == (0, "") and ran.out.startswith(f"{page}: SimpleRNN, ")
    assert "use_bias = False" in page.read_text("utf-8")
    ran = rnncc_cli("explain", "gru", "--html", page, "--json")
    assert json.loads(ran.out)["output"] == str(page)
    assert "<h1>GRU</h1>" in page.read_text("utf-8")
    assert [*tmp_path.iterdir()] == [page]


def test_stages_are_dumped_beside_a_page(
    tmp_path: Path, rnncc_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNCC_DUMP", str(tmp_path / "stages"))
    assert rnncc_cli("explain", "simple_rnn", "--html", tmp_path / "page.html").code == 0
    assert (tmp_path / "stages" / "00-spec.rnn").is_file()


def test_what_cannot_be_written_is_said_once(
    tmp_path: Path, rnncc_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.html").mkdir()
    Path("other.html").write_text("<html>mine</html>")
    Path("bad.rnn").write_text("cell: Bad\nh: state[3]\nh[t] = q\nreturn h[t]\n")
    before = sorted(tmp_path.iterdir())
    for arguments, code, said in (
        (["lsm", "--html", "a.html"], 2, "did you mean lstm?"),
        (["bad.rnn", "--html", "a.html"], 1, "E301"),
        (["lstm", "--html", "a.txt"], 2, "a page's file ends in .html"),
        (["lstm", "--html", "no/a.html"], 2, "there is no folder no"),
        (["lstm", "--html", "folder.html"], 2, "is a folder"),
        (["lstm", "--html", "other.html"], 2, "was not written by rnncc"),
        (["lstm", "--html", "a.html", "--set", "unit=3"], 2, "did you mean units?"),
        (["lstm", "--html", "a.html", "--after", "hoist"], 2, "goes without --after"),
        (["lstm", "--html", ""], 2, "is a folder"),
    ):
        ran = rnncc_cli("explain", *arguments)
        assert (ran.code, ran.out) == (code, "") and said in ran.err, arguments
        assert "Traceback" not in ran.err
    assert sorted(tmp_path.iterdir()) == before
    assert Path("other.html").read_text() == "<html>mine</html>"


# ---- in a browser ------------------------------------------------------------------------------


def dom(page: Path, address: str) -> str:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no browser")
    run = [browser, "--headless", "--no-sandbox", "--disable-gpu"]
    run += [f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", f"file://{page}#{address}"]
    return subprocess.run(run, capture_output=True, text=True, timeout=120, check=True).stdout


def lit(shown: str, pane: str) -> list[str]:
    """The texts of the lines that are lit in one of the page's panes."""
    inside = shown.partition(f'id="{pane}"')[2].partition("</ol>")[0]
    lines = re.findall(r'<li data-n="\d+"(?: class="([\w ]*)")?>(.*?)</li>', inside)
    assert lines
    return [html.unescape(text) for kind, text in lines if "lit" in kind.split()]


def test_a_browser_lights_what_a_line_became(tmp_path: Path, rnncc_cli: Cli) -> None:
    page = tmp_path / "page.html"
    assert rnncc_cli("explain", "lstm", "--html", page).code == 0
    text = builtin_cells()["lstm"].read_text("utf-8").split("\n")
    number = text.index("c[t] = f * c[t-1] + i * g") + 1
    shown = dom(page, f"line-{number}")
    assert lit(shown, "source") == [text[number - 1]]
    program, schedule, module = (lit(shown, pane) for pane in ("program", "schedule", "text"))
    assert [re.split(" = | *:", s)[1] for s in program if " = mul(" in s] == [
        "mul(f, _c_1)",
        "mul(i, g)",
    ]
    assert any(s.endswith("last is final_c") for s in program)
    assert not [s for s in program if "tanh" in s or "sigmoid" in s or "contract" in s]
    printed = rnncc_cli("explain", "lstm", "--after", "schedule").out.split("\n")
    cited = [s for s in printed if s.endswith(f"# line {number}")]
    assert cited and set(cited) <= set(schedule)
    ours = [s for s in module if f"# line {number}" in s]
    assert any("v.fma(f_, " in s for s in ours) and text[number - 1] in module
    assert not [s for s in module if re.search(rf"# line (?!{number}$)\d+$", s)]
    assert re.search(rf'<g class="box [\w ]*lit"[^>]*data-e="{number}"', shown)


def test_why_a_stage_has_no_line_of_an_equation() -> None:
    """Of every equation, by what its value is under these options."""
    derivation = derivation_of("gru")
    said = reasons(derivation, TextPieces(derivation.spec))
    lines = derivation.spec.text.split("\n")
    starts = {lines[n - 1].split(" =")[0]: why for n, why in said.items()}
    assert starts["h_dropped"] == ALIAS and starts["W_z, W_r, W_h"] == UNREAD
    assert starts["input_bias"] == MOVED and starts["h[t]"] == TAKEN
    known = derivation_of("cell: A\nx: input[3]\nh: state[3]\nn = 3\nh[t] = x[t] * n\nreturn h[t]")
    assert [*reasons(known, TextPieces(known.spec)).values()] == [KNOWN, TAKEN]


def test_a_browser_says_why_there_is_no_line(tmp_path: Path, rnncc_cli: Cli) -> None:
    page = tmp_path / "page.html"
    assert rnncc_cli("explain", "gru", "--html", page).code == 0
    text = builtin_cells()["gru"].read_text("utf-8").split("\n")
    for start, why in (("h_dropped =", ALIAS), ("h[t] =", "")):
        number = next(n for n, line in enumerate(text, 1) if line.startswith(start))
        found = re.search(r'id="why">(.*?)</p>', dom(page, f"line-{number}"))
        assert found and found[1].endswith(f"{why}." if why else why), found
        assert bool(found[1]) == bool(why)


def test_keys_do_what_the_page_says(tmp_path: Path) -> None:
    """Down to the third line, over to the Program and through it, to another pass, to what is
    found, and back to nothing."""
    script = """
      const said = [];
      const press = (...keys) => keys.forEach(key => (document.activeElement || document.body)
        .dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true })));
      press("j", "j", "j"); said.push(picked.pane, picked.at);
      press("l", "j", "j", "k"); said.push(picked.pane, picked.at);
      press("["); said.push(shown.pass, picked.pane);
      press("/"); said.push(document.activeElement.id);
      $("search").value = "TANH("; search(); said.push($("found").textContent);
      press("Enter"); said.push(panes[picked.pane].lines[picked.at][TEXT].trim().split(" ")[2]);
      $("only").click(); said.push(panes.source.elements.filter(x => x.offsetParent).length);
      press("Escape"); said.push(document.querySelectorAll(".found").length);
      press("Escape"); said.push(picked, document.querySelectorAll(".lit").length);
      $("check").textContent = said.join(" ");
    """
    page = tmp_path / "page.html"
    text = page_of(derivation_of("simple_rnn"))
    page.write_text(text.replace("</html>", f"<script>{script}</script></html>"), "utf-8")
    found = re.search(r'id="check"[^>]*>(.*?)</pre>', dom(page, "line-1"))
    assert found and found[1] == "source 3 program 1 10  search 3 lines tanh(_4) 0 0  0"


def test_a_browser_clicks_every_line(tmp_path: Path, rnncc_cli: Cli) -> None:
    page = tmp_path / "page.html"
    assert rnncc_cli("explain", "simple_rnn", "--html", page).code == 0
    found = re.search(r'id="check">(\d+) lines clicked, (.*)', dom(page, "check"))
    assert found and int(found[1]) > 1000 and found[2] == "0 wrong"
