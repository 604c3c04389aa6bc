"""LSTM, GRU and RNN in place of torch.nn's: the same arguments, parameters, inputs and outputs.

They are torch.nn.RNNBases, but no torch.nn.LSTM, GRU or RNN: torch.compile refuses modules of those
classes and of all that is made of them. Parameters, their names, layouts and initial values are
torch's own: a state_dict of either loads into the other. What is computed is a cell of this
folder's .rnn files, whose weights are laid out as torch's; a layer, both directions of it, is one
call of `ops.run`. A PackedSequence runs padded, its lengths as the mask: behind the last step of a
row states stay as they are.

Non-Goals: other cells (`recurrent`); TorchScript.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.fx import Proxy
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence

from rnncc.common.layer_keywords import Precision, Storage
from rnncc.drawing.notebook import PlanText
from rnncc.runtime.api.validation import an
from rnncc.runtime.common.precision import precision_of
from rnncc.torch.builtin_cells import builtin_cell
from rnncc.torch.kernel_module import KernelModule, checked_nonlinearity, rounding, storage_for
from rnncc.torch.ops import is_plain, run
from rnncc.torch.packed import OverRows, PackedRows, rows_of, uncompiled
from rnncc.torch.recipe import Recipe
from rnncc.torch.recurrence import Recurrence, by_steps, recurrence_of
from rnncc.torch.steps import packed_steps, row_of, steps_of
from rnncc.torch.tracing import CellTrace, traced_layers

# Of RNN, whose mode says its function.
_FUNCTIONS = {f"RNN_{f.upper()}": (("nonlinearity", f),) for f in ("tanh", "relu")}


class RecurrentLayers(KernelModule, torch.nn.RNNBase):
    """Layers one above the other."""

    _spec: ClassVar[str]
    _read = frozenset(
        [
            "mode",
            "input_size",
            "hidden_size",
            "num_layers",
            "bias",
            "batch_first",
            "bidirectional",
            "proj_size",
        ]
    )

    def _make(self, mode: str, *sizes: Any, rounded: tuple[str, str]) -> None:
        """What constructors have in common. sizes: as RNNBase takes them, in order."""
        for name, size in (("num_layers", sizes[2]), ("proj_size", sizes[7])):
            if not isinstance(size, int):  # torch compares and multiplies it
                raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
        torch.nn.RNNBase.__init__(self, mode, *sizes)
        self._start(rounded)

    @property
    def _first(self) -> str:  # type: ignore[override]
        return self._flat_weights_names[0]  # type: ignore[no-any-return]

    def _kernels(self, name: str) -> list[Recurrence]:
        """One for each layer."""
        recurrences: list[Recurrence] = []
        ways = 2 if self.bidirectional else 1
        sizes = {"hidden_size": self.hidden_size}
        if self.proj_size:
            sizes["proj_size"] = self.proj_size
        for layer in range(self.num_layers):
            width = (self.proj_size or self.hidden_size) * ways if layer else self.input_size
            recipe = Recipe(
                builtin_cell(f"projected_{self._spec}" if self.proj_size else self._spec),
                (("input_size", width), *sizes.items()),
                options=(("bias", self.bias),),
                functions=_FUNCTIONS.get(self.mode, ()),
                dtype=name,
                directions=(False, True)[:ways],
                in_place=True,
                stacked=True,
                time_major=not self.batch_first,
                zeros=True,  # as pad_packed_sequence has them behind a row's end
                precision=precision_of(self.precision, name),
                storage=storage_for(self.weights, name),
            )
            recurrence = recurrence_of(recipe)
            recurrence.kernels.serve(self, ways)
            recurrences.append(recurrence)
        return recurrences

    def plan(self) -> str:
        """Which kernels ran in the last calls, and why."""
        plans = [f"layer {n}: {r.plan()}" for n, r in enumerate(self._recurrences)]
        return PlanText("\n".join([repr(self), *plans]))

    # ---- calls --------------------------------------------------------------------------------

    def forward(
        self, input: Any, hx: Any = None, *, lengths: Any = None, resets: Any = None
    ) -> Any:
        """(output, last states), as torch.nn's: the same shapes, checks and PackedSequences.

        input: [time, batch, input_size], [batch, time, ...] if batch_first, [time, ...] of one
        sequence, or a PackedSequence. hx: [layers * directions, batch, size], of an LSTM a pair.
        Which torch's have not: lengths: ints [batch], or one of one sequence: how many steps of
        each row count; behind them outputs are zeros, and last states those of a row's last step,
        as if it were packed and padded again. resets: bools [batch, time], or [time] of one
        sequence, or packed alike: before which steps a row starts anew, from hx or zeros, in every
        layer.
        ValueError, RuntimeError and TypeError for another shape, dtype or device.
        """
        self._renew()
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise TypeError(f"{type(self).__name__}: lengths of a PackedSequence are its own")
            if torch.compiler.is_compiling():
                return uncompiled(self._packed, input, hx, resets)
            return self._packed(input, hx, resets)
        if isinstance(input, Proxy):
            return self._as_node(input, input, hx, lengths=lengths, resets=resets)
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
        if alone:
            lengths, resets = row_of(lengths, 0), row_of(resets, 1)
        steps = steps_of(None, lengths, resets, input.size(1 - axis))
        y, finals = self._layers(input, states, steps)
        if alone:
            y, finals = y.squeeze(axis), [f.squeeze(1) for f in finals]
        return y, self._given(finals)

    def trace(
        self, input: Any, hx: Any = None, *, lengths: Any = None, resets: Any = None
    ) -> CellTrace:
        """Every value that the equations name, at every step, as tensors like the input, or padded
        where that is packed: i, f, g, o, c and h of an LSTM, r, z, n and h of a GRU.

        Names of several layers or directions begin like the ends of their weights: l0.i,
        l0_reverse.i. Arguments are those of a call. Computed on the CPU, without gradients; outputs
        have the bits of a call there.
        """
        return traced_layers(self, input, hx, lengths, resets)

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """As torch's, of the weights that a call reads, which need not be `_flat_weights`."""
        if input.dtype is not self._dtype and not torch._C._is_any_autocast_enabled():
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({self._dtype}). "
                f"Convert input: input.to({self._dtype}), or convert model: model.to({input.dtype})"
            )
        expected = 2 if batch_sizes is not None else 3
        if input.dim() != expected:
            raise RuntimeError(f"input must have {expected} dimensions, got {input.dim()}")
        if self.input_size != input.size(-1):
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got "
                f"{input.size(-1)}"
            )

    def _packed(self, packed: PackedSequence, hx: Any, resets: Any) -> Any:
        data, sizes, order, back = packed
        self.check_input(data, sizes)
        states = self._states(hx, int(sizes[0]), False)
        if order is not None and states is not None:
            states = [s.index_select(1, order) for s in states]
        plain = resets is None and self._recurrences
        if plain and is_plain(data, self._recurrences[0].torch_dtype):
            y, finals = self._layers(data, states, rows_of(sizes))
        else:
            padded, lengths = torch._VF._pad_packed_sequence(  # type: ignore[attr-defined]
                data, sizes, self.batch_first, 0.0, len(sizes)
            )
            steps = lengths if resets is None else packed_steps(lengths, resets, packed)
            y, finals = self._layers(padded, states, steps)
            y, _ = torch._VF._pack_padded_sequence(  # type: ignore[attr-defined]
                y, lengths, self.batch_first
            )
        if back is not None:
            finals = [f.index_select(1, back) for f in finals]
        return PackedSequence(y, sizes, order, back), self._given(finals)

    def _given(self, finals: Sequence[Tensor]) -> Any:
        return tuple(finals) if len(finals) > 1 else finals[0]

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
        states = []
        for name, state, width in zip(("h_0", "c_0"), hx, widths, strict=False):
            if not isinstance(state, Tensor):
                raise TypeError(f"{name} is {an(type(state).__name__)}: give a torch tensor")
            batched = state.unsqueeze(1) if alone and state.dim() == 2 else state
            if batched.shape != (rows, batch, width):
                expected = [rows, width] if alone else [rows, batch, width]
                raise RuntimeError(f"{name} has shape {list(state.shape)}, expected {expected}")
            states.append(batched)
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
            raise self._refuse_dtype()
        ways, ends = 2 if self.bidirectional else 1, []
        names = self._all_weights
        if len(names) != len(self._recurrences) * ways or len(names[0]) != len(
            self._recurrences[0].owned
        ):
            raise RuntimeError(
                f"{type(self).__name__} of {self.num_layers} layers in {ways} directions, "
                f"bias={self.bias}, has weights {', '.join(self._flat_weights_names)}: make "
                "another one"
            )
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
                x = self._dropped(x)
        if len(ends) == 1:
            return x, ends[0]
        return x, [torch.cat(parts) for parts in zip(*ends, strict=True)]

    def _dropped(self, x: Tensor) -> Tensor:
        """Between layers: what torch's layers drop, which run [time, batch, ...]."""
        if not self.batch_first or x.dim() != 3 or self.dropout == 1:
            return dropout(x, self.dropout)
        kept = 1 - self.dropout
        batch, time, width = x.shape
        noise = x.new_empty((time, batch, width)).bernoulli_(kept).div_(kept)
        return x * noise.transpose(0, 1)


