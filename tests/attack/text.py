"""Hostile text: the built-in cells, with something put in, taken out or moved about.

What is read is right or a SpecError, within 2 seconds and 300 MB; what is right is rendered, its
module checked against the grammar and imported, for either target. Payloads leave a mark among the
builtins if they are run, so that nobody has to look at what they would have done.

Non-Goals: what a mutated cell computes (`cells`).
"""

from __future__ import annotations

import builtins
import os
import random
import re
import time
from functools import cache
from pathlib import Path

from rnncc.artifact.cell import Variant
from rnncc.compiler import CELLS
from rnncc.frontend.diagnostics import SpecError
from rnncc.lowering.cell_interface import check_text
from rnncc.runtime.jit.module_grammar import check_module
from tests.attack import Attack
from tests.support.cases import render_module

SECONDS, BYTES = 2.0, 300 * 2**20
MARK = "rnncc_was_here"
RUN = f'__import__("builtins").__dict__.__setitem__("{MARK}", 1)'
PIECES = (
    *(f'"""; {RUN}; """', f"'''; {RUN}; '''", f'\n"""\n{RUN}\n"""\n', f"\n{RUN}\n", f"; {RUN}"),
    *(f"# {RUN}", f"\x0b{RUN}", f"\x0c{RUN}\x0c", f"\x85{RUN}", f"\u2028{RUN}", f"\r{RUN}\r"),
    *(f"{{{{ {RUN} }}}}", "{% include 'x' %}", "{{ m.__class__ }}", "%s %n", "{0.__class__}"),
    *(RUN, f"({RUN})", f"[{RUN}]", f"lambda q: {RUN}", f"exec({RUN!r})", "().__class__.__base__"),
    *('"""', "'''", '"', "'", "\\", "\\\n", "\\N{DIGIT ONE}", "\\x", "\\u12", "\0", "\ud800"),
    *("\ufeff", "\u202e", "\x1b[2J", "\x7f", "\x1a", "é", "×", "ﬁ", "\U0001f600", "\u0300"),
    *("(", ")", "[", "]", "{", "}", ":", "=", ",", "@", "**", "//", "->", ":=", "...", "#", "~"),
    *("x" * 5000, "(" * 300, "-" * 3000, "9" * 5000, "1e999", "1_000", "0x1f", "2**53", "1j"),
    *("if ", "else ", "lambda ", "not ", "and ", "import os", "await ", "yield", "match ", "def f"),
    *(
        "t",
        "[t]",
        "[t-1]",
        "[t-1000]",
        "[t+1]",
        "[0]",
        "None",
        "True",
        "__builtins__",
        "_x",
        "self",
    ),
    *("units", "size", "weight[units]", "option", "rate", "tanh", "split(", "einsum(", "drop("),
    *("\t", "    ", "\n", "\n\n", " \n", "return ", "cell: ", 'f"{x}"', 'b"x"', 'r"\\"', '"a" "b"'),
)


@cache
def cells() -> tuple[tuple[str, str], ...]:
    return tuple((p.stem, p.read_text("utf-8")) for p in sorted(CELLS.glob("*.rnn")))


def mutated(text: str, rng: random.Random) -> str:
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        text = rng.choice(MUTATIONS)(text, rng)
    return text


def _put(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(PIECES) + text[at:]


def _into(kind: str) -> re.Pattern[str]:
    return {
        "comment": re.compile(r"#[^\n]*"),
        "docstring": re.compile(r'"""'),
        "string": re.compile(r'"[^"\n]+"'),
        "name": re.compile(r"[A-Za-z_]\w*"),
        "number": re.compile(r"\d+(\.\d+)?"),
        "line": re.compile(r"[^\n]+"),
    }[kind]


def _somewhere(text: str, rng: random.Random) -> str:
    """Into or in the place of a comment, a string, a name, a number, a line."""
    kind = rng.choice(("comment", "docstring", "string", "name", "number", "line"))
    found = [*_into(kind).finditer(text)]
    if not found:
        return _put(text, rng)
    spot = rng.choice(found)
    piece = rng.choice(PIECES)
    if kind in ("name", "number") and rng.random() < 0.5:
        return text[: spot.start()] + piece + text[spot.end() :]
    return text[: spot.end()] + piece + text[spot.end() :]


def _commented(text: str, rng: random.Random) -> str:
    """A comment behind a line, which is where text may stand."""
    lines = text.split("\n")
    lines[rng.randrange(len(lines))] += f"  # {rng.choice(PIECES)}"
    return "\n".join(lines)


def _cut(text: str, rng: random.Random) -> str:
    begin = rng.randrange(len(text) + 1)
    return text[:begin] + text[begin + rng.choice((1, 2, 10, 100)) :]


def _again(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    begin, at = (rng.randrange(len(lines)) for _ in range(2))
    part = lines[begin : begin + rng.choice((1, 1, 3))] * rng.choice((1, 1, 20))
    return "\n".join([*lines[:at], *part, *lines[at:]])


def _swapped(text: str, rng: random.Random) -> str:
    words = re.split(r"(\W)", text)
    a, b = (rng.randrange(len(words)) for _ in range(2))
    words[a], words[b] = words[b], words[a]
    return "".join(words)


def _flipped(text: str, rng: random.Random) -> str:
    if not text:
        return text
    at = rng.randrange(len(text))
    return text[:at] + chr((ord(text[at]) ^ 1 << rng.randrange(7)) & 0x10FFFF) + text[at + 1 :]


MUTATIONS = (_put, _somewhere, _somewhere, _commented, _commented, _cut, _again, _swapped, _flipped)


def _resident() -> int:
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def attempt(index: int, seed: int) -> str | None:
    rng = random.Random(f"{seed} {index}")
    name, whole = cells()[index % len(cells())]
    text = mutated(whole, rng)
    filename = rng.choice(("<text>", f"{name}.rnn", f"a/{rng.choice(PIECES)}.rnn"))
    memory, began = _resident(), time.process_time()
    spec = None
    try:
        spec = check_text(text, filename)
    except SpecError as error:
        str(error).encode()
    seconds, memory = time.process_time() - began, _resident() - memory
    target = rng.choice(("cpu", "cuda"))
    if spec is not None:
        made = check_module(render_module(spec, variants=(Variant(),), target=target))
        exec(compile(made, "<module>", "exec"), {"__name__": "hostile"})
    if builtins.__dict__.pop(MARK, None) is not None:
        return f"text was run, of {name} in {filename!r} for {target}:\n{text!r}"
    if seconds > SECONDS or memory > BYTES:
        return f"{seconds:.1f} s and {memory / 2**20:.0f} MB for {name}:\n{text!r}"
    return None


ATTACK = Attack(
    "text",
    "mutations of the built-in cells: nothing runs, nothing but SpecError, 2 s and 300 MB each",
    count=25_000,
    short=60,
    attempt=attempt,
)
