"""Where the tensors are that a cell's equations name: of the cell, found anew at every call.

Parameters and buffers are found by their modules' paths, so whatever stands there counts: another
tensor, a frozen one, one that a parametrization computes.

Non-Goals: what they are used for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from rnncc.torch.reading.reader import Owned


@dataclass(frozen=True, slots=True)
class AttributePlace:
    """An attribute of a module inside of another."""

    path: tuple[str, ...]
    attribute: str

    def find(self, root: torch.nn.Module) -> Tensor:
        module: Any = root
        for name in self.path:
            module = module._modules[name]
        found = module._parameters.get(self.attribute)
        tensor: Tensor = getattr(module, self.attribute) if found is None else found
        return tensor


@contextmanager
def owned_by(cell: torch.nn.Module) -> Iterator[dict[int, Owned]]:
    """Tensors that a cell reads, by their ids. Within, those that parametrizations compute are the
    same at every use."""
    with parametrize.cached():
        found: dict[int, Owned] = {}
        alive = []  # an id means what it does as long as it lives
        for path, module in cell.named_modules():
            if isinstance(module, parametrize.ParametrizationList | torch.nn.ModuleDict):
                continue
            steps = tuple(path.split(".")) if path else ()
            if parametrize.is_parametrized(module):
                for name in module.parametrizations:
                    tensor = getattr(module, name)
                    alive.append(tensor)
                    found[id(tensor)] = _owned(steps, name, True)
            for name, tensor in module.named_parameters(recurse=False):
                found.setdefault(id(tensor), _owned(steps, name, True))
            for name, tensor in module.named_buffers(recurse=False):
                found.setdefault(id(tensor), _owned(steps, name, False))
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    found.setdefault(id(value), _owned(steps, name, value.requires_grad))
        yield found


def _owned(path: tuple[str, ...], name: str, trained: bool) -> Owned:
    return Owned("_".join([*path, name]), AttributePlace(path, name), trained)


Source: TypeAlias = AttributePlace | Tensor


def tensors_of(
    root: torch.nn.Module, sources: Sequence[Source], dtype: torch.dtype
) -> list[Tensor]:
    """Those that equations name. What isn't float counts as numbers."""
    found = [s.find(root) if isinstance(s, AttributePlace) else s for s in sources]
    return [t if t.is_floating_point() else t.to(dtype) for t in found]


_PLAIN = (bool, int, float, str, type(None))


def facts_of(cell: torch.nn.Module) -> tuple[Any, ...]:
    """What a cell's forward may have read beside tensors: its modules, and what numbers and texts
    they hold. Another reading is due when it changes."""
    found: list[Any] = []
    for module in cell.modules():
        found.append(type(module))
        found.extend(
            (n, v) for n, v in vars(module).items() if type(v) in _PLAIN and n != "training"
        )
    return tuple(found)


def named(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Names in a text -> where their tensors are: a AttributePlace, or the tensor itself."""
    found: dict[str, Any] = {}
    for name, leaf in leaves.items():
        if leaf.array is not None:
            found[name] = torch.from_numpy(leaf.array)
        else:
            own, _ = leaf.key
            found[name] = own.key
    return found
