"""mask=, lengths=, resets= -> which steps run, what stands at those that don't, what starts anew.

A masked step keeps every state and repeats the output; before a row's first valid step the output
is zero. The kernels do that (`lowering.lower`), up to the last step that is valid in any row: past
it nothing changes, so nothing runs, and outputs are filled and cotangents folded here.

    resets[b, t]      row b starts anew before step t: a boundary between t-1 and t
    behind[b, t]      what kernels read: behind step t, as steps run, the row's states are put back

A boundary is the same one in both directions: a row that runs backwards starts anew once it has
crossed it, before step t-1. A masked step has no states to start with, so that a boundary before
one acts at the next valid step.

Non-Goals: the equations of a masked step; what states start from (`call`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.artifact.cell import RESTART, SHOWN, VALID
from rnncc.runtime.api.validation import flag_array

Arrays = dict[str, np.ndarray]
WANTED = "bools, True where a row starts anew before a step"


@dataclass(slots=True)
class Restarts:
    """Where the rows of a call start anew, as its steps run.

    behind: [batch, steps], never behind the last one; None where no row does. at_once: [batch],
    rows that do so before their first valid step; that matters where they don't start anyway, but
    go on. pending: [batch], rows that do so behind their last one: whoever goes on with them
    starts them.
    """

    behind: np.ndarray | None
    at_once: np.ndarray
    pending: np.ndarray


@dataclass(frozen=True, slots=True)
class Masking:
    """What a mask asks of one call.

    valid: [batch, steps] of the steps that run, or None where they all are valid. steps: how many
    run, of `time`. zeros: masked steps' outputs are zeros rather than repeated. restarts: where
    rows start anew, None where nobody asked for any.
    """

    valid: np.ndarray | None
    steps: int
    time: int
    zeros: bool
    restarts: Restarts | None = None

    @property
    def behind(self) -> np.ndarray | None:
        """[batch, steps], behind which steps a row starts anew; None where no row does."""
        return self.restarts.behind if self.restarts is not None else None

    def cut(self, arrays: Mapping[str, Any], inputs: Iterable[str]) -> dict[str, Any]:
        """The arguments of a call that runs `steps` steps."""
        cut = dict(arrays)
        if self.valid is not None:
            cut[VALID] = self.valid
            # Outputs are zeros before a row's first valid step, if not at every masked one.
            seen = self.valid if self.zeros else np.logical_or.accumulate(self.valid, axis=1)
            cut[SHOWN] = seen
        if self.behind is not None:
            cut[RESTART] = self.behind
        if self.steps < self.time:
            cut |= {n: arrays[n][:, : self.steps] for n in inputs}
        return cut

    def fill(self, output: np.ndarray) -> None:
        """Writes the steps of an output, [batch, time, ...], that didn't run."""
        last = output[:, self.steps - 1 : self.steps]
        output[:, self.steps :] = 0 if self.zeros else last

    def fold(self, d: np.ndarray) -> np.ndarray:
        """The cotangent of the steps that ran, out of [batch, time, ...]."""
        if self.steps == self.time:
            return d
        folded = d[:, : self.steps].copy()
        if self.steps and not self.zeros:
            # The last step first, one by one: as they are added where these steps run.
            tail = d[:, self.steps :][:, ::-1]
            folded[:, -1] += tail.cumsum(axis=1, dtype=d.dtype)[:, -1]
        return folded

    def unfold(self, d: np.ndarray) -> np.ndarray:
        """What `fold` is the transpose of, the other way: every step that was folded gets what the
        last one that ran has."""
        if self.steps == self.time:
            return d
        every_step = np.empty((len(d), self.time, *d.shape[2:]), d.dtype)
        every_step[:, : self.steps] = d
        self.fill(every_step)
        return every_step


def masking(
    mask: Any,
    lengths: Any,
    batch: int,
    time: int,
    *,
    zeros: bool,
    backwards: bool,
    resets: Any = None,
) -> Masking | None:
    """What a call's mask= or lengths= and its resets= ask for; None where every step is valid and
    no row starts anew. backwards: the last step runs first.

    TypeError: mask and lengths are both given, or what is given holds other than bools (a mask,
    resets) or ints. ValueError: another shape than [batch, time] or [batch]; values that are out of
    range.
    """
    if mask is not None and lengths is not None:
        raise TypeError("mask and lengths are both given: give one of them")
    valid, steps = None, time
    if lengths is not None:
        valid = np.asarray(np.arange(time) < _lengths(lengths, batch, time)[:, None])
    elif mask is not None:
        valid = _mask(mask, batch, time)
    if valid is not None:
        valid = valid[:, ::-1] if backwards else valid
        used = np.flatnonzero(valid.any(axis=0))
        steps = int(used[-1]) + 1 if used.size else 0
        valid = None if valid[:, :steps].all() else np.ascontiguousarray(valid[:, :steps])
    anew = None
    if resets is not None:
        anew = restarts(resets, batch, time, valid=valid, steps=steps, backwards=backwards)
    if valid is None and anew is None and steps == time:
        return None
    return Masking(valid, steps, time, zeros, anew)


