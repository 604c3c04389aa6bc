"""What the integers of a kernel's block mean: a class a kind, which says who tells the number.

A kernel reads its arguments out of a block of integers. Its text asks for them with these classes
(`emit`), the module's tables carry them as short texts, and at run time each has its answer:

    BoundNumber   a target's binder, once a call's sizes are known (`runtime.*.planning`):
                  CpuNumber, CudaNumber that of one target alone
    BufferAddress the binder says how far from the buffer's base, a call where that is
    Place         the address of what is no buffer of the cell's: whoever lays out memory
                  (`executable` of the target), or the call that brings it
    CodeAddress   of the CPU: the address of machine code or of a table of it (`cpu.executable`)

As text, a kind and its fields, those at the end that are empty left out: `size|4 * units`. Those
that follow one another and are about the same thing share a text, which names that first:
`bias: stride|0, address||0:units`. `parsed` and `texts_of` are the only ones to read and write it.

They are tuples, kind first, since plans look many of them up; and none is a dataclass, since to
make so many of those takes longer than to load a cell.

Non-Goals: the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from operator import itemgetter
from typing import Any, ClassVar, dataclass_transform

Starts = tuple[tuple[int, str], ...]  # (axis, size): elements from the begin of an axis

LONGEST = 84  # characters of a text
KINDS: dict[str, type[KernelArgument]] = {}


@dataclass_transform(frozen_default=True)
class KernelArgument(tuple[Any, ...]):
    """A kind of number and what it is asked of. Equal if both are; can't be changed.

    A subclass with a `kind` has the fields that it annotates, by position.
    """

    kind: ClassVar[str] = ""
    names: ClassVar[tuple[str, ...]] = ()
    types: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[tuple[object, ...]] = ()  # of the last fields

    def __init_subclass__(cls, kind: str = "") -> None:
        if kind:
            own = cls.__annotations__
            cls.kind, cls.names, cls.types = kind, tuple(own), tuple(own.values())
            cls.defaults = tuple(cls.__dict__[n] for n in own if n in cls.__dict__)
            for number, name in enumerate(own, 1):
                setattr(cls, name, property(itemgetter(number)))
            cls.__match_args__ = cls.names  # type: ignore[attr-defined,misc]
            KINDS[kind] = cls

    def __new__(cls, *fields: object) -> KernelArgument:
        lacking = len(cls.names) - len(fields)
        if not 0 <= lacking <= len(cls.defaults):
            raise TypeError(f"{cls.__name__} has the fields {cls.names}, not {fields}")
        rest = cls.defaults[len(cls.defaults) - lacking :]
        return tuple.__new__(cls, (cls.kind, *fields, *rest))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self[1:]))})"

    @property
    def fields(self) -> tuple[str, ...]:
        """Its fields as text."""
        return tuple(map(_field, self[1:]))

    @property
    def subject(self) -> str:
        """The array or stage it is about; "" if none."""
        return self.fields[0] if self.names else ""

    @property
    def described(self) -> str:
        return " ".join(filter(None, (self.kind, *self.fields)))


def texts_of(arguments: Iterable[KernelArgument]) -> tuple[str, ...]:
    """The arguments in order, as few texts as fit a line each."""
    texts: list[str] = []
    last = None
    for argument in arguments:
        subject = argument.subject
        fields = argument.fields[1:] if subject else argument.fields
        text = "|".join((argument.kind, *fields)).rstrip("|")
        if texts and subject == last and len(texts[-1]) + len(text) < LONGEST:
            texts[-1] += f", {text}"
        else:
            texts.append(f"{subject}: {text}" if subject else text)
        last = subject
    return tuple(texts)


@lru_cache(1024)
def parsed(texts: tuple[str, ...]) -> tuple[KernelArgument, ...]:
    """What `texts_of` wrote. ValueError if it didn't."""
    return tuple(argument for text in texts for argument in _parsed(text))


def _parsed(text: str) -> Iterator[KernelArgument]:
    subject, about, rest = text.partition(": ")
    for item in (rest if about else text).split(", "):
        kind, *fields = item.split("|")
        if about:
            fields.insert(0, subject)
        try:
            argument_class = KINDS[kind]
            types = argument_class.types[: len(fields)]
            yield argument_class(*(_READERS[t](f) for t, f in zip(types, fields, strict=True)))
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{item!r} of {text!r} is no argument of a kernel") from None


