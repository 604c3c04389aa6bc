"""Many streams at once: a session's states are a row of a table, steps that wait run together.

    sessions = Sessions(layer, features=16)
    row = sessions.open()
    y = await sessions.step(row, x)   # x [steps, features] -> y [steps, ...], where it stopped
    sessions.close(row)               # the row starts anew before anyone else has it

A turn takes one step of each session that waits, up to `Limits.rows` of them, in one call of a
stream of the next power of two rows: states are copied in, the kernel runs, states are copied back.
A row has the same bits whatever runs beside it, so a session gets what the layer alone would give.

Non-Goals: more than one event loop; a turn that takes longer than the loop may wait (a thread's).
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import numpy as np

import rnncc


class Full(Exception):
    """No row is left, or too many steps wait: try again later."""


@dataclass(slots=True, eq=False)
class Request:
    """Steps of one session: x [steps, features], y [steps, ...]; at: the next of them."""

    row: int
    x: np.ndarray
    y: np.ndarray
    done: asyncio.Future[np.ndarray]
    at: int = 0


@dataclass(slots=True)
class Counts:
    """Since the start: sessions that came, those that found no room, steps, turns that ran them."""

    opened: int = 0
    refused: int = 0
    steps: int = 0
    turns: int = 0


@dataclass(slots=True)
class Limits:
    """sessions: rows of the table. waiting: steps of all sessions. rows: of one turn."""

    sessions: int = 200
    waiting: int = 4096
    rows: int = 64


@dataclass
class Sessions:
    """layer: with return_sequences=True, of one input; features: of that input, at every step.

    Raises ValueError for a layer with several inputs or outputs.
    """

    layer: rnncc.Layer
    features: int
    limits: Limits = field(default_factory=Limits)
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        sizes = [1 << n for n in range((self.limits.rows - 1).bit_length() + 1)]
        self._streams = {
            rows: self.layer.stream(np.zeros((rows, 1, self.features), np.float32))
            for rows in sizes
        }
        one = self._streams[1]
        if len(one.inputs) != 1 or len(one.outputs) != 1:
            raise ValueError(
                f"a session has one input and one output, this cell {len(one.inputs)} and "
                f"{len(one.outputs)}: {[*one.inputs]} -> {[*one.outputs]}"
            )
        self.output_shape = next(iter(one.outputs.values())).shape[2:]
        self._start = {name: array[0].copy() for name, array in one.carried.items()}
        self._states = {
            name: np.repeat(array[None], self.limits.sessions, axis=0)
            for name, array in self._start.items()
        }
        self._free = deque(range(self.limits.sessions))
        self._queue: deque[Request] = deque()
        self._requests: dict[int, Request] = {}  # by row: one each
        self.waiting = 0  # steps

    @property
    def open_sessions(self) -> int:
        return self.limits.sessions - len(self._free)

    def open(self) -> int:
        """A row that stands where the cell starts. Raises Full."""
        if not self._free:
            self.counts.refused += 1
            raise Full(f"{self.limits.sessions} sessions are open")
        self.counts.opened += 1
        return self._free.popleft()

    def close(self, row: int) -> None:
        """The row starts anew for whoever has it next; what still waits for it is dropped."""
        if row in self._requests:
            self._drop(self._requests[row])
        for name, array in self._states.items():
            array[row] = self._start[name]
        self._free.append(row)

    async def step(self, row: int, x: np.ndarray) -> np.ndarray:
        """Outputs [steps, ...] of the session's next steps, x [steps, features]. Raises Full."""
        assert row not in self._requests, "a session waits for its answer before it asks again"
        if self.waiting + len(x) > self.limits.waiting:
            self.counts.refused += 1
            raise Full(f"{self.waiting} steps wait, {self.limits.waiting} may")
        loop = asyncio.get_running_loop()
        y = np.empty((len(x), *self.output_shape), np.float32)
        request = Request(row, x, y, loop.create_future())
        if not self._queue:  # others whose frames have come get in before it runs
            loop.call_soon(self._turn)
        self._queue.append(request)
        self._requests[row] = request
        self.waiting += len(x)
        try:
            return await request.done
        finally:  # also where the session is gone: the row may be another's by the next turn
            self._drop(request)

    def _drop(self, request: Request) -> None:
        if self._requests.get(request.row) is request:
            del self._requests[request.row]
            self.waiting -= len(request.x) - request.at

    def _turn(self) -> None:
        """One step of each of the first that wait; who has more steps goes to the end."""
        queue, turn = self._queue, []
        while queue and len(turn) < self.limits.rows:
            request = queue.popleft()
            if self._requests.get(request.row) is request:
                turn.append(request)
        if turn:
            self._run(turn)
        for request in turn:
            if request.at < len(request.x):
                queue.append(request)
            elif not request.done.done():
                request.done.set_result(request.y)
        if queue:
            asyncio.get_running_loop().call_soon(self._turn)

    def _run(self, turn: list[Request]) -> None:
        count = len(turn)
        stream = self._streams[1 << (count - 1).bit_length()]
        rows = [request.row for request in turn]
        (x,), (y,) = stream.inputs.values(), stream.outputs.values()
        for name, array in self._states.items():
            stream.carried[name][:count] = array[rows]
        for place, request in enumerate(turn):
            x[place, 0] = request.x[request.at]
        stream.run()  # rows behind `count` hold what was there before: nobody reads them
        for name, array in self._states.items():
            array[rows] = stream.carried[name][:count]
        for place, request in enumerate(turn):
            request.y[request.at] = y[place, 0]
            request.at += 1
        self.waiting -= count
        self.counts.steps += count
        self.counts.turns += 1
