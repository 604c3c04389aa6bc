"""The page that reads drawn digits is built, and says in a browser what the Python layer says."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.paths import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def build() -> ModuleType:
    pytest.importorskip("sklearn")
    path = ROOT / "examples" / "browser" / "build.py"
    spec = importlib.util.spec_from_file_location("build_browser", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_compiler_it_says_which(build: ModuleType, tmp_path: Path) -> None:
    fails = ["--compiler", "false", "--epochs", "1", "-o", str(tmp_path / "page.html")]
    with pytest.raises(SystemExit, match="failed"):
        build.main(fails)
    assert not [*tmp_path.iterdir()]


def test_a_browser_says_what_python_says(build: ModuleType, tmp_path: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("no ziglang")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no browser")
    page = build.main(["--epochs", "3", "-o", str(tmp_path / "page.html")])
    run = [browser, "--headless", "--no-sandbox", "--disable-gpu"]
    run += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"file://{page}#check"]
    shown = subprocess.run(run, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"largest difference from Python: ([0-9.e+-]+)<", shown)
    assert found and float(found[1]) < 1e-5
    assert re.search(r'id="answer"[^>]*>\d<', shown)
