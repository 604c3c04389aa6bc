"""The layer of a cell that is a torch module: `Recurrent(cell)`.

    layer = Recurrent(LTCCell(28, 64), return_sequences=True)
    y = layer(x)                                x [batch, time, features] -> y [batch, time, units]

The cell's forward is read at the first call, as equations (`layer.equations`), proven, and compiled
as a .rnn file is. Parameters are the cell's own: the cell is a submodule.

Non-Goals: reading (`rnncc.torch.reading`); several layers (`rnncc.torch.modules.stacks`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from rnncc.common.layer_keywords import ModuleKeywords, RowKeywords
from rnncc.compiler import compile_text
from rnncc.drawing.chosen import ChosenCell
from rnncc.runtime.api.layer_options import refuse_keywords, sort_keywords
from rnncc.torch.modules.signature import ForwardSignature
from rnncc.torch.modules.sources import (
    AttributePlace,
    Source,
    facts_of,
    named,
    owned_by,
    tensors_of,
)
from rnncc.torch.reading.pairs import SIZES
from rnncc.torch.reading.reader import StepReading, read, undisturbed
from rnncc.torch.reading.steps import (
    Arguments,
    Called,
    Starter,
    StepForm,
    find_state,
    ordered_like,
    refuse_other_start,
    row_shapes,
    rows_given,
    same_tree,
    shown,
    split_result,
    starter,
)
from rnncc.torch.recipe import DTYPES
from rnncc.torch.recurrent import INSTEAD, Recurrent, name_of
from rnncc.torch.tracing import CellTrace

# What keywords are held against before there are equations.
_NOTHING = "cell: Cell\nx: input\nh: state\nh[t] = x[t] + h[t-1]\nreturn h[t]\n"
_UNREAD = "has not been read: call the layer once, or give input_size"
# Keywords of torch.nn's layers that a layer of one cell has other means for.
_STACKS = "one cell is one layer in one direction: RecurrentStack([cell, ...]{}) has more"
_LAYERS = {
    "num_layers": _STACKS.format(""),
    "bidirectional": _STACKS.format(", bidirectional=True"),
    "dropout": "a read cell drops where its forward does, and RecurrentStack between its layers",
    "batch_first": "inputs are [batch, time, ...], or with time_major=True [time, batch, ...]",
}


class RecurrentModule(Recurrent, takes=torch.nn.Module):
    """A recurrent layer of a module whose forward is (x, state) -> (y, state), or -> state.

    cell: the module. Its forward has to compute with torch the same operations whatever numbers it
        is given; TypeError says, at the first call, which can't be compiled, with its line.
    state: the shape of a state for one row, or a tuple or dict of shapes, or tensors of one row,
        which sequences then start from; needed where nothing else tells: the module's own
        `initial_state(batch_size)` or the like, or that it takes None.
    contexts: names of inputs that are the same at every step, [batch, ...].
    input_size: the last axis of the input, so that the cell is read at once.
    Others: as for a cell of equations.
    """

    def __init__(
        self,
        cell: torch.nn.Module,
        /,
        *,
        state: Any = None,
        contexts: Collection[str | int] = (),
        input_size: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **given: Unpack[ModuleKeywords],
    ) -> None:
        torch.nn.Module.__init__(self)
        keywords: dict[str, Any] = {**given}
        for name, instead in INSTEAD.items():
            if keywords.pop(name, None) not in (None, False):
                raise TypeError(f"Recurrent has no {name}: {instead}")
        for name in _LAYERS.keys() & keywords.keys():
            raise TypeError(f"Recurrent of a module has no {name}: {_LAYERS[name]}")
        self._keywords = keywords
        self._signature = ForwardSignature.of(cell, contexts)
        self._state = None if state is None else rows_given(state, type(cell).__name__)
        self._reading: StepReading | None = None
        self._recurrence = None
        self._choose(compile_text(_NOTHING))
        self.cell = cell if device is None and dtype is None else cell.to(device, dtype)
        self._own_width = input_size is not None
        if input_size is None and isinstance(cell, torch.nn.RNNCellBase):
            input_size = cell.input_size
        if input_size is not None and not _without_numbers(cell):
            self._read(torch.empty((1, 1, input_size), dtype=self._float()))

    def _choose(self, layer_class: Any, **sizes: int) -> None:
        cell = layer_class.maker.cell
        refuse_keywords(cell, ("input_size", "device"), "Recurrent")
        keywords = {**self._keywords, "dtype": name_of(self._float())}
        self._layer_class = layer_class
        self._chosen = sort_keywords(cell, (), {**sizes, **keywords})
        self._sizes = dict(sizes)

    def _float(self) -> torch.dtype:
        """The floats that the cell counts in."""
        cell = self._modules.get("cell")
        tensors = [] if cell is None else [*cell.parameters(), *cell.buffers()]
        own = next((t.dtype for t in tensors if t.is_floating_point()), None)
        return own or torch.get_default_dtype()

    # ---- reading ----

    @property
    def built(self) -> bool:
        """Whether the cell was read."""
        return self._reading is not None

    @property
    def equations(self) -> str:
        """The text of a .rnn file that computes the same. RuntimeError before the first call."""
        if self._reading is None:
            raise RuntimeError(f"{type(self.cell).__name__} {_UNREAD}")
        return self._reading.text.text

    def _shown_cells(self) -> Iterable[ChosenCell]:
        return [] if self._reading is None else super()._shown_cells()

    def _read(self, inputs: Any) -> None:
        """Equations of the cell, for inputs like these."""
        cell: Any = self.cell
        name = type(cell).__name__
        if self._float() not in DTYPES.values():
            raise TypeError(
                f"{name} has weights of {self._float()}: rnncc has kernels for torch.float32 and "
                "torch.float64; read it in one of them (give input_size, or call it), then .to()"
            )
        missing = _without_numbers(cell)
        if missing:
            raise TypeError(
                f"{name} can't be read: {missing}, it has no numbers. Give it some first: "
                "to_empty(device=...) and load_state_dict, or a call"
            )
        arguments = self._signature.arguments(inputs, name, self._chosen.time_major)
        called = Called(partial(self._signature.call, cell), name)
        with undisturbed():
            form = self._form(called, arguments)
            with owned_by(cell) as owned:
                reading = read(called, arguments, form, owned, [*cell.modules()])
        self._facts = facts_of(cell)
        text = reading.text
        self._choose(reading.layer_class, **text.sizes)
        bound = reading.layer_class.maker.bind({}, {}, self._chosen.dtype)
        self._cell = bound.cell
        found = named({**text.weights, **text.constants})
        arrays = (*self._cell.weights, *self._cell.constants)
        self._owned = [a.name for a in arrays]
        self._sources: list[Source] = [found[n] for n in self._owned]
        self._reading = reading
        self._prepare()

    def _form(self, called: Called, arguments: Arguments) -> StepForm:
        """What its state and its output are."""
        inputs = arguments.random(SIZES[0], self._float())
        tree, rows = self._state_form(called, inputs)
        like = [torch.zeros((SIZES[0], *row), dtype=self._float()) for row in rows]
        returned = called.run(inputs, pytree.tree_unflatten(like, tree))
        output, _, apart = split_result(returned, tree, called.name)
        form = StepForm(tree, tuple(rows), apart, pytree.tree_flatten(output)[1], self._float())
        if self._state is None and self._starter is None:
            refuse_other_start(called, inputs, form)
        return form

    def _state_form(self, called: Called, inputs: Any) -> tuple[Any, list[tuple[int, ...]]]:
        self._starter: Starter | None = None
        if self._state is not None:
            return self._state[0], self._state[1]
        self._starter = starter(self.cell)
        if self._starter is None:
            return find_state(called, self.cell, inputs)
        made = self._starter.state(self.cell, SIZES[0], inputs)
        leaves, tree = pytree.tree_flatten(made)
        what = f"{called.name}.{self._starter.method}"
        return tree, row_shapes(leaves, SIZES[0], what, called.name)

    # ---- calls ----

    def forward(
        self, inputs: Any, *, initial_state: Any = None, **rows: Unpack[RowKeywords]
    ) -> Any:
        """As of a cell of equations: see `Recurrent`. inputs: as the cell's forward takes them,
        with an axis of time; of a forward that takes more behind the state, a tuple or dict of all.
        initial_state: as the cell has it. With return_state, (y, state)."""
        reading = self._reading_for(inputs)
        tensors = self._named(reading, inputs)
        states = self._states(reading, inputs, initial_state)
        return super().forward(tensors, initial_state=states, **rows)

    def _traced(
        self, inputs: Any, *, initial_state: Any = None, **rows: Any
    ) -> tuple[CellTrace, Any]:
        reading = self._reading_for(inputs)
        tensors = self._named(reading, inputs)
        states = self._states(reading, inputs, initial_state)
        return super()._traced(tensors, initial_state=states, **rows)

    def _reading_for(self, inputs: Any) -> StepReading:
        """What was read of the cell, or is now. RuntimeError where it can't be."""
        reading = self._reading
        compiling = torch.compiler.is_compiling()
        if reading is None or (not compiling and facts_of(self.cell) != self._facts):
            if compiling:
                raise RuntimeError(f"{type(self.cell).__name__} {_UNREAD}, before torch.compile")
            if torch._C._are_functorch_transforms_active():
                raise RuntimeError(f"{type(self.cell).__name__} {_UNREAD}, before torch.func")
            self._read(inputs)
            reading = self._reading
            assert reading is not None
        return reading

    def _named(self, reading: StepReading, inputs: Any) -> dict[str, Tensor]:
        """Tensors by their names in the text."""
        own, name = reading.arguments, type(self.cell).__name__
        leaves, tree = pytree.tree_flatten(inputs)
        if len(leaves) != len(own.rows) or not same_tree(tree, own.tree):
            raise TypeError(
                f"{name} was read for inputs {[*own.names]}, and is given {shown(inputs)}"
            )
        by_steps, contexts = iter(reading.text.inputs), iter(reading.text.contexts)
        return {next(contexts if n in own.contexts else by_steps): t for n, t in enumerate(leaves)}

    def _states(self, reading: StepReading, inputs: Any, given: Any) -> Any:
        """Tensors that a call begins with; None for zeros."""
        form = reading.form
        if given is None:
            given = self._start(reading, inputs)
            if given is None:
                return None
        leaves, tree = pytree.tree_flatten(ordered_like(given, form.tree))
        if not same_tree(tree, form.tree):
            kind = pytree.tree_unflatten([torch.empty(row) for row in form.rows], form.tree)
            raise TypeError(
                f"initial_state of {type(self.cell).__name__} is {shown(given)}, expected "
                f"{shown(kind)} with a batch"
            )
        return dict(zip(reading.text.states, leaves, strict=True))

    def _start(self, reading: StepReading, inputs: Any) -> Any:
        """What the cell, or `state=`, says that sequences start from."""
        own, leaves = reading.arguments, pytree.tree_leaves(inputs)
        at = next(n for n in range(len(leaves)) if n not in own.contexts)
        time = 0 if self._chosen.time_major else 1
        batch = leaves[at].shape[1 - time]
        if self._state is not None and self._state[2] is not None:
            starts = [t.to(leaves[at]).expand(batch, *t.shape) for t in self._state[2]]
            return pytree.tree_unflatten(starts, reading.form.tree)
        if self._starter is None:
            return None
        if not leaves[at].shape[time]:
            return None
        first = [t if n in own.contexts else t.select(time, 0) for n, t in enumerate(leaves)]
        made = self._starter.state(self.cell, batch, pytree.tree_unflatten(first, own.tree))
        return pytree.tree_map(lambda t: t.to(leaves[at].dtype), made)  # zeros of any kind

    def _trains(self) -> bool:
        """Whether it drops: as the cell's own modules say, which eval() may have reached without
        the layer. RuntimeError where some say so and others don't."""
        if not self._cell.rates:
            return self.training
        modules = [*self.cell.modules()]
        drops = [m for m in modules if isinstance(m, _DropoutNd)] or modules
        if len({m.training for m in drops}) > 1:
            raise RuntimeError(
                f"{type(self.cell).__name__} has dropout in train mode and in eval mode: call "
                "train() or eval() of the layer, which reaches all of it"
            )
        return drops[0].training

    def _weights(self) -> list[Tensor]:
        assert self._recurrence is not None
        return tensors_of(self.cell, self._sources, self._recurrence.torch_dtype)

    def _arranged(self, results: Any) -> Any:
        assert self._reading is not None
        form, count = self._reading.form, len(self._cell.outputs)
        y = self._together(results[:count])
        if not self._chosen.return_state:
            return y
        return y, pytree.tree_unflatten([*results[count:]], form.tree)

    def _together(self, outputs: Any) -> Any:
        assert self._reading is not None
        return pytree.tree_unflatten([*outputs], self._reading.form.output)

    # ---- modules ----

    def reset_parameters(self) -> None:
        """The cell's own. AttributeError where it has none."""
        cell: Any = self.cell
        cell.reset_parameters()

    def _weights_dtype(self) -> torch.dtype:
        return self._float()

    def _prepare(self) -> None:
        super()._prepare()
        dtype = self._float()
        self._sources = [
            s if isinstance(s, AttributePlace) or s.requires_grad else s.to(dtype)
            for s in self._sources
        ]

    def _load_from_state_dict(self, *given: Any) -> None:
        torch.nn.Module._load_from_state_dict(self, *given)

    def extra_repr(self) -> str:
        """What was chosen, and what was read off the data."""
        shown_ = {**self._chosen.keywords(), **self._sizes}
        return ", ".join(f"{k}={v!r}" for k, v in shown_.items())


def _without_numbers(cell: torch.nn.Module) -> str:
    """Which of its tensors have none, and why; empty for a cell that can be read."""
    for own, t in (*cell.named_parameters(), *cell.named_buffers()):
        if t.is_meta or is_lazy(t):
            return f"{own} is {'on meta' if t.is_meta else 'not initialized'}"
    return ""
