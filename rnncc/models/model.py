"""A trained network on NumPy arrays: `model(x)`, `model.stream(x)`, `model.vjp(x)`.

Non-Goals: where it came from (the readers); folders (`folder`); what a part computes (`component`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from rnncc.common.progress import working
from rnncc.drawing.notebook import PlanText
from rnncc.drawing.tables import ArraysShown, named_arrays, shape_text, shapes_text, table
from rnncc.models.component import (
    Arrays,
    Component,
    Given,
    NoGradient,
    Port,
    Pullback,
    Stepper,
    Wired,
)
from rnncc.models.value_places import PlacedRun
from rnncc.runtime.api.summary import summary

Fed = dict[str, np.ndarray]


class Model:
    """A network of parts. Made by `rnncc.load_model`, or of nodes by hand.

    inputs, outputs: values by name. nodes: parts in the order they run. constants: values that no
    part makes. origin: the file it came from. metadata: what else it said, as JSON has it (a sample
    rate). Raises ValueError for values that nobody makes, or that two make.
    """

    def __init__(
        self,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        nodes: Sequence[Wired],
        constants: Mapping[str, np.ndarray] | None = None,
        origin: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.inputs, self.outputs, self.nodes = tuple(inputs), tuple(outputs), tuple(nodes)
        self.constants, self.origin = dict(constants or {}), origin
        self.metadata = {n: v for n, v in (metadata or {}).items() if v is not None}
        self._check_wiring()
        self._input_names = [v.name for v in self.inputs]
        self._output_names = [v.name for v in self.outputs]
        self._parts = [node.part for node in self.nodes]
        self._placed = PlacedRun(self.nodes, self.constants, self._input_names, self._output_names)
        self._kinds: list[Any] = []  # of the inputs of the last call

    def _check_wiring(self) -> None:
        made = {v.name for v in self.inputs}
        if len(made) < len(self.inputs) or made & self.constants.keys():
            raise ValueError(f"two inputs, or an input and a constant, share a name: {made}")
        made |= self.constants.keys()
        parts: set[str] = set()
        for node in self.nodes:
            if node.part.name in parts:
                raise ValueError(f"two parts are called {node.part.name}")
            parts.add(node.part.name)
            for value in node.inputs:
                if value and value not in made:
                    raise ValueError(f"{node.part.name} reads {value}, which nobody makes before")
            for value in filter(None, node.outputs):
                if value in made:
                    raise ValueError(f"{node.part.name} makes {value}, which is there already")
                made.add(value)
        for output in self.outputs:
            if output.name not in made:
                raise ValueError(f"nobody makes the output {output.name}")

    # ---- calls -----------------------------------------------------------------------------------

    def __call__(self, inputs: Any) -> Any:
        """The outputs: a dict where a dict is given, else the array, or a tuple in order.

        inputs: the array, or a dict by name. Other kinds of numbers are cast to an input's dtype.
        Raises TypeError and ValueError for other names, kinds or shapes.
        """
        arrays = self.like(inputs, self._kinds)
        if arrays is None:
            arrays = list(self.fed(inputs).values())
            self._kinds = kinds_of(arrays)
        return self.given_back(inputs, self._placed.run(self._parts, arrays))

    def stream(self, example: Any) -> ModelStream:
        """Calls that go on where the last one stopped, for one step or block after the other.

        example: inputs as for a call, of the shapes that all calls have; what they hold is not
        read. Raises NoStream (a ValueError) where a part needs the whole sequence.
        """
        return ModelStream(self, example)

    def vjp(self, inputs: Any) -> tuple[Any, Callable[[Any], ModelGradients]]:
        """What a call returns, and the pullback from its cotangents, which are like the outputs.

        Raises NoGradient (a TypeError) with the part that has none.
        """
        pullbacks: list[Pullback] = []

        def forward(vjp: Callable[..., tuple[Arrays, Pullback]]) -> Callable[..., Arrays]:
            def step(*given: Given) -> Arrays:
                made, pullback = vjp(*given)
                pullbacks.append(pullback)
                return made

            return step

        steps = [forward(part.vjp) for part in self._parts]
        outputs = self._placed.run(steps, list(self.fed(inputs).values()))
        likes = {n: (y.shape, y.dtype) for n, y in zip(self._output_names, outputs, strict=True)}

        def pulled(cotangents: Any) -> ModelGradients:
            found = self._cotangents(cotangents, likes)
            weights: Fed = {}
            for node, pullback in zip(reversed(self.nodes), reversed(pullbacks), strict=True):
                dy = [found.get(v) if v else None for v in node.outputs]
                if all(d is None for d in dy):
                    continue
                dx, own = pullback(dy)
                weights |= {f"{node.part.name}/{n}": g for n, g in own.items()}
                for value, d in zip(node.inputs, dx, strict=True):
                    if value and d is not None:
                        found[value] = found[value] + d if value in found else d
            return ModelGradients({n: found.get(n) for n in self._input_names}, weights)

        return self.given_back(inputs, outputs), pulled

    # ---- what it says of itself ------------------------------------------------------------------

    @property
    def weights(self) -> Fed:
        """All parts' weights, as part/weight."""
        return {
            f"{node.part.name}/{name}": array
            for node in self.nodes
            for name, array in node.part.weights.items()
        }

    def plan(self) -> str:
        """What runs each part."""
        lines: list[str] = []
        for node in self.nodes:
            first, *rest = node.part.plan().splitlines() or [""]
            lines += [f"{node.part.name} ({node.part.kind}): {first}", *(f"  {r}" for r in rest)]
        return PlanText("\n".join(lines))

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """A table of the parts' weights, under a line of what goes in and comes out."""
        ways = [", ".join(map(str, values)) for values in (self.inputs, self.outputs)]
        title = f"{self.origin or 'model'}: {' -> '.join(ways)}"
        print_fn(summary(title, {n: a.shape for n, a in self.weights.items()}, {}))

    def save(self, folder: str | os.PathLike[str], *, replace: bool = False) -> None:
        """Into a folder that `rnncc.load_model` reads: a manifest, the weights, texts of cells.

        It appears whole or not at all. replace: where a saved model is there already.
        FileExistsError where something is there, OSError as the system says, TypeError for a part
        that a folder can't hold.
        """
        from rnncc.models.folder import write_folder

        with working(f"writing {os.fspath(folder)}"):
            write_folder(self, folder, replace)

    def __repr__(self) -> str:
        kinds = ", ".join(node.part.kind for node in self.nodes)
        return f"<Model {self.origin or 'of parts'}: {kinds}>"

    def _repr_html_(self) -> str:
        """For notebooks: what goes in and comes out, and of each part what it reads and makes, and
        the shapes of its weights."""
        ways = [", ".join(map(str, values)) for values in (self.inputs, self.outputs)]
        rows = (
            (
                node.part.name,
                node.part.kind,
                ", ".join(filter(None, node.inputs)),
                ", ".join(filter(None, node.outputs)),
                ", ".join(f"{n} {shape_text(a.shape)}" for n, a in node.part.weights.items()),
            )
            for node in self.nodes
        )
        parts = table(("part", "kind", "reads", "makes", "weights"), rows)
        title = f"{self!r}: {' -> '.join(ways)}"
        return f"<div><p><code>{escape(title)}</code></p>{parts}</div>"

    # ---- values ----------------------------------------------------------------------------------

    def fed(self, inputs: Any) -> Fed:
        """Inputs by name, checked and cast."""
        if not isinstance(inputs, Mapping):
            if len(self.inputs) != 1:
                several = ", ".join(v.name for v in self.inputs)
                raise TypeError(f"the model has several inputs, give a dict of {several}")
            inputs = {self.inputs[0].name: inputs}
        names = {v.name for v in self.inputs}
        if inputs.keys() != names:
            missing, surplus = sorted(names - inputs.keys()), sorted(inputs.keys() - names, key=str)
            raise ValueError(f"inputs are {sorted(names)}: missing {missing}, unknown {surplus}")
        sizes: dict[str, int] = {}
        return {v.name: _checked(v, inputs[v.name], sizes) for v in self.inputs}

    def like(self, inputs: Any, kinds: Sequence[Any]) -> list[np.ndarray] | None:
        """The inputs in order, if they are of these kinds and so need no check."""
        if type(inputs) is dict and len(inputs) == len(self._input_names):
            arrays = [inputs.get(n) for n in self._input_names]
        elif type(inputs) is np.ndarray:
            arrays = [inputs]
        else:
            return None
        return arrays if kinds_of(arrays) == kinds else None  # type: ignore[return-value]

    def given_back(self, inputs: Any, outputs: Sequence[np.ndarray]) -> Any:
        """Outputs in the form that the inputs had."""
        if isinstance(inputs, Mapping):
            return dict(zip(self._output_names, outputs, strict=True))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _cotangents(self, given: Any, likes: Mapping[str, tuple[Any, Any]]) -> Fed:
        """likes: shapes and dtypes of the outputs."""
        if isinstance(given, Mapping):
            found = dict(given)
        else:
            several = given if isinstance(given, tuple) else (given,)
            if len(several) != len(self.outputs):
                raise ValueError(f"{len(several)} cotangents of {len(self.outputs)} outputs")
            found = dict(zip(self._output_names, several, strict=True))
        arrays: Fed = {}
        for name, d in found.items():
            if name not in likes:
                raise ValueError(f"there is no output {name} to have a cotangent")
            if d is None:
                continue
            shape, dtype = likes[name]
            arrays[name] = np.asarray(d, dtype)
            if arrays[name].shape != shape:
                given_shape = list(arrays[name].shape)
                raise ValueError(
                    f"the cotangent of {name} has shape {given_shape}, not {list(shape)}"
                )
        return arrays


