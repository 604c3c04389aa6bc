"""The order of the passes: the one place that knows it.

`differentiate` runs on the simplified program before anything but what weights alone make is
hoisted, so that the pullback is made from one scan; both halves then go through the same passes.

    >>> from rnncc.lowering.examples import example, outline
    >>> cell = example("h[t] = tanh(h[t-1] @ U + x[t] @ W)")
    >>> names = [name for name, _ in stages(cell)]
    >>> print(*names[:7])
    lower settle simplify hoist precompute_next rotate defer
    >>> print(*names[7:])
    tidy steps_first merge_sums carry_sums join
    >>> outline(optimise(cell))
    before:
      _0 = contract(x, W, labels=(k, kl, l))
    scan:
      carry _h_1, from h
      _1 = _0[t]
        _2 = contract(_h_1, U, labels=(k, kl, l))
        _3 = add(_2, _1)
        h_1 = tanh(_3)
      next _h_1 = h_1; last is final_h
      h_2[t] = h_1
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from rnncc.ir.opdef import IRError
from rnncc.ir.program import Program
from rnncc.ir.verify import verify
from rnncc.passes.carry_sums import carry_sums
from rnncc.passes.centred_sums import centred_sums
from rnncc.passes.defer import defer
from rnncc.passes.differentiate import differentiate
from rnncc.passes.hoist import hoist, hoist_weights
from rnncc.passes.join import join
from rnncc.passes.merge_sums import merge_sums
from rnncc.passes.precompute_next import precompute_next
from rnncc.passes.residuals import residuals
from rnncc.passes.rotate import rotate
from rnncc.passes.settle import settle
from rnncc.passes.simplify import simplify
from rnncc.passes.steps_first import steps_first

Pass = Callable[[Program], Program]

PIPELINE: tuple[tuple[str, Pass], ...] = (
    ("settle", settle),  # nothing that goes through here is differentiated any more
    ("simplify", simplify),
    ("hoist", hoist),  # first: what follows must see which operands are constants
    ("precompute_next", precompute_next),
    ("rotate", rotate),  # before defer: it needs the contraction inside the loop
    ("defer", defer),
    ("tidy", simplify),  # what moved may now meet its like
    ("steps_first", steps_first),  # what it sums may be carried, too
    ("merge_sums", merge_sums),  # the fewer sums there are to be carried
    ("carry_sums", carry_sums),  # once sums over rows and sums over steps are one
    ("join", join),  # last: once gates stay where they are, they are laid side by side
)


def stages(program: Program) -> Iterator[tuple[str, Program]]:
    """The program after each pass, verified."""
    yield "lower", verify(program)
    for name, run in PIPELINE:
        after = run(program)
        if after is not program:  # a pass that has nothing to do returns what it was given
            program = _same_results(program, verify(after))
        yield name, program


def _same_results(program: Program, after: Program) -> Program:
    """The program after a pass, which makes what the one before it made."""
    wanted, actual = ([(r.name, r.role, r.value.type) for r in p.results] for p in (program, after))
    if wanted != actual:
        raise IRError(f"results {wanted} became {actual}")
    return after


def optimise(program: Program) -> Program:
    *_, (_, optimised) = stages(program)
    return optimised


def gradient(program: Program, wrt: Collection[str]) -> tuple[Program, Program]:
    """A simplified program's training forward and pullback, before the pipeline."""
    forward, pullback = differentiate(verify(hoist_weights(simplify(program))), wrt)
    pullback = centred_sums(forward, verify(simplify(pullback)))
    forward, pullback = residuals(verify(forward), verify(pullback))
    return verify(forward), verify(pullback)
