"""ARM's machine code, read here: registers that hold a tile, barriers, denormals, waiting."""

import re

import pytest

from tests.arm.assembly import arm_assembly, has_arm, loops

pytestmark = pytest.mark.skipif(not has_arm(), reason="this LLVM has no aarch64")

THREADS = "tests.runtime.cpu.threads"
LEAD, WORK = f"{THREADS}.test_sleep:module.().publish", "rnncc.runtime.cpu.threads.worker_pool:work"
PERFORM = "rnncc.runtime.cpu.kernels.executor:perform_again"
RING, DENORMAL = (f"{THREADS}.test_threads:module.().{n}" for n in ("ring", "denormal"))
# Of the largest tiles of bfloat16 (6x4, 8x3) three accumulators go through memory for each pair of
# k: halves of a word, and the word, take more registers than there are.
TILES = [
    ("float32", 6, 4),
    ("float32", 8, 3),
    ("float32", 1, 8),
    ("float64", 6, 4),
    ("bfloat16", 8, 2),
    ("int8", 6, 4),
]


def name_of(dtype, rows, vectors):
    return f"core:{dtype}:{rows}x{vectors}"


@pytest.mark.parametrize("dtype, rows, vectors", TILES)
def test_a_tile_stays_in_registers(dtype, rows, vectors):
    """The loop over k: a multiply-add a vector, no vector spilled, nothing lane by lane."""
    texts = arm_assembly("", *(name_of(*tile) for tile in TILES))
    each = 2 if dtype == "bfloat16" else 1
    around = [
        loop
        for loop in loops(texts[name_of(dtype, rows, vectors)])
        if any("fmla" in line for line in loop)
    ]
    inner = min(around, key=len)
    count = sum("fmla" in line for line in inner)
    assert count and count % (rows * vectors * each) == 0  # LLVM may write it twice
    spilled = [line for line in inner if re.search(r"\b[qvds]\d+.*\[sp", line)]
    assert not spilled
    assert not any(line.startswith(("fmadd", "bl\t", "ins\t")) for line in inner)


def atomics(name, features):
    """The instructions that order memory, with the places of some."""
    text = arm_assembly(features, LEAD, WORK, PERFORM, RING, DENORMAL)[name]
    return re.findall(
        r"^\t(dmb\t\w+|ldap?r|stlr|ldaxr|stlxr|swpal|ldaddal|isb|blr)\b", text, re.MULTILINE
    )


@pytest.mark.parametrize("features", ["", "+lse,+rcpc"], ids=["armv8.0", "lse, rcpc"])
def test_memory_order(features):
    """docs/arm.md argues each from this."""
    load = "ldapr" if "rcpc" in features else "ldar"
    # A job is published, then sleepers are looked for: `ldapr` might go before `stlr`.
    assert atomics(LEAD, features)[:3] == ["stlr", "dmb\tish", load]
    # A sleeper is announced, then the job is looked at again.
    asleep = atomics(WORK, features)
    fence = asleep.index("dmb\tish")
    assert asleep[fence - 1 : fence + 2] == ["stlr", "dmb\tish", load]
    # What is done, what to do, whose turn, the job: each behind what it tells of.
    published = atomics(PERFORM, features)
    assert published[:5] == ["stlr", load, "stlr", "stlr", "dmb\tish"]
    ring = atomics(RING, features)
    assert "stlr" in ring and load in ring


def test_waiting_takes_time():
    """`isb`: `yield` takes none on most cores, and what is spun is counted."""
    for name in (WORK, PERFORM, RING):
        assert "isb" in atomics(name, ""), name


def test_denormals_are_flushed_and_restored():
    text = arm_assembly("", LEAD, WORK, PERFORM, RING, DENORMAL)[DENORMAL]
    found = re.findall(r"\t(mrs|orr|msr|ldr|fmul)\t([^\n]*)", text)
    words = [f"{name} {rest}" for name, rest in found if name in ("mrs", "msr")]
    assert words == ["mrs x8, FPCR", "msr FPCR, x9", "msr FPCR, x8"]
    assert ("orr", "x9, x8, #0x1000000") in found
