"""Arrays and results of a direction: their texts are read back as what was written."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rnncc.artifact.array_tables import (
    Arrays,
    BufferSpec,
    BufferView,
    CarrySpec,
    ResultSpec,
    array_texts,
    parsed_arrays,
    parsed_results,
    result_texts,
)
from rnncc.artifact.kernel_tables import DirectionSpec
from rnncc.common.result_roles import LAST
from rnncc.ir.sizes import Size
from tests.support.cases import NAMES, module_text, render_module, spec_of

# Names that mean something in a text, too.
WORDS = ("h", "_h_1", "from", "lanes", "entry", "history", "carry", "along", "B", "T", "d__1")
UNITS, B = Size.name("units"), Size.name("B")
SIZES = tuple(map(str, (UNITS, B, Size.of(1), 4 * UNITS + B + 1, UNITS // 2, UNITS * B - 2)))
PARAMS = ("input", "context", "state", "weight", "constant", "held", "rate", "residual")


def drawn_arrays(rng: random.Random) -> Arrays:
    arrays: Arrays = ([], [], [])
    buffers, params, carries = arrays
    for name in rng.sample(WORDS, rng.randrange(len(WORDS))):
        if buffers and rng.random() < 0.3:  # one that differs in its name alone
            last = buffers[-1]
            buffers.append(replace(last, name=name))
            if last.storage == "param":
                params.append((name, params[-1][1], name))
            if last.storage == "carry":
                carries.append(replace(carries[-1], buffer=name))
            continue
        storage = rng.choice(["param", "param", "carry", "work", "result"])
        shape = tuple(rng.choices(SIZES, k=rng.randrange(3)))
        parts = tuple(rng.sample([(a, b) for a in SIZES for b in SIZES[:2]], rng.choice([0, 0, 2])))
        axes = rng.choice(["", "B", "T", "BT"])
        lanes = bool(parts) or rng.random() < 0.5
        buffers.append(BufferSpec(name, shape, axes, storage, lanes, parts))
        if storage == "param":
            called = rng.choice([name, f"d.{name}", f"{name}.12"])
            params.append((name, rng.choice(PARAMS), called))
        if storage == "carry":
            flags = rng.random() < 0.5, rng.random() < 0.5
            carries.append(CarrySpec(name, rng.choice(["", *WORDS]), *flags))
    return arrays


def drawn_view(rng: random.Random, buffers: list[BufferSpec]) -> BufferView:
    buffer = rng.choice(buffers)
    own = tuple(range(len(buffer.shape)))
    axes = rng.choice([own, own, (*own[::-1], None), ()])
    starts = tuple((axis, rng.choice(SIZES)) for axis in rng.choice([(), own]))
    return BufferView(buffer.name, axes, starts, rng.choice(["", "in", "out", "final"]))


def drawn_results(rng: random.Random, buffers: list[BufferSpec]) -> tuple[ResultSpec, ...]:
    results = []
    for _ in range(rng.randrange(6)):
        kind = rng.choice(["output", "residual", "residual", "grad_weight", *LAST])
        views = tuple(drawn_view(rng, buffers) for _ in range(rng.choice([1, 1, 2, 3])))
        joined: tuple[Any, ...] = (views, rng.randrange(2)) if len(views) > 1 else ()
        results.append(ResultSpec(kind, rng.choice(["h", "c.0", "_c_1.4"]), views[0], *joined))
    return tuple(results)


def test_what_is_written_is_read_back() -> None:
    rng, merged = random.Random(5), 0
    for _ in range(400):
        arrays = drawn_arrays(rng)
        texts = array_texts(arrays)
        assert parsed_arrays(texts) == arrays, texts
        merged += len(texts) < len(arrays[0])
        if arrays[0]:
            results = drawn_results(rng, arrays[0])
            written = result_texts(results, arrays[0])
            assert parsed_results(written, arrays[0]) == results, written
            merged += len(written) < len(results)
    assert merged > 100


def test_texts() -> None:
    """Arrays that differ in their names alone share one, and results of a kind."""
    units = ("units",)
    buffers = [
        BufferSpec("x", ("features",), "BT", "param"),
        BufferSpec("h", units, "B", "param"),
        BufferSpec("c", units, "B", "param"),
        BufferSpec("g", units, "BT", "param", lanes=True),
        BufferSpec("d", (), "B", "param"),
        BufferSpec("W", ("2", "4 * units"), "", "param", lanes=True, parts=(("units", "units"),)),
        BufferSpec("h_1", units, "B", "carry"),
    ]
    roles = {"x": "input", "h": "state", "c": "state", "g": "residual", "d": "rate", "W": "weight"}
    params = [(n, r, "g.2" if n == "g" else n) for n, r in roles.items()]
    carries = [CarrySpec("h_1", "h", entry=True, history=True)]
    texts = (
        "x [B, T; features] input",
        "h, c [B; units] state",
        "g=g.2 [B, T; units] residual, lanes",
        "d [B;] rate",
        "W [2, 4 * units] weight, lanes, units: units",
        "h_1 [B; units] carry, from h, entry, history",
    )
    assert array_texts((buffers, params, carries)) == texts
    final, part = BufferView("h_1", (0,), slot="final"), BufferView("W", (1, 0), ((1, "units"),))
    results = (
        ResultSpec("state", "h", final),
        ResultSpec("grad_weight", "W", part),
        ResultSpec("grad_weight", "b", final, (final, BufferView("g", (None,))), 1),
    )
    written = (
        "state: h = h_1.final",
        "grad_weight: W = W[1 0]{1:units}, b = h_1.final & g[-] along 1",
    )
    assert result_texts(results, buffers) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "h [B; units]",
        "h [B; units] state;",
        "h [B, T, B; units] state",
        "h [units state",
        "h [units] state, lane",
        "h [units] state, from c",
        "h [units] work, history",
        "h h [units] state",
        "h [units] state, lanes, units",
        "h() [units] state",
        "h [units] __import__('os')",
        "h [units] state\nc [units] state",
    ],
)
def test_other_texts_of_arrays_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no text of arrays"):
        parsed_arrays((text,))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "output",
        "output: h",
        "output: h = ",
        "output: h = c",
        "output: h = h.before",
        "output: h = h & h",
        "output: h = h along x",
        "output: h = h()",
        "output: h = h[x]",
        "output: h = h{units}",
        "output: h = h{x:units}",
    ],
)
def test_other_texts_of_results_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no text of a (result|view)"):
        parsed_results((text,), [BufferSpec("h", ("units",), "BT", "work")])


# ---- of modules --------------------------------------------------------------------------------


def directions(text: str) -> Iterator[DirectionSpec]:
    module: dict[str, Any] = {"__name__": "told"}
    exec(text, module)
    yield from (d for d in module.values() if isinstance(d, DirectionSpec))


@pytest.mark.parametrize("name", NAMES)
def test_modules(name: str) -> None:
    """What they hold is what is written of what was read of them."""
    second = render_module(spec_of(name), second_order=True)
    for text in (module_text(name), module_text(name, "cuda"), second):
        for d in directions(text):
            assert d.arrays == array_texts((d.buffers, d.params, d.carries))  # type: ignore[arg-type]
            assert d.returned == result_texts(d.results, d.buffers)
            assert len({b.name for b in d.buffers}) == len(d.buffers)
            assert [c.buffer for c in d.carries] == [
                b.name for b in d.buffers if b.storage == "carry"
            ]


def test_a_module_has_what_its_schedule_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out on the way into a text."""
    from rnncc.emit import tables_view

    told: list[tuple[Arrays, list[ResultSpec]]] = []
    arrays_of, place_of = tables_view._arrays, tables_view._place

    def arrays(*given: Any) -> Arrays:
        told.append((arrays_of(*given), []))
        return told[-1][0]

    def place(*given: Any) -> ResultSpec:
        told[-1][1].append(place_of(*given))
        return told[-1][1][-1]

    monkeypatch.setattr(tables_view, "_arrays", arrays)
    monkeypatch.setattr(tables_view, "_place", place)
    for name in ("lstm", "sru", "matrix_memory", "delays"):
        told.clear()
        found = list(directions(render_module(spec_of(name), second_order=True)))
        assert len(found) == len(told) > 4
        for d, (made, results) in zip(found, told, strict=True):
            assert (d.buffers, d.params, d.carries) == made
            assert d.results == tuple(results)
