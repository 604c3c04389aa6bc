"""RNN, GRU and LSTM of ONNX: against ONNX's own cases, and NumPy that does as their text says."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rnncc.files import FileError
from rnncc.models import Component, Model
from rnncc.models.component import NoGradient, NoStream
from rnncc.models.onnx import load_onnx
from rnncc.models.onnx.recurrent_node import OnnxRecurrent
from rnncc.models.onnx.settings import settings_of
from tests.support.in_onnx.drawn_nodes import Drawn, arrays_of, cast, drawn


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Model]:
    def loaded(given: Drawn, dtype: str = "float32", **keywords: Any) -> Model:
        path = tmp_path / "drawn.onnx"
        onnx.save(given.model(dtype=dtype, **keywords), path)
        return load_onnx(path)

    return loaded


def close(
    found: dict[str, np.ndarray], given: Drawn, tolerance: float = 1e-12, **also: Any
) -> None:
    for name, expected in given.expected(**also).items():
        assert found[name].shape == expected.shape
        np.testing.assert_allclose(found[name], expected, tolerance, tolerance)


def cases() -> list[Any]:
    """ONNX's own: (node, inputs, outputs, name), as its modules hand them to `expect`."""
    found: list[Any] = []
    for name in ("rnn", "gru", "lstm"):
        module = importlib.import_module(f"onnx.backend.test.case.node.{name}")
        expect, module.expect = (
            module.expect,
            lambda n, inputs, outputs, name: found.append((n, inputs, outputs, name)),
        )
        own = getattr(module, name.upper())
        for export in [getattr(own, e) for e in dir(own) if e.startswith("export")]:
            export()
        module.expect = expect
    return found


@pytest.mark.parametrize("held", [False, True], ids=["inputs", "initializers"])
def test_cases_of_onnx(held: bool, tmp_path: Path) -> None:
    """With weights as inputs of the model, as they are, and in the file."""
    everything = cases()
    assert len(everything) >= 15
    for node, inputs, outputs, name in everything:
        names = [n for n in node.input if n]
        values = [onnx.helper.make_tensor_value_info(n, 1, a.shape) for n, a in zip(names, inputs)]
        tensors = [onnx.numpy_helper.from_array(a, n) for n, a in zip(names, inputs)]
        given = [o for o in node.output if o]
        graph = onnx.helper.make_graph(
            [node],
            name,
            values[: 1 if held else None],
            [onnx.helper.make_tensor_value_info(n, 1, a.shape) for n, a in zip(given, outputs)],
            tensors[1:] if held else [],
        )
        for value in graph.input:
            if value.name in ("seq_lens", "sequence_lens"):
                value.type.tensor_type.elem_type = onnx.TensorProto.INT32
        imports = [onnx.helper.make_opsetid("", 22)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=imports), tmp_path / "case.onnx")
        model = load_onnx(tmp_path / "case.onnx")
        found = model(dict(zip(names[: 1 if held else None], inputs)))
        for n, expected in zip(given, outputs):
            np.testing.assert_allclose(found[n], expected, 1e-3, 1e-7, err_msg=name)


@pytest.mark.parametrize("seed", [0, 2, 6, 7, 12, 41])
def test_drawn_nodes(seed: int, load: Callable[..., Model]) -> None:
    """The attack `onnx` does it a hundred times as often."""
    given = drawn(seed)
    close(load(given, "float64")(given.fed("float64")), given)


def test_half_precision_is_widened(load: Callable[..., Model]) -> None:
    given = lstm()
    given.arrays |= {n: cast(n, a, "f2").astype(a.dtype) for n, a in given.arrays.items()}
    model = load(given, "float16")
    found = model(given.fed("float16"))
    assert {a.dtype.name for a in found.values()} == {"float16"} and "float16" in model.plan()
    close({n: a.astype("f8") for n, a in found.items()}, given, 2e-3)


def lstm(layout: int = 0, **attributes: Any) -> Drawn:
    rng = np.random.default_rng(5)
    ways = 1 + (attributes.get("direction") == "bidirectional")
    arrays = arrays_of("LSTM", rng, ways, (5, 3, 4, 6), layout)
    arrays["sequence_lens"] = np.array([5, 0, 2], "i4")
    return Drawn("LSTM", attributes | {"layout": layout}, arrays)


