"""A page that reads drawn digits: a trained cell -> C99 -> WebAssembly -> one HTML file.

    python examples/browser/build.py [-o digits.html] [--epochs 15]

Trains the cell of examples/digits.py on scikit-learn's scans, exports it with its head as C
(`digit_reader.rnn`), compiles that with clang (of PyPI's ziglang, or any whose wasm32-wasi has a C
library: --compiler), and writes a page with everything in it: open it in a browser, no server.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from rich.console import Console

import rnncc
import rnncc.export

HERE = Path(__file__).parent
SAMPLES = 30  # held-out digits on the page
FLAGS = "-target wasm32-wasi -mcpu=generic+simd128 -mexec-model=reactor -O3 -s -std=c99"


def digits_example() -> Any:
    """examples/digits.py, which trains."""
    spec = importlib.util.spec_from_file_location("digits", HERE.parent / "digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits"] = module
    spec.loader.exec_module(module)
    return module


def reader_of(model: Any) -> rnncc.Layer:
    """The trained cell and its head as one layer, which answers after each row."""
    units, classes = model.head["head_kernel"].shape
    cell = rnncc.compile(str(HERE / "digit_reader.rnn"))
    reader = cell(units=units, classes=classes, return_sequences=True)
    features = model.layer.weights["W_f"].shape[0]
    reader.build((None, None, features))
    for name, weight in {**model.layer.weights, **model.head}.items():
        reader.weights[name] = weight
    return reader


def compiled(reader: rnncc.Layer, compiler: Sequence[str]) -> bytes:
    """The exported C, with what the page calls, as WebAssembly."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "digits"
        rnncc.export.c(reader, folder, name="digits")
        shutil.copy(HERE / "page.c", folder)
        command = [*compiler, *FLAGS.split(), "-o", "digits.wasm", "digits.c", "page.c"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{shlex.join(command)} failed:\n{done.stderr}")
        return (folder / "digits.wasm").read_bytes()


def page(reader: rnncc.Layer, data: Any, wasm: bytes) -> str:
    """The whole page; its scans carry what the Python layer answers after the last row."""
    images, labels = data.test_x[:SAMPLES], data.test_y[:SAMPLES]
    likely = np.asarray(reader(images))[:, -1]
    samples = [
        {"is": int(label), "image": image.ravel().tolist(), "likely": answer.tolist()}
        for image, label, answer in zip(images, labels, likely, strict=True)
    ]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True)
    return environment.get_template("page.html.jinja").render(
        samples=samples,
        wasm=base64.b64encode(wasm).decode(),
        units=reader.weights["U_f"].shape[0],
        kilobytes=round(len(wasm) / 1024),
    )


def main(argv: Sequence[str] | None = None) -> Path:
    """Trains, compiles, writes the page and returns where."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("digits.html"))
    parser.add_argument("--epochs", type=int, default=15)
    default = shlex.join([sys.executable, "-m", "ziglang", "cc"])
    parser.add_argument("--compiler", default=default, help="a clang with wasm32-wasi")
    arguments = parser.parse_args(argv)
    compiler = shlex.split(arguments.compiler)
    if compiler[1:3] == ["-m", "ziglang"] and importlib.util.find_spec("ziglang") is None:
        raise SystemExit("no compiler: pip install ziglang, or name one with --compiler")
    digits = digits_example()
    data = digits.scikit_digits()
    model = digits.Classifier(str(digits.SPEC))
    digits.train(model, data, arguments.epochs)
    print(f"{digits.accuracy(model, data):.2%} of held-out digits read right")
    reader = reader_of(model)
    with Console().status("compiling C to WebAssembly"):
        wasm = compiled(reader, compiler)
    arguments.output.write_text(page(reader, data, wasm), "utf-8")
    print(f"{arguments.output}: {len(wasm)} bytes of WebAssembly; open it in a browser")
    return Path(arguments.output)


if __name__ == "__main__":
    main()