def _checked(value: Port, given: Any, sizes: dict[str, int]) -> np.ndarray:
    """sizes: what earlier inputs said of names in shapes."""
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"input {value.name} holds {array.dtype} values, not numbers")
    if np.dtype(value.dtype).kind in "iu" and array.dtype.kind == "f":
        raise TypeError(f"input {value.name} holds {array.dtype} values, expected {value.dtype}")
    wrong = len(array.shape) != len(value.shape)
    for size, expected in zip(array.shape, value.shape, strict=False):
        known = expected if isinstance(expected, int) else sizes.setdefault(expected, size)
        wrong |= known != size
    if wrong:
        shape = f"[{', '.join(map(str, value.shape))}]"
        raise ValueError(f"input {value.name} has shape {list(array.shape)}, expected {shape}")
    return array.astype(value.dtype, copy=False)


def kinds_of(arrays: Sequence[Any]) -> list[Any]:
    """Shapes and dtypes; None for what is no array, which is like nothing."""
    return [(a.shape, a.dtype) if type(a) is np.ndarray else None for a in arrays]


class ModelGradients(ArraysShown):
    """inputs: by name, None where nothing flowed. weights: as part/weight."""

    def __init__(self, inputs: Mapping[str, np.ndarray | None], weights: Fed) -> None:
        self.inputs, self.weights = dict(inputs), weights

    def __repr__(self) -> str:
        return f"<gradients {shapes_text(dict(self._shown_arrays()[1]))}>"

    def _shown_arrays(self) -> tuple[str, Iterable[tuple[str, Any]]]:
        inputs = named_arrays("inputs", self.inputs)
        return "gradients", [*inputs, *named_arrays("weights", self.weights)]