def _field(value: str | int | Starts) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{axis}:{size}" for axis, size in value)
    return str(value)


def _starts(text: str) -> Starts:
    pairs = (part.split(":") for part in filter(None, text.split(",")))
    return tuple((int(axis), size) for axis, size in pairs)


_READERS: dict[str, Any] = {"str": str, "int": int, "Starts": _starts}


# ---- who answers -------------------------------------------------------------------------------


class BoundNumber(KernelArgument):
    """Known once a call's sizes are: every target's binder answers alike."""


class CpuNumber(BoundNumber):
    """As `BoundNumber`, of the CPU's kernels alone."""


class CudaNumber(BoundNumber):
    """As `BoundNumber`, of a GPU's kernels alone."""


class Place(KernelArgument):
    """An address of what is no buffer: what lays out the memory of a call answers."""


class CodeAddress(KernelArgument):
    """Of the CPU: an address that is the same in every call; added when its plan is made."""


# ---- numbers of any target ---------------------------------------------------------------------


class StepCount(BoundNumber, kind="T"):
    """Steps of the call."""


class BatchSize(BoundNumber, kind="B"):
    """Rows of the call."""


class SizeOf(BoundNumber, kind="size"):
    """An expression over the cell's sizes, as a number."""

    size: str

    @property
    def subject(self) -> str:
        return ""


class BatchStride(BoundNumber, kind="stride_b"):
    """Bytes from row to row of the batch; 0 where all have the same."""

    buffer: str


class StepStride(BoundNumber, kind="stride_t"):
    """Bytes from step to step, or from a carry's slot to its next; 0 where all have the same."""

    buffer: str


class AxisStride(BoundNumber, kind="stride"):
    """Bytes from element to element along an axis of a row."""

    buffer: str
    axis: int


class RangeStride(BoundNumber, kind="row"):
    """Bytes from row to row of the range that a kernel over rows runs over: of the outer level of
    it (0) or the inner one (1)."""

    buffer: str
    level: int


class RingMask(BoundNumber, kind="ring"):
    """What a step is masked with to be a carry's slot: -1 where each has its own, 1 where two take
    turns."""

    buffer: str


# ---- addresses of any target -------------------------------------------------------------------


class BufferAddress(KernelArgument, kind="address"):
    """Where a buffer's first row is: from its base so many elements on along some axes (`starts`),
    and of a carry in a slot: "in", "out" (of the first step), "final", or "" for its first."""

    buffer: str
    slot: str = ""
    starts: Starts = ()


class ZeroRow(Place, kind="zeros"):
    """A row of zeros, as long as any that is read."""


class OneRow(Place, kind="ones"):
    """A row of ones: one to be read again and again, or as many as are summed."""


class Seed(Place, kind="seed"):
    """The call's own: what draws start from. The number, no address."""


class FirstStep(Place, kind="first step"):
    """The call's own: its first step's number in the whole sequence. The number, no address."""


class ResultArray(Place, kind="result"):
    """Where the caller wants a result."""

    name: str


class CallersArray(Place, kind="caller's"):
    """What the caller gave, where the parameter's buffer is a copy of it."""

    buffer: str


# ---- numbers of the CPU ------------------------------------------------------------------------


class PartCount(CpuNumber, kind="parts"):
    """Threads that share the kernel."""


class SpinLimit(CpuNumber, kind="shared"):
    """0 where threads have rows of their own; else, how often one that shares units looks for the
    others before it sleeps."""


class ScratchBytes(CpuNumber, kind="scratch_bytes"):
    """Bytes of each thread's scratch."""


class OuterRows(CpuNumber, kind="n0"):
    """Turns of the outer level of a kernel over rows."""


class InnerRows(BoundNumber, kind="n1"):
    """Rows of the inner level of a kernel over rows."""


class BlockLimit(CpuNumber, kind="most rows"):
    """Rows that go through all levels of a kernel before the next ones, at most."""


class VectorCount(CpuNumber, kind="blocks"):
    """Vectors of a padded axis of this size."""

    size: str


class UnitBlocks(CpuNumber, kind="unit blocks"):
    """Vectors of each gate in a tile of the stage: a power of two."""

    stage: str


class UnitShift(CpuNumber, kind="unit shift"):
    """The logarithm of `UnitBlocks`."""

    stage: str


