"""One case of a GPU, timed: ours and the others in turns, between CUDA events.

A turn is a few calls between two events, so that short calls are timed as they come in a row. All
of it runs as well on a CPU's tensors and clock, which is how it is tested.

Non-Goals: which cases there are (`cases`); processes (`worker`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.contenders.cells import CELLS, HEADS, ops_of
from bench.gpu.cases import Case
from rnncc.artifact.cell import variant_of
from rnncc.artifact.grid_sync import TIERS
from rnncc.runtime.common.precision import PRECISIONS

SECONDS = 0.25  # of turns of one contender
ROUNDS = 9
BURST = 4e-3  # seconds of a turn, where calls are shorter
MOST_CALLS = 10
Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Where:
    """A device of torch, and its clock. "ahead": tensors are the CPU's, our kernels a GPU's."""

    device: str = "cuda"

    @property
    def tensors(self) -> str:
        return "cpu" if self.device == "ahead" else self.device

    @property
    def has_kernels(self) -> bool:
        """Whether tiers and precisions can be chosen."""
        return self.device != "cpu"

    def seconds(self, run: Call, calls: int) -> float:
        """Of one of so many calls."""
        import torch

        if self.tensors == "cpu":
            began = time.perf_counter()
            for _ in range(calls):
                run()
            return (time.perf_counter() - began) / calls
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(calls):
            run()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) * 1e-3 / calls


@dataclass(slots=True)
class Contender:
    """call: runs it once and returns its output. before: settings that its calls need."""

    name: str
    call: Call
    before: Call = lambda: None
    why: str = ""  # it has failed


def timed(case: Case, where: Where) -> dict[str, Any]:
    """Times and errors by contender, numbers in matrices of weights, and our plan."""
    build = {"custom": custom, "options": options, "tiers": tiers}.get(case.kind, built_in)
    contenders, module = build(case, where)
    outputs = [_first(c) for c in contenders]
    right = next((y for y in outputs if y is not None), None)
    errors = [_error(y, right) for y in outputs]
    calls, times = [], {c.name: [] for c in contenders}  # type: ignore[var-annotated]
    for c in contenders:
        once = _seconds(c, where, 1)
        calls.append(max(1, min(MOST_CALLS, int(BURST / max(once, 1e-9)))))
    for turn in range(ROUNDS):
        for c, n in zip(contenders, calls, strict=True):
            if turn == 0 or sum(times[c.name]) * n < SECONDS:
                times[c.name].append(_seconds(c, where, n))
    return {
        "timings": [
            {"name": c.name, "error": e, "times": [t for t in times[c.name] if t > 0], "why": c.why}
            for c, e in zip(contenders, errors, strict=True)
        ],
        "weights": sum(p.numel() for p in module.parameters() if p.ndim > 1),
        "plan": module.plan(),
    }


def _first(c: Contender) -> Any:
    """The first outputs, compiled and all; None where it fails, and why is kept."""
    try:
        c.before()
        found = c.call()
        parts = found if isinstance(found, tuple) else (found,)
        return [p.detach().double().cpu() for p in parts]
    except Exception as error:  # whatever a library has to say: the others go on
        c.why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return None


def _seconds(c: Contender, where: Where, calls: int) -> float:
    if c.why:
        return 0.0
    c.before()
    return where.seconds(c.call, calls)


def _error(y: Any, right: Any) -> float:
    """Against the first contender's; NaN where nothing came."""
    if y is None or right is None or [a.shape for a in y] != [b.shape for b in right]:
        return float("nan")
    pairs = zip(y, right, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-9)) for a, b in pairs)


# ---- who ------------------------------------------------------------------------------------


def allow_tf32(allow: bool) -> Call:
    """Settings of torch's own kernels."""

    def set_it() -> None:
        import torch

        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow

    return set_it


def called(module: Callable[..., Any], x: Any, training: bool, weights: Any = ()) -> Call:
    """A forward, or a forward and its gradients: the output, and gradients of input and weights."""
    import torch

    def forward() -> Any:
        with torch.no_grad():
            return module(x)

    def train() -> Any:
        for p in weights:
            p.grad = None
        given = x.detach().requires_grad_()
        y = module(given)
        y.sum().backward()
        return y, given.grad, *(p.grad for p in weights)

    return train if training else forward


def _output(module: Any, **more: Any) -> Callable[..., Any]:
    def first(x: Any) -> Any:
        y = module(x, **more)
        return y[0] if isinstance(y, tuple) else y

    return first


def built_in(case: Case, where: Where) -> tuple[list[Contender], Any]:
    """cuDNN's float32 first: all others are held against it."""
    import torch

    import rnncc.torch as ours

    torch.manual_seed(0)
    theirs = getattr(torch.nn, case.cell)(case.units, case.units).to(where.tensors)
    half = getattr(torch.nn, case.cell)(case.units, case.units).to(where.tensors)
    half.load_state_dict(theirs.state_dict())
    half = half.to(torch.bfloat16)
    x = torch.randn(case.time, case.batch, case.units, device=where.tensors)

    def contender(name: str, module: Any, given: Any, tf32: bool) -> Contender:
        call = called(_output(module), given, case.training, _weights(module))
        return Contender(name, call, allow_tf32(tf32))

    mine = {}
    for precision in PRECISIONS if where.has_kernels else PRECISIONS[:1]:
        made = getattr(ours, case.cell)(case.units, case.units, precision=precision)
        made.load_state_dict(theirs.state_dict())
        mine[precision] = made.to(where.tensors)
    found = [
        contender("torch float32", theirs, x, False),
        contender("rnncc", mine["float32"], x, False),
        contender("torch tf32", theirs, x, True),
        contender("torch bfloat16", half, x.to(torch.bfloat16), False),
    ]
    found += [contender(f"rnncc {p}", m, x, False) for p, m in mine.items() if p != "float32"]
    if where.has_kernels and case.kind == "bars":
        module = mine["float32"]
        call = called(_output(module), x, case.training, _weights(module))
        found[1].before = choosing(module, None)
        found.append(Contender("rnncc without graphs", call, choosing(module, None, graphs=False)))
    return found, mine["float32"]


