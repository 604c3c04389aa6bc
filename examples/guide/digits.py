"""Handwritten digits, read row by row: a built-in layer, a cell, and a cell of your own.

    KERAS_BACKEND=torch python examples/guide/digits.py [--epochs 1] [--mnist FILE_OR_FOLDER]
        [--picture digits.png]

The images are scikit-learn's 1,797 scans of 8 x 8. MNIST (28 x 28) is used where you have it:
--mnist, or MNIST in the environment, names an mnist.npz or a folder with the four IDX files.
"""

import argparse
import os
import sys
from pathlib import Path

import keras
import numpy as np

from rnncc.keras import LSTM, RNN, LSTMCell

sys.path.insert(0, str(Path(__file__).parent.parent))
EQUATIONS = Path(__file__).parent.parent / "coupled_peephole.rnn"
BATCH, UNITS, CLASSES = 64, 64, 10


def images(where: str | None) -> tuple[np.ndarray, ...]:
    """Images [n, rows, columns] in 0 ... 1 and labels, to train on and held out."""
    if where is None:
        from sklearn.datasets import load_digits

        data = load_digits()
        order = np.random.default_rng(0).permutation(len(data.target))
        pixels, labels = (data.images[order] / 16).astype("float32"), data.target[order]
        return pixels[:1437], labels[:1437], pixels[1437:], labels[1437:]
    if Path(where).is_file():
        with np.load(where) as data:
            parts = [data[n] for n in ("x_train", "y_train", "x_test", "y_test")]
        return tuple((p / 255).astype("float32") if p.ndim == 3 else p for p in parts)
    from digits import mnist  # examples/digits.py reads IDX files

    found = mnist(Path(where))
    return found.train_x, found.train_y, found.test_x, found.test_y


def classifier(layer: keras.layers.Layer, shape: tuple[int, ...]) -> keras.Model:
    """Rows are time steps; what the layer holds after the last row tells the digit."""
    model = keras.Sequential(
        [
            keras.Input(shape),
            layer,
            keras.layers.BatchNormalization(),
            keras.layers.Dense(CLASSES),
        ]
    )
    model.compile(
        optimizer="sgd",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--mnist", default=os.environ.get("MNIST"), metavar="FILE_OR_FOLDER")
    parser.add_argument("--picture", type=Path, default=Path("digits.png"))
    given = parser.parse_args()
    x, y, held_x, held_y = images(given.mnist)
    keras.utils.set_random_seed(1)

    # The layer, a layer of its cell, and a layer of a cell that is compiled from its equations
    # take the same time.
    bodies = {
        "LSTM": LSTM(UNITS),
        "RNN(LSTMCell)": RNN(LSTMCell(UNITS)),
        EQUATIONS.name: RNN(EQUATIONS, units=UNITS),
    }
    models = {}
    for name, body in bodies.items():
        print(f"\n{name}")
        models[name] = model = classifier(body, x.shape[1:])
        history = model.fit(
            x,
            y,
            validation_data=(held_x, held_y),
            batch_size=BATCH,
            epochs=given.epochs,
            verbose=2,
        )
        assert np.isfinite(history.history["loss"]).all()

    # The weights of one model in another.
    trained, other = models["LSTM"], models["RNN(LSTMCell)"]
    other.set_weights(trained.get_weights())
    np.testing.assert_array_equal(
        trained.predict(held_x, batch_size=BATCH, verbose=0),
        other.predict(held_x, batch_size=BATCH, verbose=0),
    )

    # One sample, read by the model, and its picture beside what was read.
    sample = held_x[:1]
    read = int(other.predict_on_batch(sample).argmax(-1)[0])
    print(f"\nread {read}, it is {held_y[0]}")
    save(sample[0], read, int(held_y[0]), given.picture)


def save(image: np.ndarray, read: int, label: int, path: Path) -> None:
    """The image, titled with what was read in it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: it needs matplotlib (pip install matplotlib)", file=sys.stderr)
        return
    figure = Figure(figsize=(3, 3.3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(image, cmap="gray_r")
    axes.set_axis_off()
    axes.set_title(f"read {read}, is {label}")
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
