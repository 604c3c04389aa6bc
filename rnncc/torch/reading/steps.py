"""How one step is called, and what it gives: trees of tensors, told from what a module says.

    forward(x_t, state) -> (y_t, state), or -> state, whose first tensor then is the output

Which of these it is tells the state's tree. The state's shapes are given, or the module has a
method that makes one, or fills in its own when it is given None, or has a size by a known name.

Non-Goals: what is computed (`replay`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rnncc.torch.reading.pairs import SIZES
from rnncc.torch.reading.trace import Refused, line_of

STARTS = (
    "initial_state",
    "get_initial_state",
    "init_hidden",
    "init_state",
    "zero_state",
    "init_states",
    "initial_hidden",
)
_WIDTHS = ("hidden_size", "state_size", "units", "hidden_dim", "hidden_units", "n_hidden", "width")
_BATCHES = ("batch_size", "batch", "bsz", "n", "bs", "b", "size", "num", "batch_dim")


@dataclass(frozen=True, slots=True)
class StepForm:
    """tree: of a state. rows: the shapes of its tensors for one row. gives_output: whether a step
    returns (output, state). output: the output's tree. dtype: the floats it counts in."""

    tree: Any
    rows: tuple[tuple[int, ...], ...]
    gives_output: bool
    output: Any
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a step is given beside its state. tree: of the tensors; names, rows: of each, its name
    and its shape for one row; contexts: numbers of those that are the same at every step."""

    tree: Any
    names: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    contexts: frozenset[int] = frozenset()

    def random(self, batch: int, dtype: torch.dtype) -> Any:
        """Tensors of so many rows."""
        tensors = [torch.randn((batch, *row), dtype=dtype) for row in self.rows]
        return pytree.tree_unflatten(tensors, self.tree)


@dataclass(frozen=True, slots=True)
class Called:
    """A step, whatever it is. step: (inputs, state) -> what it returns. name: in messages."""

    step: Callable[[Any, Any], Any]
    name: str

    def run(self, inputs: Any, state: Any) -> Any:
        """What it returns. Refused, with the user's line, where it fails."""
        try:
            return self.step(inputs, state)
        except Refused:
            raise
        except Exception as error:
            raise Refused(
                f"{self.name} can't be read: given {shown(inputs)} and as state {shown(state)} it "
                f"fails with {type(error).__name__}: {str(error).strip() or 'no message'}"
                f"{line_of(error)}. A layer reads [batch, time, ...] and gives a step [batch, ...]"
            ) from error


def shown(tree: Any) -> str:
    """Shapes of tensors, where they stand."""
    if isinstance(tree, Tensor):
        return str([*tree.shape])
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return f"{type(tree).__name__}({', '.join(map(shown, tree))})"
    if isinstance(tree, tuple | list):
        inner = ", ".join(map(shown, tree))
        return f"({inner})" if isinstance(tree, tuple) else f"[{inner}]"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{k!r}: {shown(v)}" for k, v in tree.items()) + "}"
    return (
        repr(tree) if tree is None or isinstance(tree, bool | int | float) else type(tree).__name__
    )


# ---- trees ---------------------------------------------------------------------------------------


def flat(tree: Any, what: str, name: str) -> tuple[list[Tensor], Any]:
    """(tensors, their tree). Refused for what isn't made of tensors alone."""
    leaves, spec = pytree.tree_flatten(tree)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise Refused(f"{name} can't be read: {what} is {shown(tree)}, expected tensors alone")
    return leaves, spec


def same_tree(a: Any, b: Any) -> bool:
    """Lists are as good as tuples."""
    return repr(_plain(a)) == repr(_plain(b))


def _plain(spec: Any) -> Any:
    kind = "tuple" if spec.type in (list, tuple) else getattr(spec.type, "__name__", None)
    context = None if spec.type in (list, tuple) else spec.context
    return kind, context, [_plain(child) for child in _children(spec)]


