"""Two contenders in turns, a line each: the suites spine, torch and options.

    spine    LSTM against onnxruntime and torch; a custom cell against LSTM
    torch    torch.nn.LSTM, and rnncc.torch's in its place
    options  what masks, dropout and other options cost beside the plain layer

To add a comparison: a line of SPINE, TORCH or OPTIONS. Everyone at the same case: `suites`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.case import FORWARD, TRAINING, Case
from bench.harness import Crew, Effort, compare
from bench.result import Bar, Result


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two contenders in turns; `limit` bounds first / second (`least`: second / first, below), or
    what the first takes longer, in microseconds (unit: us).

    others: timed beside them, without a bar.
    """

    what: str
    first: tuple[str, Case]
    second: tuple[str, Case]
    limit: float
    least: bool = False
    others: tuple[tuple[str, Case], ...] = ()
    unit: str = "x"


SMALL, LARGE, SINGLE = (64, 28, 28, 64), (32, 50, 256, 256), (1, 100, 256, 256)
TINY = (1, 2, 3, 4)


def _forward(sizes: tuple[int, int, int, int]) -> Comparison:
    case = Case("lstm", FORWARD, *sizes)
    return Comparison(
        f"LSTM forward {sizes}: time / onnxruntime's",
        ("rnncc", case),
        ("onnxruntime", case),
        1.0,
        others=(("torch", case),),
    )


def _training(sizes: tuple[int, int, int, int]) -> Comparison:
    case = Case("lstm", TRAINING, *sizes)
    what = f"LSTM forward + backward {sizes}: times faster than torch"
    return Comparison(what, ("rnncc", case), ("torch", case), 3.0, least=True)


def _custom(sizes: tuple[int, int, int, int]) -> Comparison:
    cases = [Case(cell, TRAINING, *sizes) for cell in ("peephole_lstm", "lstm")]
    what = f"peephole LSTM forward + backward {sizes}: time / LSTM's"
    return Comparison(what, ("rnncc", cases[0]), ("rnncc", cases[1]), 1.15)


SPINE = (
    _forward(SINGLE),
    _forward(SMALL),
    _training(SMALL),
    _custom(SMALL),
    _custom(LARGE),
)


def _replaced(mode: str, sizes: tuple[int, int, int, int], limit: float) -> Comparison:
    case = Case("lstm", mode, *sizes)
    what = f"torch.nn.LSTM replaced, {mode} {sizes}: times faster"
    return Comparison(what, ("rnncc_torch", case), ("torch", case), limit, least=True)


def _adapted(mode: str, sizes: tuple[int, int, int, int], limit: float) -> Comparison:
    case = Case("lstm", mode, *sizes)
    what = f"torch module, {mode} {sizes}: more than its NumPy layer"
    return Comparison(what, ("rnncc_torch", case), ("rnncc_torch-layer", case), limit, unit="us")


def _packed(sizes: tuple[int, int, int, int], lengths: str) -> Comparison:
    plain = Case("lstm", TRAINING, *sizes)
    case = replace(plain, lengths=lengths)
    return Comparison(
        f"PackedSequence, {lengths} lengths, training {sizes}: time / the padded one's",
        ("rnncc_torch", case),
        ("rnncc_torch", plain),
        1.1,
        others=(("torch", case),),
    )


TORCH = (
    _replaced(FORWARD, SMALL, 1.0),
    _replaced(TRAINING, SMALL, 2.0),
    _replaced(FORWARD, LARGE, 1.0),
    _replaced(TRAINING, LARGE, 1.1),
    *(_packed(sizes, lengths) for sizes in (SMALL, LARGE) for lengths in ("near", "any")),
    *(_adapted(FORWARD, sizes, 30.0) for sizes in (TINY, SMALL)),
    *(_adapted(TRAINING, sizes, 120.0) for sizes in (TINY, SMALL)),
)


def _option(
    sizes: tuple[int, int, int, int], what: str, *, masked: bool = False, **options: object
) -> Comparison:
    plain = Case("lstm", TRAINING, *sizes)
    case = Case("lstm", TRAINING, *sizes, options=tuple(options.items()), masked=masked)
    return Comparison(
        f"LSTM {what} forward + backward {sizes}: time / the plain layer's",
        ("rnncc", case),
        ("rnncc", plain),
        1.10,
    )