def _mask(given: Any, batch: int, time: int) -> np.ndarray:
    """[batch, time] of bools."""
    array = flag_array("mask", given, "bools, True where a step counts")
    if array.dtype.kind not in "biu":
        raise TypeError(f"mask holds {array.dtype} values: give bools, True where a step counts")
    if array.shape != (batch, time):
        raise ValueError(f"mask has shape {list(array.shape)}, expected [batch={batch}, {time=}]")
    if array.dtype.kind != "b" and ((array != 0) & (array != 1)).any():
        wrong = array[(array != 0) & (array != 1)][0]
        raise ValueError(f"mask holds {wrong}: give bools, or 0 and 1")
    return array.astype(bool)


def _lengths(given: Any, batch: int, time: int) -> np.ndarray:
    """[batch] of ints in 0 ... time."""
    array = flag_array("lengths", given, f"ints in 0 ... {time}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths holds {array.dtype} values: give ints in 0 ... {time}")
    if array.shape != (batch,):
        raise ValueError(f"lengths has shape {list(array.shape)}, expected [batch={batch}]")
    if ((array < 0) | (array > time)).any():
        row = int(((array < 0) | (array > time)).argmax())
        raise ValueError(f"lengths[{row}] is {array[row]}: a length is in 0 ... {time}, the steps")
    return array.astype(np.int64)


# ---- resets ------------------------------------------------------------------------------------


def restarts(
    resets: Any,
    batch: int,
    time: int,
    *,
    valid: np.ndarray | None = None,
    steps: int | None = None,
    backwards: bool = False,
) -> Restarts | None:
    """What resets= [batch, time] ask for; None where no row starts anew. valid: [batch, steps] as
    they run, of those that do; None where they all count. backwards: the last step runs first.

    TypeError: tensors that ask for gradients, values that are no numbers. ValueError: others than 0
    and 1; another shape.
    """
    given = flags_of(resets, (batch, time))
    steps = time if steps is None else steps
    if valid is None and steps == time and time and not backwards:  # the same, sooner
        behind = np.zeros((batch, time), bool)
        behind[:, :-1] = given[:, 1:]
        return _some(behind, given[:, 0], np.zeros(batch, bool))
    boundaries = np.zeros((batch, time + 1), bool)
    boundaries[:, :-1] = given
    return _crossed(boundaries[:, ::-1] if backwards else boundaries, valid, steps)


def _crossed(boundaries: np.ndarray, valid: np.ndarray | None, steps: int) -> Restarts | None:
    """boundaries: [batch, time + 1], before which steps as they run, and behind the last one."""
    batch = len(boundaries)
    # How many boundaries a row has crossed at a step, and at the valid one before it.
    crossed = boundaries.cumsum(axis=1, dtype=np.int64)
    ran = crossed[:, :steps] if valid is None else np.where(valid, crossed[:, :steps], 0)
    before = np.zeros((batch, steps + 1), np.int64)
    np.maximum.accumulate(ran, axis=1, out=before[:, 1:])
    anew = crossed[:, :steps] > before[:, :-1]
    anew = anew if valid is None else anew & valid
    rows, first = _first(valid, batch, steps)
    at_once = np.zeros(batch, bool)
    at_once[rows] = anew[rows, first]
    anew[rows, first] = False
    behind = np.zeros((batch, steps), bool)
    behind[:, :-1] = anew[:, 1:]
    return _some(behind, at_once, crossed[:, -1] > before[:, -1])


def _some(behind: np.ndarray, at_once: np.ndarray, pending: np.ndarray) -> Restarts | None:
    if np.count_nonzero(behind):  # any() takes five times as long
        return Restarts(behind, at_once, pending)
    return Restarts(None, at_once, pending) if (at_once | pending).any() else None


def _first(valid: np.ndarray | None, batch: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows that have a valid step, and the first one of each."""
    if not steps:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if valid is None:
        return np.arange(batch), np.zeros(batch, np.int64)
    rows = np.flatnonzero(valid.any(axis=1))
    return rows, valid.argmax(axis=1)[rows]


def flags_of(resets: Any, *shapes: tuple[int, ...]) -> np.ndarray:
    """Bools of one of these shapes, not to be changed. Environments say `done` in bools, ints or
    floats, so all of these will do."""
    if getattr(resets, "requires_grad", False):
        raise TypeError(f"resets asks for a gradient, but has none: give {WANTED}, or detach it")
    array = flag_array("resets", resets, WANTED)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"resets holds {array.dtype} values: give {WANTED}")
    if array.shape not in shapes:
        pairs = (zip(("batch", "time"), shape, strict=False) for shape in shapes)
        expected = (", ".join(f"{axis}={n}" for axis, n in own) for own in pairs)
        shown = " or ".join(f"[{own}]" for own in expected)
        raise ValueError(f"resets has shape {list(array.shape)}, expected {shown}")
    if array.dtype.kind == "b":
        return array
    wrong = array[(array != 0) & (array != 1)]
    if wrong.size:
        raise ValueError(f"resets holds {wrong[0]}: give bools, or 0 and 1")
    return array.astype(bool)


def turned_behind(behind: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """`Restarts.behind` of the same boundaries for steps that run the other way. valid: as they run
    this way."""
    boundaries = np.zeros((behind.shape[0], behind.shape[1] + 1), bool)
    boundaries[:, 1:] = behind
    back = None if valid is None else valid[:, ::-1]
    found = _crossed(boundaries[:, ::-1], back, behind.shape[1])
    return np.zeros_like(behind) if found is None or found.behind is None else found.behind
