"""Options at which a library of ready-made kernels has to leave them. Here there is no such list.

    KERAS_BACKEND=torch python examples/guide/always_fast.py

In TensorFlow the fused kernel is lost with another activation, with recurrent_dropout, unrolled,
without bias, and with masks that aren't right-padded. Here each of these is compiled into the same
kind of kernels; plan() says what ran.
"""

import keras
import numpy as np

from rnncc.keras import LSTM

rng = np.random.default_rng(0)
x = rng.standard_normal((16, 12, 8)).astype("float32")
y = rng.integers(0, 2, 16)
holes = rng.random((16, 12)) < 0.7  # steps that count, in any pattern

for options in (
    {},
    {"activation": "relu"},
    {"recurrent_activation": "hard_sigmoid"},
    {"activation": "lambda v: v / (1 + abs(v))"},
    {"recurrent_dropout": 0.3},
    {"unroll": True},
    {"use_bias": False},
):
    layer = LSTM(16, **options)
    inputs, mask = keras.Input((12, 8)), keras.Input((12,), dtype="bool")
    model = keras.Model([inputs, mask], keras.layers.Dense(2)(layer(inputs, mask=mask)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit([x, holes], y, verbose=0)
    plan = layer.plan()
    assert "1 level a step" in plan  # one pass over the step, forwards and backwards
    print(options or "defaults", "->", plan.splitlines()[-1].strip())
