"""rnncc.torch against torch: random calls of our modules and random derivatives of them, each held
against torch.nn's module, or a loop in torch, with the same weights.

A scene is a pair of modules in float64 and a few turns. A turn draws how many rows and steps there
are, how the input lies in memory, which weights are frozen, how the module is called (packed, with
states, lengths, without a batch) and what is differentiated. Both sides get the same numbers; where
ours goes through checkpoints, hooks, vectorized Jacobians or what else should change nothing, the
other side takes the plain way.

Right to 1e-9, or refused by one of REFUSALS; a refusal leaves the module as it was for later turns.

Non-Goals: bits and float32 (the suite); dropout, whose masks the other side can't have; graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.attack import Attack

torch = pytest.importorskip("torch")

from torch.autograd import functional  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import rnncc  # noqa: E402
import rnncc.torch as ours  # noqa: E402
from tests.support.begun import TEXT  # noqa: E402

DOUBLE = {"dtype": torch.float64}
FEATURES, UNITS = 3, 3  # alike, so that outputs may be inputs
REFUSALS = (
    "third derivatives of",
    "modified by an inplace operation",
    "under torch.func's transforms",
    "make them agree",
    "Inference tensors cannot be saved for backward",
)
EARLY = 40  # attempts that keep to kernels which other tests compile, too
Tensors = list[Any]  # of torch.Tensor and None
Call = Callable[..., Any]


class Loop(torch.nn.Module):
    """What TEXT computes, by torch's own operations."""

    def __init__(self, cell: Any, backwards: bool, sequences: bool, zeros: bool) -> None:
        super().__init__()
        self.backwards, self.sequences, self.zeros = backwards, sequences, zeros
        for name, weight in cell.named_parameters():
            self.register_parameter(name, torch.nn.Parameter(weight.detach().clone()))
        self.register_buffer("mu", cell.mu.clone())

    def forward(self, x: Any, *, initial_state: Any = None, lengths: Any = None) -> tuple[Any, Any]:
        h = self.h0.expand(x.shape[0], -1) if initial_state is None else initial_state
        steps, shown = [], torch.zeros_like(h)
        times = range(x.shape[1])
        counts = torch.full((len(x),), x.shape[1]) if lengths is None else torch.tensor(lengths)
        for t in reversed(times) if self.backwards else times:
            there = (t < counts)[:, None]
            h = torch.where(there, torch.tanh(x[:, t] @ self.W + h @ self.U + self.mu), h)
            # Where a step doesn't count its output is the one before, or zero.
            shown = torch.where(there, h, torch.zeros_like(h) if self.zeros else shown)
            steps.append(shown)
        # Copies: a hook on a result is none on the states behind it.
        return (torch.stack(steps, 1) if self.sequences else steps[-1].clone()), h.clone()


# ---- scenes --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Side:
    """plain: the one that is right, by the plainest way."""

    module: Any
    plain: bool
    kind: str
    batch_first: bool


def pair(rng: np.random.Generator, early: bool) -> tuple[Side, Side, str]:
    """The right side and ours, and what they are."""
    kinds = ["GRU", "RNN", "Recurrent"] if early else ["LSTM", "GRU", "RNN", "Recurrent"]
    kind = str(rng.choice(kinds))
    torch.manual_seed(int(rng.integers(1000)))
    if kind == "Recurrent":
        backwards, sequences = rng.random() < 0.3, rng.random() < 0.8
        zeros = sequences and rng.random() < 0.3
        keywords: dict[str, Any] = {
            "return_sequences": bool(sequences),
            "go_backwards": bool(backwards),
            "zero_output_for_mask": bool(zeros),
        }
        if rng.random() < 0.2:
            keywords["checkpoint_every"] = 2
        cell = rnncc.compile_text(TEXT, dtype="float64")
        own: Any = ours.Recurrent(
            cell, units=UNITS, features=FEATURES, return_state=True, **keywords
        )
        theirs: Any = Loop(own, backwards, sequences, zeros)
        first = True
    else:
        first = bool(rng.random() < 0.5)
        keywords = {"batch_first": first, "num_layers": int(rng.choice([1, 1, 2]))}
        if rng.random() < 0.3:
            keywords["bidirectional"] = True
        if not early:
            keywords["bias"] = bool(rng.random() < 0.8)
            if kind == "RNN" and rng.random() < 0.3:
                keywords["nonlinearity"] = "relu"
            if kind == "LSTM" and rng.random() < 0.3:
                keywords["proj_size"] = 2
        theirs = getattr(torch.nn, kind)(FEATURES, UNITS, **keywords, **DOUBLE)
        own = getattr(ours, kind)(FEATURES, UNITS, **keywords, **DOUBLE)
        own.load_state_dict(theirs.state_dict())
    about = f"{kind}({', '.join(f'{k}={v}' for k, v in keywords.items())})"
    return Side(theirs, True, kind, first), Side(own, False, kind, first), about


