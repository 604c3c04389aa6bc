"""How far results are from the same in float64: nets with trained weights, and single functions.

Trained weights are read from the folder that RNNCC_MODELS names, or ../shared/models; where there
is none, its nets are named as skipped. An error of one draw says little, such nets amplify: each
figure is the geometric mean over DRAWS of them, each of BATCH sequences, beside torch's.

Non-Goals: what is refused or differs by design (docs/numerics.md); time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import rnncc
from bench.case import FORWARD, Case, Data
from bench.contenders import contender as contender_of
from bench.contenders import reorder
from bench.contenders.torch_contender import ORDER
from bench.harness import ROOT, Effort
from bench.result import Bar, Result

DRAWS, BATCH, STEPS = 24, 4, 160
PEERS = ("torch", "onnxruntime", "jax")
LIMIT = 1.0  # of torch's error

FUNCTIONS: dict[str, tuple[str, Callable[[Any], Any], tuple[float, float]]] = {
    "exp": ("exp(x[t])", np.exp, (-80, 80)),
    "log": ("log(x[t])", np.log, (1e-30, 1e3)),
    "tanh": ("tanh(x[t])", np.tanh, (-9, 9)),
    "sigmoid": ("sigmoid(x[t])", lambda x: 1 / (1 + np.exp(-x)), (-80, 80)),
    "sqrt": ("sqrt(x[t])", np.sqrt, (0, 1e6)),
    "rsqrt": ("rsqrt(x[t])", lambda x: 1 / np.sqrt(x), (1e-20, 1e6)),
    "softplus": ("softplus(x[t])", lambda x: np.logaddexp(0, x), (-80, 80)),
    "sin": ("sin(x[t])", np.sin, (-100, 100)),
    "cos": ("cos(x[t])", np.cos, (-100, 100)),
    "tan": ("tan(x[t])", np.tan, (-100, 100)),
    "arcsin": ("arcsin(x[t])", np.arcsin, (-1, 1)),
    "arccos": ("arccos(x[t])", np.arccos, (-1, 1)),
    "arctan": ("arctan(x[t])", np.arctan, (-10, 10)),
    "sinh": ("sinh(x[t])", np.sinh, (-9, 9)),
    "cosh": ("cosh(x[t])", np.cosh, (-9, 9)),
    "arcsinh": ("arcsinh(x[t])", np.arcsinh, (-1e3, 1e3)),
    "arccosh": ("arccosh(x[t])", np.arccosh, (1, 1e3)),
    "arctanh": ("arctanh(x[t])", np.arctanh, (-1, 1)),
    "exp2": ("exp2(x[t])", np.exp2, (-100, 100)),
    "log2": ("log2(x[t])", np.log2, (1e-30, 1e3)),
    "log10": ("log10(x[t])", np.log10, (1e-30, 1e3)),
}
FUNCTION_CELL = "cell: F\nunits: size\nx: input[units]\ny = {}\nreturn y\n"
SAMPLES = 1 << 18


@dataclass(frozen=True, slots=True)
class Net:
    """Layers of one cell, one after another: of each, weights by name as its spec lays them out."""

    name: str
    cell: str
    layers: tuple[dict[str, np.ndarray], ...]

    @property
    def features(self) -> int:
        return int(self.layers[0]["kernel"].shape[0])

    def outputs(self, contender: str, x: np.ndarray) -> np.ndarray:
        """What a contender makes of x, in x's dtype."""
        for weights in self.layers:
            units = weights["recurrent_kernel"].shape[0]
            batch, steps, features = x.shape
            case = Case(self.cell, FORWARD, batch, steps, features, units, str(x.dtype))
            own = {n: a.astype(x.dtype) for n, a in weights.items()}
            valid = np.ones(x.shape[:2], bool)
            run = contender_of(contender).prepare(
                case, Data(x, np.zeros((batch, steps, units), x.dtype), own, valid)
            )
            x = np.ascontiguousarray(run.outputs()["y"])
        return x

    def refused(self, contender: str) -> str:
        found = contender_of(contender)
        return found.unavailable() or found.refuses(Case(self.cell, FORWARD, 1, 1, 1, 1))


def accuracy_suite(effort: Effort) -> Result:
    """effort: fewer draws where it asks for few rounds."""
    draws = DRAWS if effort.rounds >= 10 else 4
    nets, result = list(trained_nets()), Result("accuracy")
    for net in nets:
        errors = relative_errors(net, draws)
        ours = errors.pop("rnncc")
        result.bars.append(Bar(f"{net.name}: rms error / torch's", ours, LIMIT, "x"))
        beside = ", ".join(f"{name} {value:.2f}" for name, value in errors.items())
        result.notes.append(f"{net.name}, {draws} draws, of torch's error: {beside}")
    if not nets:
        why = f"no trained weights in {models()}: set RNNCC_MODELS"
        result.bars.append(Bar("trained nets: rms error / torch's", None, LIMIT, why=why))
    result.notes += [f"`{name}`: {line}" for name, line in function_errors()]
    return result


