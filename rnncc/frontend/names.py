"""Checks the names of a CellSpec: that they exist, carry a time or don't, and are set once.

These checks hold whatever the options are; unlike shapes, they read every branch of a choice.

Non-Goals: shapes; cycles and unused weights, which depend on options (`lowering.cell_interface`).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from rnncc.frontend.diagnostics import Reporter, an
from rnncc.frontend.elaborate import left
from rnncc.frontend.library import SIGNATURES, Signature
from rnncc.frontend.spec import (
    ArrayDecl,
    Bad,
    Call,
    CellSpec,
    Declaration,
    Expr,
    FunctionDecl,
    Item,
    Lambda,
    Layout,
    LayoutChoice,
    Name,
    OptionDecl,
    SizeDecl,
    Target,
    Timed,
    children,
    walk,
)
from rnncc.ir.program import Span

_TIMED = ("input", "state")


def check_names(spec: CellSpec, errors: Reporter) -> None:
    _Names(spec, errors).check()


def _on_cycles(reads: Mapping[str, Collection[str]]) -> list[str]:
    """The names that lead back to themselves."""
    readers: dict[str, list[str]] = {name: [] for name in reads}
    for name, read in reads.items():
        for r in read:
            if r in readers:
                readers[r].append(name)
    # Kosaraju: whoever leads to the last name that was left, and is led to by it, is on its cycles.
    group: dict[str, str] = {}
    for root in reversed(left(reads)):
        rest = [root]
        while rest:
            name = rest.pop()
            if name not in group:
                group[name] = root
                rest += readers[name]
    sizes = Counter(group.values())
    return [n for n, read in reads.items() if sizes[group[n]] > 1 or n in read]


class _Names:
    def __init__(self, spec: CellSpec, errors: Reporter) -> None:
        self.spec, self.errors = spec, errors
        self.kinds: dict[str, str] = {}
        self.declared: dict[str, Declaration] = {}
        self.temporaries: set[str] = set()
        self.used: set[str] = set()

    def check(self) -> None:
        spec = self.spec
        for d in spec.declarations:
            if d.name in self.declared:
                first = self.declared[d.name].span.line
                self.errors.add("E204", d.span, name=d.name, notes=[f"first on line {first}"])
            self.declared.setdefault(d.name, d)
            self.kinds.setdefault(d.name, d.kind)
        self._targets()
        for d in spec.declarations:
            self._declaration(d)
        for equation in spec.equations:
            self._expr(equation.value, frozenset())
        for value in spec.returns:
            self._expr(value, frozenset())
        self._missing()

    # ---- what is set ----

    def _targets(self) -> None:
        seen: dict[str, Span] = {}
        for equation in self.spec.equations:
            for target in equation.targets:
                if not self._target(target):
                    continue
                if target.name in seen:
                    self.errors.add(
                        "E307",
                        target.span,
                        name=target.name,
                        notes=[f"first on line {seen[target.name].line}"],
                    )
                seen.setdefault(target.name, target.span)
        self.set = set(seen)

    def _target(self, target: Target) -> bool:
        kind = self.kinds.get(target.name)
        add, span, name = self.errors.add, target.span, target.name
        if kind == "state":
            if target.back is None:
                add("E309", span, name=name)
            elif target.back != 0:
                add("E310", span, name=name)
            return True
        if kind is not None and kind != "function":
            add("E308", span, kind=kind, name=name, help="use another name")
            return False
        if target.back is not None:
            if name not in self.spec.poisoned:
                add(
                    "E304",
                    span,
                    kind="temporary",
                    name=name,
                    help=f"declare {name}: state[...], or set {name}",
                )
            return False
        self.temporaries.add(name)
        return True

    def _missing(self) -> None:
        add, poisoned = self.errors.add, self.spec.poisoned
        for state in self.spec.states:
            if state.name not in self.set and state.name not in poisoned:
                add("E311", state.span, name=state.name, help=f"write {state.name}[t] = ...")
        if not self.spec.inputs and not poisoned:
            add("E604", Span(1, 1, 2), help="as in x: input[features]")
        known = self.used | poisoned | self.spec.mentioned
        for d in self.declared.values():
            # `unroll` is the one option that only the schedule reads.
            silent = d.kind == "state" or (d.kind, d.name) == ("option", "unroll")
            if d.name not in known and not silent:
                add("E316", d.span, kind=d.kind, name=d.name)
        self._size_cycles()

    def _size_cycles(self) -> None:
        """Sizes whose defaults lead back to themselves, each reported once."""
        reads = {
            d.name: {n.name for n in walk(d.default) if isinstance(n, Name)}
            for d in self.spec.sizes
            if d.default is not None
        }
        for name in _on_cycles(reads):
            self.errors.add("E420", self.declared[name].span, name=name)

    # ---- what is read ----

    def _declaration(self, d: Declaration) -> None:
        if isinstance(d, ArrayDecl):
            self._layout(d.layout)
            if d.initial is not None:
                self._initial(d.initial)
        elif isinstance(d, SizeDecl) and d.default is not None:
            self._size(d.default)
        elif isinstance(d, FunctionDecl):
            self._function(d)
        elif isinstance(d, OptionDecl) and d.rate is not None:
            self._deciding(d.rate)

    def _deciding(self, rate: Name) -> None:
        """A rate in place of an option's default: that alone is no use of it."""
        if self.kinds.get(rate.name) != "rate" and rate.name not in self.spec.poisoned:
            rates = [n for n, k in self.kinds.items() if k == "rate"]
            self.errors.add("E209", rate.span, help=self.errors.nearest(rate.name, rates))

    def _initial(self, name: Name) -> None:
        if self.kinds.get(name.name) in ("weight", "constant"):
            self.used.add(name.name)
        elif name.name in self.kinds:
            self.errors.add("E212", name.span)
        elif name.name not in self.spec.poisoned:
            known = (n for n, k in self.kinds.items() if k in ("weight", "constant"))
            self.errors.add(
                "E301", name.span, name=name.name, help=self.errors.nearest(name.name, known)
            )

    def _function(self, d: FunctionDecl) -> None:
        if isinstance(d.default, Name):
            if d.default.name not in SIGNATURES:
                self.errors.add(
                    "E302",
                    d.default.span,
                    name=d.default.name,
                    help=self.errors.nearest(d.default.name, SIGNATURES),
                )
            return
        if isinstance(d.default, Bad):
            return
        for node in walk(d.default):
            if isinstance(node, Call) and node.function in ("drop", "zoneout"):
                self.errors.add(
                    "E508", node.span, name=node.function, help="drop where the function is called"
                )
        self._expr(d.default.body, frozenset(d.default.params))

    def _layout(self, layout: Layout) -> None:
        if isinstance(layout, LayoutChoice):
            self._expr(layout.condition, frozenset())
            self._layout(layout.yes)
            self._layout(layout.no)
            return
        for size in layout.sizes:
            self._size(size)

    def _size(self, expr: Expr) -> None:
        for node in walk(expr):
            if isinstance(node, Name):
                kind = self.kinds.get(node.name)
                self.used.add(node.name)
                if kind not in ("size", "option") and node.name not in self.spec.poisoned:
                    known = (n for n, k in self.kinds.items() if k == "size")
                    self.errors.add(
                        "E401",
                        node.span,
                        name=node.name,
                        help=self.errors.nearest(node.name, known) or f"declare {node.name}: size",
                    )

    def _expr(self, expr: Expr | Layout, bound: frozenset[str]) -> None:
        match expr:
            case Name():
                self._name(expr, bound)
            case Timed():
                self._timed(expr, bound)
            case Call():
                self._call(expr, bound)
                return
            case Lambda():
                bound = bound | set(expr.params)
            case Item(value=Name(name=name)) if self.kinds.get(name) in _TIMED:
                kind = self.kinds[name]
                self.errors.add(
                    "E303", expr.value.span, kind=kind, name=name, help=f"write {name}[t]"
                )
                for index in expr.indices:
                    self._expr(index, bound)
                return
        for child in children(expr):
            self._expr(child, bound)

    def _values(self) -> Iterable[str]:
        yield from (n for n, k in self.kinds.items() if k not in ("function", "rate"))
        yield from self.temporaries

    def _name(self, node: Name, bound: frozenset[str]) -> None:
        name = node.name
        if name in bound or name in self.temporaries or name in self.spec.poisoned:
            self.used.add(name)
            return
        self.used.add(name)
        kind = self.kinds.get(name)
        if kind is None:
            hint = self.errors.nearest(name, self._values())
            if name in SIGNATURES:
                self.errors.add("E312", node.span, name=name, help=hint)
            else:
                self.errors.add("E301", node.span, name=name, help=hint)
        elif kind in _TIMED:
            times = f"{name}[t] or {name}[t-1]" if kind == "state" else f"{name}[t]"
            self.errors.add("E303", node.span, kind=kind, name=name, help=f"write {times}")
        elif kind == "function":
            self.errors.add("E312", node.span, name=name, help=f"call it: {name}(...)")
        elif kind == "rate":
            self.errors.add("E313", node.span, name=name, help=f"as in drop(v, {name})")

    def _timed(self, node: Timed, bound: frozenset[str]) -> None:
        name, kind = node.name, self.kinds.get(node.name)
        self.used.add(name)
        if name in self.spec.poisoned:
            return
        if name in bound or (kind is None and name in self.temporaries):
            self.errors.add("E304", node.span, kind="temporary", name=name, help=f"write {name}")
        elif kind is None:
            known = (n for n, k in self.kinds.items() if k in _TIMED)
            self.errors.add("E301", node.span, name=name, help=self.errors.nearest(name, known))
        elif kind not in _TIMED:
            self.errors.add("E304", node.span, kind=kind, name=name, help=f"write {name}")
        elif node.back < 0:
            self.errors.add("E305", node.span, name=name, text=f"t+{-node.back}")

    def _call(self, node: Call, bound: frozenset[str]) -> None:
        signature = self._signature(node)
        if signature is not None:
            self._arguments(node, signature)
        arguments = list(node.args) + [k.value for k in node.keywords]
        rate = None
        if node.function in ("drop", "zoneout"):
            at = 1 if node.function == "drop" else 2
            named = [k.value for k in node.keywords if k.name == "rate"]
            rate = node.args[at] if len(node.args) > at else (named[0] if named else None)
        for value in arguments:
            if value is rate and isinstance(rate, Name):
                self._rate(rate)
            else:
                self._expr(value, bound)

    def _rate(self, node: Name) -> None:
        kind = self.kinds.get(node.name)
        self.used.add(node.name)
        if kind in ("rate", "option") or node.name in self.spec.poisoned:
            return
        known = (n for n, k in self.kinds.items() if k == "rate")
        self.errors.add(
            "E506",
            node.span,
            help=self.errors.nearest(node.name, known) or f"declare {node.name}: rate = 0",
        )

    def _signature(self, node: Call) -> Signature | None:
        name = node.function
        self.used.add(name)
        declared = self.declared.get(name)
        if isinstance(declared, FunctionDecl):
            if isinstance(declared.default, Lambda):
                return Signature(declared.default.params)
            if isinstance(declared.default, Name):
                return SIGNATURES.get(declared.default.name)
            return None
        if name in SIGNATURES:
            return SIGNATURES[name]
        if name in self.spec.poisoned:
            return None
        kind = self.kinds.get(name) or ("temporary" if name in self.temporaries else None)
        if kind is not None:
            self.errors.add(
                "E314", node.function_span, name=name, kind=an(kind), help="multiply with *"
            )
        else:
            functions = (n for n, k in self.kinds.items() if k == "function")
            known = itertools.chain(SIGNATURES, functions)
            self.errors.add(
                "E302", node.function_span, name=name, help=self.errors.nearest(name, known)
            )
        return None

    def _arguments(self, node: Call, signature: Signature) -> None:
        allowed = [*signature.required, *signature.optional]
        fields = {"name": node.function, "signature": str(signature)}
        for keyword in node.keywords:
            if keyword.name not in allowed:
                self.errors.add(
                    "E502",
                    keyword.span,
                    keyword=keyword.name,
                    **fields,
                    help=self.errors.nearest(keyword.name, allowed),
                )
        if node.function in ("max", "min") and len(node.args) == 2:
            better = f"{node.function}imum(a, b)"
            self.errors.add(
                "E503",
                node.span,
                name=node.function,
                help=f"{better} is the larger of two"
                if node.function == "max"
                else f"{better} is the smaller of two",
            )
            return
        named = {k.name for k in node.keywords}
        taken = set(allowed[: len(node.args)]) if not signature.variadic else set()
        needed = set(signature.required) - taken - named
        if signature.variadic:
            wrong = len(node.args) < len(signature.required) + 1
        else:
            wrong = bool(needed) or len(node.args) > len(allowed) or bool(taken & named)
        if wrong:
            self.errors.add("E501", node.span, count=len(node.args) + len(named), **fields)
