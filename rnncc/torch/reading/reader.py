"""A step of torch's -> its equations, proven.

Two runs with batches of different sizes, in training and not, are replayed into a Recorder; what is
written is compiled for the interpreter, and held against torch on numbers (`numbers`).

Non-Goals: layers (`rnncc.torch.modules`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rnncc.common.progress import working
from rnncc.reading.graph import Unreadable
from rnncc.reading.proof import Disproved, prove
from rnncc.reading.recorder import Recorder
from rnncc.reading.text import CellText, compiled, write
from rnncc.reading.traced import BATCH, Traced
from rnncc.runtime.api.layer import Layer
from rnncc.torch.reading.numbers import draws_of
from rnncc.torch.reading.pairs import SIZES
from rnncc.torch.reading.replay import Replay
from rnncc.torch.reading.row_counts import refuse_row_counts
from rnncc.torch.reading.steps import (
    Arguments,
    Called,
    StepForm,
    flat,
    same_tree,
    shown,
    split_result,
)
from rnncc.torch.reading.trace import Refused, StepTrace, being_read, record
from rnncc.torch.reading.watch import Watch
from rnncc.torch.reading.words import kind_of


@dataclass(frozen=True, slots=True)
class Owned:
    """A tensor that a step reads and isn't given. key: how its owner finds it again."""

    name: str
    key: Any
    trained: bool


