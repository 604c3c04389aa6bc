"""One call's pieces -> JSON of the Trace Event Format, as Perfetto and chrome://tracing read it.

    call > launch > piece > its cores        "X" events one in another, microseconds

Cores of a stage run in turns with what is made of their sums; in the trace they stand first, all
of them, as long as they took together.

Non-Goals: files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rnncc.runtime.profiles.pieces import CONTRACTION, EPILOGUE, OUTSIDE, Threads, TimedCall


def trace_events(name: str, call: TimedCall, threads: Threads, tick: float) -> str:
    """tick: seconds of one."""
    micro = tick * 1e6

    def event(thread: int, what: str, kind: str, begin: int, end: int, **about: Any) -> Any:
        return {
            "name": what,
            "cat": kind,
            "ph": "X",
            "ts": round((begin - call.begin) * micro, 4),
            "dur": round((end - begin) * micro, 4),
            "pid": 1,
            "tid": thread,
            "args": about,
        }

    def events() -> Iterator[Any]:
        yield _named("process_name", 0, f"rnncc {name}")
        for thread in range(threads.count):
            yield _named("thread_name", thread, f"thread {thread}" if thread else "caller")
        yield event(0, name, "call", call.begin, call.end)
        for thread, launch, stamps in call.parts(threads):
            title = ": ".join(filter(None, (launch.part, launch.what)))
            yield event(thread, title, "launch", int(stamps[0, 1]), int(stamps[-1, 1]))
        for piece in call.pieces(threads):
            if piece.launch is None or piece.number == OUTSIDE:
                if piece.launch is None and piece.end > piece.begin:
                    yield event(piece.thread, piece.kind, piece.kind, piece.begin, piece.end)
                continue
            about = piece.launch.pieces[piece.number]
            title = about.stage or about.kind
            extra = {"level": about.level, "sets": about.what}
            yield event(piece.thread, title, piece.kind, piece.begin, piece.end, **extra)
            if piece.kind == EPILOGUE:
                end = piece.begin + piece.cores
                yield event(piece.thread, CONTRACTION, CONTRACTION, piece.begin, end)

    return json.dumps({"traceEvents": [*events()], "displayTimeUnit": "ns"}, indent=0)


def _named(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 1, "tid": thread, "args": {"name": name}}
