"""A recurrence over tensors of a GPU: CUDA kernels, on the stream that torch is using.

What `recurrence` and `gradients` do with NumPy's views is done with tensors here: steps are turned,
directions joined and masked ends filled by torch, on the device. A mask is read on the CPU, since
it decides how many steps run.

Non-Goals: second derivatives (`on_device_second`). Nothing here has run on a GPU yet: tests run it
over a simulated one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnncc.artifact.cell import STEP_FLAGS
from rnncc.common.result_roles import final_name
from rnncc.runtime.api.call import CellCall, CellKernels, kernels_for
from rnncc.runtime.api.call_gradients import DirectionSaved
from rnncc.runtime.api.masking import Masking
from rnncc.runtime.api.time_axis import Order
from rnncc.runtime.common.device_arrays import CARRIER
from rnncc.runtime.cuda.driver.target import Carrier
from rnncc.torch.base import RecurrenceBase
from rnncc.torch.recipe import ArgumentShapes, DirectionGradients


def is_elsewhere(tensor: Tensor) -> bool:
    """Whether a tensor isn't the CPU's."""
    return not tensor.is_cpu


def carrier_of(tensor: Tensor) -> Carrier:
    """Who hands tensors of that device in and out. TypeError for one that isn't NVIDIA's."""
    if not tensor.is_cuda:
        raise TypeError(f"rnncc has kernels for the CPU and for CUDA, not for {tensor.device}")
    from rnncc.runtime.cuda.arrays.torch_tensors import TorchArrays
    from rnncc.runtime.cuda.driver.device import device

    return TorchArrays(device(tensor.device.index or 0), tensor)


@dataclass(slots=True, weakref_slot=True)
class SavedOnDevice:
    """What a call leaves for its backward."""

    owner: OnDevice
    ways: list[DirectionSaved]
    known: ArgumentShapes
    given: bool
    masked: bool
    shapes: list[torch.Size]
    like: Tensor


class OnDevice:
    """A recurrence's calls over tensors of a GPU; tensors and results are those of `Recurrence`."""

    def __init__(self, recurrence: RecurrenceBase) -> None:
        self.of, recipe = recurrence, recurrence.recipe
        moved = getattr(recipe.layer_class.maker, "moved", None)
        if moved is None:
            raise TypeError(
                f"{recurrence.cell.name} is of a module written for the CPU: rnncc.compile makes "
                "classes whose layers run on a GPU"
            )
        self.binding = moved("cuda").bind(
            dict(recipe.options), dict(recipe.functions), recipe.dtype
        )
        self.engines: dict[tuple[bool, bool, str], CellKernels] = {}  # that ran

    # ---- forward ------------------------------------------------------------------------------

    def forward(
        self,
        tensors: Sequence[Tensor],
        seed: Tensor | None,
        training: bool,
        given: bool,
        masked: bool,
        save: bool,
    ) -> tuple[list[Tensor], SavedOnDevice | None]:
        of, carrier = self.of, carrier_of(tensors[0])
        self._check(tensors, masked)
        at = len(of.cell.arguments)
        arguments = dict(zip(of.cell.arguments, tensors[:at], strict=True))
        mask = tensors[at].detach().cpu().numpy() if masked else None
        at += masked
        states = tensors[at : at + len(of.states)] if given else ()
        weights = tensors[at + len(states) :]
        known = of.known(tensors[: len(arguments)], real=False)
        results: list[dict[str, Tensor]] = []
        ways: list[DirectionSaved] = []
        for number in range(len(of.orders)):
            call = self._call(number, arguments, weights, known, carrier)
            own = [t[number] if of.recipe.stacked else t for t in states]
            call.start(dict(zip(of.states, own, strict=False)), known.states)
            call.lent = frozenset(call.arrays) | set(STEP_FLAGS)
            if mask is not None:
                call.masks = of.masking(mask, known, of.orders[number])
            ran = call.run(training, seed, save)
            results.append(ran.results)
            ways.append(DirectionSaved.of(call, ran))
        shapes = [t.shape for t in tensors]
        kept = SavedOnDevice(self, ways, known, given, masked, shapes, tensors[0])
        return self._joined(results), kept if save else None

    def _call(
        self,
        number: int,
        arguments: Mapping[str, Tensor],
        weights: Sequence[Tensor],
        known: ArgumentShapes,
        carrier: Carrier,
    ) -> DeviceCall:
        """One direction's call: its weights, and arguments as its steps run."""
        of = self.of
        order, count = of.orders[number], len(of.owned)
        own = weights[number * count : (number + 1) * count]
        arrays: dict[str, Any] = dict(zip(of.owned, own, strict=True))
        arrays |= {n: run(order, t) if n in of.timed else t for n, t in arguments.items()}
        arrays[CARRIER] = carrier
        return DeviceCall(
            of.cell,
            of.recipe,
            arrays,
            known.sizes,
            known.batch,
            known.time,
            None,
            None,
            frozenset(),
            self,
            next(iter(arguments.values())),
        )

    def engine(self, training: bool, masked: bool, resets: str) -> CellKernels:
        """The kernels of such calls."""
        key = training, masked, resets
        kernels = self.engines.get(key)
        if kernels is None:
            recipe = self.of.recipe
            kernels = self.engines[key] = kernels_for(
                self.binding,
                self.of.rates,
                training=training,
                masked=masked,
                resets=resets,
                storage=recipe.storage,
                precision=recipe.precision,
                unroll=recipe.unroll,
            )
        return kernels

    def _check(self, tensors: Sequence[Tensor], masked: bool) -> None:
        """TypeError for a tensor of another device or dtype than the first."""
        of, first = self.of, tensors[0]
        mask = len(of.cell.arguments) if masked else -1
        for at, t in enumerate(tensors):
            if t.device != first.device and at != mask:
                raise TypeError(
                    f"{of.cell.name} is given tensors on {first.device} and {t.device}: move them "
                    "together"
                )
            if t.dtype is not of.torch_dtype and at != mask:
                raise TypeError(
                    f"{of.cell.name} is given {t.dtype}, its kernels are {of.torch_dtype}: make "
                    "them agree"
                )

    def _joined(self, found: list[dict[str, Tensor]]) -> list[Tensor]:
        """Results as they are given back: directions side by side, steps in the user's order."""
        of, joined = self.of, []
        for name in of.outputs:
            parts = [self.given(r[name], order) for r, order in zip(found, of.orders, strict=True)]
            joined.append(parts[0] if len(parts) == 1 else torch.cat(parts, -1))
        for state in of.states:
            finals = [r[final_name(state)] for r in found]
            joined.append(torch.stack(finals) if of.recipe.stacked else finals[0])
        return joined

    def given(self, output: Tensor, order: Order) -> Tensor:
        """An output, [batch, time, ...] as its steps ran, as the user has it; its own inverse."""
        if not self.of.recipe.return_sequences:
            return output
        if self.of.recipe.in_place and order.backwards:
            output = output.flip(1)
        return output.transpose(0, 1) if order.time_major else output

    # ---- backward -----------------------------------------------------------------------------

    def backward(
        self, saved: SavedOnDevice, cotangents: Sequence[Tensor | None], wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of a call's tensors, those wanted."""
        grads: list[Tensor | None] = [None] * len(saved.shapes)
        for number, way in enumerate(saved.ways):
            choice = self.of.choose(number, saved.given, saved.masked, wanted)
            gradients = way.backward(self.cotangents(number, saved, cotangents), choice.asked)
            self.collect(number, saved, choice, gradients, grads)
        return grads

    def cotangents(
        self, number: int, saved: SavedOnDevice, handed: Sequence[Tensor | None]
    ) -> dict[str, Tensor]:
        """One direction's, by name of result; of outputs [batch, steps, ...] as steps run."""
        of, way, order = self.of, saved.ways[number], self.of.orders[number]
        named: dict[str, Tensor] = {}
        for name, d in zip(of.results, handed, strict=True):
            if d is None:
                continue
            if name not in of.outputs:
                named[name] = d[number] if of.recipe.stacked else d
                continue
            if len(of.orders) > 1:
                d = d.chunk(len(of.orders), -1)[number]
            sequences = of.recipe.return_sequences
            named[name] = folded(self._back(d, order), way.masks) if sequences else d
        return named if of.recipe.return_sequences else way.over_time(named, saved.like.new_zeros)

    def _back(self, d: Tensor, order: Order) -> Tensor:
        """A cotangent of every step as the steps ran: the way back from `given`."""
        d = d.transpose(0, 1) if order.time_major else d
        return d.flip(1) if self.of.recipe.in_place and order.backwards else d

    def collect(
        self,
        number: int,
        saved: SavedOnDevice,
        choice: DirectionGradients,
        found: Mapping[str, Tensor],
        grads: list[Tensor | None],
    ) -> None:
        """Gradients by parameter into `grads`."""
        of, order = self.of, self.of.orders[number]
        for name, at in choice.arguments.items():
            gradient = found.get(name)
            if gradient is None:
                gradient = saved.like.new_zeros(saved.shapes[at])
            elif name in of.timed:
                gradient = given_back(order, gradient, saved.known.time)
            grads[at] = gradient if grads[at] is None else grads[at] + gradient
        for name, at in choice.states.items():
            d_state = grads[at] if grads[at] is not None else saved.like.new_zeros(saved.shapes[at])
            assert d_state is not None
            if name in found:
                (d_state[number] if of.recipe.stacked else d_state).copy_(found[name])
            grads[at] = d_state
        for name, at in choice.trained.items():
            gradient = found.get(name)
            if gradient is None:
                gradient = saved.like.new_zeros(saved.shapes[at])
            grads[at] = gradient.reshape(saved.shapes[at])


@dataclass(slots=True)
class DeviceCall(CellCall):
    """One direction of a call over tensors of a GPU. like: one of them."""

    device: OnDevice
    like: Tensor

    def kernels(self, training: bool, masked: bool, resets: str) -> CellKernels:
        return self.device.engine(training, masked, resets)

    def seed(self, given: Tensor | None) -> int:
        assert given is not None
        return int(given)

    def zeros(self, shape: tuple[int, ...]) -> Tensor:
        return self.like.new_zeros(shape)

    def repeated(self, array: Tensor, shape: tuple[int, ...]) -> Tensor:
        return repeated_rows(array, shape)

    def copy(self, array: Tensor) -> Tensor:
        return array.clone()

    def filled(self, results: dict[str, Tensor], places: Mapping[str, Any]) -> dict[str, Tensor]:
        filled, masks = dict(results), self.masks
        assert masks is not None
        for output in self.cell.outputs:
            ran = results[output.name]
            rest = ran[:, -1:].expand(-1, masks.time - masks.steps, *ran.shape[2:])
            filled[output.name] = torch.cat(
                [ran, torch.zeros_like(rest) if masks.zeros else rest], 1
            )
        return filled


def repeated_rows(row: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A new tensor, each row of which is this one."""
    return row.expand(shape).contiguous()


# ---- steps -----------------------------------------------------------------------------------


def run(order: Order, tensor: Tensor) -> Tensor:
    """A user's input, [batch, time, ...] as its steps run."""
    tensor = tensor.transpose(0, 1) if order.time_major else tensor
    return tensor.flip(1) if order.backwards else tensor


def given_back(order: Order, gradient: Tensor, time: int) -> Tensor:
    """The gradient of an input, over all its steps, as its user has them."""
    missing = time - gradient.shape[1]
    if missing:
        shape = (gradient.shape[0], missing, *gradient.shape[2:])
        gradient = torch.cat([gradient, gradient.new_zeros(shape)], 1)
    gradient = gradient.flip(1) if order.backwards else gradient
    return gradient.transpose(0, 1) if order.time_major else gradient


def folded(d: Tensor, masks: Masking | None) -> Tensor:
    """The cotangent of the steps that ran: the last one's output was repeated."""
    if masks is None or masks.steps == masks.time:
        return d
    ran = d[:, : masks.steps].clone()
    if masks.steps and not masks.zeros:
        ran[:, -1] += d[:, masks.steps :].sum(1)
    return ran