@pytest.mark.parametrize("layout", [0, 1])
def test_gradients(layout: int, load: Callable[..., Model]) -> None:
    """By differences of the NumPy reading, in both directions with rows of different lengths."""
    given = lstm(layout, direction="bidirectional")
    model, fed = load(given, "float64"), given.fed("float64")
    rng = np.random.default_rng(1)
    outputs, pullback = model.vjp(fed)
    dy = {n: rng.standard_normal(a.shape) for n, a in outputs.items()}
    found = pullback(dy)
    close(outputs, given)
    for name in ("X", "initial_h", "initial_c"):
        way = rng.standard_normal(fed[name].shape)
        sides = []
        for step in (1e-5, -1e-5):
            moved = replace(given, arrays=given.arrays | {name: fed[name] + step * way})
            sides.append(sum((dy[n] * y).sum() for n, y in moved.expected().items()))
        gradient = found.inputs[name]
        assert gradient is not None
        slope = (sides[0] - sides[1]) / 2e-5
        assert np.isclose((gradient * way).sum(), slope, 1e-7, 1e-7), name
    assert found.inputs["sequence_lens"] is None
    assert {n.partition("/")[2] for n in found.weights} == {
        f"{way}.{n}" for way in ("forward", "reverse") for n in "WRBP"
    }
    only = pullback({"Y_c": dy["Y_c"]}).inputs["X"]
    assert only is not None and only.any() and not np.array_equal(only, found.inputs["X"])


def test_streams(load: Callable[..., Model]) -> None:
    given = replace(lstm(), held=frozenset({"W", "R", "B", "P", "initial_h", "initial_c"}))
    del given.arrays["sequence_lens"]
    model, x = load(given), given.arrays["X"]
    whole = model({"X": x})
    stream = model.stream({"X": x[:1]})
    for _ in range(2):
        steps = [stream({"X": x[t : t + 1]}) for t in range(5)]
        assert np.array_equal(np.concatenate([s["Y"] for s in steps]), whole["Y"])
        assert np.array_equal(steps[-1]["Y_h"], whole["Y_h"])
        assert np.array_equal(steps[-1]["Y_c"], whole["Y_c"])
        stream.reset()
    for other, words in (
        (replace(given, held=frozenset("WRBP")), "gets its states as inputs"),
        (replace(given, held=frozenset()), "gets its weights as inputs"),
        (replace(given, attributes={"direction": "reverse"}), "runs backwards"),
        (lstm(), "sequence_lens"),
    ):
        with pytest.raises(NoStream, match=words):
            load(other).stream(other.fed())
    with pytest.raises(NoGradient, match="weights as inputs"):
        without = replace(given, held=frozenset())
        load(without).vjp(without.fed())


def test_short_calls_are_alike_and_share_nothing(load: Callable[..., Model]) -> None:
    """Whatever was called before, and from threads that call with other shapes."""
    given = replace(lstm(), held=frozenset("WRBP"))
    del given.arrays["sequence_lens"]
    model, fed = load(given), given.fed()
    again = copy.deepcopy(model)
    calls = []
    for i in range(12):
        own = {"X": fed["X"][: 1 + i % 3] + i, **{n: a * i for n, a in fed.items() if n != "X"}}
        calls.append((own, again(own)))
        again = copy.deepcopy(model)

    def check(number: int) -> bool:
        own, expected = calls[number % 12]
        found = model(own)
        return all(np.array_equal(found[n], expected[n]) for n in expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, [i for i in range(12) for _ in range(20)]))
    assert all(check(i) for i in [*range(12)] * 2)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_short_calls_are_like_the_first(
    dtype: str, layout: int, load: Callable[..., Model]
) -> None:
    """Of half numbers and batch first, too; with some states, and none."""
    for absent in (["initial_h", "initial_c"], ["initial_c"]):
        given = replace(lstm(layout=layout), held=frozenset("WRBP"))
        for name in ("sequence_lens", *absent):
            del given.arrays[name]
        model, fed = load(given, dtype), given.fed(dtype)
        first, *others = (model(fed) for _ in range(3))
        assert all(y.dtype == dtype for y in first.values())
        for other in others:
            assert all(np.array_equal(other[n], first[n]) for n in first)


def test_a_short_call_with_lengths_of_its_own(load: Callable[..., Model]) -> None:
    """Lengths that were whole in the calls before say nothing of the next one."""
    given = replace(lstm(), held=frozenset("WRBP"))
    model, fed = load(given), given.fed()
    time, batch = fed["X"].shape[:2]
    for length in (time, time, time, 2, time):
        lengths = {"sequence_lens": np.full(batch, length, "i4")}
        found = model(fed | lengths)
        expected = replace(given, arrays=given.arrays | lengths).expected()
        np.testing.assert_allclose(found["Y_h"], expected["Y_h"], 1e-5, 1e-5)


def test_nothing_to_run(load: Callable[..., Model]) -> None:
    given = lstm(direction="bidirectional")
    model = load(given)
    for time, batch in ((0, 3), (5, 0)):
        found = model(
            {
                "X": given.arrays["X"][:time, :batch],
                "sequence_lens": np.zeros(batch, "i4"),
                "initial_h": given.arrays["initial_h"][:, :batch],
                "initial_c": given.arrays["initial_c"][:, :batch],
            }
        )
        assert found["Y"].shape == (time, 2, batch, 6) and not found["Y"].any()
        assert found["Y_h"].shape == (2, batch, 6) and not found["Y_h"].any()


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_part_is_made_again(direction: str, load: Callable[..., Model]) -> None:
    given = lstm(direction=direction, activations=["HardSigmoid", "Tanh", "Softsign"] * 2)
    given.attributes["activations"] = given.attributes["activations"][: 3 * len(given.arrays["W"])]
    model = load(given)
    part = model.nodes[0].part
    again = Component.kinds[part.kind].made(part.name, part.config(), part.weights)
    arrays = [given.arrays.get(n) for n in ("X", *"...", "sequence_lens", "initial_h", "initial_c")]
    assert all(map(np.array_equal, part(*arrays), again(*arrays)))


