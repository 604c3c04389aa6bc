"""Fixtures every test may use: golden files, a fresh module store, the command line.

Modules and machine code made by tests are kept in .pytest_cache/rnncc, away from the user's own.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

STORE = ROOT / ".pytest_cache" / "rnncc"
os.environ.setdefault("RNNCC_CACHE", str(STORE))
if STORE.is_dir():  # one that rnncc made before it saw to who may write there
    STORE.chmod(0o700)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden; review it as a diff"
    )


# ---- two processes and more ------------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """An idle worker takes over half of what another one has left: none waits for the last file.
    Without --dist only; what is asked for is done."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slow ones first where there are several workers: whoever ends first finds small ones."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True, scope="module")
def torch_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """torch's testing switches what is global in torch: it stays out of the workers."""
    module = "torch.testing._internal.common_utils"
    before = module in sys.modules
    yield
    if module in sys.modules and not before and request.path.parent.name != "in_torch":
        pytest.fail(f"loads {module}: such tests go to tests/support/in_torch")


class Golden:
    """`golden(text)` holds a text against tests/golden/<test file>/<test>.txt.

    A test with several texts names each: `golden(text, "lstm.py")`.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.folder = ROOT / "tests" / "golden" / request.path.stem
        self.default = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-") + ".txt"
        self.update = bool(request.config.getoption("--update-golden"))

    def __call__(self, text: str, name: str | None = None) -> None:
        path = self.folder / (name or self.default)
        shown = path.relative_to(ROOT)
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        if not path.exists():
            pytest.fail(f"there is no {shown}: pytest --update-golden writes it", pytrace=False)
        expected = path.read_text(encoding="utf-8")
        if text != expected:
            old, new = expected.splitlines(), text.splitlines()
            lines = difflib.unified_diff(old, new, str(shown), "now", lineterm="")
            report = "\n".join(lines) or "only line ends differ"
            pytest.fail(f"{report}\n(pytest --update-golden accepts it)", pytrace=False)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request)


@pytest.fixture
def fresh_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty module store for this test alone."""
    folder = tmp_path / "store"
    monkeypatch.setenv("RNNCC_CACHE", str(folder))
    return folder


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def rnncc_cli(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ran]]:
    """`rnncc_cli("explain", "lstm")` runs the command in this process."""
    from rnncc.cli import main

    def run(*arguments: str | Path) -> Ran:
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    yield run
