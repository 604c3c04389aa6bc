"""The printer's text -> the Program that it shows: what `rnncc explain` wrote can be run again.

    >>> from rnncc.ir.printer import print_program
    >>> text = '''program Example
    ...   input     x : float[B, T, units]
    ... before:
    ...   y = tanh(x)                                                : float[B, T, units]  # line 9
    ...   result y (output) = y
    ... '''
    >>> print_program(read(text)) == text
    True

Values are compared by identity, so a program that is read is never the one that was printed; it
prints the same, verifies, and means the same. Nothing is executed. The spaces before a line say
which block it belongs to.

Non-Goals: what isn't printed: columns of the user's text, names of carries besides their values'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rnncc.common.result_roles import ResultRole
from rnncc.common.unrolling import ALL_STEPS
from rnncc.ir.line_reader import NAME, Line, ReadError
from rnncc.ir.ops import OPS, IRError
from rnncc.ir.program import (
    Carry,
    Op,
    Param,
    Program,
    Result,
    Scan,
    Slice,
    Span,
    Stack,
    Type,
    Value,
)
from rnncc.ir.verify import verify

__all__ = ["ReadError", "read"]
# Texts that may be empty, which aren't printed then.
MAY_BE_EMPTY = {"contract": ("over",), "uniform": ("per", "axes")}


def read(text: str) -> Program:
    """The program, verified. ReadError where the text is none."""
    return _Reader(text).program()


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines = [Line(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        self.end = Line(text.count("\n") + 1, "")
        self.values: dict[str, Value] = {}
        self.blocks: dict[str, list[Op]] = {"before": [], "scan": [], "after": []}
        self.params: list[Param] = []
        self.results: list[Result] = []
        self.entering: dict[str, tuple[Value, Value]] = {}  # carries: the value, its start
        self.carries: list[Carry] = []
        self.xs: list[Slice] = []
        self.ys: list[Stack] = []

    def program(self) -> Program:
        first = self.lines.pop(0) if self.lines else self.end
        first.need("program", "a program")
        name, block = first.need(r"\S.*", "its name"), "params"
        has_scan = reverse = False
        unroll = 1
        for line in self.lines:
            if line.indent:
                self.line(block, line)
            else:
                block = line.need("before|scan|after", "a block")
                has_scan |= block == "scan"
                reverse |= block == "scan" and bool(line.get(", backwards in time"))
                if block == "scan" and (turn := line.get(r", (all|[1-9]\d{0,3}) steps a turn")):
                    steps = turn.split()[1]
                    unroll = ALL_STEPS if steps == "all" else int(steps)
                line.need(":")
            line.need("$", "the line's end")
        for carried in self.entering:
            raise self.end.fail(f"nothing says what {carried} becomes")
        before, body, after = map(tuple, self.blocks.values())
        scan = Scan(tuple(self.carries), tuple(self.xs), body, tuple(self.ys), reverse)
        made = Program(
            name,
            tuple(self.params),
            before,
            scan if has_scan else None,
            after,
            tuple(self.results),
            unroll,
        )
        try:
            return verify(made)
        except IRError as error:
            raise self.end.fail(str(error)) from None

    def line(self, block: str, line: Line) -> None:
        if line.get(rf"result(?= {NAME} \()"):
            self.result(line)
        elif block == "params":
            self.param(line)
        elif block == "scan" and line.indent == 2:
            self.crossing(line)
        else:
            self.op(self.blocks[block], line)

    def new(self, line: Line) -> str:
        """A name that no value has yet."""
        name = line.need(NAME, "a name")
        if name in self.values:
            raise line.fail(f"{name} is defined twice")
        return name

    def define(self, name: str, type_: Type) -> Value:
        return self.values.setdefault(name, Value(name, type_))

    def known(self, line: Line) -> Value:
        name = line.need(NAME, "a value")
        if name not in self.values:
            raise line.fail(f"{name} is not defined")
        return self.values[name]

    def param(self, line: Line) -> None:
        role = line.need("[a-z]+", "a role")
        name = self.new(line)
        line.need(":", "a type")
        value = self.define(name, line.type())
        self.params.append(Param(value, role, line.need(NAME) if line.get(", of") else ""))

    def result(self, line: Line) -> None:
        name, kind = line.need(NAME), line.need(r"\([a-z_]+", "a kind")[1:]
        role = ResultRole(kind, line.need(NAME) if line.get("of ") else name)
        if role.name != name:
            raise line.fail(f"{kind} of {role.of} is called {role.name}")
        line.need(r"\) =", "a value")
        self.results.append(Result(role, self.known(line)))

    def crossing(self, line: Line) -> None:
        """What enters a step, and what leaves it."""
        if line.get(rf"carry(?= {NAME} :)"):
            name = self.new(line)
            line.need(":")
            value = self.define(name, line.type())
            line.need(", from", "where it starts from")
            self.entering[name] = value, self.known(line)
        elif line.get(rf"next(?= {NAME} =)"):
            name = line.need(NAME)
            if name not in self.entering:
                raise line.fail(f"no carry is called {name}")
            value, init = self.entering.pop(name)
            line.need("=")
            becomes = self.known(line)
            line.need("; last is", "its last value")
            final = self.new(line)
            last = self.define(final, value.type)
            self.carries.append(Carry(name, init, value, becomes, last))
        else:
            self.step(line)

    def step(self, line: Line) -> None:
        """A slice of a sequence, or a stack that becomes one."""
        name = self.new(line)
        if line.get(r"\[t\] ="):
            value = self.known(line)
            wide = value.type.with_axes(value.type.axes + "T")
            target = self.define(name, line.type() if line.get(":") else wide)
            self.ys.append(Stack(value, target))
        else:
            line.need("=", "a carry, a slice or a stack")
            source = self.known(line)
            line.need(r"\[t\]", "a step of it")
            self.xs.append(Slice(self.define(name, source.type.inner()), source))

    def op(self, block: list[Op], line: Line) -> None:
        name = self.new(line)
        line.need("=", "an op")
        opcode = line.need(r"\w+", "an op")
        if opcode not in OPS:
            raise line.fail(f"no op is called {opcode}")
        attrs: dict[str, Any] = {}

        def inside() -> Value | None:
            key = line.get(r"[a-z]+(?==)")
            if key is None:
                return self.known(line)
            attrs[key] = line.attribute(key)
            return None

        line.need(r"\(", "operands")
        operands = tuple(v for v in line.listed(inside, r"\)") if v is not None)
        line.need(":", "a type")
        line.get("")
        at, type_ = line.at, line.type()
        attrs |= {key: "" for key in MAY_BE_EMPTY.get(opcode, ()) if key not in attrs}
        attrs |= {"type": type_} if opcode == "full" else {}
        wanted = _inferred(line, at, opcode, attrs, operands)
        if wanted != type_:
            raise line.fail(f"{opcode} gives {wanted}, not {type_}", at)
        span = Span(line.whole(), 1, 1) if line.get("# line") else None
        block.append(Op(opcode, operands, (self.define(name, type_),), attrs, span))


def _inferred(
    line: Line, at: int, opcode: str, attrs: Mapping[str, Any], operands: tuple[Value, ...]
) -> Type:
    """The type of an op of these operands."""
    try:
        return OPS[opcode].infer(attrs, *(o.type for o in operands))
    except KeyError as missing:
        raise line.fail(f"{opcode} lacks {missing.args[0]}", at) from None
    except (IRError, TypeError, IndexError, ValueError) as error:
        raise line.fail(f"{opcode}: {error}", at) from None
