"""The printed form of stages, held as files: a change of a pass shows as a diff to review.

Two cells only, the smallest and the one everybody knows; modules are too long to be reviewed here
and are held by what they compute.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from rnncc.cli.settings import load
from rnncc.cli.stages import all_stages, stage_names

from .conftest import ROOT, Golden


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm"])
@pytest.mark.parametrize("stage", [n for n in stage_names() if n not in ("spec", "module")])
def test_stages(cell: str, stage: str, golden: Golden) -> None:
    found = [s for s in all_stages(load(cell, []), "float32", module=False) if s.name == stage]
    assert found
    golden("\n".join(f"# {s.title}\n{s.text}" for s in found), f"{cell}-{stage}.txt")


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm"])
def test_printing_is_deterministic(cell: str) -> None:
    first, second = (list(all_stages(load(cell, []), "float32")) for _ in range(2))
    assert first == second


# ---- the fixture itself ----------------------------------------------------------------------


def fixture(folder: Path, *, update: bool) -> Golden:
    request = SimpleNamespace(
        path=Path("test_x.py"),
        node=SimpleNamespace(name="test_it[a b]"),
        config=SimpleNamespace(getoption=lambda _: update),
    )
    made = Golden(request)  # type: ignore[arg-type]
    made.folder = folder
    return made


def test_golden_writes_only_when_it_is_told_to(tmp_path: Path) -> None:
    folder = ROOT / ".pytest_cache" / tmp_path.name / "golden"
    with pytest.raises(pytest.fail.Exception, match="--update-golden writes it"):
        fixture(folder, update=False)("text\n")
    assert not folder.exists()
    fixture(folder, update=True)("text\n")
    assert (folder / "test_it-a-b.txt").read_text() == "text\n"
    fixture(folder, update=False)("text\n")
    with pytest.raises(pytest.fail.Exception, match=r"(?s)-text.*another"):
        fixture(folder, update=False)("another\n")
    (folder / "test_it-a-b.txt").unlink()
    folder.rmdir()
    folder.parent.rmdir()
