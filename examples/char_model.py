"""A character language model with a cell of its own, written in torch, on Python's own docstrings.

    python examples/char_model.py [--text FILE] [--units 128] [--steps 2000] [--quick]

The cell is a module of torch with the equations of one step; `rnncc.torch.Recurrent` reads it and
compiles it, its parameters stay its own. The text is what the standard library says of itself: the
docstrings of its modules, read from its sources, nothing imported; one file in ten is held out.
Trained by truncated backpropagation, states carried from chunk to chunk. Ends with bits per
character on what was held out, beside compressors of files, with a sample and a picture.

Needs torch, matplotlib for the picture: pip install 'rnncc[examples]'.
"""

from __future__ import annotations

import argparse
import ast
import lzma
import math
import sys
import sysconfig
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

try:
    import torch

    from rnncc.torch import Recurrent
except ImportError as error:
    raise SystemExit(f"{error}: pip install 'rnncc[examples]'") from None

ROWS, CHUNK, RATE = 32, 64, 3e-3
LEAST = 20_000  # characters that a text has
SEED = 1
OTHERS = {
    "test",
    "tests",
    "idlelib",
    "site-packages",
    "lib2to3",
    "__pycache__",
}  # not the library's


class TwoPaces(torch.nn.Module):
    """What is written fast and forgotten fast, c, and its slow average, s, whose pace is learned.

    A step: x [batch, features], state (h, c, s), each [batch, units] -> h, (h, c, s).
    """

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.gates = torch.nn.Linear(features + units, 4 * units)
        self.pace = torch.nn.Parameter(torch.linspace(-4, 0, units))
        torch.nn.init.constant_(self.gates.bias[:units], 1.0)  # it keeps, to begin with

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        h, c, s = state
        keep, new, mix, out = self.gates(torch.cat([x, h], -1)).chunk(4, -1)
        keep, mix = torch.sigmoid(keep), torch.sigmoid(mix)
        c = keep * c + (1 - keep) * torch.tanh(new)
        s = s + torch.sigmoid(self.pace) * (c - s)
        h = torch.sigmoid(out) * torch.tanh(mix * c + (1 - mix) * s)
        return h, (h, c, s)


States = Sequence[torch.Tensor] | None


class Model(torch.nn.Module):
    """Characters, int64 [batch, time] -> logits of the next ones, and the states behind them."""

    def __init__(self, characters: int, units: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(characters, 64)
        cell = TwoPaces(64, units)
        shapes = ((units,),) * 3
        self.body = Recurrent(cell, state=shapes, return_sequences=True, return_state=True)
        self.head = torch.nn.Linear(units, characters)
        self.units = units

    def forward(self, x: torch.Tensor, states: States = None) -> tuple[torch.Tensor, States]:
        if states is None:
            states = [torch.zeros(len(x), self.units) for _ in range(3)]
        y, states = self.body(self.embedding(x), initial_state=tuple(states))
        return self.head(y), states

    def loop(self, x: torch.Tensor) -> torch.Tensor:
        """The same logits by torch alone: the cell's forward at every step."""
        embedded, outputs = self.embedding(x), []
        state = tuple(torch.zeros(len(x), self.units) for _ in range(3))
        for t in range(x.shape[1]):
            y, state = self.body.cell(embedded[:, t], state)
            outputs.append(y)
        logits: torch.Tensor = self.head(torch.stack(outputs, 1))
        return logits


@dataclass(frozen=True)
class Text:
    """Numbers of characters, int64 [n], apart for training and held out; what they stand for."""

    train: torch.Tensor
    held_out: torch.Tensor
    alphabet: str

    def written(self, numbers: torch.Tensor) -> str:
        return "".join(self.alphabet[i] for i in numbers.tolist())


def docstrings(folder: Path) -> dict[str, list[str]]:
    """Of the sources below a folder, by file: modules', classes' and functions'."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        if OTHERS & {*path.relative_to(folder).parts}:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        found[path.relative_to(folder).as_posix()] = [text for text in texts if text]
    return found


def text_of(path: Path | None) -> Text:
    """A file, whose last tenth is held out, or the docstrings. ValueError for too little of it."""
    if path is not None:
        whole = path.read_text("utf-8")
        cut = len(whole) * 9 // 10
        train, held_out = whole[:cut], whole[cut:]
    else:
        parts: tuple[dict[str, None], dict[str, None]] = ({}, {})  # each text once
        for name, texts in docstrings(Path(sysconfig.get_path("stdlib"))).items():
            parts[zlib.crc32(name.encode()) % 10 == 0].update(dict.fromkeys(texts))
        train = "\n\n".join(parts[0])
        held_out = "\n\n".join(text for text in parts[1] if text not in parts[0])
    if min(len(train), 10 * len(held_out)) < LEAST:
        where = "the standard library's docstrings" if path is None else path
        raise ValueError(f"{where}: {len(train) + len(held_out)} characters; at least {2 * LEAST}")
    often = {c for c, count in Counter(train).items() if count >= 20} | {"?"}
    alphabet = "".join(sorted(often))
    number = {c: i for i, c in enumerate(alphabet)}
    train_numbers, held_numbers = (
        torch.tensor([number.get(c, number["?"]) for c in text]) for text in (train, held_out)
    )
    return Text(train_numbers, held_numbers, alphabet)


def compressed(text: Text) -> float:
    """Bits a character that lzma needs for what is held out, behind all that is trained on."""
    train, held_out = (text.written(part).encode() for part in (text.train, text.held_out))
    sizes = [len(lzma.compress(data, preset=9)) for data in (train, train + held_out)]
    return 8 * (sizes[1] - sizes[0]) / len(text.held_out)


def rows_of(numbers: torch.Tensor) -> torch.Tensor:
    """A text as ROWS texts side by side, [rows, steps]."""
    steps = len(numbers) // ROWS
    return numbers[: ROWS * steps].reshape(ROWS, steps)


def loss_of(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Bits a character."""
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), right.flatten())
    return nats / math.log(2)