@dataclass(frozen=True, slots=True)
class StepReading:
    """What was read. arguments: names in the text, in its order, of the tensors of a step's
    arguments."""

    layer_class: type[Layer]
    text: CellText
    form: StepForm
    arguments: Arguments
    state_names: tuple[str, ...]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Nothing that a step does here is seen outside, nor the other way round."""
    with ExitStack() as stack:
        stack.enter_context(being_read())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast("cpu", enabled=False))
        yield


def state_names(tree: Any, count: int) -> tuple[str, ...]:
    """A name for each tensor of a state, out of its tree."""
    if count == 1:
        return ("h",)
    paths, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten([0] * count, tree))
    named = ["_".join(str(getattr(k, "key", getattr(k, "name", ""))) for k in p) for p, _ in paths]
    names = [n.strip("_") for n in named]
    if all(names) and len({*names}) == count:
        return tuple(names)
    return tuple(f"h_{i + 1}" for i in range(count))


def read(
    called: Called,
    arguments: Arguments,
    form: StepForm,
    owned: Mapping[int, Owned],
    modules: Sequence[torch.nn.Module] = (),
) -> StepReading:
    """The equations of a step. owned: by ids of tensors; others that it reads are its
    surroundings'. modules: those that compute it, which may train or not.

    Refused, with the operation and the user's line, for what equations can't say.
    """
    with working(f"reading {called.name}"):
        return _read(_Reader(called, arguments, form, owned), called, modules)


def _read(reader: _Reader, called: Called, modules: Sequence[torch.nn.Module]) -> StepReading:
    modes = [m.training for m in modules]
    try:
        graphs = []
        for training in (True, False):
            for module in modules:
                module.training = training
            with Watch(modules, called.name):
                graphs.append(reader.replay())
        trains, plain = graphs
        if write(trains.r.graph, drops=False).text != write(plain.r.graph).text:
            raise Refused(
                f"{called.name} can't be compiled: in training it computes something else than in "
                "eval; of what may differ, dropout alone can be compiled"
            )
        reader.refuse_row_counts()
        return reader.proven(trains, plain)
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


class _Reader:
    def __init__(
        self, called: Called, arguments: Arguments, form: StepForm, owned: Mapping[int, Owned]
    ) -> None:
        self.called, self.arguments, self.form, self.owned = called, arguments, form, owned
        self.names = state_names(form.tree, len(form.rows))

    # ---- reading ----

    def replay(self) -> Replay:
        traces = [self._trace(batch) for batch in SIZES]
        replay = Replay(self.called.name, self.form.dtype, self._leaf)
        first, second = traces
        self._given(replay, first, second)
        outputs, after = self._results(first)
        replay.run(first, second)
        try:
            replay.r.result([replay.value(t) for t in outputs], [replay.value(t) for t in after])
        except Unreadable as why:
            raise replay.refused("it", why) from None
        return replay

    def _trace(self, batch: int) -> StepTrace:
        return record(self.called.run, self._arguments(batch), self.called.name)

    def refuse_row_counts(self) -> None:
        """Where what it does depends on how many rows there are."""
        refuse_row_counts(self.called.run, self._arguments, self.called.name)

    def _arguments(self, batch: int) -> tuple[Any, Any]:
        """Random inputs and a state of so many rows."""
        form = self.form
        states = [torch.randn((batch, *row), dtype=form.dtype) for row in form.rows]
        inputs = self.arguments.random(batch, form.dtype)
        return inputs, pytree.tree_unflatten(states, form.tree)

    def _given(self, replay: Replay, first: StepTrace, second: StepTrace) -> None:
        inputs, states = (
            [pytree.tree_leaves(trace.given[i]) for trace in (first, second)] for i in range(2)
        )
        own = self.arguments
        for number, (a, b) in enumerate(zip(*inputs, strict=True)):
            make = replay.r.context if number in own.contexts else replay.r.input
            traced = make(own.names[number], (BATCH, *own.rows[number]))
            replay.given(a, b, traced, f"its input {own.names[number]}")
        for name, row, a, b in zip(self.names, self.form.rows, *states, strict=True):
            replay.given(a, b, replay.r.state(name, (BATCH, *row)), "the state it was given")

    def _results(self, trace: StepTrace) -> tuple[list[Tensor], list[Tensor]]:
        """(outputs, the state after). Refused for those that aren't as they were expected."""
        name, form = self.called.name, self.form
        output, state, _ = split_result(trace.returned, form.tree, name)
        outputs, tree = flat(output, "its output", name)
        if not outputs or not same_tree(tree, form.output):
            raise Refused(f"{name} can't be read: its output is {shown(output)}, no tensors")
        after, _ = flat(state, "its state", name)
        given = pytree.tree_leaves(trace.given[1])
        for own, before, now in zip(self.names, given, after, strict=True):
            if before.shape != now.shape or before.dtype != now.dtype:
                raise Refused(
                    f"{name} can't be read: the state {own} goes in as {_kind(before)} and comes "
                    f"out as {_kind(now)}"
                )
        for number, t in enumerate(outputs):
            if t.dtype != form.dtype:
                raise Refused(
                    f"{name} can't be read: output {number + 1} is {_kind(t)}, expected "
                    f"{form.dtype}"
                )
        return outputs, after

    def _leaf(self, recorder: Recorder, tensor: Tensor) -> Traced:
        """A tensor that the step has from elsewhere."""
        own = self.owned.get(id(tensor))
        if own is None:
            trained = tensor.is_floating_point() and tensor.requires_grad
            own = Owned("table", tensor, trained)
        name = own.name
        if not tensor.is_cpu:
            raise Unreadable(
                f"reads {name}, which is on {tensor.device}: steps are read on the CPU"
            )
        kind = kind_of(tensor.dtype)
        if kind == "float" and tensor.dtype != self.form.dtype:
            raise Unreadable(
                f"reads {name} of {tensor.dtype}: equations count in one kind of floats, here "
                f"{self.form.dtype}"
            )
        traced = recorder.weight(name, tuple(tensor.shape), (own, tensor), own.trained)
        return recorder.convert(traced, kind) if kind == "bool" else traced

    # ---- the proof ----

    def proven(self, trains: Replay, plain: Replay) -> StepReading:
        name = self.called.name
        layer_class, text = compiled(trains.r.graph, _dtype_name(self.form.dtype), f"<{name}>")
        draws = draws_of(self.called, self.arguments, self.form, text)
        try:
            prove(text, draws, f"<{name}>")
        except Disproved as why:
            raise Refused(
                f"{name} can't be compiled: it {why}. Its equations:\n{text.text}"
            ) from None
        return StepReading(layer_class, text, self.form, self.arguments, self.names)


def _kind(t: Tensor) -> str:
    return f"{[*t.shape]} of {t.dtype}"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
