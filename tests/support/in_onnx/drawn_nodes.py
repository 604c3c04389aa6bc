"""Models of one recurrent node of ONNX, drawn at random or as said, and their arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.support.in_onnx.operator_text import DEFAULTS, TEXTS, run, takes

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


@dataclass
class Drawn:
    """arrays: the operator's inputs by name, X among them."""

    op: str
    attributes: dict[str, Any]
    arrays: dict[str, np.ndarray]
    held: frozenset[str] = frozenset({"W", "R", "B", "P"})  # in the file, not inputs of it
    outputs: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        self.outputs = self.outputs or ("Y", "Y_h", "Y_c")[: 3 if self.op == "LSTM" else 2]

    def model(self, opset: int = 14, dtype: str = "float32") -> Any:
        """onnx.ModelProto."""
        from onnx import helper, numpy_helper

        places = [n if n in self.arrays else "" for n in INPUTS]
        while not places[-1]:
            places.pop()
        node = helper.make_node(
            self.op, places, list(self.outputs), "cell", hidden_size=self.units, **self.attributes
        )
        arrays = {n: cast(n, a, dtype) for n, a in self.arrays.items()}
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph = helper.make_graph(
            [node],
            "drawn",
            [
                helper.make_tensor_value_info(
                    n, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim
                )
                for n, a in arrays.items()
                if n not in self.held
            ],
            [
                helper.make_tensor_value_info(n, kind, [None] * (4 if n == "Y" else 3))
                for n in self.outputs
                if n
            ],
            [numpy_helper.from_array(a, n) for n, a in arrays.items() if n in self.held],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        made.ir_version = 8
        return made

    @property
    def units(self) -> int:
        return int(self.arrays["R"].shape[2])

    def fed(self, dtype: str = "float32") -> dict[str, np.ndarray]:
        return {n: cast(n, a, dtype) for n, a in self.arrays.items() if n not in self.held}

    def expected(self, **also: Any) -> dict[str, np.ndarray]:
        """By the text, in float64."""
        found = run(self.op, **self.arrays, **self.attributes, **also)
        names = ("Y", "Y_h", "Y_c")
        return {n: found[names.index(n)] for n in self.outputs if n}


def cast(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    return array if name == "sequence_lens" else array.astype(dtype)


def arrays_of(
    op: str, rng: np.random.Generator, ways: int, sizes: tuple[int, int, int, int], layout: int = 0
) -> dict[str, np.ndarray]:
    """All inputs. sizes: time, batch, features, units. Values are float32's."""
    time, batch, features, units = sizes
    rows, states = GATES[op] * units, (batch, ways, units) if layout else (ways, batch, units)
    shapes = {
        "X": (batch, time, features) if layout else (time, batch, features),
        "W": (ways, rows, features),
        "R": (ways, rows, units),
        "B": (ways, 2 * rows),
        "initial_h": states,
        **({"initial_c": states, "P": (ways, 3 * units)} if op == "LSTM" else {}),
    }
    scale = {"W": 0.5, "R": 0.7 / np.sqrt(units), "P": 0.5}
    made = {n: (rng.standard_normal(s) * scale.get(n, 1)).astype("f") for n, s in shapes.items()}
    made["sequence_lens"] = rng.integers(0, time + 1, batch).astype("i4")
    return made


def drawn(seed: int, most: tuple[int, ...] = (12, 6, 20, 24), layouts: bool = True) -> Drawn:
    """Any of the three, with any of its options.

    most: steps, rows, features and units are fewer. layouts: also the one of batches first.
    """
    rng = np.random.default_rng(seed)
    op = str(rng.choice(["RNN", "GRU", "LSTM"]))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    ways = 1 + (direction == "bidirectional")
    layout = int(rng.random() < 0.3 and layouts)
    sizes = tuple(int(rng.integers(1, n)) for n in most)
    arrays = arrays_of(op, rng, ways, sizes, layout)  # type: ignore[arg-type]
    for name in ("B", "sequence_lens", "initial_h", "initial_c", "P"):
        if rng.random() < 0.4:
            arrays.pop(name, None)
    attributes: dict[str, Any] = {"direction": direction, "layout": layout}
    if rng.random() < 0.6:
        attributes |= _activations(rng, len(DEFAULTS[op]) * ways, tuple(TEXTS))
    if rng.random() < 0.3:
        attributes["clip"] = float(np.float32(rng.uniform(0.2, 3)))
    if op == "LSTM" and rng.random() < 0.4:
        attributes["input_forget"] = 1
    if op == "GRU" and rng.random() < 0.5:
        attributes["linear_before_reset"] = 1
    held = {"W", "R", "B", "P"}
    held |= {n for n in ("initial_h", "initial_c") if rng.random() < 0.3}
    everything = ("Y", "Y_h", "Y_c")[: 3 if op == "LSTM" else 2]
    wanted = [n if rng.random() < 0.8 else "" for n in everything]
    return Drawn(op, attributes, arrays, frozenset(held), tuple(wanted) if any(wanted) else ())


def _activations(rng: np.random.Generator, count: int, names: tuple[str, ...]) -> Mapping[str, Any]:
    chosen = [str(n) for n in rng.choice(names, count)]
    numbers: dict[str, Any] = {"activations": chosen}
    for i, what in enumerate(("activation_alpha", "activation_beta")):
        most = sum(takes(n)[i] for n in chosen)
        values = [float(np.float32(v)) for v in rng.uniform(0.1, 1, most)]
        if values:
            numbers[what] = values
    return numbers
