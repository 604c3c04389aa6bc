"""Pages nobody may touch, before and behind every array a call reads or writes.

Inputs, contexts, weights, masks, states, cotangents, results, residuals, workspaces and packed rows
lie against a page without permissions, at their begin or at their end, so that a kernel that steps
one element out dies. What comes back must have the bits of the same call on ordinary arrays.
Alternately, free memory of the guarded pool holds NaN: what is read before it is written shows.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from rnncc import compiler
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.layer_options import read_off
from rnncc.runtime.api.validation import array_shape
from rnncc.runtime.common import memory_pool
from tests.attack import Attack
from tests.attack.forked import in_child
from tests.support import cases

CELLS = (
    "lstm",
    "gru",
    "layer_norm_lstm",
    "delays",
    "matrix_memory",
    "noise",
    "two_inputs",
    "context_attention",
)
PACKED = ("LSTM", "GRU", "RNN")  # of torch
PAGE = mmap.PAGESIZE
WORST = 0xFF  # bytes of NaN, of any float


class Guarded:
    """Arrays against pages without permissions. at_end: the page is behind them."""

    def __init__(self, at_end: bool) -> None:
        self.at_end = at_end
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._kept: list[mmap.mmap] = []

    def bytes_(self, size: int) -> np.ndarray:
        inner = -(-max(size, 1) // PAGE) * PAGE
        pages = mmap.mmap(-1, inner + 2 * PAGE)
        self._kept.append(pages)
        whole = np.frombuffer(pages, np.uint8)
        start = whole.ctypes.data
        for at in (start, start + PAGE + inner):
            if self._libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(PAGE), 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        begin = PAGE + inner - size if self.at_end else PAGE
        whole[PAGE : PAGE + inner] = WORST
        return whole[begin : begin + size]

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        dtype = np.dtype(dtype)
        return self.bytes_(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)

    def copy(self, array: np.ndarray) -> np.ndarray:
        new = self.empty(array.shape, array.dtype)
        new[...] = array
        return new

    # ---- as `memory_pool.Pool` -------------------------------------------------------------

    def take(self, size: int) -> np.ndarray:
        # Workspaces begin at whole cache lines; what the runtime asks for is a number of those.
        return self.bytes_(-(-max(size, 1) // memory_pool.ALIGNMENT) * memory_pool.ALIGNMENT)

    def give(self, workspace: np.ndarray) -> None:
        workspace[...] = WORST

    def lease(self, size: int) -> memory_pool.Lease:
        return memory_pool.Lease(self.take(size), self)  # type: ignore[arg-type]

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self.empty(shape, dtype)

    @contextmanager
    def borrow(self, size: int) -> Iterator[np.ndarray]:
        workspace = self.take(size)
        yield workspace
        self.give(workspace)


@cache
def layer_class(name: str, dtype: str) -> type[Layer]:
    return compiler.layer_class(cases.spec_of(name), "cpu", dtype)


class Trial:
    """One call with everything it takes, drawn from a seed."""

    def __init__(self, rng: np.random.Generator) -> None:
        name, self.dtype = str(rng.choice(CELLS)), str(rng.choice(["float32", "float64"]))
        spec = cases.spec_of(name)
        kind = layer_class(name, self.dtype)
        units, features = (int(rng.integers(1, 36)) for _ in range(2))
        self.batch = int(rng.choice([1, 2, 3, 5, 7, 13, 31]))
        self.time = int(rng.integers(1, 8))
        sizes = cases.sizes_for(spec, units, features)
        cell = kind.maker.cell
        told = read_off(cell)
        self.options: dict[str, Any] = {n: v for n, v in sizes.items() if n not in told}
        if rng.random() < 0.7:
            self.options["return_sequences"] = True
        for option in ("return_state", "go_backwards", "time_major", "zero_output_for_mask"):
            if rng.random() < 0.3:
                self.options[option] = True
        if rng.random() < 0.3:
            self.options["checkpoint_every"] = int(rng.integers(1, 4))
        self.options |= {r.name: 0.3 for r in cell.rates if rng.random() < 0.5}
        self.kind, self.name = kind, name
        arrays = [(a, True) for a in cell.inputs] + [(a, False) for a in cell.contexts]
        major = "time_major" in self.options
        lead = (self.time, self.batch) if major else (self.batch, self.time)
        self.inputs = tuple(
            cases.draw(rng, (*(lead if timed else (self.batch,)), *array_shape(a, sizes)))
            for a, timed in arrays
        )
        self.mask = rng.random((self.batch, self.time)) < 0.7 if rng.random() < 0.4 else None
        self.states = (
            tuple(cases.draw(rng, (self.batch, *array_shape(s, sizes)), True) for s in cell.states)
            if rng.random() < 0.5
            else None
        )
        self.training = bool(rng.random() < 0.5)
        self.twice = bool(rng.random() < 0.25)
        self.storage = str(rng.choice(["bfloat16", "int8"])) if rng.random() < 0.15 else None
        self.seed = int(rng.integers(2**31))

    def __str__(self) -> str:
        return (
            f"{self.name} {self.dtype} {self.options} batch {self.batch}, time {self.time}, "
            f"mask {self.mask is not None}, states {self.states is not None}, "
            f"training {self.training}, second derivatives {self.twice}, weights {self.storage}"
        )

    def run(self, place: Guarded | None) -> list[np.ndarray]:
        """All that a call, its pullback and that one's give, in order. place: of the arrays."""

        def put(array: np.ndarray) -> np.ndarray:
            array = array if array.dtype == bool else array.astype(self.dtype)
            return place.copy(array) if place else array

        narrow = {"weights": self.storage} if self.storage and self.dtype == "float32" else {}
        layer = self.kind(**self.options, **narrow, seed=3)
        inputs = tuple(put(a) for a in self.inputs)
        given = inputs if len(inputs) > 1 else inputs[0]
        asked: dict[str, Any] = {"seed": 7}
        if self.mask is not None:
            asked["mask"] = put(self.mask)
        if self.states is not None:
            asked["initial_state"] = tuple(put(a) for a in self.states)
        layer.build(tuple(a.shape for a in inputs) if len(inputs) > 1 else inputs[0].shape)
        store = layer._store
        assert store is not None
        if place:  # where the layer itself would keep them
            store.current = (store.current[0], {n: put(a) for n, a in store.arrays.items()})
        found = flat(layer(given, training=self.training, **asked))
        y, pullback = layer.vjp(given, training=self.training, **asked)
        found += flat(y)
        rng = np.random.default_rng(self.seed)
        dy = like(y, lambda a: put(cases.draw(rng, a.shape)))
        gradients = pullback(dy)
        found += all_of(gradients)
        if self.twice:
            gradients, again = pullback.vjp(dy)
            second = again(
                {"weights": {n: put(np.ones_like(a)) for n, a in gradients.weights.items()}}
            )
            found += all_of(second) + flat(second.dy)
        return [np.array(a) for a in found]


