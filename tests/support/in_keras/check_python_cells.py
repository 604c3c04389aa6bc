"""Cells written in Python, as Keras's RNN takes them: read, compiled, and the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from rnncc import keras as own
from rnncc import oracle
from rnncc.compiler import check_text
from tests.support.in_keras.helpers import (
    BACKEND,
    MASK,
    WHOLE,
    X,
    assert_close,
    compare_gradients,
    model_of,
    numbers,
    uniform,
    whole,
)


@keras.saving.register_keras_serializable("checks")
class Minimal(layers.Layer):
    """The guide's."""

    def __init__(self, units: int, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.units = self.state_size = units

    def build(self, input_shape: Any) -> None:
        shapes = {"kernel": (input_shape[-1], self.units), "recurrent_kernel": (self.units,) * 2}
        for name, shape in shapes.items():
            weight = self.add_weight(shape=shape, initializer="uniform", name=name)
            setattr(self, name, weight)
        self.built = True

    def call(self, inputs: Any, states: Any) -> Any:
        h = ops.matmul(inputs, self.kernel)
        output = h + ops.matmul(states[0], self.recurrent_kernel)
        return output, [output]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("checks")
class Gated(layers.Layer):
    """Layers inside, slices, a norm, a constant, dropout, an output of its own."""

    def __init__(self, units: int, rate: float = 0.0, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.units, self.rate, self.state_size = units, rate, [units, units]
        self.output_size = 3
        self.gates = layers.Dense(4 * units)
        self.norm = layers.LayerNormalization(epsilon=1e-3)
        self.drop = layers.Dropout(rate)
        self.shown = [layers.Dense(3, activation="mish", use_bias=False)]

    def build(self, input_shape: Any) -> None:
        n = self.units
        self.scale = self.add_weight(shape=(1, n), initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(n,), initializer="ones", trainable=False, name="shift")
        self.gates.build((None, input_shape[-1] + n))
        self.norm.build((None, n))
        self.shown[0].build((None, n))
        self.built = True

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        h, c = states
        n = self.units
        z = self.gates(ops.concatenate([inputs, h], axis=-1))
        i, f = ops.sigmoid(z[:, :n]), ops.sigmoid(z[:, n : 2 * n] + 1.0)
        g, o = ops.split(z[..., 2 * n :], 2, axis=-1)
        c = self.norm(f * c + i * ops.tanh(g))
        h = self.scale * ops.sigmoid(o) * ops.where(c > self.shift, ops.tanh(c), 0.1 * c)
        y = self.shown[0](self.drop(h, training=training))
        return y - 0.5 * ops.mean(y, axis=-1, keepdims=True), [h, c]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "rate": self.rate}


class Nested(layers.Layer):
    """The guide's: two inputs, two states, two outputs."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.state_size = [5, (6, 7)]
        self.output_size = [5, (6, 7)]

    def build(self, input_shapes: Any) -> None:
        (_, i1), (_, i2, i3) = input_shapes
        self.kernel_1 = self.add_weight(shape=(i1, 5), initializer="uniform", name="kernel_1")
        self.kernel_2_3 = self.add_weight(
            shape=(i2, i3, 6, 7), initializer="uniform", name="kernel_2_3"
        )

    def call(self, inputs: Any, states: Any) -> Any:
        input_1, input_2 = inputs
        s1, s2 = states
        output_1 = ops.matmul(input_1, self.kernel_1) + s1
        output_2 = ops.einsum("bij,ijkl->bkl", input_2, self.kernel_2_3) + s2
        return (output_1, output_2), (output_1, output_2)


CELLS = {
    "minimal": lambda: Minimal(5),
    "gated": lambda: Gated(5),
    "as wide as its input": lambda: Gated(4),
    "Keras's LSTM": lambda: layers.LSTMCell(5, recurrent_initializer="glorot_uniform"),
    "Keras's GRU": lambda: layers.GRUCell(5, activation="relu"),
    "Keras's GRU, the paper's": lambda: layers.GRUCell(5, reset_after=False),
    "Keras's SimpleRNN": lambda: layers.SimpleRNNCell(5, use_bias=False),
}


def built(name: str, **keywords: Any) -> tuple[Any, Any]:
    """Keras's RNN and ours over one and the same cell."""
    cell = CELLS[name]()
    theirs, mine = layers.RNN(cell, **keywords), own.RNN(cell, **keywords)
    theirs(X)
    draw = np.random.default_rng(1)
    theirs.set_weights([draw.uniform(-0.8, 0.8, w.shape).astype("float32") for w in theirs.weights])
    return theirs, mine


def interpreted(mine: Any, x: np.ndarray) -> np.ndarray:
    """What the interpreter makes of the equations that were read, in float64."""
    cell = mine.cell
    layer = oracle.layer_class(check_text(cell.equations))(
        return_sequences=True, **cell.own_sizes()
    )
    layer(x.astype("float64"))
    layer.set_weights([numbers(v)[0] for v in cell.own_variables().values()])
    return layer(x.astype("float64"))


@pytest.mark.parametrize("name", CELLS if WHOLE else ["gated"])
def test_read(name: str) -> None:
    theirs, mine = built(name, return_sequences=True)
    mine.build(X.shape)
    np.testing.assert_allclose(interpreted(mine, X), numbers(theirs(X))[0], atol=1e-5)


@pytest.mark.parametrize("name", ["gated", "minimal", "Keras's LSTM"][: 1 + 2 * WHOLE])
def test_same_as_keras(name: str) -> None:
    theirs, mine = built(name, return_sequences=True, return_state=True)
    assert_close(mine(X), theirs(X))
    if BACKEND != "jax" or name != "gated":  # Keras's RNN: outputs as wide as the first state
        assert_close(mine(X, mask=MASK), theirs(X, mask=MASK))
    assert [w.path for w in mine.weights] and len(mine.weights) == len(theirs.weights)
    compare_gradients(theirs, mine, X)
    assert "generated" in mine.plan()


def test_equations() -> None:
    _, mine = built("gated")
    mine.build(X.shape)
    text = mine.cell.equations
    for line in (
        "gates_kernel: weight[features + units, 4 * units]",
        "shift: constant[units]",
        "shown_0_kernel: weight[units, 3]",
        "z = concat(x[t], h_1[t-1]) @ gates_kernel + gates_bias",
    ):
        assert line in text.splitlines(), text


@whole
@pytest.mark.parametrize(("units", "features"), [(1, 1), (1, 3), (5, 1), (2, 8)])
def test_sizes(units: int, features: int) -> None:
    cell, x = Gated(units), uniform(2, 3, features)
    theirs, mine = layers.RNN(cell, return_sequences=True), own.RNN(cell, return_sequences=True)
    expected = numbers(theirs(x))[0]
    mine.build(x.shape)
    np.testing.assert_allclose(interpreted(mine, x), expected, atol=1e-5)


def test_frozen_layers_can_be_trained_later() -> None:
    layer = own.RNN(Minimal(5))
    layer.trainable = False
    model = model_of(layer, layers.Dense(1))
    model.compile("sgd", "mse")
    model.fit(X, uniform(3, 1), verbose=0)
    layer.trainable = True
    model.compile("sgd", "mse")
    before = numbers(layer.weights)
    model.fit(X, uniform(3, 1), verbose=0)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, numbers(layer.weights)))


