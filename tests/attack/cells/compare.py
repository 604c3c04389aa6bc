"""A case through rnncc's layers and through the reference: what differs, as a text.

Engines are makers of layer classes: the interpreter (`oracle`), the interpreter after all passes
(`passes`), the text of kernels on a simulated memory (`simulated`), compiled kernels (`compiled`).

Non-Goals: making cases (`generate`), making them smaller (`shrink`).
"""

from __future__ import annotations

import random
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rnncc import compiler, oracle
from rnncc.frontend.diagnostics import SpecError
from rnncc.frontend.spec import CellSpec
from rnncc.lowering.cell_interface import check_text
from tests.attack.cells.optimised import optimised_class
from tests.attack.cells.reference import Arrays, Bound, Given, gradients
from tests.attack.cells.text import case_text, text_of
from tests.attack.cells.tree import Case
from tests.support.cpu_simulator.simulate import simulated_class

TOLERANCE = 1e-9
LEAST = 1e-3  # what errors are relative to, at least
NUDGE = 1e-13  # of the numbers of a case, to see how much of an error is rounding
NUDGES = 6
SWITCHES = (
    "go_backwards",
    "time_major",
    "return_sequences",
    "return_state",
    "stateful",
    "zero_output_for_mask",
)
WRT = ("inputs", "weights", "initial_state")
# What a cell may be refused for that no one sees in it: a state that is the same for all rows
# (`c[t] = K @ K`) is a weight to `drop(c[t], .5, per="step")`.
UNFORESEEN = {"E513"}

Maker = Callable[[CellSpec, int], type[Any]]
torch.set_num_threads(1)


def _simulated(spec: CellSpec, seed: int) -> type[Any]:
    rng = random.Random(seed)
    wide, threads = rng.choice((16, 32, 32, 64)), rng.randint(1, 3)
    return simulated_class(spec, "float64", vector_bytes=wide, threads=threads, seed=seed)


ENGINES: dict[str, Maker] = {
    "oracle": lambda spec, _: oracle.layer_class(spec),
    "passes": lambda spec, _: optimised_class(spec),
    "simulated": _simulated,
    "compiled": lambda spec, _: compiler.layer_class(spec, "cpu", "float64"),
}


@dataclass(frozen=True)
class Finding:
    """kind: "wrong", "shape" or "not finite", the type of what was raised, or "refused" for a
    SpecError. where: what of the call it is."""

    case: Case
    engine: str
    kind: str
    where: str
    found: str
    right: str

    def __str__(self) -> str:
        return (
            f"{case_text(self.case)}\n"
            f"through {self.engine}: {self.kind}, {self.where}\n"
            f"  came out: {self.found}\n"
            f"  is right: {self.right}"
        )


class Unfit(Exception):
    """A case of which nothing can be said: the reference isn't finite, or isn't a cell."""


# ---- numbers ---------------------------------------------------------------------------------


@dataclass
class Numbers:
    """All numbers of a case, the same for the same seed. nudge: seeds changes of last digits."""

    seed: int
    nudge: int = 0

    def draw(self, label: str, shape: tuple[int, ...]) -> np.ndarray:
        """Between 0.1 and 0.9, of either sign."""
        rng = np.random.default_rng([self.seed, *label.encode()])
        values = rng.uniform(0.1, 0.9, shape) * rng.choice([-1.0, 1.0], shape)
        if self.nudge:
            shaken = np.random.default_rng([self.nudge, *label.encode()])
            values = values * (1 + NUDGE * shaken.choice([-1.0, 1.0], shape))
        return values

    def valid(self, bound: Bound, label: str, batch: int, time: int) -> np.ndarray | None:
        rng = np.random.default_rng([self.seed, *label.encode()])
        if bound.call.mask == "lengths":
            lengths = rng.integers(0, time + 1, batch)
            lengths[rng.integers(batch)] = time - rng.integers(2) * (time > 1)
            return np.arange(time) < lengths[:, None]
        if bound.call.mask:
            return rng.random((batch, time)) < 0.6
        return None

    def given(self, bound: Bound, number: int, kept: Arrays | None) -> Given:
        batch, time = bound.call.shapes[number]
        arrays: Arrays = {}
        valid = self.valid(bound, f"valid.{number}", batch, time)
        for array in bound.cell.arrays("input", "context", "weight", "constant"):
            lead = {"input": (batch, time), "context": (batch,)}.get(array.kind, ())
            shape = (*lead, *bound.shapes[array.name])
            label = f"{array.name}.{number}" if lead else array.name
            arrays[array.name] = self.draw(label, shape)
            if bound.call.nan and valid is not None and array.kind == "input":
                arrays[array.name][~valid] = np.nan
        starts: Arrays = {}
        for shown, (name, _) in bound.states.items():
            chosen = bound.call.initial == "all"
            if bound.call.initial == "some":
                chosen = len(starts) * 2 <= len(bound.states) and not starts
            if chosen:
                shape = (batch, *bound.shapes[name])
                starts[shown] = self.draw(f"{shown}.{number}", shape)
        if kept is not None:
            starts = {n.removeprefix("kept."): a for n, a in kept.items()}
        resets = None
        if bound.call.resets:
            rng = np.random.default_rng([self.seed, *f"resets.{number}".encode()])
            resets = rng.random((batch, time)) < 0.4
        return Given(arrays, starts, valid, batch, time, resets)