ATTRIBUTES: list[tuple[dict[str, Any], str]] = [
    ({"activations": ["Tanh", "Tanh"]}, "2 activations, expected 3"),
    ({"activations": ["Tanh", "Sinh", "Tanh"]}, "activation 'Sinh' is none of Relu"),
    ({"activations": ["Affine", "Tanh", "Tanh"]}, "Affine needs activation_alpha"),
    ({"direction": "sideways"}, "direction is 'sideways'"),
    ({"clip": -1.0}, "clip is -1.0"),
    ({"clip": float("nan")}, "clip is nan"),
    ({"layout": 2}, "layout is 2"),
    ({"input_forget": 7}, "input_forget is 7"),
    ({"hidden_size": -6}, "hidden_size is -6"),
    ({"linear_before_reset": 1}, "LSTM has no attribute linear_before_reset"),
    ({"direction": 3}, "direction is 3, expected a text"),
    (
        {"activations": ["Tanh", "LeakyRelu", "Elu"], "activation_alpha": [0.0, 0.1, 0.2]},
        "activation_alpha has 3 values, of Tanh, LeakyRelu, Elu 2 take one",
    ),
    ({"activation_alpha": [float("inf")], "activations": ["Elu"] * 3}, "alpha of Elu is inf"),
]


@pytest.mark.parametrize(("attributes", "words"), ATTRIBUTES)
def test_attributes_that_cant_be(attributes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        settings_of("LSTM", attributes)


def test_numbers_go_to_those_that_take_them() -> None:
    """In order; a list of one for every function is taken if that is the same."""
    names = ["HardSigmoid", "Tanh", "LeakyRelu"]
    (short,) = settings_of(
        "LSTM", {"activations": names, "activation_alpha": [0.25, 0.5], "activation_beta": [0.75]}
    ).functions
    assert "0.25" in short[0] and "0.75" in short[0] and "0.5" in short[2]
    (default,) = settings_of("LSTM", {"activations": names, "activation_alpha": [0.25]}).functions
    assert "0.01" in default[2] and "0.5" in default[0]
    (whole,) = settings_of(
        "LSTM", {"activations": ["Elu", "Tanh", "Tanh"], "activation_alpha": [0.25, 0.0, 0.0]}
    ).functions
    assert "0.25" in whole[0]


ARRAYS: list[tuple[str, Callable[[np.ndarray], np.ndarray], str]] = [
    ("W", lambda a: a[:, :-1], r"tensor W: W has shape \[1, 23, 4\], expected \[1, 24, 4\]"),
    ("R", lambda a: a[:, :, :-1], r"tensor W: W has shape|tensor R: R has shape"),
    ("B", lambda a: a[:, :-1], r"tensor B: B has shape \[1, 47\]"),
    ("P", lambda a: a[:, :-1], r"tensor P: P has shape \[1, 17\]"),
    ("W", lambda a: np.full_like(a, np.nan), "tensor W: holds NaN"),
    ("B", lambda a: np.full_like(a, np.inf), "tensor B: holds NaN or infinities"),
    ("R", lambda a: a[..., None], "R"),
    ("W", lambda a: np.repeat(a, 2, 0), r"W has shape \[2, 24, 4\]"),
]


@pytest.mark.parametrize(("name", "change", "words"), ARRAYS)
def test_arrays_that_dont_fit(
    name: str, change: Any, words: str, load: Callable[..., Model]
) -> None:
    given = lstm()
    given.arrays[name] = change(given.arrays[name])
    with pytest.raises(FileError, match=words):
        load(given)


def test_calls_that_dont_fit(load: Callable[..., Model]) -> None:
    given = lstm()
    model, fed = load(given), given.fed()
    for name, array, words in (
        ("X", fed["X"][..., :3], r"X has shape \[5, 3, 3\], expected \[time, batch, 4\]"),
        ("initial_h", fed["initial_h"][:, :2], r"initial_h has shape \[1, 2, 6\], expected"),
        ("sequence_lens", np.array([5, -1, 2], "i4"), "expected 0 ... 5"),
        ("sequence_lens", np.array([6, 1, 2], "i4"), "expected 0 ... 5"),
        ("sequence_lens", np.array([1, 2], "i4"), "sequence_lens has shape"),
    ):
        with pytest.raises(ValueError, match=f"cell: .*{words}"):
            model(fed | {name: array})
    part = OnnxRecurrent("cell", "LSTM", {}, None)
    with pytest.raises(ValueError, match="cell: R has shape"):
        part(fed["X"], given.arrays["W"], given.arrays["R"][:, 1:])
