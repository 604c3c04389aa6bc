"""What of a model `convert` swaps, and why it leaves the rest.

Non-Goals: swapping (`convert`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from rnncc.torch.kernel_module import KernelModule
from rnncc.torch.recipe import COMPUTED_IN, KERNELS
from rnncc.torch.recurrent import Recurrent
from rnncc.torch.stack import GRU, LSTM, RNN
from rnncc.torch.step_cells import GRUCell, LSTMCell, RNNCell

OURS: dict[type, type[KernelModule]] = {
    torch.nn.LSTM: LSTM,
    torch.nn.GRU: GRU,
    torch.nn.RNN: RNN,
    torch.nn.LSTMCell: LSTMCell,
    torch.nn.GRUCell: GRUCell,
    torch.nn.RNNCell: RNNCell,
}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}
_DEVICES = ("cpu", "cuda", "meta")


@dataclass(frozen=True, slots=True)
class ModuleFate:
    """A recurrent module: its names in the model, its class, why it was left; "" if it wasn't."""

    names: tuple[str, ...]
    kind: str
    left: str

    def __str__(self) -> str:
        name = " = ".join(n or "(the model)" for n in self.names)
        return f"{name}: {self.kind}{f', left: {self.left}' if self.left else ''}"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of a model's recurrent modules: `converted`. str: a line for each."""

    swapped: tuple[ModuleFate, ...]
    left: tuple[ModuleFate, ...]

    def __str__(self) -> str:
        count = len(self.swapped) + len(self.left)
        if not count:
            return "no recurrent modules that rnncc knows"
        head = f"{len(self.swapped)} of {count} recurrent modules run on rnncc's kernels"
        return "\n".join([head, *(f"  {fate}" for fate in (*self.swapped, *self.left))])


def converted(model: torch.nn.Module) -> Conversion:
    """Which recurrent modules of a model run on rnncc's kernels, and why others don't: before
    `convert`, those it would leave."""
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    swapped, left = [], []
    for module in outside_of_cells(model):
        theirs = parametrize.type_before_parametrizations(module)
        kind, own = theirs.__name__, tuple(names[id(module)])
        if isinstance(module, KernelModule | Recurrent):
            swapped.append(ModuleFate(own, f"rnncc.torch.{kind}", ""))
        elif is_recurrent(module):
            left.append(ModuleFate(own, kind, reason(module) or "not converted"))
    return Conversion(tuple(swapped), tuple(left))


def outside_of_cells(model: torch.nn.Module) -> list[torch.nn.Module]:
    """All modules but those that a `Recurrent` reads: a cell of torch's is text to it."""
    inside = {id(m) for r in model.modules() if isinstance(r, Recurrent) for m in r.modules()}
    return [m for m in model.modules() if isinstance(m, Recurrent) or id(m) not in inside]


def is_recurrent(module: torch.nn.Module) -> bool:
    """Whether it is one of torch's, or made of one."""
    if isinstance(module, torch.nn.RNNBase | torch.nn.RNNCellBase):
        return True
    # TorchScript's, and torch's quantized ones, which are no classes of torch.nn's.
    kind = getattr(module, "original_name", type(module).__name__)
    known = {c.__name__ for c in OURS}
    script = isinstance(module, torch.jit.ScriptModule)
    return kind in known and (script or type(module).__module__.startswith("torch."))


def reason(module: torch.nn.Module) -> str:
    """Why a recurrent module that is none of ours can't become one; "" if it can."""
    kind = parametrize.type_before_parametrizations(module)
    if isinstance(module, torch.jit.ScriptModule):
        return "it is TorchScript"
    if kind not in OURS:
        if kind.__module__.startswith("torch."):
            return f"{kind.__module__} has kernels of its own"
        base = next((b.__name__ for b in kind.__mro__ if b in OURS), "")
        which = f"a subclass of torch.nn.{base}" if base else "a module of torch.nn.RNNBase"
        return f"{which} may compute something else: if not, cells={{{kind.__name__}: ...}}"
    if "forward" in vars(module):
        return "its forward was replaced"
    weights = [t for n in _first(module) if isinstance(t := getattr(module, n), Tensor)]
    for t in weights:
        if t.dtype not in COMPUTED_IN:
            return f"its weights are {t.dtype}: {KERNELS}"
        if t.device.type not in _DEVICES:
            return f"it is on {t.device}: rnncc has kernels for the CPU and for CUDA"
    return ""


def _first(module: torch.nn.Module) -> list[str]:
    names: list[str] = getattr(module, "_flat_weights_names", ["weight_ih"])
    return names[:1]
