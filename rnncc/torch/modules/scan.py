"""scan: a function of one step over all steps, in place of a Python loop.

    def step(state, x):
        state = torch.tanh(x @ w + state @ u)
        return state, state

    last, ys = rnncc.torch.scan(step, state, xs)     xs [time, batch, ...] -> ys [time, batch, ...]

The function runs once a call, on a few rows of numbers, which tells the tensors of its surroundings
and what it does with them; what it did before is compiled already. Gradients go to all of them.

Under torch.compile a call stands between two graphs, and computes the same.

Non-Goals: modules with parameters of their own (`cell`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rnncc.torch.modules.sources import named
from rnncc.torch.ops import run
from rnncc.torch.reading.pairs import SIZES
from rnncc.torch.reading.reader import Owned, read, undisturbed
from rnncc.torch.reading.steps import Arguments, Called, StepForm, shown, split_result
from rnncc.torch.reading.trace import Refused, StepTrace, record
from rnncc.torch.recipe import DTYPES, Recipe
from rnncc.torch.recurrence import Recurrence, recurrence_of

_MOST = 64  # functions that are remembered


@dataclass(frozen=True, slots=True)
class CompiledStep:
    """sources: of each weight, the number of a tensor of the surroundings, or a tensor."""

    recurrence: Recurrence
    form: StepForm
    sources: tuple[int | Tensor, ...]


_known: dict[Any, CompiledStep] = {}


Function = TypeVar("Function", bound=Callable[..., Any])


def beside_graphs(function: Function) -> Function:
    """What torch.compile doesn't look into; typed, which torch's own decorator isn't."""
    reason = "rnncc.torch.scan reads its function on numbers"
    found: Function = torch.compiler.disable(function, reason=reason)
    return found


@beside_graphs
def scan(
    f: Callable[[Any, Any], Any],
    state: Any,
    xs: Any,
    *,
    dim: int = 0,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """(the last state, all outputs) of state, y = f(state, x) for each x of xs.

    state: a tensor [batch, ...] or a tree of some. xs: the same, [time, batch, ...], or with dim=1
    [batch, time, ...]; so are outputs. reverse: the last step first; outputs stand where their
    inputs do. TypeError, with the operation and its line, for what can't be compiled.
    """
    _refuse_transforms()
    states, tree = _tensors("state", state, 1)
    inputs, inputs_tree = _tensors("xs", xs, 2)
    if dim not in (0, 1):
        raise ValueError(f"dim is the axis of time, 0 or 1, not {dim!r}")
    name = getattr(f, "__name__", type(f).__name__).strip("<>") or "step"
    rows = tuple(tuple(t.shape[2:]) for t in inputs)
    arguments = Arguments(inputs_tree, _names(len(inputs)), rows)
    without: list[bool] = []  # of each run, whether it has no output
    called = Called(lambda x, s: _turned(f(s, x), name, without), name)
    dtype, own = states[0].dtype, tuple(tuple(t.shape[1:]) for t in states)
    with undisturbed():
        x = arguments.random(SIZES[0], dtype)
        s = pytree.tree_unflatten([torch.randn(SIZES[0], *r, dtype=dtype) for r in own], tree)
        trace = record(called.run, (x, s), name)
        key, around = _what(trace)
        key = key, dtype, own, rows, dim, reverse, repr(tree), repr(inputs_tree)
        known = _known.get(key)
        if known is None:
            output, _, apart = split_result(trace.returned, tree, name)
            form = StepForm(tree, own, apart, pytree.tree_flatten(output)[1], dtype)
            known = _compiled(called, arguments, form, around, (dim == 0, reverse))
            if len(_known) >= _MOST:
                _known.clear()
            _known[key] = known
    weights = [around[n] if isinstance(n, int) else n for n in known.sources]
    weights = [w if w.is_floating_point() else w.to(dtype) for w in weights]
    results = run(known.recurrence, [*inputs, *states, *weights], training=False, given=True)
    count = known.form.output.num_leaves
    ys = pytree.tree_unflatten([*results[:count]], known.form.output)
    return pytree.tree_unflatten([*results[count:]], tree), None if without[0] else ys


def _refuse_transforms() -> None:
    """The function is read anew at each call, out of tensors that are no wrappers of others."""
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError(
            "rnncc.torch.scan under torch.func's transforms (vmap, grad, jvp, jacrev): use "
            "torch.autograd.grad; or Recurrent(cell) of a module, which may be transformed"
        )


def _tensors(what: str, tree: Any, least: int) -> tuple[list[Tensor], Any]:
    leaves, spec = pytree.tree_flatten(tree)
    axes = "[batch, ...]" if least == 1 else "[time, batch, ...]"
    if not leaves or not all(isinstance(t, Tensor) and t.dim() >= least for t in leaves):
        raise TypeError(f"{what} of scan is {shown(tree)}, expected tensors {axes}")
    if leaves[0].dtype not in DTYPES.values():
        raise TypeError(f"{what} of scan is {leaves[0].dtype}: torch.float32 or torch.float64")
    return leaves, spec


def _names(count: int) -> tuple[str, ...]:
    return ("x",) if count == 1 else tuple(f"x_{i + 1}" for i in range(count))


def _turned(returned: Any, name: str, without: list[bool]) -> Any:
    """(output, state), as cells give it. What has no output shows its state."""
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise Refused(f"{name} can't be read: it returns {shown(returned)}, not (state, y)")
    state, y = returned
    without.append(y is None)
    return (pytree.tree_leaves(state)[0] if y is None else y), state


def _what(trace: StepTrace) -> tuple[Any, list[Tensor]]:
    """(what a step does, alike for functions that do the same; tensors of its surroundings)."""
    numbers = {id(t): -1 - n for n, t in enumerate(pytree.tree_leaves(trace.given))}
    around: list[Tensor] = []
    made = 0
    told: list[Any] = []
    for call in trace.calls:
        own: list[Any] = [call.name, call.with_grad, call.inside and call.inside.function]
        fresh = call.name.startswith("aten.lift_fresh")
        for leaf in pytree.tree_leaves((call.args, call.keywords)):
            if not isinstance(leaf, Tensor):
                own.append(repr(leaf))
                continue
            if id(leaf) not in numbers:
                numbers[id(leaf)] = 10**6 + len(around)
                around.append(leaf)
            own.append((numbers[id(leaf)], tuple(leaf.shape), leaf.dtype))
        if fresh:
            around.pop()
            own.append(call.values[0].tolist())
        for t in call.outputs:
            numbers[id(t)] = made
            made += 1
        told.append(tuple(map(str, own)))
    ends = [numbers.get(id(t)) for t in pytree.tree_leaves(trace.returned)]
    return (tuple(told), tuple(ends)), around


def _compiled(
    called: Called,
    arguments: Arguments,
    form: StepForm,
    around: list[Tensor],
    order: tuple[bool, bool],
) -> CompiledStep:
    owned = {id(t): Owned(f"w_{n + 1}", n, t.is_floating_point()) for n, t in enumerate(around)}
    reading = read(called, arguments, form, owned)
    text, time_major = reading.text, order[0]
    recipe = Recipe(
        reading.layer_class,
        tuple(text.sizes.items()),
        dtype=str(form.dtype).removeprefix("torch."),
        directions=(order[1],),
        in_place=True,
        time_major=time_major,
    )
    recurrence = recurrence_of(recipe)
    found = named({**text.weights, **text.constants})
    sources = [found[n] for n in recurrence.owned]
    tables = [s if isinstance(s, int) else s.to(form.dtype) for s in sources]
    return CompiledStep(recurrence, form, tuple(tables))
