"""Documents that say what a model is, damaged where it hurts: a Model, or one FileError.

Amplifiers, Keras's configurations, manifests of saved folders: values are put elsewhere, taken out,
doubled, or become what nobody expects. A finding: another exception, or more than 2 s of the
processor, or 300 MB.
"""

from __future__ import annotations

import copy
import functools
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import rnncc
from rnncc.files import FileError, Tensors
from rnncc.models import Model, Port, Wired
from rnncc.models.plain import Dense, Embedding
from rnncc.models.readers.amplifiers import read_amplifier
from rnncc.models.readers.keras_model import read_keras_model
from rnncc.models.recurrent import Recurrent
from tests.attack import Attack
from tests.attack.files import Peak, processor_time
from tests.attack.models.documents import (
    CHAIN,
    GRAPH,
    GRAPH_SHAPES,
    NAM,
    PROTEUS,
    RTNEURAL,
    SHAPES,
    arrays,
)

SECONDS, BYTES = 2.0, 300 * 2**20
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, -(2**63), 10**30, 0.5, 1e308, float("nan"),
    float("inf"), "", "x", "../../etc/passwd", "os.system", "LSTM", "tanh", "lambda v: v / 0",
    "\0", "a" * 10_000, [], [[]], [None], [0], [1, 2, 3], [-1], [10**9] * 8, {}, {"a": 1},
    {"class_name": "LSTM", "config": {}}, {"class_name": "Lambda", "config": {"f": "import os"}},
]  # fmt: skip


def keras(document: Any, shapes: dict[str, list[tuple[int, ...]]]) -> Model:
    about = {"config": document, "metadata": {"keras_version": "3.15.1"}}
    return read_keras_model(Tensors("m.keras", "keras", arrays(shapes), about))


@functools.cache
def folder() -> Path:
    """A saved model; its folder stays until the process ends."""
    layer = rnncc.compile("gru")(units=3, return_sequences=True, seed=1)
    layer.build((None, None, 3))
    parts = [Embedding("e", np.ones((5, 3), "f")), Recurrent("r", layer, [np.ones((1, 3), "f")])]
    parts += [Dense("d", np.ones((3, 2), "f"), None, "elu")]
    nodes = [Wired(p, (f"v{i}",), (f"v{i + 1}",)) for i, p in enumerate(parts)]
    ports = [Port("v0", ("batch", "time"), "int32")], [Port("v3", ("batch", "time", 2))]
    made = Path(tempfile.mkdtemp()) / "model"
    Model(*ports, nodes).save(made)
    return made


def saved(document: Any) -> Model:
    with tempfile.TemporaryDirectory() as place:
        changed = Path(place) / "model"
        shutil.copytree(folder(), changed)
        (changed / "model.json").write_text(json.dumps(document))
        return rnncc.load_model(changed)


READERS: dict[str, Any] = {
    "chain of Keras": (lambda: CHAIN, lambda d: keras(d, SHAPES)),
    "graph of Keras": (lambda: GRAPH, lambda d: keras(d, GRAPH_SHAPES)),
    "nam": (lambda: NAM, lambda d: read_amplifier(d, "a.nam")),
    "rtneural": (lambda: RTNEURAL, lambda d: read_amplifier(d, "a.json")),
    "proteus": (lambda: PROTEUS, lambda d: read_amplifier(d, "p.json")),
    "folder": (lambda: json.loads((folder() / "model.json").read_text()), saved),
}


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of all values within; of long lists of numbers the first."""
    pairs: Any = ()
    if isinstance(document, dict):
        pairs = document.items()
    elif isinstance(document, list):
        pairs = list(enumerate(document))[:8]
    found = [(*path, key) for key, _ in pairs]
    return found + [p for key, inner in pairs for p in places(inner, (*path, key))]


def damaged(document: Any, rng: np.random.Generator) -> Any:
    """In one to three places."""
    whole = copy.deepcopy(document)
    for _ in range(int(rng.integers(1, 4))):
        known = places(whole)
        if not known:
            break
        *before, last = known[int(rng.integers(len(known)))]
        inner = functools.reduce(lambda d, key: d[key], before, whole)
        match int(rng.integers(6)):
            case 0:
                del inner[last]
            case 1 if isinstance(inner, list):
                inner.insert(last, copy.deepcopy(inner[last]))
            case 2:
                path = known[int(rng.integers(len(known)))]
                other = functools.reduce(lambda d, key: d[key], path, whole)
                inner[last] = copy.deepcopy(other)
            case 3 if isinstance(inner[last], int | float):
                inner[last] = inner[last] * 2 + 1
            case _:
                inner[last] = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    return whole


def attempt(index: int, seed: int) -> str | None:
    name = list(READERS)[index % len(READERS)]
    original, reader = READERS[name]
    document = damaged(original(), np.random.default_rng([seed, index]))
    began, peak = processor_time(), Peak()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = reader(document)
        model.summary(lambda text: None)
    except FileError as error:
        if len(str(error)) > 2000:
            return f"{name}: a message of {len(str(error))} letters: {error!s:.300}"
    except BaseException as error:
        return f"{name}: {type(error).__name__}: {error!s:.300}"
    took, risen = processor_time() - began, peak.risen()
    if took > SECONDS:
        return f"{name}: {took:.1f} s of the processor"
    return f"{name}: {risen / 2**20:.0f} MB" if risen > BYTES else None


ATTACK = Attack(
    "models", "documents that say what a model is, damaged where it hurts", 12_000, 60, attempt
)
