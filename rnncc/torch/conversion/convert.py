"""A torch model whose recurrent modules run on rnncc's kernels, everything else as it was.

    model = rnncc.torch.convert(model)                  a copy of the modules, the same parameters
    rnncc.torch.convert(model, inplace=True)            the modules themselves
    print(rnncc.torch.converted(model))                 what runs where, and what was left, and why

A module of torch.nn's becomes ours by its class alone: parameters, buffers, hooks, attributes, and
whoever holds it, stay. So tied weights stay tied, shared modules shared, optimizers that know the
parameters go on, and a state_dict has the same names and bits.

    with rnncc.torch.restored(model):                   torch's own again, within
        model.apply(initialise)                         that looks for torch.nn.LSTM

Non-Goals: recurrences that a forward writes as a loop (`recurrent`, `scan`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from rnncc.common.layer_keywords import Precision, Storage
from rnncc.torch.conversion.report import (
    OURS,
    THEIRS,
    converted,
    is_recurrent,
    outside_of_cells,
    reason,
)
from rnncc.torch.kernel_module import KernelModule, rounding

Made: TypeAlias = Callable[[torch.nn.Module], torch.nn.Module | None]

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_ROUNDED = ("precision", "weights")


def convert(
    model: torch.nn.Module,
    cells: Mapping[type, type[KernelModule] | Made] | Made | None = None,
    *,
    inplace: bool = False,
    precision: Precision | None = None,
    weights: Storage | None = None,
) -> torch.nn.Module:
    """The model, its LSTM, GRU, RNN, LSTMCell, GRUCell and RNNCell of torch.nn being ours.

    cells: for modules of one's own, by their class, or for any module: what is given one and gives
        a module in its place, itself to leave it, or None: as without; or a class of ours, for a
        subclass of torch's that computes the same.
    inplace: the model itself; otherwise a copy, which shares all parameters and buffers with it.
    precision, weights: as in `rnncc.Layer`; also of those that are ours already.

    UserWarning for what is left, and for parameters that a module in another's place lacks.
    TypeError, ValueError for other arguments; then nothing is changed.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"a model is a torch.nn.Module, not a {type(model).__name__}")
    rounding(precision, weights)
    chosen = {n: v for n, v in zip(_ROUNDED, (precision, weights), strict=True) if v is not None}
    made_by = _makers(cells)
    if not inplace:
        model = _copied(model)
    before: list[tuple[torch.nn.Module, type, dict[str, Any]]] = []
    instead: dict[int, torch.nn.Module] = {}
    within: set[int] = set()  # modules that stand inside of such as another stands for
    try:
        for module in outside_of_cells(model):
            ours = None if id(module) in within else made_by(module)
            if isinstance(ours, torch.nn.Module):
                instead[id(module)] = _in_place_of(module, ours)
                within.update(map(id, module.modules()))
            elif ours is not None:
                theirs = parametrize.type_before_parametrizations(module)
                before.append((module, theirs, dict(vars(module))))
                _become(module, ours, chosen)
    except BaseException:
        for module, theirs, attributes in before:
            _set_class(module, theirs)
            vars(module).clear()
            vars(module).update(attributes)
        raise
    model = _put(model, instead)
    left = converted(model).left
    if left or not (before or instead):
        told = "\n".join(map(str, left)) or "no recurrent modules that rnncc knows"
        warnings.warn(f"convert: {told}", stacklevel=2)
    return model


