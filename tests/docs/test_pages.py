"""Every page's code runs as it stands, and what pages say of the checkout is so."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pages.given import GIVEN
from tests.support.pages.running import blocks, run_page
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "hooks" not in p.parts)
NEEDS = {"onnx": "onnxscript", "files": "safetensors"}  # beyond what every test needs
WITH_CODE = [p for p in PAGES if {b.language for b in blocks(p)} & {"python", "sh"}]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.stem)
def test_code_blocks_run(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rnncc_cli: Callable[..., object],
) -> None:
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    GIVEN.get(page.stem, lambda: None)()
    assert run_page(page, rnncc_cli)


def test_the_c_of_a_page_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a function, against the header of the cell that the page exports."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    monkeypatch.chdir(tmp_path)
    GIVEN["c"]()
    page = blocks(DOCS / "c.md")
    exec(next(b.text for b in page if b.language == "python"), {})
    (c,) = (b.text for b in page if b.language == "c")
    numbers = "const float *x, float *y, int n, float *numbers"
    Path("page.c").write_text(f'#include "gate/gate.h"\nvoid page({numbers}) {{\n{c}}}\n')
    run = subprocess.run(
        [compiler, "-std=c99", "-Wall", "-Werror", "-c", "page.c"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_the_house_is_as_described() -> None:
    """Every folder that is listed exists, and every folder of the package is listed."""
    text = (DOCS / "how-it-works.md").read_text(encoding="utf-8").split("## The house")[1]
    listed = set(re.findall(r"^ {6}(\w+)/", text, re.MULTILINE))
    folders = {p.parent.name for p in (ROOT / "rnncc").glob("*/__init__.py")} | {"cells"}
    assert folders == listed
    for name in re.findall(r"^ {6}(\w+\.py)", text, re.MULTILINE):
        assert (ROOT / "rnncc" / name).exists()


def test_pages_name_files_that_exist() -> None:
    named = {
        name
        for page in (*PAGES, *ROOT.glob("*.md"))
        for name in re.findall(
            r"`((?:rnncc|tests|docs|bench|examples)/[\w/.-]+\.\w+)`", page.read_text("utf-8")
        )
    }
    assert len(named) > 50
    assert not [n for n in sorted(named) if not (ROOT / n).exists() and "/x.rnn" not in n]