# ---- right -----------------------------------------------------------------------------------


def expect(case: Case, nudge: int = 0) -> tuple[Bound, list[tuple[Given, Arrays]]]:
    """What each call is given and has to show. Unfit when that is nothing finite."""
    try:
        bound = Bound(case)
        numbers = Numbers(case.call.seed, nudge)
        calls: list[tuple[Given, Arrays]] = []
        kept = None
        for number in range(len(case.call.shapes)):
            given = numbers.given(bound, number, kept)

            def dy(name: str, shape: tuple[int, ...], number: int = number) -> np.ndarray:
                return numbers.draw(f"dy.{name}.{number}", shape)

            second = None
            if case.call.second:

                def second(
                    name: str, shape: tuple[int, ...], number: int = number, given: Given = given
                ) -> np.ndarray:
                    state = name.removeprefix("grad.state.")
                    if state != name and case.call.initial == "some" and state not in given.starts:
                        return np.zeros(shape)  # a gradient that isn't shown
                    return numbers.draw(f"second.{name}.{number}", shape)

            found, last = gradients(bound, given, dy, second)
            right = {n: a.numpy() for n, a in found.items()}
            calls.append((given, right))
            kept = last if case.call.stateful else None
    except (RuntimeError, AssertionError, IndexError, KeyError, StopIteration, TypeError) as error:
        raise Unfit(f"{type(error).__name__}: {error}") from error
    except (ValueError, AttributeError, ZeroDivisionError, RecursionError, OverflowError) as error:
        raise Unfit(f"{type(error).__name__}: {error}") from error
    for _, right in calls:
        if any(not np.isfinite(a).all() or np.abs(a).max(initial=0) > 1e12 for a in right.values()):
            raise Unfit("not finite")
    return bound, calls


# ---- what comes out --------------------------------------------------------------------------


