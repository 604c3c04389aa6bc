"""A StepGraph -> the text of a .rnn file.

What is read once stands where it is read, what is read several times has a name; what is a state's
next value is that state's equation. Nodes that nobody reads are left out.

    >>> from rnncc.reading.recorder import Recorder
    >>> from rnncc.reading.traced import BATCH
    >>> r = Recorder("Minimal")
    >>> x, h = r.input("x", (BATCH, 4)), r.state("h", (BATCH, 5))
    >>> kernel, recurrent = (r.weight(n, (k, 5), None) for n, k in (("kernel", 4), ("own", 5)))
    >>> after = r.pointwise("tanh", r.pointwise("+", r.matmul(x, kernel), r.matmul(h, recurrent)))
    >>> r.result([after], [after])
    >>> print(write(r.graph).text)
    \"\"\"Minimal, as its code computes one step.\"\"\"
    cell: Minimal
    <BLANKLINE>
    units: size
    features: size
    <BLANKLINE>
    x: input[features]
    h: state[units]
    kernel: weight[features, units]
    own: weight[units, units]
    <BLANKLINE>
    h[t] = tanh(x[t] @ kernel + h[t-1] @ own)
    return h[t]
    <BLANKLINE>

Non-Goals: what operations are called (`words`).
"""

from __future__ import annotations

import keyword
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.compiler import compile_text
from rnncc.frontend.diagnostics import SpecError
from rnncc.frontend.library import RESERVED
from rnncc.reading.graph import Leaf, Node, Operand, RowArray, StepGraph, Unreadable
from rnncc.reading.sizes import Sizes
from rnncc.reading.words import word_of
from rnncc.reading.written import (
    ATOM,
    COMPARED,
    SIGN,
    Written,
    along_of,
    as_number,
    number,
    wide,
)
from rnncc.runtime.api.layer import Layer

_LONGEST = 72  # of an expression that stands within another
_LONGEST_NAME = 60
_NAMED = re.compile(r"[A-Za-z]\w*(\[t(-1)?\])?|-?[\d.]\S*")  # what needs no name
_UNPRINTABLE = re.compile(r'[^ -~]|[\\"]')  # in the text's first line


@dataclass(frozen=True, slots=True)
class CellText:
    """A cell's text. sizes: their numbers. inputs, contexts, states: names, in order.

    weights, constants: by their names in the text, those that it reads; constants have numbers
    (`array`) or what the reader finds them by (`key`). rates: of dropout, by names in the text.
    """

    text: str
    sizes: dict[str, int]
    inputs: tuple[str, ...]
    contexts: tuple[str, ...]
    states: tuple[str, ...]
    weights: dict[str, Leaf]
    constants: dict[str, Leaf]
    rates: dict[str, float]


def write(graph: StepGraph, *, drops: bool = True, names: bool = True) -> CellText:
    """drops: with what dropout does. names: of sizes, or numbers alone.

    TypeError, with the operation and the user's line, for what there are no words for.
    """
    return _Writer(graph, drops, names).write()


def compiled(graph: StepGraph, dtype: Any, filename: str) -> tuple[type[Layer], CellText]:
    """The layer class of a step's equations: `layer(**text.sizes)` is of the step's sizes, which
    have no names where the equations hold for these numbers alone. TypeError as of `write`."""
    text = write(graph)
    try:
        return compile_text(text.text, dtype=dtype, filename=filename), text
    except SpecError:
        text = write(graph, names=False)
    try:
        return compile_text(text.text, dtype=dtype, filename=filename), text
    except SpecError as error:
        raise TypeError(f"{graph.name} can't be compiled: {error}") from error


def identifier(text: str) -> str:
    """A name of the language that looks like the text."""
    name = re.sub(r"[^0-9A-Za-z_]", "_", text).lstrip("_0123456789")[:_LONGEST_NAME] or "v"
    return f"{name}_" if keyword.iskeyword(name) or name in RESERVED or name == "t" else name