def _unrolled(
    cell: str, mode: str, sizes: tuple[int, int, int, int], unroll: bool | int = 4
) -> Comparison:
    plain = Case(cell, mode, *sizes)
    case = replace(plain, options=(("unroll", unroll),))
    what = f"{case.name} {mode} {sizes}: time / the plain loop's"
    return Comparison(what, ("rnncc", case), ("rnncc", plain), 1.03)


def _anew(cell: str, mode: str, sizes: tuple[int, int, int, int]) -> Comparison:
    """Rows that start anew before a tenth of the steps."""
    plain = Case(cell, mode, *sizes)
    case = replace(plain, resets=True)
    what = f"{case.name} {mode} {sizes}: time / the same call's without"
    return Comparison(what, ("rnncc", case), ("rnncc", plain), 1.05)


UNROLLED = (
    *(
        _unrolled(cell, FORWARD, (1, 512, 4, units))
        for cell in ("lstm", "gru", "simple_rnn")
        for units in (8, 16, 24, 32)
    ),
    *(_unrolled("lstm", FORWARD, (1, 512, 4, 24), unroll) for unroll in (2, True)),
    _unrolled("layer_norm_lstm", FORWARD, (1, 512, 4, 16), 2),  # several levels a step
    *(_unrolled("lstm", TRAINING, sizes) for sizes in (SMALL, LARGE)),
)
OPTIONS = (
    tuple(
        option
        for sizes in (SMALL, LARGE)
        for option in (
            _option(sizes, "with a random mask", masked=True),
            _option(sizes, "with recurrent dropout, a mask a gate", recurrent_dropout=0.2),
            _option(
                sizes,
                "with recurrent dropout, one mask",
                recurrent_dropout=0.2,
                dropout_per_gate=False,
            ),
            _option(sizes, "with relu", activation="relu"),
            _option(sizes, "with hard_sigmoid gates", recurrent_activation="hard_sigmoid"),
            _option(sizes, "with softsign", activation="softsign"),
            _option(sizes, "without bias", use_bias=False),
            _option(sizes, "backwards", go_backwards=True),
        )
    )
    + tuple(
        _anew(cell, mode, sizes)
        for cell in ("lstm", "gru")
        for sizes in (SMALL, LARGE)
        for mode in (FORWARD, TRAINING)
    )
    + UNROLLED
)


def spine(effort: Effort) -> Result:
    return _all("spine", SPINE, effort)


def options(effort: Effort) -> Result:
    return _all("options", OPTIONS, effort)


def in_torch(effort: Effort) -> Result:
    return _all("torch", TORCH, effort)


def _all(name: str, comparisons: Iterable[Comparison], effort: Effort) -> Result:
    result, comparisons = Result(name), list(comparisons)
    wanted = [name for c in comparisons for name, _ in (c.first, c.second, *c.others)]
    with Crew() as crew:
        absent = {n: why for n in dict.fromkeys(wanted) if (why := crew.unavailable(n))}
        result.notes += [f"skipped {name}: {why}" for name, why in absent.items()]
        for comparison in comparisons:
            effort.report(comparison.what)
            result.bars.append(_run(comparison, effort, absent, result, crew))
    return result


def _run(
    comparison: Comparison, effort: Effort, absent: dict[str, str], result: Result, crew: Crew
) -> Bar:
    what, limit, least = comparison.what, comparison.limit, comparison.least
    missing = [n for n, _ in (comparison.first, comparison.second) if n in absent]
    if missing:
        return Bar(what, None, limit, least=least, why=f"no {missing[0]}")
    others = [entry for entry in comparison.others if entry[0] not in absent]
    timings = compare([comparison.first, comparison.second, *others], effort, crew)
    cases = [comparison.first[1], comparison.second[1], *(case for _, case in others)]
    for timing, case in zip(timings, cases, strict=True):
        timing.peer = not timing.contender.startswith("rnncc")
        if len({c.name for c in cases}) > 1:
            timing.contender += f" {case.name}"
    result.timings[what.split(":")[0]] = timings
    if comparison.unit == "us":
        longer = timings[0].median - timings[1].median
        return Bar(what, longer * 1e6, limit, unit="us")
    ratio = timings[0].median / timings[1].median
    return Bar(what, 1 / ratio if least else ratio, limit, least=least)
