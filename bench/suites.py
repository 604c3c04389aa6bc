"""What is compared with what, and the bars: lines of data.

`SUITES` names every suite: races of this file, or "module:function" of a module with a suite of
its own, loaded when it is asked for, so that what one needs is nothing to the others.

To add a comparison: a line of RACES, or of `pairs`. A suite: a line of SUITES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module

from bench import shapes
from bench.bars import Demand
from bench.case import FORWARD, TRAINING, Case
from bench.harness import BenchError, Effort
from bench.race import Race
from bench.result import Result

KERAS = ("keras-tensorflow", "keras-jax", "keras-torch")
LIBRARIES = ("torch", "jax", "onnxruntime", "openvino", *KERAS, "numpy")
AUDIO = ("c_export", "rtneural-eigen", "rtneural-xsimd", "rtneural-stl", "onnxruntime", "torch")


@dataclass(frozen=True, slots=True)
class Suite:
    """races and the demands on them. unit: of its tables, and how many seconds it is.

    capped: races that would take longer than `Effort.cap` are named instead of run.
    """

    races: tuple[Race, ...]
    demands: tuple[Demand, ...] = ()
    unit: tuple[str, float] = ("ms", 1e-3)
    capped: bool = False
    notes: tuple[str, ...] = ()


# ---- latency ---------------------------------------------------------------------------------


def _latency() -> tuple[Race, ...]:
    sequences = [
        Race(Case(cell, FORWARD, 1, 100, n, n), LIBRARIES, "sequence", quick=n == 64)
        for cell in ("lstm", "gru", "simple_rnn")
        for n in (64, 128, 256, 512, 1024)
    ]
    steps = [
        Race(Case(cell, FORWARD, 1, 1, n, n, stateful=True), LIBRARIES, "step", quick=n == 64)
        for cell in ("lstm", "gru", "simple_rnn")
        for n in (64, 256)
    ]
    stored = [
        Race(
            Case("lstm", FORWARD, 1, 100, n, n, options=(("weights", "bfloat16"),)),
            group="stored",
            beside=Case("lstm", FORWARD, 1, 100, n, n),
            optional=True,
        )
        for n in (512, 1024)
    ]
    return (*sequences, *steps, *stored)


LATENCY = Suite(
    _latency(),
    (
        Demand(
            "batch 1, time 100: times faster than the best peer",
            *("sequence", "speedup", 1.65, "mean"),
            wide=1.9,
        ),
        Demand("batch 1, time 100: times faster than the best peer", "sequence", "speedup", 1.12),
        Demand("a single step: times faster than the best peer", "step", "speedup", 3),
        Demand("bfloat16 weights: times faster than float32", "stored", "beside", 1.5),
    ),
)

# ---- inference and training ------------------------------------------------------------------

SHAPES = (
    (20, 10, 50, 64),
    (64, 28, 28, 64),
    (32, 50, 256, 256),
    (64, 50, 512, 512),
    (32, 25, 1024, 1024),
)
INFERENCE = Suite(
    tuple(
        Race(Case(cell, FORWARD, *sizes), LIBRARIES, "inference", quick=sizes[-1] == 64)
        for cell in ("lstm", "gru")
        for sizes in SHAPES
    ),
    (
        Demand("inference: times faster than the best peer", "inference", "speedup", 0.99),
        Demand("inference: times faster than the best peer", "inference", "speedup", 1.2, "mean"),
        Demand(
            "inference: of the FMA roofline, units >= 256", "inference", "roofline", 0.85, units=256
        ),
    ),
)
TRAINED = Suite(
    tuple(
        Race(Case(cell, TRAINING, *sizes), LIBRARIES, "training", quick=sizes[-1] == 64)
        for cell in ("lstm", "gru")
        for sizes in (*SHAPES, (20, 35, 650, 650))
    ),
    (
        Demand(
            "training: times faster than the best peer",
            *("training", "speedup", 1.55, "mean"),
            wide=1.75,
        ),
        Demand("training: times faster than the best peer", "training", "speedup", 1.05),
        Demand("training: of the roofline, units >= 256", "training", "roofline", 0.78, units=256),
    ),
)
ROOFLINE = Suite(
    tuple(
        Race(Case(cell, mode, *sizes), group=mode, quick=sizes[-1] == 256)
        for cell in ("lstm", "gru")
        for mode in (FORWARD, TRAINING)
        for sizes in SHAPES[2:]
    ),
    (
        Demand("inference: of the roofline, units >= 256", FORWARD, "roofline", 0.85, units=256),
        Demand("training: of the roofline, units >= 256", TRAINING, "roofline", 0.78, units=256),
    ),
)

# ---- custom cells ----------------------------------------------------------------------------

# The cell, its options, the group of its bars; a random mask is a word of its own.
CUSTOM_CELLS: tuple[tuple[str, tuple[tuple[str, object], ...], str], ...] = (
    ("layer_norm_lstm", (), ""),
    ("peephole_lstm", (), ""),
    ("light_gru", (), ""),
    ("slstm", (), ""),
    ("lstm", (("recurrent_dropout", 0.2), ("dropout_per_gate", False)), "masked"),
    ("lstm", (), "masked"),  # a random mask
    ("gru", (("reset_after", False),), "reset before"),
)
CUSTOM_SIZES = ((1, 100, 64, 64), (64, 28, 28, 64), (32, 50, 256, 256))


def custom_races(
    cell: str,
    options: tuple[tuple[str, object], ...] = (),
    group: str = "",
    contenders: tuple[str, ...] = LIBRARIES,
) -> list[Race]:
    """A cell at every size, forward and training; beside LSTM where the contractions weigh.

    Nobody trains at batch 1, and nothing is dropped forward. Without contenders, LSTM is beside
    it everywhere.
    """
    races = []
    masked = group == "masked" and not options
    for mode in (FORWARD, TRAINING):
        for sizes in CUSTOM_SIZES:
            if (mode == TRAINING and sizes[0] == 1) or (
                mode == FORWARD and "recurrent_dropout" in dict(options)
            ):
                continue
            case = Case(cell, mode, *sizes, options=options, masked=masked)
            compiled = ("torch-compile",) if contenders and sizes[0] == 64 else ()
            beside = Case("lstm", mode, *sizes) if sizes[-1] >= 256 or not contenders else None
            small = {(TRAINING, "peephole_lstm"), (FORWARD, "lstm")}
            quick = (sizes[0] == 64 and (mode, cell) in small) or (
                not contenders and sizes[-1] == 64
            )
            races.append(
                Race(case, (*contenders, *compiled), group or mode, beside=beside, quick=quick)
            )
    return races


PER_FLOP = Demand(
    "units >= 256: time a contraction FLOP / our own LSTM's",
    *("", "per_flop", 1.3),
    least=False,
    units=256,
)
CUSTOM = Suite(
    tuple(race for cell in CUSTOM_CELLS for race in custom_races(*cell)),
    (
        Demand(
            "custom training: times faster than the best peer", TRAINING, "speedup", 2.5, "mean"
        ),
        Demand("custom forward: times faster than the best peer", FORWARD, "speedup", 1.5, "mean"),
        Demand("recurrent dropout, random masks: times faster", "masked", "speedup", 3, "mean"),
        PER_FLOP,
    ),
)

# ---- built-in cells --------------------------------------------------------------------------

# Those of one input and one output, beside LSTM and a loop in torch: figures of docs/cells.md.
BUILT_IN = (
    *("simple_rnn", "lstm", "gru", "coupled_lstm", "peephole_lstm", "projected_lstm"),
    *("layer_norm_lstm", "slstm", "light_gru", "minimal_gated_unit", "indrnn", "sru"),
    *("recurrent_highway", "fast_weights"),
)
CELLS = Suite(
    tuple(
        Race(case, ("torch",), mode, beside=replace(case, cell="lstm"), quick=cell == "indrnn")
        for cell in BUILT_IN
        for mode in (FORWARD, TRAINING)
        for case in (Case(cell, mode, 64, 28, 28, 64),)
    ),
    (),
)

# ---- tiny, deepbench -------------------------------------------------------------------------

SAMPLES = 512


def _tiny() -> tuple[Race, ...]:
    sampled = [Case("lstm", FORWARD, 1, SAMPLES, 1, n, stateful=True) for n in (8, 16, 24, 32, 64)]
    plain = [Race(case, AUDIO, "tiny", quick=case.units < 24) for case in sampled]
    unrolled = [
        Race(replace(case, options=(("unroll", 4),)), group="unrolled", beside=case)
        for case in sampled
    ]
    return (*plain, *unrolled)


TINY = Suite(
    _tiny(),
    (
        Demand("RTNeural's time / ours", "tiny", "speedup", 1.0, against="rtneural"),
        Demand(
            "C export's time / the stream's",
            *("tiny", "speedup", 1.15),
            least=False,
            against="c_export",
        ),
        Demand("unroll=4: the plain loop's time / ours", "unrolled", "beside", 0.97),
    ),
    ("ns a sample", 1e-9 * SAMPLES),
)
DEEPBENCH = Suite(
    tuple(
        Race(
            Case(cell, mode, batch, time, units, units, options=options),
            ("torch", "onnxruntime", "openvino"),
            mode,
            quick=batch in (1, 16) and units <= 512 and mode == FORWARD,
        )
        for cell, mode, batch, time, units, options in shapes.deepbench()
    ),
    capped=True,
    notes=("DeepBench's own figures leave x @ W out; these have it in them",),
)

# ---- every suite -----------------------------------------------------------------------------

Entry = Suite | str | Callable[[Effort], Result]
SUITES: dict[str, Entry] = {
    "latency": LATENCY,
    "inference": INFERENCE,
    "training": TRAINED,
    "custom": CUSTOM,
    "cells": CELLS,
    "tiny": TINY,
    "scaling": "bench.scaling_suite:scaling_suite",
    "deepbench": DEEPBENCH,
    "roofline": ROOFLINE,
    "spine": "bench.pairs:spine",
    "torch": "bench.pairs:in_torch",
    "compile": "bench.compile_suite:compile_suite",
    "options": "bench.pairs:options",
    "layers": "bench.layers_suite:layers_suite",
    "bring_jax": "bench.bring_jax_suite:bring_jax_suite",
    "bring_torch": "bench.bring_torch_suite:bring_torch_suite",
    "torch_models": "bench.torch_models_suite:torch_models_suite",
    "keras": "bench.keras_suite:keras_suite",
    "memory": "bench.memory_suite:memory_suite",
    "accuracy": "bench.accuracy_suite:accuracy_suite",
    "files": "bench.files_suite:files_suite",
    "gpu": "bench.gpu.suite:gpu_suite",
}


def run(name: str, effort: Effort) -> Result:
    """A suite by its name. BenchError says what it lacks."""
    entry = SUITES[name]
    if isinstance(entry, Suite):
        from bench.races_suite import races_suite

        return races_suite(name, entry, effort)
    if isinstance(entry, str):
        module, _, function = entry.partition(":")
        try:
            entry = getattr(import_module(module), function)
        except ModuleNotFoundError as error:
            raise BenchError(f"{name} needs {error.name}, which is not installed") from None
    found: Result = entry(effort)  # type: ignore[operator]
    return found
