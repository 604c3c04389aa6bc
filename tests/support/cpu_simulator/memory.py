"""Memory of a simulated machine: every byte knows whether it may be touched, and whether it was
written.

Addresses are of a space of our own, where arrays lie far apart, so an access behind the end of one
is never inside of another. A read of what nobody wrote is no fault by itself, since vectors reach
into padding: what was read is carried along with the lanes it was read into (`lanes`), and it is a
fault where an address, a branch or a result is made of it.

Non-Goals: what reads and writes (`lanes`, `words`); threads (`threads`), but for who touched what.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from rnncc.runtime.common.memory_pool import Lease, aligned
from rnncc.runtime.cpu.kernels.executor import Region
from tests.support.cpu_simulator.places import Site, site

UNWRITTEN, WRITTEN, OUTSIDE, BEHIND = range(4)
SHIFT = 32
INSIDE = (1 << SHIFT) - 1
GRANULE = 4  # bytes that are told apart where threads touch them
DTYPES = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
DTYPES["int32"], DTYPES["int8"] = np.dtype(np.int32), np.dtype(np.int8)


class KernelFault(AssertionError):
    """An access that a machine would not report, or a number made of one."""


class Race(KernelFault):
    """Two threads, one place, nothing that orders them."""


class Piece:
    """One array's bytes. state: of each; origins: where what is in unwritten ones came from."""

    __slots__ = (
        *("address", "data", "laid", "name", "origins", "ours", "read_in", "ref", "regions"),
        *("shape", "start", "state", "states", "strides", "touched", "views", "words"),
        *("readers", "writable", "writers", "written"),
    )

    def __init__(self, address: int, low: int, size: int, array: np.ndarray, ours: bool) -> None:
        self.address, self.ours = address, ours
        whole = -(-size // 8) * 8 if ours else size
        self.data = np.frombuffer((ctypes.c_uint8 * whole).from_address(low), np.uint8)
        self.words = memoryview(self.data[: whole // 8 * 8]).cast("B").cast("q")
        self.views = {n: self.data[: whole // t.itemsize * t.itemsize].view(t) for n, t in _sized()}
        self.start = array.__array_interface__["data"][0] - low  # of the first element
        self.shape, self.strides = array.shape, array.strides
        self.state = bytearray([OUTSIDE]) * size
        self.states = np.frombuffer(self.state, np.uint8)
        self.origins = np.zeros(0, np.int32)  # by byte; made by the first that is known
        self.regions: list[Region] = []
        self.laid: dict[str, Region] = {}
        self.name, self.writable = "an array", False
        self.read_in = -1  # the last run that reads it
        self.touched = -1  # the launch that writers and readers are of
        self.written = False  # by any part, in that launch
        self.writers: Any = None
        self.readers: Any = None

    def elements(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """The bytes of the array's elements, and their states; without what lies between."""
        shape, strides = (*self.shape, item), (*self.strides, 1)
        return tuple(  # type: ignore[return-value]
            np.ndarray(shape, np.uint8, buffer.data, self.start, strides)
            for buffer in (self.data, self.states)
        )

    def region(self, at: int) -> str:
        """What is there, for people."""
        for r in self.regions:
            begin = r.place.offset
            if begin <= at < begin + r.size:
                return f"`{r.name}` + {at - begin} (of {r.size} bytes)"
        if not self.regions:
            return f"{self.name} {list(self.shape)} at byte {at} of {len(self.state)}"
        behind = [r for r in self.regions if r.place.offset + r.size <= at]
        if not behind:
            return f"{self.name}, in front of everything"
        last = max(behind, key=lambda r: r.place.offset)
        return (
            f"{at - last.place.offset - last.size} bytes behind `{last.name}` ({last.size} bytes)"
        )


def _sized() -> list[tuple[str, np.dtype]]:
    return [*DTYPES.items()]


class Space:
    """All arrays that kernels may be given. threads: parts that may run at the same time."""

    def __init__(self, threads: int) -> None:
        self.pieces: dict[int, Piece] = {}
        self.known: dict[int, Piece] = {}  # by the array's id
        self.next = 1
        self.run = 0
        self.sites: list[Site] = [Site((), "")]
        self.site_numbers: dict[tuple[object, int, str], int] = {}
        self.part = -1  # who runs, where several parts of a launch do; else -1
        self.launch = 0
        self.threads = threads
        self.clocks = np.zeros((threads, threads), np.int64)

    # ---- arrays ---------------------------------------------------------------------------------

    def enter(self, array: np.ndarray, ours: bool = False) -> Piece:
        """The array's place, the same one for as long as it lives."""
        found = self.known.get(id(array))
        if found is not None and found.ref() is array:
            return found
        low, high = np.lib.array_utils.byte_bounds(array)
        number, self.next = self.next, self.next + 1
        piece = Piece(number << SHIFT, low, max(high - low, 1), array, ours)
        key = id(array)

        def gone(_: object) -> None:
            self.pieces.pop(number, None)
            if self.known.get(key) is piece:
                del self.known[key]

        piece.ref = weakref.ref(array, gone)
        self.pieces[number], self.known[key] = piece, piece
        return piece

    def given(self, array: np.ndarray) -> int:
        """The address of an array whose elements may be read."""
        piece = self.enter(array)
        if not piece.ours and piece.read_in != self.run:
            if array.size:
                piece.elements(array.itemsize)[1][...] = WRITTEN
            piece.read_in, piece.writable = self.run, False
        return piece.address + piece.start

    def blank(self, array: np.ndarray) -> int:
        """The address of an array whose elements are to be written; what is in it is gone, unless
        it is read as well."""
        piece = self.enter(array)
        reads = [p for p in self.pieces.values() if p.read_in == self.run and p is not piece]
        if piece.read_in != self.run and not any(_overlap(p, array) for p in reads):
            if array.size:
                data, states = piece.elements(array.itemsize)
                data[...], states[...] = 255, UNWRITTEN
            piece.origins[...] = 0
        piece.writable = True
        return piece.address + piece.start

    def forget(self, array: np.ndarray) -> None:
        piece = self.known.pop(id(array), None)
        if piece is not None:
            self.pieces.pop(piece.address >> SHIFT, None)

    def at(self, address: int) -> Piece:
        piece = self.pieces.get(address >> SHIFT)
        if piece is None:
            raise self.fault(f"address {address:#x} is of no array, or of one that is gone")
        return piece

    def lay_out(self, piece: Piece, regions: Sequence[Region], reach: int = 0) -> None:
        """Says what is in memory of our own; it stays if it was said before. reach: bytes behind
        each that may be read without being used."""
        for r in regions:
            old = piece.laid.get(r.name)
            if old is not None:
                if old != r:
                    raise self.fault(f"`{r.name}` was laid out as {old}, now as {r}")
                continue
            piece.laid[r.name] = r
            piece.regions.append(r)
            at = r.place.offset
            if at < 0 or at + r.size > len(piece.state):
                raise self.fault(f"`{r.name}` at {at}, {r.size} bytes, of {len(piece.state)}")
            other = piece.states[at : at + r.size]
            if (other < OUTSIDE).any():
                raise self.fault(f"`{r.name}` lies over {piece.region(at)}")
            other[...] = UNWRITTEN
            behind = piece.states[at + r.size : at + r.size + reach]
            behind[behind == OUTSIDE] = BEHIND
        piece.writable = True

    # ---- faults ---------------------------------------------------------------------------------

    def fault(self, what: str, kind: type[KernelFault] = KernelFault) -> KernelFault:
        who = f", by part {self.part}" if self.part >= 0 else ""
        return kind(f"{what}{who}\n{site()}")

    def outside(self, piece: Piece, at: int, size: int, what: str) -> KernelFault:
        states = piece.states[max(at, 0) : at + size]
        wrong = np.flatnonzero(states >= OUTSIDE)
        first = at + int(wrong[0]) if wrong.size else len(piece.state)
        return self.fault(f"{what} of {size} bytes, outside: {piece.region(first)}")

    def origin(self, piece: Piece, at: int) -> int:
        """A number for what is read there without having been written."""
        known = int(piece.origins[at])
        if known:
            return known
        found = site()
        key = (*found.key, piece.region(at).split(" ")[0])
        number = self.site_numbers.get(key)
        if number is None:
            number = self.site_numbers[key] = len(self.sites)
            found.what = f"{piece.region(at)}, which nobody had written, was read"
            self.sites.append(found)
        piece.origins[at] = number
        return number

    def _origins(self, piece: Piece, at: int, size: int, item: int) -> np.ndarray:
        """A number for each element there, 0 where none is known."""
        if not len(piece.origins):
            piece.origins = np.zeros(len(piece.state), np.int32)
        return piece.origins[at : at + size : item]

    # ---- bytes ----------------------------------------------------------------------------------

    def place(self, address: int, size: int, what: str) -> tuple[Piece, int]:
        """The piece and where in it; that all bytes are inside."""
        piece = self.pieces.get(address >> SHIFT)
        if piece is None:
            raise self.fault(f"{what} at {address:#x}, of no array, or of one that is gone")
        at = address & INSIDE
        if at + size > len(piece.state) or piece.state.find(OUTSIDE, at, at + size) >= 0:
            raise self.outside(piece, at, size, what)
        return piece, at

    def read(self, address: int, count: int, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Elements, and the origins of those that nobody wrote (0 of others)."""
        kind = DTYPES[dtype]
        item = kind.itemsize
        size = count * item
        piece, at = self.place(address, size, "a read")
        values = self._view(piece, at, count, kind, dtype).copy()
        if self.part >= 0:
            self.touch_read(piece, at, size)
        if piece.state.find(UNWRITTEN, at, at + size) < 0 and (
            not piece.ours or piece.state.find(BEHIND, at, at + size) < 0
        ):
            return values, None
        unwritten = (piece.states[at : at + size].reshape(count, item) != WRITTEN).any(1)
        bad = np.where(unwritten, self._origins(piece, at, size, item), 0)
        for lane in np.flatnonzero(unwritten & (bad == 0)).tolist():
            bad[lane] = self.origin(piece, at + lane * item)
        return values, bad

    def write(self, address: int, values: np.ndarray, dtype: str, bad: np.ndarray | None) -> None:
        kind = DTYPES[dtype]
        item, count = kind.itemsize, len(values)
        size = count * item
        piece, at = self.place(address, size, "a write")
        if not piece.writable:
            raise self.fault(f"a write to what is only to be read: {piece.region(at)}")
        if piece.ours and piece.state.find(BEHIND, at, at + size) >= 0:
            raise self.outside(piece, at, size, "a write")
        view = self._view(piece, at, count, kind, dtype)
        if self.part >= 0:
            self.touch_write(piece, at, size, view, values)
        view[...] = values
        if bad is None:
            piece.state[at : at + size] = _ONES[size]
            return
        states = piece.states[at : at + size].reshape(count, item)
        states[...] = np.where(bad > 0, UNWRITTEN, WRITTEN)[..., None]
        self._origins(piece, at, size, item)[...] = bad

    def _view(self, piece: Piece, at: int, count: int, kind: np.dtype, dtype: str) -> np.ndarray:
        first, rest = divmod(at, kind.itemsize)
        if not rest:
            return piece.views[dtype][first : first + count]
        if piece.ours:
            raise self.fault(f"{dtype} at a misaligned address: {piece.region(at)}")
        return np.frombuffer(piece.data.data, kind, count, at)

    def word(self, address: int) -> int:
        """An integer; addresses and branches are made of it, so it must have been written."""
        piece, at = self.place(address, 8, "a read of a word")
        if piece.state.find(UNWRITTEN, at, at + 8) >= 0:
            raise self.fault(f"a word that nobody wrote is read: {piece.region(at)}")
        if at & 7:
            raise self.fault(f"a word at a misaligned address: {piece.region(at)}")
        if self.part >= 0:
            self.touch_read(piece, at, 8)
        return piece.words[at >> 3]

    def set_word(self, address: int, value: int) -> None:
        piece, at = self.place(address, 8, "a write of a word")
        if at & 7 or not piece.writable:
            raise self.fault(f"a word is written where none belongs: {piece.region(at)}")
        if self.part >= 0:
            new = np.array([value], np.int64)
            self.touch_write(piece, at, 8, np.frombuffer(piece.data.data, np.int64, 1, at), new)
        piece.words[at >> 3] = value
        piece.state[at : at + 8] = _ONES[8]

    # ---- who touched what -----------------------------------------------------------------------

    def _stamps(self, piece: Piece) -> None:
        """Nobody has touched it in this launch."""
        count = len(piece.state) // GRANULE + 1
        piece.touched, piece.written = self.launch, False
        piece.writers = np.zeros((self.threads, count), np.int32)
        piece.readers = np.zeros((self.threads, count), np.int32)

    def touch_read(self, piece: Piece, at: int, size: int) -> None:
        if piece.touched != self.launch:
            self._stamps(piece)
        me, low, high = self.part, at // GRANULE, (at + size + GRANULE - 1) // GRANULE
        clock = self.clocks[me]
        if piece.written:
            writers = piece.writers[:, low:high]
            late = writers > clock[:, None]
            if late.any():
                known = (writers > 0) & ~late
                known[me] = writers[me] > 0
                unknown = late.any(0) & ~known.any(0)
                if unknown.any():
                    spot = int(unknown.argmax())
                    other = int(late[:, spot].argmax())
                    where = piece.region((low + spot) * GRANULE)
                    what = f"a read of what part {other} writes at the same time: {where}"
                    raise self.fault(what, Race)
        piece.readers[me, low:high] = clock[me]

    def touch_write(
        self, piece: Piece, at: int, size: int, old: np.ndarray, new: np.ndarray
    ) -> None:
        if piece.touched != self.launch:
            self._stamps(piece)
        me, low, high = self.part, at // GRANULE, (at + size + GRANULE - 1) // GRANULE
        clock = self.clocks[me]
        seen = clock[:, None]
        if piece.written:
            writers = piece.writers[:, low:high]
            late = writers > seen
            late[me] = False
            if late.any():
                if old.tobytes() == new.astype(old.dtype).tobytes():
                    writers[me] = clock[me]  # a value of no row: whoever runs rows writes it
                    return
                raise self._raced(piece, low, late, "writes")
            writers[...] = 0
        late = piece.readers[:, low:high] > seen
        late[me] = False
        if late.any():
            raise self._raced(piece, low, late, "reads")
        piece.written = True
        piece.writers[me, low:high] = clock[me]

    def _raced(self, piece: Piece, low: int, late: np.ndarray, what: str) -> KernelFault:
        other, spot = (int(n[0]) for n in np.nonzero(late))
        where = piece.region((low + spot) * GRANULE)
        return self.fault(f"a write of what part {other} {what} at the same time: {where}", Race)


_ONES = [bytes([WRITTEN]) * n for n in range(4097)]


def _overlap(piece: Piece, array: np.ndarray) -> bool:
    other = piece.ref()
    return other is not None and bool(np.may_share_memory(other, array))


class Pool:
    """A `memory_pool.Pool` that never gives the same memory twice."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def take(self, size: int) -> np.ndarray:
        array = aligned(-(-max(size, 1) // 8) * 8, np.uint8)
        array[...] = 255
        self.space.enter(array, ours=True)
        return array

    def give(self, workspace: np.ndarray) -> None:
        self.space.forget(workspace)

    def lease(self, size: int) -> Lease:
        return Lease(self.take(size), self)  # type: ignore[arg-type]

    def borrow(self, size: int) -> Any:
        return _Borrowed(self, size)

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[...] = 255
        return array


class _Borrowed:
    def __init__(self, pool: Pool, size: int) -> None:
        self.pool, self.array = pool, pool.take(size)

    def __enter__(self) -> np.ndarray:
        return self.array

    def __exit__(self, *_: object) -> None:
        self.pool.give(self.array)
