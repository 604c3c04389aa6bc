"""A cell as a service: a WebSocket is a session, a message some steps, the answer their outputs.

    python examples/service/serve.py [--cell lstm] [--units 64] [--features 16] [--weights FILE.npz]

A message is float32, little-endian, [steps, features]; the answer [steps, units]. States stay with
the session until it ends. GET /about says the sizes, GET /health how it goes. Who comes when all
sessions are taken gets 503 and Retry-After; who finds too many steps waiting is closed with 1013. A
session has one message under way: who sends faster than it reads is held up by TCP, not by memory.

Needs starlette, uvicorn and websockets: pip install 'rnncc[examples]'.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("RNNCC_NUM_THREADS", "1")  # a turn is some 40 us: no work to share

import numpy as np

import rnncc

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError as error:
    raise SystemExit(f"{error.name} is missing: pip install 'rnncc[examples]'") from None

from sessions import Full, Limits, Sessions

NO_DATA, NO_SENSE, TRY_LATER, IDLE = 1003, 1007, 1013, 4408  # codes a session may be closed with


class Service:
    """The routes around `sessions`. idle: seconds without a message; most_steps: of a message."""

    def __init__(self, sessions: Sessions, *, idle: float, most_steps: int) -> None:
        self.sessions, self.idle, self.most_steps = sessions, idle, most_steps

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/about", self.about),
                Route("/health", self.health),
                WebSocketRoute("/session", self.session),
            ]
        )

    async def about(self, _: Request) -> JSONResponse:
        cell = self.sessions.layer.cell.name
        output = list(self.sessions.output_shape)
        sizes = {"features": self.sessions.features, "output": output}
        return JSONResponse({"cell": cell, **sizes, "most_steps": self.most_steps})

    async def health(self, _: Request) -> JSONResponse:
        sessions, counts = self.sessions, self.sessions.counts
        now = {"sessions": sessions.open_sessions, "waiting": sessions.waiting}
        ever = {name: getattr(counts, name) for name in counts.__slots__}
        return JSONResponse({**now, **ever, "megabytes": round(megabytes(), 2)})

    async def session(self, socket: WebSocket) -> None:
        try:
            row = self.sessions.open()
        except Full as full:
            refusal = PlainTextResponse(f"{full}\n", 503, headers={"Retry-After": "1"})
            await socket.send_denial_response(refusal)
            return
        try:
            await socket.accept()
            while True:
                async with asyncio.timeout(self.idle):  # also for who doesn't read its answers
                    x = self.steps_of(await socket.receive())
                    await socket.send_bytes((await self.sessions.step(row, x)).tobytes())
        except WebSocketDisconnect:
            pass
        except TimeoutError:
            await close(socket, IDLE, f"nothing came or was read for {self.idle:g} s")
        except Full as full:
            await close(socket, TRY_LATER, f"{full}: try again later")
        except TypeError as error:
            await close(socket, NO_DATA, str(error))
        except ValueError as error:
            await close(socket, NO_SENSE, str(error))
        finally:
            self.sessions.close(row)

    def steps_of(self, message: dict) -> np.ndarray:
        """[steps, features]. TypeError for text, ValueError for other bytes than whole steps."""
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data, step = message.get("bytes"), 4 * self.sessions.features
        if data is None:
            raise TypeError("messages are bytes, float32 [steps, features]; this one is text")
        if not data or len(data) % step or len(data) > step * self.most_steps:
            raise ValueError(
                f"{len(data)} bytes; a step is {step}, a message 1 to {self.most_steps} steps"
            )
        x = np.frombuffer(data, "<f4").reshape(-1, self.sessions.features)
        if not np.isfinite(x).all():
            raise ValueError("a step has numbers that aren't finite")
        return x


async def close(socket: WebSocket, code: int, reason: str) -> None:
    """Within a second, if there is still somebody."""
    try:
        async with asyncio.timeout(1):
            await socket.close(code, reason[:120])  # a frame of WebSocket's has room for 123 bytes
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        pass


def megabytes() -> float:
    """Of this process, in memory now (Linux); 0 elsewhere."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


def number(least: float, most: float = 10**9, kind: type = int) -> Callable[[str], Any]:
    """What argparse takes for a number within these bounds."""

    def read(text: str) -> Any:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not from {least:g} to {most:g}")
        return value

    read.__name__ = kind.__name__  # what argparse calls it where the text is no number
    return read


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cell", default="lstm", help="a .rnn file or a built-in's name")
    parser.add_argument("--units", type=number(1), default=64)
    parser.add_argument("--features", type=number(1), default=16)
    parser.add_argument("--weights", metavar="FILE.npz", help="of layer.save; else of seed 1")
    parser.add_argument("--sessions", type=number(1, 10**6), default=200, help="at most, at once")
    parser.add_argument("--waiting", type=number(1), default=4096, help="steps, at most")
    parser.add_argument("--most-steps", type=number(1, 4096), default=64, help="of one message")
    parser.add_argument("--idle", type=number(0.1, kind=float), default=30.0, help="seconds")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=number(0, 65535), default=8000, help="0: any that is free")
    return parser.parse_args(argv)


def layer_of(cell: str, units: int, features: int, weights: str | None) -> rnncc.Layer:
    """OSError, TypeError and ValueError as rnncc says them."""
    layer = rnncc.compile(cell)(units=units, return_sequences=True, seed=1)
    layer.stream(np.zeros((1, 1, features), np.float32))  # which makes its weights
    if weights is not None:
        layer.load(weights)
    return layer


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments_of(argv)
    limits = Limits(given.sessions, given.waiting)
    try:
        layer = layer_of(given.cell, given.units, given.features, given.weights)
        sessions = Sessions(layer, given.features, limits)
    except MemoryError:
        raise SystemExit("no memory for so many units, features or sessions") from None
    except (OSError, TypeError, ValueError, rnncc.SpecError) as error:
        raise SystemExit(str(error)) from None
    service = Service(sessions, idle=given.idle, most_steps=given.most_steps)
    config = uvicorn.Config(
        service.app,
        given.host,
        given.port,
        log_level="warning",
        ws="websockets-sansio",
        ws_max_size=4 * given.features * given.most_steps,
        ws_per_message_deflate=False,
    )
    # uvicorn 0.54 logs each answer of 503 as an app that forgot to answer.
    forgot = "without completing handshake"
    logging.getLogger("uvicorn.error").addFilter(lambda record: forgot not in record.getMessage())
    socket = config.bind_socket()  # ends the process with a line where that can't be
    host, port = socket.getsockname()[:2]
    try:
        socket.listen(2048)  # two may bind a port, one listens
    except OSError as error:
        raise SystemExit(f"{host}:{port}: {error}") from None
    print(f"serving {layer.cell.name} on ws://{host}:{port}/session", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[socket])
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
