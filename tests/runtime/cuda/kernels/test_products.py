"""Contractions as products of a library: their strides, the copies, who does what.

The library here is NumPy over the simulated device, with cuBLAS's own arguments.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rnncc
from rnncc.artifact.grid_sync import Gpu
from rnncc.artifact.kernel_args import CopiedOperands, OneRow
from rnncc.layers import LSTM, RNN, Bidirectional, LSTMCell
from rnncc.runtime.api.device_inputs import bring
from rnncc.runtime.cuda.driver import cublas
from rnncc.runtime.cuda.driver import device as devices
from rnncc.runtime.cuda.driver.current_target import using
from rnncc.runtime.cuda.kernels import copies
from rnncc.runtime.cuda.kernels.gemm_tiles import ADDS, CONSTANTS, ZEROS, Contraction, TileOperand
from rnncc.runtime.cuda.kernels.matmuls import Product, merged, work_of
from rnncc.runtime.cuda.planning import gemm_choice, tiler
from tests.support import cases
from tests.support.gpu_simulator.fake_driver import FakeDriver, driver_on_a_grid  # noqa: F401
from tests.support.gpu_simulator.grid import Simulator
from tests.support.gpu_simulator.library import rounded
from tests.support.gpu_simulator.memory import Fault
from tests.support.gpu_simulator.twins import Twins
from tests.support.twins import LIMIT

B, T, K, N = 3, 5, 7, 6
WITH = Gpu("a GPU", 8, 8, library="cuBLAS")
WITHOUT = Gpu("a GPU", 8, 8, no_library="it isn't installed")


def strides(shape: tuple[int, ...], order: str) -> tuple[int, ...]:
    """Of axes in the order of `shape`, bytes, where memory has them in that order."""
    at, found = 4, [0] * len(shape)
    for axis in reversed([int(x) for x in order]):
        found[axis] = at
        at *= shape[axis]
    return tuple(found)


def computed(c: Contraction, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The result, from flat arrays by name; `out` as it was before."""
    made = work_of(c, 4)
    assert made is not None
    simulator = Simulator(size=1 << 18, threads=64, library="NumPy")
    points = {n: simulator.upload(np.ascontiguousarray(a)).address for n, a in arrays.items()}
    points[OneRow()] = simulator.ones("float32", made.ones).address
    points[CopiedOperands()] = simulator.empty(max(made.copies, 1)).address
    for move in (piece for m in made.moves for piece in m.pieces()):
        words = np.array([0, 1, 0, 1, *copies.words_of(move)], np.int64)
        words[4] = points[move.source.point] + move.source.offset
        words[5] = points[move.target.point] + move.target.offset
        simulator.launch(copies.move, "float32", 1, 64, words)
    m = made.multiply
    places = tuple(points[point] + at for point, at in (m.left, m.right, m.out))
    simulator.multiply(m.product, places, "float32", "float32")  # type: ignore[arg-type]
    found = np.empty_like(arrays["out"])
    simulator.download(points["out"], found)
    return found


def flat(array: np.ndarray, order: str) -> np.ndarray:
    """Axes as memory has them."""
    return np.ascontiguousarray(array.transpose([int(x) for x in order]))


