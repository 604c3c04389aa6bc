"""Graphs of torch's compilers: PackedSequences among them, and files that other processes load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import pack_sequence  # noqa: E402

import rnncc.torch as ours  # noqa: E402
from rnncc import SpecError  # noqa: E402
from rnncc.torch import ops  # noqa: E402
from rnncc.torch.recipe_text import recipe_of, text_of  # noqa: E402

DOUBLE = {"dtype": torch.float64}


def packed(order: bool = True) -> Any:
    rows = [torch.linspace(-1, 1, 2 * n, **DOUBLE).reshape(n, 2) for n in (3, 2, 5)]
    return pack_sequence(rows if order else sorted(rows, key=len)[::-1], enforce_sorted=not order)


# ---- packed rows under torch.compile -------------------------------------------------------------


@pytest.mark.parametrize("order", [True, False])
def test_packed_rows_beside_a_compiled_graph(order: bool) -> None:
    """As torch's own, which no compiler looks into."""
    theirs, own = torch.nn.GRU(2, 3, **DOUBLE), ours.GRU(2, 3, **DOUBLE)
    own.load_state_dict(theirs.state_dict())
    found = []
    for module in (theirs, own):
        torch._dynamo.reset()

        @torch.compile(backend="aot_eager")
        def step(rows: Any, module: Any = module) -> Any:
            y, h = module(rows)
            return y.data.sin() + 1, h * 2

        results = step(packed(order))
        loss = sum(r.square().sum() for r in results)
        found.append([*results, *torch.autograd.grad(loss, [*module.parameters()])])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def test_packed_rows_of_a_stack_beside_a_compiled_graph() -> None:
    stack = ours.RecurrentStack(["gru"], units=3, input_size=2, **DOUBLE)
    y, _ = torch.compile(stack, backend="aot_eager")(packed())
    torch.testing.assert_close(y.data, stack(packed())[0].data)


def test_one_graph_with_packed_rows_is_refused() -> None:
    whole = torch.compile(ours.GRU(2, 3, **DOUBLE), backend="aot_eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="rows a PackedSequence has is known"):
        whole(packed())


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"mode": "reduce-overhead"}, {"dynamic": True}])
def test_modes_of_inductor(how: dict[str, Any]) -> None:
    theirs, own = torch.nn.GRU(2, 3, **DOUBLE), ours.GRU(2, 3, **DOUBLE)
    own.load_state_dict(theirs.state_dict())
    whole = torch.compile(lambda x: own(x)[0].sin(), fullgraph=True, **how)
    for sizes in ((4, 2, 2), (5, 3, 2)):
        found, wanted = [], []
        for call, module, results in (
            (whole, own, found),
            (lambda x: theirs(x)[0].sin(), theirs, wanted),
        ):
            x = torch.linspace(-1, 1, 2 * sizes[0] * sizes[1], **DOUBLE).reshape(sizes)
            y = call(x.requires_grad_())
            results += [y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])]
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


# ---- files ---------------------------------------------------------------------------------------

OWN = """cell: Own
features: size
units: size
x: input[features]
h: state[units]
kernel: weight[features, units] = glorot_uniform
slope: option = 2
h[t] = tanh(x[t] @ kernel * slope) + h[t-1] / 3
return h[t]
"""
LOAD = """
import sys, torch, rnncc.torch
x = torch.load("x.pt")
graphs = [torch.export.load(name).module() for name in sys.argv[1:]]
torch.save([graph(x) for graph in graphs], "found.pt")
"""


def own_cell(folder: Path, **keywords: Any) -> Any:
    file = folder / "own.rnn"
    file.write_text(OWN)
    return ours.Recurrent(file, units=3, input_size=2, **keywords, **DOUBLE)


def test_a_file_runs_where_the_module_was_never_made(tmp_path: Path) -> None:
    x = torch.randn(4, 2, 2, **DOUBLE)
    torch.save(x, tmp_path / "x.pt")
    wanted, names = [], []
    for number, module in enumerate([ours.GRU(2, 3, **DOUBLE), own_cell(tmp_path, slope=3)]):
        graph = torch.export.export(module.eval(), (x,))
        torch.export.save(graph, tmp_path / f"{number}.pt2")
        names.append(f"{number}.pt2")
        wanted.append(module(x))
    subprocess.run([sys.executable, "-c", LOAD, *names], check=True, cwd=tmp_path)
    torch.testing.assert_close(torch.load(tmp_path / "found.pt"), wanted)


@pytest.mark.slow
def test_a_compiled_file_runs_where_the_module_was_never_made(tmp_path: Path) -> None:
    module, x = own_cell(tmp_path, slope=3), torch.randn(4, 2, 2, **DOUBLE)
    torch.save(x, tmp_path / "x.pt")
    sizes = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},)
    like = torch.zeros(5, 3, 2, **DOUBLE)
    graph = torch.export.export(module.eval(), (like,), dynamic_shapes=sizes)
    file = tmp_path / "compiled.pt2"
    torch._inductor.aoti_compile_and_package(graph, package_path=str(file))
    load = LOAD.replace("export.load(name).module()", "_inductor.aoti_load_package(name)")
    subprocess.run([sys.executable, "-c", load, "compiled.pt2"], check=True, cwd=tmp_path)
    torch.testing.assert_close(torch.load(tmp_path / "found.pt"), [module(x)])


def test_a_key_holds_equations_and_no_folder(tmp_path: Path) -> None:
    module = own_cell(tmp_path)
    key = module._recurrence.key
    assert "tanh(x[t] @ kernel" in key and str(tmp_path) not in key
    text = key.partition(" ")[2]
    again = recipe_of(text)
    assert text_of(again) == text
    x = torch.randn(2, 4, 2, **DOUBLE)
    given = [x, module.kernel.detach()]
    found = torch.ops.rnncc.forward(
        f"Own:elsewhere {text}", given, None, False, False, False, False
    )
    torch.testing.assert_close(found[0], module(x))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"equations": "import os\n"}, "the cell has no name"),
        ({"equations": 3}, "text is a str"),
        ({"directions": []}, "can't read"),
        ({"sizes": 7}, "can't read"),
        ({"more": 1}, "other fields"),
        ({"dtype": "float16"}, "float16"),
        ({"time_major": "yes"}, "time_major"),
        ({"precision": "low"}, "precision is one of"),
        ({"storage": "int3"}, "storage"),
        ({"options": [["units", 3]]}, "units"),
    ],
)
def test_what_is_no_text_of_a_recipe(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    module = own_cell(tmp_path)
    fields = json.loads(module._recurrence.key.partition(" ")[2])
    text = json.dumps({**fields, **change})
    with pytest.raises((ValueError, TypeError, SpecError), match=words):
        ops.recurrence_named(f"Own:changed {text}")


def test_a_key_without_equations_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="make the module that the graph was compiled from"):
        ops.recurrence_named("Own:elsewhere")
    with pytest.raises(ValueError, match="a text that this version can't read"):
        ops.recurrence_named("Own:elsewhere {}")
