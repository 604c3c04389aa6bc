"""torch's own outputs and gradients of a few steps in float64, to prove equations by.

A step runs as it is, but for the tensors that it reads and isn't given: those are float64 ones of
other numbers, put in their place where torch's functions are called.

Non-Goals: the equations' side (`rnncc.reading.proof`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from rnncc.reading.proof import Draw
from rnncc.reading.text import CellText
from rnncc.torch.reading.steps import Arguments, Called, StepForm, split_result
from rnncc.torch.reading.trace import Refused

BATCH, STEPS = 3, 3


@dataclass(frozen=True, slots=True)
class DrawKind:
    """Of numbers: how large inputs and states are, whether none is negative, whether weights are
    other than the module's own."""

    inputs: float
    states: float
    positive: bool = False
    own_weights: bool = True


KINDS = (
    DrawKind(1, 1),
    DrawKind(0.01, 0.01),
    DrawKind(1, 0, positive=True),
    DrawKind(6, 3),
    DrawKind(1, 1, positive=True, own_weights=False),
)


class _InPlaceOf(TorchFunctionMode):
    """Functions of torch are given these tensors for those."""

    def __init__(self, others: dict[int, Tensor]) -> None:
        super().__init__()
        self.others = others

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        def other(a: Any) -> Any:
            return self.others.get(id(a), a) if isinstance(a, Tensor) else a

        args, keywords = pytree.tree_map(other, (tuple(args), dict(kwargs or {})))
        return function(*args, **keywords)


def draws_of(called: Called, arguments: Arguments, form: StepForm, text: CellText) -> list[Draw]:
    """A draw of each kind."""
    with _float64():
        generator = torch.Generator().manual_seed(0)
        return [_draw(called, arguments, form, text, kind, generator) for kind in KINDS]


@contextmanager
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _numbers(shape: Any, scale: float, kind: DrawKind, generator: torch.Generator) -> Tensor:
    numbers = torch.randn(tuple(shape), generator=generator, dtype=torch.float64) * scale
    return (numbers.abs() if kind.positive else numbers).requires_grad_()


def _weight(t: Tensor, kind: DrawKind, generator: torch.Generator) -> Tensor:
    """Like the module's own, or random; what isn't float is as it is."""
    if not t.is_floating_point():
        return t
    own = t.detach().double()
    noise = torch.randn(own.shape, generator=generator, dtype=torch.float64)
    if kind.own_weights:
        typical = own.square().mean().sqrt() if own.numel() else 0
        own = own * (1 + 0.1 * noise) + 0.1 * typical * noise.roll(1) + 0.01 * noise.flip(0)
    else:
        width = max(own.shape[-1], own.shape[0]) if own.dim() > 1 else 4
        own = noise / width**0.5
    return own.requires_grad_()


def _draw(
    called: Called,
    arguments: Arguments,
    form: StepForm,
    text: CellText,
    kind: DrawKind,
    generator: torch.Generator,
) -> Draw:
    given = [
        _numbers(
            (BATCH, *row) if n in arguments.contexts else (BATCH, STEPS, *row),
            kind.inputs,
            kind,
            generator,
        )
        for n, row in enumerate(arguments.rows)
    ]
    states = [_numbers((BATCH, *row), kind.states, kind, generator) for row in form.rows]
    leaves = {**text.weights, **text.constants}
    originals = {n: leaf.key[1] for n, leaf in leaves.items() if leaf.key is not None}
    weights = {n: _weight(t, kind, generator) for n, t in originals.items()}
    with _InPlaceOf({id(t): weights[n] for n, t in originals.items()}):
        outputs, finals = _run(called, arguments, form, given, states)
    cotangents = [
        torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (*outputs, *finals)
    ]
    asked = {
        **dict(zip(_names(arguments, text), given, strict=True)),
        **dict(zip(text.states, states, strict=True)),
        **{n: weights[n] for n in text.weights},
    }
    total = sum((c * t).sum() for c, t in zip(cotangents, (*outputs, *finals), strict=True))
    grads: Any = [None] * len(asked)
    try:
        if isinstance(total, Tensor) and total.requires_grad:
            grads = torch.autograd.grad(total, [*asked.values()], allow_unused=True)
    except RuntimeError as error:
        raise Refused(
            f"{called.name} can't be compiled: torch itself has no gradients of it ({error})"
        ) from error
    gradients = {
        n: (torch.zeros_like(t) if g is None else g).numpy()
        for (n, t), g in zip(asked.items(), grads, strict=True)
    }
    plain = [t.detach().numpy() for t in (*outputs, *finals)]
    d_plain = [t.numpy() for t in cotangents]
    count = len(outputs)
    return Draw(
        {n: t.detach().numpy() for n, t in zip(_names(arguments, text), given, strict=True)},
        {n: t.detach().numpy() for n, t in zip(text.states, states, strict=True)},
        {n: t.detach().double().numpy() for n, t in weights.items()},
        plain[:count],
        plain[count:],
        d_plain[:count],
        d_plain[count:],
        gradients,
    )


def _names(arguments: Arguments, text: CellText) -> list[str]:
    """What the text calls each argument."""
    inputs, contexts = iter(text.inputs), iter(text.contexts)
    return [
        next(contexts if n in arguments.contexts else inputs) for n in range(len(arguments.rows))
    ]


def _run(
    called: Called, arguments: Arguments, form: StepForm, given: list[Tensor], states: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs [batch, time, ...] and last states."""
    state = pytree.tree_unflatten(states, form.tree)
    steps: list[list[Tensor]] = []
    for step in range(STEPS):
        own = [t if n in arguments.contexts else t[:, step] for n, t in enumerate(given)]
        returned = called.run(pytree.tree_unflatten(own, arguments.tree), state)
        output, state, _ = split_result(returned, form.tree, called.name)
        steps.append(pytree.tree_leaves(output))
    outputs = [torch.stack(each, 1) for each in zip(*steps, strict=True)]
    return outputs, pytree.tree_leaves(state)