class _Writer:
    """Writes one graph; what words write with (`written.Writes`)."""

    def __init__(self, graph: StepGraph, drops: bool, names: bool) -> None:
        self.graph, self.drops = graph, drops
        kinds = graph.states, graph.inputs, graph.contexts
        self.sizes = Sizes(*([leaf.value.shape for leaf in own] for own in kinds), names=names)
        self.lines: list[str] = []
        self.rates: dict[str, str] = {}
        self.used: dict[str, Leaf] = {}  # weights and constants
        self._taken = {*self.sizes.values}
        self._parts: dict[tuple[str, int, int], list[Written]] = {}
        self._names_of: dict[str, str] = {}
        self._values: dict[RowArray, Written] = {}
        self._leaves: dict[RowArray, tuple[str, Leaf]] = {}
        self._infinite: dict[str, Leaf] = {}
        for leaf in (*graph.weights, *graph.constants):
            self._leaves[leaf.value] = self._fresh(identifier(leaf.name)), leaf
        self.inputs = self._timed(graph.inputs, "[t]")
        self.contexts = self._timed(graph.contexts, "")
        self.states = self._timed(graph.states, "[t-1]")
        self._alive = _alive(graph)
        read: list[Operand] = [o for node in self._alive for o in node.operands]
        self._reads = Counter(
            o for o in (*read, *graph.outputs, *graph.after) if isinstance(o, RowArray)
        )
        self._next: dict[RowArray, str] = {}
        for name, value in zip(self.states, graph.after, strict=True):
            if isinstance(value, RowArray):
                self._next.setdefault(value, name)

    def _timed(self, leaves: list[Leaf], time: str) -> tuple[str, ...]:
        names = []
        for leaf in leaves:
            names.append(self._fresh(identifier(leaf.name)))
            text = f"{names[-1]}{time}"
            self._values[leaf.value] = Written(text, leaf.value.shape, leaf.value.rows)
        return tuple(names)

    def _fresh(self, base: str) -> str:
        """A name that nothing has yet."""
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name

    # ---- values ----

    def value(self, operand: Operand) -> Written:
        if isinstance(operand, RowArray):
            if operand in self._leaves:
                return self._leaf(*self._leaves[operand])
            if operand not in self._values:
                raise Unreadable("reads an array that nothing made")
            return self._values[operand]
        if isinstance(operand, bool):
            return Written("1 > 0" if operand else "1 < 0", binds=COMPARED, condition=True)
        if math.isfinite(operand):
            return Written(number(operand), binds=SIGN if number(operand)[0] == "-" else ATOM)
        return self._infinity(operand)

    def _leaf(self, name: str, leaf: Leaf) -> Written:
        self.used[name] = leaf
        return Written(name, leaf.value.shape, leaf.value.rows)

    def _infinity(self, value: float) -> Written:
        """Numbers that a text can't say: constants."""
        what = "nan" if math.isnan(value) else "infinity"
        if what not in self._infinite:
            array = np.array(math.nan if math.isnan(value) else math.inf)
            self._infinite[what] = Leaf(RowArray(), self._fresh(what), array=array)
        leaf = self._infinite[what]
        written = self._leaf(leaf.name, leaf)
        return Written(f"-{written.text}", binds=SIGN) if value < 0 else written

    def named(self, value: Written) -> Written:
        """With a name, if it is more than that."""
        if value.narrow is not None:
            return wide(self, self.named(value.narrow), value.shape)
        if _NAMED.fullmatch(value.text):
            return value
        name = self._names_of.get(value.text)
        if name is None:
            name = self._names_of[value.text] = self._fresh("z")
            self.lines.append(f"{name} = {value.text}")
        return Written(name, value.shape, value.rows, condition=value.condition)

    def parts(self, value: Written, count: int, axis: int) -> list[Written]:
        """Equal parts along an axis of a row."""
        value = self.named(as_number(value))
        if count == 1:
            return [value]
        key = value.text, count, axis
        if key not in self._parts:
            base = identifier(value.text.partition("[")[0])
            names = [self._fresh(f"{base}_{i}") for i in range(count)]
            along = along_of(axis, value.shape)
            self.lines.append(f"{', '.join(names)} = split({value.text}, {count}{along})")
            width = value.shape[axis] // count
            shape = (*value.shape[:axis], width, *value.shape[axis + 1 :])
            self._parts[key] = [Written(n, shape, value.rows) for n in names]
        return self._parts[key]

    def rate(self, key: str) -> str:
        """The name of a dropout's rate."""
        if key not in self.rates:
            self.rates[key] = self._fresh(identifier(key))
        return self.rates[key]

    # ---- equations ----

    def write(self) -> CellText:
        name = self.graph.name
        for node in self._alive:
            try:
                self._apply(node)
            except Unreadable as why:
                raise TypeError(f"{name} can't be compiled: {node.origin} {why}") from None
        try:
            shown = self._ends()
        except Unreadable as why:
            raise TypeError(f"{name} can't be compiled: it {why}") from None
        trained = {leaf.value for leaf in self.graph.weights}
        text = "\n".join([*self._head(trained), "", *self.lines, f"return {shown}", ""])
        return CellText(
            text,
            dict(self.sizes.values),
            self.inputs,
            self.contexts,
            self.states,
            {n: leaf for n, leaf in self.used.items() if leaf.value in trained},
            {n: leaf for n, leaf in self.used.items() if leaf.value not in trained},
            {name: self.graph.rates[key] for key, name in self.rates.items()},
        )

    def _apply(self, node: Node) -> None:
        output = node.output
        if 0 in output.shape:  # what may be put beside others
            self._values[output] = Written("", output.shape, output.rows)
            return
        values = [self.value(o) for o in node.operands]
        if node.op != "concat" and any(0 in v.shape for v in values):
            raise Unreadable("reads an array without numbers")
        word = word_of(node.op)
        if word is None:
            what = "" if node.origin.operation == node.op else f" ({node.op})"
            raise Unreadable(
                f"is an operation that equations have no word for{what} (docs/language.md)"
            )
        value = word(self, node, values)
        state = self._next.get(output)
        if state is not None and value.rows:
            self.lines.append(f"{state}[t] = {self._whole(value)}")
            value = Written(f"{state}[t]", value.shape, rows=True)
        elif self._reads[output] > 1 or len(value.least.text) > _LONGEST:
            value = self.named(value)
        self._values[output] = value

    def _whole(self, value: Written) -> str:
        """What a state is set to: one number stands in each of its places."""
        value = as_number(value)
        if value.narrow is not None and not value.narrow.shape:
            return value.narrow.text
        return value.text

    def _ends(self) -> str:
        """The equations of states that have none yet; what is returned."""
        for name, leaf, after in zip(self.states, self.graph.states, self.graph.after, strict=True):
            value = self.value(after)
            if value.shape != leaf.value.shape:
                raise Unreadable(
                    f"gives a row of {name} the shape {list(value.shape)}, it was "
                    f"{list(leaf.value.shape)}"
                )
            if value.text != f"{name}[t]":
                self.lines.append(f"{name}[t] = {self._whole(value)}")
        outputs = [self.value(o) for o in self.graph.outputs]
        if any(0 in v.shape for v in outputs):
            raise Unreadable("gives an array without numbers")
        shown = ", ".join(as_number(v).text for v in outputs)
        self._unread("\n".join([*self.lines, shown]))
        return shown

    def _unread(self, text: str) -> None:
        """A layer has no inputs and contexts that its equations don't name."""
        names = {*re.findall(r"[A-Za-z]\w*", re.sub('"[^"]*"', "", text))}  # no subscripts
        for own, time in ((self.inputs, "[t]"), (self.contexts, "")):
            for name in own:
                if name not in names:
                    self.lines.append(f"{self._fresh(f'unread_{name}')} = {name}{time}")

    def _head(self, trained: set[RowArray]) -> Iterator[str]:
        name = self.graph.name
        shown = _UNPRINTABLE.sub("_", name)
        yield f'"""{shown}, as its code computes one step."""'
        yield f"cell: {identifier(name)}"
        yield ""
        yield from (f"{size}: size" for size in self.sizes.values)
        yield ""
        for what, names, leaves in (
            ("input", self.inputs, self.graph.inputs),
            ("context", self.contexts, self.graph.contexts),
            ("state", self.states, self.graph.states),
        ):
            for own, leaf in zip(names, leaves, strict=True):
                yield f"{own}: {what}{self.sizes.declared(leaf.value.shape)}"
        for own, leaf in self.used.items():
            kind = "weight" if leaf.value in trained else "constant"
            yield f"{own}: {kind}{self.sizes.declared(leaf.value.shape)}"
        yield from (f"{own}: rate = {self.graph.rates[key]}" for key, own in self.rates.items())


def _alive(graph: StepGraph) -> list[Node]:
    """Those that something reads, in order."""
    read = {o for o in (*graph.outputs, *graph.after) if isinstance(o, RowArray)}
    alive = []
    for node in reversed(graph.nodes):
        if node.output in read:
            alive.append(node)
            read |= {o for o in node.operands if isinstance(o, RowArray)}
    return alive[::-1]
