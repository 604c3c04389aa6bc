"""Arrays with any strides, results in the caller's own arrays, and blocks of steps: all of it
gives the bits of contiguous arrays and of the whole sequence at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from rnncc import compiler
from rnncc.artifact.cell import Variant
from rnncc.ir.interp import interpret
from rnncc.ir.program import Program
from rnncc.lowering.lower import lower
from rnncc.runtime.common.strides import row_strides
from rnncc.runtime.cpu.execution import time_chunks
from tests.support import cases
from tests.support.cases import Arrays, Case, error
from tests.support.counting_pool import Counting

DTYPE = "float64"
# Rows that end at a vector's end are read and written where they are; others are copied.
SIZES = ((16, 32), (5, 3))  # units, features
BATCH, TIME = 5, 7
CUT = (slice(0, 4), slice(4, None))
GIVEN = ("input", "context", "state", "weight")


@dataclass
class Ran:
    """An engine with arguments to call it on."""

    engine: Any
    program: Program
    sizes: dict[str, int]
    arrays: dict[str, Any]
    cotangents: Arrays
    time: int = TIME
    version: object = field(default_factory=object)  # of the weights

    def forward(self, save: bool = False, last_only: bool = False, **changed: Any) -> Any:
        asked = {k: changed.pop(k) for k in ("out", "checkpoint_every") if k in changed}
        asked |= {"version": self.version, "save": save, "last_only": last_only}
        arrays = {**self.arrays, **changed}
        return self.engine.forward(arrays, self.sizes, BATCH, self.time, **asked)

    def values(self, **changed: Any) -> Arrays:
        return self.forward(**changed)[0]

    def wanted(self) -> frozenset[str]:
        return frozenset(n for role in GIVEN for n in self.of_role(role))

    def gradients(
        self, cotangents: Arrays | None = None, out: Arrays | None = None, **changed: Any
    ) -> Arrays:
        saved = self.forward(save=True, **changed)[1]
        d: Arrays = self.cotangents if cotangents is None else cotangents
        found: Arrays = self.engine.backward(saved, d, self.wanted(), out or {})
        return found

    def of_role(self, role: str) -> list[str]:
        return [p.value.name for p in self.program.params if p.role == role]


VARIANTS = {
    "lstm": Variant(),
    "gru": Variant(),
    "delays": Variant(),
    "masked delays": Variant(mask=True),
    "noise": Variant(
        training=True,
        active_rates=frozenset(
            {"dropout", "step_dropout", "weight_dropout", "zoneout_h", "zoneout_c"}
        ),
    ),
    "masked noise": Variant(
        mask=True,
        training=True,
        active_rates=frozenset(
            {"dropout", "step_dropout", "weight_dropout", "zoneout_h", "zoneout_c"}
        ),
    ),
}


@cache
def engine_of(what: str) -> tuple[Any, Program]:
    spec, variant = cases.spec_of(what.split()[-1]), VARIANTS[what]
    layer = compiler.layer_class(spec, "cpu", DTYPE)
    program = lower(
        spec, mask=variant.mask, training=variant.training, active_rates=variant.active_rates
    )
    bound = layer.maker.bind({}, {}, DTYPE)
    return bound.engine(variant), program


def ran(what: str, units: int, features: int, time: int = TIME) -> Ran:
    engine, program = engine_of(what)
    sizes = cases.sizes_for(cases.spec_of(what.split()[-1]), units, features)
    case = Case(program, sizes, BATCH, time, seed=3)
    arrays: dict[str, Any] = dict(case.arguments)
    roles = {p.value.name: p.role for p in program.params}
    for name, role in roles.items():
        if role == "held":
            del arrays[name]
        elif role == "seed":
            arrays[name] = int(arrays[name])
    results = [r for r in program.results if r.role.kind in ("output", "state")]
    drawn = case.cotangents()
    return Ran(engine, program, sizes, arrays, {r.name: drawn[r.name] for r in results}, time)


def assert_same(found: Arrays, right: Arrays) -> None:
    assert found.keys() == right.keys()
    for name, array in right.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


# ---- strides -----------------------------------------------------------------------------------


def turned(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1) if array.ndim > 1 else array


def inside(array: np.ndarray, step: int = 1) -> np.ndarray:
    """In the middle of a larger one, in every direction."""
    wide = np.full([n * step + 4 for n in array.shape], np.nan if array.dtype.kind == "f" else 1)
    wide = wide.astype(array.dtype)
    view = wide[tuple(slice(2, 2 + n * step, step) for n in array.shape)]
    view[...] = array
    return view


def within_rows(array: np.ndarray) -> np.ndarray:
    """Rows and steps far apart, elements of a row side by side."""
    lead = 2 if array.ndim > 2 else 1
    wide = np.full([*(n * 3 for n in array.shape[:lead]), *array.shape[lead:]], 7, array.dtype)
    view = wide[tuple(slice(1, None, 3) for _ in range(lead))]
    view[...] = array
    return view


def backwards(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    def view(array: np.ndarray) -> np.ndarray:
        return np.flip(np.ascontiguousarray(np.flip(array, axis)), axis)

    return view


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "steps first": turned,
    "steps backwards": backwards(1),
    "rows backwards": backwards(0),
    "rows apart": within_rows,
    "inside a larger array": inside,
    "every other element": lambda a: inside(a, 2),
}


@pytest.mark.parametrize("units_features", SIZES, ids=str)
@pytest.mark.parametrize("time", [TIME, 3])  # more and fewer than rows
@pytest.mark.parametrize("what", ["lstm", "delays", "masked delays"])
def test_arrays_are_read_and_written_where_they_are(
    what: str, time: int, units_features: tuple[int, int]
) -> None:
    one = ran(what, *units_features, time)
    right, expected = one.values(), one.gradients()
    inputs, states = one.of_role("input"), one.of_role("state")
    for how, way in WAYS.items():
        one_axis = how in ("steps first", "steps backwards")
        timed = [*inputs, *one.of_role("valid")]
        given = {n: way(one.arrays[n]) for n in (timed if one_axis else [*timed, *states])}
        for name, array in given.items():
            np.testing.assert_array_equal(array, one.arrays[name])
        assert_same(one.values(**given), right)
        # A NaN around the places to write would show that something else was read.
        outputs = [n for n in right if right[n].ndim == 3 or not one_axis]
        out = {n: way(np.full_like(right[n], np.nan)) for n in outputs}
        found = one.values(out=out, **given)
        assert all(found[n] is out[n] for n in out)
        assert_same(found, right)
        d = {n: way(a) if a.ndim == 3 or not one_axis else a for n, a in one.cotangents.items()}
        into = {
            n: way(np.full_like(expected[n], np.nan))
            for n in ([*inputs] if one_axis else [*inputs, *states])
        }
        found = one.gradients(d, into, **given)
        assert all(found[n] is into[n] for n in into)
        assert_same(found, expected)


def test_nothing_beside_the_places_is_written() -> None:
    one = ran("lstm", 16, 32)
    wide = np.full((BATCH, 2 * TIME, 3, 16), 7.0)
    one.values(out={"h": wide[:, ::2, 1]})
    rest = np.ones(wide.shape, bool)
    rest[:, ::2, 1] = False
    assert (wide[rest] == 7.0).all() and (wide[:, ::2, 1] == one.values()["h"]).all()


def test_what_is_in_place_is_not_copied() -> None:
    """Rows that fit are written by the kernels: the binding says so."""
    for (units, features), fits in zip(SIZES, (True, False)):
        one = ran("lstm", units, features)
        one.gradients(out={"x": turned(np.zeros((BATCH, TIME, features)))})
        forward, backward = one.engine._forward.last.binding, one.engine._backward.last.binding
        assert ("h" in forward.in_place, "x" in backward.in_place) == (fits, fits)


def test_a_row_for_all() -> None:
    """Strides of zero."""
    one = ran("lstm", 16, 32)
    x = np.broadcast_to(one.arrays["x"][:1, :1], one.arrays["x"].shape)
    assert_same(one.values(x=x), one.values(x=x.copy()))
    d = {"h": np.broadcast_to(one.cotangents["h"][:, :1], one.cotangents["h"].shape)}
    assert_same(one.gradients(d, x=x), one.gradients({"h": d["h"].copy()}, x=x.copy()))


@pytest.mark.parametrize("units_features", SIZES, ids=str)
def test_results_may_overwrite_what_is_read(
    units_features: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks, too, where some of it is read when some of it has been written."""
    units, _ = units_features
    one = ran("lstm", units, units)
    right, expected = one.values(), one.gradients()
    x, d = one.arrays["x"].copy(), one.cotangents["h"].copy()
    with small_blocks(monkeypatch, 2):
        assert_same(one.values(x=x, out={"h": x[:, ::-1]}), right)
        np.testing.assert_array_equal(x[:, ::-1], right["h"])
        saved = one.forward(save=True, checkpoint_every=2)[1]
        found = one.engine.backward(
            saved, one.cotangents | {"h": d}, one.wanted(), {"x": d[:, ::-1]}
        )
    x = one.arrays["x"].copy()
    saved = one.forward(save=True, x=x, out={"h": x})[1]
    np.testing.assert_array_equal(x, right["h"])
    assert_same(one.engine.backward(saved, one.cotangents, one.wanted()), expected)
    np.testing.assert_array_equal(found["x"], expected["x"])
    np.testing.assert_array_equal(d[:, ::-1], expected["x"])