class ModelStream:
    """Made by `Model.stream`. Not for two threads at once; any number of one model's is."""

    def __init__(self, model: Model, example: Any) -> None:
        self._model, self._placed = model, model._placed
        arrays = list(model.fed(example).values())
        self._kinds = kinds_of(arrays)
        self._steps: list[Stepper] = []

        def first(part: Component) -> Callable[..., Arrays]:
            def step(*given: Given) -> Arrays:
                self._steps.append(part.stream(*given))
                return part(*given)

            return step

        self._placed.run([first(part) for part in model._parts], arrays)

    def __call__(self, inputs: Any) -> Any:
        """The outputs of these inputs, which are like the first ones; states go on."""
        arrays = self._model.like(inputs, self._kinds)
        if arrays is None:
            arrays = self._checked(inputs)
        return self._model.given_back(inputs, self._placed.run(self._steps, arrays))

    def _checked(self, inputs: Any) -> list[np.ndarray]:
        """Of the shapes that the stream is for."""
        fed = self._model.fed(inputs)
        for (name, array), (shape, _) in zip(fed.items(), self._kinds, strict=True):
            if array.shape != shape:
                shapes = list(array.shape), list(shape)
                raise ValueError(f"input {name} has shape {shapes[0]}, the stream's is {shapes[1]}")
        return list(fed.values())

    @property
    def states(self) -> dict[str, Arrays]:
        """Of each part that has any, by its name: copies."""
        pairs = zip(self._model.nodes, self._steps, strict=True)
        return {node.part.name: step.states for node, step in pairs if step.states}

    def reset(self) -> None:
        """The next call starts like the first."""
        for step in self._steps:
            step.reset()


__all__ = ["Model", "ModelGradients", "ModelStream", "NoGradient"]
