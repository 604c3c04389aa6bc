"""Two kinds of names: whatever the user calls things, it means nothing of ours.

The long form is `python -m tests.attack names`.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

import rnncc
from rnncc.common.template_loader import template_root
from rnncc.emit.shared.kernel_names import is_users
from rnncc.frontend.spec import CellSpec
from rnncc.lowering.cell_interface import check_text
from rnncc.runtime.api.layer_options import LayerType
from rnncc.runtime.jit.module_grammar import BUILTINS, RUNTIME, check_module
from tests.attack.names import expected, outcome
from tests.support.cases import render_module

ROWS = {
    "buffers of ours": (
        "kernel=zeros recurrent=ones state=sync input=scratch_base value=row_pointers"
    ),
    "the other way round": "state=zeros input=ones kernel=sync bias=scratch_base other=shared",
    "almost words of Python": (
        "kernel=lambda_ state=in_ value=is_ input=if_ units=None_ sum=def_ left=and_"
    ),
    "words of kernels": (
        "units=self features=range kernel=word state=v input=block value=min sum=float bias=VB "
        "left=q right=t_"
    ),
    "words of results": (
        "value=final_q_state kernel=d_q_input other=d_q_kernel bias=d_d_q_input sum=q_state_1"
    ),
    "what names become": (
        "state=h other=h_ptr kernel=h_stride_b bias=h_ring units=h_size value=h_ sum=h__ "
        "input=h_in_ptr left=h_r"
    ),
}
CLASSES = ("v", "VB", "SIZE", "word", "share", "barrier", "range", "ENGINES", "CELL")
MORE = ("CellDescription", "FORWARD", "kernel", "layer_class", "DirectionSpec", "self", "print")


@pytest.mark.parametrize("row", ROWS)
def test_other_names_give_the_same_bits(row: str) -> None:
    names = dict(pair.split("=") for pair in ROWS[row].split())
    again = row == "words of results"
    found = outcome({f"q_{role}": name for role, name in names.items()}, True, again)
    for a, b in zip(found, expected(True, again), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", (*CLASSES, *MORE))
def test_a_cell_of_any_name(name: str) -> None:
    """Its class is the last that its module binds, and none of the module's own words."""
    for a, b in zip(outcome({"q_cell": name}, False, False), expected(False, False), strict=True):
        np.testing.assert_array_equal(a, b)


def small(cell: str) -> CellSpec:
    return check_text(
        f"cell: {cell}\nself: size\nx: input[self]\nzeros: weight[self]\nh: state[self]\n"
        "h[t] = x[t] * zeros + 0.5 * h[t-1]\nreturn h[t]\n"
    )


@pytest.mark.parametrize("cell", ["v", "word"])
def test_compiled(cell: str) -> None:
    layer = rnncc.compile_text(small(cell).text)(self=3, return_sequences=True)
    x = np.ones((2, 2, 3), "float32")
    layer.build((None, None, 3))
    layer.weights["zeros"] = np.array([1.0, 2.0, 3.0], "float32")
    y, pullback = layer.vjp(x)
    np.testing.assert_array_equal(y[0], [[1.0, 2.0, 3.0], [1.5, 3.0, 4.5]])
    np.testing.assert_array_equal(pullback(np.ones_like(y)).weights["zeros"], [5.0, 5.0, 5.0])


def test_a_cell_of_any_name_in_a_module_for_a_gpu() -> None:
    """A kernel's words are those that its module had when it was made."""
    for name in (*CLASSES, *MORE):
        module: dict[str, object] = {"__name__": "named"}
        exec(check_module(render_module(small(name), target="cuda", variants=())), module)
        found = module["_ENGINES"]
        assert isinstance(found, dict) and isinstance(module[name], type)
        (engine, *_) = found.values()
        for kernel in engine._forward.direction.kernels:
            words = kernel.function.function.__globals__
            assert not isinstance(words.get(name), LayerType)


# ---- the text --------------------------------------------------------------------------------


def test_no_word_of_ours_looks_like_the_users() -> None:
    """What templates and the runtime call their own has no ending that means something. C has
    names of another kind (`emit.c.names`), and words of gcc's that end in anything."""
    known = set(BUILTINS).union(*RUNTIME.values())
    for path in template_root().rglob("*.jinja"):
        if path.parent.name == "c":
            continue
        text = path.read_text(encoding="utf-8")
        known |= set(re.findall(r"\b[A-Za-z]\w*", re.sub(r"{{.*?}}|{%.*?%}", "X", text)))
    assert {"word", "scratch_base", "row_pointers", "blk"} <= known
    assert not {n for n in known if is_users(n)}


@pytest.mark.parametrize("size", ["self", "spec", "input_size", "device"])
def test_sizes_that_torch_has_arguments_for(size: str) -> None:
    """Right, or refused with what to do."""
    torch = pytest.importorskip("torch")
    from rnncc.torch import Recurrent

    made = rnncc.compile_text(small("Cell").text.replace("self", size))
    if size in ("input_size", "device"):
        with pytest.raises(ValueError, match=f"Recurrent takes {size} for itself"):
            Recurrent(made, **{size: 3})
        return
    module = Recurrent(made, **{size: 3})
    assert module(torch.ones(1, 1, 3))[0].shape[-1] == 3
