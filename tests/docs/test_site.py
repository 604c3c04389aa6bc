"""The site, built: strictly, whole, and without anything from the network."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import rnncc
from rnncc.frontend.causes import CAUSES
from rnncc.frontend.library import INITIALIZERS, SIGNATURES
from tests.support.pages.running import blocks
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


class Page(HTMLParser):
    """What a page of the site defines, links to, loads, and says."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.tables = 0  # of equations
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = {k: v or "" for k, v in attrs}
        self.ids |= {given[k] for k in ("id", "name") if k in given}
        self.tables += tag == "math"
        if tag == "a":
            self.links += [given["href"]] if "href" in given else []
        elif tag in ("img", "script", "iframe", "source", "link"):
            self.loads += [given[k] for k in ("src", "href") if k in given]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material isn't installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings isn't installed")
    folder = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    found = {str(p.relative_to(site)): Page(p) for p in site.rglob("*.html")}
    assert len(found) > 35
    return found


@pytest.fixture(scope="module")
def generated() -> Iterator[Any]:
    """The hook, with its neighbours to be imported as mkdocs lets it."""
    pytest.importorskip("griffe", reason="mkdocstrings isn't installed")
    sys.path.insert(0, str(DOCS / "hooks"))
    spec = importlib.util.spec_from_file_location("generated", DOCS / "hooks/generated.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(DOCS / "hooks"))


def test_no_link_is_dead(site: Path, pages: dict[str, Page]) -> None:
    """Anchors too, and links that were generated."""
    dead = []
    for name, page in pages.items():
        if name == "404.html":  # its links are those of a server's root
            continue
        for link in {*page.links, *page.loads}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            path = (site / name).parent / unquote(parts.path) if parts.path else site / name
            target = pages.get(os.path.relpath(path, site))
            if not path.exists() or (
                target and parts.fragment and unquote(parts.fragment) not in target.ids
            ):
                dead.append(f"{name}: {link}")
    assert not dead


def test_nothing_comes_from_the_network(site: Path, pages: dict[str, Page]) -> None:
    loads = {load for page in pages.values() for load in page.loads}
    assert len(loads) > 5
    assert not [load for load in loads if urlsplit(load).netloc]
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text("utf-8"))


def test_every_public_name_has_an_entry(pages: dict[str, Page], generated: Any) -> None:
    for module in generated.PUBLIC:
        page = pages[f"api/{module.removeprefix('rnncc.')}.html"]
        wanted = {f"{module}.{n}" for n in generated.names_of(module) if n != "__version__"}
        assert wanted and wanted <= page.ids
        assert all(name.rpartition(".")[2] in pages["api/index.html"].text for name in wanted)


def test_pages_use_public_modules_alone(generated: Any) -> None:
    """What a reader is told to import is what the reference lists."""
    deeper = {"rnncc.models.conventions", "rnncc.models.readers.torch_state"}
    for page in (*DOCS.glob("*.md"), ROOT / "README.md"):
        for block in blocks(page):
            if block.language == "python":
                used = re.findall(r"^(?:from|import) (rnncc[\w.]*)", block.text, re.MULTILINE)
                assert {*used} <= {*generated.PUBLIC, *deeper}, page


def test_every_error_has_its_entry(pages: dict[str, Page]) -> None:
    page = pages["errors.html"]
    assert {code.lower() for code in CAUSES} <= page.ids
    for code, cause in CAUSES.items():
        assert " ".join(cause.mend.replace("`", "").split()) in page.text, code
        assert not cause.example or f"error[{code}]: " in page.text, code


def test_the_reference_has_every_function_and_initializer(pages: dict[str, Page]) -> None:
    text = pages["language.html"].text
    assert not [n for n, s in SIGNATURES.items() if f"{n}{s}" not in text]
    assert not [n for n in INITIALIZERS if n not in text]


def test_every_built_in_cell_is_shown(pages: dict[str, Page]) -> None:
    cells = {p.stem for p in (ROOT / "rnncc/cells").glob("*.rnn")}
    assert cells and cells <= pages["cells.html"].ids
    assert pages["cells.html"].tables == len(cells)
    assert {f"pictures/cells/{cell}.svg" for cell in cells} <= {*pages["cells.html"].loads}


def test_figures_of_cells_are_the_benchs(generated: Any) -> None:
    """Parameters as a layer has them; times of every cell that the suite races."""
    import built_in

    from bench.suites import BUILT_IN

    for path in built_in.paths():
        found = built_in.figures_of(path)
        assert bool(found.forward and found.training) == (path.stem in BUILT_IN), path
    layer = rnncc.compile("slstm")(units=built_in.UNITS)
    layer.build((1, 1, built_in.FEATURES))
    slstm = built_in.figures_of(ROOT / "rnncc/cells/slstm.rnn")
    assert slstm.parameters == sum(w.size for w in layer.weights.values())
    assert slstm.forward and f"| sLSTM forward (64, 28, 28, 64) | {slstm.forward.ours}" in (
        ROOT / "bench/RESULTS.md"
    ).read_text("utf-8")


def test_every_decision_has_its_page(pages: dict[str, Page], generated: Any) -> None:
    every = generated.decisions.parts((DOCS / "decisions.md").read_text("utf-8"))
    assert len(every) > 60
    for part in every:
        page = pages[f"decisions/{part.number}.html"]
        assert part.date in page.text and f"{part.number}. " in page.text
        assert f"decisions/{part.number}.html" in pages["decisions.html"].links
        assert f"d{part.number}" in pages["decisions.html"].ids
    assert "decisions/5.html" in pages["versions.html"].links


@pytest.mark.parametrize(
    "text", ["## 1. A {#d1}\n\nNo date.\n", "## 2. A {#d2}\n\n*2026-11-23*\n\nText.\n"]
)
def test_a_decision_without_date_or_number_is_refused(generated: Any, text: str) -> None:
    with pytest.raises(ValueError, match="a date, and numbers in a row"):
        generated.decisions.parts(text)


def test_links_of_a_decision_lead_out_of_its_folder(generated: Any) -> None:
    said = "[a](arm.md#x) [b](#d1) [c](https://x.md) [d](decisions.md#d1)"
    text = f"## 1. A {{#d1}}\n\n*2026-11-23*\n\n{said}\n"
    (part,) = generated.decisions.parts(text)
    made = generated.decisions.page(part, [part])
    links = ("(../arm.md#x)", "(1.md)", "(https://x.md)", "(../decisions/1.md)")
    assert all(link in made for link in links)


def test_arguments_are_listed(generated: Any) -> None:
    import docstrings

    listed = docstrings.listed("It. x: an input. y: one\nmore. Raises ValueError.", ["x", "y"])
    items = ["It. ", "", "- **x**: an input. ", "- **y**: one more.", "", "Raises ValueError."]
    assert listed.split("\n") == items


def test_a_word_is_found(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
    found = {d["location"].partition("#")[0] for d in index["docs"] if "zoneout" in d["text"]}
    assert {"language.html", "errors.html"} <= found


def test_what_nobody_makes_is_refused(generated: Any) -> None:
    with pytest.raises(KeyError):
        generated.on_page_markdown("a\n<!-- generated: nothing -->\n")
    with pytest.raises(AssertionError, match="no section"):
        generated.made("results nothing")
