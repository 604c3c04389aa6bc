"""A recurrence as one node of torch's graphs: `run`, in autograd and under torch.compile.

    eager                     autograd.Function over the recurrence itself: least overhead
    transforms, forward mode  nodes that may be mapped (`derivatives`)
    compiled, traced, fake    torch.ops.rnncc.forward and .backward, opaque to the compiler

All call the same `Recurrence.forward` and `.backward`. An op names its recurrence by a key, which
holds its equations, too, so that a graph out of a file finds it in any process (`recipe_text`); and
what the forward saved by a handle: a tensor of one number, which keeps what was saved alive for as
long as torch keeps the tensor.

Graphs hold keys, and nobody is told when a graph is let go. So a recurrence that a graph was made
of, or that one has run, stays for good; all others leave memory with their last module and call.

Non-Goals: what is computed (`recurrence`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from rnncc.torch.arrays import PLAIN, is_recorded
from rnncc.torch.derivatives import CallKind, Source, each, is_dual
from rnncc.torch.handles import handle_of, saved_by
from rnncc.torch.narrow import widened
from rnncc.torch.paths import TensorPathSaved
from rnncc.torch.recipe import SavedTensors
from rnncc.torch.recipe_text import recipe_of
from rnncc.torch.recurrence import RECURRENCES, Recurrence, recurrence_of
from rnncc.torch.threads import join_torch
from rnncc.torch.uncompiled import run_as_is

if TYPE_CHECKING:
    from rnncc.torch.packed import OverRows

NO_OLD_ONNX = (
    "torch's older ONNX exporter has no form of rnncc: torch.onnx.export(..., dynamo=True, "
    "custom_translation_table=rnncc.torch.onnx_translations()); a Keras model goes as a file: "
    "model.save('m.keras'), then rnncc export m.keras --onnx -o m.onnx"
)
NO_SCRIPT = "modules of rnncc.torch can't be scripted: use torch.compile or torch.export"
join_torch()


def run(
    recurrence: Recurrence | OverRows,
    tensors: Sequence[Tensor],
    *,
    training: bool,
    given: bool = False,
    masked: bool = False,
    seed: Tensor | None = None,
) -> Sequence[Tensor]:
    """The results of a call; see `Recurrence` for its tensors. seed: what dropout draws from;
    None: drawn from torch's generator."""
    if seed is None and training and recurrence.draws:
        seed = torch.randint(2**63 - 1, ())
    if tensors[-1].dtype is recurrence.torch_dtype and not torch._C._is_any_autocast_enabled():
        return _called(recurrence, tensors, seed, training, given, masked)
    tensors, rounded = widened(recurrence, tensors, given, masked)
    results = _called(recurrence, tensors, seed, training, given, masked)
    return results if rounded is None else [r.to(rounded) for r in results]


def _called(
    recurrence: Recurrence | OverRows,
    tensors: Sequence[Tensor],
    seed: Tensor | None,
    training: bool,
    given: bool,
    masked: bool,
) -> Sequence[Tensor]:
    # torch.jit.trace looks at a module with gradients and without: one graph for both.
    graph = torch.is_grad_enabled() or torch._C._get_tracing_state() is not None
    save = graph and any(t.requires_grad for t in tensors)
    compiled = torch.compiler.is_compiling()
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        if compiled:
            return _transformed(recurrence, tensors, seed, training, given, masked)
        if torch._C._are_functorch_transforms_active() or is_dual(tensors):
            return CallKind(recurrence, training, given, masked).results(seed, tensors)
    if compiled or _is_traced(tensors[0]) or (tensors[0].is_meta and tensors[-1].is_meta):
        _refuse_old_onnx()
        results = torch.ops.rnncc.forward(
            recurrence.key, list(tensors), seed, training, given, masked, save
        )
        return results[:-1] if save else results
    if save:
        computed: tuple[Tensor, ...] = _Run.apply(
            recurrence, seed, training, given, masked, *tensors
        )
        return computed
    return recurrence.forward(tensors, seed, training, given, masked, False)[0]


