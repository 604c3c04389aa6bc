"""Texts that ask for much: each is read and checked, right or refused, soon and in little memory.

Whatever is drawn, `check_text` returns or raises SpecError, within so much time and memory beyond
what the process had, and the SpecError's own text is short.

Non-Goals: what the texts mean; texts that are executed (`text`).
"""

from __future__ import annotations

import gc
import os
import random
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rnncc.frontend.diagnostics import SpecError
from rnncc.lowering.cell_interface import check_text
from tests.attack import Attack
from tests.attack.forked import in_child
from tests.support.paths import ROOT

SECONDS, MEGABYTES, CHARACTERS = 2.0, 300, 200_000
HEAD = "cell: C\nfeatures: size\nunits: size\nx: input[features]\nh: state[units]\n"
STEP = "W: weight[features, units]\nh[t] = tanh(x[t] @ W + h[t-1])\nreturn h[t]"
CELLS = sorted((ROOT / "rnncc" / "cells").glob("*.rnn"))

Family = Callable[[random.Random], str]
FAMILIES: list[Family] = []


def family(make: Family) -> Family:
    FAMILIES.append(make)
    return make


def many(rng: random.Random, most: int) -> int:
    """Of every order of magnitude as often."""
    return round(most ** rng.uniform(0.2, 1.0))


def cell(*lines: str, value: str = "") -> str:
    """A cell with these lines, and another value returned."""
    return (
        f"{HEAD}{STEP.replace('return', chr(10).join((*lines, 'return')), 1)}, {value or 'h[t]'}\n"
    )


# ---- long ----


@family
def chains(rng: random.Random) -> str:
    n = many(rng, 20_000)
    links = [f"a{i} = {rng.choice(('tanh(a%d) * 0.5', 'a%d + x[t]', '-a%d'))}" for i in range(1, n)]
    lines = ["a0 = x[t]", *(link % i for i, link in enumerate(links))]
    if rng.random() < 0.5:
        rng.shuffle(lines)
    return cell(*lines, value=f"a{n - 1}")


@family
def declarations(rng: random.Random) -> str:
    kinds = ("size", "option = True", "weight[units]", "state[units]", "input[3]", "rate = 0.1")
    n, kind = many(rng, 60_000), rng.choice(kinds)
    read = rng.choice(("", "a{0}", "a{0}[t]", "a{0} * h[t]", "drop(h[t], a{0})", "a{0}[t-1000]"))
    values = [read.format(i) for i in range(n)] if read else []
    return cell(*(f"a{i}: {kind}" for i in range(n)), value=", ".join(values))


@family
def lines_of_one_kind(rng: random.Random) -> str:
    lines = (
        *(
            "z = (",
            "z = (1\n",
            "z = '''",
            "'''",
            "z = \\",
            "z$ = 1",
            "é = 1",
            "z = \0",
            "z = nothing",
        ),
        *("z: wieght[units]", "    z = 1", "return h[t]", "if units:", "z = tanhh(x[t])", "", "#"),
        *("z = x[t] + h[t-1]", "z{0} = unknown{0}", "cell: D", "z = None", "a, b = c, d = 1"),
    )
    line, n = rng.choice(lines), many(rng, 100_000)
    return cell(*(line.format(i) for i in range(n)))


@family
def one_long_line(rng: random.Random) -> str:
    pieces = (
        *(
            "x[t] + ",
            "x[t] ** ",
            "x[t] < ",
            "x[t] and ",
            "- ",
            "not ",
            "(",
            "[",
            "f(",
            "1 if 1 else ",
        ),
        *("lambda v: ", "x.", "x[0]", "f()", "9", "0xf", "'a' ", "é", "\u0661", "{x}", "None, "),
        *(
            "concat(x[t], ",
            "1 // ",
            "units * ",
            "(units + 1) * ",
            "2 ** ",
            "9 ** 9 ** ",
            "1_0",
            "1e9",
        ),
        *(
            "\t",
            "; z = 1",
            "\\\n",
            "(\n",
            "t - ",
            "x[t-1] * ",
            "'",
            '"',
            "#",
            "$",
            ":=",
            "*",
            ",",
            "@",
        ),
    )
    line = rng.choice(pieces) * many(rng, 200_000)
    end = rng.choice(("x[t]", "1", "", "x[t]" + ")" * line.count("("), "units"))
    lead = rng.choice(
        ("z = ", "z: weight[", "f: function = lambda v: ", "return ", "", "s: size = ")
    )
    return cell(lead + line + end)


# ---- that grow when they are written out ----


@family
def functions(rng: random.Random) -> str:
    bodies = (
        "f{0}(f{0}(v))",
        "f{0}(v) + f{0}(-v)",
        "f{0}(v) * v",
        "f{0}(v)",
        "split(f{0}(v), 2)[0]",
    )
    first = rng.choice(("v", "tanh(v)", "v * v", "concat(v, v)", "softmax(v)", "z"))
    body, n = rng.choice(bodies), many(rng, 3_000)
    lines = [f"f0: function = lambda v: {first}"]
    lines += [f"f{i}: function = lambda v: {body.format(i - 1)}" for i in range(1, n)]
    return cell(*lines, f"z = f{n - 1}({rng.choice(('x[t]', 'units', '3', 'h[t]'))})", value="z")


