"""A trained network on NumPy arrays: `model(x)`, `model.stream(x)`, `model.vjp(x)`.

Non-Goals: where it came from (the readers); folders (`folder`); what a part computes (`component`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rnncc.models.component import Arrays, NoGradient, Port, Stepper, Wired
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
        self._last_use = self._last_uses()

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

    def _last_uses(self) -> dict[str, int]:
        """The last node that reads each value that is no output."""
        kept = {v.name for v in self.outputs}
        uses = {v: i for i, node in enumerate(self.nodes) for v in node.inputs if v}
        return {v: i for v, i in uses.items() if v not in kept}

    # ---- calls -----------------------------------------------------------------------------------

    def __call__(self, inputs: Any) -> Any:
        """The outputs: a dict where a dict is given, else the array, or a tuple in order.

        inputs: the array, or a dict by name. Other kinds of numbers are cast to an input's dtype.
        Raises TypeError and ValueError for other names, kinds or shapes.
        """
        values = {**self.constants, **self.fed(inputs)}
        for i, node in enumerate(self.nodes):
            self._run(node, node.part, values)
            self._let_go(i, values)
        return self.given_back(inputs, values)

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
        values = {**self.constants, **self.fed(inputs)}
        pullbacks = []
        for node in self.nodes:
            outputs, pullback = node.part.vjp(*(values[v] if v else None for v in node.inputs))
            self._keep(node, outputs, values)
            pullbacks.append(pullback)

        def pulled(cotangents: Any) -> ModelGradients:
            found = self._cotangents(cotangents, values)
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
            return ModelGradients({v.name: found.get(v.name) for v in self.inputs}, weights)

        return self.given_back(inputs, values), pulled

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
        lines = []
        for node in self.nodes:
            first, *rest = node.part.plan().splitlines() or [""]
            lines += [f"{node.part.name} ({node.part.kind}): {first}", *(f"  {r}" for r in rest)]
        return "\n".join(lines)

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

        write_folder(self, folder, replace)

    def __repr__(self) -> str:
        kinds = ", ".join(node.part.kind for node in self.nodes)
        return f"<Model {self.origin or 'of parts'}: {kinds}>"

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

    def given_back(self, inputs: Any, values: Mapping[str, np.ndarray]) -> Any:
        """Outputs in the form that the inputs had."""
        if isinstance(inputs, Mapping):
            return {v.name: values[v.name] for v in self.outputs}
        found = tuple(values[v.name] for v in self.outputs)
        return found[0] if len(found) == 1 else found

    def _run(self, node: Wired, step: Callable[..., Arrays], values: Fed) -> None:
        self._keep(node, step(*(values[v] if v else None for v in node.inputs)), values)

    def _keep(self, node: Wired, outputs: Iterable[np.ndarray], values: Fed) -> None:
        made = tuple(outputs)
        if len(made) < len(node.outputs):
            raise ValueError(f"{node.part.name} made {len(made)} values of {len(node.outputs)}")
        values.update({v: a for v, a in zip(node.outputs, made, strict=False) if v})

    def _let_go(self, i: int, values: Fed) -> None:
        """Of what the i-th node was the last to read."""
        for value in set(self.nodes[i].inputs):
            if self._last_use.get(value) == i:
                values.pop(value, None)

    def _cotangents(self, given: Any, values: Mapping[str, np.ndarray]) -> Fed:
        if isinstance(given, Mapping):
            found = dict(given)
        else:
            several = given if isinstance(given, tuple) else (given,)
            if len(several) != len(self.outputs):
                raise ValueError(f"{len(several)} cotangents of {len(self.outputs)} outputs")
            found = {v.name: d for v, d in zip(self.outputs, several, strict=True)}
        arrays: Fed = {}
        for name, d in found.items():
            if name not in {v.name for v in self.outputs}:
                raise ValueError(f"there is no output {name} to have a cotangent")
            if d is None:
                continue
            arrays[name] = np.asarray(d, values[name].dtype)
            if arrays[name].shape != values[name].shape:
                shapes = list(arrays[name].shape), list(values[name].shape)
                raise ValueError(f"the cotangent of {name} has shape {shapes[0]}, not {shapes[1]}")
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


class ModelGradients:
    """inputs: by name, None where nothing flowed. weights: as part/weight."""

    def __init__(self, inputs: Mapping[str, np.ndarray | None], weights: Fed) -> None:
        self.inputs, self.weights = dict(inputs), weights


class ModelStream:
    """Made by `Model.stream`. Not for two threads at once; any number of one model's is.

    A step may take microseconds, so values have places in a list here, not names.
    """

    def __init__(self, model: Model, example: Any) -> None:
        self._model = model
        values = {**model.constants, **model.fed(example)}
        self._shapes = {v.name: values[v.name].shape for v in model.inputs}
        self._steps: list[Stepper] = []
        for node in model.nodes:
            arguments = [values[v] if v else None for v in node.inputs]
            self._steps.append(node.part.stream(*arguments))
            model._run(node, node.part, values)
        made = [v for node in model.nodes for v in node.outputs]
        names = dict.fromkeys([*model.constants, *(v.name for v in model.inputs), *made])
        # The first place is of what isn't given, the second of what nobody reads.
        place = {"": 0} | {name: i for i, name in enumerate(filter(None, names), 2)}
        self._empty: list[Any] = [None] * (len(place) + 1)
        for name, array in model.constants.items():
            self._empty[place[name]] = array
        self._program = [
            (step, [place[v] for v in node.inputs], [place[v] or 1 for v in node.outputs], node)
            for node, step in zip(model.nodes, self._steps, strict=True)
        ]
        self._ins = [place[v.name] for v in model.inputs]
        self._outs = [place[v.name] for v in model.outputs]
        alone = model.inputs[0] if len(model.inputs) == 1 else None
        self._alone = (self._shapes[alone.name], np.dtype(alone.dtype)) if alone else None

    def __call__(self, inputs: Any) -> Any:
        """The outputs of these inputs, which are like the first ones; states go on."""
        values = self._empty.copy()
        if type(inputs) is np.ndarray and (inputs.shape, inputs.dtype) == self._alone:
            values[self._ins[0]] = inputs
        else:
            for place, array in zip(self._ins, self._checked(inputs), strict=True):
                values[place] = array
        for step, reads, makes, node in self._program:
            made = step(*[values[i] for i in reads])
            if len(made) < len(makes):
                raise ValueError(f"{node.part.name} made {len(made)} values of {len(makes)}")
            for place, array in zip(makes, made, strict=False):
                values[place] = array
        if len(self._outs) == 1 and type(inputs) is np.ndarray:
            return values[self._outs[0]]
        pairs = zip(self._model.outputs, self._outs, strict=True)
        return self._model.given_back(inputs, {v.name: values[place] for v, place in pairs})

    def _checked(self, inputs: Any) -> list[np.ndarray]:
        """Of the shapes that the stream is for."""
        fed = self._model.fed(inputs)
        for name, array in fed.items():
            if array.shape != self._shapes[name]:
                shapes = list(array.shape), list(self._shapes[name])
                raise ValueError(f"input {name} has shape {shapes[0]}, the stream's is {shapes[1]}")
        return [fed[v.name] for v in self._model.inputs]

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