@whole
def test_options() -> None:
    theirs, mine = built("gated", go_backwards=True, return_sequences=True)
    assert_close(mine(X), theirs(X))
    h, c = uniform(3, 5, seed=3), uniform(3, 5, seed=4)
    assert_close(mine(X, initial_state=[h, c]), theirs(X, initial_state=[h, c]))
    cell = Minimal(5)
    theirs = layers.RNN(cell, stateful=True)
    mine = own.RNN(cell, stateful=True)
    for _ in range(3):
        assert_close(mine(X), theirs(X))
    mine.reset_state()
    theirs.reset_state()
    assert_close(mine(X), theirs(X))


@whole
def test_stacks_and_both_directions() -> None:
    cells = [Minimal(5), layers.GRUCell(6), Minimal(6)]
    theirs = layers.RNN(layers.StackedRNNCells(cells), return_sequences=True)
    theirs(X)
    for mine in (
        own.RNN(cells, return_sequences=True),
        own.RNN(layers.StackedRNNCells(cells), return_sequences=True),
        own.RNN(own.StackedRNNCells(cells), return_sequences=True),
    ):
        assert mine.compute_output_shape((3, 7, 4)) == (3, 7, 6)
        assert_close(mine(X), theirs(X))
        assert mine.state_size == [5, 6, 6]
    mixed = own.RNN([Minimal(5), own.LSTMCell(6)])
    assert mixed(X).shape == (3, 6)
    both = own.Bidirectional(own.RNN(Minimal(5), return_sequences=True))
    other = layers.Bidirectional(layers.RNN(Minimal(5), return_sequences=True))
    assert both(X).shape == other(X).shape == (3, 7, 10)
    both.set_weights(other.get_weights())
    assert_close(both(X, mask=MASK), other(X, mask=MASK))


