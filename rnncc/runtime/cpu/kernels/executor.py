"""All that one call of a direction runs, as one C function: `perform`.

A plan is what doesn't change from call to call: words of the blocks of all launches, which of them
are addresses and in which group, and the launches in order. A call brings the addresses of its
groups (its workspace, its arrays, its weights): the plan's words are copied into the workspace, the
addresses are added, kernels run. So a call costs one crossing from Python, whatever runs in it.

Non-Goals: what to run (`cpu.executable`); memory (`call`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rnncc.runtime.cpu.intrinsics.kernel_namespace import call_kernel, set_word, word
from rnncc.runtime.cpu.kernels.barrier import HEAD_WORDS as SYNC_HEAD
from rnncc.runtime.cpu.kernels.barrier import LINE_WORDS as SYNC_LINE
from rnncc.runtime.cpu.threads.worker_pool import lead
from rnncc.runtime.jit.helper import helper
from rnncc.runtime.jit.kernel import entry

# The head of a plan: counts, then places in the workspace in bytes.
WORDS, FIXUPS, LAUNCHES, WORDS_AT, SYNC_AT, ZEROS_AT, ONES_AT, ONE = range(8)
HEAD_WORDS = 8
COPIES, PACKING = "copies", "packing"  # what launches are that aren't a kernel of the cell's
LAUNCH_WORDS = 3  # the kernel's address, where its block begins, parts

# The groups of addresses that a plan is written over, in the order a call brings them:
#     workspace | saved | packed | seed | first step | given ... | residuals ... | weights ... |
#     results ...
# saved: what the pullback keeps. packed: what depends on weights alone. given: arrays of the call.
WORKSPACE, SAVED, PACKED, SEED, FIRST_STEP = range(5)
GIVEN = 5  # the first of the arrays


@helper
def run_launches(plan, workspace, control):
    """Kernel after kernel, on blocks that are in the workspace."""
    words = workspace + word(plan, WORDS_AT)
    sync = workspace + word(plan, SYNC_AT)
    at = plan + (HEAD_WORDS + word(plan, WORDS) + 2 * word(plan, FIXUPS)) * 8
    for _ in range(word(plan, LAUNCHES)):
        parts = word(at, 2)
        if parts > 1:
            for i in range(SYNC_HEAD + SYNC_LINE * parts):
                set_word(sync, i, 0)
        if parts > 1 and control != 0:
            lead(control, word(at, 0), words + word(at, 1), parts)
        else:
            for part in range(parts):
                call_kernel(word(at, 0), words + word(at, 1), part)
        at += LAUNCH_WORDS * 8


@entry
def perform(plan, bases, control):
    """bases: addresses of the groups, the workspace's first. control: the workers' control
    block, or 0."""
    workspace = word(bases, 0)
    words = workspace + word(plan, WORDS_AT)
    at = plan + HEAD_WORDS * 8
    for i in range(word(plan, WORDS)):
        set_word(words, i, word(at, i))
    at += word(plan, WORDS) * 8
    for _ in range(word(plan, FIXUPS)):
        i = word(at, 0)
        set_word(words, i, word(words, i) + word(bases, word(at, 1)))
        at += 16
    zeros = workspace + word(plan, ZEROS_AT)
    for i in range((word(plan, ONES_AT) - word(plan, ZEROS_AT)) >> 3):
        set_word(zeros, i, 0)
    set_word(workspace + word(plan, ONES_AT), 0, word(plan, ONE))
    run_launches(plan, workspace, control)


@entry
def perform_again(plan, workspace, control):
    """The same once more, in a workspace that `perform` has left, with the same addresses."""
    run_launches(plan, workspace, control)


@dataclass(frozen=True, slots=True)
class SpaceOffset:
    """A group of addresses, by number, and bytes from it."""

    group: int
    offset: int = 0


@dataclass(slots=True)
class ArgumentBlock:
    """A block: its words, and which of them are addresses."""

    words: np.ndarray
    addresses: list[tuple[int, SpaceOffset]]


@dataclass(frozen=True, slots=True)
class Launch:
    """what: a name, for whoever looks at what runs; copied: bytes that are copied or packed."""

    kernel: int
    piece: ArgumentBlock
    parts: int
    what: str = ""
    copied: int = 0


@dataclass(frozen=True, slots=True)
class Region:
    """A buffer, or anything else that is laid out: so many bytes, of which nobody else has any."""

    name: str
    place: SpaceOffset
    size: int


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where what every plan needs is in a workspace, in bytes. size: without a plan's words."""

    sync: int
    zeros: int
    ones: int
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What `perform` reads. workspace_bytes: of the workspace it wants. threads: whether any launch
    has several parts. regions: what lies where in its groups. results: groups that are written
    from end to end, with their names."""

    array: np.ndarray
    address: int
    workspace_bytes: int
    threads: bool
    regions: Sequence[Region]
    results: Mapping[int, str]


def plan_of(
    launches: Sequence[Launch],
    workspace: Workspace,
    one: int,
    regions: Sequence[Region],
    results: Mapping[int, str],
) -> Plan:
    """One plan for all launches. one: the bits of 1.0."""
    words: list[np.ndarray] = []
    fixups: list[tuple[int, int]] = []
    table: list[tuple[int, int, int]] = []
    start = 0
    for launch in launches:
        own = launch.piece.words.copy()
        for index, place in launch.piece.addresses:
            own[index] += place.offset
            fixups.append((start + index, place.group))
        table.append((launch.kernel, start * 8, launch.parts))
        words.append(own)
        start += len(own)
    head = np.zeros(HEAD_WORDS, np.int64)
    head[[WORDS, FIXUPS, LAUNCHES]] = start, len(fixups), len(table)
    head[[WORDS_AT, SYNC_AT]] = workspace.size, workspace.sync
    head[[ZEROS_AT, ONES_AT, ONE]] = workspace.zeros, workspace.ones, one
    flat = [np.array(rows, np.int64).reshape(-1) for rows in (fixups, table)]
    array = np.concatenate([head, *words, *flat])
    size = workspace.size + start * 8
    threads = any(launch.parts > 1 for launch in launches)
    return Plan(array, array.ctypes.data, size, threads, regions, results)
