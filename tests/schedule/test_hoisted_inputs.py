"""x @ W before the loop or in it: the same bits, chosen by the sizes, said by the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc import oracle
from rnncc.compiler import check_text, load_spec
from rnncc.lowering.lower import lower
from rnncc.passes.pipeline import optimise
from rnncc.runtime.cpu.planning import tiling
from rnncc.schedule.build import schedule
from rnncc.schedule.model import Group, LaneStage

TWO_BIASES = str(Path(rnncc.__file__).parent / "torch" / "lstm.rnn")


def groups(name: str, **options: object) -> list[Group]:
    """The core calls of a cell's loop."""
    made = schedule(optimise(lower(load_spec(name), options, {})))
    (scan,) = (k for k in made.kernels if k.kind == "scan")
    stages = [s for level in scan.levels for s in level.stages if isinstance(s, LaneStage)]
    return [g for s in stages for g in s.groups]


def test_gates_start_together() -> None:
    (gates,) = groups("lstm")
    assert gates.start is not None and gates.accs[0].ahead == 1 and len(gates.accs) == 4


def test_sums_that_are_apart_do_not_start() -> None:
    """GRU's candidate scales h @ U before x @ W joins it, and shares its core call with the gates:
    none of the three has a start."""
    assert all(g.start is None for g in groups("gru"))
    first, second = groups("gru", reset_after=False)
    assert first.start is not None and second.start is not None


def run(layer: Any, x: np.ndarray) -> list[np.ndarray]:
    y, pullback = layer.vjp(x)
    grads = pullback(np.cos(y))
    return [y, grads.inputs, *grads.weights.values()]


def test_two_biases_are_one_row_to_start_from() -> None:
    """As torch's layers have them: their sum is worked out with the weights."""
    (gates,) = groups(TWO_BIASES)
    assert gates.start is not None and len(gates.accs) == 4
    assert all(acc.init is not None and acc.ahead == 1 for acc in gates.accs)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lstm", (5, 6, 7, 17)), ("peephole_lstm", (9, 3, 20, 40)), (TWO_BIASES, (7, 4, 9, 18))],
    ids=["lstm", "peephole_lstm", "two biases"],
)
def test_the_same_bits(name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    batch, time, features, units = shape
    x = np.random.default_rng(3).standard_normal((batch, time, features)).astype("float32")
    found, plans = [], []
    for rows in (1, 10**9):
        monkeypatch.setattr(tiling, "FUSED_ROWS", rows)
        layer = rnncc.compile(name)(units, return_sequences=True, seed=1)
        # What was bound for these sizes before is bound by the engine all layers share.
        layer(x)
        engine: Any = layer._last
        engine._forward.made.clear()
        engine._forward.ready.clear()
        found.append(run(layer, x))
        plans.append(layer.plan())
    assert "before_starts" not in plans[0] and "before_starts" in plans[1]
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


WIDTHS = """cell: Widths
features: size
units: size
x: input[features]
h: state[units]
pair: weight[features, 2 * units] = glorot_uniform
single: weight[features, units] = glorot_uniform
recurrent: weight[units, 2 * units] = orthogonal
recurrent_single: weight[units, units] = orthogonal

a, b = split(x[t] @ pair + h[t-1] @ recurrent, 2)
h[t] = tanh(a) * sigmoid(b) + tanh(x[t] @ single + h[t-1] @ recurrent_single)
return h[t]
"""


def test_weights_of_different_widths_lie_side_by_side() -> None:
    """Rows of each gate's weight have their own length."""
    cls = rnncc.compile_text(WIDTHS, dtype="float64")
    right = oracle.layer_class(check_text(WIDTHS, "<text>"))(
        units=7, dtype="float64", return_sequences=True
    )
    layer = cls(units=7, seed=1, return_sequences=True)
    x = np.random.default_rng(3).standard_normal((3, 4, 5))
    found = run(layer, x)
    right.build(x.shape)
    right.set_weights(layer.get_weights())
    for a, b in zip(found, run(right, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_one_start_in_the_loop_and_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that makes both leaves out the one that the loop makes itself."""
    chosen = tiling.TileBinder.choose_starts

    def some(self: Any, kernel: Any) -> None:
        chosen(self, kernel)
        self.out.fused &= {*sorted(self.out.fused)[:1]}

    x = np.random.default_rng(3).standard_normal((40, 4, 7)).astype("float32")
    found = []
    for choose in (chosen, some):
        monkeypatch.setattr(tiling.TileBinder, "choose_starts", choose)
        layer = rnncc.compile("gru")(units=20, reset_after=False, return_sequences=True, seed=1)
        layer(x)
        engine: Any = layer._last
        engine._forward.made.clear()
        engine._forward.ready.clear()
        found.append(run(layer, x))
    assert "in the loop too" in layer.plan() and "before the loop" in layer.plan()
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
