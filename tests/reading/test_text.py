"""Graphs that are written by hand: each operation, where the batch's axis lies, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnncc import oracle
from rnncc.compiler import check_text
from rnncc.reading.graph import Origin, Unreadable
from rnncc.reading.recorder import Recorder
from rnncc.reading.text import identifier, write
from rnncc.reading.traced import BATCH, Merged
from rnncc.reading.words import word_of
from rnncc.reading.written import WORDS
from tests.support.reading.steps_in_numpy import ALONG, POINTWISE, REDUCE, assert_same

# fmt: off
UNARY = {"neg": {}, "abs": {}, "sign": {}, "square": {}, "tanh": {}, "sigmoid": {}, "exp": {},
         "softplus": {}, "leaky_relu": {"negative_slope": 0.3}}
BINARY = ("+", "-", "*", "/", ">", ">=", "<", "<=", "==", "!=", "maximum", "minimum")
# fmt: on
FLAT = {"layer_norm": {"eps": 1e-3}, "rms_norm": {"eps": 1e-3}, "roll": {"shift": -2}}


def of_two(function: Any) -> Any:
    """x: [batch, 4], h: [batch, 5], a result that is the output; the state stays."""
    return lambda r, x, h, *w: ([function(r, x, h, *w)], [h])


@pytest.mark.parametrize("op", UNARY)
def test_functions(op: str) -> None:
    assert_same(of_two(lambda r, x, h: r.pointwise(op, x, **UNARY[op])))
    assert_same(of_two(lambda r, x, h: r.pointwise(op, r.constant(0.3), **UNARY[op])))
    assert_same(of_two(lambda r, x, h, w: r.pointwise(op, w, **UNARY[op])), weights=[(3,)])


@pytest.mark.parametrize("op", BINARY)
def test_signs(op: str) -> None:
    def one(r: Any, x: Any, h: Any, w: Any) -> Any:
        a = r.slice(x, 1, slice(0, 1))  # [batch, 1] beside [batch, 5], [5], a number
        parts = [(a, h), (h, w), (w, r.constant(2)), (r.constant(-1.5), h), (a, w)]
        each = [r.convert(r.pointwise(op, *p), "float") for p in parts]
        total = each[0]
        for e in each[1:]:
            total = r.pointwise("+", total, e)
        return total

    assert_same(of_two(one), weights=[(5,)])


def test_how_tightly_signs_bind() -> None:
    def one(r: Any, x: Any, h: Any) -> Any:
        p = r.pointwise
        a = p("-", x, p("-", x, r.constant(0.5)))
        b = p("/", x, p("*", p("+", x, r.constant(3.0)), r.constant(2.0)))
        c = p("neg", p("**", p("neg", p("abs", b)), r.constant(2)))
        d = p("**", p("**", p("abs", x), r.constant(0.5)), r.constant(-2))
        e = p("*", p("neg", p("+", c, b)), p("/", d, p("*", a, p("neg", x))))
        return p("-", p("-", e, d), p("+", a, p("neg", b)))

    assert_same(of_two(one))


def test_conditions() -> None:
    def one(r: Any, x: Any, h: Any) -> Any:
        p = r.pointwise
        small, large = p("<", x, r.constant(-0.3)), p(">", x, r.constant(0.4))
        either = p("or", small, p("and", p("not", large), p("not", x)))
        both = p("and", p("or", small, large), p("!=", x, r.constant(0.0)))
        chosen = p("where", both, p("where", p("not", either), x, r.constant(2)), r.constant(0.5))
        counted = p("+", small, p("*", large, x))  # conditions are 0 and 1 there
        chained = p("==", small, large)
        nested = p("where", chained, small, large)  # of conditions
        up = r.convert(r.convert(x, "bool"), "float")
        parts = [counted, r.convert(nested, "int"), up, r.convert(either, "float")]
        total = chosen
        for part in parts:
            total = p("+", total, part)
        return p("+", total, p("where", r.constant(True), x, r.constant(1.0)))

    text = assert_same(of_two(one))
    assert " or " in text.text and "not " in text.text


@pytest.mark.parametrize("op", REDUCE)
@pytest.mark.parametrize("keep", [False, True])
def test_reductions(op: str, keep: bool) -> None:
    def step(r: Any, x: Any, h: Any, w: Any) -> Any:
        first = x if op not in ("any", "all") else r.pointwise(">", x, r.constant(0.2))
        a = r.reduce(op, first, [1, -1], keep)
        b = r.reduce(op, first, [2], keep)
        c = r.reduce(op, w, None, keep)  # all of a weight
        return [r.pointwise("+", r.convert(b, "float"), r.constant(1)), a, c], [h]

    assert_same(step, inputs=[(BATCH, 3, 4)], weights=[(2, 3)])


@pytest.mark.parametrize("op", ALONG)
def test_along(op: str) -> None:
    more = FLAT.get(op, {})

    def step(r: Any, x: Any, h: Any) -> Any:
        turned = r.transpose(x, (1, 0, 2))  # [3, batch, 4]
        own = r.transpose(r.along(op, turned, 0, **more), (1, 0, 2))
        return [r.along(op, x, 1, **more), r.along(op, x, -1, **more), own], [
            r.along(op, h, 1, **more)
        ]

    assert_same(step, inputs=[(BATCH, 3, 4)])


@pytest.mark.parametrize(
    "subscripts",
    [
        "bi,ij->bj",
        "bi,ji->bj",
        "ij,bi->bj",
        "bi,ji->jb",
        "bik,kl->bil",
        "bik,lk->bil",
        "kl,bik->bli",
        "bik,bkl->bil",
        "bik,bil->bkl",
        "bi,bi->b",
        "bi,bj->bij",
        "bj,bi->bij",
        "bi,bi->bi",
        "bi,i->bi",
        "bij->bji",
        "bij->b",
        "bij->bj",
        "bi,ij,bj->b",
        "bhi,hij->bhj",
        "bi,bijk->bjk",
        "bijk,bk,bj->bi",
        "ibj,jk->bik",
        "bi,kj->bijk",
        "ki,bijk->bj",
    ],
)
def test_einsum(subscripts: str) -> None:
    lengths = {"i": 4, "j": 3, "k": 5, "l": 2, "h": 2}
    terms, out = subscripts.split("->")
    shapes = [tuple(lengths.get(x, BATCH) for x in t) for t in terms.split(",")]
    inputs = [s for s in shapes if BATCH in s]
    weights = [s for s in shapes if BATCH not in s]

    def step(r: Any, *leaves: Any) -> Any:
        xs, h = [*leaves[: len(inputs)]], leaves[len(inputs)]
        ws = [*leaves[len(inputs) + 1 :]]
        moved = []
        for shape in shapes:
            if BATCH not in shape:
                moved.append(ws.pop(0))
                continue
            x, at = xs.pop(0), shape.index(BATCH)
            order = [*range(1, at + 1), 0, *range(at + 1, len(shape))]
            moved.append(r.transpose(x, order))
        y = r.einsum(subscripts, *moved)
        at = out.index("b")
        return [r.transpose(y, [at, *(a for a in range(len(out)) if a != at)])], [h]

    own = [(BATCH, *(n for n in s if n != BATCH)) for s in inputs]
    assert_same(step, inputs=own, weights=weights)
    assert_same(step, inputs=own, weights=weights, names=False)


@pytest.mark.parametrize(
    ("a", "b"), [((4,), (4, 5)), ((5, 4), (4,)), ((4,), (4,)), ((3, 4), (4, 3))]
)
def test_matmul_of_weights(a: Any, b: Any) -> None:
    def step(r: Any, x: Any, h: Any, *w: Any) -> Any:
        y = r.matmul(*w)
        return [r.pointwise("*", y, r.constant(2.0))], [h]

    text = assert_same(step, weights=[a, b]).text
    assert " @ " in text


def test_matmul_of_stacks_and_broadcasting() -> None:
    def step(r: Any, x: Any, h: Any, w: Any) -> Any:
        one = r.slice(x, 1, slice(0, 1))  # [batch, 1, 3, 4]: one matrix for all of w
        return [r.matmul(x, r.transpose(x, (0, 1, 3, 2))), r.matmul(one, w)], [h]

    assert_same(step, inputs=[(BATCH, 2, 3, 4)], weights=[(2, 4, 5)])


def test_shapes() -> None:
    def step(r: Any, x: Any, h: Any) -> Any:
        heads = r.reshape(x, (Merged(2), 6))  # [batch * 2, 6]
        heads = r.pointwise("tanh", r.pointwise("+", heads, r.constant(np.arange(6.0))))
        back = r.reshape(heads, (BATCH, 12))
        turned = r.transpose(r.reshape(x, (BATCH, 3, 4)), (2, 0, 1))
        taken = r.take(turned, 0, -1)
        picked = r.expand(r.take(x, 1, 2), 1)
        rest = r.concat([picked, taken, r.slice(back, -1, slice(None, None, 3))], 1)
        return [rest, r.stack([taken, taken], 1)], [r.slice(back, 1, slice(-5, None))]

    assert_same(step, inputs=[(BATCH, 12)])
    assert_same(step, inputs=[(BATCH, 12)], names=False)


@pytest.mark.parametrize(
    "key",
    [
        slice(0, 4),
        slice(4, 8),
        slice(4, 12),
        slice(5, 6),
        slice(1, 12),
        slice(None, None, -1),
        slice(None, None, 5),
        slice(10, 2, -3),
        slice(-1, None),
    ],
)
def test_slices(key: slice) -> None:
    def step(r: Any, x: Any, h: Any) -> Any:
        last = r.slice(r.transpose(x, (0, 2, 1)), 2, key)
        return [r.slice(x, 1, key), last], [h]

    assert_same(step, inputs=[(BATCH, 12, 2)], states=[(BATCH, 4)])
    assert_same(step, inputs=[(BATCH, 12, 2)], names=False)


def test_an_empty_part_is_left_out() -> None:
    def step(r: Any, x: Any, h: Any) -> Any:
        empty = r.slice(x, 1, slice(2, 2))
        return [r.concat([empty, x, r.reshape(empty, (BATCH, 0))], 1)], [h]

    assert_same(step)
    with pytest.raises(TypeError, match="without numbers"):
        assert_same(lambda r, x, h: ([r.reduce("sum", r.slice(x, 1, slice(2, 2)), [1])], [h]))


def test_broadcasts() -> None:
    def step(r: Any, x: Any, h: Any, w: Any) -> Any:
        p = r.pointwise
        zeros = r.constant(np.zeros((5,)))
        half = r.broadcast(r.constant(0.5), (BATCH, 5))
        column = r.broadcast(r.slice(x, 1, slice(1, 2)), (BATCH, 5))
        rows = r.broadcast(w, (BATCH, 2, 5))
        count = r.reduce("sum", p("exp", r.broadcast(r.constant(0.25), (BATCH, 4))), [1])
        both = p("+", r.broadcast(r.reshape(w, (1, 5)), (3, 5)), r.broadcast(w, (3, 5)))
        flags = r.broadcast(p(">", r.slice(x, 1, slice(1, 2)), r.constant(0.0)), (BATCH, 5))
        return [
            p("*", column, p("+", half, w)),
            r.concat([column, zeros_of(r, zeros), half], 1),
            p("+", rows, r.expand(h, 1)),
            count,
            p("tanh", both),
            p("where", flags, h, zeros),
        ], [half]

    def zeros_of(r: Any, zeros: Any) -> Any:
        return r.broadcast(zeros, (BATCH, 5))

    assert_same(step, weights=[(5,)])


def test_constants() -> None:
    table = np.arange(8.0).reshape(2, 4)

    def step(r: Any, x: Any, h: Any) -> Any:
        p = r.pointwise
        low = p("where", p(">", x, r.constant(0.0)), x, r.constant(-np.inf))
        flags = r.constant(np.array([True, False, True, True]))
        whole = r.constant(np.array([1, 2, 3, 4]))
        return [
            r.along(
                "softmax", p("+", low, p("where", flags, r.constant(0.0), r.constant(-9.0))), 1
            ),
            r.matmul(r.constant(table), r.expand(x, 2)),
            p("where", flags, p("*", x, whole), r.constant(table[1])),
        ], [h]

    text = assert_same(step, spread=2.0)
    assert "-infinity" in text.text and len(text.constants) == 5


@pytest.mark.parametrize("kind", ["int", "bool"])
def test_leaves_of_other_kinds(kind: Any) -> None:
    def step(r: Any, x: Any, h: Any) -> Any:
        p = r.pointwise
        flag = p("==", h, x) if kind == "int" else p("or", p("not", h), x)
        after = p("+", h, r.constant(1)) if kind == "int" else p("!=", h, x)
        return [p("where", flag, h, x), p("where", h, r.constant(0.5), r.constant(2.5))], [after]

    assert_same(step, inputs=[(BATCH, 5)], kinds={"x0": kind, "h0": kind})


def test_contexts() -> None:
    def step(r: Any, x: Any, h: Any, c: Any, unread: Any, w: Any) -> Any:
        scores = r.einsum("bpf,bf->bp", c, r.matmul(x, w))
        read = r.einsum("bp,bpf->bf", r.along("softmax", scores, 1), c)
        return [read], [r.pointwise("+", h, read)]

    shapes = [(BATCH, 6, 5), (BATCH, 2)]
    text = assert_same(step, contexts=shapes, weights=[(4, 5)])
    assert "c0: context[places, units]" in text.text and text.contexts == ("c0", "c1")


def test_nobody_reads() -> None:
    """Leaves that aren't read, nodes that aren't, and what could not be written among them."""

    def step(r: Any, x: Any, h: Any, w: Any) -> Any:
        if isinstance(r, Recorder):
            r.along("sort", r.pointwise("no such thing", x), 1)
        return [r.constant(1.5)], [h]

    text = assert_same(step, weights=[(3,)])
    assert not text.weights and "w0" not in text.text


def test_states() -> None:
    def step(r: Any, x: Any, a: Any, b: Any, c: Any) -> Any:
        after = r.pointwise("+", a, r.reduce("sum", x, [1], True))
        return [after, b], [after, after, r.broadcast(r.constant(0.25), (BATCH, 5))]

    assert_same(step, states=[(BATCH, 5)] * 3)
    assert_same(lambda r, x, h: ([h], [r.pointwise("tanh", x)]), states=[(BATCH, 4)])


def test_sizes_of_one() -> None:
    def step(r: Any, x: Any, h: Any, w: Any) -> Any:
        after = r.pointwise("tanh", r.pointwise("+", r.matmul(x, w), h))
        return [r.concat([after, x], 1), r.take(after, 1, 0)], [after]

    assert_same(step, inputs=[(BATCH, 1)], states=[(BATCH, 1)], weights=[(1, 1)])
    assert_same(step, inputs=[(BATCH, 4)], states=[(BATCH, 1)], weights=[(4, 1)])


def test_dropout_and_stopped_gradients() -> None:
    r = Recorder("Dropping")
    x, h = r.input("x", (BATCH, 4)), r.state("h", (BATCH, 4))
    y = r.drop(r.stop_gradient(x), "inner.dropout", 0.25)
    r.result([r.drop(y, "inner.dropout", 0.25), h], [y])
    text = write(r.graph)
    assert text.rates == {"inner_dropout": 0.25}
    assert text.text.count("drop(") == 2 and 'per="step"' in text.text
    plain = write(r.graph, drops=False)
    assert "drop" not in plain.text.split("\n\n")[-1] and not plain.rates


def test_surrogates() -> None:
    """The value is that of a step, the derivative by its argument is what was said."""

    def step(r: Any, x: Any, h: Any) -> Any:
        v = r.pointwise("-", x, r.constant(0.2))
        spike = r.convert(r.pointwise(">", v, r.constant(0.0)), "float")
        slope = r.pointwise("/", r.constant(1.0), r.pointwise("+", r.constant(1.0), abs_of(r, v)))
        return [r.surrogate(v, spike, slope)], [h]

    def abs_of(r: Any, v: Any) -> Any:
        return r.pointwise("abs", r.pointwise("*", v, r.constant(10.0)))

    text = assert_same(step).text
    layer = oracle.layer_class(check_text(text, "<read>"))(units=5, return_sequences=True)
    x = np.random.default_rng(1).normal(size=(2, 3, 4))
    y, pullback = layer.vjp(x)
    found = pullback(np.ones_like(y)).inputs
    np.testing.assert_allclose(found, 1 / (1 + np.abs(10 * (x - 0.2))), rtol=1e-12)


def test_a_line_that_is_long_is_named() -> None:
    def step(r: Any, x: Any, h: Any) -> Any:
        total = x
        for _ in range(40):
            total = r.pointwise("tanh", r.pointwise("+", total, x))
        return [total], [h]

    text = assert_same(step).text
    assert max(map(len, text.splitlines())) < 100 and text.count("z_") >= 3


def test_one_name_for_what_is_read_twice() -> None:
    def step(r: Any, x: Any, h: Any) -> Any:
        gate = r.pointwise("sigmoid", x)
        parts = [r.slice(gate, 1, slice(i, i + 2)) for i in (0, 2)]
        return [r.pointwise("*", *parts)], [h]

    text = assert_same(step).text
    assert "z = sigmoid(x0[t])" in text and "z_0, z_1 = split(z, 2)" in text


@pytest.mark.parametrize(
    "name", ["weight", "t", "lambda", "0.weight", "mask", "exp", "units", "x", "h", "größe", "_"]
)
def test_any_name(name: str) -> None:
    r = Recorder(f'{name}"""')
    x, h = r.input(name, (BATCH, 4)), r.state(name, (BATCH, 4))
    w = r.weight(name, (4,), key=name)
    r.result([r.pointwise("*", x, w)], [h])
    text = write(r.graph)
    check_text(text.text, "<read>")
    assert len({*text.inputs, *text.states, *text.weights}) == 3
    assert identifier(name).isidentifier()


