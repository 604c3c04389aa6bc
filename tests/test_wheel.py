"""The wheel holds what the package needs, and works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with what is installed: nothing is downloaded."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_templates_cells_and_modules(wheel: Path) -> None:
    inside = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("rnncc/")}
    templates = {f"rnncc/{p.relative_to(ROOT)}" for p in (ROOT / "templates").rglob("*.jinja")}
    package = {
        str(p.relative_to(ROOT))
        for pattern in ("*.py", "*.rnn", "py.typed")
        for p in (ROOT / "rnncc").rglob(pattern)
    }
    assert templates
    assert inside == templates | package


def test_the_wheel_names_its_licence_and_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = {Path(n).name: n for n in archive.namelist() if ".dist-info/" in n}
    assert "Apache License" in archive.read(names["LICENSE"]).decode()
    assert "rnncc = rnncc.cli:main" in archive.read(names["entry_points.txt"]).decode()
    metadata = archive.read(names["METADATA"]).decode()
    assert "Requires-Dist: torch==2.13.0; extra == 'torch'" in metadata


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, ROOT]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (found,) = folder.glob("*.tar.gz")
    return found


def test_the_sdist_holds_the_checkout(sdist: Path) -> None:
    """All that tests, the site and a wheel are made from."""
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    kinds = ("*.md", "*.toml", "*.yml", "*.cff", "LICENSE")
    assert {p.name for kind in kinds for p in ROOT.glob(kind)} <= inside
    folders = {name.partition("/")[0] for name in inside}
    assert {"rnncc", "templates", "tests", "examples", "bench", "docs"} <= folders
    pages = {str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*") if p.suffix == ".md"}
    assert len(pages) > 30 and pages <= inside


def test_an_index_would_take_both(wheel: Path, sdist: Path) -> None:
    pytest.importorskip("twine", reason="twine isn't installed")
    command = [sys.executable, "-m", "twine", "check", "--strict", wheel, sdist]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


PROGRAM = """
import pathlib, numpy as np, rnncc
assert pathlib.Path(rnncc.__file__).is_relative_to({venv!r}), rnncc.__file__
assert rnncc.__version__ == "0.1.0"
from wheeled import SimpleRNN
assert SimpleRNN(units=3)(np.ones((2, 4, 5), "float32")).shape == (2, 3)
layer = rnncc.compile("gru")(units=3)
y, pullback = layer.vjp(np.ones((2, 4, 5), "float32"))
print(y.shape, pullback(np.ones_like(y)).inputs.shape)
"""


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """In a new environment that sees this one's packages, but not its rnncc."""
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    bin_folder = folder / ("Scripts" if os.name == "nt" else "bin")
    (site,) = folder.glob("**/site-packages")
    install = [sys.executable, "-m", "pip", "--python", str(bin_folder / "python")]
    install += ["install", "--no-deps", "--no-index", "-q", str(wheel)]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    environment["RNNCC_CACHE"] = str(tmp_path / "store")
    run(install, tmp_path, environment)
    # The packages of this environment, after the new one's own.
    others = [p for p in sys.path if p.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")

    command = [str(bin_folder / "rnncc"), "compile", "simple_rnn", "-o", "wheeled.py"]
    assert "SimpleRNN" in run(command, tmp_path, environment)
    program = PROGRAM.format(venv=str(folder))
    shown = run([str(bin_folder / "python"), "-c", program], tmp_path, environment)
    assert shown.strip() == "(2, 3) (2, 4, 5)"


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
