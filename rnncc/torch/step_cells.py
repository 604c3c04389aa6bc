"""LSTMCell, GRUCell and RNNCell in place of torch.nn's: one step, the same arguments, parameters,
states and results. They are subclasses of torch's, so whoever looks for those finds ours.

A loop over steps in Python pays for a call and a node of autograd at each, as torch's does:
`rnncc.torch.scan`, or a layer, computes the loop.

Non-Goals: layers (`stack`); cells of one's own (`recurrent`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.fx import Proxy

from rnncc.common.layer_keywords import Precision, Storage
from rnncc.drawing.notebook import PlanText
from rnncc.runtime.api.validation import an
from rnncc.runtime.common.precision import precision_of
from rnncc.torch.builtin_cells import builtin_cell
from rnncc.torch.kernel_module import KernelModule, checked_nonlinearity, rounding, storage_for
from rnncc.torch.ops import run
from rnncc.torch.reading.trace import is_being_read
from rnncc.torch.recipe import Recipe
from rnncc.torch.recurrence import recurrence_of


class StepCell(KernelModule, torch.nn.RNNCellBase):
    """One step of a cell."""

    _spec: ClassVar[str]
    _states: ClassVar[int] = 1
    _chunks: ClassVar[int]
    _first = "weight_ih"
    _read = frozenset({"input_size", "hidden_size", "bias", "nonlinearity"})

    def _make(self, *sizes: Any, rounded: tuple[str, str], device: Any, dtype: Any) -> None:
        """What constructors have in common. sizes: input_size, hidden_size, bias."""
        self._check_sizes(*sizes)
        torch.nn.RNNCellBase.__init__(self, *sizes, self._chunks, device=device, dtype=dtype)
        self._start(rounded)

    def _check_sizes(self, input_size: Any, hidden_size: Any, bias: Any) -> None:
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
            if size <= 0:
                raise ValueError(f"{name} must be greater than zero")
        if not isinstance(bias, bool):
            raise TypeError(f"bias should be of type bool, got: {type(bias).__name__}")

    def _functions(self) -> tuple[tuple[str, str], ...]:
        return ()

    def _kernels(self, dtype: str) -> list[Any]:
        recipe = Recipe(
            builtin_cell(self._spec),
            (("input_size", self.input_size), ("hidden_size", self.hidden_size)),
            options=(("bias", self.bias),),
            functions=self._functions(),
            dtype=dtype,
            time_major=True,
            precision=precision_of(self.precision, dtype),
            storage=storage_for(self.weights, dtype),
        )
        recurrence = recurrence_of(recipe)
        recurrence.kernels.serve(self, 1)
        return [recurrence]

    def plan(self) -> str:
        """Which kernels ran in the last calls, and why."""
        return PlanText("\n".join([repr(self), *(r.plan() for r in self._recurrences)]))

    def forward(self, input: Any, hx: Any = None) -> Any:
        """The next state, of an LSTM a pair.

        input: [batch, input_size], or [input_size] of one row. hx: a state [batch, hidden_size], or
        [hidden_size] of one row, of an LSTM a pair of them; zeros where there is none.
        ValueError, RuntimeError and TypeError for another shape, dtype or device.
        """
        name = type(self).__name__
        if isinstance(input, Proxy):
            return self._as_node(input, input, hx)
        if is_being_read():
            return super().forward(input, hx)
        states = self._begun(hx)
        given = (("input", input), *states)
        for what, t in given:
            if not isinstance(t, Tensor):
                raise TypeError(f"{name}: {what} is {an(type(t).__name__)}: give a torch tensor")
        axes = [t.dim() for _, t in given]
        for (what, _), count in zip(given, axes, strict=True):
            if count not in (1, 2):
                raise ValueError(f"{name}: Expected {what} to be 1D or 2D, got {count}D instead")
        if axes.count(axes[0]) != len(axes):
            raise ValueError(f"{name}: input is {axes[0]}D, hidden isn't: give both of a batch")
        alone = axes[0] == 1
        tensors = [t.unsqueeze(0) if alone else t for _, t in given]
        self._check_rows(tensors)
        self._renew()
        if not self._recurrences:
            raise self._refuse_dtype()
        recurrence = self._recurrences[0]
        x, *begun = tensors
        parameters = self._parameters  # first: what Module.__getattr__ does, in less time
        weights = [parameters[n] if n in parameters else getattr(self, n) for n in recurrence.owned]
        results = run(
            recurrence,
            [x.unsqueeze(0), *begun, *weights],
            training=self.training,
            given=bool(begun),
        )
        finals = [t.squeeze(0) if alone else t for t in results[1:]]
        return tuple(finals) if self._states == 2 else finals[0]

    def _begun(self, hx: Any) -> list[tuple[str, Any]]:
        """States a call begins with, as messages call them."""
        if hx is None:
            return []
        if self._states == 1:
            return [("hidden", hx)]
        try:
            h, c = hx
        except (TypeError, ValueError):
            name = type(self).__name__
            raise TypeError(f"{name}: hx is a pair of tensors (h_0, c_0)") from None
        return [("hx[0]", h), ("hx[1]", c)]

    def _check_rows(self, tensors: list[Tensor]) -> None:
        """As torch says what doesn't fit."""
        x, *states = tensors
        if x.size(1) != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {x.size(1)} expected {self.input_size}"
            )
        for number, t in enumerate(states):
            if t.size(0) != x.size(0):
                raise RuntimeError(
                    f"Input batch size {x.size(0)} doesn't match hidden{number} batch size "
                    f"{t.size(0)}"
                )
            if t.size(1) != self.hidden_size:
                raise RuntimeError(
                    f"hidden{number} has inconsistent hidden_size: got {t.size(1)}, expected "
                    f"{self.hidden_size}"
                )


class LSTMCell(StepCell, torch.nn.LSTMCell):
    """torch.nn.LSTMCell: the same arguments, parameters, calls and initial values.

    precision, weights: as in `rnncc.Layer`. TypeError, ValueError as torch's or before."""

    _spec, _states, _chunks = "lstm", 2, 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        precision: Precision = "float32",
        weights: Storage = "float32",
    ) -> None:
        rounded = rounding(precision, weights)
        self._make(input_size, hidden_size, bias, rounded=rounded, device=device, dtype=dtype)


class GRUCell(StepCell, torch.nn.GRUCell):
    """torch.nn.GRUCell: the same arguments, parameters, calls and initial values.

    precision, weights: as in `rnncc.Layer`. TypeError, ValueError as torch's or before."""

    _spec, _chunks = "gru", 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        precision: Precision = "float32",
        weights: Storage = "float32",
    ) -> None:
        rounded = rounding(precision, weights)
        self._make(input_size, hidden_size, bias, rounded=rounded, device=device, dtype=dtype)


class RNNCell(StepCell, torch.nn.RNNCell):
    """torch.nn.RNNCell: the same arguments, parameters, calls and initial values.

    precision, weights: as in `rnncc.Layer`. TypeError, ValueError as torch's or before."""

    _spec, _chunks = "rnn", 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        device: Any = None,
        dtype: Any = None,
        *,
        precision: Precision = "float32",
        weights: Storage = "float32",
    ) -> None:
        rounded = rounding(precision, weights)
        self.__dict__["nonlinearity"] = checked_nonlinearity(nonlinearity)
        self._make(input_size, hidden_size, bias, rounded=rounded, device=device, dtype=dtype)

    def _functions(self) -> tuple[tuple[str, str], ...]:
        return (("nonlinearity", self.nonlinearity),)