class Caller:
    """A layer of the case, called as its call says; what it shows has the reference's names."""

    def __init__(self, bound: Bound, spec: CellSpec, engine: str) -> None:
        self.bound, self.call = bound, bound.call
        call = self.call
        keywords: dict[str, Any] = {n: call.sizes[n] for n in call.given}
        for name in [
            "go_backwards",
            "time_major",
            "return_sequences",
            "return_state",
            "stateful",
            "zero_output_for_mask",
        ]:
            keywords[name] = getattr(call, name)
        keywords |= {**call.options, **call.functions, **call.rates}
        keywords |= {"checkpoint_every": call.checkpoint_every, "unroll": call.unroll}
        self.layer = ENGINES[engine](spec, call.seed)(**keywords, seed=1)
        self.inputs = [a.name for a in bound.cell.arrays("input")]
        self.order = list(self.layer.cell.arguments)

    def show(
        self, number: int, given: Given, right: Arrays
    ) -> Iterator[tuple[str, Callable[[], Arrays]]]:
        """Stages of the call in order, each of which shows something."""
        if not self.layer.built:
            dims = {n: self._in(n, given.arrays[n]).shape for n in self.order}
            self.layer.build(dims if len(dims) > 1 else next(iter(dims.values())))
        for kind in (self.layer.weights, self.layer.constants):
            for name in list(kind):
                kind[name] = given.arrays[name]
        arrays = {n: self._in(n, given.arrays[n]) for n in self.order}
        inputs: Any = arrays if self.call.arrange == "dict" else tuple(arrays.values())
        if len(arrays) == 1 and self.call.arrange != "dict":
            inputs = inputs[0]
        keywords: dict[str, Any] = {"training": self.call.training, "seed": self.call.seed}
        if given.valid is not None:
            ints = self.call.mask == "lengths"
            keywords |= {"lengths": given.valid.sum(1)} if ints else {"mask": given.valid}
        if given.resets is not None:
            keywords["resets"] = given.resets
        if given.starts and not self.call.stateful:
            some = self.call.initial == "some"
            keywords["initial_state"] = given.starts if some else tuple(given.starts.values())
        if not self.call.stateful and (number == 0 or self.call.again):
            yield "call", lambda: self._returned(self.layer(inputs, **keywords))
        pulls: list[Any] = []

        def forward() -> Arrays:
            out, pull = self.layer.vjp(inputs, **keywords)
            pulls.append(pull)
            return self._returned(out)

        yield "vjp", forward
        dy = self._cotangents(number, right)
        wrt = self.call.wrt or WRT
        yield "pullback", lambda: self._gradients(pulls[0](dy, wrt=self.call.wrt or None), wrt)
        # The same once more, after one of other cotangents.
        if self.call.again and number == 0:
            double = self._scaled(dy, 2.0)

            def again() -> Arrays:
                pulls[0](double)
                return self._gradients(pulls[0](dy, wrt=self.call.wrt or None), wrt)

            yield "pullback again", again
        if self.call.second:
            yield "second", lambda: self._second(number, pulls[0], dy, given, right)

    # ---- arrangement ----

    def _in(self, name: str, array: np.ndarray) -> np.ndarray:
        timed = self.call.time_major and name in self.inputs
        return np.ascontiguousarray(array.swapaxes(0, 1)) if timed else array

    def _out(self, name: str, array: np.ndarray) -> np.ndarray:
        timed = name.startswith("y.") and self.call.return_sequences
        return array.swapaxes(0, 1) if timed and self.call.time_major else array

    def _returned(self, out: Any) -> Arrays:
        count = len(self.bound.cell.returns)
        first, *states = out if self.call.return_state else (out,)
        outputs = first if count > 1 else (first,)
        assert len(outputs) == count
        shown = {f"y.{i}": self._out(f"y.{i}", y) for i, y in enumerate(outputs)}
        names = self.bound.states if self.call.return_state else {}
        assert len(states) == len(names)
        return shown | {f"state.{n}": s for n, s in zip(names, states)}

    def _cotangents(self, number: int, right: Arrays) -> Any:
        numbers = Numbers(self.call.seed)

        def dy(name: str) -> np.ndarray:
            drawn = numbers.draw(f"dy.{name}.{number}", right[name].shape)
            return np.ascontiguousarray(self._out(name, drawn))

        outputs = tuple(dy(f"y.{i}") for i in range(len(self.bound.cell.returns)))
        first = outputs if len(outputs) > 1 else outputs[0]
        if not self.call.return_state:
            return first
        return (first, *(dy(f"state.{n}") for n in self.bound.states))

    def _scaled(self, dy: Any, factor: float) -> Any:
        return tuple(self._scaled(d, factor) for d in dy) if isinstance(dy, tuple) else dy * factor

    def _gradients(self, grads: Any, wanted: Sequence[str], prefix: str = "grad.") -> Arrays:
        found: Arrays = {}
        if "inputs" in wanted:
            inputs = grads.inputs
            if not isinstance(inputs, dict):
                parts = inputs if isinstance(inputs, tuple) else (inputs,)
                inputs = dict(zip(self.order, parts, strict=True))
            found |= {n: self._in(n, a) for n, a in inputs.items()}
        if "weights" in wanted:
            found |= grads.weights
        if "initial_state" in wanted:
            states = grads.initial_state
            if not isinstance(states, dict):
                parts = states if isinstance(states, tuple) else (states,)
                states = dict(zip(self.bound.states, parts, strict=True))
            found |= {f"state.{n}": a for n, a in states.items()}
        return {prefix + n: np.array(a) for n, a in found.items()}

    def _second(self, number: int, pull: Any, dy: Any, given: Given, right: Arrays) -> Arrays:
        numbers = Numbers(self.call.seed)

        def drawn(name: str) -> np.ndarray:
            return numbers.draw(f"second.grad.{name}.{number}", right[f"grad.{name}"].shape)

        grads, pull2 = pull.vjp(dy)
        # Without the second derivative's own order of arguments: a dict of dicts.
        d_grads: dict[str, Any] = {"inputs": {n: self._in(n, drawn(n)) for n in self.order}}
        if len(self.order) == 1 and self.call.arrange != "dict":
            d_grads["inputs"] = d_grads["inputs"][self.order[0]]
        d_grads["weights"] = {n: drawn(n) for n in self.layer.weights}
        shown = given.starts if self.call.initial == "some" else self.bound.states
        states = tuple(drawn(f"state.{n}") for n in shown)
        if self.call.initial == "some":
            d_grads["initial_state"] = dict(zip(shown, states))
        elif shown:
            d_grads["initial_state"] = states
        found = pull2(d_grads)
        shown_dy = {f"second.dy.{n}": a for n, a in self._returned(found.dy).items()}
        first = self._gradients(grads, WRT)
        return first | shown_dy | self._gradients(found, WRT, "second.")


