"""The main job in one go: a spec file -> a module -> a layer, checked and timed.

python examples/quickstart.py [FILE.rnn]
"""

from __future__ import annotations

import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rnncc import cli, oracle
from rnncc.lowering.cell_interface import check_file

SPEC = Path(__file__).with_name("coupled_peephole.rnn")
BATCH, TIME, FEATURES, UNITS = 64, 28, 28, 64


def main(argv: Sequence[str] | None = None) -> float:
    """Prints what each step gives; returns the largest error."""
    given = sys.argv[1:] if argv is None else argv
    spec = Path(given[0]) if given else SPEC

    # 1. Compile the file. The module it writes needs numpy, numba and rnncc.runtime.
    folder = Path(tempfile.mkdtemp(prefix="rnncc-quickstart-"))
    module_file = folder / f"{spec.stem}.py"
    if cli.main(["compile", str(spec), "-o", str(module_file)]):
        raise SystemExit(1)

    # 2. Import it, and make a layer.
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(spec.stem)
    finally:
        sys.path.remove(str(folder))
    cell = check_file(spec)
    keywords = {"units": UNITS, "return_sequences": True, "seed": 1}
    layer = getattr(module, cell.name)(**keywords)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, TIME, FEATURES)).astype(np.float32)
    start = time.perf_counter()
    y, pullback = layer.vjp(x)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    grads = pullback(dy)
    print(f"first forward and backward, compiling: {time.perf_counter() - start:.1f} s")

    # 3. Check it against the interpreter: the same layer, in NumPy and float64.
    exact = oracle.layer_class(cell)(**keywords)
    exact.build((None, None, FEATURES))
    exact.set_weights(layer.get_weights())
    y_exact, pullback_exact = exact.vjp(x)
    grads_exact = pullback_exact(dy)
    errors = {"y": error(y, y_exact), "dx": error(grads.inputs, grads_exact.inputs)}
    for name, gradient in grads.weights.items():
        errors[f"d_{name}"] = error(gradient, grads_exact.weights[name])
    worst = max(errors, key=lambda name: errors[name])
    print(f"worst error against the interpreter: {errors[worst]:.1e} ({worst})")

    # 4. Time it.
    forward = milliseconds(lambda: layer(x))
    both = milliseconds(lambda: layer.vjp(x)[1](dy))
    print(f"batch {BATCH}, time {TIME}, features {FEATURES}, units {UNITS}, float32:")
    print(f"forward {forward:.3f} ms, forward and backward {both:.3f} ms")
    return errors[worst]


def error(found: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(found - right).max() / max(1.0, np.abs(right).max()))


def milliseconds(call: Callable[[], object], seconds: float = 1.0) -> float:
    """The median of all calls that begin within a second."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


if __name__ == "__main__":
    main()
