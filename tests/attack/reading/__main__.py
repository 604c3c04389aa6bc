"""What came of so many attempts, counted."""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter

from tests.attack.reading import outcome


def main(first: int, count: int, seed: int) -> None:
    came: Counter[str] = Counter()
    began = time.monotonic()
    for index in range(first, first + count):
        try:
            what, finding = outcome(index, seed)
        except Exception:
            what, finding = "failed", traceback.format_exc()
        came[what] += 1
        if finding:
            print(f"---- {index}\n{finding}", flush=True)
    for what, times in came.most_common():
        print(f"{times:6} {what}")
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    given = [int(a) for a in sys.argv[1:]]
    main(*given, *(0, 50, 0)[len(given) :])
