"""What is right: a cell's equations in torch, float64, in a loop over time, with autograd.

Shares nothing with rnncc: neither its reader nor its shapes, passes or gradients. What it knows of
layers (masks, orders of steps, how draws are made) is written down again from the README.

Non-Goals: speed; being told about mistakes: a cell that isn't one raises whatever torch raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tests.attack.cells import functions
from tests.attack.cells.functions import Value, spread, tensor
from tests.attack.cells.text import SIGNS, read_function
from tests.attack.cells.tree import (
    Apply,
    Array,
    Case,
    Cut,
    Expr,
    Function,
    Group,
    If,
    Item,
    Num,
    Option,
    Ref,
    Word,
    walk,
)

Arrays = dict[str, np.ndarray]
Tensors = dict[str, Tensor]


# ---- a cell and its call, bound --------------------------------------------------------------


class Bound:
    """Sizes, options, functions and rates with their values; shapes of all arrays."""

    def __init__(self, case: Case) -> None:
        self.cell, self.call = case.cell, case.call
        self.rates = {r.name: float(r.default) for r in self.cell.scalars("rate")}
        self.rates |= self.call.rates
        self.options = {o.name: self._default(o.default) for o in self.cell.scalars("option")}
        self.options |= self.call.options
        self.functions: dict[str, Function] = {f.name: f for f in self.cell.functions}
        for name, text in self.call.functions.items():
            self.functions[name] = read_function(name, text or "linear")
        self.shapes = {a.name: self.shape(a) for a in self.cell.arrays(*_KINDS)}
        self.sites = self._sites()
        self.read = self._read()
        self.delays = self._delays()

    def _default(self, default: Option | Ref) -> Option:
        return self.rates[default.name] != 0 if isinstance(default, Ref) else default

    def known(self, expr: Expr) -> Value:
        """A value of sizes and options alone."""
        return Step(self, {}, {}, {}, 0, 1).value(expr)

    def shape(self, array: Array) -> tuple[int, ...]:
        shape = array.shape
        if array.other and not self.known(array.other[0]):
            shape = array.other[1]
        return tuple(self.known(s) for s in shape)

    def _sites(self) -> dict[int, int]:
        """Each use of drop and zoneout has the number of its place in the text."""
        nodes = [n for e in self.cell.expressions() for n in walk(e)]
        uses = [n for n in nodes if isinstance(n, Apply) and n.function in ("drop", "zoneout")]
        return {id(node): number for number, node in enumerate(uses)}

    def _read(self) -> set[Ref]:
        """What is read under these options."""
        found: set[Ref] = set()

        def look(expr: Expr) -> None:
            match expr:
                case Ref():
                    found.add(expr)
                case If(condition, yes, no):
                    look(yes if self.known(condition) else no)
                case Apply(function=name, args=args, keywords=keywords):
                    for part in (*args, *(v for _, v in keywords)):
                        look(part)
                    if name in self.functions and name not in visited:
                        visited.add(name)
                        look(self.functions[name].body)
                case Group(parts):
                    list(map(look, parts))
                case Item(value, indices):
                    list(map(look, (value, *indices)))
                case Cut():
                    list(map(look, expr.given))

        visited: set[str] = set()
        list(map(look, self.cell.expressions()))
        return found

    def _delays(self) -> list[tuple[str, int]]:
        """States that hold earlier inputs and states, in the order of `initial_state`."""
        delays = []
        for array in (*self.cell.arrays("input"), *self.cell.arrays("state")):
            backs = [r.back for r in self.read if r.name == array.name and r.back is not None]
            first = 1 if array.kind == "input" else 2
            delays += [(array.name, b) for b in range(first, max(backs, default=0) + 1)]
        return delays

    @property
    def states(self) -> dict[str, tuple[str, int]]:
        """Every state a layer shows, by the name it has there."""
        own = {s.name: (s.name, 1) for s in self.cell.arrays("state")}
        return own | {f"_{name}_{back}": (name, back) for name, back in self.delays}

    def starts(self) -> dict[str, str]:
        """The weight or constant a state starts from."""
        return {s.name: s.start.name for s in self.cell.arrays("state") if s.start}


_KINDS = ("input", "context", "state", "weight", "constant")


# ---- one step --------------------------------------------------------------------------------


@dataclass
class Step:
    """The equations at one step. timed: x[t], h[t-1] and earlier ones."""

    bound: Bound
    arrays: Tensors
    timed: Mapping[tuple[str, int], Tensor]
    scope: Mapping[str, Value]
    number: int
    rows: int
    known: dict[str, Value] = field(default_factory=dict)

    def set(self, name: str) -> Value:
        """What an equation sets."""
        if name not in self.known:
            cell = self.bound.cell
            equation = next(e for e in cell.equations if name in [n for n, _ in e.targets])
            value = self.value(equation.value)
            names = [n for n, _ in equation.targets]
            parts = value if len(names) > 1 else (value,)
            self.known.update(zip(names, parts, strict=True))
        return self.known[name]

    def value(self, expr: Expr) -> Value:
        match expr:
            case Num() | Word():
                return expr.value
            case Ref(name, None):
                return self._name(name)
            case Ref(name, 0) if (name, 0) not in self.timed:
                return self.state(name)
            case Ref(name, back):
                return self.timed[name, back]
            case Group(items):
                return tuple(map(self.value, items))
            case If(condition, yes, no):
                return self.value(yes if self.value(condition) else no)
            case Item(value, indices):
                return self._item(self.value(value), [self.value(i) for i in indices])
            case Cut(begin, end, step):
                return slice(*(None if x is None else self.value(x) for x in (begin, end, step)))
            case Apply():
                return self._apply(expr)
        raise TypeError(expr)

    def state(self, name: str) -> Tensor:
        """A state's next value: a number is spread over its axes."""
        value = tensor(self.set(name))
        shape = self.bound.shapes[name]
        if value.ndim == 1 and shape:
            value = value.reshape(-1, *(1 for _ in shape)).expand(-1, *shape)
        assert value.shape[1:] == shape, (name, value.shape, shape)
        return spread(value, self.rows)

    def _name(self, name: str) -> Value:
        if name in self.scope:
            return self.scope[name]
        bound = self.bound
        if name in bound.call.sizes:
            return bound.call.sizes[name]
        if name in bound.options:
            return bound.options[name]
        return self.arrays[name] if name in self.arrays else self.set(name)

    def _item(self, value: Value, indices: list[int]) -> Value:
        if isinstance(value, tuple):
            return value[indices[0]]
        at = 1
        for index in indices:
            n = value.shape[at]
            if isinstance(index, slice):
                places = list(range(n))[index]
                # rnncc refuses what Python cuts off.
                for bound in (index.start, index.stop):
                    assert bound is None or -n <= bound <= n
                assert places
                value, at = value.index_select(at, torch.tensor(places)), at + 1
            else:
                assert -n <= index < n
                value = value.select(at, index)
        return value

    def _apply(self, expr: Apply) -> Value:
        name = expr.function
        if name in ("drop", "zoneout"):
            return self._drawn(expr)
        args = [self.value(a) for a in expr.args]
        if name in SIGNS:
            return functions.operate(name, args)
        keywords = {n: self.value(v) for n, v in expr.keywords}
        if name == "surrogate" and len(args) + len(keywords) == 2:
            keywords["of"] = self._argument(expr)
        declared = self.bound.functions.get(name)
        if declared is None:
            return functions.call(name, args, keywords)
        if not declared.params:
            return functions.call(declared.body.name, args, keywords)
        scope = dict(zip(declared.params, args)) | keywords
        inner = Step(self.bound, self.arrays, self.timed, scope, self.number, self.rows, self.known)
        return inner.value(declared.body)

    def _argument(self, expr: Apply) -> Tensor:
        """What a surrogate is differentiated by: the value that both of its expressions read."""
        parts = dict(zip(("forward", "backward"), expr.args)) | dict(expr.keywords)
        names = [
            [r for r in walk(parts[p]) if isinstance(r, Ref) and isinstance(self.value(r), Tensor)]
            for p in ("forward", "backward")
        ]
        both = {r for r in names[0] if r in names[1] or not names[1]}
        (only,) = both
        return self.value(only)

    # ---- randomness ----

    def _drawn(self, expr: Apply) -> Value:
        given = dict(expr.keywords)
        names = ("v", "rate", "per") if expr.function == "drop" else ("new", "old", "rate", "per")
        given |= dict(zip(names, expr.args))
        rate = self._rate(given["rate"])
        per = self.value(given.get("per", Word("sequence")))
        site = self.bound.sites.get(id(expr), 0)
        training = self.bound.call.training
        if expr.function == "drop":
            whole = self.value(given["v"])
            if not training or rate == 0:
                return whole
            kept = self._kept(site, tensor(whole), rate, per)
            return tensor(whole) * kept / (1 - rate)
        new, old = functions.aligned(*(tensor(self.value(given[n])) for n in ("new", "old")))
        if rate == 0:
            return new
        if not training:
            return rate * old + (1 - rate) * new
        rows = max(new.shape[0], old.shape[0])
        shape = torch.broadcast_shapes(new.shape[1:], old.shape[1:])
        kept = self._kept(site, new.expand(rows, *shape), rate, per)
        return torch.where(kept > 0, new, old)

    def _rate(self, expr: Expr) -> float:
        if isinstance(expr, Ref) and expr.name in self.bound.rates:
            return self.bound.rates[expr.name]
        return float(self.value(expr))

    def _kept(self, site: int, like: Tensor, rate: float, per: str) -> Tensor:
        """1 where a lane's draw is at least the rate."""
        rows, shape = like.shape[0], like.shape[1:]
        lanes = int(np.prod(shape, dtype=int))
        step = self.number if per == "step" else 0
        coordinates = (site, np.arange(rows)[:, None], step, np.arange(lanes)[None, :])
        draws = uniform(self.bound.call.seed, *coordinates).reshape(rows, *shape)
        return torch.from_numpy((draws >= rate).astype(np.float64))


