"""The accuracy suite: torch's weights are read as torch means them, and absent ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.accuracy_suite import Net, from_torch, normalised, relative_errors, trained_nets, ulps


@pytest.mark.parametrize("cell", ["lstm", "gru", "layer_norm_lstm"])
def test_nets_compute_what_torch_does(cell: str) -> None:
    """Of gates that are read in another order, the error would be millions of times torch's."""
    pytest.importorskip("torch")
    rng, gates = np.random.default_rng(0), 3 if cell == "gru" else 4
    shapes = ((gates * 7, 5), (gates * 7, 7), (gates * 7,), (gates * 7,))
    given = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    weights = from_torch("gru" if cell == "gru" else "lstm", *given)
    if cell == "layer_norm_lstm":
        weights = normalised(weights)
    assert relative_errors(Net(cell, cell, (weights,)), 2)["rnncc"] < 20


def test_torch_itself_agrees_about_the_order_of_gates() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(5, 7, batch_first=True)
    given = [p.detach().numpy() for p in module.parameters()]
    x = np.random.default_rng(1).standard_normal((2, 3, 5)).astype(np.float32)
    found = Net("gru", "gru", (from_torch("gru", *given),)).outputs("rnncc", x)
    with torch.no_grad():
        np.testing.assert_allclose(found, module(torch.from_numpy(x))[0].numpy(), atol=1e-6)


def test_a_folder_without_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNCC_MODELS", str(tmp_path))
    assert not list(trained_nets())


def test_units_in_the_last_place() -> None:
    one = np.float64(1)
    assert ulps(np.float32([1, 1 + 2**-23]), np.array([one, one])) == "0.71 rms, 1.00 at most"
