"""The notebooks of docs/notebooks: run in a kernel of this Python, and stored as a run left them.

Non-Goals: pages of the site (`docs/hooks/notebooks.py`).
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat

from tests.support.paths import ROOT

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
PATIENCE = 300  # seconds for a cell, so that one that hangs ends


def stored(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def digest(notebook: Any) -> str:
    """Of what cells say: outputs are those of this text, or old."""
    said = "\0".join(f"{c.cell_type}\0{c.source}" for c in notebook.cells)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def run(path: Path, folder: Path) -> Any:
    """The notebook with the outputs of a run in this folder.

    nbclient's CellExecutionError for a cell that raises."""
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = stored(path)
    work = folder / "work"
    work.mkdir()
    # Nothing of whoever runs it: no profile of IPython, no other backend of matplotlib.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")}
    environment.pop("MPLBACKEND", None)
    with tempfile.TemporaryDirectory() as sockets:  # whose names have to be short
        config = Config()
        config.KernelManager.transport = "ipc"  # no port of the machine is opened
        config.KernelManager.ip = f"{sockets}/kernel"
        client = NotebookClient(
            notebook,
            config=config,
            kernel_name="python3",
            timeout=PATIENCE,
            coalesce_streams=True,
            record_timing=False,
            resources={"metadata": {"path": str(work)}},
        )
        client.execute(env=environment)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            _make_small(output.get("data", {}))
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "outputs_of": digest(notebook),
    }
    return notebook


def _make_small(data: dict[str, str]) -> None:
    """An output as it is stored: a picture in 64 colours, of a drawing the one within the HTML."""
    if "text/html" in data:
        data.pop("image/svg+xml", None)
    if "image/png" in data:
        from PIL import Image

        file = io.BytesIO(base64.b64decode(data["image/png"]))
        small = io.BytesIO()
        few = Image.open(file).convert("RGB").quantize(64, dither=Image.Dither.NONE)
        few.save(small, "png", optimize=True)
        data["image/png"] = base64.b64encode(small.getvalue()).decode()


def kinds(notebook: Any) -> list[list[tuple[str, ...]]]:
    """What each cell shows, but for numbers and pictures, which differ from machine to machine."""
    return [
        [(o.output_type, *sorted(o.get("data", {})), o.get("name", "")) for o in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
