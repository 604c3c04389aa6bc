"""What modules in place of torch.nn's have in common: kernels for the numbers their weights hold,
made anew when that changes, and how these round.

torch.ao.quantization knows modules by their exact type, so `quantize_dynamic(model,
{torch.nn.LSTM})` passes by ours. But it sets `qconfig` of every module: there we are asked.

    quantize_dynamic(model, {rnncc.torch.LSTM, torch.nn.Linear})    ours keep int8 weights
    quantize_dynamic(model, {torch.nn.LSTM, torch.nn.Linear})       UserWarning: ours stay

Non-Goals: calls (`stack`, `step_cells`); rounding weights (`quantized_packing`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, ClassVar

import torch

from rnncc.drawing.chosen import ChosenCell
from rnncc.runtime.api.validation import storage_name
from rnncc.runtime.common.precision import precision_of
from rnncc.runtime.common.weight_formats import NARROW, narrowed
from rnncc.torch.ops import NO_SCRIPT
from rnncc.torch.recipe import COMPUTED_IN, KERNELS
from rnncc.torch.shown import ShownModule, cells_of

_MADE = ("_recurrences", "_dtype")  # what `_prepare` makes


class KernelModule(ShownModule, torch.nn.Module):
    """precision, weights: how kernels round, as in `rnncc.Layer`; may be set at any time."""

    precision: str = "float32"
    weights: str = "float32"
    _read: ClassVar[frozenset[str]]  # attributes that kernels are made of, beside those two
    _first: ClassVar[str]  # the weight whose dtype is that of all
    _recurrences: list[Any]

    def _kernels(self, dtype: str) -> list[Any]:
        """The recurrences a call runs, of weights of this dtype."""
        raise NotImplementedError

    def _prepare(self) -> None:
        """Kernels for the dtype that weights have now; none for one that has no kernels."""
        dtype = getattr(self, self._first).dtype
        name = COMPUTED_IN.get(dtype)
        self._recurrences = [] if name is None else self._kernels(name)
        self._dtype = dtype

    def _start(self, rounded: tuple[str, str]) -> None:
        """The end of a constructor. TypeError for weights that no kernels are for."""
        self.precision, self.weights = rounded
        self._prepare()
        if not self._recurrences:
            raise self._refuse_dtype()

    def _renew(self) -> None:
        """Other kernels where others have put weights of another dtype into the parameters, as
        torch.func.functional_call does."""
        weight = self._parameters.get(self._first)
        if weight is None:
            weight = getattr(self, self._first)
        if weight.dtype is not self._dtype:
            self._prepare()

    def _refuse_dtype(self) -> TypeError:
        return TypeError(f"{type(self).__name__} has weights of {self._dtype}: {KERNELS}")

    def __setattr__(self, attr: str, value: Any) -> None:
        if attr in ("precision", "weights"):
            given = {"precision": self.precision, "weights": self.weights, attr: value}
            value = rounding(**given)[attr == "weights"]
        super().__setattr__(attr, value)
        if "_recurrences" in self.__dict__:
            is_read = attr in self._read or attr in ("precision", "weights")
            if is_read or (attr == self._first and value.dtype is not self._dtype):
                self._prepare()

    def _as_node(self, proxy: Any, *given: Any, **named: Any) -> Any:
        """This module as one node of a graph that torch.fx traces, as torch's own are."""
        tracer = proxy.tracer
        return tracer.create_proxy("call_module", tracer.path_of_module(self), given, named)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        moved = super()._apply(fn, recurse)
        self._prepare()
        return moved

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[misc]
        return {n: v for n, v in state.items() if n not in _MADE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    def __prepare_scriptable__(self) -> None:
        raise TypeError(NO_SCRIPT)

    def _shown_cells(self) -> Iterable[ChosenCell]:
        return cells_of(r.recipe for r in self._recurrences)

    # ---- torch.ao.quantization ----------------------------------------------------------------

    @property
    def qconfig(self) -> Any:
        """How torch.ao.quantization was asked to treat this module. AttributeError: not at all."""
        if "_qconfig" not in self.__dict__:
            raise AttributeError("qconfig")
        return self.__dict__["_qconfig"]

    @qconfig.setter
    def qconfig(self, wanted: Any) -> None:
        self.__dict__["_qconfig"] = wanted
        if wanted is None:
            if self.weights not in NARROW:
                own = f"rnncc.torch.{type(self).__name__}"
                self._leave(f"is not asked for {own}: name that type, or set weights='int8'")
            return
        dynamic = bool(getattr(wanted.activation(), "is_dynamic", False))
        kind = getattr(wanted.weight(), "dtype", None)
        if dynamic and kind is torch.qint8:
            self.weights = "int8"
        else:
            asked = f"{'dynamic' if dynamic else 'static'} quantization to {kind}"
            self._leave(f"is asked for {asked}: there are weights='int8' and weights='bfloat16'")

    @qconfig.deleter
    def qconfig(self) -> None:
        self.__dict__.pop("_qconfig", None)

    def _leave(self, why: str) -> None:
        name = type(self).__name__
        warnings.warn(
            f"torch.ao.quantization leaves {name} of rnncc.torch as it is. It {why}", stacklevel=4
        )


def storage_for(weights: Any, dtype: str) -> str:
    """Of kernels that read weights of this dtype, from the keyword. ValueError for a narrow one of
    what isn't float32."""
    narrow = narrowed(storage_name(weights))
    if narrow and dtype != "float32":
        raise ValueError(
            f"weights={weights!r} narrows weights of float32, this module's are {dtype}: leave "
            f"weights= or dtype=torch.{dtype} out"
        )
    return narrow


def checked_nonlinearity(name: Any) -> str:
    """What an RNN computes its state by. ValueError for another one than torch's two."""
    if name not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity is 'tanh' or 'relu', not {name!r}")
    return str(name)


def rounding(precision: Any, weights: Any) -> tuple[str, str]:
    """Both keywords, as modules keep them. ValueError and TypeError for what they can't be."""
    return precision_of(precision, "float32"), storage_name(weights) or "float32"
