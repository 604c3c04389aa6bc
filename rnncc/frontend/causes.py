"""Every cause of a diagnostic: its code, its message and a text that shows it.

To add a diagnostic, add a row. `tests/test_diagnostics.py` runs each example and expects the
caret exactly where the markers « and » stand. An example without a `cell:` line is put into
`FRAME`, in place of `{}`.

Non-Goals: rendering.
"""

from __future__ import annotations

from dataclasses import dataclass

FRAME = """\
cell: Example
features: size
units: size
x: input[features]
h: state[units]
W: weight[features, units]
U: weight[units, units]
{}
h[t] = tanh(x[t] @ W + h[t-1] @ U)
return h[t]
"""


@dataclass(frozen=True, slots=True)
class Cause:
    code: str
    message: str
    example: str = ""

    def marked(self) -> str:
        """The whole text of the example, markers included."""
        return self.example if "cell:" in self.example else FRAME.format(self.example)


_ROWS = (
    # ---- reading ----
    Cause("E001", "{path} can't be read: {reason}"),
    Cause("E002", "{path} is a directory"),
    Cause("E003", "{path} is not a .rnn file"),
    Cause("E004", "not UTF-8 text"),
    Cause("E005", "the file is empty"),
    # ---- syntax ----
    Cause("E101", "{reason}"),
    Cause("E102", "a line must start in the first column"),
    Cause("E103", "{what} is not part of the language"),
    Cause("E104", "'{bracket}' is never closed"),
    Cause("E105", "{character} is not ASCII"),
    Cause("E106", "an equation sets names once: a = b = x"),
    Cause("E107", "an equation can't update in place: {op}"),
    Cause("E108", "one equation a line"),
    Cause("E109", "comparisons can't be chained"),
    Cause("E110", "{what} is not part of the language"),
    Cause("E111", "{text} is not a finite number"),
    Cause("E112", "the operator {op} is not part of the language"),
    Cause("E113", "{text} is not a value of the language"),
    Cause("E114", "this line sets nothing"),
    Cause("E115", "{text} can't be set"),
    Cause("E116", "names don't start with an underscore: {name}"),
    Cause("E117", "t is the time: it stands only in an index, as in x[t]"),
    Cause("E118", "nested too deeply"),
    # ---- declarations ----
    Cause("E201", "no kind of declaration is called {kind}"),
    Cause("E202", "the cell has no name"),
    Cause("E203", "the cell is named twice"),
    Cause("E204", "{name} is declared twice"),
    Cause("E205", "{name} is a keyword of every layer"),
    Cause("E206", "{kind} takes no shape"),
    Cause("E207", "{kind} takes no value"),
    Cause("E208", "{kind} {name} needs a value"),
    Cause("E209", "an option is a bool, an int, a float or a text"),
    Cause("E210", "a rate is a number in [0, 1), not {text}"),
    Cause("E211", "no initializer is called {name}"),
    Cause("E212", "the initial value of a state is a weight or a constant"),
    Cause("E213", "a function is a name or a lambda"),
    Cause("E214", "an argument of an initializer is a literal"),
    Cause("E215", "a choice of declarations must be of one kind: {yes} and {no}"),
    Cause("E216", "the cell's name is a plain name"),
    Cause("E217", "a declaration is written name: kind"),
    # ---- names and time ----
    Cause("E301", "no value is called {name}"),
    Cause("E302", "no function is called {name}"),
    Cause("E303", "{kind} {name} needs a time"),
    Cause("E304", "{kind} {name} has no time"),
    Cause("E305", "{name} is not known yet at {text}"),
    Cause("E306", "a time is t or t-k, k a positive whole number"),
    Cause("E307", "{name} is set twice"),
    Cause("E308", "{kind} {name} can't be set"),
    Cause("E309", "state {name} is set as {name}[t]"),
    Cause("E310", "only {name}[t] can be set"),
    Cause("E311", "state {name} has no equation"),
    Cause("E312", "{name} is a function, not a value"),
    Cause("E313", "rate {name} stands only in drop and zoneout"),
    Cause("E314", "{name} is {kind}, not a function"),
    Cause("E315", "a cycle within one step: {chain}"),
    Cause("E316", "{kind} {name} is never used"),
    Cause("E317", "{name} is both declared and set"),
    # ---- sizes and shapes ----
    Cause("E401", "no size is called {name}"),
    Cause("E402", "not a size"),
    Cause("E403", "a size is at least 1, not {text}"),
    Cause("E404", "matmul inner sizes differ: {left} and {right}"),
    Cause("E405", "shapes don't match: {left} and {right}"),
    Cause("E406", "@ takes vectors and matrices, not {shape}"),
    Cause("E407", "state {name} is {state}, its equation gives {shape}"),
    Cause("E408", "{shape} has no element {index}"),
    Cause("E409", "an index is a whole number"),
    Cause("E410", "{function} of {shape} needs axis="),
    Cause("E411", "{shape} has no axis {axis}"),
    Cause("E412", "{size} can't be split into {n}"),
    Cause("E413", "{count} names for {given}"),
    Cause("E414", "{left} has {left_count} elements, {right} has {right_count}"),
    Cause("E415", "einsum: {reason}"),
    Cause("E416", "several values where one is needed"),
    Cause("E417", "concat: {left} and {right} differ in another axis than {axis}"),
    Cause("E418", "state {name} is {state}, its initial value {initial} is {shape}"),
    Cause("E419", "axes {axes} don't order the axes of {shape}"),
    Cause("E420", "size {name} is defined by itself"),
    # ---- options, functions, rates, what is returned ----
    Cause("E501", "{name}{signature} is given {count} arguments"),
    Cause("E502", "{name}{signature} has no argument {keyword}"),
    Cause("E503", "{name} reduces one value"),
    Cause("E504", "a choice is made by options, before anything runs"),
    Cause("E505", "the condition of where is a comparison, not a number"),
    Cause("E506", "not a rate"),
    Cause("E507", 'per is "step" or "sequence"'),
    Cause("E508", "{name} can't stand in a function"),
    Cause("E509", "function {name} calls itself"),
    Cause("E510", "{what} must be known before anything runs"),
    Cause("E511", "a text is not a value"),
    Cause("E512", "{reason}"),
    Cause("E513", 'a weight is dropped once a call: per="step" is not possible'),
    Cause("E601", "nothing is returned"),
    Cause("E602", "returned twice"),
    Cause("E603", "return is the last line"),
    Cause("E604", "the cell has no input"),
)

CAUSES: dict[str, Cause] = {row.code: row for row in _ROWS}