def flat(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    return [a for part in value or () for a in flat(part)]


def like(value: Any, make: Any) -> Any:
    return tuple(like(v, make) for v in value) if isinstance(value, tuple) else make(value)


def all_of(gradients: Any) -> list[np.ndarray]:
    return [*flat(gradients.inputs), *gradients.weights.values(), *flat(gradients.initial_state)]


def differing(found: list[np.ndarray], right: list[np.ndarray]) -> str | None:
    if len(found) != len(right):
        return f"{len(found)} arrays, not {len(right)}"
    for i, (a, b) in enumerate(zip(found, right)):
        if a.shape != b.shape or a.tobytes() != b.tobytes():
            return f"array {i} of {len(right)} differs: {a.ravel()[:4]} and {b.ravel()[:4]}"
    return None


def packed_rows(rng: np.random.Generator, place: Guarded) -> str | None:
    """A PackedSequence of torch whose rows, weights and gradients lie against the pages."""
    import torch
    from torch.nn.utils.rnn import PackedSequence, pack_sequence

    import rnncc.torch

    kind = str(rng.choice(PACKED))
    features, units = (int(rng.integers(1, 36)) for _ in range(2))
    body = getattr(rnncc.torch, kind)(features, units)
    rows = [
        torch.from_numpy(cases.draw(rng, (int(n), features)).astype("float32"))
        for n in rng.integers(1, 7, size=int(rng.integers(1, 6)))
    ]
    plain = pack_sequence(rows, enforce_sorted=False)

    def run(data: torch.Tensor) -> list[np.ndarray]:
        body.zero_grad()
        data = data.requires_grad_()
        given = PackedSequence(
            data, plain.batch_sizes, plain.sorted_indices, plain.unsorted_indices
        )
        y, _ = body(given)
        y.data.square().sum().backward()
        grads = [data.grad, *(p.grad for p in body.parameters())]
        return [t.detach().numpy().copy() for t in (y.data, *grads)]

    right = run(plain.data.clone())
    memory_pool.POOL = place  # type: ignore[assignment]
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.set_(torch.from_numpy(place.copy(parameter.numpy())))
    found = run(torch.from_numpy(place.copy(plain.data.numpy())))
    wrong = differing(found, right)
    return wrong and f"{kind}({features}, {units}) of packed rows: {wrong}"


def attempt(index: int, seed: int) -> str | None:
    rng = np.random.default_rng([seed, index])
    place = Guarded(at_end=bool(index % 2))
    if index % 10 == 9:
        return in_child(lambda: packed_rows(rng, place))
    trial = Trial(rng)

    def work() -> str | None:
        right = trial.run(None)
        memory_pool.POOL = place  # type: ignore[assignment]
        wrong = differing(trial.run(place), right)
        return wrong and f"{trial}: {wrong}"

    finding = in_child(work, seconds=300)
    return finding and f"{trial}\n{finding}"


ATTACK = Attack(
    name="guard",
    about="no byte before or behind an array is read or written",
    count=1000,
    short=3,
    attempt=attempt,
)
