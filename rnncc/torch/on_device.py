"""A recurrence over tensors of a GPU: CUDA kernels, on the stream that torch is using.

What `recurrence` and `gradients` do with NumPy's views is done with tensors here: steps are turned,
directions joined and masked ends filled by torch, on the device. A mask is read on the CPU, since
it decides how many steps run.

Non-Goals: second derivatives (`on_device_second`). Nothing here has run on a GPU yet: tests run it
over a simulated one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnncc.artifact.cell import Variant, variant_of
from rnncc.runtime.api.masking import Masking, masking
from rnncc.runtime.api.time_axis import Order
from rnncc.runtime.common.precision import PRECISION
from rnncc.runtime.cuda.driver.target import CARRIER, Carrier
from rnncc.torch.recipe import ArgumentShapes, DirectionGradients

if TYPE_CHECKING:
    from rnncc.torch.recurrence import Recurrence


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


@dataclass(slots=True)
class _Way:
    """One direction of one call; no engine where nothing ran."""

    engine: Any
    saved: Any
    masks: Masking | None
    steps: int
    variant: Variant | None = None


@dataclass(slots=True, weakref_slot=True)
class SavedOnDevice:
    """What a call leaves for its backward."""

    owner: OnDevice
    ways: list[_Way]
    known: ArgumentShapes
    given: bool
    masked: bool
    shapes: list[torch.Size]
    like: Tensor


def on_device(recurrence: Recurrence) -> OnDevice:
    """The recurrence's other half, made when a tensor of a GPU first comes."""
    found: OnDevice | None = recurrence.__dict__.get("_on_device")
    if found is None:
        found = recurrence.__dict__["_on_device"] = OnDevice(recurrence)
    return found