@torch.no_grad()
def held_out(model: Model, text: Text) -> float:
    """Bits a character on all that is held out, states carried all the way."""
    rows, states, total = rows_of(text.held_out), None, 0.0
    steps = rows.shape[1] - 1
    for begin in range(0, steps, 256):
        x = rows[:, begin : min(begin + 256, steps)]
        logits, states = model(x, states)
        right = rows[:, begin + 1 : begin + 1 + x.shape[1]]
        total += float(loss_of(logits, right)) * x.shape[1]
    return total / steps


@dataclass
class Curve:
    """Bits a character: of training, since the point before, and held out."""

    steps: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)


def train(model: Model, text: Text, steps: int) -> Curve:
    """So many steps of Adam, whose rate falls to nothing; twenty points of the curve."""
    rows = rows_of(text.train)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    curve, states, at, losses = Curve(), None, 0, []
    columns = BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn()
    with Progress(*columns) as progress:
        task = progress.add_task("", total=steps, text="")
        for step in range(1, steps + 1):
            if at + CHUNK + 1 > rows.shape[1]:
                states, at = None, 0
            logits, states = model(rows[:, at : at + CHUNK], states)
            loss = loss_of(logits, rows[:, at + 1 : at + CHUNK + 1])
            at += CHUNK
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            falling.step()
            states = [state.detach() for state in states or ()]
            losses.append(float(loss.detach()))
            if step % max(50, steps // 20) == 0 or step == steps:
                curve.steps.append(step)
                curve.train.append(sum(losses) / len(losses))
                curve.held_out.append(held_out(model, text))
                losses = []
                progress.update(task, text=f"{curve.held_out[-1]:.3f} bits a character")
            progress.advance(task)
    return curve


@torch.no_grad()
def sample(model: Model, text: Text, length: int) -> str:
    """Goes on from how the held-out text begins, a character at a time, at a temperature of 0.6."""
    torch.manual_seed(SEED)
    numbers = text.held_out[:10].tolist()
    logits, states = model(torch.tensor([numbers]))
    for _ in range(length):
        likely = torch.softmax(logits[0, -1] / 0.6, -1)
        numbers.append(int(torch.multinomial(likely, 1)))
        logits, states = model(torch.tensor([numbers[-1:]]), states)
    return text.written(torch.tensor(numbers))


def beside_the_loop(model: Model, text: Text, rounds: int) -> tuple[float, float, float]:
    """A training step's milliseconds by kernels and by torch's loop, in turns, medians; how far
    their logits are apart at most."""
    rows = rows_of(text.train)
    x, right = rows[:, :CHUNK], rows[:, 1 : CHUNK + 1]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for way, taken in zip((lambda: model(x)[0], lambda: model.loop(x)), times, strict=True):
            begun = time.perf_counter()
            loss_of(way(), right).backward()
            taken.append(time.perf_counter() - begun)
    with torch.no_grad():
        apart = float((model(x)[0] - model.loop(x)).abs().max())
    ours, loop = (1e3 * float(np.median(taken)) for taken in times)
    return ours, loop, apart


def save_picture(curve: Curve, lzma_bits: float, path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: it needs matplotlib (pip install matplotlib)", file=sys.stderr)
        return
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.steps, curve.train, label="training")
    axes.plot(curve.steps, curve.held_out, label="held out")
    axes.axhline(lzma_bits, color="black", linewidth=0.8, linestyle=":", label="lzma")
    axes.set_xlabel("steps")
    axes.set_ylabel("bits a character")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=90)
    print(f"picture: {path}")


def png(text: str) -> Path:
    """A path for a picture, in a folder that is there."""
    path = Path(text)
    if path.suffix != ".png" or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no .png in a folder that is there")
    return path


def main(argv: Sequence[str] | None = None) -> float:
    """Trains, writes a sample and returns bits a character on what is held out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, metavar="FILE", help="UTF-8, in place of docstrings")
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--picture", type=png, default=Path("char_model.png"))
    parser.add_argument("--quick", action="store_true", help="64 units, 100 steps")
    given = parser.parse_args(argv)
    if given.quick:
        given.units, given.steps = 64, 100
    if not 1 <= given.units <= 4096 or given.steps < 1:
        parser.error("--units is from 1 to 4096, --steps at least 1")
    try:
        with Console().status("reading the text"):
            text = text_of(given.text)
            lzma_bits = compressed(text)
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise SystemExit(f"--text: {error}" if given.text else str(error)) from None
    print(f"{len(text.train)} characters to train on, {len(text.held_out)} held out, ", end="")
    print(f"{len(text.alphabet)} different ones")
    torch.manual_seed(SEED)
    model = Model(len(text.alphabet), given.units)
    curve = train(model, text, given.steps)
    ours, loop, apart = beside_the_loop(model, text, 3 if given.quick else 15)
    print(sample(model, text, 400))
    print(f"a step of training: {ours:.1f} ms, by torch's loop {loop:.1f} ms; ", end="")
    print(f"logits are {apart:.0e} apart at most")
    bits = held_out(model, text)
    print(f"{bits:.3f} bits a character held out; lzma {lzma_bits:.3f}")
    save_picture(curve, lzma_bits, given.picture)
    return bits


if __name__ == "__main__":
    main()
