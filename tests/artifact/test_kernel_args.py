"""Arguments of kernels: their text is read back, and each has somebody who answers it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rnncc.artifact.kernel_args import (
    KINDS,
    AxisStride,
    BatchStride,
    BufferAddress,
    CpuNumber,
    CudaNumber,
    KernelArgument,
    MemberCount,
    PackedWeights,
    PartCount,
    RingMask,
    SizeOf,
    parsed,
    texts_of,
)
from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.machine import Machine
from rnncc.runtime.cpu.planning.kernel_arguments import ArgumentBinder
from rnncc.runtime.jit.module_grammar import check_module
from rnncc.runtime.planning.call_key import CallKey
from tests.support.cases import module_text

SAMPLES = {"str": "h_1", "int": 3, "Starts": ((0, "units"), (1, "2 * units"))}


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_read_back(kind: str) -> None:
    made = KINDS[kind]
    whole = made(*(SAMPLES[t] for t in made.types))  # type: ignore[arg-type]
    short = made(*whole[1 : len(whole) - len(made.defaults)])
    for argument in (whole, short):
        (found,) = parsed(texts_of([argument]))
        assert found == argument and type(found) is made
        assert len(argument) == 1 + len(made.names)
    assert made.__doc__ and made.__doc__ != KernelArgument.__doc__


def test_texts() -> None:
    """Those about one thing share a text, in their order."""
    start = BufferAddress("b", "", ((0, "units"), (1, "2 * units")))
    arguments = (PartCount(), SizeOf("4 * units"), BufferAddress("h", "final"), BatchStride("h"))
    arguments = (*arguments, start, PackedWeights("stage", 0, 1), BatchStride("h"))
    texts = (
        "parts, size|4 * units",
        "h: address|final, stride_b",
        "b: address||0:units,1:2 * units",
        "stage: pack|0|1",
        "h: stride_b",
    )
    assert texts_of(arguments) == texts and parsed(texts) == arguments


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "size",
        "size|a|b",
        "stride|x|T",
        "pack|stage|0",
        "T|x",
        "address|x||units",
        "x: T",
        "x: ",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no argument of a kernel"):
        parsed((text,))


def test_arguments_are_values() -> None:
    assert SizeOf("x") != RingMask("x") and len({SizeOf("x"), RingMask("x"), SizeOf("x")}) == 2
    assert AxisStride("x", 0).axis == 0 and repr(AxisStride("x", 0)) == "AxisStride('x', 0)"
    with pytest.raises(AttributeError):
        SizeOf("x").size = "y"  # type: ignore[misc]
    with pytest.raises(TypeError, match="BatchStride has the fields"):
        BatchStride()  # type: ignore[call-arg]


# ---- who answers -------------------------------------------------------------------------------


def directions(target: str) -> Iterator[DirectionSpec]:
    """Of an LSTM's training, and of a cell with draws, a reshape and sums."""
    for name in ("lstm", "sru"):
        module: dict[str, Any] = {"__name__": "told"}
        exec(check_module(module_text(name, target)), module)
        for engine in module["_ENGINES"].values():
            yield from (engine._forward.direction, engine._backward.direction)


@pytest.mark.parametrize(("target", "foreign"), [("cpu", CudaNumber), ("cuda", CpuNumber)])
def test_nobody_asks_for_the_other_targets_numbers(
    target: str, foreign: type[KernelArgument]
) -> None:
    asked = {a for d in directions(target) for k in d.kernels for a in k.words}
    assert asked and not [a for a in asked if isinstance(a, foreign)]


def test_what_nobody_knows_is_refused() -> None:
    direction = next(directions("cpu"))
    call = CallKey((("features", 3), ("units", 4)), 2, 5, save=False, last_only=False)
    binder = ArgumentBinder(direction, call, Machine(), "float32", 1, {})
    binder.bind()
    (loop,) = (k for k in direction.kernels if k.kind == "scan")
    assert binder.number(loop, SizeOf("4 * units")) == 16
    for foreign in (MemberCount(), PartCount()):  # a GPU's; of a kernel that is shared out just now
        with pytest.raises(TypeError, match="nobody here knows"):
            binder.number(loop, foreign)