# ---- refused -------------------------------------------------------------------------------------

MIXES = {
    "a sum over rows": lambda r, x: r.reduce("sum", x, [0]),
    "a sum of all": lambda r, x: r.reduce("sum", x),
    "a softmax over rows": lambda r, x: r.along("softmax", x, 0),
    "rows turned round": lambda r, x: r.along("flip", x, 0),
    "some rows": lambda r, x: r.slice(x, 0, slice(0, 2)),
    "one row": lambda r, x: r.take(x, 0, 0),
    "rows beside rows": lambda r, x: r.concat([x, x], 0),
    "rows against columns": lambda r, x: r.pointwise("+", x, r.transpose(x, (1, 0))),
    "a product of rows": lambda r, x: r.matmul(r.transpose(x, (1, 0)), x),
    "all with all": lambda r, x: r.matmul(x, r.transpose(x, (1, 0))),
    "a batch summed": lambda r, x: r.einsum("bi->i", x),
    "two batches": lambda r, x: r.einsum("bi,cj->bcij", x, x),
    "the batch flattened": lambda r, x: r.reshape(x, (4,)),
    "rows moved by a reshape": lambda r, x: r.reshape(r.transpose(x, (1, 0)), (BATCH, 4)),
    "heads beside rows": lambda r, x: r.pointwise("+", r.reshape(x, (Merged(2), 2)), x),
    "a batch behind": lambda r, x: r.reshape(r.transpose(x, (1, 0)), (Merged(4),)),
}


