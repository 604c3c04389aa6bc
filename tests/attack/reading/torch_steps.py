"""Random steps, as text: what somebody could write as a torch module's forward.

Each line is tried when it is drawn, on tensors of 5 rows, and is dropped where torch refuses it; a
number that is a multiple of 5 in a shape is the batch. Some lines mix rows, draw, or depend on the
batch's size: those have to be refused.

Non-Goals: reading them (`torch_reading`).
"""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.attack.reading.torch_lines import BINARY, HOSTILE, SEVERAL, UNARY

ROWS, WIDTH = 5, 3
DTYPE = torch.float64


class Slope(torch.autograd.Function):
    """A step with a slope of its own."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (v,) = ctx.saved_tensors
        return grad / (1 + 3 * v.abs()) ** 2


@dataclass(slots=True)
class StepText:
    """source: of a class `Step`. tensors: weights, buffers and plain attributes by name. rows: of
    states; inputs: of inputs, for one row."""

    lines: list[str] = field(default_factory=list)
    weights: dict[str, tuple[str, Tensor]] = field(default_factory=dict)
    rows: list[tuple[int, ...]] = field(default_factory=list)
    inputs: list[tuple[int, ...]] = field(default_factory=list)
    state: str = ""
    returned: str = ""
    alone: bool = False  # whether the state is all that it returns

    @property
    def source(self) -> str:
        made = [f"        # {kind} {n}: {[*t.shape]}" for n, (kind, t) in self.weights.items()]
        names = ", ".join(["x", *(f"x{i}" for i in range(1, len(self.inputs)))])
        takes = names if len(self.inputs) == 1 else f"({names})"
        head = ["class Step(nn.Module):", f"    def forward(self, xs, state):  # {self.rows}"]
        body = [f"        {takes} = xs", f"        {self.state} = state"]
        body += [f"        {line}" for line in self.lines]
        return "\n".join([*head, *made, *body, f"        return {self.returned}", ""])

    def module(self) -> nn.Module:
        scope: dict[str, Any] = {
            "torch": torch,
            "nn": nn,
            "F": nn.functional,
            "Slope": Slope,
        }
        exec(compile(self.source, "<step>", "exec"), scope)
        step: nn.Module = scope["Step"]()
        step.anchor = nn.Parameter(torch.zeros(1, dtype=DTYPE))  # says the dtype
        for name, (kind, t) in self.weights.items():
            if kind == "weight":
                setattr(step, name, nn.Parameter(t.clone()))
            elif kind == "frozen":
                setattr(step, name, nn.Parameter(t.clone(), requires_grad=False))
            elif kind == "buffer":
                step.register_buffer(name, t.clone())
            else:
                setattr(step, name, t.clone())
        return step


class _Drawing:
    """One step while it is drawn: what each name is, on ROWS rows."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.text = rng, StepText()
        self.known: dict[str, Tensor] = {}
        self.scope: dict[str, Any] = {"torch": torch, "nn": nn, "F": nn.functional, "Slope": Slope}
        self.scope["self"] = self  # weights are attributes

    def given(self, name: str, row: tuple[int, ...]) -> None:
        self.known[name] = self.scope[name] = torch.randn(ROWS, *row, dtype=DTYPE)

    def weight(self, shape: Sequence[int], kind: str = "") -> str:
        name = f"w{len(self.text.weights)}"
        kind = kind or self.rng.choice(("weight", "weight", "weight", "frozen", "buffer", "plain"))
        t = torch.randn(tuple(shape), dtype=DTYPE) / max(shape, default=1) ** 0.5
        if kind == "mask":
            t, kind = t > 0, "buffer"
        if kind == "places":
            t, kind = torch.randint(0, 2, (2,)), "buffer"
        self.text.weights[name] = kind, t
        setattr(self, name, t)
        return f"self.{name}"

    def line(self, templates: Sequence[str]) -> None:
        """One more, if torch takes it."""
        name = f"v{len(self.known)}"
        before = dict(self.text.weights)
        template = self.rng.choice(templates)
        line = self.filled(template, name)
        if not line.startswith((f"{name} =", "with", "u", "v")) or "{r}" not in template:
            line = f"{name} = {line}"
        scope = dict(self.scope)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(line.replace("\n        ", "\n"), scope)
            made = scope[name]
            fits = isinstance(made, Tensor) and made.dtype == DTYPE and 0 < made.numel() <= 400
            fits = fits and bool(made.isfinite().all()) and made.dim() <= 4
            fits = fits and float(made.abs().max()) < 50
        except Exception:
            fits = False
        if not fits:
            self.text.weights = before
            return
        self.known[name] = self.scope[name] = made
        self.text.lines.append(line)

    def filled(self, template: str, name: str) -> str:
        rng, names = self.rng, [*self.known]

        def one() -> str:
            return rng.choice(names[-4:] if rng.random() < 0.6 else names)

        a = one()
        alike = [n for n in names if self.known[n].shape == self.known[a].shape]
        b, c = (rng.choice(alike) if rng.random() < 0.6 else one() for _ in range(2))
        axes, width = max(self.known[a].dim(), 1), self.known[a].shape[-1:] or (1,)
        order = [*range(axes)]
        rng.shuffle(order)
        values: dict[str, Any] = {
            "a": a,
            "b": b,
            "c": c,
            "r": name,
            "B": rng.choice(("x.shape[0]", "x.size(0)", f"{a}.shape[0]", "len(x)")),
            "n": rng.choice((1, 2, 2, 3)),
            "i": rng.choice((0, 0, 1, 1, 2)),
            "j": rng.choice((0, 1, 2, -1)),
            "d": rng.choice((-1, -1, axes - 1, 1, rng.randrange(-axes, axes))),
            "e": rng.randrange(-axes, axes),
            "p": ", ".join(map(str, order)),
        }
        for key, shape, kind in (
            ("w", (width[0], rng.choice((width[0], 2, 3, 4))), ""),
            ("v", rng.choice(((width[0],), (1,), ())), ""),
            ("m", (width[0],), "mask"),
            ("k", (2,), "places"),
        ):
            if f"{{{key}}}" in template:
                values[key] = self.weight(shape, kind)
        return template.format(**values)

    def of_shape(self, row: tuple[int, ...]) -> str:
        """A name of [batch, *row], made so if there is none."""
        fits = [n for n, t in self.known.items() if tuple(t.shape) == (ROWS, *row)]
        fresh = [n for n in fits if n.startswith("v")]
        if fresh and self.rng.random() < 0.7:
            return self.rng.choice(fresh)
        ends = [n for n, t in self.known.items() if t.dim() and t.shape[0] == ROWS and t.numel()]
        last = ends[-1] if self.rng.random() < 0.6 else self.rng.choice(ends)
        width = self.known[last].numel() // ROWS
        count = 1
        for n in row:
            count *= n
        w = self.weight((width, count), "weight")
        name, b = f"v{len(self.known)}", f"{last}.shape[0]"
        flat = f"torch.tanh({last}.reshape({b}, -1) @ {w})"
        line = f"{name} = {flat}.reshape({b}, {', '.join(map(str, row))})" if row else ""
        line = line or f"{name} = {flat}.squeeze(1)"
        exec(line, self.scope)
        self.known[name] = self.scope[name]
        self.text.lines.append(line)
        return name


