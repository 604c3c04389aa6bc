"""The layer class of a generated module, and what the module was written without.

A module that holds its cell's text renders further kernels (for masks, for what is drawn, for
second derivatives, for batches of one row) when a call first needs them, as `rnncc.compile` does,
and the cache keeps them. One without the text (`rnncc compile --variants all`) never renders:
nothing here imports the compiler then.

Non-Goals: rendering (`compiler`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rnncc.artifact.cell import CellDescription, Variant
from rnncc.runtime.api.layer import Layer, frozen_layer_class
from rnncc.runtime.common.one_for_all import one_for_all
from rnncc.runtime.traces.traced_cell import TracedCell


def cpu_layer_class(
    cell: CellDescription, engines: Mapping[Variant, Any], module: str, spec: str | None = None
) -> type[Layer]:
    """The class of a module for the CPU. spec: the cell's text, to render what `engines` lack."""
    return _layer_class("cpu", cell, engines, module, spec)


def cuda_layer_class(
    cell: CellDescription, engines: Mapping[Variant, Any], module: str, spec: str | None = None
) -> type[Layer]:
    """The class of a module for a GPU."""
    return _layer_class("cuda", cell, engines, module, spec)


def _layer_class(
    target: str,
    cell: CellDescription,
    engines: Mapping[Variant, Any],
    module: str,
    spec: str | None,
) -> type[Layer]:
    rendered = None if spec is None else _rendering(target, cell, spec)
    tracer = None if spec is None else partial(_traced, target, cell, spec)
    text = None if spec is None else partial(_read, cell, spec)
    timer = None if spec is None else partial(_timed, target, cell, spec)
    if rendered is not None and target == "cpu":
        for variant, engine in engines.items():
            if not (variant.training or variant.second_order):
                engine.render_one_row(partial(rendered, variant))
    return frozen_layer_class(cell, engines, module, rendered, tracer, text, timer)


def _rendering(target: str, cell: CellDescription, spec: str) -> Callable[[Variant], Any]:
    @one_for_all
    def engines() -> Callable[[Variant], Any]:
        from rnncc.compiler import engines_of_text  # with all of the compiler behind it

        return engines_of_text(spec, cell, target)

    return lambda variant: engines()(variant)


def _read(cell: CellDescription, spec: str) -> Any:
    from rnncc.compiler import own_text

    return own_text(spec, cell)


def _traced(target: str, cell: CellDescription, spec: str) -> TracedCell:
    from rnncc.compiler import traced_of_text

    return traced_of_text(spec, cell, target)


def _timed(target: str, cell: CellDescription, spec: str, part: str) -> Any:
    from rnncc.compiler import timer_of_text

    return timer_of_text(spec, cell, target)(part)