def observe(case: Case, engine: str) -> Finding | None:
    """The first thing that differs, or None. Unfit when nothing can be said of the case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights that no gradient reaches are many here
        return _observe(case, engine)


def _observe(case: Case, engine: str) -> Finding | None:
    bound, calls = expect(case)
    text = text_of(case.cell)

    def raised(error: Exception, stage: str) -> Finding | None:
        if isinstance(error, SpecError) and {d.code for d in error.diagnostics} <= UNFORESEEN:
            return None
        kind = "refused" if isinstance(error, SpecError) else type(error).__name__
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
        return Finding(case, engine, kind, stage, f"{error} ({place})", "no exception")

    try:
        caller = Caller(bound, check_text(text, "cell.rnn"), engine)
    except Exception as error:
        return raised(error, "making a layer")
    for number, (given, right) in enumerate(calls):
        stages = caller.show(number, given, right)
        while True:
            stage = "build"
            try:
                step = next(stages, None)
                if step is None:
                    break
                stage = f"{step[0]} {number + 1}"
                shown = step[1]()
            except Exception as error:
                return raised(error, stage)
            for name, array in shown.items():
                wrong = _differs(case, number, name, np.asarray(array), right[name])
                if wrong is not None:
                    kind, *texts = wrong
                    return Finding(case, engine, kind, f"{name} of {stage}", *texts)
            missing = [
                n
                for n, a in right.items()
                if n.startswith("grad.")
                and step[0] == "pullback"
                and not caller.call.wrt
                and n not in shown
                and not n.startswith("grad.state.")
                and np.abs(a).max(initial=0) > 0
            ]
            if missing:
                found = f"no gradient of {', '.join(missing)}"
                return Finding(case, engine, "wrong", stage, found, "a gradient other than zero")
    return None


def _differs(
    case: Case, number: int, name: str, found: np.ndarray, right: np.ndarray
) -> tuple[str, str, str] | None:
    """Of what kind it differs, what came out, what is right."""
    if found.shape != right.shape:
        return "shape", f"shape {found.shape}", f"shape {right.shape}"
    error = _error(found, right)
    if error <= TOLERANCE:
        return None
    if np.isfinite(error) and error <= 1e3 * _wobble(case, number, name, right):
        return None
    off = np.abs(np.nan_to_num(found, nan=1e300) - right)
    worst = np.unravel_index(int(np.argmax(off)), right.shape)
    at = f" at {list(map(int, worst))}" if worst else ""
    return (
        "wrong" if np.isfinite(error) else "not finite",
        f"{float(found[worst])!r}{at}, off by {error:.3g} of {_short(found)}",
        f"{float(right[worst])!r} of {_short(right)}",
    )


def _short(array: np.ndarray) -> str:
    return np.array2string(array.ravel()[:6], precision=6, separator=", ")


def _error(found: np.ndarray, right: np.ndarray) -> float:
    if not np.isfinite(found).all():
        return np.inf
    scale = max(LEAST, float(np.abs(right).max(initial=0)))
    return float(np.abs(found - right).max(initial=0)) / scale


def _wobble(case: Case, number: int, name: str, right: np.ndarray) -> float:
    """How far the reference itself moves when the last digits of its numbers do: near a kink."""
    most = 0.0
    for nudge in range(1, NUDGES + 1):
        try:
            _, calls = expect(case, nudge)
        except Unfit:
            return np.inf
        most = max(most, _error(calls[number][1][name], right))
    return most