_STATES = ("h", "h, c", "h, ", "dict")


def draw(seed: str, hostile: bool) -> StepText:
    """A step; nothing in it is refused by torch, on ROWS rows."""
    rng = random.Random(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(rng.randrange(2**31))
        d = _Drawing(rng)
        text = d.text
        text.inputs = [(WIDTH,), *([rng.choice(((2,), (2, 3), ()))] if rng.random() < 0.2 else [])]
        for i, row in enumerate(text.inputs):
            d.given(f"x{i}" if i else "x", row)
        form = rng.choice(_STATES)
        shapes = [(4,), (2, 3), (1,), (6,), (4, 2), (3,)]
        names = ["h", "c"] if form == "h, c" else ["h"]
        text.rows = [rng.choice(shapes) for _ in names]
        for name, row in zip(names, text.rows, strict=True):
            d.given(name, row)
        text.state = "h" if form == "dict" else form
        count, bad = rng.randrange(2, 9), rng.randrange(8) if hostile else -1
        pools: tuple[tuple[Callable[[], Sequence[str]], float], ...] = (
            (lambda: UNARY, 0.45),
            (lambda: BINARY, 0.4),
            (lambda: SEVERAL, 0.15),
        )
        for number in range(3 * count):
            if len(text.lines) == count:
                break
            pool = rng.choices([p for p, _ in pools], [w for _, w in pools])[0]()
            d.line(HOSTILE if number == bad else pool)
        after = [d.of_shape(row) for row in text.rows]
        _return(d, form, after)
    return text


def _return(d: _Drawing, form: str, after: list[str]) -> None:
    rng, text = d.rng, d.text
    state = ", ".join(after) + (", " if form == "h, " else "")
    if form == "dict":
        text.state, state = "h", after[0]
    state = state if form in ("h", "dict") else f"({state})"
    outs = [n for n, t in d.known.items() if t.dim() and t.shape[0] == ROWS]
    last = outs[-1] if rng.random() < 0.6 else rng.choice(outs)
    kind = rng.random()
    if kind < 0.3 and form != "h, ":
        text.returned, text.alone = state, True
    elif kind < 0.8:
        text.returned = f"{last}, {state}"
    else:
        text.returned = f"({last}, {rng.choice(outs)}), {state}"


@contextlib.contextmanager
def quiet() -> Any:
    """torch's and our warnings say nothing of what is found here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
