"""Every built-in cell, forward and backward: right, and the same bits with one thread and two?

    python -m tests.arm.same_bits [--than FILE] [CELL ...]

Prints a line a cell: a digest of all bits, and the largest error against the interpreter. FILE:
what this printed on another machine; its digests are held against these. Ends with 1 where a cell
isn't right or threads change a bit.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator

from rnncc.common.machine import NUM_THREADS
from rnncc.runtime.cpu.threads.dispatch import max_threads
from tests.support import cases
from tests.support.kernel_pair import SHAPES, Pair, bits

BUILT_IN = [path.stem for path in sorted(cases.ROOT.glob("rnncc/cells/*.rnn"))]
DTYPE = "float32"


def digest(name: str) -> str:
    """Of everything that calls of the cell and their pullbacks give."""
    found = hashlib.blake2b(digest_size=8)
    for shape in SHAPES:
        for key, array in bits(name, DTYPE, shape).items():
            found.update(key.encode() + array.tobytes())
    return found.hexdigest()


def error(name: str) -> str:
    """The largest of values and gradients, or what is wrong."""
    pair = Pair.of(name, DTYPE, SHAPES[-1])
    try:
        pair.assert_equal(DTYPE, name)
    except AssertionError as wrong:
        return f"WRONG:{''.join(str(wrong).split())}"
    values, gradients = pair.gradients(pair.kernels)
    right, expected = pair.gradients(pair.reference)
    return f"{max(cases.worst(values, right)[0], cases.worst(gradients, expected)[0]):.1e}"


def in_a_process(names: list[str], threads: int) -> Iterator[list[str]]:
    """[name, digest, error] of each, as it is done."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.arm.same_bits", "--threads", str(threads), *names],
        cwd=cases.ROOT,
        env={**os.environ, NUM_THREADS: str(threads)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        yield line.split()
    if process.wait():
        raise SystemExit(f"with {threads} threads: {process.returncode}")


def compare(names: list[str], others: dict[str, str]) -> bool:
    """Whether all is well."""
    alone, well = {}, True
    for name, found, wrong in in_a_process(names, 1):
        alone[name] = found
        well &= not wrong.startswith("WRONG")
        also = ""
        if name in others:
            also = f", {'the same' if others[name] == found else 'OTHER'} bits as there"
        print(f"{name:20} {found} one thread, error {wrong}{also}", flush=True)
    for name, found, _ in in_a_process(names, 2):
        well &= found == alone[name]
        same = "the same bits" if found == alone[name] else "OTHER BITS"
        print(f"{name:20} {found} two threads, {same}", flush=True)
    return well


def main() -> int:
    parser = argparse.ArgumentParser(prog="same_bits")
    parser.add_argument("names", nargs="*", metavar="CELL")
    parser.add_argument("--than", metavar="FILE")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    names = chosen.names or BUILT_IN
    if chosen.threads:
        assert max_threads() == chosen.threads
        for name in names:
            print(name, digest(name), error(name) if chosen.threads == 1 else "-", flush=True)
        return 0
    others = {}
    if chosen.than:
        with open(chosen.than, encoding="utf-8") as file:
            others = {name: found for name, found, *_ in map(str.split, file)}
    return 0 if compare(names, others) else 1


if __name__ == "__main__":
    sys.exit(main())
