"""One expression at one step -> IR values, with sizes checked and options folded.

An operand is a Python number or text known now, a `Size`, an IR `Value`, a tuple of operands, or
POISON: something already reported, which silences whatever reads it.

Non-Goals: states, masks and the shape of the Program (`lower`); what functions mean (`functions`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from rnncc.frontend.diagnostics import Reporter
from rnncc.frontend.elaborate import SIZE_OPERATORS, Defaults, OptionValue
from rnncc.frontend.limits import LEVELS, WHOLE, WORK
from rnncc.frontend.spec import (
    Bad,
    Binary,
    Call,
    CellSpec,
    Conditional,
    Cut,
    Expr,
    Item,
    Lambda,
    Name,
    Number,
    Text,
    Timed,
    TupleExpr,
    Unary,
)
from rnncc.ir.builder import Builder
from rnncc.ir.program import Span, Value
from rnncc.ir.sizes import Size, TooLarge, at_least, can_be_meant, product
from rnncc.lowering.operands import (
    POISON,
    Exhausted,
    Operand,
    Refusal,
    Shape,
    SizeEquality,
    shape_of_operand,
    show,
)

# fmt: off
_FOLD: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
    "/": lambda a, b: a / b, "//": lambda a, b: a // b, "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b, "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
    "and": lambda a, b: a and b, "or": lambda a, b: a or b,
}
_OPCODE = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "<": "lt", "<=": "le", ">": "gt", ">=": "ge",
    "==": "eq", "!=": "ne", "and": "and", "or": "or", "//": "floor_divide", "%": "mod",
}
# fmt: on


class Evaluator:
    """Evaluates expressions into `b.ops`. `lookup` and `timed` give the values of names."""

    def __init__(
        self,
        spec: CellSpec,
        options: Mapping[str, OptionValue],
        defaults: Defaults,
        errors: Reporter,
    ) -> None:
        self.spec, self.options, self.defaults, self.errors = spec, options, defaults, errors
        self.b = Builder()
        self.constraints: list[SizeEquality] = []
        self.bound: list[dict[str, Operand]] = []  # arguments of the lambdas being evaluated
        self.level = 0  # expressions around the one being evaluated, those of callers with them
        self.evaluated = 0
        self.exhausted = False  # whether the cell asks for more than is evaluated of any
        self._can_be: dict[tuple[Size, Size], bool] = {}

    # ---- what `lower` provides ----

    def lookup(self, name: str) -> Operand:
        raise NotImplementedError

    def timed(self, node: Timed) -> Operand:
        raise NotImplementedError

    def call(self, node: Call) -> Operand:
        raise NotImplementedError

    def item(self, node: Item) -> Operand:
        raise NotImplementedError

    # ---- expressions ----

    def evaluate(self, node: Expr, left: Operand = None) -> Operand:
        """The operand an expression stands for; POISON once a mistake in it is reported.

        left: of an operator, its left-hand side.
        """
        outer = self.b.span
        if not self.bound:  # inside a lambda, ops belong to the equation that calls it
            self.b.span = node.span
        self.evaluated += 1
        self.level += 1
        try:
            if self.level > LEVELS:
                raise RecursionError
            if self.work > WORK:
                raise Exhausted
            return self._evaluate(node) if left is None else self._joined(node, left)
        except (Refusal, TooLarge) as error:
            self.report(error, node.span)
            return POISON
        finally:
            self.b.span = outer
            self.level -= 1

    def report(self, error: Refusal | TooLarge, span: Span) -> None:
        """A mistake at its own span, or at this one."""
        if isinstance(error, TooLarge):
            self.errors.add("E422", span, reason=error)
        else:
            self.errors.add(error.code, error.span or span, error.notes, error.help, **error.fields)

    @property
    def work(self) -> int:
        """What evaluating took so far."""
        return self.evaluated + len(self.b.ops)

    def whole(self, node: Expr) -> Operand:
        """What `expressions` gives for an expression that no other is around."""
        if self.exhausted:
            return POISON
        try:
            return self.evaluate(node)
        except RecursionError:
            self.errors.add("E118", node.span, help="give some of it a name")
        except Exhausted:
            self.exhausted = True
            self.errors.add("E514", node.span, most=f"{WORK:,}")
        return POISON

    def _evaluate(self, node: Expr) -> Operand:
        match node:
            case Number() | Text():
                return node.value
            case Name():
                for scope in self.bound[-1:]:
                    if node.name in scope:
                        return scope[node.name]
                return self.lookup(node.name)
            case Timed():
                return self.timed(node)
            case Unary():
                return self._unary(node)
            case Binary():
                return self._binary(node)
            case Conditional():
                return self._choice(node)
            case Call():
                return self.call(node)
            case Item():
                return self.item(node)
            case TupleExpr():
                return tuple(map(self.evaluate, node.items))
            case Bad() | Lambda() | Cut():
                return POISON

    def _choice(self, node: Conditional) -> Operand:
        condition = self.evaluate(node.condition)
        if condition is POISON:
            self.evaluate(node.yes)
            self.evaluate(node.no)
            return POISON
        if isinstance(condition, Value | Size | tuple):
            raise Refusal("E504", node.condition.span, help="write where(condition, a, b)")
        return self.evaluate(node.yes if condition else node.no)

    def _unary(self, node: Unary) -> Operand:
        operand = self.single(node.operand)
        if operand is POISON:
            return POISON
        if node.op == "not":
            if isinstance(operand, Value):
                return self.b.not_(self.boolean(operand, node.operand.span))
            return not operand
        self.numeric(operand, node.operand.span)
        if node.op == "+":
            return operand
        return self.b.neg(self.number(operand)) if isinstance(operand, Value) else -operand

    def single(self, node: Expr) -> Operand:
        """An operand that is one value, not several."""
        operand = self.evaluate(node)
        if isinstance(operand, tuple):
            raise Refusal("E416", node.span, help="give each a name: a, b = split(v, 2)")
        return operand

    def numeric(self, operand: Operand, span: Span) -> None:
        if isinstance(operand, str):
            raise Refusal("E511", span, help="a text is compared with ==, in a choice")

    def _binary(self, node: Binary) -> Operand:
        """The leftmost operand first: long sums don't recurse."""
        inner: list[Binary] = []
        while isinstance((inner or [node])[-1].left, Binary):
            inner.append((inner or [node])[-1].left)  # type: ignore[arg-type]
        left = self.single((inner or [node])[-1].left)
        while inner:
            left = self.evaluate(inner[-1], left)
            inner.pop()
        return self._joined(node, left)

    def _joined(self, node: Expr, left: Operand) -> Operand:
        assert isinstance(node, Binary)
        right = self.single(node.right)
        if left is POISON or right is POISON:
            return POISON
        if isinstance(left, Value) or isinstance(right, Value):
            return self._binary_values(node, left, right)
        text = isinstance(left, str) or isinstance(right, str)
        if text and node.op not in ("==", "!=", "and", "or"):
            raise Refusal("E511", help="a text is compared with ==, in a choice")
        if node.op == "@":
            raise Refusal("E406", shape="a number", help="multiply with *")
        if isinstance(left, Size) or isinstance(right, Size):
            return self._binary_sizes(node, left, right)
        return self._fold(node, left, right)

    def _fold(self, node: Binary, left: Operand, right: Operand) -> Operand:
        try:
            if node.op == "**" and isinstance(left, int) and abs(right) > 64:
                left = float(left)
            result = _FOLD[node.op](left, right)
            if type(result) is int and abs(result) > WHOLE:
                result = float(result)  # as it is in the end; a whole number would grow and grow
        except ZeroDivisionError:
            raise Refusal("E512", reason="division by zero") from None
        except (OverflowError, TypeError):
            raise Refusal("E512", reason="not a finite number") from None
        if isinstance(result, complex) or (isinstance(result, float) and not math.isfinite(result)):
            raise Refusal("E512", reason="not a finite number")
        return result

    def _binary_sizes(self, node: Binary, left: Operand, right: Operand) -> Operand:
        """A size stays one under + - * // %; any other use makes it a number of the run."""
        are_sizes = all(isinstance(o, Size) or type(o) is int for o in (left, right))
        if are_sizes and node.op in ("+", "-", "*", "//", "%"):
            a, c = Size.of(left), Size.of(right)
            if node.op in ("//", "%") and not c.terms:
                raise Refusal("E512", reason="division by zero")
            return a - a // c * c if node.op == "%" else SIZE_OPERATORS[node.op](a, c)
        return self._binary_values(node, left, right)

    def _binary_values(self, node: Binary, left: Operand, right: Operand) -> Operand:
        self.numeric(left, node.left.span)
        self.numeric(right, node.right.span)
        if node.op == "@":
            return self.matmul(self.value(left), self.value(right), node)
        if node.op == "**":
            return self.power(left, right)
        if node.op in ("and", "or"):
            left = self.boolean(left, node.left.span)
            right = self.boolean(right, node.right.span)
        else:
            left, right = self.number(left), self.number(right)
        x, y = self.broadcast(left, right)
        return self.b.pointwise(_OPCODE[node.op], x, y)

    def power(self, base: Operand, exponent: Operand) -> Operand:
        """Small whole exponents and one half are multiplications and a root: cheap and exact."""
        base, exponent = self.number(base), self.number(exponent)
        b = self.b
        if isinstance(base, Value) and not isinstance(exponent, Value):
            if exponent == 0.5:
                return b.sqrt(base)
            if exponent in (1, 2, 3, 4):
                square = b.mul(base, base) if exponent > 1 else base
                if exponent <= 2:
                    return square
                return b.mul(square, base if exponent == 3 else square)
            if exponent == -1:
                return b.div(1.0, base)
        x, y = self.broadcast(base, exponent)
        return b.pow(x, y)

    # ---- conversions ----

    def value(self, operand: Operand) -> Value:
        """An operand as an IR value of numbers."""
        if isinstance(operand, Value):
            number = self.number(operand)
            assert isinstance(number, Value)
            return number
        if isinstance(operand, Size):
            return self.b.extent(operand)
        if isinstance(operand, int | float):  # truth is a number, too
            return self.b.full(float(operand))
        if isinstance(operand, str):
            raise Refusal("E511")
        raise Refusal("E416", help="give each a name: a, b = split(v, 2)")

    def number(self, operand: Operand) -> Value | float:
        """A Value of numbers or a Python float: truth becomes 1.0 and 0.0, a size its extent."""
        if isinstance(operand, Value):
            if operand.type.dtype == "bool":
                one_or_zero: Value = self.b.where(operand, 1.0, 0.0)
                return one_or_zero
            return operand
        if isinstance(operand, int | float):
            return float(operand)
        return self.value(operand)

    def boolean(self, operand: Operand, span: Span | None = None) -> Value | bool:
        if isinstance(operand, bool):
            return operand
        if isinstance(operand, Value) and operand.type.dtype == "bool":
            return operand
        raise Refusal("E505", span, help="compare it, as in v > 0")

    # ---- shapes ----

    def same_size(self, left: Size, right: Size, message: str = "") -> bool:
        """Whether two sizes agree, or may: what can't be decided now becomes a constraint."""
        if left == right:
            return True
        if not self._may_agree(left, right):
            return False
        span = self.b.span or Span(1, 1, 2)
        self.constraints.append(
            SizeEquality(left, right, span, message or f"{left} and {right} must be equal")
        )
        return True

    def positive(self, size: Size, message: str) -> None:
        """What has to be 1 or more becomes a constraint where only sizes can tell."""
        least = at_least(size)
        if least is None or least < 1:
            # 0 from 1 on, and -1 below: no size goes as far as the divisor.
            span = self.b.span or Span(1, 1, 2)
            below = (size - 1) // WHOLE
            self.constraints.append(SizeEquality(below, Size.of(0), span, message))

    def _may_agree(self, left: Size, right: Size) -> bool:
        key = left, right
        if key not in self._can_be:
            a, c = map(self.defaults.expand, key)
            quotients = a.has_quotient or c.has_quotient
            self._can_be[key] = a == c or (quotients and can_be_meant(a, c))
        return self._can_be[key]

    def fit(self, value: Value, shape: Shape) -> Value:
        """value with `shape`, each size equal to its own or constrained to be."""
        return self.b.reshape(value, shape)

    def common_shape(self, left: Shape, right: Shape) -> Shape:
        """The shape two operands broadcast to: trailing axes aligned, literal 1 stretched."""
        rank = max(len(left), len(right))
        one = Size.of(1)
        out: list[Size] = []
        for i in range(-rank, 0):
            a = left[i] if -i <= len(left) else one
            c = right[i] if -i <= len(right) else one
            if a == one or c == one:
                out.append(c if a == one else a)
            elif self.same_size(a, c):
                out.append(a)
            else:
                raise Refusal("E405", left=show(left), right=show(right))
        return tuple(out)

    def stretch(self, value: Value, shape: Shape) -> Value:
        """value broadcast to a shape that `common_shape` found."""
        own = value.type.shape
        if own == shape:
            return value
        one = Size.of(1)
        lead = len(shape) - len(own)
        kept = [i for i, size in enumerate(own) if size != one or shape[i + lead] == one]
        target = tuple(shape[i + lead] for i in kept)
        value = self.b.reshape(value, target)
        return self.b.broadcast(value, shape, tuple(i + lead for i in kept))

    def broadcast(self, *operands: Operand) -> list[Value | float | bool]:
        """Operands of one shape; Python numbers are left to the builder unless all are numbers."""
        if not any(isinstance(o, Value) for o in operands):
            return [self.value(o) for o in operands]
        plain = [self.value(o) if isinstance(o, Size) else o for o in operands]
        shape: Shape = ()
        for operand in plain:
            if isinstance(operand, Value):
                shape = self.common_shape(shape, operand.type.shape)
        return [self.stretch(o, shape) if isinstance(o, Value) else o for o in plain]

    # ---- contraction and indexing ----

    def matmul(self, left: Value, right: Value, node: Binary) -> Value:
        a, c = left.type.shape, right.type.shape
        for shape, operand in ((a, node.left), (c, node.right)):
            if len(shape) not in (1, 2):
                hint = "multiply with *" if not shape else 'write einsum("hk,hkl->hl", a, b)'
                raise Refusal("E406", operand.span, help=hint, shape=show(shape))
        inner = c[0]
        if not self.same_size(a[-1], inner):
            raise Refusal(
                "E404",
                notes=(self.describe(node.left, left), self.describe(node.right, right)),
                help=self._matmul_hint(node, a, c),
                left=a[-1],
                right=inner,
            )
        right = self.fit(right, (a[-1], *c[1:]))
        la, lc = ("ik"[-len(a) :], "kl"[: len(c)])
        out = (la + lc).replace("k", "")
        return self.b.contract(left, right, (la, lc, out))

    def _matmul_hint(self, node: Binary, a: Shape, c: Shape) -> str:
        if isinstance(node.right, Name):
            declaration = self.spec.find(node.right.name)
            if declaration is not None and declaration.kind == "weight":
                return f"declare {declaration.name}: weight{show((a[-1], *c[1:]))}"
        if len(c) == 2 and c[1] == a[-1]:
            return "transpose the right-hand side"
        return ""

    def describe(self, node: Expr, value: Operand) -> str:
        """`W : [units, units]  (line 9)`: a note about an operand."""
        match node:
            case Name(name=name):
                text = name
            case Timed(name=name, back=back):
                text = f"{name}[t-{back}]" if back else f"{name}[t]"
            case _:
                text = ""
                line = self.spec.line(node.span.line)
                text = line[node.span.col - 1 : node.span.end - 1]
        where = ""
        if isinstance(node, Name | Timed):
            declaration = self.spec.find(node.name)
            where = f"  (line {declaration.span.line})" if declaration else ""
        return f"{text} : {show(shape_of_operand(value))}{where}"

    def elements(self, value: Value) -> Size:
        return product(value.type.shape)
