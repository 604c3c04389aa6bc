"""Reads handwritten digits row by row with a cell from a spec file: NumPy and rnncc, nothing else.

    python examples/digits.py [--cell FILE.rnn] [--picture digits.png] [--mnist FOLDER]

The images are scikit-learn's 1,797 scans of 8 x 8, a row a time step; --mnist takes a folder with
MNIST's IDX files instead (train-images-idx3-ubyte and so on, plain or .gz).
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import rnncc

UNITS, BATCH, SEED, RATE = 64, 32, 1, 4e-3
CLASSES = 10
SPEC = Path(__file__).with_name("coupled_peephole.rnn")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Digits:
    """Images [n, rows, columns] in 0..1 and their labels [n], apart for training and testing."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def scikit_digits() -> Digits:
    """Four fifths to train on, one fifth held out; the split is always the same."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = data.images.astype(np.float32) / 16, data.target
    order = np.random.default_rng(SEED).permutation(len(images))
    train, test = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    return Digits(images[train], labels[train], images[test], labels[test])


def mnist(folder: Path) -> Digits:
    """MNIST's four IDX files."""
    train, test = (
        (
            read_idx(folder, f"{part}-images-idx3-ubyte").astype(np.float32) / 255,
            read_idx(folder, f"{part}-labels-idx1-ubyte"),
        )
        for part in ("train", "t10k")
    )
    return Digits(*train, *test)


def read_idx(folder: Path, name: str) -> np.ndarray:
    """An array of bytes: two zeros, a type, a rank, the sizes as big-endian int32, the bytes."""
    path = folder / name
    if path.exists():
        data = path.read_bytes()
    else:
        with gzip.open(f"{path}.gz") as file:
            data = file.read()
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


class Adam:
    """Kingma & Ba 2015."""

    def __init__(self, rate: float) -> None:
        self.rate, self.step = rate, 0
        self.mean: Arrays = {}
        self.power: Arrays = {}

    def update(self, weights: Arrays, gradients: Arrays) -> Arrays:
        """The weights after one step."""
        self.step += 1
        rate = self.rate * np.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
        after = {}
        for name, g in gradients.items():
            self.mean[name] = 0.9 * self.mean.get(name, 0) + 0.1 * g
            self.power[name] = 0.999 * self.power.get(name, 0) + 0.001 * g * g
            change = rate * self.mean[name] / (np.sqrt(self.power[name]) + 1e-7)
            after[name] = (weights[name] - change).astype(np.float32)
        return after


class Classifier:
    """The cell's last output, then softmax regression."""

    def __init__(self, cell: str) -> None:
        self.layer = rnncc.compile(cell)(units=UNITS, seed=SEED)
        rng = np.random.default_rng(SEED)
        self.head: Arrays = {
            "head_kernel": rng.normal(0, 0.1, (UNITS, CLASSES)).astype(np.float32),
            "head_bias": np.zeros(CLASSES, np.float32),
        }
        self.adam = Adam(RATE)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The most likely class of each image."""
        logits = self.layer(images) @ self.head["head_kernel"] + self.head["head_bias"]
        return np.asarray(logits.argmax(axis=1))

    def learn(self, images: np.ndarray, labels: np.ndarray) -> float:
        """One step of training; the loss before it."""
        h, pullback = self.layer.vjp(images)
        logits = h @ self.head["head_kernel"] + self.head["head_bias"]
        likely = np.exp(logits - logits.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        rows = np.arange(len(labels))
        loss = -np.log(likely[rows, labels] + 1e-9).mean()

        d_logits = likely
        d_logits[rows, labels] -= 1
        d_logits /= len(labels)
        grads = pullback(d_logits @ self.head["head_kernel"].T, wrt=("weights",))
        gradients = {
            **grads.weights,
            "head_kernel": h.T @ d_logits,
            "head_bias": d_logits.sum(axis=0),
        }
        after = self.adam.update({**self.layer.weights, **self.head}, gradients)
        self.head = {name: after.pop(name) for name in self.head}
        for name, weight in after.items():
            self.layer.weights[name] = weight
        return float(loss)


def train(model: Classifier, data: Digits, epochs: int) -> None:
    """All epochs, with a bar that shows the loss and the held-out accuracy."""
    rng = np.random.default_rng(SEED)
    columns = (
        TextColumn("epoch {task.fields[epoch]:>2}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  held out {task.fields[accuracy]:.1%}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress:
        steps = epochs * (len(data.train_x) // BATCH)
        task = progress.add_task("", total=steps, epoch=0, loss=0.0, accuracy=0.0)
        for epoch in range(1, epochs + 1):
            for rows in batches(rng.permutation(len(data.train_x))):
                loss = model.learn(data.train_x[rows], data.train_y[rows])
                progress.update(task, advance=1, epoch=epoch, loss=loss)
            progress.update(task, accuracy=accuracy(model, data))


def batches(order: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(order) - BATCH + 1, BATCH):
        yield order[start : start + BATCH]


def accuracy(model: Classifier, data: Digits) -> float:
    """The share of held-out digits that are read right."""
    return float((model.predict(data.test_x) == data.test_y).mean())


def save_picture(model: Classifier, data: Digits, path: Path) -> None:
    """Held-out digits with what was read: mistakes first, in red."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: it needs matplotlib (pip install matplotlib)", file=sys.stderr)
        return
    read = model.predict(data.test_x)
    order = np.argsort(read == data.test_y, kind="stable")[:40]
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    for axes, row in zip(figure.subplots(5, 8).flat, order, strict=True):
        right = read[row] == data.test_y[row]
        axes.imshow(data.test_x[row], cmap="gray_r")
        axes.set_axis_off()
        title = f"{read[row]}" if right else f"{read[row]}, is {data.test_y[row]}"
        axes.set_title(title, color="black" if right else "red", fontsize=9)
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


def main(argv: Sequence[str] | None = None) -> float:
    """Trains, prints and returns the accuracy on held-out digits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cell", default=str(SPEC), help="a .rnn file or a built-in's name")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--picture", type=Path, default=Path("digits.png"))
    parser.add_argument("--mnist", type=Path, metavar="FOLDER", help="MNIST's IDX files")
    arguments = parser.parse_args(argv)
    data = mnist(arguments.mnist) if arguments.mnist else scikit_digits()
    model = Classifier(arguments.cell)
    train(model, data, arguments.epochs)
    score = accuracy(model, data)
    print(f"{score:.2%} of {len(data.test_y)} held-out digits read right")
    save_picture(model, data, arguments.picture)
    return score


if __name__ == "__main__":
    main()
