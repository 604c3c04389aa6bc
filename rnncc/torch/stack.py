"""LSTM, GRU and RNN in place of torch.nn's: the same arguments, parameters, inputs and outputs.

Parameters, their names, layouts and initial values are torch's own: a state_dict of either loads
into the other. What is computed is a cell of this folder's .rnn files, whose weights are laid out
as torch's; a layer, both directions of it, is one call of `ops.run`. A PackedSequence runs padded,
its lengths as the mask: behind the last step of a row states stay as they are.

Non-Goals: other cells (`recurrent`); TorchScript.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from rnncc.compiler import compile as compile_cell
from rnncc.runtime.api.layer import Layer
from rnncc.runtime.api.validation import an
from rnncc.runtime.common.one_for_all import one_for_all
from rnncc.runtime.common.precision import precision_of
from rnncc.torch.ops import NO_SCRIPT, is_plain, run
from rnncc.torch.packed import OverRows, PackedRows, rows_of
from rnncc.torch.recipe import DTYPES, Recipe
from rnncc.torch.recurrence import Recurrence, by_steps, recurrence_of

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@one_for_all
def _cell(name: str) -> type[Layer]:
    return compile_cell(Path(__file__).with_name(f"{name}.rnn"))


class _Stack(torch.nn.RNNBase):
    """Layers one above the other."""

    _spec: str
    _functions: tuple[tuple[str, str], ...] = ()

    def __init__(self, mode: str, *args: Any, precision: str = "float32", **kwargs: Any) -> None:
        self.precision = precision_of(precision, "float32")
        super().__init__(mode, *args, **kwargs)
        self._prepare()

    def _prepare(self) -> None:
        """The recurrences of the layers, for the dtype that weights have now: none for one that
        has no kernels."""
        self._recurrences: list[Recurrence] = []
        name = _NAMES.get(getattr(self, self._flat_weights_names[0]).dtype)
        if name is None:
            return
        ways = 2 if self.bidirectional else 1
        sizes = {"hidden_size": self.hidden_size}
        if self.proj_size:
            sizes["proj_size"] = self.proj_size
        for layer in range(self.num_layers):
            width = (self.proj_size or self.hidden_size) * ways if layer else self.input_size
            recipe = Recipe(
                _cell(f"projected_{self._spec}" if self.proj_size else self._spec),
                (("input_size", width), *sizes.items()),
                options=(("bias", self.bias),),
                functions=self._functions,
                dtype=name,
                directions=(False, True)[:ways],
                in_place=True,
                stacked=True,
                time_major=not self.batch_first,
                precision=precision_of(self.precision, name),
            )
            recurrence = recurrence_of(recipe)
            recurrence.kernels.serve(self, ways)
            self._recurrences.append(recurrence)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        moved = super()._apply(fn, recurse)
        self._prepare()
        return moved

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state.pop("_recurrences")
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    def __prepare_scriptable__(self) -> None:
        raise TypeError(NO_SCRIPT)

    def plan(self) -> str:
        """Which kernels ran in the last calls, and why."""
        plans = [f"layer {n}: {r.plan()}" for n, r in enumerate(self._recurrences)]
        return "\n".join([repr(self), *plans])

    # ---- calls --------------------------------------------------------------------------------

    def forward(self, input: Any, hx: Any = None) -> Any:
        """(output, last states), as torch.nn's: the same shapes, checks and PackedSequences.

        input: [time, batch, input_size], [batch, time, ...] if batch_first, [time, ...] of one
        sequence, or a PackedSequence. hx: [layers * directions, batch, size], of an LSTM a pair.
        ValueError, RuntimeError and TypeError for another shape, dtype or device.
        """
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        name = type(self).__name__
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}: input is {an(type(input).__name__)}: give a torch tensor")
        if input.is_nested:
            raise TypeError(f"{name}: input is nested: torch.nn.utils.rnn.pack_sequence packs it")
        if input.dim() not in (2, 3):
            raise ValueError(f"{name}: input is 2-D or 3-D, not {input.dim()}-D")
        alone, axis = input.dim() == 2, 0 if self.batch_first else 1
        if alone:
            input = input.unsqueeze(axis)
        self.check_input(input, None)
        states = self._states(hx, input.size(axis), alone)
        y, finals = self._layers(input, states, None)
        if alone:
            y, finals = y.squeeze(axis), [f.squeeze(1) for f in finals]
        return y, self._given(finals)

    def _packed(self, packed: PackedSequence, hx: Any) -> Any:
        data, sizes, order, back = packed
        self.check_input(data, sizes)
        states = self._states(hx, int(sizes[0]), False)
        if order is not None and states is not None:
            states = [s.index_select(1, order) for s in states]
        if self._recurrences and is_plain(data, self._recurrences[0].torch_dtype):
            y, finals = self._layers(data, states, rows_of(sizes))
        else:
            padded, lengths = torch._VF._pad_packed_sequence(  # type: ignore[attr-defined]
                data, sizes, self.batch_first, 0.0, len(sizes)
            )
            y, finals = self._layers(padded, states, lengths)
            y, _ = torch._VF._pack_padded_sequence(  # type: ignore[attr-defined]
                y, lengths, self.batch_first
            )
        if back is not None:
            finals = [f.index_select(1, back) for f in finals]
        return PackedSequence(y, sizes, order, back), self._given(finals)

    def _given(self, finals: Sequence[Tensor]) -> Any:
        return tuple(finals) if self.mode == "LSTM" else finals[0]

    def _states(self, hx: Any, batch: int, alone: bool) -> list[Tensor] | None:
        """Initial states, [layers * directions, batch, size] each."""
        if hx is None:
            return None
        widths = [self.proj_size or self.hidden_size, self.hidden_size]
        if self.mode != "LSTM":
            hx, widths = (hx,), widths[:1]
        if not isinstance(hx, tuple | list) or len(hx) != len(widths):
            raise RuntimeError(f"hx of {type(self).__name__} is a pair of tensors (h_0, c_0)")
        rows = self.num_layers * (2 if self.bidirectional else 1)
        states, narrowed = [], torch.is_autocast_enabled("cpu")
        for name, state, width in zip(("h_0", "c_0"), hx, widths, strict=False):
            if not isinstance(state, Tensor):
                raise TypeError(f"{name} is {an(type(state).__name__)}: give a torch tensor")
            batched = state.unsqueeze(1) if alone and state.dim() == 2 else state
            if batched.shape != (rows, batch, width):
                expected = [rows, width] if alone else [rows, batch, width]
                raise RuntimeError(f"{name} has shape {list(state.shape)}, expected {expected}")
            states.append(batched.to(self._recurrences[0].torch_dtype) if narrowed else batched)
        return states

    def _weights(self, first: int, ways: int) -> list[Tensor]:
        """Of one layer. By attribute only those that a parametrization has taken away from the
        parameters: looking there first is what Module.__getattr__ does, in less time."""
        parameters = self._parameters
        names = [n for at in range(first, first + ways) for n in self._all_weights[at]]
        return [parameters[n] if n in parameters else getattr(self, n) for n in names]  # type: ignore[misc]

    def _layers(
        self, x: Tensor, states: list[Tensor] | None, steps: Tensor | PackedRows | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The outputs of the last layer, and the last states of all of them. steps: lengths, or
        what the rows are that x is."""
        if not self._recurrences:
            dtype = getattr(self, self._flat_weights_names[0]).dtype
            raise TypeError(
                f"{type(self).__name__} has weights of {dtype}: rnncc has kernels for "
                "torch.float32 and torch.float64"
            )
        ways, ends = 2 if self.bidirectional else 1, []
        if x.dtype is not self._recurrences[0].torch_dtype:  # autocast hands on what is narrower
            x = x.to(self._recurrences[0].torch_dtype)
        masked = isinstance(steps, Tensor)
        for layer, recurrence in enumerate(self._recurrences):
            tensors = [x, steps] if isinstance(steps, Tensor) else [x]
            if states is not None:
                rows = slice(layer * ways, (layer + 1) * ways)
                tensors += states if self.num_layers == 1 else [s[rows] for s in states]
            tensors += self._weights(layer * ways, ways)
            x, *finals = run(
                OverRows(by_steps(recurrence), steps)
                if isinstance(steps, PackedRows)
                else recurrence,
                tensors,
                training=self.training,
                given=states is not None,
                masked=masked,
            )
            ends.append(finals)
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = dropout(x, self.dropout)
        if len(ends) == 1:
            return x, ends[0]
        return x, [torch.cat(parts) for parts in zip(*ends, strict=True)]


class LSTM(_Stack):
    """torch.nn.LSTM: the same arguments, parameters, calls and initial values."""

    _spec = "lstm"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(_Stack):
    """torch.nn.GRU: the same arguments, parameters, calls and initial values."""

    _spec = "gru"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)


class RNN(_Stack):
    """torch.nn.RNN: the same arguments, parameters, calls and initial values."""

    _spec = "rnn"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse_projection(kwargs)
        if len(args) > 3:
            self.nonlinearity, args = args[3], (*args[:3], *args[4:])
        else:
            self.nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity is 'tanh' or 'relu', not {self.nonlinearity!r}")
        super().__init__(f"RNN_{self.nonlinearity.upper()}", *args, **kwargs)

    @property
    def _functions(self) -> tuple[tuple[str, str], ...]:  # type: ignore[override]
        return (("nonlinearity", self.nonlinearity),)


def _refuse_projection(kwargs: dict[str, Any]) -> None:
    if "proj_size" in kwargs:
        raise ValueError("proj_size is an argument of LSTM alone")