def relative_errors(net: Net, draws: int) -> dict[str, float]:
    """Root mean square errors against torch in float64, of torch's in float32: their geometric
    means, by contender."""
    names = [n for n in ("rnncc", *PEERS[1:]) if not net.refused(n)]
    shape = (draws * BATCH, STEPS, net.features)
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    right = net.outputs("torch", x.astype(np.float64))
    errors = {n: rms_of_draws(net.outputs(n, x) - right) for n in ("torch", *names)}
    ratios = {n: errors[n] / errors["torch"] for n in names}
    return {n: float(np.exp(np.mean(np.log(r)))) for n, r in ratios.items()}


def rms_of_draws(difference: np.ndarray) -> np.ndarray:
    draws = difference.reshape(len(difference) // BATCH, -1)
    return np.sqrt(np.mean(np.square(draws, dtype=np.float64), axis=1))


def rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


# ---- trained weights -----------------------------------------------------------------------------


def models() -> Path:
    return Path(os.environ.get("RNNCC_MODELS") or ROOT.parent / "shared" / "models")


def trained_nets() -> Iterator[Net]:
    """LSTM of three layers, two GRUs; and the LSTM's layers, each gate normalised by its step."""
    speaker, g2p = models() / "speaker_lstm.npz", models() / "g2p_gru.npz"
    if speaker.exists():
        with np.load(speaker) as arrays:
            layers = [
                from_torch("lstm", *(arrays[f"{n}_l{layer}"] for n in TORCH_NAMES))
                for layer in range(3)
            ]
        yield Net("LSTM, 3 layers, 40 to 256, speaker", "lstm", tuple(layers))
        yield Net("its first layer, normalised", "layer_norm_lstm", (normalised(layers[0]),))
    if g2p.exists():
        with np.load(g2p) as arrays:
            for part, title in (("enc", "encoder"), ("dec", "decoder")):
                names = (f"{part}_{n}" for n in ("w_ih", "w_hh", "b_ih", "b_hh"))
                weights = from_torch("gru", *(arrays[n] for n in names))
                yield Net(f"GRU, 256 to 256, spelling, {title}", "gru", (weights,))


TORCH_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def from_torch(
    cell: str, w_ih: np.ndarray, w_hh: np.ndarray, b_ih: np.ndarray, b_hh: np.ndarray
) -> dict[str, np.ndarray]:
    """torch's arrays of a layer, gates first, as the cell's spec has them."""
    back = tuple(int(i) for i in np.argsort(ORDER[cell]))
    kernel, recurrent = (np.ascontiguousarray(reorder(w.T, back)) for w in (w_ih, w_hh))
    biases = [reorder(b, back) for b in (b_ih, b_hh)]
    bias = np.stack(biases) if cell == "gru" else biases[0] + biases[1]
    return {"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}


def normalised(layer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An LSTM's weights as a layer-norm LSTM's, whose gains nobody trained."""
    units = layer["recurrent_kernel"].shape[0]
    ones, zeros = (np.full(4 * units, n, np.float32) for n in (1, 0))
    gains = {"input_gain": ones, "recurrent_gain": ones, "cell_gain": ones[:units]}
    return {**layer, **gains, "cell_bias": zeros[:units]}


# ---- functions -----------------------------------------------------------------------------------


def function_errors() -> Iterator[tuple[str, str]]:
    """In units in the last place, rms and at most, beside torch's, over a range of each."""
    try:
        import torch
    except ImportError:
        torch = None
    for name, (text, exact, (low, high)) in FUNCTIONS.items():
        x = np.random.default_rng(7).uniform(low, high, (1, 1, SAMPLES)).astype(np.float32)
        right = exact(x.astype(np.float64))
        layer = rnncc.compile_text(FUNCTION_CELL.format(text))(return_sequences=True)
        line = f"{low:g} to {high:g}: rnncc {ulps(layer(x), right)}"
        if torch is not None:
            there = getattr(torch, name, None) or getattr(torch.nn.functional, name)
            line += f", torch {ulps(there(torch.from_numpy(x)).numpy(), right)}"
        yield name, line


def ulps(found: np.ndarray, right: np.ndarray) -> str:
    off = np.abs(found - right) / np.spacing(np.abs(right).astype(np.float32))
    return f"{rms(off):.2f} rms, {off.max():.2f} at most"
