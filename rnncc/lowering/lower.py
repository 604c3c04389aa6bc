"""CellSpec -> Program: options folded, sugar gone, one step in the scan's body.

    >>> from rnncc.frontend.parse import parse
    >>> from rnncc.ir.printer import print_program
    >>> text = "cell: Leaky\\nunits: size\\nx: input[units]\\nh: state[units]\\n"
    >>> spec = parse(text + "h[t] = h[t-1] + tanh(x[t])\\nreturn h[t]\\n")
    >>> print(print_program(lower(spec)))
    program Leaky
      input     x : float[B, T, units]
      state     h : float[B, units]
    scan:
      carry _h_1 : float[B, units], from h
      x_1 = x[t]
        _0 = tanh(x_1)                                             : float[B, units]  # line 5
        h_1 = add(_h_1, _0)                                        : float[B, units]  # line 5
      next _h_1 = h_1; last is final_h
      h_2[t] = h_1
      result h (output) = h_2
      result final_h (state of h) = final_h
    <BLANKLINE>

With `mask`, a masked step reads zeros for its inputs, keeps every carry and repeats the output,
which is zero where it isn't shown: before the first valid step, or at every masked one.
The zeros are put there for all steps at once, so that the pullback reads what the forward read.

With `resets`, a row may start anew behind a step: what it hands on is zeros, or where it starts
from, an argument of its own, for the first of some steps need not be the first of its row.

Non-Goals: any optimisation but leaving out what nothing reads; moving ops out of the scan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from rnncc.artifact.cell import RESTART, SHOWN, TO_STARTS, VALID, restart_name
from rnncc.common.result_roles import ResultRole, final_name
from rnncc.frontend.diagnostics import Reporter, SpecError
from rnncc.frontend.limits import STATES
from rnncc.frontend.spec import ArrayDecl, CellSpec, Expr, Name, Timed
from rnncc.ir.builder import Builder
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
from rnncc.ir.rewrite import definitions
from rnncc.ir.sizes import TooLarge
from rnncc.ir.verify import verify
from rnncc.lowering.equations import Equations
from rnncc.lowering.operands import POISON, Operand, Refusal, show
from rnncc.lowering.randomness import SiteDraw

NOTHING: Mapping[Value, Value] = MappingProxyType({})


def lower(
    spec: CellSpec,
    options: Mapping[str, object] | None = None,
    functions: Mapping[str, object] | None = None,
    *,
    mask: bool = False,
    resets: str = "",
    training: bool = False,
    active_rates: frozenset[str] = frozenset(),
) -> Program:
    """The Program of a cell; SpecError with every mistake the given options and functions show."""
    return elaborate(
        spec,
        options,
        functions,
        mask=mask,
        resets=resets,
        training=training,
        active_rates=active_rates,
    )[0]


def elaborate(
    spec: CellSpec,
    options: Mapping[str, object] | None = None,
    functions: Mapping[str, object] | None = None,
    *,
    mask: bool = False,
    resets: str = "",
    training: bool = False,
    active_rates: frozenset[str] = frozenset(),
) -> tuple[Program, Equations]:
    """The Program together with the equations it came from: their shapes and constraints."""
    lowering = _lowering(spec, options, functions, mask, resets, training, active_rates)
    if not lowering.complete:
        errors = lowering.eq.errors
        raise SpecError(errors.diagnostics, spec.text, spec.filename, spec)
    return verify(lowering.program()), lowering.eq


class Whole:
    """A cell lowered with all that it can do, which is training with every rate above zero, or
    what is wrong with it; what it does without some of its draws follows from that."""

    def __init__(
        self,
        spec: CellSpec,
        options: Mapping[str, object] | None = None,
        functions: Mapping[str, object] | None = None,
    ) -> None:
        rates = frozenset(r.name for r in spec.rates)
        self._lowering = _lowering(
            spec, options, functions, False, "", training=True, active_rates=rates
        )
        self.equations = self._lowering.eq
        self.complete = self._lowering.complete  # whether nothing is wrong
        self.errors = self.equations.errors.diagnostics

    def program(self, left_out: Collection[SiteDraw] = ()) -> Program:
        """Of a complete one, its Program where these draws hand on what they were given.

        All of them have to be such as `can_be_left_out`. Then it is what `lower` makes without
        them, but for the names of values.
        """
        instead = {d.drawn: d.without for d in left_out}
        return self._lowering.program(instead)


def _lowering(
    spec: CellSpec,
    options: Mapping[str, object] | None,
    functions: Mapping[str, object] | None,
    mask: bool,
    resets: str,
    training: bool,
    active_rates: frozenset[str],
) -> _Lowering:
    equations = Equations(
        spec,
        options or {},
        functions or {},
        training=training,
        active_rates=active_rates,
        errors=Reporter(),
    )
    lowering = _Lowering(equations, mask, resets)
    lowering.run()
    return lowering


@dataclass
class _Carried:
    """A carry being built. role: of the parameter it starts from and of its last value."""

    name: str
    init: Value
    value: Value
    next: Value
    role: str = "state"


class _Lowering:
    def __init__(self, equations: Equations, mask: bool, resets: str) -> None:
        self.eq, self.spec, self.b = equations, equations.spec, equations.b
        self.valid: Value | None = None
        self.shown: Value | None = None  # whether the output of a step is other than zero
        self.restart: Value | None = None  # whether the row starts anew behind a step
        self.kept: dict[Value, Value] = {}  # what a state becomes -> the same with masked steps
        self.inputs: list[Value] = []
        self.slices: list[Slice] = []
        self.before: list[Op] = []
        self.state_params: list[Param] = []
        self.carries: list[_Carried] = []
        self.outputs: list[tuple[str, Value]] = []
        self.mask, self.resets = mask, resets
        self.complete = False  # whether nothing was found wrong

    # ---- the step ----

    def run(self) -> None:
        self._enter()
        for state in self.spec.states:
            self._initial(state)
        self.eq.run()
        next_states = {s.name: self._next_state(s.name) for s in self.spec.states}
        returned = [self._returned(e) for e in self.spec.returns]
        if self.eq.errors.diagnostics:
            return
        if None in (*next_states.values(), *returned):
            return  # something `names` has reported
        if not self._few_states():
            return
        for state in self.spec.states:
            following = next_states[state.name]
            assert following is not None
            self._carry(state.name, 1, following)
        self._delays()
        self._outputs(returned)
        self.complete = True

    def _enter(self) -> None:
        """The slices of inputs; with a mask, zeros where a step is masked."""
        if self.mask:
            self.valid, self.shown = self._flag(VALID), self._flag(SHOWN)
        if self.resets:
            self.restart = self._flag(RESTART)
        for declared in self.spec.inputs:
            shape = self.eq.shapes[declared.name]
            if shape is None:
                continue
            source = Value(declared.name, Type(shape, "BT"))
            inner = Value(declared.name, Type(shape, "B"))
            self.inputs.append(source)
            self.slices.append(Slice(inner, self._cleaned(source, declared.span)))
            self.eq.steps[declared.name, 0] = inner

    def _flag(self, name: str) -> Value:
        """A bool of every row and step."""
        flag = Value(name, Type((), "B", "bool"))
        self.slices.append(Slice(flag, Value(name, Type((), "BT", "bool"))))
        return flag

    def _initial(self, state: ArrayDecl) -> None:
        """The layer spreads a state's initial value over the batch; here only its shape counts."""
        if state.initial is None:
            return
        shape, initial_shape = self.eq.shapes[state.name], self.eq.shapes.get(state.initial.name)
        if shape is None or initial_shape is None:
            return
        self.b.span = state.initial.span
        try:
            fits = len(shape) == len(initial_shape) and all(
                map(self.eq.same_size, shape, initial_shape)
            )
        except TooLarge as error:
            self.eq.report(error, state.initial.span)
            return
        if not fits:
            self.eq.errors.add(
                "E418",
                state.initial.span,
                name=state.name,
                state=show(shape),
                initial=state.initial.name,
                shape=show(initial_shape),
            )

    def _cleaned(self, source: Value, span: Span) -> Value:
        """A sequence with zeros where a step is masked: what is there may be NaN, and only a
        pullback would see it, as NaN times a zero cotangent."""
        if self.valid is None:
            return source
        b = Builder(span, source.name)
        valid = b.broadcast(self.slices[0].source, source.type.shape, ())
        cleaned: Value = b.where(valid, source, 0.0)
        self.before += b.ops
        return cleaned

    def _select(self, flag: Value | None, new: Value, old: Value | float) -> Value:
        """new where the step's flag is set, else old."""
        if flag is None:
            return new
        selected: Value = self.b.where(self.b.broadcast(flag, new.type.shape, ()), new, old)
        return selected

    def _next_state(self, name: str) -> Value | None:
        shape = self.eq.shapes[name]
        operand = self.eq.read((name, 0))
        if operand is POISON or shape is None:
            return None
        equation = self.eq.setters[name, 0]
        self.b.span = equation.span
        try:
            value = self.eq.value(operand)
            own = value.type.shape
            fits = len(own) == len(shape) and all(map(self.eq.same_size, shape, own))
            if own and not fits:
                raise Refusal("E407", name=name, state=show(shape), shape=show(own))
        except (Refusal, TooLarge) as error:
            target = next(t for t in equation.targets if t.name == name)
            self.eq.report(error, target.span)
            return None
        value = self.eq.fit(value, shape) if own else self.eq.stretch(value, shape)
        self.eq.names.setdefault(value, name)
        return value

    def _carry(self, name: str, back: int, following: Value) -> None:
        """State `name` as it enters the step, `back` steps old."""
        value = self.eq.entering(name, back)
        assert isinstance(value, Value)
        declaration = self.spec.find(name)
        own = back == 1 and declaration is not None and declaration.kind == "state"
        label = name if own else f"_{name}_{back}"
        init = Value(label, Type(value.type.shape, "B"))
        setter = self.eq.setters.get((name, 0))
        self.b.span = setter.span if setter else self.eq.furthest[name].span
        selected = self._select(self.valid, following, value)
        if selected is not following:
            self.eq.names[selected] = label
            self.kept.setdefault(following, selected)
        self.state_params.append(Param(init, "state"))
        entering = self._restarted(label, selected)
        self.carries.append(_Carried(label, init, value, entering))

    def _restarted(self, label: str, last: Value) -> Value:
        """What the step behind this one starts from. Gradients stop at the start of a row by that:
        none goes on to what the row was before."""
        if self.restart is None:
            return last
        start: Value | float = 0.0
        if self.resets == TO_STARTS:
            start = Value(restart_name(label), Type(last.type.shape, "B"))
            self.state_params.append(Param(start, "restart"))
        entering: Value = self.b.where(
            self.b.broadcast(self.restart, last.type.shape, ()), start, last
        )
        self.eq.names[entering] = label
        return entering

    def _earlier(self) -> Iterator[tuple[str, range]]:
        """Names and how many steps back there are states of them that aren't declared."""
        for declared in (*self.spec.inputs, *self.spec.states):
            if declared.name in self.eq.furthest:
                first = 1 if declared.kind == "input" else 2
                yield declared.name, range(first, self.eq.furthest[declared.name].back + 1)

    def _few_states(self) -> bool:
        count = len(self.spec.states)
        for name, backs in self._earlier():
            count += len(backs)
            if count > STATES:
                self.eq.errors.add("E424", self.eq.furthest[name].span, n=count, most=STATES)
                return False
        return True

    def _delays(self) -> None:
        """A state for every earlier step that is read, and for those between."""
        for name, backs in self._earlier():
            for back in backs:
                following = self.eq.entering(name, back - 1)
                assert isinstance(following, Value)
                self._carry(name, back, following)

    # ---- what is returned ----

    def _returned(self, node: Expr) -> Value | None:
        operand: Operand = self.eq.whole(node)
        if operand is POISON:
            return None
        self.b.span = node.span
        try:
            value = self.eq.value(operand)
        except (Refusal, TooLarge) as error:
            self.eq.report(error, node.span)
            return None
        return value

    def _outputs(self, returned: list[Value | None]) -> None:
        taken = {final_name(c.name) for c in self.carries}
        counts: dict[str, int] = {}  # of names of outputs that were taken
        for node, value in zip(self.spec.returns, returned, strict=True):
            assert value is not None
            wanted = node.name if isinstance(node, Name | Timed) else "output"
            name = wanted
            while name in taken:
                counts[wanted] = counts.get(wanted, 0) + 1
                name = f"{wanted}_{counts[wanted]}"
            taken.add(name)
            self.outputs.append((name, self._repeat(name, value)))

    def _repeat(self, name: str, value: Value) -> Value:
        """With a mask: the output of the last valid step, zeros where it isn't shown.

        A state keeps it anyway. Else what the output was put together from is held, so that
        putting it together stays outside the recurrence.
        """
        if self.valid is None:
            return value
        producer = definitions(self.b.ops).get(value)
        if producer is not None and producer.opcode in ("reshape", "transpose", "concat"):
            parts = [self._repeat(name, o) for o in producer.operands]
            return self.b.emit(
                producer.opcode, *parts, name=name, span=producer.span, **producer.attrs
            )
        self.b.span = self.spec.returns_span
        kept = self.kept.get(value) or self._held(name, value)
        shown = self._select(self.shown, kept, 0.0)
        self.eq.names[shown] = name
        return shown

    def _held(self, name: str, value: Value) -> Value:
        """A value of the last valid step."""
        label, taken = f"_{name}_held", {c.name for c in self.carries}
        while label in taken:
            label += "_"
        carried = Value(label, Type(value.type.shape, "B"))
        start = Value(label, carried.type)
        selected = self._select(self.valid, value, carried)
        self.carries.append(_Carried(label, start, carried, selected, "held"))
        self.state_params.append(Param(start, "held"))
        return selected

    # ---- the Program ----

    def program(self, instead: Mapping[Value, Value] = NOTHING) -> Program:
        """instead: what some values are replaced by wherever they are read."""

        def read(value: Value) -> Value:
            while value in instead:
                value = instead[value]
            return value

        roots = [read(v) for v in (*(c.next for c in self.carries), *(v for _, v in self.outputs))]
        ops = self.b.ops
        if instead:
            ops = [
                op
                if instead.keys().isdisjoint(op.operands)
                else replace(op, operands=tuple(map(read, op.operands)))
                for op in ops
            ]
        body, rename = _rebuild(ops, roots, self.eq.names)
        live = {o for op in body for o in op.operands} | {rename.get(r, r) for r in roots}

        def made(value: Value) -> Value:
            value = read(value)
            return rename.get(value, value)

        results: list[Result] = []
        stacks: list[Stack] = []
        for name, value in self.outputs:
            target = Value(name, Type(value.type.shape, "BT"))
            stacks.append(Stack(made(value), target))
            results.append(Result(ResultRole("output", name), target))
        carries: list[Carry] = []
        for c in self.carries:
            role = ResultRole(c.role, c.name)
            final = Value(role.name, Type(c.value.type.shape, "B"))
            carries.append(Carry(c.name, c.init, c.value, made(c.next), final))
            results.append(Result(role, final))
        params = self._params(live)
        scan = Scan(tuple(carries), tuple(self.slices), tuple(body), tuple(stacks))
        return Program(self.spec.name, params, tuple(self.before), scan, (), tuple(results))

    def _params(self, live: set[Value]) -> tuple[Param, ...]:
        """Inputs, contexts and states always; the rest when the body reads it."""
        eq = self.eq
        params = [Param(source, "input") for source in self.inputs]
        for context in self.spec.contexts:
            value = eq.parameter(context.name, eq.shapes[context.name], "B")
            params.append(Param(value, "context"))
        params += self.state_params
        groups = (
            ("weight", self.spec.weights),
            ("constant", self.spec.constants),
            ("rate", self.spec.rates),
        )
        for role, declared in groups:
            for d in declared:
                parameter = eq.parameters.get(d.name)
                if parameter in live:
                    params.append(Param(parameter, role))
        if eq.parameters.get("seed") in live:
            params.append(Param(eq.parameters["seed"], "seed"))
        for s in self.slices:
            if s.value in (self.valid, self.shown, self.restart):
                params.append(Param(s.source, "valid"))
        return tuple(params)


def _rebuild(
    ops: list[Op], roots: Iterable[Value], names: Mapping[Value, str]
) -> tuple[list[Op], dict[Value, Value]]:
    """The ops that `roots` need, their results called what the user calls them."""
    needed = set(roots)
    kept: list[Op] = []
    for op in reversed(ops):
        if any(r in needed for r in op.results):
            kept.append(op)
            needed.update(op.operands)
    rename: dict[Value, Value] = {}
    body: list[Op] = []
    for op in reversed(kept):
        results = []
        for result in op.results:
            wanted = names.get(result, result.name)
            if wanted != result.name:
                rename[result] = Value(wanted, result.type)
            results.append(rename.get(result, result))
        operands = tuple(rename.get(o, o) for o in op.operands)
        if (operands, tuple(results)) != (op.operands, op.results):
            op = Op(op.opcode, operands, tuple(results), op.attrs, op.span)
        body.append(op)
    return body, rename
