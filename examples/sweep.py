"""A sweep over many small nets, one thread each, on all cores or on many machines: joblib.

    python examples/sweep.py [--cells gru,lstm,...] [--units 8,16,32] [--seeds 5] [--jobs -1]
    python examples/sweep.py --dask SCHEDULER:8786 [...]

Each net reads scikit-learn's scanned digits row by row. Nets so small gain nothing from a second
thread, so each worker has one, and there are as many workers as cores. Kernels are a cell's and not
a size's: they are compiled here once, before workers start, which find them in the cache.

--dask hands the same nets to the workers of a Dask cluster (`dask scheduler`, and on each machine
`dask worker SCHEDULER:8786 --nthreads 1 --nworkers auto`), which need rnncc and scikit-learn; each
machine compiles a cell when it first meets it. Ray does it alike: ray.util.joblib.register_ray(),
then backend "ray".

Needs joblib and scikit-learn, matplotlib for the picture, distributed for --dask:
pip install 'rnncc[examples]'.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["RNNCC_NUM_THREADS"] = "1"  # before rnncc looks, here and in the workers it starts

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import rnncc

try:
    import joblib
    from sklearn.datasets import load_digits
except ImportError as error:
    raise SystemExit(f"{error.name} is missing: pip install 'rnncc[examples]'") from None

CELLS = "simple_rnn,light_gru,minimal_gated_unit,gru,coupled_lstm,lstm"
BATCH, TRAIN = 32, 1440  # of 1797 scans
RATE = 4e-3


@dataclass(frozen=True)
class Net:
    cell: str  # a built-in's name, or the text of a .rnn file: workers may be elsewhere
    units: int
    seed: int
    epochs: int


@dataclass(frozen=True)
class Result:
    """right: the share of held-out digits; seconds: of training; where: the process it ran in."""

    net: Net
    right: float
    seconds: float
    where: str


def layer_of(net: Net) -> Any:
    """The layer, compiled or out of the cache."""
    text = "\n" in net.cell
    made = rnncc.compile_text(net.cell) if text else rnncc.compile(net.cell)
    return made(units=net.units, seed=net.seed)


def trained(net: Net) -> Result:
    """A worker's whole task: the digits come with scikit-learn, the kernels out of the cache."""
    layer = layer_of(net)
    digits = load_digits()
    images, labels = (digits.images / 16).astype(np.float32), digits.target
    order = np.random.default_rng(1).permutation(len(images))  # held out are always the same
    train, test = order[:TRAIN], order[TRAIN:]
    layer(images[:1])
    rng = np.random.default_rng(net.seed)
    weights = {"head": rng.normal(0, 0.1, (net.units, 10)).astype(np.float32)}
    mean: dict[str, Any] = {}
    power: dict[str, Any] = {}
    step, begun = 0, time.perf_counter()
    for _ in range(net.epochs):
        for rows in rng.permutation(train).reshape(-1, BATCH):
            step += 1
            h, pullback = layer.vjp(images[rows])
            slope = likely(h @ weights["head"])
            slope[np.arange(BATCH), labels[rows]] -= 1
            slope /= BATCH
            grads = pullback(slope @ weights["head"].T, wrt=("weights",)).weights
            rate = RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)  # Adam
            for name, g in {**grads, "head": h.T @ slope}.items():
                mean[name] = 0.9 * mean.get(name, 0) + 0.1 * g
                power[name] = 0.999 * power.get(name, 0) + 0.001 * g * g
                change = rate * mean[name] / (np.sqrt(power[name]) + 1e-7)
                held = weights if name == "head" else layer.weights
                held[name] = (held[name] - change).astype(np.float32)
    seconds = time.perf_counter() - begun
    right = (likely(layer(images[test]) @ weights["head"]).argmax(1) == labels[test]).mean()
    return Result(net, float(right), seconds, f"{os.uname().nodename}:{os.getpid()}")


