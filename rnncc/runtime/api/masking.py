"""mask= and lengths= -> which steps run, and what stands at those that don't.

A masked step keeps every state and repeats the output; before a row's first valid step the output
is zero. The kernels do that (`lowering.lower`), up to the last step that is valid in any row: past
it nothing changes, so nothing runs, and outputs are filled and cotangents folded here.

Non-Goals: the equations of a masked step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncc.artifact.cell import SHOWN, VALID
from rnncc.runtime.api.validation import an
from rnncc.runtime.common.device_arrays import is_on_gpu

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Masking:
    """What a mask asks of one call.

    valid: [batch, steps] of the steps that run, or None where they all are valid. steps: how many
    run, of `time`. zeros: masked steps' outputs are zeros rather than repeated.
    """

    valid: np.ndarray | None
    steps: int
    time: int
    zeros: bool

    def cut(self, arrays: Mapping[str, Any], inputs: Iterable[str]) -> dict[str, Any]:
        """The arguments of a call that runs `steps` steps."""
        cut = dict(arrays)
        if self.valid is not None:
            cut[VALID] = self.valid
            # Outputs are zeros before a row's first valid step, if not at every masked one.
            seen = self.valid if self.zeros else np.logical_or.accumulate(self.valid, axis=1)
            cut[SHOWN] = seen
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
    mask: Any, lengths: Any, batch: int, time: int, *, zeros: bool, backwards: bool
) -> Masking | None:
    """What a call's mask= or lengths= asks for; None where every step is valid. backwards: the
    last step runs first.

    TypeError: both are given, or what is given holds other than bools (a mask) or ints.
    ValueError: another shape than [batch, time] or [batch]; values that are out of range.
    """
    if mask is not None and lengths is not None:
        raise TypeError("mask and lengths are both given: give one of them")
    valid: np.ndarray
    if lengths is not None:
        valid = np.asarray(np.arange(time) < _lengths(lengths, batch, time)[:, None])
    else:
        valid = _mask(mask, batch, time)
    if backwards:
        valid = valid[:, ::-1]
    used = np.flatnonzero(valid.any(axis=0))
    steps = int(used[-1]) + 1 if used.size else 0
    valid = valid[:, :steps]
    if valid.all():
        return None if steps == time else Masking(None, steps, time, zeros)
    return Masking(np.ascontiguousarray(valid), steps, time, zeros)


def _mask(given: Any, batch: int, time: int) -> np.ndarray:
    """[batch, time] of bools."""
    array = _array("mask", given, "bools, True where a step counts")
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
    array = _array("lengths", given, f"ints in 0 ... {time}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths holds {array.dtype} values: give ints in 0 ... {time}")
    if array.shape != (batch,):
        raise ValueError(f"lengths has shape {list(array.shape)}, expected [batch={batch}]")
    if ((array < 0) | (array > time)).any():
        row = int(((array < 0) | (array > time)).argmax())
        raise ValueError(f"lengths[{row}] is {array[row]}: a length is in 0 ... {time}, the steps")
    return array.astype(np.int64)


def _array(name: str, given: Any, wanted: str) -> np.ndarray:
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: give {wanted}")
    if is_on_gpu(given):  # what steps run is decided on the CPU
        given = given.get() if hasattr(given, "get") else given.cpu()
    try:
        array = np.asarray(given)
    except (ValueError, RuntimeError) as error:  # RuntimeError: a tensor of a graph, of torch
        raise ValueError(f"{name} can't become an array: {error}") from None
    if not array.ndim and not isinstance(given, np.ndarray | np.generic):
        raise TypeError(f"{name} is {an(type(given).__name__)}: give an array of {wanted}")
    return array
