"""The names of a kernel's text, and the integers it reads from its block.

There are two kinds of names, and none is of both:

    the user's    a name of theirs, an underscore, and what is meant of it:
                  h_ptr  h_in_ptr  h_r         addresses: of all of it, of a slot, of the row r
                  h_stride_b  h_stride_0       bytes from row to row, from element to element
                  h_ring  units_size           which slots take turns; a size
                  h_                           a value: the name alone, and nothing is meant
    ours          everything else: what templates write, and words about stages

So a weight called `range`, `block` or `lambda_` is `range_ptr`, `block_ptr` and `lambda__ptr`.

An integer of the block is asked for by what it means (`artifact.kernel_args`), which is resolved at
run time; the kernel has `h_ptr, h_stride_b = words(block, 2)`.

Non-Goals: values.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from rnncc.artifact.kernel_args import KernelArgument

# What may be meant of a name of the user's.
MEANINGS = "ptr|r|ring|size|stride_[a-z0-9_]+|"
WIDTH = 96  # of a line in a function
_USERS = re.compile(rf"\w+_({MEANINGS})")


def is_users(identifier: str) -> bool:
    """Whether an identifier is made of a name of the user's."""
    return bool(_USERS.fullmatch(identifier))


@dataclass
class Words:
    """Arguments in order of first use; the same argument is one word."""

    arguments: dict[KernelArgument, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str, argument: KernelArgument) -> str:
        """The identifier of ours that holds an argument."""
        if argument not in self.arguments:
            self.arguments[argument] = self.fresh(name)
        return self.arguments[argument]

    def of(self, name: str, meaning: str, argument: KernelArgument) -> str:
        """The identifier that holds an argument about something of the user's."""
        if argument not in self.arguments:
            self.arguments[argument] = self.fresh_of(name, meaning)
        return self.arguments[argument]

    def reserve(self, name: str, argument: KernelArgument) -> None:
        """An argument that templates read by this name."""
        self.arguments[argument] = name

    def again(self) -> Words:
        """For a second kernel over the same block: the same words."""
        return Words(dict(self.arguments), set(self.arguments.values()))

    def arranged(self) -> list[KernelArgument]:
        """The arguments, those about one thing side by side from now on."""
        subjects = {a.subject: n for n, a in reversed([*enumerate(self.arguments)])}
        order = sorted(self.arguments, key=lambda a: subjects[a.subject])
        self.arguments = {a: self.arguments[a] for a in order}
        return order

    def lines(self) -> list[str]:
        """The statement that reads them all."""
        return unpack_lines([*self.arguments.values()], "block", WIDTH)

    def fresh(self, name: str) -> str:
        """An identifier of ours that nothing else has."""
        identifier = self._take(name, "")
        assert not is_users(identifier), identifier
        return identifier

    def fresh_of(self, name: str, meaning: str) -> str:
        """An identifier for something of the user's that nothing else has."""
        clean = re.sub(r"\W+", "_", name).lstrip("_") or "tmp"
        identifier = self._take(clean if clean[0].isalpha() else f"x{clean}", f"_{meaning}")
        assert is_users(identifier), identifier
        return identifier

    def _take(self, stem: str, ending: str) -> str:
        """The stem and its ending, with a number between them where that is taken."""
        plain = candidate = f"{stem}{ending}"
        count = self.counts.get(plain, 0)
        while candidate in self.taken:
            count += 1
            candidate = f"{stem}_{count}{ending}"
        self.taken.add(candidate)
        self.counts[plain] = count  # as far as that all are taken for good
        return candidate


def unpack_lines(names: Sequence[str], place: str, width: int) -> list[str]:
    """Names bound to as many integers at a place: on one line, or on as many as they fill."""
    call = f"words({place}, {len(names)})"
    flat = f"{', '.join(names)}{',' if len(names) == 1 else ''} = {call}"
    if len(flat) <= width:
        return [flat]
    rows = textwrap.wrap(", ".join(names) + ",", width - 4, break_long_words=False)
    return ["(", *(f"    {row}" for row in rows), f") = {call}"]