class OnDevice:
    """A recurrence's calls over tensors of a GPU; tensors and results are those of `Recurrence`."""

    def __init__(self, recurrence: Recurrence) -> None:
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
        self.engines: dict[Variant, Any] = {}  # that ran

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
        mask = tensors[at] if masked else None
        at += masked
        states = tensors[at : at + len(of.states)] if given else ()
        weights = tensors[at + len(states) :]
        known = of.known(tensors[: len(arguments)], real=False)
        count = len(of.owned)
        found: list[dict[str, Tensor]] = []
        ways: list[_Way] = []
        for number, order in enumerate(of.orders):
            own = weights[number * count : (number + 1) * count]
            arrays: dict[str, Any] = dict(zip(of.owned, own, strict=True))
            arrays |= {n: run(order, t) if n in of.timed else t for n, t in arguments.items()}
            arrays |= self._begin(arrays, states, number, known, tensors[0])
            masks = self._masking(mask, known, order)
            steps = masks.steps if masks else known.time
            if not (known.batch and steps):
                found.append(self._nothing(arrays, known, tensors[0]))
                ways.append(_Way(None, None, masks, 0))
                continue
            variant = variant_of(
                of.cell,
                of.rates,
                training=training,
                mask=masks is not None and masks.valid is not None,
                storage=of.recipe.storage,
            )
            engine = self.engines[variant] = self.binding.engine(variant)
            arrays |= of.rates
            if variant.training:
                assert seed is not None
                arrays["seed"] = int(seed)
            arrays[CARRIER] = carrier
            arrays[PRECISION] = of.recipe.precision
            results, saved = engine.forward(
                masks.cut(arrays, of.timed) if masks else arrays,
                known.sizes,
                known.batch,
                steps,
                version=None,
                save=save,
                last_only=not of.recipe.return_sequences,
                checkpoint_every=of.recipe.checkpoint_every if save else None,
                lent=frozenset(arrays) | {"valid", "_shown"},
            )
            found.append(self._filled(results, masks))
            ways.append(_Way(engine, saved, masks, steps, variant))
        shapes = [t.shape for t in tensors]
        kept = SavedOnDevice(self, ways, known, given, masked, shapes, tensors[0])
        return self._joined(found), kept if save else None

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

    def _begin(
        self,
        arrays: dict[str, Any],
        states: Sequence[Tensor],
        number: int,
        known: ArgumentShapes,
        like: Tensor,
    ) -> dict[str, Tensor]:
        """The initial states: the given ones, what the cell declares, or zeros."""
        of = self.of
        if states:
            own = [t[number] if of.recipe.stacked else t for t in states]
            return dict(zip(of.states, own, strict=True))
        found = {}
        for state, shape in zip(of.cell.states, known.results[len(of.outputs) :], strict=True):
            own_shape = shape[1:] if of.recipe.stacked else shape
            if state.default:
                found[state.name] = arrays[state.default].expand(own_shape).contiguous()
            else:
                found[state.name] = like.new_zeros(own_shape)
        return found

    def _masking(self, mask: Tensor | None, known: ArgumentShapes, order: Order) -> Masking | None:
        if mask is None:
            return None
        values, lengths = mask.detach().cpu().numpy(), mask.ndim == 1
        return masking(
            None if lengths else values,
            values if lengths else None,
            known.batch,
            known.time,
            zeros=self.of.recipe.zeros,
            backwards=order.backwards,
        )

    def _nothing(
        self, arrays: dict[str, Any], known: ArgumentShapes, like: Tensor
    ) -> dict[str, Tensor]:
        """No row or no step: outputs are empty or zero, the last states are the first."""
        of = self.of
        lead = (known.batch, known.time) if of.recipe.return_sequences else (known.batch,)
        found = {}
        for name, shape in zip(of.outputs, known.results, strict=False):
            rest = shape[len(lead) :]
            if rest:
                rest = (*rest[:-1], rest[-1] // len(of.orders))
            found[name] = like.new_zeros((*lead, *rest))
        return found | {f"final_{s}": arrays[s].clone() for s in of.states}

    def _filled(self, results: dict[str, Tensor], masks: Masking | None) -> dict[str, Tensor]:
        """Outputs of all steps, those that didn't run too."""
        if masks is None or masks.steps == masks.time or not self.of.recipe.return_sequences:
            return results
        filled = dict(results)
        for name in self.of.outputs:
            ran = results[name]
            rest = ran[:, -1:].expand(-1, masks.time - masks.steps, *ran.shape[2:])
            filled[name] = torch.cat([ran, torch.zeros_like(rest) if masks.zeros else rest], 1)
        return filled

    def _joined(self, found: list[dict[str, Tensor]]) -> list[Tensor]:
        """Results as they are given back: directions side by side, steps in the user's order."""
        of, joined = self.of, []
        for name in of.outputs:
            parts = [self.given(r[name], order) for r, order in zip(found, of.orders, strict=True)]
            joined.append(parts[0] if len(parts) == 1 else torch.cat(parts, -1))
        for state in of.states:
            finals = [r[f"final_{state}"] for r in found]
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
            choice = self.of.choose(number, saved, wanted)  # type: ignore[arg-type]
            given = self.cotangents(number, saved, cotangents)
            if way.engine is None:  # nothing ran: the last states are the first ones
                finals = {n: f"final_{n}" for n in self.of.states}
                found = {n: given[f] for n, f in finals.items() if f in given}
            else:
                found = way.engine.backward(way.saved, given, choice.names)
            self.collect(number, saved, choice, found, grads)
        return grads

    def cotangents(
        self, number: int, saved: SavedOnDevice, handed: Sequence[Tensor | None]
    ) -> dict[str, Tensor]:
        """One direction's, by name of result; of outputs [batch, steps, ...] as steps run."""
        of, way, order = self.of, saved.ways[number], self.of.orders[number]
        given: dict[str, Tensor] = {}
        for name, d in zip(of.results, handed, strict=True):
            if d is None:
                continue
            if name not in of.outputs:
                given[name] = d[number] if of.recipe.stacked else d
                continue
            if len(of.orders) > 1:
                d = d.chunk(len(of.orders), -1)[number]
            if of.recipe.return_sequences:
                given[name] = folded(self._back(d, order), way.masks)
            else:
                whole = d.new_zeros((d.shape[0], way.steps, *d.shape[1:]))
                whole[:, -1:] = d[:, None]
                given[name] = whole
        return given

    def _back(self, d: Tensor, order: Order) -> Tensor:
        """A cotangent of every step as the steps ran: the way back from `given`."""
        d = d.transpose(0, 1) if order.time_major else d
        return d.flip(1) if self.of.recipe.in_place and order.backwards else d

    def collect(
        self,
        number: int,
        saved: SavedOnDevice,
        choice: DirectionGradients,
        found: dict[str, Tensor],
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
            whole = grads[at] if grads[at] is not None else saved.like.new_zeros(saved.shapes[at])
            assert whole is not None
            if name in found:
                (whole[number] if of.recipe.stacked else whole).copy_(found[name])
            grads[at] = whole
        for state in choice.begun:  # a state that started from a weight hands its gradient on
            if state.name in found:
                name, total = str(state.default), found[state.name].sum(0)
                found[name] = found[name] + total if name in found else total
        for name, at in choice.trained.items():
            gradient = found.get(name)
            if gradient is None:
                gradient = saved.like.new_zeros(saved.shapes[at])
            grads[at] = gradient.reshape(saved.shapes[at])


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
