"""A Program -> nodes: a Scan whose body is one step, and what is before and behind it.

    x [T, B, features]      every sequence has its steps first
    Scan(states, xs)        over axis 0, backwards if asked: outputs stay in the order of time

What weights alone make is computed here, in float64, and is a constant of the graph. Weights that
aren't known are values of the graph like any other.

Non-Goals: inputs and outputs of a model; which cells have a node of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rnncc.emit.onnx.arrays import ARRAYS, Emission, spread
from rnncc.emit.onnx.graph import GraphWriter
from rnncc.emit.onnx.pointwise import POINTWISE
from rnncc.ir.interp import constants_of
from rnncc.ir.program import Op, Program, Scan, Value, line_of
from rnncc.passes.hoist import hoist
from rnncc.passes.settle import settle
from rnncc.passes.simplify import simplify

OF_BOOLS, OF_EITHER = ("and", "or", "not"), ("eq", "ne")


class NoOnnxForm(ValueError):
    """An op that has no operator of ONNX, and where the cell asks for it."""


class NodeBlock:
    """Ops that become nodes of one graph.

    known: what weights alone make. around: values of the graph that this one is inside of.
    timed: a sequence that says how many steps there are; row: how many rows, int64 [1].
    """

    def __init__(
        self,
        writer: GraphWriter,
        cell: str,
        sizes: Mapping[str, int],
        known: Mapping[Value, np.ndarray],
        around: Mapping[Value, str],
    ) -> None:
        self.writer, self.cell, self.sizes, self.known = writer, cell, sizes, known
        self.names = {**around}
        self.timed = self.row = ""

    def read(self, value: Value, *, lanes: bool = True) -> str:
        """The name of a value. lanes: with an element for each, though all are equal."""
        if value in self.names:
            return self.names[value]
        array = self.known[value][0, 0]
        array = array.astype(bool if value.type.dtype == "bool" else self.writer.dtype)
        if not lanes and array.size and (array == array.flat[0]).all():
            array = np.asarray(array.flat[0])
        return self.writer.constant(array, value.name)

    def rows(self) -> str:
        return self.row

    def steps(self) -> str:
        return self.writer.size(self.timed, 0)

    def over(self, value: Value, axes: str) -> str:
        """For every row, or every row and step."""
        return spread(self, self.read(value), value.type, axes)

    def zeros(self, value: Value) -> str:
        """Of the shape of a value that has rows."""
        shape = [s.evaluate(self.sizes) for s in value.type.shape]
        parts = [self.row, *([self.writer.whole(*shape)] if shape else [])]
        return self.writer.node("Expand", self.writer.number(0.0), self.writer.shaped(*parts))

    def shape(self, value: Value) -> list[int | str]:
        return ["batch", *(s.evaluate(self.sizes) for s in value.type.shape)]

    def write(self, ops: Iterable[Op]) -> None:
        for op in ops:
            if op.result not in self.known:
                self.names[op.result] = self._op(op)

    def _op(self, op: Op) -> str:
        if op.opcode in POINTWISE:
            made = POINTWISE[op.opcode](self.writer, *self._operands(op))
            return self.writer.renamed(made, op.result.name)
        if op.opcode in ARRAYS and not op.attrs.get("over"):
            return ARRAYS[op.opcode](Emission(op, self))
        why = "draws random numbers" if op.opcode == "uniform" else "has no operator of ONNX"
        raise NoOnnxForm(f"{op.opcode} of {self.cell}{line_of(op)} {why}")

    def _operands(self, op: Op) -> list[str]:
        """Of a pointwise op, each of the kind that it takes."""
        # One that is the same in all lanes may be a number, unless it gives the result its shape.
        lanes = all(not v.type.axes for v in op.operands)
        bools = op.opcode in OF_EITHER and all(v.type.dtype == "bool" for v in op.operands)
        read = []
        for i, value in enumerate(op.operands):
            name, is_bool = self.read(value, lanes=lanes), value.type.dtype == "bool"
            wanted = bools or op.opcode in OF_BOOLS or (op.opcode == "where" and i == 0)
            if wanted and not is_bool:
                name = self.writer.cast(name, "bool")
            elif is_bool and not wanted:
                name = self.writer.as_float(name)
            read.append(name)
        return read


class ProgramWriter:
    """One Program on its way into a graph.

    sizes: all of them. arrays: of weights, constants and rates that are known. backwards: the last
    step runs first. ValueError (NoOnnxForm) for an op that ONNX hasn't.
    """

    def __init__(
        self,
        writer: GraphWriter,
        program: Program,
        sizes: Mapping[str, int],
        arrays: Mapping[str, np.ndarray],
        *,
        backwards: bool = False,
    ) -> None:
        # What doesn't wait for the steps before it is outside of the loop.
        self.program = hoist(simplify(settle(program)))
        self.writer, self.backwards = writer, backwards
        scan = self.program.scan
        more = [*(scan.body if scan else ()), *self.program.after]
        known = constants_of(self.program, arrays, sizes, more)
        self.block = NodeBlock(writer, program.name, sizes, known, {})

    def results(self, arguments: Mapping[str, str]) -> dict[str, str]:
        """Names of all results. arguments: of values that aren't known: inputs [T, B, ...],
        states and contexts [B, ...], flags [T, B]. What a masked first step puts out is zeros."""
        program, block = self.program, self.block
        given = [p for p in program.params if p.value not in block.known]
        for param in given:
            if param.value.name in arguments:
                block.names[param.value] = arguments[param.value.name]
        block.timed = block.names[self._timed()]
        block.row = self.writer.size(block.timed, 1)
        for param in given:
            if param.role == "held":
                block.names[param.value] = block.zeros(param.value)
        block.write(program.before)
        if program.scan is not None:
            self._scan(program.scan)
        block.write(program.after)
        return {r.name: block.over(r.value, r.value.type.axes) for r in program.results}

    def _timed(self) -> Value:
        """A sequence that every call has."""
        return next(p.value for p in self.program.params if p.role == "input")

    def _scan(self, scan: Scan) -> None:
        block = self.block
        states = [block.over(c.init, "B") for c in scan.carries]
        # Something has to say how many steps there are.
        xs = [block.read(x.source) for x in scan.xs] or [block.timed]
        ways: dict[str, list[int]] = {}
        if self.backwards:
            ways["scan_input_directions"] = [1] * len(xs)
            if scan.ys:  # an output may wait for no step, and an empty list has no type
                ways["scan_output_directions"] = [1] * len(scan.ys)
        targets = [*(c.final for c in scan.carries), *(y.target for y in scan.ys)]
        found = self.writer.several(
            "Scan",
            [*states, *xs],
            [v.name for v in targets],
            body=self._body(scan),
            num_scan_inputs=len(xs),
            **ways,
        )
        block.names |= dict(zip(targets, found, strict=True))

    def _body(self, scan: Scan) -> Any:
        """The graph of a step. It reads constants of the graph around it."""
        w, cell = GraphWriter(self.writer.dtype, self.writer), self.program.name
        inner = NodeBlock(w, cell, self.block.sizes, self.block.known, self.block.names)
        inner.row = self.block.row
        inputs = []
        for carry in scan.carries:
            name = inner.names[carry.value] = w.name(carry.value.name)
            inputs.append(w.value(name, w.dtype, inner.shape(carry.value)))
        for x in scan.xs:
            name = inner.names[x.value] = w.name(x.value.name)
            dtype = "bool" if x.value.type.dtype == "bool" else w.dtype
            shape = inner.shape(x.value)
            if x.source.type.axes == "T":  # one row for all
                shape[0] = 1
                inner.names[x.value] = w.node("Squeeze", name, w.whole(0), like=x.value.name)
            inputs.append(w.value(name, dtype, shape))
        if not scan.xs:
            inputs.append(w.value(w.name("unread"), w.dtype, inner.shape(self._timed())))
        inner.write(scan.body)
        outputs = []
        for value in (*(c.next for c in scan.carries), *(y.value for y in scan.ys)):
            # An output is made by a node of the body, and is no other output.
            name = w.node("Identity", inner.over(value, "B"), like=f"{value.name}_out")
            outputs.append(w.value(name, w.dtype, inner.shape(value)))
        return w.graph(w.name(f"{cell}_step"), inputs, outputs)