def ordered_like(value: Any, tree: Any) -> Any:
    """Dicts with their keys in the order that the tree's have: a dict says nothing by its order."""
    children = _children(tree)
    if isinstance(value, dict) and isinstance(tree.context, list):
        if {*value} != {*tree.context} or len(value) != len(children):
            return value
        pairs = zip(tree.context, children, strict=True)
        return {key: ordered_like(value[key], child) for key, child in pairs}
    if isinstance(value, tuple | list) and len(value) == len(children):
        parts = [ordered_like(v, child) for v, child in zip(value, children, strict=True)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _children(spec: Any) -> Sequence[Any]:
    children = getattr(spec, "_children", None)
    return spec.children_specs if children is None else children


def split_result(
    returned: Any, tree: Any, name: str, gives_output: bool | None = None
) -> tuple[Any, Any, bool]:
    """(output, state, whether the output stands apart). Refused where neither fits."""
    alone = ordered_like(returned, tree)
    leaves, own = pytree.tree_flatten(alone)
    if same_tree(own, tree):
        return leaves[0], alone, False
    if isinstance(returned, tuple | list) and len(returned) == 2:
        state = ordered_like(returned[1], tree)
        if same_tree(pytree.tree_flatten(state)[1], tree):
            return returned[0], state, True
    raise Refused(
        f"{name} can't be read: given a state like {_of_spec(tree)} a step returns "
        f"{shown(returned)}; expected (output, state), or a state alone, like the one it was given"
    )


def _of_spec(tree: Any) -> str:
    count = tree.num_leaves
    return shown(pytree.tree_unflatten([torch.empty(0)] * count, tree)).replace("[0]", "tensor")


# ---- states --------------------------------------------------------------------------------------


def rows_given(state: Any, name: str) -> tuple[Any, list[tuple[int, ...]], list[Tensor] | None]:
    """What `state=` says: (tree, shapes of a row, tensors if such were given). A number or a tuple
    of numbers is a shape."""
    if _is_shape(state):
        return pytree.tree_flatten(torch.empty(0))[1], [_shape(state)], None
    leaves, spec = pytree.tree_flatten(state, is_leaf=_is_shape)
    if not leaves:
        raise TypeError(f"state of {name} is {state!r}: give shapes of a row, or tensors of one")
    if all(isinstance(v, Tensor) for v in leaves):
        return spec, [tuple(v.shape) for v in leaves], leaves
    if all(_is_shape(v) for v in leaves):
        return spec, [_shape(v) for v in leaves], None
    raise TypeError(f"state of {name} is {state!r}: give shapes of a row, or tensors of one")


def _is_shape(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return True
    whole = isinstance(value, tuple) and not hasattr(value, "_fields")
    return whole and all(isinstance(n, int) and not isinstance(n, bool) for n in value)


def _shape(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


@dataclass(frozen=True, slots=True)
class Starter:
    """A module's own method that makes a state. roles: what its parameters, by name, are given."""

    method: str
    roles: tuple[tuple[str, str], ...]

    def state(self, cell: Any, batch: int, inputs: Any) -> Any:
        """Of so many rows, which begin with these inputs of a step."""
        like = next(t for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor))
        values = {"batch": batch, "inputs": inputs, "device": like.device, "dtype": like.dtype}
        return getattr(cell, self.method)(**{name: values[role] for name, role in self.roles})


def starter(cell: Any) -> Starter | None:
    """What the module has of that kind."""
    for name in STARTS:
        method = getattr(cell, name, None)
        roles = _roles(method) if inspect.ismethod(method) else None
        if roles is not None:
            return Starter(name, roles)
    return None


def _roles(method: Any) -> tuple[tuple[str, str], ...] | None:
    """How it is called, as far as its parameters' names tell."""
    roles: dict[str, str] = {}
    for p in inspect.signature(method).parameters.values():
        lower = p.name.lower()
        if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL, p.POSITIONAL_ONLY):
            continue
        if lower in _BATCHES:
            roles[p.name] = "batch"
        elif lower in ("x", "input", "inputs", "x_t"):
            roles[p.name] = "inputs"
        elif lower in ("device", "dtype"):
            roles[p.name] = lower
        elif p.default is p.empty:
            return None
    return tuple(roles.items()) if {"batch", "inputs"} & {*roles.values()} else None


def row_shapes(leaves: Sequence[Tensor], batch: int, what: str, name: str) -> list[tuple[int, ...]]:
    """Of states with a batch. Refused for others."""
    for t in leaves:
        if not t.dim() or t.shape[0] != batch:
            raise Refused(
                f"{name} can't be read: {what} has a tensor {[*t.shape]} for a batch of {batch}, "
                "expected [batch, ...]"
            )
    return [tuple(t.shape[1:]) for t in leaves]


# ---- what nobody says ----------------------------------------------------------------------------


def find_state(called: Called, cell: Any, inputs: Any) -> tuple[Any, list[tuple[int, ...]]]:
    """(tree, shapes of a row) of a module that takes None for a state, or has a width. Refused
    where it is one of several. inputs: of a step of SIZES[0] rows."""
    tried = [t for t in _candidates(called, cell, inputs) if _fits(called, inputs, *t)]
    several = [t for t in tried if not same_tree(t[0], tried[0][0]) or t[1] != tried[0][1]]
    if len(tried) and not several:
        tree, rows = tried[0]
        return tree, rows
    found = f"it could be {' or '.join(_text(t) for t in tried)}" if tried else "nothing tells"
    raise Refused(
        f"{called.name} can't be read: what is its state? {found}. Give its shape for one row, "
        "state=(units,), or of several a tuple of shapes, or a dict"
    )


def _text(candidate: Any) -> str:
    tree, rows = candidate
    return shown(pytree.tree_unflatten([torch.empty(r, device="meta") for r in rows], tree))


def _candidates(called: Called, cell: Any, inputs: Any) -> list[Any]:
    returned, found = None, []
    try:
        returned = called.step(inputs, None)
    except Exception:
        for name in _WIDTHS:
            width = getattr(cell, name, None)
            if isinstance(width, int) and not isinstance(width, bool) and width > 0:
                one = torch.empty(0)
                found.append((pytree.tree_flatten(one)[1], [(width,)]))
                found.append((pytree.tree_flatten((one, one))[1], [(width,), (width,)]))
                return found
        return found
    options = [returned]
    if isinstance(returned, tuple | list) and len(returned) == 2:
        options.append(returned[1])
    for option in options:
        leaves, tree = pytree.tree_flatten(option)
        if leaves and all(isinstance(t, Tensor) and t.dim() for t in leaves):
            if all(t.shape[0] == SIZES[0] for t in leaves):
                found.append((tree, [tuple(t.shape[1:]) for t in leaves]))
    return found


def _fits(called: Called, inputs: Any, tree: Any, rows: Sequence[tuple[int, ...]]) -> bool:
    """Whether a step takes such a state, and gives one like it."""
    like = next(t for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor))
    state = pytree.tree_unflatten([like.new_zeros((SIZES[0], *row)) for row in rows], tree)
    try:
        returned = called.step(inputs, state)
        _, after, _ = split_result(returned, tree, called.name)
    except Exception:
        return False
    leaves = pytree.tree_leaves(after)
    return [tuple(t.shape) for t in leaves] == [(SIZES[0], *row) for row in rows]


def refuse_other_start(called: Called, inputs: Any, form: StepForm) -> None:
    """Refused for a module that, given None, starts from anything but zeros."""
    like = next(t for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor))
    batch = like.shape[0]
    zeros = pytree.tree_unflatten([like.new_zeros((batch, *r)) for r in form.rows], form.tree)
    try:
        given = pytree.tree_leaves(called.step(inputs, None))
    except Exception:
        return
    plain = pytree.tree_leaves(called.step(inputs, zeros))
    for a, b in zip(given, plain, strict=True):
        if not torch.equal(a, b) and not torch.allclose(a, b, equal_nan=True):
            raise Refused(
                f"{called.name} can't be read: given None for a state it starts from something "
                "else than zeros. Give what it starts from: state= (tensors of one row), or a "
                "method initial_state(batch_size)"
            )
