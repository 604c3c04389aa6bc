"""Every cause of a diagnostic: its code, its message and a text that shows it.

To add a diagnostic, add a row. `tests/frontend/test_diagnostics.py` runs each example and expects
the caret exactly where the markers « and » stand. An example without a `cell:` line is put into
`FRAME`, in place of `{}`.

Non-Goals: rendering.
"""

from __future__ import annotations

from dataclasses import dataclass

from rnncc.common.unrolling import MOST_STEPS
from rnncc.frontend.limits import LEVELS, LINE_CHARACTERS, RANK, STATES, STEPS

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
        has_return = "return h[t]" in self.example
        return self.example if has_return or "cell:" in self.example else FRAME.format(self.example)


# fmt: off
_ROWS = (
    # ---- reading ----
    Cause("E001", "{path} can't be read: {reason}"),
    Cause("E002", "{path} is a directory"),
    Cause("E003", "{path} is not a .rnn file"),
    Cause("E004", "not UTF-8 text"),
    Cause("E005", "the file is empty"),
    # ---- syntax ----
    Cause("E101", "{reason}", "z = tanh(x[t]) «tanh»"),
    Cause("E102", "a line must start in the first column", "«    »z = 1"),
    Cause("E103", "{what} is not part of the language", "«for» i in units:\n    z = 1"),
    Cause("E104", "'{bracket}' is never closed", "z = tanh«(»x[t] @ W"),
    Cause("E105", "{character} is not ASCII", "z = 2 «×» 3"),
    Cause("E106", "an equation sets names once: a = b = x", "«a = b = tanh(x[t])»"),
    Cause("E107", "an equation can't update in place: {op}", "«z += 1»"),
    Cause("E108", "one equation a line", "a = 1; «b = 2»"),
    Cause("E109", "comparisons can't be chained", "z = where(«0 < x[t] < 1», 1, 0)"),
    Cause("E110", "{what} is not part of the language", "z = tanh(«y := 1»)"),
    Cause("E111", "{text} is not a finite number", "z = «1e400» * x[t]"),
    Cause("E112", "the operator {op} is not part of the language", "z = «x[t] ^ 2»"),
    Cause("E113", "{text} is not a value of the language", "z = tanh(«None»)"),
    Cause("E114", "this line sets nothing", "«tanh(x[t])»"),
    Cause("E115", "{text} can't be set", "«h[t][0]» = 3"),
    Cause("E116", "names don't start with an underscore: {name}", "«_z» = 3"),
    Cause("E117", "t is the time: it stands only in an index, as in x[t]", "z = x[t] * «t»"),
    Cause("E118", f"nested too deeply: more than {LEVELS} levels", "«z» = " + "-" * 5000 + "1"),
    Cause("E119", "{n} {what}, at most {most}",
          "«z» = x[t]" + f"{'+ 1':>{LINE_CHARACTERS}}"),
    # ---- declarations ----
    Cause("E201", "no kind of declaration is called {kind}", "V: «wieght»[units]"),
    Cause("E202", "the cell has no name",
          "«f»eatures: size\nx: input[features]\nh: state[features]\nh[t] = h[t-1] + x[t]\n"
          "return h[t]\n"),
    Cause("E203", "the cell is named twice",
          "cell: Example\nfeatures: size\nx: input[features]\nh: state[features]\n«cell: Another»\n"
          "h[t] = h[t-1] + x[t]\nreturn h[t]\n"),
    Cause("E204", "{name} is declared twice", "«W»: weight[units]"),
    Cause("E205", "{name} is a keyword of every layer", "«mask»: input[features]"),
    Cause("E206", "{kind} takes no shape", "act: «function[units]» = tanh\nz = act(1)"),
    Cause("E207", "{kind} takes no value", "y: input[features] = «zeros»\nz = y[t]"),
    Cause("E208", "{kind} {name} needs a value", "«deep»: option\nz = 1 if deep else 0"),
    Cause("E209", "an option is a bool, an int, a float, a text or whether there is a rate",
          "deep: option = «units»\nz = 1 if deep else 0"),
    Cause("E210", "a rate is a number in [0, 1), not {text}", "r: rate = «1.5»\nz = drop(x[t], r)"),
    Cause("E211", "no initializer is called {name}",
          "V: weight[units] = «glorot_unifrom»\nc: state[units]\nc[t] = V * c[t-1]"),
    Cause("E212", "the initial value of a state is a weight or a constant",
          "c: state[units] = «0»\nc[t] = c[t-1]"),
    Cause("E213", "a function is a name or a lambda", "act: function = «1 + 2»\nz = act(x[t])"),
    Cause("E214", "an argument of an initializer is a literal",
          "V: weight[units] = constant(«units»)\nc: state[units]\nc[t] = V * c[t-1]"),
    Cause("E215", "a choice of declarations must be of one kind: {yes} and {no}",
          "deep: option = True\nV: «weight[units] if deep else state[units]»\n"
          "z = 1 if deep else 0"),
    Cause("E216", "the cell's name is a plain name",
          "cell: «Example[3]»\nfeatures: size\nx: input[features]\nh: state[features]\n"
          "h[t] = h[t-1] + x[t]\nreturn h[t]\n"),
    Cause("E217", "a declaration is written name: kind", "V: «3»"),
    Cause("E218", "{name} is a word of Python: no name", "«lambda»: weight[units]"),
    Cause("E219", f"unroll is True, False or 1 to {MOST_STEPS} steps",
          "unroll: option = «'all'»"),
    # ---- names and time ----
    Cause("E301", "no value is called {name}", "z = «unit» + 1"),
    Cause("E302", "no function is called {name}", "z = «tanth»(x[t])"),
    Cause("E303", "{kind} {name} needs a time", "z = tanh(«h»)"),
    Cause("E304", "{kind} {name} has no time", "z = x[t] @ «W[t]»"),
    Cause("E305", "{name} is not known yet at {text}", "z = «x[t+1]» * 2"),
    Cause("E306", "a time is t or t-k, k a positive whole number", "z = x[«2 * t»]"),
    Cause("E307", "{name} is set twice", "z = 1\n«z» = 2"),
    Cause("E308", "{kind} {name} can't be set", "«W» = 3"),
    Cause("E309", "state {name} is set as {name}[t]", "c: state[units]\n«c» = tanh(c[t-1])"),
    Cause("E310", "only {name}[t] can be set", "c: state[units]\n«c[t-1]» = tanh(c[t-2])"),
    Cause("E311", "state {name} has no equation", "«c»: state[units]\nz = tanh(c[t-1])"),
    Cause("E312", "{name} is a function, not a value", "z = x[t] * «tanh»"),
    Cause("E313", "rate {name} stands only in drop and zoneout", "r: rate = 0\nz = x[t] * «r»"),
    Cause("E314", "{name} is {kind}, not a function", "z = «W»(x[t])"),
    Cause("E315", "a cycle within one step: {chain}", "«a» = b + 1\nb = a * 2"),
    Cause("E316", "{kind} {name} is never used", "«V»: weight[units]"),
    Cause("E317", "{k} steps back are more than {most}", "z = tanh(x[«t - 1001»])"),
    # ---- sizes and shapes ----
    Cause("E401", "no size is called {name}", "V: weight[«unit»]\nz = V * 2"),
    Cause("E402", "not a size", "V: weight[«units / 2»]\nz = V * 2"),
    Cause("E403", "a size is at least 1, not {text}", "V: weight[«0»]\nz = V * 2"),
    Cause("E404", "matmul inner sizes differ: {left} and {right}", "z = «x[t] @ U»"),
    Cause("E405", "shapes don't match: {left} and {right}", "z = «x[t] + h[t-1]»"),
    Cause("E406", "@ takes vectors and matrices, not {shape}", "z = «2» @ W"),
    Cause("E407", "state {name} is {state}, its equation gives {shape}",
          "c: state[units]\n«c[t]» = x[t] * 2"),
    Cause("E408", "{shape} has no element {index}", "V: weight[3]\nz = V[«7»] * 2"),
    Cause("E409", "an index is a whole number", "z = W[«1.5»]"),
    Cause("E410", "{function} of {shape} needs axis=", "z = «sum(W)»"),
    Cause("E411", "{shape} has no axis {axis}", "z = «sum(W, axis=2)»"),
    Cause("E412", "{size} can't be split into {n}",
          "V: weight[7]\nc: state[7]\nc[t] = V * c[t-1]\na, b = «split(V, 2)»"),
    Cause("E413", "{count} names for {given}", "«a, b, c = split(x[t] @ W, 2)»"),
    Cause("E414", "{left} has {left_count} elements, {right} has {right_count}",
          "z = «reshape(W, (units, units))»"),
    Cause("E415", "einsum: {reason}", 'z = «einsum("ij,j->i", x[t], W)»'),
    Cause("E416", "several values where one is needed", "z = tanh(«split(x[t], 2)»)"),
    Cause("E417", "concat: {left} and {right} differ in another axis than {axis}",
          "z = «concat(W, U, axis=1)»"),
    Cause("E418", "state {name} is {state}, its initial value {initial} is {shape}",
          "h0: weight[features]\nc: state[units] = «h0»\nc[t] = c[t-1]"),
    Cause("E419", "axes {axes} don't order the axes of {shape}", "z = «transpose(W, axes=(0, 0))»"),
    Cause("E420", "size {name} is defined by itself", "«a»: size = a + 1\nz = a * 2"),
    Cause("E421", "{n} parts are more than {most}", "z = «split(x[t], 1001)»[0]"),
    Cause("E422", "a size {reason}", "z = «9007199254740992 * units * 2»"),
    Cause("E423", "{n} axes are more than {most}",
          "n: size = 3\nV: «weight[" + "n, " * RANK + "n]»\nz = V * 2"),
    Cause("E424", "{n} states, those of earlier steps with them, are more than {most}",
          f"z = sum(x[t - {STEPS}]) + «h[t - {STATES - STEPS + 1}]»"),
    # ---- options, functions, rates, what is returned ----
    Cause("E425", "{shape} has no part [{part}]", "V: weight[3]\nz = V[«1:5»] * x[t][0]"),
    Cause("E426", "a step is a whole number, not 0", "z = x[t][::«0»]"),
    Cause("E501", "{name}{signature} is given {count} arguments", "z = «tanh(x[t], 2)»"),
    Cause("E502", "{name}{signature} has no argument {keyword}", "z = softmax(x[t], «axes=0»)"),
    Cause("E503", "{name} reduces one value", "z = «max(x[t], 0)»"),
    Cause("E504", "a choice is made by options, before anything runs",
          "z = 1 if «x[t] > 0» else 2"),
    Cause("E505", "the condition of where is a comparison, not a number",
          "z = «where(x[t], 1, 2)»"),
    Cause("E506", "not a rate", "z = drop(x[t], «units»)"),
    Cause("E507", 'per is "step" or "sequence"', 'z = «drop(x[t], 0.5, per="row")»'),
    Cause("E508", "{name} can't stand in a function",
          "act: function = lambda v: «drop(v, 0.5)»\nz = act(x[t])"),
    Cause("E509", "function {name} calls itself",
          "act: function = lambda v: «act(v)» + 1\nz = act(x[t])"),
    Cause("E510", "{what} must be known before anything runs", "z = «split(x[t], units)»"),
    Cause("E511", "a text is not a value", 'z = x[t] + «"one"»'),
    Cause("E512", "{reason}", "z = x[t] * («1 / 0»)"),
    Cause("E513", 'a weight is dropped once a call: per="step" is not possible',
          'z = «drop(W, 0.5, per="step")»'),
    Cause("E514", "written out, this is more than {most} expressions and values",
          "\n".join(["f0: function = lambda v: -v",
                     *(f"f{i}: function = lambda v: f{i - 1}(f{i - 1}(v))" for i in range(1, 20)),
                     "z = «f19(x[t])»"])),
    Cause("E515", "surrogate: {reason}", "z = «surrogate(x[t] + W[:, 0], W[:, 0] * x[t])»"),
    Cause("E601", "nothing is returned",
          "cell: Example\nfeatures: size\nx: input[features]\nh: state[features]\n"
          "«h[t] = h[t-1] + x[t]»\n"),
    Cause("E602", "returned twice",
          "cell: Example\nfeatures: size\nx: input[features]\nh: state[features]\n"
          "h[t] = h[t-1] + x[t]\nreturn h[t]\n«return x[t]»\n"),
    Cause("E603", "return is the last line",
          "cell: Example\nfeatures: size\nx: input[features]\nh: state[features]\nreturn h[t]\n"
          "«h[t] = h[t-1] + x[t]»\n"),
    Cause("E604", "the cell has no input",
          "«c»ell: Example\nunits: size\nh: state[units]\nh[t] = h[t-1] + 1\nreturn h[t]\n"),
)
# fmt: on

CAUSES: dict[str, Cause] = {row.code: row for row in _ROWS}
