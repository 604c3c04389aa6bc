"""Every cause of a diagnostic: its code, its message and a text that shows it.

To add a diagnostic, add a row, with what mends it. `tests/frontend/test_diagnostics.py` runs each
example and expects the caret exactly where the markers « and » stand. An example without a `cell:`
line is put into `FRAME`, in place of `{}`.

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
    mend: str = ""  # what to do about it, in general; a diagnostic's own help knows the case

    def marked(self) -> str:
        """The whole text of the example, markers included."""
        has_return = "return h[t]" in self.example
        return self.example if has_return or "cell:" in self.example else FRAME.format(self.example)


# fmt: off
_ROWS = (
    # ---- reading ----
    Cause("E001", "{path} can't be read: {reason}",
          mend="Check the path and who may read it."),
    Cause("E002", "{path} is a directory",
          mend="Name the file in it."),
    Cause("E003", "{path} is not a .rnn file",
          mend="Name the text that ends in .rnn; a weight file or a module isn't one."),
    Cause("E004", "not UTF-8 text",
          mend="Save the file as UTF-8."),
    Cause("E005", "the file is empty",
          mend="Write the cell into it: declarations, equations, return."),
    # ---- syntax ----
    Cause("E101", "{reason}", "z = tanh(x[t]) «tanh»",
          mend="Mend what Python's parser points at."),
    Cause("E102", "a line must start in the first column", "«    »z = 1",
          mend="Take the spaces before the line away, or put a long expression in brackets."),
    Cause("E103", "{what} is not part of the language", "«for» i in units:\n    z = 1",
          mend="Equations say what is, not what to do: use where(), options and functions."),
    Cause("E104", "'{bracket}' is never closed", "z = tanh«(»x[t] @ W",
          mend="Close the bracket, or take it away."),
    Cause("E105", "{character} is not ASCII", "z = 2 «×» 3",
          mend="Write it in ASCII: * for a cross, - for a long dash, alpha for its letter."),
    Cause("E106", "an equation sets names once: a = b = x", "«a = b = tanh(x[t])»",
          mend="Give each name an equation of its own."),
    Cause("E107", "an equation can't update in place: {op}", "«z += 1»",
          mend="Give the new value a new name: y = z + 1."),
    Cause("E108", "one equation a line", "a = 1; «b = 2»",
          mend="Put each equation on a line of its own."),
    Cause("E109", "comparisons can't be chained", "z = where(«0 < x[t] < 1», 1, 0)",
          mend="Join two comparisons: (0 < x[t]) and (x[t] < 1)."),
    Cause("E110", "{what} is not part of the language", "z = tanh(«y := 1»)",
          mend="Write it with functions of the language, or as an equation of its own."),
    Cause("E111", "{text} is not a finite number", "z = «1e400» * x[t]",
          mend="Write a number that float64 holds."),
    Cause("E112", "the operator {op} is not part of the language", "z = «x[t] ^ 2»",
          mend="Use + - * / ** % // @, comparisons, and, or, not."),
    Cause("E113", "{text} is not a value of the language", "z = tanh(«None»)",
          mend="Use numbers, names, and texts where a function takes one."),
    Cause("E114", "this line sets nothing", "«tanh(x[t])»",
          mend="Give the value a name, or take the line away."),
    Cause("E115", "{text} can't be set", "«h[t][0]» = 3",
          mend="Set a name, or state[t] as a whole; put parts together with concat or stack."),
    Cause("E116", "names don't start with an underscore: {name}", "«_z» = 3",
          mend="Take the underscore away: such names are rnncc's own."),
    Cause("E117", "t is the time: it stands only in an index, as in x[t]", "z = x[t] * «t»",
          mend="Count steps in a state of your own: n[t] = n[t-1] + 1."),
    Cause("E118", f"nested too deeply: more than {LEVELS} levels", "«z» = " + "-" * 5000 + "1",
          mend="Give parts of the expression names."),
    Cause("E119", "{n} {what}, at most {most}",
          "«z» = x[t]" + f"{'+ 1':>{LINE_CHARACTERS}}",
          mend="Give parts of it names, or take apart what was written out."),
    # ---- declarations ----
    Cause("E201", "no kind of declaration is called {kind}", "V: «wieght»[units]",
          mend="Use size, input, context, state, weight, constant, function, option or rate."),
    Cause("E202", "the cell has no name",
          "«f»eatures: size\nx: input[features]\nh: state[features]\nh[t] = h[t-1] + x[t]\n"
          "return h[t]\n",
          mend="Begin with a line `cell: Name`."),
    Cause("E203", "the cell is named twice",
          "cell: Example\nfeatures: size\nx: input[features]\nh: state[features]\n«cell: Another»\n"
          "h[t] = h[t-1] + x[t]\nreturn h[t]\n",
          mend="Leave one `cell:` line, and put the other cell into another file."),
    Cause("E204", "{name} is declared twice", "«W»: weight[units]",
          mend="Take one declaration away, or rename one."),
    Cause("E205", "{name} is a keyword of every layer", "«mask»: input[features]",
          mend="Choose another name: every layer has this keyword already."),
    Cause("E206", "{kind} takes no shape", "act: «function[units]» = tanh\nz = act(1)",
          mend="Take the brackets away."),
    Cause("E207", "{kind} takes no value", "y: input[features] = «zeros»\nz = y[t]",
          mend="Take what follows = away."),
    Cause("E208", "{kind} {name} needs a value", "«deep»: option\nz = 1 if deep else 0",
          mend="Say its default: deep: option = True."),
    Cause("E209", "an option is a bool, an int, a float, a text or whether there is a rate",
          "deep: option = «units»\nz = 1 if deep else 0",
          mend="Write True, a number, a text, or the name of a rate."),
    Cause("E210", "a rate is a number in [0, 1), not {text}", "r: rate = «1.5»\nz = drop(x[t], r)",
          mend="Write a share: 0 keeps all, 0.5 a half."),
    Cause("E211", "no initializer is called {name}",
          "V: weight[units] = «glorot_unifrom»\nc: state[units]\nc[t] = V * c[t-1]",
          mend="Use an initializer of the language's list."),
    Cause("E212", "the initial value of a state is a weight or a constant",
          "c: state[units] = «0»\nc[t] = c[t-1]",
          mend="Declare a weight or constant, and name it: h: state[units] = h0."),
    Cause("E213", "a function is a name or a lambda", "act: function = «1 + 2»\nz = act(x[t])",
          mend="Name a function, or write lambda v: ..."),
    Cause("E214", "an argument of an initializer is a literal",
          "V: weight[units] = constant(«units»)\nc: state[units]\nc[t] = V * c[t-1]",
          mend="Write a number, a text or True."),
    Cause("E215", "a choice of declarations must be of one kind: {yes} and {no}",
          "deep: option = True\nV: «weight[units] if deep else state[units]»\n"
          "z = 1 if deep else 0",
          mend="Let both sides of the choice be the same kind, of two shapes."),
    Cause("E216", "the cell's name is a plain name",
          "cell: «Example[3]»\nfeatures: size\nx: input[features]\nh: state[features]\n"
          "h[t] = h[t-1] + x[t]\nreturn h[t]\n",
          mend="Write a name as Python's classes have: cell: Example."),
    Cause("E217", "a declaration is written name: kind", "V: «3»",
          mend="Say what it is: V: weight[units]."),
    Cause("E218", "{name} is a word of Python: no name", "«lambda»: weight[units]",
          mend="Choose another name."),
    Cause("E219", f"unroll is True, False or 1 to {MOST_STEPS} steps",
          "unroll: option = «'all'»",
          mend="Write True, False or a number of steps."),
    # ---- names and time ----
    Cause("E301", "no value is called {name}", "z = «unit» + 1",
          mend="Correct the name, or declare or set it."),
    Cause("E302", "no function is called {name}", "z = «tanth»(x[t])",
          mend="Correct the name, or declare it: act: function = tanh."),
    Cause("E303", "{kind} {name} needs a time", "z = tanh(«h»)",
          mend="Say which step is meant: h[t-1], x[t]."),
    Cause("E304", "{kind} {name} has no time", "z = x[t] @ «W[t]»",
          mend="Take the [t] away: it is the same at every step, or belongs to this one."),
    Cause("E305", "{name} is not known yet at {text}", "z = «x[t+1]» * 2",
          mend="Use what is known by then: x[t], h[t-1]; or run it backwards."),
    Cause("E306", "a time is t or t-k, k a positive whole number", "z = x[«2 * t»]",
          mend="Write t or t - 1, t - 2, ..."),
    Cause("E307", "{name} is set twice", "z = 1\n«z» = 2",
          mend="Rename one of the two."),
    Cause("E308", "{kind} {name} can't be set", "«W» = 3",
          mend="Set another name: what is declared so comes from outside."),
    Cause("E309", "state {name} is set as {name}[t]", "c: state[units]\n«c» = tanh(c[t-1])",
          mend="Say the step: c[t] = ..."),
    Cause("E310", "only {name}[t] can be set", "c: state[units]\n«c[t-1]» = tanh(c[t-2])",
          mend="Set c[t]; what was before stays as it was."),
    Cause("E311", "state {name} has no equation", "«c»: state[units]\nz = tanh(c[t-1])",
          mend="Set it: c[t] = ..., or take the declaration away."),
    Cause("E312", "{name} is a function, not a value", "z = x[t] * «tanh»",
          mend="Call it: tanh(x[t])."),
    Cause("E313", "rate {name} stands only in drop and zoneout", "r: rate = 0\nz = x[t] * «r»",
          mend="Use it in drop(v, r) or zoneout(new, old, r); for equations there are options."),
    Cause("E314", "{name} is {kind}, not a function", "z = «W»(x[t])",
          mend="Declare a function by that name, or write * where a product is meant."),
    Cause("E315", "a cycle within one step: {chain}", "«a» = b + 1\nb = a * 2",
          mend="Let one of them read the step before: b[t-1]."),
    Cause("E316", "{kind} {name} is never used", "«V»: weight[units]",
          mend="Use it, or take the declaration away."),
    Cause("E317", "{k} steps back are more than {most}", "z = tanh(x[«t - 1001»])",
          mend="Keep what you need of so long ago in a state."),
    # ---- sizes and shapes ----
    Cause("E401", "no size is called {name}", "V: weight[«unit»]\nz = V * 2",
          mend="Declare it: unit: size, or correct the name."),
    Cause("E402", "not a size", "V: weight[«units / 2»]\nz = V * 2",
          mend="Use whole numbers, sizes and + - * //."),
    Cause("E403", "a size is at least 1, not {text}", "V: weight[«0»]\nz = V * 2",
          mend="Write a number of at least 1."),
    Cause("E404", "matmul inner sizes differ: {left} and {right}", "z = «x[t] @ U»",
          mend="Make the last axis of the left as long as the first but one of the right."),
    Cause("E405", "shapes don't match: {left} and {right}", "z = «x[t] + h[t-1]»",
          mend="Make shapes alike, or bring one to the other's by @, reshape or broadcast."),
    Cause("E406", "@ takes vectors and matrices, not {shape}", "z = «2» @ W",
          mend="Use * for numbers, and einsum for more than two axes."),
    Cause("E407", "state {name} is {state}, its equation gives {shape}",
          "c: state[units]\n«c[t]» = x[t] * 2",
          mend="Declare the state in the shape of its equation, or bring that to the state's."),
    Cause("E408", "{shape} has no element {index}", "V: weight[3]\nz = V[«7»] * 2",
          mend="Use an index from 0 to one less than the length, or from the end, -1."),
    Cause("E409", "an index is a whole number", "z = W[«1.5»]",
          mend="Write a whole number; gates are taken apart by split."),
    Cause("E410", "{function} of {shape} needs axis=", "z = «sum(W)»",
          mend="Say over which axis: axis=0 or axis=-1."),
    Cause("E411", "{shape} has no axis {axis}", "z = «sum(W, axis=2)»",
          mend="Use an axis that the value has."),
    Cause("E412", "{size} can't be split into {n}",
          "V: weight[7]\nc: state[7]\nc[t] = V * c[t-1]\na, b = «split(V, 2)»",
          mend="Make the length a multiple: V: weight[2 * units]."),
    Cause("E413", "{count} names for {given}", "«a, b, c = split(x[t] @ W, 2)»",
          mend="Write as many names as there are parts."),
    Cause("E414", "{left} has {left_count} elements, {right} has {right_count}",
          "z = «reshape(W, (units, units))»",
          mend="Reshape to as many elements."),
    Cause("E415", "einsum: {reason}", 'z = «einsum("ij,j->i", x[t], W)»',
          mend="Write the subscripts as NumPy has them, a letter for each axis."),
    Cause("E416", "several values where one is needed", "z = tanh(«split(x[t], 2)»)",
          mend="Give the parts names first: a, b = split(z, 2)."),
    Cause("E417", "concat: {left} and {right} differ in another axis than {axis}",
          "z = «concat(W, U, axis=1)»",
          mend="Join along the axis in which they differ."),
    Cause("E418", "state {name} is {state}, its initial value {initial} is {shape}",
          "h0: weight[features]\nc: state[units] = «h0»\nc[t] = c[t-1]",
          mend="Declare the initial value in the state's shape."),
    Cause("E419", "axes {axes} don't order the axes of {shape}", "z = «transpose(W, axes=(0, 0))»",
          mend="Name each axis once."),
    Cause("E420", "size {name} is defined by itself", "«a»: size = a + 1\nz = a * 2",
          mend="Let it come from other sizes, or be given: a: size."),
    Cause("E421", "{n} parts are more than {most}", "z = «split(x[t], 1001)»[0]",
          mend="Use fewer parts, or reshape to a matrix."),
    Cause("E422", "a size {reason}", "z = «9007199254740992 * units * 2»",
          mend="Use smaller numbers: sizes are counted up to 2**53."),
    Cause("E423", "{n} axes are more than {most}",
          "n: size = 3\nV: «weight[" + "n, " * RANK + "n]»\nz = V * 2",
          mend="Use fewer axes."),
    Cause("E424", "{n} states, those of earlier steps with them, are more than {most}",
          f"z = sum(x[t - {STEPS}]) + «h[t - {STATES - STEPS + 1}]»",
          mend="Use fewer states, or read less far back."),
    # ---- options, functions, rates, what is returned ----
    Cause("E425", "{shape} has no part [{part}]", "V: weight[3]\nz = V[«1:5»] * x[t][0]",
          mend="Keep the part within the axis."),
    Cause("E426", "a step is a whole number, not 0", "z = x[t][::«0»]",
          mend="Write ::2 for every other element, ::-1 for the other order."),
    Cause("E501", "{name}{signature} is given {count} arguments", "z = «tanh(x[t], 2)»",
          mend="Give it as many as its signature says."),
    Cause("E502", "{name}{signature} has no argument {keyword}", "z = softmax(x[t], «axes=0»)",
          mend="Use a keyword of its signature."),
    Cause("E503", "{name} reduces one value", "z = «max(x[t], 0)»",
          mend="Use maximum(a, b) for the larger of two, axis= for the axis."),
    Cause("E504", "a choice is made by options, before anything runs",
          "z = 1 if «x[t] > 0» else 2",
          mend="Use where(condition, a, b) for values, an option for what is decided beforehand."),
    Cause("E505", "the condition of where is a comparison, not a number",
          "z = «where(x[t], 1, 2)»",
          mend="Compare: where(x[t] > 0, 1, 2)."),
    Cause("E506", "not a rate", "z = drop(x[t], «units»)",
          mend="Name a declared rate, or write a number in [0, 1)."),
    Cause("E507", 'per is "step" or "sequence"', 'z = «drop(x[t], 0.5, per="row")»',
          mend='Write per="step" or per="sequence".'),
    Cause("E508", "{name} can't stand in a function",
          "act: function = lambda v: «drop(v, 0.5)»\nz = act(x[t])",
          mend="Draw in an equation, and hand the result to the function."),
    Cause("E509", "function {name} calls itself",
          "act: function = lambda v: «act(v)» + 1\nz = act(x[t])",
          mend="Write the function without itself."),
    Cause("E510", "{what} must be known before anything runs", "z = «split(x[t], units)»",
          mend="Use a number or an option."),
    Cause("E511", "a text is not a value", 'z = x[t] + «"one"»',
          mend="Use a number; an option may be compared with a text."),
    Cause("E512", "{reason}", "z = x[t] * («1 / 0»)",
          mend="Mend the number: it is computed when the cell is read."),
    Cause("E513", 'a weight is dropped once a call: per="step" is not possible',
          'z = «drop(W, 0.5, per="step")»',
          mend="Leave per= away: a weight is the same at every step."),
    Cause("E514", "written out, this is more than {most} expressions and values",
          "\n".join(["f0: function = lambda v: -v",
                     *(f"f{i}: function = lambda v: f{i - 1}(f{i - 1}(v))" for i in range(1, 20)),
                     "z = «f19(x[t])»"]),
          mend="Call functions within functions less often, or write an equation for each."),
    Cause("E515", "surrogate: {reason}", "z = «surrogate(x[t] + W[:, 0], W[:, 0] * x[t])»",
          mend="Let both arguments read the same one value, or say which: of=v."),
    Cause("E601", "nothing is returned",
          "cell: Example\nfeatures: size\nx: input[features]\nh: state[features]\n"
          "«h[t] = h[t-1] + x[t]»\n",
          mend="End with return: return h[t]."),
    Cause("E602", "returned twice",
          "cell: Example\nfeatures: size\nx: input[features]\nh: state[features]\n"
          "h[t] = h[t-1] + x[t]\nreturn h[t]\n«return x[t]»\n",
          mend="Return all in one line: return h[t], x[t]."),
    Cause("E603", "return is the last line",
          "cell: Example\nfeatures: size\nx: input[features]\nh: state[features]\nreturn h[t]\n"
          "«h[t] = h[t-1] + x[t]»\n",
          mend="Move return behind the last equation."),
    Cause("E604", "the cell has no input",
          "«c»ell: Example\nunits: size\nh: state[units]\nh[t] = h[t-1] + 1\nreturn h[t]\n",
          mend="Declare one: x: input[features]."),
)
# fmt: on

CAUSES: dict[str, Cause] = {row.code: row for row in _ROWS}