@contextmanager
def restored(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The model with torch's own modules in place of ours, within: for what looks for those by
    class (initialisers, torch.jit.script, quantize_dynamic)."""
    done = [m for m in model.modules() if isinstance(m, KernelModule)]
    kinds = [THEIRS[parametrize.type_before_parametrizations(m)] for m in done]
    try:
        for module, theirs in zip(done, kinds, strict=True):
            _return(module, theirs)
        yield model
    finally:
        for module, theirs in zip(done, kinds, strict=True):
            if not isinstance(module, KernelModule):
                _become(module, OURS[theirs], {})


def _makers(cells: Any) -> Callable[[torch.nn.Module], Any]:
    """What a module becomes: a class of ours, a module in its place, or None."""
    table: Mapping[type, Any] = {}
    if isinstance(cells, Mapping):
        table = cells
        for kind, made in table.items():
            if not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
                raise TypeError(f"cells: a key is a class of modules, not {kind!r}")
            if isinstance(made, type) and issubclass(made, KernelModule):
                if made not in THEIRS or not issubclass(kind, THEIRS[made]):
                    raise TypeError(f"cells: {kind.__name__} is no {_theirs_of(made)}")
            elif not callable(made):
                raise TypeError(f"cells: {kind.__name__} needs a function of a module")
    elif cells is not None and not callable(cells):
        raise TypeError("cells is a dict by classes, or a function of a module")

    def made_by(module: torch.nn.Module) -> Any:
        kind = parametrize.type_before_parametrizations(module)
        own = table.get(kind, cells if table is not cells else None)
        if isinstance(own, type) and issubclass(own, KernelModule):
            return own
        found = own(module) if own is not None else None
        if found is not None and not isinstance(found, torch.nn.Module):
            raise TypeError(
                f"cells: {kind.__name__} became a {type(found).__name__}: give a module, or None"
            )
        if found is not None:
            return None if found is module else found
        if isinstance(module, KernelModule):
            return kind
        return OURS[kind] if is_recurrent(module) and not reason(module) else None

    return made_by


def _theirs_of(ours: type[KernelModule]) -> str:
    return f"torch.nn.{THEIRS[ours].__name__}" if ours in THEIRS else ours.__name__


# ---- how ---------------------------------------------------------------------------------------


def _become(module: torch.nn.Module, ours: type[KernelModule], chosen: Mapping[str, str]) -> None:
    """chosen: precision and weights, those that were given."""
    _set_class(module, ours)
    vars(module).update(chosen)
    module._prepare()  # type: ignore[operator]


def _return(module: torch.nn.Module, theirs: type) -> None:
    _set_class(module, theirs)
    for name in ("_recurrences", "_dtype"):
        vars(module).pop(name, None)


def _set_class(module: torch.nn.Module, kind: type) -> None:
    """Of a parametrized module, torch has made a class that computes some of its attributes."""
    own = type(module)
    if not parametrize.is_parametrized(module):
        object.__setattr__(module, "__class__", kind)
    elif own.__bases__[0] is not kind:
        kept = {n: v for n, v in vars(own).items() if n not in ("__dict__", "__weakref__")}
        parametrized = type(f"Parametrized{kind.__name__}", (kind,), kept)
        object.__setattr__(module, "__class__", parametrized)


def _copied(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of all modules, of no tensor: not of those either that they hold as attributes, which
    may be results of a graph (`torch.nn.utils.weight_norm`)."""
    shared: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            held = value.values() if isinstance(value, dict) else value
            several = held if isinstance(value, dict | list | tuple) else [value]
            shared.update({id(t): t for t in several if isinstance(t, Tensor)})
    return copy.deepcopy(model, shared)


def _in_place_of(module: torch.nn.Module, made: torch.nn.Module) -> torch.nn.Module:
    """A module that stands where another stood: in its mode, with its hooks."""
    made.train(module.training)
    for name in _HOOKS:
        if vars(module).get(name):
            vars(made)[name] = vars(module)[name]  # the same dict, so that handles remove them
    known = {id(p) for p in made.parameters()}
    lost = [n for n, p in module.named_parameters() if id(p) not in known]
    if lost:
        warnings.warn(
            f"convert: {type(made).__name__} in place of {type(module).__name__} has not its "
            f"{', '.join(lost)}: an optimizer made before doesn't train what it has instead",
            stacklevel=3,
        )
    return made


def _put(model: torch.nn.Module, instead: dict[int, torch.nn.Module]) -> torch.nn.Module:
    """All modules that others stand for, by them."""
    if instead:
        for module in [*model.modules()]:
            for name, child in module._modules.items():
                if id(child) in instead:
                    setattr(module, name, instead[id(child)])
    return instead.get(id(model), model)