def _weights(module: Any) -> list[Any]:
    """Weights in the order of their names, whoever made the module."""
    return [p for _, p in sorted(module.named_parameters())]


def choosing(module: Any, tier: str | None, graphs: bool = True) -> Call:
    """What makes a module's loops run in a tier, and its launches one by one."""

    def use() -> None:
        allow_tf32(False)()
        for recurrence in module._recurrences:
            plain = variant_of(recurrence.cell, recurrence.rates, training=False, mask=False)
            engine: Any = recurrence.on_device().binding.engine(plain)
            engine.use_tier(tier)
            engine.use_graphs(graphs)

    return use


def recurrent(case: Case, where: Where, cell: str, **more: Any) -> Any:
    """A cell of ours as a module."""
    import torch

    from rnncc.torch import Recurrent

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"heads": HEADS} if cell == "slstm" else {}
    return Recurrent(
        cell, units=case.units, input_size=case.units, return_sequences=True, **sizes, **more
    ).to(where.tensors)


def custom(case: Case, where: Where) -> tuple[list[Contender], Any]:
    """A loop of torch first; ours; torch.compile's; our LSTM of the same size."""
    import torch

    module = recurrent(case, where, case.cell)
    lstm = recurrent(case, where, "lstm")
    x = torch.randn(case.batch, case.time, case.units, device=where.tensors)
    weights = dict(module.named_parameters())
    code, ops = CELLS[(case.cell,)], ops_of("torch")

    def loop(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(given: Any) -> Any:
            shapes = code.shapes(case.batch, case.units)
            states: Any = [torch.zeros(s, device=where.tensors) for s in shapes]
            rows = []
            for z in code.before(ops, weights, given).unbind(1):
                states = step(weights, z, None, *states)
                rows.append(states[0])
            return torch.stack(rows, 1).reshape(case.batch, case.time, -1)

        return run

    def step(w: Any, z: Any, kept: Any, *states: Any) -> Any:
        return code.step(ops, w, z, kept, *states)

    runs = [("torch loop", loop(step), module), ("rnncc", _output(module), module)]
    if case.compiled:
        runs.append(("torch.compile", loop(torch.compile(step, dynamic=False)), module))
    runs.append(("rnncc LSTM", _output(lstm), lstm))
    found = [
        Contender(name, called(run, x, case.training, _weights(owner)), allow_tf32(False))
        for name, run, owner in runs
    ]
    return found, module


def options(case: Case, where: Where) -> tuple[list[Contender], Any]:
    """The layer without, and with the option."""
    import torch

    rates = {"recurrent_dropout": 0.1} if case.option == "recurrent_dropout" else {}
    plain, module = recurrent(case, where, case.cell), recurrent(case, where, case.cell, **rates)
    more: dict[str, Any] = {}
    if case.option == "mask":
        mask = torch.rand(case.batch, case.time, device=where.tensors) < 0.8
        mask[:, -1] = True
        more["mask"] = mask
    x = torch.randn(case.batch, case.time, case.units, device=where.tensors)
    runs = [("rnncc without", _output(plain), plain), ("rnncc", _output(module, **more), module)]
    return [Contender(n, called(r, x, case.training, _weights(m))) for n, r, m in runs], module


def tiers(case: Case, where: Where) -> tuple[list[Contender], Any]:
    """The tier that is chosen, and each of them."""
    import torch

    import rnncc.torch as ours

    torch.manual_seed(0)
    module = getattr(ours, case.cell)(case.units, case.units).to(where.tensors)
    x = torch.randn(case.time, case.batch, case.units, device=where.tensors)
    call = called(_output(module), x, case.training, _weights(module))
    names = (None, *TIERS) if where.has_kernels else (None,)

    def before(tier: str | None, graphs: bool = True) -> Call:
        return choosing(module, tier, graphs) if where.has_kernels else allow_tf32(False)

    found = [Contender(t or "as chosen", call, before(t)) for t in names]
    if where.has_kernels:
        found.append(Contender("without graphs", call, before(None, graphs=False)))
    return found, module


def warmed(case: Case, where: Where) -> None:
    """A case's kernels compiled, by calls of few steps."""
    short = case.short()
    build = {"options": options, "tiers": tiers}.get(case.kind, _ours)
    contenders, _ = build(short, where)
    for c in contenders:
        with contextlib.suppress(ValueError):  # a tier the device doesn't have
            c.before()
            c.call()


def _ours(case: Case, where: Where) -> tuple[list[Contender], Any]:
    import torch

    import rnncc.torch as ours

    if case.kind == "custom":
        modules = [recurrent(case, where, name) for name in (case.cell, "lstm")]
        shape = (case.batch, case.time, case.units)
    else:
        made = getattr(ours, case.cell)
        few = PRECISIONS if where.has_kernels else PRECISIONS[:1]
        modules = [made(case.units, case.units, precision=p).to(where.tensors) for p in few]
        shape = (case.time, case.batch, case.units)
    x = torch.randn(shape, device=where.tensors)
    weights = [_weights(m) for m in modules]
    calls = [called(_output(m), x, case.training, w) for m, w in zip(modules, weights, strict=True)]
    return [Contender("rnncc", call) for call in calls], modules[0]