@pytest.mark.parametrize("a_order", ["012", "102"])
@pytest.mark.parametrize("out_order", ["012", "102"])
@pytest.mark.parametrize("w_order", ["01", "10"])
@pytest.mark.parametrize("begin", [ZEROS, CONSTANTS, ADDS])
def test_rows(a_order: str, out_order: str, w_order: str, begin: int) -> None:
    """x @ W: rows of a batch at every step, whichever lies inside of which."""
    rng = np.random.default_rng(0)
    a, w, row = (rng.standard_normal(s).astype("float32") for s in ((B, T, K), (K, N), (N,)))
    before = rng.standard_normal((B, T, N)).astype("float32")
    *a_m, a_k = strides(a.shape, a_order)
    *out_m, out_n = strides(before.shape, out_order)
    w_k, w_n = strides(w.shape, w_order)
    c = Contraction(
        TileOperand("a", 0, tuple(a_m), (0, a_k)),
        TileOperand("w", 0, k=(0, w_k), n=w_n),
        TileOperand("out", 0, tuple(out_m), n=out_n),
        (B * T, N, K),
        T,
        K,
        begin,
        TileOperand("row", 0, n=4) if begin == CONSTANTS else None,
    )
    given = {"a": flat(a, a_order), "w": flat(w, w_order), "row": row}
    found = computed(c, {**given, "out": flat(before, out_order)})
    right = a.astype(float) @ w + {ZEROS: 0, CONSTANTS: row, ADDS: before}[begin]
    np.testing.assert_allclose(found, flat(right, out_order), atol=1e-5)


MUTANTS: dict[str, Any] = {
    "left is not transposed": lambda p: {"left_t": not p.left_t},
    "right is not transposed": lambda p: {"right_t": not p.right_t},
    "rows are columns": lambda p: {"rows": p.columns, "columns": p.rows},
    "another lead of the left": lambda p: {"leads": (p.leads[0] + 1, *p.leads[1:])},
    "leads change places": lambda p: {"leads": p.leads[::-1]},
    "steps change places": lambda p: {"steps": p.steps[::-1]},
    "one of the batch too few": lambda p: {"count": p.count - 1},
    "nothing is added to": lambda p: {"adds": not p.adds},
}


