"""Every built-in cell, forward and backward, with one thread and with two: the same bits?

    python -m tests.arm.same_bits [CELL ...]

Prints a digest a cell, to be held against another machine's, and ends with 1 where one differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

from rnncc.runtime.cpu.threads.dispatch import max_threads
from tests.runtime.cpu.test_bits import SHAPES, THREADS, bits
from tests.support import cases

BUILT_IN = [path.stem for path in sorted(cases.ROOT.glob("rnncc/cells/*.rnn"))]


def digest(name: str) -> str:
    """Of everything that calls of the cell and their pullbacks give."""
    found = hashlib.blake2b(digest_size=8)
    for shape in SHAPES:
        for key, array in bits(name, "float32", shape).items():
            found.update(key.encode() + array.tobytes())
    return found.hexdigest()


def in_a_process(name: str, threads: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, "--here", name],
        cwd=cases.ROOT,
        env={**os.environ, THREADS: str(threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    had, found = json.loads(done.stdout.splitlines()[-1])
    assert had == threads, f"{had} threads ran, not {threads}"
    return found


def main(names: list[str]) -> int:
    bad = 0
    for name in names or BUILT_IN:
        one, two = in_a_process(name, 1), in_a_process(name, 2)
        bad += one != two
        same = "the same bits with one thread and two" if one == two else f"two threads: {two}"
        print(f"{name:20} {one}  {same}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps([max_threads(), digest(sys.argv[2])]))
    else:
        sys.exit(main(sys.argv[1:]))
