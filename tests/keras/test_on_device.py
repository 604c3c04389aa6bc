"""Keras's layers on the torch backend, on a GPU's kernels: the same layers on the CPU's agree.

Tensors are the CPU's, made believe. Keras is asked for torch in a process of its own, since a
process has one backend.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import cases
from tests.support.keras_backends import environment, installed

SHAPE = (2, 5, 3)
TWICE = ("lstm", "backwards", "stack backwards", "both ways")


def layers() -> dict[str, object]:
    """Layers, by what they try."""
    from rnncc.keras import GRU, LSTM, RNN, Bidirectional, GRUCell, LSTMCell, SimpleRNN

    whole = {"return_sequences": True}
    return {
        "lstm": lambda: LSTM(4, return_state=True),
        "gru": lambda: GRU(4, **whole, return_state=True),
        "backwards": lambda: SimpleRNN(4, **whole, go_backwards=True),
        "zeros": lambda: LSTM(4, **whole, zero_output_for_mask=True),
        "checkpoints": lambda: GRU(4, **whole, checkpoint_every=2),
        "dropout": lambda: LSTM(4, **whole, dropout=0.4, recurrent_dropout=0.3, seed=3),
        "a file": lambda: RNN(cases.ROOT / "rnncc/cells/peephole_lstm.rnn", units=4, **whole),
        "stack": lambda: RNN([LSTMCell(4), GRUCell(3)], return_state=True),
        "stack backwards": lambda: RNN(
            [LSTMCell(4, dropout=0.3, seed=1), GRUCell(3)], **whole, go_backwards=True
        ),
        "both ways": lambda: Bidirectional(LSTM(4, **whole, return_state=True)),
        "last of both": lambda: Bidirectional(GRU(4, dropout=0.2, seed=2), merge_mode="sum"),
        "product": lambda: Bidirectional(RNN([LSTMCell(4), GRUCell(3)], **whole), merge_mode="mul"),
        "apart": lambda: Bidirectional(SimpleRNN(4, **whole), merge_mode=None),
        "two files": lambda: Bidirectional(
            LSTM(4, **whole), merge_mode="ave", backward_layer=LSTM(4, **whole, go_backwards=True)
        ),
    }


def results(layer, x, mask, states, training: bool) -> list:  # type: ignore[no-untyped-def]
    """Values and all gradients."""
    import torch
    from keras import tree

    x = x.clone().requires_grad_()
    states = [s.clone().requires_grad_() for s in states]
    for variable in layer.trainable_variables:
        variable.value.grad = None
    for generator in layer.generators():
        generator.state.assign([5, 7])
    given = {"initial_state": states} if states else {}
    found = tree.flatten(layer(x, mask=mask, training=training, **given))
    torch.manual_seed(0)
    sum((t * torch.randn(t.shape)).sum() for t in found).backward()
    grads = [v.value.grad for v in layer.trainable_variables]
    return [*found, x.grad, *(s.grad for s in states), *grads]


def agree(name: str, masked: bool, given: bool) -> None:
    """AssertionError unless both kinds of kernels give the same."""
    import torch

    from rnncc.torch import on_device, recurrence
    from tests.support.gpu_simulator.grid import Simulator
    from tests.support.gpu_simulator.tensors import Believing

    torch.manual_seed(0)
    layer = layers()[name]()  # type: ignore[operator]
    x = torch.randn(SHAPE)
    layer.build(SHAPE)
    for variable in layer.trainable_variables:
        variable.assign(torch.randn(variable.shape) / 2)
    mask = torch.tensor([[0, 1, 0, 1, 0], [1, 1, 0, 0, 0]], dtype=torch.bool) if masked else None
    states = [torch.randn(s.shape) for s in layer.initial_states(SHAPE[0])] if given else []
    right = [t.detach().clone() for t in results(layer, x, mask, states, True)]
    simulator = Simulator(seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrence, "is_elsewhere", lambda t: True)
        patch.setattr(on_device, "carrier_of", lambda t: Believing(simulator))
        found = results(layer, x, mask, states, True)
    assert simulator.launches, "the CPU's kernels ran"
    assert "a simulated grid" in layer.plan()
    assert len(found) == len(right)
    for one, other in zip(found, right, strict=True):
        error = cases.error(one.detach().numpy(), other.numpy())
        assert error <= 1e-5, (name, masked, given, error)


def rounding() -> None:
    """precision=: a stack's, kept in its configuration, told by its plan, refused on the CPU."""
    import torch

    from rnncc.keras import RNN, LSTMCell
    from rnncc.runtime.cuda.planning import tiler
    from rnncc.torch import on_device, recurrence
    from tests.support.gpu_simulator.grid import Simulator
    from tests.support.gpu_simulator.tensors import Believing

    with pytest.raises(ValueError, match="is one of float32, tf32, bfloat16, not 'half'"):
        RNN(LSTMCell(4), precision="half")
    x = torch.randn(SHAPE)
    exact = RNN([LSTMCell(4), LSTMCell(3)])
    layer = RNN.from_config(RNN([LSTMCell(4), LSTMCell(3)], precision="tf32").get_config())
    for one in (exact, layer):
        one.build(SHAPE)
    layer.set_weights(exact.get_weights())
    with pytest.raises(ValueError, match="has precision='tf32', which is for a GPU"):
        layer(x)
    simulator = Simulator(seed=1, library="NumPy's library")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrence, "is_elsewhere", lambda t: True)
        patch.setattr(on_device, "carrier_of", lambda t: Believing(simulator))
        patch.setattr(tiler, "LEAST_WORK", 1)
        found = layer(x)
    assert {p for _, p in simulator.multiplied} == {"tf32"}
    assert "by NumPy's library in tf32" in layer.plan() and "precision='tf32'" in layer.plan()
    assert 1e-6 < (found - exact(x)).abs().max() < 4e-3


def main() -> None:
    """Every layer once: with a mask, with states, with both or with neither in turns, and the first
    of a kind with the opposite, too."""
    for i, name in enumerate(layers()):
        masked, given = i % 2 == 1, i % 4 >= 2
        agree(name, masked, given)
        if name in TWICE:
            agree(name, not masked, not given)
        print(name, "agrees", flush=True)
    rounding()
    print("precision agrees", flush=True)


@pytest.mark.slow
def test_layers_agree() -> None:
    for name in ("keras", "torch"):
        if not installed(name):
            pytest.skip(f"no {name}")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.keras.test_on_device"],
        cwd=cases.ROOT,
        env=environment("torch"),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    assert ran.stdout.rstrip().endswith("precision agrees")


if __name__ == "__main__":
    main()
