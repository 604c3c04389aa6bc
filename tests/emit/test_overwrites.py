"""Rows that start anew are written over once a step, not selected in every vector."""

from __future__ import annotations

import re

import pytest

from rnncc.artifact.cell import TO_STARTS, TO_ZEROS, Variant
from rnncc.driver import Derivation
from rnncc.frontend.parse import parse

CELL = """
cell: Cell
units: size
x: input[units]
h: state[units]
c: state[units]
c[t] = tanh(x[t] + c[t-1])
h[t] = sigmoid(h[t-1] + c[t])
return h[t]
"""
LATER = CELL.replace("+ c[t-1]", "+ c[t-1] + h[t-2]")


def loop(text: str, resets: str) -> str:
    """The forward loop over several rows."""
    module = Derivation(parse(text, "cell.rnn")).module("float32", [Variant(resets=resets)])
    found = re.search(r"\ndef \w*forward_scan\(.*?\n\n\n", module, re.DOTALL)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("resets", [TO_ZEROS, TO_STARTS])
@pytest.mark.parametrize(("text", "states"), [(CELL, 2), (LATER, 3)])
def test_a_flag_is_asked_once_a_row(text: str, states: int, resets: str) -> None:
    inside = loop(text, resets)
    assert inside.count("v.any(v.broadcast(restart_ptr") == 1
    start = "v.splat(0.0)" if resets == TO_ZEROS else "v.load("
    behind = inside[inside.index("v.any(") :]
    assert behind.count(f"q, {start}") == states
