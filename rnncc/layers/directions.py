"""Engines of two layers -> the engine that runs one of them forwards, the other backwards.

The second reads x[:, ::-1] and writes its outputs backwards, in the second half of the last axis
where halves are concatenated: views, nothing is copied. Sums, products and means are one pass of
NumPy over both.

Non-Goals: kernels; names of arrays (`parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from rnncc.layers.parts import Part
from rnncc.runtime.classes import Engine, Tensors
from rnncc.runtime.doors import array_shape
from rnncc.runtime.memory import aligned, write_into

NOTHING: Tensors = MappingProxyType({})
FINAL = "final_"
MERGES: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Any]] = {
    "sum": lambda a, b, out: np.add(a, b, out=out),
    "mul": lambda a, b, out: np.multiply(a, b, out=out),
    "ave": lambda a, b, out: np.multiply(np.add(a, b, out=out), a.dtype.type(0.5), out=out),
}
MODES = ("concat", *MERGES, None)


@dataclass(slots=True)
class _Saved:
    """outputs: of both directions by output, in time's order, where products need them."""

    sides: list[Any]
    outputs: dict[str, tuple[np.ndarray, np.ndarray]]
    sizes: dict[str, int]
    lead: tuple[int, ...]


class DirectionsEngine:
    """`runtime.classes.Engine` over those of two directions.

    outputs: names of the whole, for every output of a direction; two where they aren't merged.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        engines: Sequence[Engine],
        merge_mode: str | None,
        outputs: Sequence[tuple[str, ...]],
    ) -> None:
        self.parts, self.engines = tuple(parts), tuple(engines)
        self.merge_mode, self.outputs = merge_mode, tuple(outputs)
        self.dtype = np.dtype(parts[0].layer.dtype)
        self._lasts: list[Any] = [None] * len(engines)
        self._timed = {a.name for a in parts[0].cell.inputs}
        cells = [part.cell for part in parts]
        arguments = [[*(a.name for a in c.inputs), *(a.name for a in c.contexts)] for c in cells]
        # (own name, name outside) of what each direction reads: the arguments of the first.
        self._reads = [[*zip(own, arguments[0], strict=True)] for own in arguments]

    # ---- forward -------------------------------------------------------------------------------

    def forward(
        self,
        arrays: Tensors,
        sizes: Mapping[str, int],
        batch: int,
        time: int,
        *,
        version: Any,
        save: bool,
        last_only: bool,
        out: Tensors = NOTHING,
        first_step: int = 0,
        checkpoint_every: int | None = None,
        lent: frozenset[str] = frozenset(),
        carry: bool = False,
    ) -> tuple[dict[str, np.ndarray], _Saved | None]:
        """See `runtime.classes.Engine`."""
        lead = (batch,) if last_only else (batch, time)
        own_sizes = [part.sizes(sizes) for part in self.parts]
        results, places = self._places(own_sizes, lead, out)
        kept: list[Any] = []
        for side, engine in enumerate(self.engines):
            part = self.parts[side]
            found, saved = engine.forward(
                self._given(side, arrays, last_only),
                own_sizes[side],
                batch,
                time,
                version=version[side],
                save=save,
                last_only=last_only,
                out={n: self._turned(side, a, len(lead)) for n, a in places[side].items()},
                first_step=first_step,
                checkpoint_every=checkpoint_every,
                lent=frozenset(own for own, name in self._reads[side] if name in lent),
            )
            kept.append(saved)
            self._lasts[side] = engine.last
            for state in part.cell.states:
                results[FINAL + part.name(state.name)] = found[FINAL + state.name]
        pairs = self._pairs(places)
        merge = MERGES.get(self.merge_mode or "")
        if merge is not None:
            for name, (ahead, back) in pairs.items():
                merge(ahead, back, results[name])
        results = write_into(out, results)
        if not save:
            return results, None
        products = pairs if self.merge_mode == "mul" else {}
        return results, _Saved(kept, products, dict(sizes), lead)

    def repeat(self, *_: Any, **__: Any) -> Callable[[], None]:
        """ValueError: the second direction begins with the last step."""
        raise ValueError("both directions need the whole sequence: a stream has one step's")

    def _given(self, side: int, arrays: Tensors, last_only: bool) -> dict[str, Any]:
        """What a direction reads."""
        part = self.parts[side]
        found = part.inside(arrays)
        for own, name in self._reads[side]:
            timed = name in self._timed
            found[own] = self._turned(side, arrays[name], 2) if timed else arrays[name]
        if "valid" in arrays:
            valid = found["valid"] = self._turned(side, arrays["valid"], 2)
            # Of every step, outputs of masked ones are zeros; of the last, those of rows without
            # a valid step, in the order in which they ran.
            shown = self._turned(side, arrays["_shown"], 2)
            found["_shown"] = np.logical_or.accumulate(valid, axis=1) if last_only else shown
        if "seed" in arrays:
            found["seed"] = part.seed(arrays["seed"])
        return found

    def _turned(self, side: int, array: np.ndarray, lead: int) -> np.ndarray:
        """An array over steps in the order in which a direction runs them."""
        return array[:, ::-1] if side and lead == 2 else array

    def _places(
        self, sizes: Sequence[Mapping[str, int]], lead: tuple[int, ...], out: Tensors
    ) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
        """New results, and where each direction writes its outputs."""
        results: dict[str, np.ndarray] = {}
        places: list[dict[str, np.ndarray]] = [{}, {}]
        own = [part.cell.outputs for part in self.parts]
        for names, *pair in zip(self.outputs, *own, strict=True):
            shapes = [(*lead, *array_shape(o, s)) for o, s in zip(pair, sizes, strict=True)]
            whole = [shapes[0]] if len(names) == 1 else shapes
            if self.merge_mode == "concat":
                whole = [(*shapes[0][:-1], shapes[0][-1] + shapes[1][-1])]
            for name, shape in zip(names, whole, strict=True):
                found = out.get(name)
                results[name] = aligned(shape, self.dtype) if found is None else found
            parts: Sequence[np.ndarray]
            if self.merge_mode == "concat":
                parts = self._halves(results[names[0]], shapes[0][-1])
            elif self.merge_mode is None:
                parts = [results[n] for n in names]
            else:
                parts = [aligned(shape, self.dtype) for shape in shapes]
            for place, output, array in zip(places, pair, parts, strict=True):
                place[output.name] = array
        return results, places

    def _halves(self, array: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        return array[..., :first], array[..., first:]

    def _pairs(
        self, places: Sequence[Mapping[str, np.ndarray]]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Both directions' outputs by the first name of the whole."""
        own = [part.cell.outputs for part in self.parts]
        return {
            names[0]: (places[0][a.name], places[1][b.name])
            for names, a, b in zip(self.outputs, *own, strict=True)
        }

    def keep(self, layers: int) -> None:
        """See `runtime.classes.Engine`."""
        for engine in self.engines:
            engine.keep(layers)

    def block_steps(self, sizes: Mapping[str, int], batch: int) -> int:
        """How many steps at once need a small workspace in both directions."""
        sides = zip(self.parts, self.engines, strict=True)
        return min(engine.block_steps(part.sizes(sizes), batch) for part, engine in sides)

    # ---- backward ------------------------------------------------------------------------------

    def backward(
        self, saved: _Saved, cotangents: Tensors, wanted: frozenset[str], out: Tensors = NOTHING
    ) -> dict[str, np.ndarray]:
        """See `runtime.classes.Engine`. Gradients of what both read are sums."""
        results: dict[str, np.ndarray] = {}
        handed = self._parted(saved, cotangents)
        for side, engine in enumerate(self.engines):
            part, reads = self.parts[side], dict(self._reads[side])
            outside = dict(part.pairs) | reads
            asked = {own for own, name in outside.items() if name in wanted}
            # The second direction's share of an input is added to the first's.
            places = {
                own: self._turned(side, out[name], 2 if name in self._timed else 1)
                for own, name in outside.items()
                if own in asked and name in out and not (side and own in reads)
            }
            found = engine.backward(
                saved.sides[side],
                {**handed[side], **part.finals(cotangents)},
                frozenset(asked),
                places,
            )
            self._lasts[side] = engine.last
            for own, array in found.items():
                name = outside[own]
                if own in reads and name in self._timed:
                    array = self._turned(side, array, 2)
                if name in results:
                    np.add(results[name], array, out=results[name])
                else:
                    results[name] = array
        return write_into(out, results)

    def _parted(self, saved: _Saved, cotangents: Tensors) -> list[dict[str, np.ndarray]]:
        """Cotangents of both directions' own outputs, in the order in which they ran."""
        handed: list[dict[str, np.ndarray]] = [{}, {}]
        own = [part.cell.outputs for part in self.parts]
        lead = len(saved.lead)
        for names, *pair in zip(self.outputs, *own, strict=True):
            shares: list[np.ndarray | None]
            d = cotangents.get(names[0])
            if self.merge_mode is None:
                shares = [cotangents.get(n) for n in names]
            elif d is None:
                continue
            elif self.merge_mode == "concat":
                first = array_shape(pair[0], self.parts[0].sizes(saved.sizes))[-1]
                shares = [*self._halves(d, first)]
            elif self.merge_mode == "mul":
                ahead, back = saved.outputs[names[0]]
                shares = [d * back, d * ahead]
            else:
                share = d * self.dtype.type(0.5) if self.merge_mode == "ave" else d
                shares = [share, share]
            for side, share in enumerate(shares):
                if share is not None:
                    handed[side][pair[side].name] = self._turned(side, share, lead)
        return handed

    # ---- what ran --------------------------------------------------------------------------------

    @property
    def last(self) -> Any:
        """What the last calls ran."""
        return [*self._lasts]

    def plan(self, last: Any = None) -> str:
        """How outputs are merged, and both directions' kernels."""
        how = {
            "concat": "side by side, each direction writes its half",
            None: "apart",
        }.get(self.merge_mode, f"{self.merge_mode}, one pass over both")
        lasts = last or self.last
        lines = [f"two directions, outputs {how}; one after the other, each on all threads"]
        for part, engine, ran in zip(self.parts, self.engines, lasts, strict=True):
            plan = engine.plan(ran).splitlines()
            lines += [f"{part.prefix}:", *("  " + line for line in plan)]
        return "\n".join(lines)
