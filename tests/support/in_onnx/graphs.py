"""Models of ONNX as exporters write them, with plain operators around the recurrent ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

OPSET = 17


def arrays(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: (rng.standard_normal(s) * 0.4).astype("f") for n, s in shapes.items()}


def model_of(
    text: str,
    held: dict[str, np.ndarray],
    inputs: str,
    outputs: str,
    functions: str = "",
    also: str = "",
) -> Any:
    """text: nodes, as `onnx.parser` reads them. inputs, outputs: "float[T,B,5] x". functions: of
    the model. also: other domains of operators."""
    imports = f'"" : {OPSET}{also}'
    written = f"<ir_version: 8, opset_import: [{imports}]> g ({inputs}) => ({outputs})"
    model = onnx.parser.parse_model(written + "{" + text + "}" + functions)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in held.items())
    return model


def axes(*values: int) -> np.ndarray:
    return np.array(values, "i8")


def tagger() -> Any:
    """Both directions, a layer of them on another, every step's classes."""
    held = arrays(1, A=(5, 7), a=(7,), W=(2, 24, 7), R=(2, 24, 6), B=(2, 48), W2=(8, 12))
    held |= arrays(2, W2b=(4, 12), R2=(1, 12, 4), B2=(1, 24), K=(4, 3), k=(3,))
    held |= {"ones": axes(1), "shape": axes(0, 0, -1), "zero": axes(0)}
    text = """
        m = MatMul(x, A)  n = Add(m, a)  p = Relu(n)
        Y = LSTM<hidden_size = 6, direction = "bidirectional">(p, W, R, B)
        q = Transpose<perm = [0, 2, 1, 3]>(Y)  r = Reshape(q, shape)
        both = Concat<axis = 0>(W2, W2b)  w3 = Unsqueeze(both, zero)
        Y2, last = GRU<hidden_size = 4, linear_before_reset = 1>(r, w3, R2, B2)
        s = Squeeze(Y2, ones)  t = MatMul(s, K)  u = Add(t, k)  y = Softmax<axis = -1>(u)
    """
    return model_of(text, held, "float[T,B,5] x", "float[T,B,3] y, float[1,B,4] last")


def streamed() -> Any:
    """Batch first, states of zeros made of the input's shape, the last step's score."""
    held = arrays(3, W=(1, 12, 5), R=(1, 12, 3), B=(1, 24), W2=(1, 4, 3), R2=(1, 4, 4))
    held |= arrays(4, K=(4, 2), k=(2,), scale=(4,), shift=(4,))
    held |= {"one": axes(1), "nought": axes(0), "four": axes(4), "last": np.array(-1, "i8")}
    text = """
        x1 = Transpose<perm = [1, 0, 2]>(x)
        sizes = Shape(x)  rows = Slice(sizes, nought, one)
        shape = Concat<axis = 0>(one, rows, four)
        h0 = ConstantOfShape(shape)
        Y = LSTM<hidden_size = 3>(x1, W, R, B)
        z = Squeeze(Y, one)
        Y2, h = RNN<hidden_size = 4>(z, W2, R2, "", "", h0)
        s = Squeeze(Y2, one)  n = LayerNormalization<axis = -1>(s, scale, shift)
        t = MatMul(n, K)  u = Add(t, k)  e = Sigmoid(u)  y = Transpose<perm = [1, 0, 2]>(e)
        final = Gather<axis = 0>(e, last)
    """
    return model_of(text, held, "float[B,T,5] x", "float[B,T,2] y, float[B,2] final")