@pytest.mark.parametrize("what", MUTANTS)
def test_a_product_of_other_arguments_is_another_one(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library in NumPy knows its arguments' meaning: none of them can be wrong unnoticed."""
    whole = work_of

    def mutant(c: Contraction, item: int) -> Any:
        made = whole(c, item)
        assert made is not None and made.multiply.product.count > 1
        product = made.multiply.product
        changed = replace(product, **MUTANTS[what](product))
        return replace(made, multiply=replace(made.multiply, product=changed))

    monkeypatch.setitem(globals(), "work_of", mutant)
    with pytest.raises((Fault, AssertionError)):
        test_rows("012", "102", "10", ADDS)


@pytest.mark.parametrize("a_order", ["012", "102"])
@pytest.mark.parametrize("d_order", ["012", "102"])
@pytest.mark.parametrize("wide", [4, 9])
def test_gradients(a_order: str, d_order: str, wide: int) -> None:
    """Sums over rows of a batch at every step, in orders that may differ."""
    rng = np.random.default_rng(0)
    a, d = (rng.standard_normal((B, T, x)).astype("float32") for x in (wide, N))
    *a_k, a_m = strides(a.shape, a_order)
    *d_k, d_n = strides(d.shape, d_order)
    c = Contraction(
        TileOperand("a", 0, (0, a_m), tuple(a_k)),
        TileOperand("d", 0, k=tuple(d_k), n=d_n),
        TileOperand("out", 0, (0, 4 * N), n=4),
        (wide, N, B * T),
        wide,
        T,
    )
    made = work_of(c, 4)
    assert made is not None and bool(made.copies) == (a_order != d_order)
    if made.moves:
        assert made.moves[0].source.point == ("a" if wide <= N else "d"), "the smaller is copied"
    given = {"a": flat(a, a_order), "d": flat(d, d_order)}
    found = computed(c, {**given, "out": np.zeros((wide, N), "float32")})
    np.testing.assert_allclose(found, np.einsum("btm,btn->mn", a.astype(float), d), atol=1e-5)


def test_sums_alone() -> None:
    """A bias's gradient: rows of ones times what is summed."""
    d = np.random.default_rng(0).standard_normal((T, B, N)).astype("float32")
    c = Contraction(
        TileOperand(OneRow(), 0),
        TileOperand("d", 0, k=(4 * N, 4 * N * B), n=4),
        TileOperand("out", 0, n=4),
        (1, N, B * T),
        1,
        T,
    )
    made = work_of(c, 4)
    assert made is not None and made.ones == B * T
    found = computed(c, {"d": d, "out": np.zeros(N, "float32")})
    np.testing.assert_allclose(found, d.sum((0, 1)), atol=1e-5)


def test_gates_side_by_side_are_one_product() -> None:
    def gate(g: int, begin: int, operand: str) -> Contraction:
        return Contraction(
            TileOperand(operand, 0, (4 * K * T, 4 * K), (0, 4)),
            TileOperand(f"w {operand}", 4 * N * g, k=(0, 16 * N), n=4),
            TileOperand("out", 4 * N * g, (16 * N * T, 16 * N), n=4),
            (B * T, N, K),
            T,
            K,
            begin,
            TileOperand("bias", 4 * N * g, n=4) if begin == CONSTANTS else None,
        )

    pairs = [(g, b, x) for g in range(4) for b, x in ((CONSTANTS, "x"), (ADDS, "y"))]
    first, then = merged([gate(*each) for each in pairs])
    assert first.counts == then.counts == (B * T, 4 * N, K)
    assert (first.a.point, then.a.point) == ("x", "y") and then.begin == ADDS
    apart = [gate(0, ZEROS, "x"), gate(2, ZEROS, "x")]
    assert merged(apart) == apart


def test_strides_of_no_matrix_are_for_tiles() -> None:
    c = Contraction(
        TileOperand("a", 0, (0, 0), (0, 4)),  # every row the same one
        TileOperand("w", 0, k=(0, 4 * N), n=4),
        TileOperand("out", 0, (0, 4 * N), n=4),
        (B, N, K),
        B,
        K,
    )
    assert work_of(c, 4) is None
    assert gemm_choice.bulk_of([c], WITH, 4).said.endswith("float32: strides are no matrix's")
    assert gemm_choice.bulk_of([c], WITHOUT, 4).said.endswith("it isn't installed")


@pytest.mark.parametrize(
    ("name", "variant"),
    [("lstm", "plain"), ("gru", "mask"), ("layer_norm_lstm", "plain"), ("nested", "drawn")],
)
def test_cells_with_a_library(name: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiler, "LEAST_WORK", 1)
    simulator = Simulator(seed=6, size=1 << 22, library="NumPy's library")
    twins = Twins.of(name, variant, (3, 4, 5, 2))
    error, whose = twins.worst(simulator, "block")
    assert error <= LIMIT["float32"], (whose, error)
    assert simulator.multiplied
    assert "by NumPy's library in float32" in twins.layer.plan()


# Whose sums aren't those of one axis of lanes and one of k, with a weight.
NO_PRODUCTS = [
    *("angles", "fast_weights", "filled", "indrnn", "matrix_memory", "nested", "normalized"),
    *("queue", "slices", "slstm", "sru"),
]
STEPS = [(n, v) for i, (n, v) in enumerate(cases.variants(cases.NAMES)) if i % 3 == 0]


@pytest.mark.parametrize(("name", "variant"), [*STEPS, ("lstm", "drawn"), ("gru", "mask")])
def test_products_between_launches(name: str, variant: str) -> None:
    simulator = Simulator(seed=6, size=1 << 22, threads=64, library="NumPy's library")
    twins = Twins.of(name, variant, (3, 4, 3, 2) if name != "layer_norm_lstm" else (5, 3, 3, 3))
    error, whose = twins.worst(simulator, "launches")
    assert error <= LIMIT["float32"], (whose, error)
    ran = any(k.endswith("_summed") for k, *_ in simulator.launches)
    assert ran == bool(simulator.multiplied) == (name not in NO_PRODUCTS)
    if ran:
        assert "a level's products by NumPy's library, then a launch" in twins.layer.plan()


def test_products_between_launches_in_double_precision() -> None:
    simulator = Simulator(seed=6, size=1 << 22, threads=64, library="NumPy's library")
    twins = Twins.of("gru", "plain", (3, 4, 3, 2), "float64")
    assert twins.worst(simulator, "launches")[0] <= LIMIT["float64"] and simulator.multiplied


@pytest.mark.parametrize(
    ("precision", "least", "most"), [("tf32", 1e-5, 4e-3), ("bfloat16", 1e-4, 4e-2)]
)
def test_precision(precision: str, least: float, most: float, monkeypatch: Any) -> None:
    """Operands are rounded, sums aren't; the error is what the number of bits allows."""
    monkeypatch.setattr(tiler, "LEAST_WORK", 1)
    simulator = Simulator(seed=6, size=1 << 22, library="NumPy's library")
    twins = Twins.of("lstm", "plain", (3, 4, 5, 2), precision=precision)
    error, whose = twins.worst(simulator, "block")
    assert least < error < most, (whose, error)
    assert {p for _, p in simulator.multiplied} == {precision}
    assert f"by NumPy's library in {precision}" in twins.layer.plan()
    assert f"precision='{precision}'" in repr(twins.layer)


def test_precision_of_layers_made_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole's, where a cell doesn't say otherwise; kept in configurations."""
    monkeypatch.setattr(tiler, "LEAST_WORK", 1)
    x = np.random.default_rng(0).standard_normal((2, 4, 3), "float32")

    def made(**chosen: Any) -> Any:
        lstm = rnncc.compile("lstm", target="cuda")
        cells = [lstm(units=4, seed=1), lstm(units=3, seed=2, precision="bfloat16")]
        return RNN(cells, return_sequences=True, **chosen)

    layer = Bidirectional(made(precision="tf32"))
    layer.build(x.shape)
    exact = Bidirectional(made())
    exact.build(x.shape)
    exact.set_weights(layer.get_weights())
    with using(Simulator(seed=6, size=1 << 22, library="NumPy's library")) as simulator:
        y, pullback = layer.vjp(x)
        pullback(np.ones_like(y))
        assert {p for _, p in simulator.multiplied} == {"tf32", "bfloat16"}
        assert 1e-6 < np.abs(y - exact(x)).max() < 4e-3  # of tf32 alone
    plan = layer.plan()
    assert "in tf32" in plan and "in bfloat16" in plan and "in float32" not in plan
    assert made(precision="tf32").get_config()["precision"] == "tf32"
    with pytest.raises(TypeError, match="is made of layers and is given arrays on a GPU"):
        bring({"x": SimpleNamespace(__cuda_array_interface__={})}, layer._last, "RNN")


def test_precision_is_refused() -> None:
    x = np.zeros((1, 2, 3), "float32")
    layer = rnncc.compile("lstm")(units=3, precision="tf32")
    with pytest.raises(ValueError, match="LSTM has precision='tf32', which is for a GPU"):
        layer(x)
    with pytest.raises(ValueError, match="is one of float32, tf32, bfloat16, not 'half'"):
        rnncc.compile("lstm")(units=3, precision="half")
    with pytest.raises(ValueError, match="for layers of float32, this one is of float64"):
        rnncc.compile("lstm", dtype="float64")(units=3, precision="tf32")
    rnncc.compile("lstm")(units=3, precision="float32")(x)
    for stack in (
        RNN(LSTMCell(3), precision="tf32"),
        RNN([LSTMCell(3), LSTMCell(3, precision="tf32")]),
        Bidirectional(LSTM(3, precision="tf32")),
    ):
        with pytest.raises(ValueError, match="has precision='tf32', which is for a GPU"):
            stack(x)
    assert LSTM.from_config(LSTM(3, precision="tf32").get_config()).precision == "tf32"


# ---- the library's own side ------------------------------------------------------------------


class FakeLibrary:
    """cuBLAS's functions: what they were called with."""

    def __init__(self, status: int = 0) -> None:
        self.called: list[tuple[Any, ...]] = []

        def function(name: str) -> Any:
            def call(*arguments: Any) -> int:
                self.called.append((name, *arguments))
                return status

            return call

        for name in ("Create_v2", "GetVersion_v2", "SetStream_v2", "SetWorkspace_v2"):
            setattr(self, f"cublas{name}", function(name))
        self.cublasGemmStridedBatchedEx = function("Gemm")
        self.cublasGetStatusString = lambda status: b"not so"
        self.__dict__.update({k: _Function(v) for k, v in vars(self).items() if callable(v)})


class _Function(SimpleNamespace):
    def __init__(self, call: Any) -> None:
        super().__init__(call=call)

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


def test_arguments_of_cublas() -> None:
    library = FakeLibrary()
    product = work_of(
        Contraction(
            TileOperand("a", 0, (4 * K * T, 4 * K), (0, 4)),
            TileOperand("w", 0, k=(0, 4), n=4 * K),  # transposed
            TileOperand("out", 0, (4 * N, 4 * N * B), n=4),
            (B * T, N, K),
            T,
            K,
        ),
        4,
    )
    assert product is not None
    made = cublas.Cublas(library)
    made.multiply(product.multiply.product, (1, 2, 3), "float32", "tf32", stream=77)
    names = [name for name, *_ in library.called]
    assert names == ["Create_v2", "SetStream_v2", "Gemm"]
    assert library.called[1][2] == 77
    _, _, *gemm = library.called[2]
    left, right, out = (1, 0, K, 0), (2, 0, K, K * T), (3, 0, N * B, N)
    assert gemm[:5] == [1, 0, N, T, K]
    assert gemm[6:10] == [*left] and gemm[10:14] == [*right] and gemm[15:19] == [*out]
    assert gemm[19:] == [B, 77, -1], "the count, CUBLAS_COMPUTE_32F_FAST_TF32, any algorithm"
    alpha, beta = (ctypes.cast(p, ctypes.POINTER(ctypes.c_float))[0] for p in (gemm[5], gemm[14]))
    assert (alpha, beta) == (1.0, 0.0)


def test_products_have_one_workspace_in_a_graph_and_out_of_it(
    driver: FakeDriver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With another one the library may choose another way to sum, and a call that is repeated
    would end in other bits."""
    for module in (devices, cublas):
        monkeypatch.setattr(module, "WORKSPACE", 4096)
    library = FakeLibrary()
    monkeypatch.setattr(devices, "_cublas", lambda: (cublas.Cublas(library), ""))
    device = devices.Device()
    product = Product(False, False, 2, 2, 2, (2, 2, 2), (0, 0, 0), 1, False)

    def run(stream: Any, workspace: int) -> None:
        device.multiply(
            product, (1, 2, 3), "float32", "float32", stream=stream, workspace=workspace
        )

    run(5, 0)
    run(None, 0)
    device.captured(run, 5)
    used = [x[2:] for x in library.called if x[0] == "SetWorkspace_v2"]
    assert used[0] == used[2] != used[1] and used[0][1] == 4096
    monkeypatch.setattr(device, "is_capturing", lambda stream: True)
    run(9, 0)  # a caller's capture: nothing may be allocated
    assert len([x for x in library.called if x[0] == "SetWorkspace_v2"]) == 3


def test_what_cublas_says() -> None:
    with pytest.raises(cublas.CublasError, match="cublasCreate_v2: not so"):
        cublas.Cublas(FakeLibrary(1)).opened()


def test_rounding() -> None:
    x = np.float32([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 3.0])
    np.testing.assert_array_equal(rounded(x, "bfloat16"), [1, 1 + 2**-6, 1, 3])
    np.testing.assert_array_equal(rounded(x, "tf32"), [*x[:2], 1, 3])