class LSTM(RecurrentLayers):
    """torch.nn.LSTM: the same arguments, parameters, calls and initial values.

    precision, weights: as in `rnncc.Layer`. TypeError, ValueError as torch's."""

    _spec = "lstm"
    # What torch.nn.LSTM has that RNNBase has not, or has otherwise.
    check_forward_args = torch.nn.LSTM.check_forward_args
    get_expected_cell_size = torch.nn.LSTM.get_expected_cell_size
    permute_hidden = torch.nn.LSTM.permute_hidden

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        precision: Precision = "float32",
        weights: Storage = "float32",
    ) -> None:
        rounded = rounding(precision, weights)
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        self._make("LSTM", *sizes, proj_size, device, dtype, rounded=rounded)


class GRU(RecurrentLayers):
    """torch.nn.GRU: the same arguments, parameters, calls and initial values.

    precision, weights: as in `rnncc.Layer`. proj_size: refused. TypeError, ValueError as torch's.
    """

    _spec = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        precision: Precision = "float32",
        weights: Storage = "float32",
        proj_size: None = None,
    ) -> None:
        _refuse_projection(proj_size)
        rounded = rounding(precision, weights)
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        self._make("GRU", *sizes, 0, device, dtype, rounded=rounded)


class RNN(RecurrentLayers):
    """torch.nn.RNN: the same arguments, parameters, calls and initial values.

    precision, weights: as in `rnncc.Layer`. proj_size: refused. TypeError, ValueError as torch's.
    """

    _spec = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        precision: Precision = "float32",
        weights: Storage = "float32",
        proj_size: None = None,
    ) -> None:
        _refuse_projection(proj_size)
        rounded = rounding(precision, weights)
        mode = f"RNN_{checked_nonlinearity(nonlinearity).upper()}"
        sizes = input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        self._make(mode, *sizes, 0, device, dtype, rounded=rounded)
        self.nonlinearity = nonlinearity


def _refuse_projection(proj_size: Any) -> None:
    if proj_size is not None:
        raise ValueError("proj_size is an argument of LSTM alone")