@torch.compiler.disable(reason="rnncc under torch.func's transforms runs beside a compiled graph")
def _transformed(
    recurrence: Recurrence | OverRows, tensors: Sequence[Tensor], seed: Tensor | None, *how: bool
) -> Sequence[Tensor]:
    return _called(recurrence, tensors, seed, *how)


def _refuse_old_onnx() -> None:
    """torch.onnx.export(dynamo=False) would fail on a node that nobody told it of, much later."""
    if torch._C._get_tracing_state() is None:
        return
    exporter = sys.modules.get("torch.onnx")
    if exporter is not None and exporter.is_in_onnx_export():
        raise NotImplementedError(NO_OLD_ONNX)


def _is_traced(t: Tensor) -> bool:
    """Whether this stands for a tensor that comes later."""
    if torch._C._get_tracing_state() is not None:  # torch.jit.trace
        return True
    return type(t) not in PLAIN or is_recorded()


def is_plain(t: Tensor, dtype: torch.dtype) -> bool:
    """Whether this is a tensor of numbers that NumPy can read."""
    if torch.compiler.is_compiling() or _is_traced(t):
        return False
    return t.is_cpu and t.dtype is dtype and t.layout is torch.strided


# ---- eager ---------------------------------------------------------------------------------------


@run_as_is
class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        recurrence: Recurrence | OverRows,
        seed: Tensor | None,
        training: bool,
        given: bool,
        masked: bool,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        results, saved = recurrence.forward(tensors, seed, training, given, masked, True)
        ctx.recurrence, ctx.saved, ctx.how = recurrence, saved, (training, given, masked)
        ctx.set_materialize_grads(False)
        if type(saved) is TensorPathSaved:  # autograd keeps what it holds
            ctx.save_for_backward(*tensors, saved.memory)
            saved.tensors, saved.memory = (), None
        else:
            ctx.save_for_backward(*tensors)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        tensors = ctx.saved_tensors  # torch refuses those that were changed in between
        wanted, saved, left = ctx.needs_input_grad[5:], ctx.saved, None
        if type(saved) is TensorPathSaved:
            *tensors, left = tensors
        if torch.is_grad_enabled() or is_dual(cotangents) or is_recorded():  # create_graph=True
            if left is not None:
                saved = saved.general(tensors, left)
            source = Source(CallKind(ctx.recurrence, *ctx.how), saved, None)
            back = partial(source.gradients, tensors=tensors, wanted=wanted)
        elif left is not None:
            back = partial(saved.path.backward, saved, tensors, left, wanted)
        else:
            back = partial(ctx.recurrence.backward, saved, wanted=wanted)
        return (None, None, None, None, None, *each(back, cotangents))


def _no_second(name: str) -> NotImplementedError:
    return NotImplementedError(
        f"second derivatives of {name} are not available in graphs (compiled, traced, exported), "
        "nor of tensors of subclasses: call the module itself, on plain tensors"
    )


# ---- ops -----------------------------------------------------------------------------------------

_library = torch.library.Library("rnncc", "DEF")
_library.define(
    "forward(str key, Tensor[] tensors, Tensor? seed, bool training, bool given, bool masked, "
    "bool save) -> Tensor[]"
)
_library.define(
    "backward(str key, Tensor handle, Tensor[] tensors, Tensor[] cotangents, bool[] given, "
    "bool[] wanted) -> Tensor[]"
)


def _saved(handle: Tensor) -> SavedTensors:
    saved: SavedTensors | None = saved_by(handle)
    if saved is None:
        raise RuntimeError(
            "what rnncc saved for this backward is gone: a handle was copied and its original let "
            "go, as hooks on saved tensors do"
        )
    return saved


IN_GRAPHS: dict[str, Recurrence] = {}  # what graphs may ask for at any time