@pytest.mark.parametrize("what", MIXES)
def test_what_mixes_rows(what: str) -> None:
    r = Recorder("Mixing")
    x = r.input("x", (BATCH, 4))
    with pytest.raises(Unreadable):
        r.result([MIXES[what](r, x)], [])


REFUSED = {
    "no word": (lambda r, x: r.along("sort", x, 1), "Op .cell.py:3: y = op.x.. is an operation"),
    "arguments": (lambda r, x: r.pointwise("relu", x, slope=2), "gives relu"),
    "infinite bounds": (lambda r, x: r.pointwise("clip", x, low=0, high=np.inf), "number inf"),
    "a diagonal": (lambda r, x: r.einsum("bii->bi", r.reshape(x, (BATCH, 2, 2))), "diagonals"),
    "drops of a constant": (lambda r, x: r.drop(r.constant(np.arange(3.0)), "p", 0.5), "share"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str) -> None:
    function, message = REFUSED[what]
    r = Recorder("Odd")
    x = r.input("x", (BATCH, 4))
    with r.at(Origin("Op", "cell.py", 3, "y = op(x)")):
        y = function(r, x)
    r.result([y], [])
    with pytest.raises(TypeError, match=message) as caught:
        write(r.graph)
    assert str(caught.value).startswith("Odd can't be compiled: Op (cell.py:3: y = op(x))")


def test_a_state_of_another_shape() -> None:
    r = Recorder("Growing")
    x, h = r.input("x", (BATCH, 4)), r.state("h", (BATCH, 4))
    r.result([x], [r.concat([x, h], 1)])
    with pytest.raises(TypeError, match=r"a row of h the shape \[8\], it was \[4\]"):
        write(r.graph)


def test_every_operation_is_tried() -> None:
    """Those of NumPy's here are in some test; what has a word of its own is here."""
    known = {*POINTWISE, *REDUCE, *ALONG, "einsum", "reshape", "broadcast", "transpose", "slice"}
    known |= {"concat", "convert", "stop_gradient", "drop", "norm", "surrogate"}
    assert {*WORDS} <= known
    assert word_of("split") is None and word_of("tanh") is not None