def test_results_go_only_where_they_fit() -> None:
    one = ran("lstm", 16, 32)
    read_only = np.zeros((BATCH, TIME, 16))
    read_only.flags.writeable = False
    wrong: list[tuple[Arrays, str]] = [
        (
            {"h": np.zeros((BATCH, TIME, 15))},
            r"out\['h'\] is float64 \[5, 7, 15\], expected float64",
        ),
        ({"h": np.zeros((BATCH, TIME, 16), "f")}, r"is float32 \[5, 7, 16\], expected float64"),
        ({"h": read_only}, r"out\['h'\] is read-only"),
        ({"y": np.zeros((BATCH, TIME, 16))}, "no result 'y': results are h, final_h, final_c"),
    ]
    for out, message in wrong:
        with pytest.raises(ValueError, match=message):
            one.values(out=out)
    with pytest.raises(ValueError, match=r"out\['x'\] is float64 \[7, 5, 32\], expected"):
        one.gradients(out={"x": np.zeros((TIME, BATCH, 32))})


def test_one_step_and_one_row_need_no_copies_of_the_plan() -> None:
    """Whatever NumPy says of the stride of an axis of one, it is the same call."""
    x = np.zeros((4, 1, 3, 8))[:, :, 0]
    assert row_strides(x, "BT") == (192, 192)
    assert row_strides(np.zeros((1, 4, 3, 8))[:, :, 0], "BT") == (4 * 192, 192)
    assert row_strides(np.zeros((4, 6, 8))[:1, ::-1][:, :1], "BT") is None
    assert row_strides(np.zeros((4, 8))[::-1], "B") == (-64, 0)
    assert row_strides(np.zeros((4, 8)), "B") is None


