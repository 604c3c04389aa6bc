"""How many blocks run a loop on a GPU, and what keeps them in step: the tier.

    block      a group of rows is one block's: syncthreads ends a level
    stationary a group of rows is several blocks', each with lanes of its own, whose weights stay in
               registers and shared memory; a barrier of their own ends a level, so all of them
               must be on the device at once
    grid       the same, but weights are read anew at every step
    launches   every level of every step is a launch: nothing has to be resident

The text of a kernel is the same under all of them. Non-Goals: compiling, launching.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rnncc.artifact.stationary_weights import WARP, BlockCapacity, Numbers

THREADS = 256  # a block's: kernels may have 255 registers
# Multiply-adds of a row's step that one block does about as fast as a barrier among blocks takes.
BLOCK_WORK = 40_000
# What a multiprocessor has to do in a step before more of them pay for waiting for each other.
SHARE_WORK = 16_000
# From so much on, of weights that don't stay in registers, a library's products pay for launches.
PRODUCT_WORK = 1_000_000
# What a library's products reach of a device's multiply-adds, of matrices as thin as a step's; and
# what launches of a step's products and of its statements take, in multiply-adds of a warp.
PRODUCT_SHARE, LAUNCHES = 0.7, 32_000
TIERS = ("block", "stationary", "grid", "launches")


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a choice depends on. resident: heavy blocks that are on the device at once; shared:
    bytes a block may have of shared memory; threads: of a block; library: who multiplies matrices
    besides our own kernels, or "" and why nobody does; graphs: whether launches can be kept;
    registers: 32-bit ones of a multiprocessor."""

    name: str
    multiprocessors: int
    resident: int
    cooperative: bool = True
    shared: int = 48 * 1024
    threads: int = THREADS
    library: str = ""
    no_library: str = "no library of matrix products"
    graphs: bool = False
    registers: int = 65_536

    @property
    def room(self) -> BlockCapacity:
        return BlockCapacity(self.shared, self.registers)

    @property
    def warps(self) -> tuple[int, ...]:
        """Warps that a block with weights of its own may have: more of them have more lanes, and
        fewer registers each."""
        least = self.threads // WARP
        return tuple(dict.fromkeys((least, least * 5 // 4, least * 3 // 2, least * 2)))


@dataclass(frozen=True, slots=True)
class ScanWork:
    """What a scan does. items: lanes of its widest level, of one row; work: multiply-adds of a
    row's step; levels: a step's; forms: in which its weights can stay, by warps of a block."""

    batch: int
    items: int
    work: int
    levels: int
    forms: tuple[Numbers, ...] = ()
    why_not: str = ""  # weights can't stay
    # Tiers whose kernel was found too large, with how many blocks of it are on the device at once.
    fits: tuple[tuple[str, int], ...] = ()
    products: bool = False  # a library can make its sums


@dataclass(frozen=True, slots=True)
class Tier:
    name: str
    groups: int
    members: int
    threads: int
    why: str
    products: bool = False

    @property
    def kernel(self) -> str:
        """Which kernels' fit was asked for, as in `Loop.fits`."""
        return f"stationary {self.threads // WARP}" if self.name == "stationary" else self.name

    @property
    def blocks(self) -> int:
        return self.groups * self.members

    @property
    def waiting(self) -> int:
        """Blocks that wait for each other at a level's end; 0 where the launch ends there."""
        return {"block": 1, "launches": 0}.get(self.name, self.members)


def choose(loop: ScanWork, gpu: Gpu, asked: str | None = None) -> Tier:
    """The tier of a loop. asked: this one, whatever it costs; ValueError if the device can't.

    >>> h200 = Gpu("H200", 132, 132)
    >>> choose(ScanWork(8, 64, 16_384, 1), h200).name
    'block'
    >>> form = Numbers({"KEPT_0": 8}, 36_864, lanes=1024, warps=8, held=0, cost=128)
    >>> choose(ScanWork(8, 1024, 4_194_304, 1, (form,)), h200).why
    '128 blocks of 8 warps share 1024 lanes'
    >>> choose(ScanWork(8, 1024, 4_194_304, 1, why_not="weights change"), h200).why
    '128 blocks share 1024 lanes; weights are read at every step: weights change'
    >>> choose(ScanWork(8, 1024, 4_194_304, 1), Gpu("shared", 16, 0, cooperative=False)).name
    'launches'
    >>> wide = ScanWork(8, 2048, 16_777_216, 1, why_not="too many registers", products=True)
    >>> choose(wide, Gpu("H200", 132, 132, library="cuBLAS")).why
    "a level's products by cuBLAS, then a launch: too many registers"
    """
    if asked is not None and asked not in TIERS:
        raise ValueError(f"a tier is one of {', '.join(TIERS)}, not {asked!r}")
    can_wait = gpu.cooperative and gpu.resident > 1
    can_share = can_wait and _resident(loop, gpu, "grid") > 1
    if asked == "grid" and not can_share:
        raise ValueError(f"{gpu.name} can't keep blocks that wait for each other: no tier grid")
    stationary = _stationary(loop, gpu) if can_wait else "blocks can't wait for each other"
    if asked == "stationary" and isinstance(stationary, str):
        raise ValueError(f"no tier stationary on {gpu.name}: {stationary}")
    name = asked or ("block" if loop.work <= BLOCK_WORK else "grid" if can_share else "launches")
    if name == "block":
        return _one_block(loop, gpu)
    if not isinstance(stationary, str) and asked in (None, "stationary"):
        return stationary
    if asked is None and loop.products and loop.work >= PRODUCT_WORK:
        name = "launches"
    if name == "grid":
        return _shared(loop, gpu, 2 if asked else 1, stationary if asked is None else "")
    blocks = -(-loop.batch * loop.items // gpu.threads)
    why = "a launch a level: blocks needn't be resident"
    if "grid" in dict(loop.fits):
        why += f", and {_resident(loop, gpu, 'grid')} of the loop would fit"
    if loop.products:
        why = f"a level's products by {gpu.library}, then a launch"
        why += f": {stationary}" if isinstance(stationary, str) and asked is None else ""
    return Tier(name, 1, max(blocks, 1), gpu.threads, why, loop.products)


def _resident(loop: ScanWork, gpu: Gpu, tier: str) -> int:
    """How many blocks of a tier's kernel are on the device at once, as far as is known."""
    return min(dict(loop.fits).get(tier, gpu.resident), gpu.resident)


def _stationary(loop: ScanWork, gpu: Gpu) -> Tier | str:
    """The form that takes the least time, of those whose blocks are on the device at once."""
    if not loop.forms:
        return loop.why_not or "no contraction's weights can stay on the chip"
    candidates = [*_fitting(loop, gpu)]
    if not candidates:
        form = loop.forms[-1]
        members, resident = -(-form.lanes // form.warps), _resident_form(loop, gpu, form)
        return f"{form.lanes} lanes need {members} blocks at once, {resident} fit"
    cost, form, members, groups = min(candidates, key=lambda f: f[0])
    rest = loop.batch * loop.work / WARP / max(gpu.multiprocessors, 1) / PRODUCT_SHARE
    slow = form.held and loop.work >= PRODUCT_WORK
    if loop.products and slow and cost > rest + loop.levels * LAUNCHES:
        return f"{groups} times {members} blocks would take longer over {loop.batch} rows"
    why = f"{members} blocks of {form.warps} warps share {form.lanes} lanes"
    why += f", {groups} groups of them the batch" if groups > 1 else ""
    return Tier("stationary", groups, members, form.warps * WARP, why)


def _fitting(loop: ScanWork, gpu: Gpu) -> Iterator[tuple[int, Numbers, int, int]]:
    """(time of a step, form, blocks of a group, groups)."""
    for form in loop.forms:
        members, resident = -(-form.lanes // form.warps), _resident_form(loop, gpu, form)
        if members <= resident:
            groups = max(min(resident // members, loop.batch), 1)
            yield -(-loop.batch // groups) * form.warps * form.cost, form, members, groups


def _resident_form(loop: ScanWork, gpu: Gpu, form: Numbers) -> int:
    return _resident(loop, gpu, f"stationary {form.warps}")


def _one_block(loop: ScanWork, gpu: Gpu) -> Tier:
    groups = min(loop.batch, max(gpu.multiprocessors, 1))
    rows = -(-loop.batch // groups)
    threads = min(max(-(-rows * loop.items // WARP) * WARP, WARP), gpu.threads)
    return Tier(
        "block", groups, 1, threads, f"{groups} blocks, each its rows: no barrier of blocks"
    )


def _shared(loop: ScanWork, gpu: Gpu, least: int, why_not: Tier | str) -> Tier:
    """Blocks share lanes; groups of them share the batch, where one group has enough blocks."""
    resident = _resident(loop, gpu, "grid")
    share = max(loop.work // SHARE_WORK, 1)
    members = max(min(resident, share, -(-loop.items // 8)), least)
    members = 1 << (members.bit_length() - 1)
    groups = max(min(resident // members, loop.batch), 1)
    why = f"{members} blocks share {loop.items} lanes"
    why += f", {groups} groups of them the batch" if groups > 1 else ""
    why += f"; weights are read at every step: {why_not}" if why_not else ""
    return Tier("grid", groups, members, gpu.threads, why)