@family
def sizes(rng: random.Random) -> str:
    forms = (
        *(
            "{0} * ({0} + 1)",
            "{0} * {0}",
            "{0} + 1",
            "{0} + {0}",
            "({0} + 1) // ({0} + 2)",
            "{0} // 3",
        ),
        *("{0} * 9007199254740992", "{0} - {0}", "{0} * units // features", "2 * {0} + features"),
        *("{0} if deep else {0} + 1", "{0}"),
    )
    form, n = rng.choice(forms), many(rng, 2_500)
    lines = ["deep: option = True", "s0: size = units"]
    lines += [f"s{i}: size = {form.format(f's{i - 1}')}" for i in range(1, n)]
    lines += [f"V: weight[s{n - 1}]", f"Y: weight[s{n // 2} // 2]"]
    if rng.random() < 0.3:
        rng.shuffle(lines)
    value = rng.choice(("V + Y", "sum(V) * sum(Y)", "concat(V, Y)", "reshape(V, (2, -1)) + Y"))
    return cell(*lines, value=f"{value}, 1 if deep else 0")


@family
def sizes_of_equations(rng: random.Random) -> str:
    n, form = many(rng, 10_000), rng.choice(("a{0} * a{0}", "a{0} + units", "a{0} * (units + 1)"))
    form = rng.choice((form, "a{0} ** 2", "a{0} // 2 + a{0}", "2 ** a{0}", "concat(a{0}, a{0})"))
    first = rng.choice(
        ("units + features + 1", "3", "x[t]", "9007199254740992", "2.5", "units // 2")
    )
    lines = [f"a0 = {first}", *(f"a{i} = {form.format(i - 1)}" for i in range(1, n))]
    return cell(*lines, value=f"h[t] * a{n - 1}")


@family
def options(rng: random.Random) -> str:
    n, m = many(rng, 500), many(rng, 3_000)
    kind = rng.choice(("True", "1", '"a"'))
    test = {"True": "o{0}", "1": "o{0} == {1}", '"a"': 'o{0} == "a{1}"'}[kind]
    lines = [f"o{i}: option = {kind}" for i in range(n)]
    lines += [f"a{i} = x[t] if {test.format(i % n, i)} else -x[t]" for i in range(max(n, m))]
    nested = "x[t]"
    for i in range(rng.choice((0, 3, 40))):
        nested = f"({nested} if {test.format(i % n, i)} else {nested if i < 8 else 0})"
    return cell(*lines, f"z = {nested}", value="z")


@family
def parts(rng: random.Random) -> str:
    n, m = many(rng, 1_200), many(rng, 3_000)
    form = rng.choice(
        (f"concat(split(V, {n}))", f"split(V, {n})[0]", "concat(V, V, V)", "outer(V, V)")
    )
    shape = ", ".join([rng.choice((str(n), "units", "units + 1"))] * rng.choice((1, 1, 2, 30, 40)))
    return cell(f"V: weight[{shape}]", *(f"a{i} = {form}" for i in range(m)), value="V")


# ---- at random ----

WORDS = re.findall(
    r"\S+",
    """x[t] h[t-1] h[t] W units features z 1 2.5 + - * / // ** @ ( ) [ ] , : = == < if else and or
    not lambda v tanh softmax split concat reshape einsum 'ij,j->i' where drop t z = a: size
    weight[units] option True return state[units] initializer zeros \\ ; # '''""",
)


@family
def soup(rng: random.Random) -> str:
    words = rng.choices(WORDS, k=many(rng, 20_000))
    return cell("".join(w + rng.choice((" ", "", "\n")) for w in words))


@family
def mutations(rng: random.Random) -> str:
    text = rng.choice(CELLS).read_text(encoding="utf-8")
    for _ in range(rng.choice((1, 2, 5, 20))):
        at, to = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        to = min(to, at + many(rng, 40))
        change = rng.choice(("cut", "repeat", "swap", "word"))
        piece = {
            "cut": "",
            "repeat": text[at:to] * many(rng, 2_000),
            "swap": text[at:to][::-1],
            "word": rng.choice(WORDS),
        }[change]
        text = text[:at] + piece + text[to:]
    return text[: rng.choice((1_500_000, 100_000))]


# ---- attempts ----


def attempt(index: int, seed: int) -> str | None:
    rng = random.Random(f"{seed} {index}")
    make = FAMILIES[index % len(FAMILIES)]
    text = make(rng)
    finding = in_child(lambda: examined(text), seconds=20 * SECONDS)
    if finding is None:
        return None
    return f"{make.__name__}, {len(text):,} characters: {finding}\n{text[:1_000]}"


def examined(text: str, seconds: float = SECONDS) -> str | None:
    """What is wrong with how a text is checked.

    In a forked child alone: what the parent holds isn't collected here, nor its time measured.
    """
    gc.freeze()
    # Beyond what the process has: a text that explodes shall not take the machine with it.
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + (2 << 30), resource.RLIM_INFINITY))
    before, began = peak(), time.process_time()
    said = ""
    try:
        check_text(text)
    except SpecError as error:
        said = str(error)
    took, more = (time.process_time() - began) / crowded(), peak() - before
    wrong = []
    if took > seconds:
        wrong.append(f"took {took:.1f} s")
    if more > MEGABYTES:
        wrong.append(f"took {more:.0f} MB")
    if len(said) > CHARACTERS:
        wrong.append(f"said {len(said):,} characters")
    return ", ".join(wrong) or None


def crowded() -> float:
    """How much longer anything takes where more processes run than there are cores for."""
    return min(max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), 3.0)


def peak() -> float:
    """The most memory the process had at once, in megabytes."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)


ATTACK = Attack(
    "bounds",
    f"texts that ask for much: right or refused within {SECONDS:.0f} s and {MEGABYTES} MB",
    count=3_000,
    short=len(FAMILIES),
    attempt=attempt,
)