@whole
def test_nested() -> None:
    layer = own.RNN(Nested(), return_sequences=True, return_state=True)
    a, b = uniform(3, 7, 4), uniform(3, 7, 2, 3, seed=1)
    (y1, y2), _, s2 = layer((a, b))
    k1, k2 = (numbers(w)[0] for w in layer.weights)
    np.testing.assert_allclose(numbers(y1)[0], np.cumsum(a @ k1, 1), atol=1e-5)
    expected = np.cumsum(np.einsum("btij,ijkl->btkl", b, k2), 1)
    np.testing.assert_allclose(numbers(y2)[0], expected, atol=1e-5)
    np.testing.assert_allclose(numbers(s2)[0], expected[:, -1], atol=1e-5)
    assert layer.compute_output_shape(((3, 7, 4), (3, 7, 2, 3)))[0][1] == (3, 7, 6, 7)
    inputs = keras.Input((None, 4)), keras.Input((None, 2, 3))
    model = keras.Model(inputs, own.RNN(Nested())(inputs))
    model.compile("sgd", "mse")
    model.fit((a, b), (uniform(3, 5), uniform(3, 6, 7)), verbose=0)


def test_fit_and_file(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = model_of(own.RNN(Gated(5, rate=0.4)), layers.Dense(1))
    other = model_of(layers.RNN(Gated(5)), layers.Dense(1))
    other.set_weights(model.get_weights())
    assert_close(model.predict(X, verbose=0), other.predict(X, verbose=0))
    model.compile("adam", "mse")
    model.fit(X, uniform(3, 1), epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert_close(again.predict(X, verbose=0), model.predict(X, verbose=0))
    assert again.layers[0].cell.cell.rate == 0.4
    assert again.count_params() == model.count_params()


def test_dropout_inside_draws_when_training() -> None:
    layer = own.RNN(Gated(5, rate=0.5), return_sequences=True)
    assert_close(layer(X), layer(X))
    assert "drop(" in layer.cell.equations and layer.cell.generators()
    first, second = (numbers(layer(X, training=True))[0] for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


def test_dropout_inside_of_a_cell_that_says_nothing_of_training() -> None:
    cell = cell_of(with_h(lambda s, x, h: s.inner(x) + h), inner=layers.Dropout(0.5))
    layer = own.RNN(cell, return_sequences=True)
    assert_close(layer(X), np.cumsum(X, axis=1))
    drawn = numbers(layer(X, training=True))[0]
    steps = np.diff(drawn, axis=1, prepend=0)
    assert np.minimum(np.abs(steps), np.abs(steps - 2 * X)).max() < 1e-5
    assert 0.2 < (np.abs(steps) < np.abs(X)).mean() < 0.8


@pytest.mark.parametrize("training", [False, True])
def test_a_cell_that_is_read_within_a_call_leaves_the_call_as_it_was(training: bool) -> None:
    class Outer(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.drop = own.RNN(Minimal(5)), layers.Dropout(0.5)

        def call(self, x: Any) -> Any:
            self.rnn(x)
            return self.drop(x)

    found = numbers(Outer()(X, training=training))[0]
    assert (found == 0).any() == training


class Started(Minimal):
    def get_initial_state(self, batch_size: Any = None) -> Any:
        return [ops.ones((batch_size, self.units))]


def test_a_start_of_its_own() -> None:
    cell = Started(5)
    theirs, mine = layers.RNN(cell), own.RNN(cell)
    assert_close(mine(X), theirs(X))
    assert_close(mine.get_initial_state(2), np.ones((2, 5), "float32"))
    model = model_of(own.RNN(Started(5)), layers.Dense(1))
    model.compile("sgd", "mse")
    model.fit(X, uniform(3, 1), verbose=0)


def test_mixed_policy() -> None:
    layer = own.RNN(Minimal(5, dtype="mixed_bfloat16"), dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(layer(X).dtype) == "bfloat16"
    with pytest.raises(ValueError, match=r"make them agree|jax_enable_x64"):
        own.RNN(Minimal(5, dtype="float64"))


# ---- what can't be read --------------------------------------------------------------------------


def cell_of(call: Any, size: Any = 4, **attributes: Any) -> Any:
    """A cell of four units with one weight."""

    class Odd(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.state_size = size
            for name, value in attributes.items():
                setattr(self, name, value)

        def build(self, shape: Any) -> None:
            self.w = self.add_weight(shape=(4, 4), name="w")
            self.built = True

    Odd.call = call
    return Odd()


def with_h(function: Any) -> Any:
    def call(self: Any, x: Any, states: Any) -> Any:
        h = function(self, x, states[0])
        return h, [h]

    return call


def depends(self: Any, x: Any, states: Any, training: bool = False) -> Any:
    h = ops.tanh(x) if training else x
    return h, [h]


ARRAY = np.arange(4, dtype="float32")
REFUSED = {
    "what the batch holds": (with_h(lambda s, x, h: x if float(ops.sum(x)) > 0 else h), "can't be"),
    "an operation without a word": (with_h(lambda s, x, h: ops.sort(x)), "Sort .* is an operation"),
    "rows of a batch together": (
        with_h(lambda s, x, h: x - ops.mean(x, axis=0)),
        "rows of a batch",
    ),
    "all of a batch": (with_h(lambda s, x, h: x - ops.mean(x)), "rows of a batch"),
    "the batch moved": (with_h(lambda s, x, h: ops.transpose(x) @ h), "batch"),
    "random numbers": (
        with_h(lambda s, x, h: x + keras.random.normal((), seed=s.seed)),
        "draws random numbers",
    ),
    "one result": (lambda self, x, states: x, "gives .* a cell gives"),
    "a state too few": (lambda self, x, states: (x, []), "gives 0 states and was given 1"),
    "training": (depends, "something else when training=True"),
    "training, said to a layer inside": (
        with_h(lambda s, x, h: s.inner(x) + h),
        "something else when training=True",
    ),
    "small whole numbers": (
        with_h(lambda s, x, h: ops.cast(ops.cast(x > 0, "uint8"), "float32") + h),
        r"Cast \(check_python_cells.py:\d+: .*\) counts in uint8, the cell in float32",
    ),
    "narrow floats": (
        with_h(lambda s, x, h: ops.cast(ops.cast(x, "float16"), "float32") + h),
        "Cast .* counts in float16",
    ),
    "narrower ones": (
        with_h(lambda s, x, h: ops.cast(ops.cast(x, "bfloat16"), "float32") + h),
        "Cast .* counts in bfloat16",
    ),
    "conditions added": (
        with_h(lambda s, x, h: ((x > 0) + (h > 0)) * x),
        "Add .* with cond",
    ),
    "a layer that is narrow": (
        with_h(lambda s, x, h: s.inner(x) + h),
        "float16",
    ),
    "a sum's dtype": (
        with_h(lambda s, x, h: ops.cumsum(x, axis=-1, dtype="float32") + h),
        "Cumsum .* takes dtype='float32'",
    ),
    "bounds that are arrays": (with_h(lambda s, x, h: ops.clip(x, s.w[0], 1.0)), "Clip .* takes"),
    "a loss": (
        with_h(lambda s, x, h: s.inner(x) + h),
        "add_loss",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str) -> None:
    call, message = REFUSED[what]

    class Adding(layers.Layer):
        def call(self, x: Any) -> Any:
            self.add_loss(ops.sum(x))
            return x

    seed = keras.random.SeedGenerator(3)

    class Doubling(layers.Layer):
        def call(self, x: Any, training: bool | None = None) -> Any:
            return 2 * x if training else x

    inner = layers.ReLU(dtype="float16") if "narrow" in what else Adding()
    inner = Doubling() if "inside" in what else inner
    layer = own.RNN(cell_of(call, inner=inner, seed=seed))
    with pytest.raises(TypeError, match=message) as caught:
        layer(X)
    assert "Odd" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    seed.next()  # nothing is left of what reading changes
    assert "compute_output_spec" not in vars(layer.cell.cell)


def test_what_is_no_cell() -> None:
    with pytest.raises(TypeError, match="state_size and call"):
        own.RNN(layers.Dense(3))
    with pytest.raises(TypeError, match=r"take rnncc\.keras\.LSTMCell"):
        own.RNN(layers.LSTMCell(3, dropout=0.1))
    with pytest.raises(ValueError, match="build it first"):
        _ = own.RNN(Minimal(3)).cell.equations
    with pytest.raises(ValueError, match="of known sizes"):
        own.RNN(Minimal(3)).build((2, 3, None))


def test_variables_that_come_later_are_seen() -> None:
    layer = own.RNN(Gated(5))
    layer(X)
    layer.cell.cell.gates.enable_lora(2)
    with pytest.raises(RuntimeError, match="other variables than when"):
        layer(X)


@whole
def test_a_cell_is_left_as_it_was() -> None:
    cell = Gated(5)
    own.RNN(cell)(X)
    assert isinstance(cell.scale, keras.Variable) and isinstance(cell.gates.kernel, keras.Variable)
    assert "compute_output_spec" not in {**vars(cell), **vars(cell.gates)}
    assert not cell.gates._inbound_nodes
    y, states = cell(X[:, 0], [uniform(3, 5), uniform(3, 5)])
    assert y.shape == (3, 3) and len(states) == 2


# fmt: off
WORDS = {
    "minimum": lambda s, x, h: ops.minimum(x, h) + ops.maximum(x, 0.3),
    "powers": lambda s, x, h: (-(x**2)) ** 3 + 2.0 ** h - h / (1.5 + x * x) / 2,
    "square": lambda s, x, h: ops.square(x) - ops.sqrt(ops.abs(h) + 1) * ops.rsqrt(x * x + 1),
    "exps": lambda s, x, h: ops.exp(-ops.abs(x)) + ops.log1p(h * h) + ops.expm1(x) + ops.erf(h),
    "activations": lambda s, x, h: sum(
        f(0.1 * x + 0.05 * h)
        for f in (
            ops.silu, ops.softplus, ops.softsign, ops.log_sigmoid, ops.hard_sigmoid, ops.selu,
            ops.relu6, ops.gelu, ops.leaky_relu, ops.hard_tanh, keras.activations.celu,
            keras.activations.elu, keras.activations.relu, ops.tanh_shrink, ops.squareplus,
        )
    ),
    "softmax": lambda s, x, h: ops.softmax(x) * ops.log_softmax(h, axis=-1),
    "reductions": lambda s, x, h: x
    + ops.sum(h, axis=1, keepdims=True)
    - ops.max(x, axis=-1, keepdims=True) * ops.min(x, axis=-1, keepdims=True)
    + ops.var(h, axis=-1, keepdims=True)
    + ops.std(x, axis=-1, keepdims=True),
    "a weight on the left": lambda s, x, h: s.w[0] * x + s.w[1:2] - ops.sum(s.w) * h,
    "shapes": lambda s, x, h: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 2, 2)), (0, 2, 1)) @ ops.reshape(h, (-1, 2, 2)), (-1, 4)
    ),
    "swapped": lambda s, x, h: ops.squeeze(
        ops.swapaxes(ops.expand_dims(x, -1), 1, 2) * h[:, None, :], axis=1
    ),
    "items": lambda s, x, h: ops.stack([x[:, 0], h[:, -1], x[:, 1] * h[:, 2], x[:, 3]], axis=-1),
    "unstacked": lambda s, x, h: ops.stack(ops.unstack(x, axis=1)[::-1], axis=1) + h,
    "uneven slices": lambda s, x, h: ops.concatenate(
        [x[:, :3] * h[:, 1:], s.w[2, 3:] * x[:, 3:]], 1
    ),
    "einsum": lambda s, x, h: ops.einsum("bi,ij,bj->bj", x, s.w, h),
    "conditions": lambda s, x, h: ops.where(ops.logical_and(x > h, h <= 0.2), x, -h)
    + ops.cast(x > 0, "float32"),
    "conditions as numbers": lambda s, x, h: ops.cast(ops.cast(x - 0.3, "bool"), "float32") * h
    + (x > 0) * h - ops.where(h > x, 1, 0) * x + ops.where(ops.relu(x), x, 0.5 * h)
    + ops.cast(ops.logical_or(ops.relu(x), ops.relu(h)), "float32")
    + ops.cast(ops.equal(x > 0, h > 0), "float32") + ops.mean(x > 0.1, axis=-1, keepdims=True),
    "clip and cumsum": lambda s, x, h: ops.clip(ops.cumsum(x, axis=-1), -0.5, 0.5) + h,
    "constants": lambda s, x, h: x * ops.ones_like(h) + ops.ones((4,)) * 0.5 - ops.zeros_like(x),
    "concatenated": lambda s, x, h: ops.concatenate([x, h], -1)
    @ ops.concatenate([s.w, s.w], 0),
    "sums": lambda s, x, h: ops.logsumexp(x - h, axis=-1, keepdims=True) * ops.tensordot(x, s.w, 1)
    + ops.concatenate([ops.glu(h), ops.glu(x)], -1)
    + ops.logsumexp(h, axis=-1)[:, None],
    "every other": lambda s, x, h: ops.concatenate([x[:, ::2], h[:, 1::2]], 1),
    "an array": lambda s, x, h: x * ARRAY + ops.matmul(h, np.eye(4, k=1, dtype="float32")),
    "an array that gives a shape": lambda s, x, h: h
    + ops.sum(x[:, :1] * ops.ones((4,)), axis=-1, keepdims=True),
    "heads beside the batch": lambda s, x, h: ops.reshape(
        ops.softmax(ops.reshape(x, (-1, 2)) * ops.reshape(h, (-1, 2)), axis=-1), (-1, 4)
    ),
    "kinds": lambda s, x, h: ops.where(ops.any(x > 0.5, axis=-1, keepdims=True), x, h)
    + ops.cast(ops.logical_not(ops.all(h > -0.2, axis=-1, keepdims=True)), "float32")
    + ops.cast(ops.logical_xor(x > 0, h > 0), "float32") * ops.prod(x, axis=-1, keepdims=True)
    + ops.cast(ops.where(x > 0, h > 0, x < -0.5), "float32"),
    "floats made whole": lambda s, x, h: ops.cast(ops.cast(3 * x, "int32"), "float32") + h,
    "turned": lambda s, x, h: ops.flip(x, axis=-1) + ops.roll(h, 1, axis=-1),
    "norms": lambda s, x, h: ops.rms_normalization(x + h, s.w[0])
    + ops.layer_normalization(h - 2 * x, beta=s.w[1]),
}
# fmt: on


def test_an_array_of_its_own() -> None:
    cell = cell_of(with_h(lambda s, x, h: ops.tanh(ops.matmul(x, s.w) + ops.multiply(h, ARRAY))))
    theirs, mine = layers.RNN(cell, return_sequences=True), own.RNN(cell, return_sequences=True)
    theirs(X)
    theirs.set_weights([uniform(4, 4, seed=5)])
    assert_close(mine(X), theirs(X))
    compare_gradients(theirs, mine, X)
    assert len(mine.weights) == 1 and "table: constant[units]" in mine.cell.equations
    model = model_of(mine, layers.Flatten(), layers.Dense(1))
    model.compile("sgd", "mse")
    model.fit(X, uniform(3, 1), verbose=0)


@whole
@pytest.mark.parametrize("what", WORDS)
def test_words(what: str) -> None:
    cell = cell_of(with_h(WORDS[what]))
    theirs, mine = layers.RNN(cell, return_sequences=True), own.RNN(cell, return_sequences=True)
    x = X[:, :3]
    theirs(x)
    theirs.set_weights([uniform(4, 4, seed=5)])
    mine.build(x.shape)
    np.testing.assert_allclose(interpreted(mine, x), numbers(theirs(x))[0], atol=2e-5)
