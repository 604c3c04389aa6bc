"""convert: what it swaps, that nothing else changes, and what it says of the rest."""

from __future__ import annotations

import copy
import io
import pickle
import re
import warnings
from typing import Any

import pytest

from tests.support.paths import ROOT

torch = pytest.importorskip("torch")

from torch.nn.utils import parametrizations  # noqa: E402

import rnncc.torch as ours  # noqa: E402


class Gated(torch.nn.LSTM):
    """A subclass, which might compute anything."""


class Loop(torch.nn.Module):
    """A layer of one's own around a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = torch.nn.GRUCell(4, 6)

    def forward(self, x: Any) -> Any:
        h, ys = None, []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            ys.append(h)
        return torch.stack(ys, 1)


class Model(torch.nn.Module):
    """One of each, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(9, 4)
        self.first = torch.nn.LSTM(4, 6, 2, dropout=0.3, proj_size=4)
        self.again = self.first
        self.second = parametrizations.weight_norm(torch.nn.GRU(4, 6), "weight_hh_l0")
        self.many = torch.nn.ModuleList([torch.nn.RNN(6, 6, nonlinearity="relu")])
        self.cell = torch.nn.LSTMCell(6, 6)
        self.rnn = torch.nn.RNNCell(6, 4, bias=False)
        self.out = torch.nn.Linear(4, 9)
        self.out.weight = self.embed.weight

    def forward(self, words: Any) -> Any:
        x = self.again(self.first(self.embed(words))[0])[0]
        x = self.many[0](self.second(x)[0])[0]
        return self.out(self.rnn(self.cell(x[-1])[0]))


def model() -> Model:
    torch.manual_seed(3)
    made = Model().double()
    made.first.dropout = 0.0
    return made