def likely(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def backend(dask: str | None) -> AbstractContextManager[Any]:
    """Where nets run: processes of this machine, or Dask's workers. SystemExit without either."""
    if dask is None:
        return joblib.parallel_config("loky", inner_max_num_threads=1)
    try:
        from distributed import Client
    except ImportError:
        raise SystemExit("--dask needs distributed: pip install distributed") from None
    try:
        Client(dask, timeout="10s")
    except (OSError, ValueError) as error:
        raise SystemExit(f"--dask: no scheduler at {dask}: {error}") from None
    return joblib.parallel_config("dask")


def run(nets: Sequence[Net], jobs: int, dask: str | None) -> Iterator[Result]:
    """Results as they come."""
    with backend(dask):
        keywords = {} if dask else {"n_jobs": jobs}
        parallel = joblib.Parallel(return_as="generator_unordered", **keywords)
        yield from parallel(joblib.delayed(trained)(net) for net in nets)


def names_of(results: Sequence[Result], files: dict[str, str]) -> dict[str, str]:
    """Cells as they are shown: a file's by its name."""
    return {r.net.cell: files.get(r.net.cell, r.net.cell) for r in results}


def table(results: Sequence[Result], names: dict[str, str]) -> Table:
    """Mean and spread over seeds, a row a cell."""
    units = sorted({r.net.units for r in results})
    shown = Table("% read right, mean and spread over seeds", *(f"{u} units" for u in units))
    for cell, name in sorted(names.items(), key=lambda item: item[1]):
        row = []
        for u in units:
            right = [100 * r.right for r in results if (r.net.cell, r.net.units) == (cell, u)]
            row.append(f"{statistics.mean(right):.1f} ± {statistics.pstdev(right):.1f}")
        shown.add_row(name, *row)
    return shown


def save_picture(results: Sequence[Result], names: dict[str, str], path: Path) -> None:
    """Each net a dot, each cell a line through its means."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: it needs matplotlib (pip install matplotlib)", file=sys.stderr)
        return
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for place, (cell, name) in enumerate(sorted(names.items(), key=lambda item: item[1])):
        own = [r for r in results if r.net.cell == cell]
        units = sorted({r.net.units for r in own})
        means = [statistics.mean(100 * r.right for r in own if r.net.units == u) for u in units]
        shift = 1 + 0.02 * (place - len(names) / 2)
        (line,) = axes.plot([u * shift for u in units], means, label=name)
        x = [r.net.units * shift for r in own]
        axes.scatter(x, [100 * r.right for r in own], s=8, color=line.get_color(), alpha=0.6)
    axes.set_xscale("log", base=2)
    axes.set_xticks(units, [str(u) for u in units])
    axes.set_xlabel("units")
    axes.set_ylabel("% of held-out digits")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=90)
    print(f"picture: {path}")


def png(text: str) -> Path:
    """A path for a picture, in a folder that is there."""
    path = Path(text)
    if path.suffix != ".png" or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no .png in a folder that is there")
    return path


def sizes(text: str) -> list[int]:
    """Numbers of units, with commas between."""
    found = [int(part) for part in text.split(",")]
    if not all(1 <= units <= 4096 for units in found):
        raise argparse.ArgumentTypeError(f"{text} are not numbers of units from 1 to 4096")
    return found


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", default=CELLS, help="built-in cells and .rnn files")
    parser.add_argument("--units", type=sizes, default=[8, 16, 32])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=-1, help="processes; -1: one for each core")
    parser.add_argument("--dask", metavar="ADDRESS", help="of a scheduler")
    parser.add_argument("--picture", type=png, default=Path("sweep.png"))
    parser.add_argument("--quick", action="store_true", help="8 nets: 2 cells, 2 sizes, 1 epoch")
    given = parser.parse_args(argv)
    if given.quick:
        given.cells, given.units, given.seeds, given.epochs = "gru,light_gru", [4, 8], 2, 1
    if given.seeds < 1 or given.epochs < 1 or given.jobs == 0:
        parser.error("--seeds and --epochs are at least 1, --jobs isn't 0")
    return given


def main(argv: Sequence[str] | None = None) -> list[Result]:
    """Trains all nets, prints the table and returns what came out."""
    given = arguments_of(argv)
    console = Console()
    files: dict[str, str] = {}
    try:
        for name in given.cells.split(","):
            cell = Path(name).read_text("utf-8") if name.endswith(".rnn") else name
            files[cell] = Path(name).stem
            with console.status(f"compiling {name}"):
                trained(Net(cell, given.units[0], 0, 1))
    except (OSError, TypeError, ValueError, rnncc.SpecError) as error:
        raise SystemExit(f"{name}: {error}") from None
    nets = [
        Net(cell, units, seed, given.epochs)
        for seed in range(given.seeds)
        for units in given.units
        for cell in files
    ]
    results: list[Result] = []
    columns = BarColumn(), TextColumn("{task.completed}/{task.total} {task.fields[text]}")
    begun = time.perf_counter()
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("", total=len(nets), text="nets")
        for result in run(nets, given.jobs, given.dask):
            results.append(result)
            progress.update(task, advance=1)
    seconds = time.perf_counter() - begun
    names = names_of(results, files)
    console.print(table(results, names))
    work, workers = sum(r.seconds for r in results), len({r.where for r in results})
    print(
        f"{len(nets)} nets in {seconds:.1f} s: {len(nets) / seconds:.1f} a second, "
        f"{work:.1f} s of training by {workers} workers"
    )
    save_picture(results, names, given.picture)
    return results


if __name__ == "__main__":
    main()
