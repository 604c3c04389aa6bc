"""What threads write while a timed plan runs: which piece of work has ended, and when.

    line of a part   where its next stamp goes, where its room ends; 64 bytes
    a stamp          what, ticks, more; 24 bytes

    BEGIN | launch, ticks, an address on the thread's stack      a part of a launch begins
    piece, ticks, ticks of it that cores took                    a timed kernel is done with a piece
    END, ticks, 0                                                the part is done

A line has one writer at a time. Stamps that find no room are counted and not written. Blocks of a
timed plan begin with a head of their own, so that any kernel's parts can be timed from outside.

Non-Goals: what stamps mean (`runtime.profiles`); memory for them (`cpu.execution.timed`).
"""

from rnncc.runtime.cpu.intrinsics.kernel_namespace import (
    call_kernel,
    set_word,
    set_words,
    stack_place,
    ticks,
    word,
)
from rnncc.runtime.jit.helper import helper
from rnncc.runtime.jit.kernel import entry, kernel

STAMP_LINE = 64  # bytes of a part's line
STAMP_WORDS = 3
BEGIN = 1 << 32  # with the launch's number in the lower half
END = 1 << 33
HEAD_WORDS = 3  # of a block: the kernel, the lines, the launch's number


@helper
def stamp(line, what, more):
    """Writes one stamp of now."""
    at = word(line, 0)
    if at < word(line, 1):
        set_words(at, what, ticks(), more)
    set_word(line, 0, at + 24)


@kernel
def timed_part(block, part):
    """The kernel that the block's head names, on the rest of the block, between two stamps."""
    line = word(block, 1) + part * STAMP_LINE
    stamp(line, BEGIN + word(block, 2), stack_place())
    call_kernel(word(block, 0), block + HEAD_WORDS * 8, part)
    stamp(line, END, 0)


@entry
def stamp_now(line, what):
    """One stamp of the thread that calls."""
    stamp(line, what, stack_place())