LIES: dict[str, Call] = {
    "plain": lambda x: x,
    "negated": lambda x: torch.complex(torch.zeros_like(x), -x).conj().imag,
    "of pairs": lambda x: torch.stack([x, 2 * x], -1)[..., 0],
    "real": lambda x: torch.complex(x, x).real,
    "expanded over rows": lambda x: x[:1].expand(x.shape),
    "expanded over steps": lambda x: x[:, :1].expand(x.shape),
    "expanded over features": lambda x: x[..., :1].expand(x.shape),
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "turned": lambda x: x.mT.contiguous().mT,
    "offset": lambda x: torch.cat([x, x])[len(x) :],
    "in place": lambda x: (x * 1).mul_(1.5),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """What both sides do."""

    seed: int
    batch: int
    time: int
    lies: str
    style: str
    what: str
    frozen: frozenset[int]
    lengths: list[int]
    states: bool

    @staticmethod
    def of(rng: np.random.Generator, side: Side) -> Turn:
        batch, time = int(rng.choice([1, 2, 3])), int(rng.choice([1, 2, 4]))
        styles = ["whole", "whole", "lengths" if side.kind == "Recurrent" else "packed"]
        if side.kind != "Recurrent":
            styles.append("alone")
        count = len(list(side.module.parameters()))
        frozen = rng.random(count) < float(rng.choice([0, 0, 0.3]))
        return Turn(
            int(rng.integers(2**31)),
            batch,
            time,
            str(rng.choice(list(LIES))),
            str(rng.choice(styles)),
            str(rng.choice(list(WHAT))),
            frozenset(np.flatnonzero(frozen).tolist()),
            [int(n) for n in rng.integers(1, time + 1, batch)],
            bool(rng.random() < 0.4),
        )

    def drawn(self, *shape: int, number: int = 0) -> Any:
        generator = torch.Generator().manual_seed(self.seed + number)
        return torch.randn(shape, generator=generator, **DOUBLE)

    def leaves(self, side: Side) -> Tensors:
        """The input, then states where they are given."""
        shape = (self.batch, self.time) if side.batch_first else (self.time, self.batch)
        if self.style == "alone":
            shape = (self.time,)
        found = [self.drawn(*shape, FEATURES)]
        if self.states:
            rows = () if self.style == "alone" else (self.batch,)
            if side.kind == "Recurrent":
                return [*found, self.drawn(*rows, UNITS, number=1)]
            layers = side.module.num_layers * (1 + side.module.bidirectional)
            widths = [side.module.proj_size or UNITS, UNITS]
            for number, width in enumerate(widths if side.kind == "LSTM" else widths[:1]):
                found.append(self.drawn(layers, *rows, width, number=1 + number))
        return found

    def call(self, side: Side, x: Any, *states: Any) -> Tensors:
        """Outputs, then last states."""
        module = side.module
        if self.lies in ("expanded over rows", "expanded over steps") and x.ndim == 2:
            x = LIES["plain"](x)
        else:
            x = LIES[self.lies](x)
        if side.kind == "Recurrent":
            lengths = self.lengths if self.style == "lengths" else None
            found = module(x, initial_state=states[0] if states else None, lengths=lengths)
            return [*found]
        hx = None if not states else states if side.kind == "LSTM" else states[0]
        given = x
        if self.style == "packed":
            given = pack_padded_sequence(x, self.lengths, side.batch_first, enforce_sorted=False)
        y, finals = module(given, hx)
        return [
            y.data if self.style == "packed" else y,
            *(finals if type(finals) is tuple else [finals]),
        ]


# ---- what is differentiated ----------------------------------------------------------------------


class Play:
    """A turn on one side."""

    def __init__(self, turn: Turn, side: Side) -> None:
        self.turn, self.side, self.plain = turn, side, side.plain
        self.parameters = list(side.module.parameters())
        for number, parameter in enumerate(self.parameters):
            parameter.requires_grad_(number not in turn.frozen)
            parameter.grad = None
        self.rng = np.random.default_rng(turn.seed)
        self.inputs = [t.requires_grad_() for t in turn.leaves(side)]

    def run(self) -> Tensors:
        return WHAT[self.turn.what](self)

    def call(self, *inputs: Any) -> Tensors:
        return self.turn.call(self.side, *(inputs or self.inputs))

    def like(self, tensors: Sequence[Any], number: int = 20) -> Tensors:
        return [self.turn.drawn(*t.shape, number=number + i) for i, t in enumerate(tensors)]

    def loss(self, results: Sequence[Any], power: int = 2) -> Any:
        """Of some results, as drawn from the turn's seed."""
        some = np.random.default_rng(self.turn.seed).random(len(results)) < 0.7
        some[0] |= not some.any()
        weights = self.like(results)
        chosen = zip(results, weights, some, strict=True)
        return sum((w * r**power).sum() for r, w, s in chosen if s)

    @property
    def learned(self) -> Tensors:
        return [p for p in self.parameters if p.requires_grad]

    def of_all(self) -> tuple[Call, Tensors]:
        """A function of the inputs and all weights, and where it is taken."""
        names = [n for n, _ in self.side.module.named_parameters()]
        turn, side, count = self.turn, self.side, len(self.inputs)

        class Outer(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = side.module

            def forward(self, *inputs: Any) -> Any:
                return turn.call(side, *inputs)

        outer = Outer()

        def function(*given: Any) -> Any:
            weights = {f"inner.{n}": w for n, w in zip(names, given[count:], strict=True)}
            return torch.func.functional_call(outer, weights, given[:count])

        return function, [t.detach().clone() for t in (*self.inputs, *self.parameters)]

    def grads(self, loss: Any, by: Sequence[Any], **keywords: Any) -> Tensors:
        return [*torch.autograd.grad(loss, by, allow_unused=True, **keywords)]


def backward(play: Play) -> Tensors:
    results = play.call()
    play.loss(results).backward()
    return [*results, *(t.grad for t in (*play.inputs, *play.parameters))]


def backward_by_some(play: Play) -> Tensors:
    by = [t for t in (*play.inputs, *play.learned) if play.rng.random() < 0.5] or play.inputs[:1]
    play.loss(play.call()).backward(inputs=by)
    return [t.grad for t in (*play.inputs, *play.parameters)]


def again(play: Play) -> Tensors:
    """Another cotangent through the same graph."""
    results = play.call()
    by = [*play.inputs, *play.learned]
    found = play.grads(play.loss(results), by, retain_graph=True)
    found += play.grads(play.loss(results, 3), by, retain_graph=True)
    return found + play.grads(results[-1].sum(), by)


def accumulated(play: Play) -> Tensors:
    """Two calls of other sizes before either goes back."""
    first = play.loss(play.call())
    x = play.inputs[0]
    other = torch.cat([x, x * 0.5], int(play.side.batch_first) if x.ndim == 3 else 0)
    if play.turn.style in ("packed", "lengths"):
        other = x * 0.5
    second = play.loss(play.call(other, *play.inputs[1:]), 3)
    second.backward()
    first.backward()
    return [t.grad for t in (*play.inputs, *play.parameters)]


def checkpointed(play: Play) -> Tensors:
    if play.plain:
        return backward(play)
    reentrant = bool(play.rng.random() < 0.5)
    results = checkpoint(lambda *i: tuple(play.call(*i)), *play.inputs, use_reentrant=reentrant)
    play.loss(results).backward()
    return [*results, *(t.grad for t in (*play.inputs, *play.parameters))]


def saved_elsewhere(play: Play) -> Tensors:
    if play.plain:
        return backward(play)
    kinds = {
        "cpu": torch.autograd.graph.save_on_cpu(),
        "copies": torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda t: t),
        "turned": torch.autograd.graph.saved_tensors_hooks(
            lambda t: t.mT.contiguous().mT if t.ndim > 1 else t.clone(), lambda t: t
        ),
    }
    with kinds[str(play.rng.choice(list(kinds)))]:
        results = play.call()
    play.loss(results).backward()
    return [*results, *(t.grad for t in (*play.inputs, *play.parameters))]


def hooked(play: Play) -> Tensors:
    """Hooks that change cotangents and gradients on their way. A call is one node, whose hooks
    torch hands None for a result that nothing came back to; torch.nn's results are nodes each."""

    def doubled(g: Any) -> Any:
        if g is None:
            return None
        return g.mT.contiguous().mT * 2 if g.ndim > 1 else g * 2

    handles = [play.inputs[0].register_hook(lambda g: g * 3)]
    handles += [p.register_hook(lambda g: -g) for p in play.learned[:1]]
    try:
        results = play.call()
        for r in results:
            if r.requires_grad:
                r.register_hook(doubled)
        play.loss(results).backward()
    finally:
        for handle in handles:
            handle.remove()
    return [t.grad for t in (*play.inputs, *play.parameters)]


def changed_result(play: Play) -> Tensors:
    """A result is written before it goes back: ours doesn't need it."""
    results = [r.clone() for r in play.call()] if play.plain else play.call()
    results[0].mul_(2).add_(0.1)
    play.loss(results).backward()
    return [*results, *(t.grad for t in (*play.inputs, *play.parameters))]


def changed_between(play: Play) -> Tensors:
    """A tensor that the backward needs is written: refused by both."""
    x = play.inputs[0].detach().clone()
    loss = play.loss(play.call(x, *play.inputs[1:]))
    with torch.no_grad():
        which = x if play.rng.random() < 0.3 else play.parameters[int(play.rng.integers(2))]
        which.mul_(1.25)
    return play.grads(loss, play.learned)


def written_before(play: Play) -> Tensors:
    """Weights change between calls, by torch's counters and past them."""
    kept = [p.detach().clone() for p in play.parameters]
    found: Tensors = []
    try:
        for turn in range(3):
            results = play.call()
            found += [*results, *play.grads(play.loss(results), play.inputs)]
            with torch.no_grad():
                p = play.parameters[turn % len(play.parameters)]
                (p.data if play.rng.random() < 0.5 else p).add_(0.1)
    finally:
        with torch.no_grad():
            for p, k in zip(play.parameters, kept, strict=True):
                p.copy_(k)
    return found


def nothing_recorded(play: Play) -> Tensors:
    """Modes in which nothing goes back, and what they made used where something does."""
    mode = str(play.rng.choice(["no_grad", "inference", "both"]))
    with torch.no_grad() if mode == "no_grad" else torch.inference_mode():
        results = play.call()
        if mode == "both":
            results += play.call(*[t.detach().clone() for t in play.inputs])
    assert not any(r.requires_grad for r in results)
    first = play.grads(play.loss(play.call()), play.inputs)
    return [*(r.clone() for r in results), *first]


def inference_inputs(play: Play) -> Tensors:
    """Made in inference mode: what learns can't be saved beside them."""
    with torch.inference_mode():
        inputs = [t.clone() for t in play.inputs]
    if not play.learned:
        return play.call(*inputs)
    results = play.call(*inputs)
    return play.grads(play.loss(results), play.learned)


def fed_back(play: Play) -> Tensors:
    """The output is the input of the same module again."""
    x, y = play.inputs[0], play.call()[0]
    if y.shape != x.shape:
        return backward(play)
    z = play.call(y.detach() if play.rng.random() < 0.2 else y, *play.inputs[1:])
    return play.grads(play.loss(z), [*play.inputs, *play.learned])


def other_dtype(play: Play) -> Tensors:
    """float32 beside float64 is refused by both, integers as well."""
    dtype = torch.float32 if play.rng.random() < 0.7 else torch.int64
    return play.call(*[t.detach().to(dtype) for t in play.inputs])


def twice(play: Play) -> Tensors:
    """A gradient of gradients, of some by some."""
    by = [*play.inputs, *play.learned]
    some = [t for t in by if play.rng.random() < 0.6] or by[:1]
    grads = play.grads(play.loss(play.call(), 3), some, create_graph=True)
    weights = play.like(some, 60)
    pairs = zip(grads, weights, strict=True)
    total = sum((g * w).sum() + g.square().sum() for g, w in pairs if g is not None)
    if not torch.is_tensor(total) or not total.requires_grad:
        return grads
    others = [t for t in by if play.rng.random() < 0.6] or by[:1]
    return [*grads, *play.grads(total, others)]


def penalty(play: Play) -> Tensors:
    """A gradient's norm is trained by .backward()."""
    (g,) = play.grads(play.loss(play.call()), play.inputs[:1], create_graph=True)
    (((g.square().sum() + 1e-3).sqrt() - 1) ** 2).backward()
    return [t.grad for t in (*play.inputs, *play.parameters)]


def maml(play: Play) -> Tensors:
    function, (*start,) = play.of_all()
    count = len(play.inputs)
    inputs, weights = start[:count], [w.requires_grad_() for w in start[count:]]
    after = weights
    for _ in range(int(play.rng.integers(1, 3))):
        grads = play.grads(play.loss(function(*inputs, *after), 3), after, create_graph=True)
        after = [w if g is None else w - 0.1 * g for w, g in zip(after, grads, strict=True)]
    moved = [inputs[0] + 0.3, *inputs[1:]]
    return play.grads(play.loss(function(*moved, *after)), weights)


def scalar(play: Play) -> tuple[Call, Tensors]:
    function, given = play.of_all()
    return lambda *given: play.loss(function(*given), 3), given


def products(name: str) -> Call:
    def product(play: Play) -> Tensors:
        function, given = scalar(play)
        along = tuple(play.like(given, 40))
        return [*getattr(functional, name)(function, tuple(given), along)[1]]

    return product


def jvp(play: Play) -> Tensors:
    function, given = play.of_all()
    along, several = tuple(play.like(given, 40)), lambda *given: tuple(function(*given))
    return [*functional.jvp(several, tuple(given), along)[1]]


def vjp(play: Play) -> Tensors:
    function, given = play.of_all()
    results = function(*given)
    along = tuple(play.like(results, 40))
    return [*functional.vjp(lambda *given: tuple(function(*given)), tuple(given), along)[1]]


def jacobian(play: Play) -> Tensors:
    function, given = play.of_all()
    at = int(play.rng.integers(len(given)))
    fast = bool(play.rng.random() < 0.5) and not play.plain

    def one(t: Any) -> Any:
        return function(*given[:at], t, *given[at + 1 :])[0]

    return [functional.jacobian(one, given[at], vectorize=fast)]


def hessian(play: Play) -> Tensors:
    function, given = scalar(play)
    at = int(play.rng.integers(len(given)))
    fast = bool(play.rng.random() < 0.5) and not play.plain

    def one(t: Any) -> Any:
        return function(*given[:at], t, *given[at + 1 :])

    return [functional.hessian(one, given[at], vectorize=fast)]


def linear_again(play: Play) -> Tensors:
    """Products of Hessians by other vectors, differentiated by the first ones."""
    (g,) = play.grads(play.loss(play.call(), 3), play.inputs[:1], create_graph=True)
    v = play.like([g], 50)[0].requires_grad_()
    (h,) = play.grads((g * v).sum(), play.inputs[:1], create_graph=True)
    w = play.like([h], 51)[0]
    return [h, *play.grads((h * w).sum(), [v])]


def third(play: Play) -> Tensors:
    (g,) = play.grads(play.loss(play.call(), 3), play.inputs[:1], create_graph=True)
    (h,) = play.grads(g.sum(), play.inputs[:1], create_graph=True)
    return play.grads(h.sum(), [*play.inputs, *play.learned])


def batched_cotangents(play: Play) -> Tensors:
    results = play.call()
    by = [*play.inputs, *play.learned]
    several = torch.stack([play.like([results[0]], 70 + 5 * n)[0] for n in range(3)])
    if not play.plain:
        return [
            *torch.autograd.grad(results[0], by, several, is_grads_batched=True, allow_unused=True)
        ]
    rows = [
        torch.autograd.grad(results[0], by, c, retain_graph=True, allow_unused=True)
        for c in several
    ]
    return [None if c[0] is None else torch.stack(c) for c in zip(*rows, strict=True)]


def strange_cotangents(play: Play) -> Tensors:
    """Expanded, negated, with strides of zero."""
    results = play.call()
    by = [*play.inputs, *play.learned]
    found = play.grads(results[0].sum(), by, retain_graph=True)
    for lies in ("negated", "of pairs", "turned"):
        c = play.like(results[:1], 80)[0]
        c = LIES[lies](c) if c.ndim > 1 or lies != "turned" else c
        found += play.grads(results[0], by, grad_outputs=c, retain_graph=True)
    return found


WHAT: dict[str, Callable[[Play], Tensors]] = {
    f.__name__: f
    for f in (
        backward,
        backward_by_some,
        again,
        accumulated,
        checkpointed,
        saved_elsewhere,
        hooked,
        changed_result,
        changed_between,
        written_before,
        nothing_recorded,
        inference_inputs,
        fed_back,
        other_dtype,
        twice,
        penalty,
        maml,
        jvp,
        vjp,
        jacobian,
        hessian,
        linear_again,
        third,
        batched_cotangents,
        strange_cotangents,
    )
} | {"hvp": products("hvp"), "vhp": products("vhp")}


# ---- comparing -----------------------------------------------------------------------------------


def outcome(turn: Turn, side: Side) -> Tensors | Exception:
    try:
        return Play(turn, side).run()
    except Exception as error:
        return error


def compared(right: Tensors | Exception, found: Tensors | Exception) -> str | None:
    if isinstance(found, Exception):
        said = f"{type(found).__name__}: {found}"
        if isinstance(right, Exception) or any(words in said for words in REFUSALS):
            return None
        return f"ours raised {said}"
    if isinstance(right, Exception):
        return f"torch raised {type(right).__name__}: {right}; ours gave numbers"
    if len(right) != len(found):
        return f"{len(found)} results instead of {len(right)}"
    for number, (a, b) in enumerate(zip(right, found, strict=True)):
        if a is None or b is None:
            # None or zeros: torch's modules and ours may see otherwise that nothing depends on it.
            given = b if a is None else a
            if given is not None and torch.count_nonzero(given):
                return f"result {number} is {'nothing' if b is None else 'something'}"
        elif a.shape != b.shape or a.dtype != b.dtype:
            return f"result {number} is {b.dtype}{[*b.shape]} instead of {a.dtype}{[*a.shape]}"
        elif not torch.allclose(b, a, rtol=1e-9, atol=1e-10, equal_nan=True):
            return f"result {number} is off by {float((a - b).detach().abs().max()):.3g}"
    return None


def attempt(index: int, seed: int) -> str | None:
    rng = np.random.default_rng((seed, index))
    right, own, about = pair(rng, index < EARLY)
    turns: list[Turn] = []
    for _ in range(int(rng.integers(2, 5))):
        turn = Turn.of(rng, right)
        turns.append(turn)
        wrong = compared(outcome(turn, right), outcome(turn, own))
        if wrong:
            return "\n".join([about, *map(repr, turns), wrong])
    return None


ATTACK = Attack("torch", "random derivatives of modules of rnncc.torch", 2_000, 8, attempt)
