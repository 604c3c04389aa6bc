"""The guide's scripts run, on every backend that is installed: a process for each backend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.keras_backends import BACKENDS, environment, installed
from tests.support.paths import ROOT

GUIDE = ROOT / "examples" / "guide"
# Torch runs them all, the other backends take turns: each script meets two.
SCRIPTS = sorted(GUIDE.glob("*.py"))
RUN_BY = {"torch": SCRIPTS, "jax": SCRIPTS[::2], "tensorflow": SCRIPTS[1::2]}
# runpy leaves each script a namespace of its own; the process and its imports are shared.
RUN = """
import runpy, sys
for path in sys.argv[1:]:
    print("==", path, flush=True)
    folder, sys.path[0], given = sys.path[0], path.rpartition("/")[0], sys.argv
    sys.argv = [path]
    runpy.run_path(path, run_name="__main__")
    sys.path[0], sys.argv = folder, given
print("== done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_guide(backend: str, tmp_path: Path) -> None:
    for name in ("keras", backend, "sklearn", "matplotlib"):
        if not installed(name):
            pytest.skip(f"no {name}")
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, RUN_BY[backend])],
        env=environment(backend),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "== done" in done.stdout
    names = {path.name for path in RUN_BY[backend]}
    assert ("247,296" in done.stdout) == ("layers.py" in names)
    if "digits.py" in names:
        assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


def test_the_list_of_scripts_is_whole() -> None:
    assert len(SCRIPTS) == 8 and {*RUN_BY["jax"], *RUN_BY["tensorflow"]} == {*SCRIPTS}
    listed = (GUIDE / "README.md").read_text()
    assert all(f"`{path.name}`" in listed for path in GUIDE.glob("*.py"))