class TileCount(CpuNumber, kind="tiles"):
    """Tiles that the lanes of a row fall into."""

    stage: str


class RowTile(CpuNumber, kind="row tile"):
    """Rows of a tile, at most."""

    stage: str


class FetchesRows(CpuNumber, kind="fetch"):
    """1 where a tile's rows are asked for before its contraction, else 0."""

    stage: str


class TileRowBytes(CpuNumber, kind="tile row"):
    """Bytes of a row of a tile: its vectors of all gates."""

    stage: str
    group: int


class TableOffset(CpuNumber, kind="table"):
    """Bytes from the scratch's begin to the table of a group's segments."""

    stage: str
    group: int


class IsBegun(CpuNumber, kind="begun"):
    """1 where rows that a group goes on from are made before the loop, 0 where it makes them."""

    stage: str
    group: int


class StartStepStride(CpuNumber, kind="start step"):
    """Bytes from step to step of the rows that a group goes on from."""

    stage: str
    group: int


class StartRowStride(CpuNumber, kind="start row"):
    """Bytes from row to row of them."""

    stage: str
    group: int


class InitStride(CpuNumber, kind="init outer"):
    """Bytes from index to index of an outer axis of a group's packed constants."""

    stage: str
    group: int
    axis: int


class PackTileStride(CpuNumber, kind="pack tile"):
    """Bytes from tile to tile of packed weights."""

    stage: str
    group: int
    segment: int


class PackDepthStride(CpuNumber, kind="pack k"):
    """Bytes from index to index of a summed axis of packed weights, but the innermost."""

    stage: str
    group: int
    segment: int
    axis: int


class PackOuterStride(CpuNumber, kind="pack outer"):
    """Bytes from index to index of an outer axis of packed weights."""

    stage: str
    group: int
    segment: int
    axis: int


class PieceCount(CpuNumber, kind="desc count"):
    """Pieces that a copy falls into."""

    stage: str
    copy: str
    number: int


# ---- addresses of the CPU ----------------------------------------------------------------------


class SyncWords(Place, kind="sync"):
    """Words that threads wait for each other with."""


class ScratchBase(Place, kind="scratch_base"):
    """Scratch of the first thread; the others' follow it."""


class PackedWeights(Place, kind="pack"):
    """Weights of a group's segment in the order that cores read. The binder answers 0 where the sum
    is made elsewhere."""

    stage: str
    group: int
    segment: int


class PackedInit(Place, kind="init"):
    """Rows of constants that a group starts from, tile by tile."""

    stage: str
    group: int


class StartRows(Place, kind="start"):
    """Rows that a group goes on from: the binder names the buffer, or the constants instead."""

    stage: str
    group: int


class CoreTable(CodeAddress, kind="cores"):
    """A table of cores by their rows, for the tiles of a group."""

    stage: str
    group: int


class HelperCode(CodeAddress, kind="helper"):
    """A helper of whole rows."""

    name: str


class PieceTable(CodeAddress, kind="desc"):
    """Descriptions of the pieces that a copy falls into."""

    stage: str
    copy: str
    number: int


class StampBase(CodeAddress, kind="stamps"):
    """Where threads write when they did what: of a kernel that is timed."""


# ---- of a GPU ----------------------------------------------------------------------------------


class RowCount(CudaNumber, kind="rows"):
    """Rows that the kernel runs over."""


class MemberCount(CudaNumber, kind="members"):
    """Blocks that share the rows of one group."""


class GroupCount(CudaNumber, kind="groups"):
    """Groups of blocks, each with its rows."""


class WaitingBlocks(CudaNumber, kind="waiting"):
    """Blocks that wait for each other at every level."""


class Counters(Place, kind="counters"):
    """What blocks count up when they wait for each other."""


class StepSums(Place, kind="sums"):
    """Products of a step, of the group of this number, which a library makes between launches; the
    binder says how far from the first. None where the loop makes them itself."""

    group: int


class PartialSums(Place, kind="partial"):
    """Sums over parts of k, to be added up."""


class CopiedOperands(Place, kind="copies"):
    """Operands of products in an order that the library takes."""


def addresses(arguments: Iterable[KernelArgument]) -> set[str]:
    """The buffers that some arguments are addresses of."""
    return {a.buffer for a in arguments if isinstance(a, BufferAddress)}
