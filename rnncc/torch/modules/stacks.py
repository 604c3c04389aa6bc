"""RecurrentStack: layers of any cells one above the other, in one direction or both.

    RecurrentStack([LTCCell(28, 64), LTCCell(64, 64)])
    RecurrentStack([CfCCell(28, 64), CfCCell(28, 64)], bidirectional=True)      forward, backward
    RecurrentStack(["lstm", "gru"], units=64, dropout=0.1)

Cells are in torch's order: of each layer the one that runs forward, then the one that runs back.

Non-Goals: torch.nn's own three, which have torch's parameters (`rnncc.torch.stack`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Unpack, overload

import torch
from torch import Tensor
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnncc.common.layer_keywords import CellKeyword, Precision, Storage, TorchStackKeywords
from rnncc.drawing.chosen import ChosenCell
from rnncc.runtime.api.layer import Layer
from rnncc.torch.packed import uncompiled
from rnncc.torch.recurrent import Recurrent
from rnncc.torch.shown import ShownModule
from rnncc.torch.steps import padded_alike
from rnncc.torch.tracing import CellTrace

_OWN = ("return_sequences", "return_state", "go_backwards", "time_major")


class RecurrentStack(ShownModule, torch.nn.Module):
    """cells: what `Recurrent` takes, one a layer, or with `bidirectional` two, the second running
    back; outputs of both stand side by side.

    dropout: between layers, in training. batch_first: inputs and outputs are [batch, time, ...],
        which is the default here; otherwise [time, batch, ...].
    Others: keywords of every `Recurrent`.
    TypeError and ValueError for a wrong number of cells, or keyword.
    """

    @overload  # modules among them: keywords are none of a cell's
    def __init__(
        self,
        cells: Sequence[torch.nn.Module | str | os.PathLike[str] | type[Layer]],
        *,
        bidirectional: bool = ...,
        dropout: float = ...,
        batch_first: bool = ...,
        input_size: int | None = ...,
        device: Any = ...,
        dtype: torch.dtype | None = ...,
        state: Any = ...,
        contexts: Collection[str | int] = ...,
        **keywords: Unpack[TorchStackKeywords],
    ) -> None: ...

    @overload
    def __init__(
        self,
        cells: Sequence[str | os.PathLike[str] | type[Layer]],
        *,
        bidirectional: bool = ...,
        dropout: float = ...,
        batch_first: bool = ...,
        input_size: int | None = ...,
        device: Any = ...,
        dtype: torch.dtype | None = ...,
        zero_output_for_mask: bool = ...,
        checkpoint_every: int | None = ...,
        unroll: bool | int = ...,
        precision: Precision | None = ...,
        weights: Storage | None = ...,
        **keywords: CellKeyword,
    ) -> None: ...

    def __init__(
        self,
        cells: Sequence[Any],
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        batch_first: bool = True,
        **keywords: Any,
    ) -> None:
        super().__init__()
        ways = 2 if bidirectional else 1
        if isinstance(cells, str) or not cells or len(cells) % ways:
            raise ValueError(
                f"cells is a list, one a layer{', and one that runs back' if ways == 2 else ''}"
            )
        modules = [c for c in cells if isinstance(c, torch.nn.Module)]
        if len({id(m) for m in modules}) < len(modules):
            raise ValueError("a cell is given twice: its layers would share their parameters")
        for name in _OWN:
            if name in keywords:
                raise TypeError(f"RecurrentStack has no {name}: it gives (outputs, states)")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a number in [0, 1), not {dropout!r}")
        self.ways, self.dropout, self.batch_first = ways, dropout, batch_first
        self.layers = torch.nn.ModuleList(
            Recurrent(
                cell,
                return_sequences=True,
                return_state=True,
                go_backwards=number % ways == 1,
                time_major=not batch_first,
                **keywords,
            )
            for number, cell in enumerate(cells)
        )

    def forward(
        self,
        inputs: Any,
        initial_states: Sequence[Any] | None = None,
        *,
        lengths: Any = None,
        mask: Tensor | None = None,
        resets: Any = None,
    ) -> tuple[Any, list[Any]]:
        """(outputs of the last layer, the last state of each cell, in order).

        inputs: a tensor or a PackedSequence, whose outputs are one. initial_states: one a cell, as
        it has it, or None. lengths, mask, resets: as `Recurrent` takes them, for all cells; resets
        of a PackedSequence are packed alike, or [batch, time] in the order of its rows.
        """
        if isinstance(inputs, PackedSequence):
            _refuse_beside_packed(lengths, mask)
            if torch.compiler.is_compiling():
                found: tuple[Any, list[Any]] = uncompiled(
                    self._packed, inputs, initial_states, resets
                )
                return found
            return self._packed(inputs, initial_states, resets)
        states: list[Any] = []

        def run(number: int, x: Any, begin: Any) -> Any:
            y, *state = self.layers[number](
                x, initial_state=begin, lengths=lengths, mask=mask, resets=resets
            )
            states.append(state[0] if len(state) == 1 else tuple(state))
            return y

        return self._through(inputs, initial_states, run), states

    def trace(
        self,
        inputs: Any,
        initial_states: Sequence[Any] | None = None,
        *,
        lengths: Any = None,
        mask: Tensor | None = None,
        resets: Any = None,
    ) -> CellTrace:
        """Every value that the cells' equations name, at every step, in time's order: l0.f,
        l0_reverse.f, l1.f, ... as torch.nn's layers call their weights; of one cell, by its names
        alone.

        Arguments are those of a call, and so is what dropout draws. A PackedSequence's values are
        padded. Computed on the CPU, without gradients; outputs have the bits of a call there.
        """
        if isinstance(inputs, PackedSequence):
            _refuse_beside_packed(lengths, mask)
            inputs, lengths, resets = self._padded(inputs, resets)
        named: dict[str, Tensor] = {}
        left_out: dict[str, str] = {}

        def run(number: int, x: Any, begin: Any) -> Any:
            layer: Any = self.layers[number]
            found, y = layer._traced(
                x, initial_state=begin, lengths=lengths, mask=mask, resets=resets
            )
            level, back = divmod(number, self.ways)
            prefix = f"l{level}{'_reverse' * back}." if len(self.layers) > 1 else ""
            named.update({prefix + n: self._turned(t) if back else t for n, t in found.items()})
            left_out.update({prefix + n: why for n, why in found.left_out.items()})
            return y

        self._through(inputs, initial_states, run)
        return CellTrace(type(self).__name__, named, left_out)

    def _through(
        self, inputs: Any, initial_states: Sequence[Any] | None, run: Callable[[int, Any, Any], Any]
    ) -> Any:
        """The outputs of the last layer. run: of a cell's number, what it reads and what it begins
        with, its outputs in the order they ran."""
        count = len(self.layers)
        begins = [None] * count if initial_states is None else [*initial_states]
        if len(begins) != count:
            raise ValueError(f"initial_states has {len(begins)} states, the stack {count} cells")
        for first in range(0, count, self.ways):
            ys = []
            for number in range(first, first + self.ways):
                y = run(number, inputs, begins[number])
                ys.append(y if number == first else self._turned(y))
            inputs = ys[0] if len(ys) == 1 else torch.cat(ys, -1)
            if self.dropout and self.training and first + self.ways < count:
                inputs = dropout(inputs, self.dropout)
        return inputs

    def _shown_cells(self) -> Iterable[ChosenCell]:
        return [c for layer in self.layers for c in layer._shown_cells()]

    def _packed(
        self, inputs: PackedSequence, initial_states: Any, resets: Any
    ) -> tuple[Any, list[Any]]:
        padded, own, resets = self._padded(inputs, resets)
        y, last = self.forward(padded, initial_states, lengths=own, resets=resets)
        return pack_padded_sequence(y, own, self.batch_first, enforce_sorted=False), last

    def _padded(self, inputs: PackedSequence, resets: Any) -> tuple[Tensor, Tensor, Any]:
        """What is packed, its lengths, and resets as they fit it."""
        padded, own = pad_packed_sequence(inputs, batch_first=self.batch_first)
        if isinstance(resets, PackedSequence):
            resets = padded_alike(resets, inputs)
        return padded, own, resets

    def _turned(self, y: Tensor) -> Tensor:
        """Outputs in the order they ran, in that of time."""
        return y.flip(1 if self.batch_first else 0)


def _refuse_beside_packed(lengths: Any, mask: Any) -> None:
    if lengths is not None or mask is not None:
        raise TypeError("lengths of a PackedSequence are its own")
