"""The part that plain operators of ONNX are: a graph that onnxruntime or onnx's reference runs.

Non-Goals: RNN, GRU and LSTM (`recurrent_node`); which nodes are one graph (`partition`).
"""

from __future__ import annotations

import base64
import importlib.util
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from rnncc.files import FileError
from rnncc.models.component import Arrays, Component, Given
from rnncc.models.onnx.opening import check_part, library, one_line

RUNNERS = ("auto", "onnxruntime", "reference")


def chosen_runner(asked: str) -> str:
    """ "auto": onnxruntime where it is installed. ValueError for another word."""
    if asked not in RUNNERS:
        raise ValueError(f"plain operators are run by one of {', '.join(RUNNERS)}, not {asked!r}")
    if asked != "auto":
        return asked
    return "onnxruntime" if importlib.util.find_spec("onnxruntime") else "reference"


class OnnxOperators(Component, kind="onnx operators"):
    """A graph of ONNX without recurrent nodes.

    model: its ModelProto, of which this part becomes the owner. runner: "onnxruntime", "reference"
    (onnx's own, NumPy) or "auto". stepwise: each step of a sequence is computed by itself.
    large: numbers of some of its inputs, the same at every call.
    Raises FileError for a graph that the runner can't run.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        runner: str = "auto",
        stepwise: bool = False,
        large: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__(name)
        self.large = dict(large or {})
        self.model, self.runner = model, chosen_runner(runner)
        self.is_stepwise = stepwise  # type: ignore[misc]
        self.outputs = [o.name for o in model.graph.output]
        self.inputs = [i.name for i in model.graph.input if i.name not in self.large]
        try:
            self._run = RUN[self.runner](model, self.large)
        except ImportError:
            raise FileError(
                name, f"{self.runner} isn't installed: pip install it, or choose another runner"
            ) from None
        except Exception as e:  # of the libraries, any of theirs
            raise FileError(name, f"{self.runner} can't run it: {one_line(e)}") from None

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        onnx = library(self.name)
        return self.large | {
            t.name: onnx.numpy_helper.to_array(t)
            for t in self.model.graph.initializer
            if t.data_type in _PLAIN
        }

    def __call__(self, *inputs: Given) -> Arrays:
        pairs = zip(self.inputs, inputs, strict=True)
        fed = {n: np.ascontiguousarray(a) for n, a in pairs if a is not None}
        try:
            return tuple(self._run(self.outputs, fed))
        except Exception as e:  # of the libraries, any of theirs
            shapes = ", ".join(f"{n} {list(a.shape)} {a.dtype}" for n, a in fed.items())
            raise ValueError(f"{self.name} failed on {shapes}: {one_line(e)}") from None

    def plan(self) -> str:
        counted = Counter(node.op_type for node in self.model.graph.node)
        kinds = ", ".join(k if n == 1 else f"{n} {k}" for k, n in sorted(counted.items()))
        by = {"reference": "the reference of onnx", "onnxruntime": "onnxruntime"}[self.runner]
        return f"{by} {version(_MODULES[self.runner])}: {kinds}"

    def config(self) -> dict[str, Any]:
        bare = type(self.model)()
        bare.CopyFrom(self.model)
        kept = [t for t in self.model.graph.initializer if t.data_type not in _PLAIN]
        del bare.graph.initializer[:]
        bare.graph.initializer.extend(kept)
        text = base64.b64encode(bare.SerializeToString(deterministic=True)).decode()
        return {"graph": text, "stepwise": self.is_stepwise}

    @classmethod
    def made(
        cls, name: str, config: Mapping[str, Any], weights: Mapping[str, np.ndarray]
    ) -> Component:
        onnx = library(name)
        model = onnx.ModelProto()
        try:
            model.ParseFromString(base64.b64decode(config["graph"], validate=True))
        except Exception as e:
            raise FileError(name, f"its graph is no ONNX model: {one_line(e)}") from None
        inputs = {i.name for i in model.graph.input}
        large = {n: a for n, a in weights.items() if n in inputs}
        for n, array in weights.items():
            if n not in large:
                model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), n))
        check_part(model, name)
        return cls(name, model, stepwise=config["stepwise"], large=large)


# ---- who runs it ---------------------------------------------------------------------------------

_MODULES = {"onnxruntime": "onnxruntime", "reference": "onnx"}
# float32, uint8, int8, uint16, int16, int32, int64, bool, float16, float64, uint32, uint64
_PLAIN = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13})


def _in_onnxruntime(model: Any, large: Mapping[str, np.ndarray]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is said by exceptions
    # Threads that went on spinning would take processors from our kernels, which run next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Its arena would take twice what initializers need.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(a) for a in large.values()]
    if values:
        options.add_external_initializers([*large], values)
    session = onnxruntime.InferenceSession(
        _with_initializers(model, large).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4

    def run(outputs: Sequence[str], fed: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        found: Sequence[np.ndarray] = session.run(outputs, fed, quiet)
        return found

    return run


def _with_initializers(model: Any, large: Mapping[str, np.ndarray]) -> Any:
    """The same, large inputs as initializers whose numbers are said to lie in another file."""
    if not large:
        return model
    made = type(model)()
    made.CopyFrom(model)
    del made.graph.input[:]
    for value in model.graph.input:
        if value.name not in large:
            made.graph.input.append(value)
            continue
        kind = value.type.tensor_type.elem_type
        dims = large[value.name].shape
        tensor = made.graph.initializer.add(name=value.name, data_type=kind, dims=dims)
        tensor.data_location = 1  # EXTERNAL
        tensor.external_data.add(key="location", value="given beside")
    return made


def _in_reference(model: Any, large: Mapping[str, np.ndarray]) -> Any:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    alone = threading.Lock()  # its operators keep attributes while they run

    def run(outputs: Sequence[str], fed: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        with alone, np.errstate(all="ignore"):
            return [np.asarray(a) for a in evaluator.run(list(outputs), {**large, **fed})]

    return run


RUN = {"onnxruntime": _in_onnxruntime, "reference": _in_reference}
