"""What the printer prints is read as a Program that prints, and means, the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from rnncc.driver import Optimised, Programs
from rnncc.ir.interp import interpret
from rnncc.ir.printer import print_program
from rnncc.ir.program import Param, Program
from rnncc.ir.reader import ReadError, read
from rnncc.lowering.cell_interface import check_text
from rnncc.lowering.lower import lower
from rnncc.schedule.legalize import legalize
from tests.support import cases
from tests.support.random_cells import random_cell

BATCH, TIME = 2, 3


def programs_of(lowered: Program) -> Iterator[tuple[Program, bool]]:
    """After each pass, both directions and those of second derivatives; legalised, which has the
    ops of all of them in it, and whether it is."""
    derived = Programs(lowered)
    starts = [derived.forward, derived.training, derived.pullback]
    for optimised in [*starts, *map(Optimised, derived.second_order)]:
        yield from ((program, False) for program in dict.fromkeys(p for _, p in optimised.passes))
        yield legalize(optimised.program), True


def argument(param: Param, sizes: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    type_ = param.value.type
    shape = [{"B": BATCH, "T": TIME}[a] for a in type_.axes]
    shape += [size.evaluate(sizes) for size in type_.shape]
    if type_.dtype == "bool":
        return rng.random(shape) < 0.6
    if type_.dtype == "int" or param.role == "seed":
        return np.full(shape, 7)
    return cases.draw(rng, shape)


def results(program: Program, sizes: Mapping[str, int]) -> list[bytes]:
    program, _ = cases.distinct(program)
    rng = np.random.default_rng(1)
    given = {p.value.name: argument(p, sizes, rng) for p in program.params}
    found = interpret(program, given, sizes, BATCH, TIME)
    return [found[r.name].tobytes() for r in program.results]


def lines(program: Program) -> list[int | None]:
    return [op.span.line if op.span else None for op in program.ops()]


def check(lowered: Program, sizes: Mapping[str, int]) -> None:
    for program, last in programs_of(lowered):
        made = round_trip(program)
        if last:  # interpreting takes longer than all else
            assert results(made, sizes) == results(program, sizes)


def round_trip(program: Program) -> Program:
    text = print_program(program)
    made = read(text)
    assert print_program(made) == text
    assert [(r.role, r.value.type) for r in made.results] == [
        (r.role, r.value.type) for r in program.results
    ]
    assert [(p.role, p.of, p.value.type) for p in made.params] == [
        (p.role, p.of, p.value.type) for p in program.params
    ]
    assert lines(made) == lines(program)
    assert [op.attrs for op in made.ops()] == [op.attrs for op in program.ops()]
    return made


@pytest.mark.parametrize(("name", "variant"), cases.variants(cases.NAMES))
def test_every_program_is_read(name: str, variant: str) -> None:
    sizes = cases.sizes_for(cases.spec_of(name), units=4, features=2)
    check(cases.lowered(name, variant), sizes)


@pytest.mark.parametrize("seed", range(20))
def test_programs_of_random_cells_are_read(seed: int) -> None:
    lowered = lower(check_text(random_cell(seed)), mask=seed % 4 == 3)
    check(lowered, {"features": 2, "units": 4})


# ---- what is rare ------------------------------------------------------------------------------

TEXT = """program Example
  input     x : float[B, T, units]
  state     h : float[B, units]
  weight    W : float[units, 2 * units]
before:
  z = contract(x, W, labels=(k, kl, l)) : float[B, T, 2 * units]  # line 9
scan, backwards in time:
  carry _h : float[B, units], from h
  z_1 = z[t]
    a = slice(z_1, axis=0, start=units, size=units) : float[B, units]
    h_1 = add(_h, a, apart=True) : float[B, units]
  next _h = h_1; last is final_h
  y[t] = a
after:
  s = sum_over(y, over=BT) : float[units]
  result d_x (grad_input of x) = y
  result final_h (state of h) = final_h