def recurrence_named(key: str) -> Recurrence:
    """What an op of a graph means; it stays from now on. RuntimeError where nobody knows it."""
    recurrence = IN_GRAPHS.get(key)
    if recurrence is None:
        short, _, text = key.partition(" ")
        recurrence = RECURRENCES.get(short)
        if recurrence is None:
            name = key.partition(":")[0]
            if not text:
                raise RuntimeError(
                    f"this process has no {name} with the key {short}: make the module that the "
                    "graph was compiled from before it runs, and keep it until then"
                )
            recurrence = recurrence_of(recipe_of(text))
        IN_GRAPHS[key] = recurrence
    return recurrence


def _forward(
    key: str,
    tensors: Sequence[Tensor],
    seed: Tensor | None,
    training: bool,
    given: bool,
    masked: bool,
    save: bool,
) -> list[Tensor]:
    results, saved = recurrence_named(key).forward(tensors, seed, training, given, masked, save)
    return [*results, handle_of(saved)] if saved is not None else results


def _fake_forward(
    key: str,
    tensors: Sequence[Tensor],
    seed: Tensor | None,
    training: bool,
    given: bool,
    masked: bool,
    save: bool,
) -> list[Tensor]:
    recurrence, like = recurrence_named(key), tensors[0]
    known = recurrence.known(tensors[: len(recurrence.cell.arguments)], real=False)
    dtype = recurrence.torch_dtype
    results = [like.new_empty(shape, dtype=dtype) for shape in known.results]
    # The handle is the CPU's, wherever the tensors are.
    return [*results, like.new_empty([1], dtype=torch.int64, device="cpu")] if save else results


def _backward(
    key: str,
    handle: Tensor,
    tensors: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    given: Sequence[bool],
    wanted: Sequence[bool],
) -> list[Tensor]:
    remaining = iter(cotangents)
    handed = [next(remaining) if g else None for g in given]
    grads = recurrence_named(key).backward(_saved(handle), handed, wanted)
    return [g for g in grads if g is not None]


def _fake_backward(
    key: str,
    handle: Tensor,
    tensors: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    given: Sequence[bool],
    wanted: Sequence[bool],
) -> list[Tensor]:
    chosen = [t for t, w in zip(tensors, wanted, strict=True) if w]
    return [t.new_empty(t.shape) for t in chosen]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    key, tensors, *_, save = inputs
    if save:
        ctx.key, ctx.count = key, len(tensors)
        ctx.save_for_backward(output[-1], *tensors)
        ctx.set_materialize_grads(False)


def _pull(ctx: Any, cotangents: Sequence[Tensor | None]) -> Any:
    handle, *tensors = ctx.saved_tensors
    wanted = [bool(w) for w in ctx.needs_input_grad[1]]
    # What is None isn't handed on: of a list of some, torch's ops don't see what is differentiated.
    present = [c is not None for c in cotangents[:-1]]
    handed = [c for c in cotangents[:-1] if c is not None]
    gradients = iter(torch.ops.rnncc.backward(ctx.key, handle, tensors, handed, present, wanted))
    return None, [next(gradients) if w else None for w in wanted], None, None, None, None, None


def _no_pull(ctx: Any, cotangents: Sequence[Tensor | None]) -> Any:
    raise _no_second(ctx.key.partition(":")[0])


def _setup_back(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    ctx.key = inputs[0]


for _key in ("CPU", "CUDA"):
    _library.impl("forward", _forward, _key)
    _library.impl("backward", _backward, _key)
torch.library.register_fake("rnncc::forward", _fake_forward, lib=_library)
torch.library.register_fake("rnncc::backward", _fake_backward, lib=_library)
torch.library.register_autograd("rnncc::forward", _pull, setup_context=_setup, lib=_library)
torch.library.register_autograd(
    "rnncc::backward", _no_pull, setup_context=_setup_back, lib=_library
)
