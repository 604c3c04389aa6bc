"""RTNeural's LSTM, sized at compile time, one sample after another in C++.

Built here with g++ from RTNeural's own source, which `RTNEURAL` in the environment points to (a
checkout: its headers, modules/Eigen, modules/xsimd/include). Variants eigen, xsimd, stl are its
three ways to do arithmetic. A call is a block of samples through ctypes: about a microsecond more.

Non-Goals: shipping any of it; other layers.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from bench.case import FORWARD, Case, Data
from bench.contenders import Run

VARIABLE = "RTNEURAL"
FOLDERS = {"eigen": "modules/Eigen", "xsimd": "modules/xsimd/include", "stl": "RTNeural"}
FLAGS = ("-std=c++17", "-O3", "-march=native", "-DNDEBUG", "-w", "-shared", "-fPIC")
SOURCE = """
#include <RTNeural.h>
#include <new>
#include <vector>
using Layer = RTNeural::LSTMLayerT<float, 1, {units}>;
using Rows = std::vector<std::vector<float>>;
constexpr int U = {units};
static Rows rows(const float* w, int n) {{
  Rows r; for (int i = 0; i < n; i++) r.emplace_back(w + i * 4 * U, w + (i + 1) * 4 * U);
  return r;
}}
extern "C" void* make(const float* kernel, const float* recurrent, const float* bias) {{
  auto* l = new Layer();
  l->setWVals(rows(kernel, 1)); l->setUVals(rows(recurrent, U));
  l->setBVals(std::vector<float>(bias, bias + 4 * U)); l->reset();
  return l;
}}
extern "C" void reset(void* l) {{ static_cast<Layer*>(l)->reset(); }}
extern "C" void run(void* p, const float* x, float* y, int n) {{
  auto& l = *static_cast<Layer*>(p);
  for (int t = 0; t < n; t++) {{
{forward}
  }}
}}
"""
FORWARD_TEXT = {
    "eigen": """
    Eigen::Matrix<float, 1, 1> in; in(0) = x[t]; l.forward(in);
    Eigen::Map<Eigen::Matrix<float, U, 1>>(y + t * U) = l.outs;""",
    "xsimd": """
    xsimd::batch<float> in[1] = {xsimd::batch<float>(x[t])}; l.forward(in);
    constexpr int W = xsimd::batch<float>::size;
    for (int k = 0; k + W <= U; k += W) l.outs[k / W].store_unaligned(y + t * U + k);
    if (U % W) {
      alignas(64) float rest[W]; l.outs[U / W].store_aligned(rest);
      for (int k = 0; k < U % W; k++) y[t * U + U / W * W + k] = rest[k];
    }""",
    "stl": """
    float in[1] = {x[t]}; l.forward(in);
    for (int k = 0; k < U; k++) y[t * U + k] = l.outs[k];""",
}


def unavailable(variant: str) -> str:
    root = os.environ.get(VARIABLE, "")
    if not root:
        return f"{VARIABLE} names no checkout of it"
    if not Path(root, "RTNeural", "RTNeural.h").is_file():
        return f"no RTNeural/RTNeural.h under {VARIABLE}={root}"
    if not any(Path(root, FOLDERS[variant]).glob("*")):
        return f"no {FOLDERS[variant]} under {VARIABLE}={root}: a submodule that isn't checked out"
    return "" if shutil.which("g++") else "no g++"


def refuses(case: Case, variant: str) -> str:
    plain = case.cell == "lstm" and not case.options and not case.masked and case.mode == FORWARD
    audio = case.stateful and case.batch == case.features == 1
    return "" if plain and audio else "an LSTM over blocks of one channel alone"


def prepare(case: Case, data: Data, variant: str) -> Run:
    library = _built(case.units, variant)
    floats, pointer = ctypes.c_void_p, ctypes.c_void_p
    library.make.argtypes, library.make.restype = [floats] * 3, pointer
    library.reset.argtypes, library.run.argtypes = (
        [pointer],
        [pointer, floats, floats, ctypes.c_int],
    )
    library.run.restype = library.reset.restype = None
    w = [np.ascontiguousarray(data.weights[n]) for n in ("kernel", "recurrent_kernel", "bias")]
    layer = library.make(*(a.ctypes.data for a in w))
    x, y = data.x.copy(), np.empty((1, case.time, case.units), "float32")
    given = layer, x.ctypes.data, y.ctypes.data, case.time
    run, kept = library.run, (x, y)  # addresses keep nothing alive

    def call(kept: object = kept) -> None:
        run(*given)

    def outputs() -> dict[str, np.ndarray]:
        library.reset(layer)
        found = []
        for _ in range(2):
            call()
            found.append(y.copy())
        return {"y": np.concatenate(found, axis=1)}

    return Run(f"RTNeural, {variant}, g++ -O3 -march=native", call, outputs)


def _built(units: int, variant: str) -> ctypes.CDLL:
    root = Path(os.environ[VARIABLE])
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "layer.cpp"), Path(folder, "layer.so")
        source.write_text(SOURCE.format(units=units, forward=FORWARD_TEXT[variant]))
        done = subprocess.run(
            [
                "g++",
                *FLAGS,
                f"-DRTNEURAL_USE_{variant.upper()}=1",
                "-DRTNEURAL_DEFAULT_ALIGNMENT=32",
                f"-I{root / 'RTNeural'}",
                f"-I{root / FOLDERS[variant]}",
                str(source),
                "-o",
                str(made),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            raise RuntimeError(f"g++: {(errors or ['no message'])[0]}")
        return ctypes.CDLL(str(made))