"""


def with_line(number: int, line: str) -> str:
    every = TEXT.split("\n")
    every[number - 1] = line
    return "\n".join(every)


def test_programs_can_be_stated_as_text() -> None:
    program = read(TEXT)
    assert program.scan is not None and program.scan.reverse
    assert read(print_program(program)).results[0].role.of == "x"
    assert len(list(program.ops())) == 4


@pytest.mark.parametrize(
    "size", ["(units // 2) * 3", "3 * (units // (2 * n)) - 1 * n + 2", "-2 * n * n + 7", "0"]
)
def test_sizes(size: str) -> None:
    text = f"program P\n  weight    W : float[{size}]\n  result W (output) = W\n"
    shown = print_program(read(text))
    assert print_program(read(shown)) == shown
    value = read(text).params[0].value.type.shape[0]
    assert value == read(shown).params[0].value.type.shape[0]
    assert value.evaluate({"units": 7, "n": 2}) == eval(size, {"units": 7, "n": 2})


@pytest.mark.parametrize("number", ["1", "-0.0", "1e-05", "inf", "-inf", "2.5", "True"])
def test_numbers(number: str) -> None:
    dtype = "bool" if number == "True" else "float"
    line = f"  c = full(value={number})"
    text = f"program P\nbefore:\n{line:<60} : {dtype}[]\n  result c (output) = c\n"
    program = read(text)
    assert print_program(program) == text
    assert repr(program.before[0].attrs["value"]) == number


def test_sizes_called_as_axes() -> None:
    lowered = lower(
        check_text("cell: A\nB: size\nx: input[B]\nh: state[B]\nh[t] = x[t]\nreturn h[t]\n")
    )
    text = print_program(lowered)
    assert "float[B, T, (B)]" in text and print_program(read(text)) == text


def test_names_are_given_once() -> None:
    program = read(TEXT)
    twice = {p.value: replace(p.value, name="z_1") for p in program.params[:1]}
    params = (replace(program.params[0], value=twice[program.params[0].value]), *program.params[1:])
    before = tuple(
        replace(op, operands=tuple(twice.get(o, o) for o in op.operands)) for op in program.before
    )
    text = print_program(replace(program, params=params, before=before))
    assert print_program(read(text)) == text and "z_1_1 = z[t]" in text


WRONG = {
    # line, what stands there: column, what is said
    (1, "prog Example"): (1, "expected a program, found prog Example"),
    (2, "  input     x : flaot[B, T, units]"): (17, "expected a type, found flaot"),
    (2, "  input     x : float[T, B, units]"): (17, "a type over TB"),
    (2, "  input     x : float[B, T, units"): (34, "a comma or a bracket, found the line's end"),
    (2, "  input     x : float[B, T, 1 // 0]"): (29, "no size"),
    (3, "  state     x : float[B, units]"): (13, "x is defined twice"),
    (5, "befor:"): (1, "expected a block"),
    (6, "  z = kontract(x, W) : float[B]"): (7, "no op is called kontract"),
    (6, "  z = contract(x, V, labels=(k, kl, l)) : float[B]"): (19, "V is not defined"),
    (6, "  z = contract(x, W) : float[B]"): (24, "contract lacks labels"),
    (6, "  z = contract(x, W, labels=(k, l, l)) : float[B]"): (42, "does not fit"),
    (6, "  z = contract(x, W, labels=(k, kl, l)) : float[B]"): (43, "contract gives float[B, T"),
    (6, "  z = tanh(x, colour=3) : float[B, T, units]"): (15, "no op has colour"),
    (9, "  z_1 = z[t+1]"): (10, "expected a step of it"),
    (12, "  next g = h_1; last is final_h"): (8, "no carry is called g"),
    (12, "  next _h = h_1"): (16, "expected its last value, found the line's end"),
    (13, "  y[t] = a and more"): (12, "expected the line's end, found and more"),
    (16, "  result d_y (grad_input of x) = y"): (29, "grad_input of x is called d_x"),
    (17, "  next _h = h_1; last is final_h"): (8, "expected an op, found _h"),
}


@pytest.mark.parametrize(("number", "line"), WRONG)
def test_what_is_wrong_is_said_where_it_is(number: int, line: str) -> None:
    column, message = WRONG[number, line]
    with pytest.raises(ReadError) as caught:
        read(with_line(number, line))
    error = caught.value
    assert (error.line, error.column) == (number, column), error
    assert message in str(error)
    assert str(error).startswith(f"{error.line}:{error.column}: ")


def test_what_is_wrong_with_all_of_it_is_said_at_the_end() -> None:
    every = TEXT.split("\n")
    without = "\n".join([*every[:11], *every[12:16], ""])
    wide = with_line(13, "  y[t] = z_1 : float[T, units]").replace("over=BT", "over=T")
    for text, message in ((without, "nothing says what _h becomes"), (wide, "stack of")):
        with pytest.raises(ReadError, match=message) as caught:
            read(text)
        assert caught.value.line == text.count("\n") + 1


def test_nothing_is_executed() -> None:
    for name in ("__import__('os').system('true')", "().__class__", "x; import os"):
        with pytest.raises(ReadError):
            read(with_line(6, f"  z = add({name}, x) : float[B, T, units]"))
