"""The notebooks run, each in a kernel of its own, and are stored as a run left them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

import nbformat

from tests.support.pages.notebooks import NOTEBOOKS, digest, kinds, run, stored

MOST_BYTES = 300_000
AGAIN = "pytest tests/examples/test_notebooks.py --update-golden runs and stores it"
NEEDS = {"digits": "sklearn", "replacing_lstm": "torch", "amplifier": "torch"}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What its prose claims it asserts itself."""
    pytest.importorskip(NEEDS.get(path.stem, "matplotlib"))
    if "gcc" in path.read_text("utf-8") and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    done = run(path, tmp_path)
    if request.config.getoption("--update-golden"):
        nbformat.write(done, path)
    assert kinds(stored(path)) == kinds(done), AGAIN


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_stored_as_a_run_left_it(path: Path) -> None:
    notebook = stored(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < MOST_BYTES
    assert notebook.metadata.get("outputs_of") == digest(notebook), AGAIN
    ids = [cell.id for cell in notebook.cells]
    assert len({*ids}) == len(ids)
    assert not [i for i in ids if re.fullmatch(r"[0-9a-f]{8}", i)], "a cell's id is a word"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    outputs: list[Any] = [o for cell in code for o in cell.outputs]
    assert not [o for o in outputs if o.get("name") == "stderr" or o.output_type == "error"]
    assert not [c.id for c in code if _pictures(c) and not c.metadata.get("alt")]
    first, last = notebook.cells[0], notebook.cells[-1]
    assert first.source.startswith("# ") and "Needs: " in first.source
    assert re.search(r"\d", last.outputs[0].text)  # it ends with a number


def _pictures(cell: Any) -> bool:
    return any("image/png" in o.get("data", {}) for o in cell.outputs)


def test_there_are_notebooks() -> None:
    assert NEEDS.keys() <= {p.stem for p in NOTEBOOKS}
