"""Models as people write them, converted: the same losses, step after step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import rnncc.torch as ours  # noqa: E402
from tests.support.models.torch_models import Tagger, WordModel, batches, step  # noqa: E402

STEPS, WORDS, TAGS = 50, 23, 5
MODELS: dict[str, Any] = {
    "words, packed": lambda: WordModel(WORDS, 11),
    "words, padded": lambda: WordModel(WORDS, 11, packed=False),
    "tagger, CRF": lambda: Tagger(WORDS, TAGS, 7, 11),
    "tagger, softmax, padded": lambda: Tagger(WORDS, TAGS, 7, 11, packed=False, crf=False),
}


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """On one thread: so small operations wait for others for longer than they take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def losses(convert: bool, name: str, dtype: Any) -> tuple[list[float], Any]:
    """Of every step, from the same seeds: dropout draws what torch's layers draw."""
    torch.manual_seed(5)
    model = MODELS[name]().to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), 0.05)
    if convert:
        ours.convert(model, inplace=True)
    tagged = TAGS if name.startswith("tagger") else 0
    given = batches(4, 6, WORDS, tagged, short="padded" not in name)
    torch.manual_seed(6)
    return [float(step(model, optimizer, next(given))) for _ in range(STEPS)], model


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *[(name, "float64") for name in MODELS],
        ("words, packed", "float32"),
        ("tagger, CRF", "float32"),
    ],
)
def test_the_same_losses(name: str, dtype: str) -> None:
    torch_dtype = getattr(torch, dtype)
    right, theirs = losses(False, name, torch_dtype)
    found, own = losses(True, name, torch_dtype)
    assert min(right[-5:]) < 0.9 * right[0]  # it learns
    apart = max(abs(a - b) for a, b in zip(found, right, strict=True))
    assert apart <= (1e-9 if dtype == "float64" else 1e-4)
    assert "1 of 1" in str(ours.converted(own))
    # The file of one trained here goes on there, bit for bit, and the other way round.
    trained = {n: t.clone() for n, t in own.state_dict().items()}
    theirs.load_state_dict(trained)
    own.load_state_dict(theirs.state_dict())
    assert all(torch.equal(t, trained[n]) for n, t in own.state_dict().items())