def gradients(module: Any, words: Any) -> list[Any]:
    module.zero_grad()
    found = module(words)
    found.square().sum().backward()
    return [found.detach(), *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("inplace", [False, True])
def test_a_converted_model_is_the_same_model(inplace: bool) -> None:
    theirs = model()
    words = torch.randint(9, (5, 3))
    right = [t.clone() for t in gradients(theirs, words)]
    before = {n: t.clone() for n, t in theirs.state_dict().items()}
    parameters = [*theirs.parameters()]
    own: Any = ours.convert(theirs, inplace=inplace)
    assert (own is theirs) is inplace
    assert all(p is q for p, q in zip(own.parameters(), parameters, strict=True))
    for a, b in zip(gradients(own, words), right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert own.first is own.again and own.out.weight is own.embed.weight
    assert list(own.state_dict()) == list(before)
    assert all(torch.equal(t, before[n]) for n, t in own.state_dict().items())
    assert [type(m) for m in (own.first, own.many[0], own.cell, own.rnn)] == [
        ours.LSTM,
        ours.RNN,
        ours.LSTMCell,
        ours.RNNCell,
    ]
    assert type(theirs.first) is (ours.LSTM if inplace else torch.nn.LSTM)
    # Both ways, bit for bit.
    fresh = Model().double()
    fresh.load_state_dict(own.state_dict())
    own.load_state_dict(fresh.state_dict())
    assert all(torch.equal(t, before[n]) for n, t in own.state_dict().items())


def test_the_report_names_each_module_once() -> None:
    own = ours.convert(model())
    report = ours.converted(own)
    assert not report.left and len(report.swapped) == 5
    assert report.swapped[0].names == ("first", "again")
    lines = str(report).splitlines()
    assert lines[0] == "5 of 5 recurrent modules run on rnncc's kernels"
    assert lines[1] == "  first = again: rnncc.torch.LSTM"
    before = str(ours.converted(model()))
    assert before.startswith("0 of 5") and "left: not converted" in before


def test_what_is_left_is_said() -> None:
    script = torch.jit.script(torch.nn.LSTM(2, 3))
    patched = torch.nn.GRU(2, 3)
    patched.forward = lambda x: x
    kept = {
        "a subclass of torch.nn.LSTM may compute something else": Gated(2, 3),
        "it is TorchScript": script,
        "its forward was replaced": patched,
        "its weights are torch.complex64": torch.nn.LSTM(2, 3).to(torch.complex64),
        "has kernels of its own": torch.ao.nn.quantized.dynamic.LSTM(2, 3),
    }
    for why, module in kept.items():
        whole = torch.nn.Sequential(module)
        with pytest.warns(UserWarning, match=f"0: .*left: .*{why}"):
            own = ours.convert(whole, inplace=True)
        assert own[0] is module and type(module) not in (ours.LSTM, ours.GRU)
        assert why in ours.converted(own).left[0].left
    with pytest.warns(UserWarning, match="no recurrent modules"):
        ours.convert(torch.nn.Linear(2, 3))


def test_cells_of_ones_own() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(Loop(), Gated(6, 5, batch_first=True))
    x = torch.randn(2, 7, 4)
    right, (h, _) = theirs(x)
    seen: list[Any] = []
    theirs[0].register_forward_hook(lambda module, given, got: seen.append(module))
    theirs.eval()
    table = {Loop: lambda m: ours.Recurrent(m.cell, return_sequences=True), Gated: ours.LSTM}
    own = ours.convert(theirs, table)
    assert {id(p) for p in own.parameters()} == {id(p) for p in theirs.parameters()}
    found, (last, _) = own(x)
    torch.testing.assert_close(found, right)
    torch.testing.assert_close(last, h)
    assert not own[0].training and seen == [own[0]]
    assert type(own[0].cell) is torch.nn.GRUCell  # a layer reads it; it never runs
    assert [f.kind for f in ours.converted(own).swapped] == [
        "rnncc.torch.RecurrentModule",
        "rnncc.torch.LSTM",
    ]
    # A function is asked of every module; torch's own are swapped all the same.
    alone = ours.convert(torch.nn.Sequential(Loop()), lambda m: None)
    assert type(alone[0]) is Loop and type(alone[0].cell) is ours.GRUCell
    assert type(ours.convert(Loop(), lambda m: m if type(m) is Loop else None)) is Loop
    with pytest.warns(UserWarning, match="left: not converted"):
        left = ours.convert(torch.nn.Sequential(torch.nn.GRU(2, 3)), {torch.nn.GRU: lambda m: m})
    assert type(left[0]) is torch.nn.GRU
    instead = ours.convert(Loop(), {Loop: lambda m: ours.Recurrent(m.cell)}, inplace=True)
    assert type(instead) is ours.RecurrentModule


def test_parameters_that_get_lost_are_said() -> None:
    with pytest.warns(UserWarning, match=r"GRU in place of Loop has not its cell\.weight_ih"):
        ours.convert(torch.nn.Sequential(Loop()), {Loop: lambda m: ours.GRU(4, 6)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cells": {"LSTM": ours.LSTM}}, "a key is a class of modules"),
        ({"cells": {torch.nn.GRU: ours.LSTM}}, r"GRU is no torch\.nn\.LSTM"),
        ({"cells": {torch.nn.GRU: 3}}, "needs a function"),
        ({"cells": 3}, "a dict by classes, or a function"),
        ({"cells": {torch.nn.Linear: lambda m: 3}}, "Linear became a int"),
        ({"weights": 8}, "weights is how they are stored"),
        ({"precision": "int8"}, "precision is one of"),
        ({"weights": "int8"}, "narrows weights of float32"),
    ],
)
def test_what_is_wrong_changes_nothing(arguments: dict[str, Any], message: str) -> None:
    whole = torch.nn.Sequential(torch.nn.GRU(2, 3), torch.nn.LSTM(2, 3).double())
    whole.append(torch.nn.Linear(2, 3))
    with pytest.raises((TypeError, ValueError), match=message):
        ours.convert(whole, inplace=True, **arguments)
    assert [type(m) for m in whole] == [torch.nn.GRU, torch.nn.LSTM, torch.nn.Linear]
    assert not {"_recurrences", "weights"} & vars(whole[0]).keys()
    with pytest.raises(TypeError, match=r"a model is a torch\.nn\.Module"):
        ours.convert(torch.nn.LSTM)


def test_restored_within() -> None:
    own = ours.convert(model(), weights=None)
    reached = []
    with ours.restored(own) as theirs:
        assert theirs is own
        theirs.apply(lambda m: reached.append(isinstance(m, torch.nn.LSTM)))
        with torch.no_grad():
            own.cell.weight_hh.zero_()
    assert sum(reached) == 1 and type(own.first) is ours.LSTM
    words = torch.randint(9, (5, 3))
    with ours.restored(own):
        right = gradients(own, words)
    torch.testing.assert_close(gradients(own, words), right, rtol=1e-10, atol=1e-12)
    with pytest.raises(KeyError), ours.restored(own):
        raise KeyError
    assert type(own.first) is ours.LSTM


def test_twice_and_settings_of_what_is_ours() -> None:
    whole = torch.nn.Sequential(torch.nn.LSTM(4, 6))
    own = ours.convert(ours.convert(whole), weights="int8")
    assert own[0].weights == "int8" and type(whole[0]) is torch.nn.LSTM
    x = torch.randn(3, 2, 4)
    with torch.no_grad():
        apart = (own(x)[0] - whole(x)[0]).abs().max()
    assert 0 < apart < 0.05
    again = ours.convert(own)
    assert again[0].weights == "int8"


def test_a_converted_model_is_copied_saved_and_hooked() -> None:
    own = ours.convert(torch.nn.Sequential(torch.nn.GRU(4, 6)))
    seen = []
    handle = own[0].register_forward_hook(lambda *_: seen.append(1))
    x = torch.randn(3, 2, 4)
    right = own(x)[0]
    handle.remove()
    file = io.BytesIO()
    torch.save(own, file)
    file.seek(0)
    copies = copy.deepcopy(own), torch.load(file, weights_only=False)
    for copied in (*copies, pickle.loads(pickle.dumps(own))):
        assert torch.equal(copied(x)[0], right) and type(copied[0]) is ours.GRU
    assert seen == [1]


def test_quantize_dynamic_is_told_or_heard() -> None:
    from torch.ao.quantization import default_qconfig, quantize_dynamic

    own = ours.convert(torch.nn.Sequential(torch.nn.LSTM(4, 6), torch.nn.Linear(6, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.warns(UserWarning, match="leaves LSTM of rnncc.torch as it is"):
            left = quantize_dynamic(own, {torch.nn.LSTM, torch.nn.Linear})
        assert left[0].weights == "float32" and type(left[0]) is ours.LSTM
        with pytest.warns(UserWarning, match=r"dynamic quantization to torch\.float16"):
            quantize_dynamic(own, {ours.LSTM}, dtype=torch.float16)
        heard = quantize_dynamic(own, {ours.LSTM, torch.nn.Linear})
    assert heard[0].weights == "int8" and own[0].weights == "float32"
    assert not hasattr(heard[0], "qconfig")
    x = torch.randn(3, 2, 4)
    with torch.no_grad():
        assert 0 < (heard[0](x)[0] - own[0](x)[0]).abs().max() < 0.05
    with pytest.warns(UserWarning, match=r"static quantization to torch\.qint8"):
        own[0].qconfig = default_qconfig
    # Torch's int8 kernels, of a model that is converted.
    with ours.restored(own), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert type(quantize_dynamic(own, {torch.nn.LSTM})[0]) is torch.ao.nn.quantized.dynamic.LSTM


def test_the_documents_examples_run() -> None:
    text = (ROOT / "docs/torch.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 1
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert type(names["model"][1]) is ours.LSTM


def test_torch_fx_sees_one_node() -> None:
    own = ours.convert(torch.nn.Sequential(torch.nn.LSTM(4, 6)))
    graph = torch.fx.symbolic_trace(own)
    x = torch.randn(3, 2, 4)
    assert torch.equal(graph(x)[0], own(x)[0])
    assert [n.target for n in graph.graph.nodes if n.op == "call_module"] == ["0"]