def uniform(seed: int, *coordinates: int | np.ndarray) -> np.ndarray:
    """24 random bits of a chain of finalisers (lowbias32), as numbers in [0, 1)."""
    mask = np.uint64(0xFFFFFFFF)

    def mix(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.uint64) & mask
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & mask
        return x ^ (x >> np.uint64(16))

    key = mix(mix(np.uint64(seed & 0xFFFFFFFF)) ^ np.uint64(seed >> 32))
    for coordinate in coordinates:
        key = mix(key + np.asarray(coordinate).astype(np.uint64))
    return (key >> np.uint64(8)).astype(np.float64) * 2.0**-24


# ---- a call ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """The numbers of one call, by name; inputs [batch, time, ...] as time goes.

    valid: [batch, time], or None. starts: given states. kept: what a stateful layer has kept.
    resets: [batch, time], before which steps a row starts anew, or None.
    """

    arrays: Arrays
    starts: Arrays
    valid: np.ndarray | None
    batch: int
    time: int
    resets: np.ndarray | None = None


def forward(bound: Bound, given: Given, leaves: Tensors) -> Tensors:
    """y.0, y.1 ... and state.<name>: all that a layer may return, outputs of every step.

    leaves: every array, and a tensor for every state: what it starts from, or what is added to
    the weight or constant it starts from.
    """
    call, cell = bound.call, bound.cell
    order = list(range(given.time))[:: -1 if call.go_backwards else 1]
    valid = np.ones((given.batch, given.time), bool) if given.valid is None else given.valid
    flags = torch.from_numpy(valid.copy())
    inputs = _inputs(bound, leaves, flags)
    fixed = {a.name: leaves[a.name] for a in cell.arrays("context")}
    fixed |= {a.name: leaves[a.name][None] for a in cell.arrays("weight", "constant")}
    starts = bound.starts()
    carried: dict[tuple[str, int], Tensor] = {}
    for shown, key in bound.states.items():
        start = leaves[f"state.{shown}"]
        if shown in starts and shown not in given.starts:
            start = start + leaves[starts[shown]]
        carried[key] = start
    anew = _anew(bound, given, leaves, carried)
    goes_on = call.stateful and bool(given.starts)
    boundaries, pending = _boundaries(given, call.go_backwards), flags[:, :0].any(1)
    held: list[Tensor | None] = [None] * len(cell.returns)
    seen = torch.zeros(given.batch, dtype=torch.bool)
    outputs: list[list[Tensor]] = [[] for _ in cell.returns]
    zeros = call.zero_output_for_mask and call.return_sequences
    for number, t in enumerate(order):
        pending = pending | boundaries[:, number]
        now = pending & flags[:, t]
        now = now if goes_on else now & seen  # a row's first step is where it starts anyway
        carried = {k: _select(now, anew[k], c) for k, c in carried.items()}
        pending = pending & ~flags[:, t]
        timed = carried | {(name, 0): x[:, t] for name, x in inputs.items()}
        step = Step(bound, fixed, timed, {}, number, given.batch)
        returned = [spread(tensor(step.value(e)), given.batch) for e in cell.returns]
        following = {}
        for name, back in carried:
            earlier = (name, back - 1)
            following[name, back] = timed[earlier] if earlier in timed else step.state(name)
        now = flags[:, t]
        carried = {k: _select(now, following[k], old) for k, old in carried.items()}
        seen = seen | now
        shown_now = now if zeros else seen
        for i, value in enumerate(returned):
            before = held[i]
            new = value if before is None else _select(now, value, before)
            held[i] = new
            outputs[i].append(_select(shown_now, new, torch.zeros_like(new)))
    made = {f"y.{i}": torch.stack(o, 1) for i, o in enumerate(outputs)}
    made |= {f"state.{shown}": carried[key] for shown, key in bound.states.items()}
    pending = pending | boundaries[:, len(order)]
    kept = {k: _select(pending, anew[k], c) for k, c in carried.items()}
    return made | {f"kept.{shown}": kept[key] for shown, key in bound.states.items()}


def _boundaries(given: Given, backwards: bool) -> Tensor:
    """[batch, time + 1]: before which steps a row starts anew, as they run, and behind the last."""
    boundaries = np.zeros((given.batch, given.time + 1), bool)
    if given.resets is not None:
        boundaries[:, :-1] = given.resets
    return torch.from_numpy(boundaries[:, ::-1].copy() if backwards else boundaries)


def _anew(
    bound: Bound, given: Given, leaves: Tensors, carried: dict[tuple[str, int], Tensor]
) -> dict[tuple[str, int], Tensor]:
    """What states start anew from: what they started from, but where they go on from a call before
    what the cell declares. Where nobody said any, of no state, those are zeros and no argument."""
    starts, goes_on = bound.starts(), bound.call.stateful and bool(given.starts)
    anew = {}
    for shown, key in bound.states.items():
        anew[key] = carried[key]
        if goes_on:
            anew[key] = torch.zeros_like(carried[key])
            if shown in starts:
                anew[key] = anew[key] + leaves[starts[shown]]
        elif not given.starts and not starts:
            anew[key] = carried[key].detach()
    return anew


def _inputs(bound: Bound, leaves: Tensors, flags: Tensor) -> Tensors:
    """Zeros where a step is masked: what is there may be NaN."""
    inputs = {}
    for array in bound.cell.arrays("input"):
        x = leaves[array.name]
        inputs[array.name] = torch.where(_like(flags, x), x, torch.zeros_like(x))
    return inputs


def _like(flags: Tensor, x: Tensor) -> Tensor:
    return flags.reshape(*flags.shape, *(1 for _ in x.shape[flags.ndim :]))


def _select(flag: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(_like(flag, new), new, old)


def leaves_of(bound: Bound, given: Given) -> Tensors:
    """Tensors to differentiate by, from the numbers of a call."""
    leaves = {n: torch.tensor(a, dtype=torch.float64) for n, a in given.arrays.items()}
    for shown, (name, _) in bound.states.items():
        shape = (given.batch, *bound.shapes[name])
        start = given.starts.get(shown)
        start = np.zeros(shape) if start is None else start
        leaves[f"state.{shown}"] = torch.tensor(start, dtype=torch.float64)
    for leaf in leaves.values():
        leaf.requires_grad_(True)
    return leaves


# ---- everything a call shows -----------------------------------------------------------------

Cotangents = Callable[[str, tuple[int, ...]], np.ndarray]


def returned(bound: Bound, made: Tensors) -> Tensors:
    """What the layer gives back: of outputs every step or the last one, of states if asked for."""
    call = bound.call
    whole = {n: y for n, y in made.items() if n.startswith("y.")}
    if not call.return_sequences:
        whole = {n: y[:, -1] for n, y in whole.items()}
    states = {n: s for n, s in made.items() if n.startswith("state.")}
    return {**whole, **states} if call.return_state else whole


def gradients(
    bound: Bound, given: Given, cotangents: Cotangents, second: Cotangents | None
) -> tuple[Tensors, Arrays]:
    """Everything by name: y.*, state.*, grad.*, and with `second` also second.*.

    Also what was computed of the states, for a stateful layer's next call.
    """
    leaves = leaves_of(bound, given)
    made = forward(bound, given, leaves)
    out = returned(bound, made)
    dy = {
        n: torch.tensor(cotangents(n, tuple(y.shape)), dtype=torch.float64, requires_grad=True)
        for n, y in out.items()
    }
    total = sum(((y * dy[n]).sum() for n, y in out.items()), torch.zeros(()))
    constants = {c.name for c in bound.cell.arrays("constant")}
    names = [n for n in leaves if n not in constants]
    found = _grad(total, [leaves[n] for n in names], create_graph=second is not None)
    grads = {f"grad.{n}": g for n, g in zip(names, found)}
    result = {**out, **grads}
    if second is not None:
        parts = [(g * torch.tensor(second(n, tuple(g.shape)))).sum() for n, g in grads.items()]
        targets = [*dy.values(), *(leaves[n] for n in names)]
        again = _grad(sum(parts, torch.zeros(())), targets)
        labels = [*(f"second.dy.{n}" for n in dy), *(f"second.{n}" for n in names)]
        result |= dict(zip(labels, again))
    last = {n: s.detach().numpy().copy() for n, s in made.items() if n.startswith("kept.")}
    return {n: a.detach() for n, a in result.items()}, last


def _grad(total: Tensor, leaves: list[Tensor], create_graph: bool = False) -> list[Tensor]:
    if not total.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(total, leaves, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves)]
