"""The equations of a cell with options and functions bound -> values of one step.

Equations may stand in any order: a name is evaluated when it is first read, and one that is read
while it is being evaluated is part of a cycle.

Non-Goals: the Program around the step (`lower`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from rnncc.frontend.diagnostics import Diagnostic, Reporter, SpecError, nearest
from rnncc.frontend.elaborate import Defaults, bind_options, shape_of, sizes_of
from rnncc.frontend.library import SIGNATURES, Signature
from rnncc.frontend.parse import parse_function
from rnncc.frontend.spec import (
    ArrayDecl,
    Call,
    CellSpec,
    Equation,
    Expr,
    FunctionDecl,
    Item,
    Lambda,
    Layout,
    Name,
    RateDecl,
    SizeDecl,
    Timed,
)
from rnncc.ir.program import Type, Value
from rnncc.ir.sizes import Size
from rnncc.lowering import array_functions, number_functions  # noqa: F401  (fill FUNCTIONS)
from rnncc.lowering.expressions import Evaluator
from rnncc.lowering.functions import FUNCTIONS, known
from rnncc.lowering.indexing import item
from rnncc.lowering.operands import (
    POISON,
    Operand,
    Refusal,
    Shape,
    SizeEquality,
    shape_of_operand,
    show,
)
from rnncc.lowering.randomness import Site, SiteDraw, drop, zoneout

FunctionValue = str | Lambda


def bind_functions(spec: CellSpec, given: Mapping[str, object]) -> dict[str, FunctionValue]:
    """Every declared function as a library name or a lambda; `given` may hold either as text."""
    bound: dict[str, FunctionValue] = {}
    for d in spec.functions:
        if isinstance(d.default, Name):
            bound[d.name] = d.default.name
        elif isinstance(d.default, Lambda):
            bound[d.name] = d.default
    for name, value in given.items():
        declared = spec.find(name)
        if not isinstance(declared, FunctionDecl):
            hint = nearest(name, (d.name for d in spec.functions))
            message = f"{spec.name} has no function {name}" + (f": {hint}" if hint else "")
            raise ValueError(message)
        bound[name] = _function(name, value)
    return bound


def _function(name: str, value: object) -> FunctionValue:
    if isinstance(value, Lambda):
        return value
    if value is None:
        return "linear"
    if not isinstance(value, str):
        raise TypeError(f"function {name} is a name or the text of a lambda, not {value!r}")
    if value.lstrip().startswith("lambda"):
        return parse_function(value.strip(), name)
    if value not in FUNCTIONS:
        hint = nearest(value, FUNCTIONS)
        raise ValueError(f"no function is called {value}" + (f": {hint}" if hint else ""))
    return value


class Equations(Evaluator):
    """One step: `parameters` of the arrays read, `steps` of inputs and states, `results`."""

    def __init__(
        self,
        spec: CellSpec,
        options: Mapping[str, object],
        functions: Mapping[str, object],
        *,
        training: bool,
        active_rates: frozenset[str],
        errors: Reporter,
    ) -> None:
        bound = bind_options(spec, options)
        defaults = Defaults(spec, sizes_of(spec, bound, errors), errors)
        super().__init__(spec, bound, defaults, errors)
        self.functions = bind_functions(spec, functions)
        self.overridden = frozenset(functions)
        self.training, self.active_rates = training, active_rates
        self.values: dict[tuple[str, int | None], Operand] = {}  # evaluated targets
        self.setters: dict[tuple[str, int | None], Equation] = {}
        for equation in spec.equations:
            for target in equation.targets:
                self.setters.setdefault((target.name, target.back), equation)
        self.shapes: dict[str, Shape | None] = {
            d.name: shape_of(spec, d.layout, bound, errors)
            for d in reversed(spec.declarations)  # of two with one name, the first counts
            if isinstance(d, ArrayDecl)
        }
        self.parameters: dict[str, Value] = {}  # contexts, weights, constants, rates, seed
        self.steps: dict[tuple[str, int], Value] = {}  # x[t], h[t-1] and earlier, as they enter
        self.furthest: dict[str, Timed] = {}  # of every name, where it is read the most steps back
        self.names: dict[Value, str] = {}  # what equations call values
        self.calling: list[str] = []  # declared functions being evaluated
        self.active: list[Equation] = []
        self.sites = self._number_sites()
        self.draws: list[SiteDraw] = []

    def _number_sites(self) -> dict[tuple[int, int], int]:
        """A number for every drop and zoneout of the text, whatever the options."""
        sites: list[tuple[int, int]] = []
        for nodes in self.spec.nodes:
            for node in nodes:
                if isinstance(node, Call) and node.function in ("drop", "zoneout"):
                    sites.append((node.function_span.line, node.function_span.col))
        return {where: number for number, where in enumerate(sorted(sites))}

    # ---- equations ----

    def run(self) -> None:
        for equation in self._ordered():
            self._equation(equation)

    def _ordered(self) -> list[Equation]:
        """Equations in an order in which most find what they read: long chains don't recurse."""
        nodes = {id(e): own for e, own in zip(self.spec.equations, self.spec.nodes, strict=False)}
        done: dict[int, Equation] = {}
        open_: set[int] = set()
        for first in self.spec.equations:
            stack = [(first, self._reads(nodes[id(first)]))]
            open_.add(id(first))
            while stack:
                equation, rest = stack[-1]
                following = next((e for e in rest if id(e) not in open_), None)
                if following is None:
                    stack.pop()
                    done.setdefault(id(equation), equation)
                else:
                    open_.add(id(following))
                    stack.append((following, self._reads(nodes[id(following)])))
        return list(done.values())

    def _reads(self, nodes: Iterable[Expr | Layout]) -> Iterator[Equation]:
        for node in nodes:
            key: tuple[str, int | None] | None = None
            if isinstance(node, Name):
                key = (node.name, None)
            if isinstance(node, Timed) and node.back == 0:
                key = (node.name, 0)
            if key is not None and key in self.setters:
                yield self.setters[key]

    def _equation(self, equation: Equation) -> None:
        if all((t.name, t.back) in self.values for t in equation.targets):
            return
        scopes, self.bound = self.bound, []
        span, self.b.span = self.b.span, None
        self.active.append(equation)
        operand = self.whole(equation.value)
        self.active.pop()
        self.bound, self.b.span = scopes, span
        targets = equation.targets
        parts: tuple[Operand, ...]
        if operand is POISON:
            parts = (POISON,) * len(targets)
        elif len(targets) > 1 and isinstance(operand, tuple) and len(operand) == len(targets):
            parts = operand
        elif len(targets) == 1 and not isinstance(operand, tuple):
            parts = (operand,)
        else:
            given = f"{len(operand)} values" if isinstance(operand, tuple) else "one value"
            self.errors.add("E413", equation.span, count=len(targets), given=given)
            parts = (POISON,) * len(targets)
        for target, part in zip(targets, parts, strict=True):
            if target.back == 0:
                part = self._of_state(part, self.shapes.get(target.name), equation)
            self.values.setdefault((target.name, target.back), part)
            if isinstance(part, Value):
                self.names.setdefault(part, target.name)

    def _of_state(self, part: Operand, shape: Shape | None, equation: Equation) -> Operand:
        """What a state is set to: a single number stands in each of its places."""
        if not shape or not isinstance(part, Value | Size | int | float):
            return part
        if isinstance(part, Value) and part.type.shape:
            return part
        span, self.b.span = self.b.span, equation.span
        part = self.stretch(self.value(part), shape)
        self.b.span = span
        return part

    def read(self, key: tuple[str, int | None]) -> Operand:
        """The value an equation sets, evaluated now if need be."""
        if key in self.values:
            return self.values[key]
        equation = self.setters.get(key)
        if equation is None:
            return self._unknown("E301", key[0])
        if any(equation is other for other in self.active):
            self._cycle(equation)
            return POISON
        self._equation(equation)
        return self.values[key]

    def _unknown(self, code: str, name: str) -> Operand:
        """`names` has read the text, but not functions given in place of declared ones."""
        if self.calling and self.overridden & set(self.calling):
            raise Refusal(code, name=name, help="in a function given to the layer")
        return POISON

    def _cycle(self, equation: Equation) -> None:
        begin = next(i for i, other in enumerate(self.active) if other is equation)
        around = self.active[begin:]
        texts = [
            ", ".join(t.name + ("[t]" if t.back == 0 else "") for t in e.targets) for e in around
        ]
        first = min(around, key=lambda e: (e.span.line, e.span.col))
        at = around.index(first)
        chain = " -> ".join([*texts[at:], *texts[:at], texts[at]])
        self.errors.add(
            "E315",
            first.targets[0].span,
            chain=chain,
            help="read a state of the step before, as in h[t-1]",
        )
        for member in around:
            for t in member.targets:
                self.values.setdefault((t.name, t.back), POISON)

    # ---- names ----

    def lookup(self, name: str) -> Operand:
        declaration = self.spec.find(name)
        if (
            name in self.spec.poisoned
            or declaration is None
            or isinstance(declaration, FunctionDecl)
        ):
            return self.read((name, None))
        if isinstance(declaration, SizeDecl):
            return Size.name(name)
        if isinstance(declaration, ArrayDecl) and declaration.kind in (
            "context",
            "weight",
            "constant",
        ):
            return self.parameter(
                name, self.shapes[name], "B" if declaration.kind == "context" else ""
            )
        return self.options[name] if name in self.options else self._unknown("E301", name)

    def parameter(
        self, name: str, shape: Shape | None, axes: str = "", dtype: str = "float"
    ) -> Operand:
        if shape is None:
            return POISON
        if name not in self.parameters:
            self.parameters[name] = Value(name, Type(shape, axes, dtype))
        return self.parameters[name]

    def timed(self, node: Timed) -> Operand:
        declaration = self.spec.find(node.name)
        if not isinstance(declaration, ArrayDecl) or declaration.kind not in ("input", "state"):
            return self._unknown("E301", node.name)
        if node.back < 0:
            return POISON
        if declaration.kind == "state" and node.back == 0:
            return self.read((node.name, 0))
        if node.name not in self.furthest or self.furthest[node.name].back < node.back:
            self.furthest[node.name] = node
        return self.entering(node.name, node.back)

    def entering(self, name: str, back: int) -> Operand:
        """x[t], h[t-1] or an earlier one, which is a state of its own."""
        shape = self.shapes[name]
        if shape is None:
            return POISON
        if (name, back) not in self.steps:
            label = f"_{name}_{back}" if back else name
            self.steps[name, back] = Value(label, Type(shape, "B"))
        return self.steps[name, back]

    def item(self, node: Item) -> Operand:
        return item(self, node)

    # ---- calls ----

    def call(self, node: Call) -> Operand:
        args = [self.evaluate(a) for a in node.args if not self._is_rate(node, a)]
        keywords = {
            k.name: self.evaluate(k.value)
            for k in node.keywords
            if not self._is_rate(node, k.value)
        }
        if any(v is POISON for v in (*args, *keywords.values())):
            return POISON
        self._ungrouped(node, args)
        if node.function in self.functions:
            return self._declared(node, args, keywords)
        if node.function in ("drop", "zoneout"):
            return self._random(node, args, keywords)
        if node.function == "surrogate" and len(args) + len(keywords) == 2:
            keywords["of"] = number_functions.argument_of(self, node)
        return self._library(node.function, args, keywords)

    def _ungrouped(self, node: Call, args: list[Operand]) -> None:
        """Refuses (a, b) and split(v, 2) as an argument, but where a shape or a list belongs."""
        several = (0,) if len(args) == 1 else ()
        allowed = {"concat": several, "stack": several}
        allowed |= {"reshape": (1,), "broadcast": (1,), "transpose": (1,)}
        arguments = [a for a in node.args if not self._is_rate(node, a)]
        for at, (argument, operand) in enumerate(zip(arguments, args, strict=True)):
            if isinstance(operand, tuple) and at not in allowed.get(node.function, ()):
                raise Refusal("E416", argument.span, help="give each a name: a, b = split(v, 2)")

    def _library(self, name: str, args: list[Operand], keywords: dict[str, Operand]) -> Operand:
        if name not in FUNCTIONS:
            return self._unknown("E302", name)
        if not _fits(name, args, keywords):
            if not self.overridden:
                return POISON  # `names` has said so
            count = len(args) + len(keywords)
            raise Refusal("E501", name=name, signature=SIGNATURES[name], count=count)
        return FUNCTIONS[name](self, *args, **keywords)

    def _declared(self, node: Call, args: list[Operand], keywords: dict[str, Operand]) -> Operand:
        body = self.functions[node.function]
        if isinstance(body, str):
            return self._library(body, args, keywords)
        if node.function in self.calling:
            raise Refusal("E509", name=node.function)
        if len(args) + len(keywords) != len(body.params) or not set(keywords) <= set(body.params):
            if node.function not in self.overridden:
                return POISON  # `names` has said so
            count = len(args) + len(keywords)
            raise Refusal("E501", name=node.function, signature=Signature(body.params), count=count)
        scope = dict(zip(body.params, args, strict=False)) | keywords
        self.bound.append(scope)
        self.calling.append(node.function)
        before = len(self.errors.diagnostics)
        try:
            return self.evaluate(body.body)
        finally:
            self.bound.pop()
            self.calling.pop()
            self._note_call(before, node)

    def _note_call(self, before: int, node: Call) -> None:
        """Mistakes inside a function say which call met them."""
        diagnostics = self.errors.diagnostics
        for i in range(before, len(diagnostics)):
            d = diagnostics[i]
            declared = self.spec.find(node.function)
            own = isinstance(declared, FunctionDecl) and declared.default == self.functions.get(
                node.function
            )
            span = d.span if own else node.span
            note = f"in {node.function}, called on line {node.span.line}"
            diagnostics[i] = Diagnostic(d.code, span, d.message, (*d.notes, note), d.help)

    # ---- randomness ----

    def _is_rate(self, node: Call, argument: Expr) -> bool:
        if node.function not in ("drop", "zoneout") or node.function in self.functions:
            return False
        return argument is _rate_of(node)

    def _random(self, node: Call, args: list[Operand], keywords: dict[str, Operand]) -> Operand:
        rate = _rate_of(node)
        if self.calling:
            raise Refusal("E508", name=node.function, help="drop where the function is called")
        if rate is None or not _fits(node.function, node.args, [k.name for k in node.keywords]):
            return POISON  # `names` has said so
        where = (node.function_span.line, node.function_span.col)
        site = Site(self.sites.get(where, 0), self._rate(rate), self._seed, self.training)
        fn = drop if node.function == "drop" else zoneout
        before = len(self.constraints)
        drawn = fn(self, site, *args, **keywords)
        operand = args[0] if args else keywords[SIGNATURES[node.function].required[0]]
        if drawn is not operand:
            asked = range(before, len(self.constraints))
            draw = SiteDraw(node.function, self._is_declared(rate), operand, drawn, asked)
            self.draws.append(draw)
        return drawn

    def _is_declared(self, rate: Expr) -> bool:
        return isinstance(rate, Name) and isinstance(self.spec.find(rate.name), RateDecl)

    def _rate(self, node: Expr) -> Value | float | None:
        """A rate's value, or None when it is certainly 0."""
        if self._is_declared(node):
            assert isinstance(node, Name)
            if node.name not in self.active_rates:
                return None
            value = self.parameter(node.name, ())
            assert isinstance(value, Value)
            return value
        operand = self.evaluate(node)
        if operand is POISON:
            return None
        if isinstance(operand, bool) or not isinstance(operand, int | float):
            raise Refusal("E506", node.span, help="a rate, or a number in [0, 1)")
        rate = known(operand, "the rate")
        if not 0 <= rate < 1:
            raise Refusal("E210", node.span, text=f"{operand}")
        return rate or None

    def _seed(self) -> Value:
        seed = self.parameter("seed", (), dtype="int")
        assert isinstance(seed, Value)
        return seed


def _rate_of(node: Call) -> Expr | None:
    at = 1 if node.function == "drop" else 2
    if len(node.args) > at:
        return node.args[at]
    return next((k.value for k in node.keywords if k.name == "rate"), None)


def _fits(name: str, args: Sequence[object], keywords: Collection[str]) -> bool:
    signature = SIGNATURES[name]
    allowed = (*signature.required, *signature.optional)
    if signature.variadic:
        return len(args) > len(signature.required) and set(keywords) <= set(allowed)
    positional = set(allowed[: len(args)])
    return (
        len(args) <= len(allowed)
        and not positional & set(keywords)
        and set(keywords) <= set(allowed)
        and set(signature.required) <= positional | set(keywords)
    )


__all__ = ["Equations", "SizeEquality", "SpecError", "shape_of_operand", "show"]