# ---- blocks ------------------------------------------------------------------------------------


@contextmanager
def small_blocks(monkeypatch: pytest.MonkeyPatch, steps: int) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr("rnncc.runtime.cpu.execution.engine.LEAST_STEPS", 1)
        patch.setattr("rnncc.runtime.cpu.execution.engine.block_steps", lambda side, call: steps)
        yield


@pytest.mark.parametrize("units_features", SIZES, ids=str)
@pytest.mark.parametrize("what", VARIANTS)
def test_blocks_are_the_whole(
    what: str, units_features: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ran(what, *units_features)
    for last_only in (False, True):
        right = one.values(last_only=last_only)
        for steps in (1, 3, 6):
            with small_blocks(monkeypatch, steps):
                assert_same(one.values(last_only=last_only), right)
    name = next(r.name for r in one.program.results if r.role.kind == "output")
    y = np.full((TIME, BATCH, *right[name].shape[1:]), np.nan)
    with small_blocks(monkeypatch, 2):
        one.values(out={name: y.swapaxes(0, 1)})
        assert "time 7 in blocks, the last one of 1" in one.engine.plan()
    np.testing.assert_array_equal(y.swapaxes(0, 1), one.values()[name])


@pytest.mark.parametrize("what", ["noise", "masked noise", "masked delays"])
def test_the_whole_is_the_interpreter(what: str) -> None:
    """So that blocks and it aren't wrong together; in parts the interpreter draws the same."""
    one = ran(what, 5, 3)
    program, sizes = one.program, one.sizes
    arrays = {n: np.asarray(a) for n, a in one.arrays.items()}
    for p in program.params:
        if p.role == "held":
            shape = [s.evaluate(sizes) for s in p.value.type.shape]
            arrays[p.value.name] = np.zeros((BATCH, *shape))
    right = interpret(program, arrays, sizes, BATCH, TIME)
    for name, array in one.values().items():
        assert error(array, right[name]) <= 1e-12, name
    timed = [*one.of_role("input"), *one.of_role("valid")]
    head, tail = ({n: a[:, s] if n in timed else a for n, a in arrays.items()} for s in CUT)
    first = interpret(program, head, sizes, BATCH, 4)
    tail |= {n: first[f"final_{n}"] for r in ("state", "held") for n in one.of_role(r)}
    second = interpret(program, tail, sizes, BATCH, TIME - 4, first_step=4)
    for r in program.results:
        found = second[r.name]
        if r.role.kind == "output":
            found = np.concatenate([first[r.name], found], axis=1)
        np.testing.assert_array_equal(found, right[r.name])


@pytest.mark.parametrize("units_features", SIZES, ids=str)
@pytest.mark.parametrize("what", VARIANTS)
def test_checkpoints_change_no_gradient(
    what: str, units_features: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """y, states, dx and gradients of initial states bit for bit; weights as near as sums can be."""
    one = ran(what, *units_features)
    weights = one.of_role("weight")
    for last_only in (False, True):
        d = {n: a[:, -1] if last_only and a.ndim == 3 else a for n, a in one.cotangents.items()}
        right = one.forward(save=True, last_only=last_only)[0]
        expected = one.gradients(d, last_only=last_only)
        for every in (1, 3, TIME, 100):
            with small_blocks(monkeypatch, 2):
                values, saved = one.forward(save=True, last_only=last_only, checkpoint_every=every)
            assert_same(values, right)
            assert len(saved.blocks) == -(-TIME // every)
            found = one.engine.backward(saved, d, one.wanted())
            assert found.keys() == expected.keys()
            for name, array in expected.items():
                if name in weights and every < TIME:
                    assert error(found[name], array) <= 1e-13, name
                else:
                    np.testing.assert_array_equal(found[name], array, err_msg=name)
            again = one.engine.backward(saved, d, one.wanted())
            assert_same(again, found)


def test_checkpoints_and_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """What backward reads was copied; what it writes may be anywhere."""
    one = ran("delays", 16, 32)
    expected = one.gradients()
    x = backwards(1)(one.arrays["x"])
    h = one.arrays["fast"].copy()
    saved = one.forward(save=True, checkpoint_every=3, x=x, fast=h)[1]
    x[...] = h[...] = np.nan
    dx = np.full((TIME, BATCH, 32), np.nan)
    found = one.engine.backward(saved, one.cotangents, one.wanted(), {"x": dx.swapaxes(0, 1)})
    np.testing.assert_array_equal(dx.swapaxes(0, 1), expected["x"])
    for state in one.of_role("state"):
        np.testing.assert_array_equal(found[state], expected[state])
    only = one.engine.backward(saved, one.cotangents, frozenset({"kernel"}))
    assert only.keys() == {"kernel"}
    np.testing.assert_array_equal(only["kernel"], found["kernel"])


# ---- memory ------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """Bytes of residuals and workspace a call needs at most."""

    def count(run: Callable[[], object]) -> int:
        pool = Counting()
        monkeypatch.setattr("rnncc.runtime.common.memory_pool.POOL", pool)
        run()
        return pool.most

    return count


def kept_carries(saved: Any) -> int:
    return sum(a.nbytes for block in saved.blocks for a in block.carries.values())


@pytest.mark.parametrize("last_only", [False, True])
def test_inference_takes_no_more_memory_for_more_time(
    last_only: bool,
    counted: Callable[[Callable[[], object]], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time_chunks, "BLOCK_BYTES", 2**16)
    short, long = ran("lstm", 16, 32, time=200), ran("lstm", 16, 32, time=3000)
    few, many = (counted(partial(one.values, last_only=last_only)) for one in (short, long))
    assert 0 < many <= few, (few, many)


def test_checkpoints_take_an_eighth_of_the_memory(
    counted: Callable[[Callable[[], object]], int],
) -> None:
    one = ran("lstm", 16, 32, time=1000)
    held: list[int] = []

    def train(every: int | None) -> None:
        saved = one.forward(save=True, checkpoint_every=every)[1]
        held.append(kept_carries(saved))
        one.engine.backward(saved, one.cotangents, one.wanted())

    whole = counted(lambda: train(None))
    parts = counted(lambda: train(32))
    assert held[0] == 0 < held[1]
    assert parts + held[1] <= whole / 8, (parts, held[1], whole)
