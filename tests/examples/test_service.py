"""examples/service: a session gets what the layer alone gives, and never another one's states."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import rnncc
from tests.support.paths import ROOT

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
websockets = pytest.importorskip("websockets.asyncio.client")

FOLDER = ROOT / "examples" / "service"
FEATURES = 3


@pytest.fixture(scope="module")
def service() -> Iterator[ModuleType]:
    """serve.py, which has what is in sessions.py, too."""
    sys.path.insert(0, str(FOLDER))
    try:
        import serve

        yield serve
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("serve", "sessions"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def layer(service: ModuleType) -> rnncc.Layer:
    return service.layer_of("gru", 5, FEATURES, None)


def numbers(seed: int, steps: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((steps, FEATURES)).astype("float32")


def test_each_session_as_if_it_were_alone(service: ModuleType, layer: rnncc.Layer) -> None:
    """Nine rows, turns of four, messages of 1 to 7 steps, rows that are closed and had again."""
    sessions = service.Sessions(layer, FEATURES, service.Limits(9, 100, rows=4))

    async def session(seed: int) -> None:
        await asyncio.sleep(seed % 5 * 0.001)
        row = sessions.open()
        x, at, answers = numbers(seed, 23), 0, []
        while at < len(x):
            steps = 1 + (seed + at) % 7
            answers.append(await sessions.step(row, x[at : at + steps]))
            at += steps
        sessions.close(row)
        np.testing.assert_array_equal(np.concatenate(answers), layer(x[None])[0])

    async def all_of_them() -> None:
        for first in range(0, 36, 9):
            await asyncio.gather(*map(session, range(first, first + 9)))

    asyncio.run(all_of_them())
    assert sessions.open_sessions == sessions.waiting == 0
    assert sessions.counts.steps == 36 * 23 and sessions.counts.turns < 36 * 23 / 2


def test_who_leaves_while_waiting_leaves_nothing(service: ModuleType, layer: rnncc.Layer) -> None:
    sessions = service.Sessions(layer, FEATURES, service.Limits(1, 100))
    x = numbers(0, 8)

    async def leave(after: int) -> np.ndarray:
        row = sessions.open()
        task = asyncio.create_task(sessions.step(row, numbers(1, 50)))
        for _ in range(after):
            await asyncio.sleep(0)
        task.cancel()
        sessions.close(row)
        assert sessions.waiting == 0
        return await sessions.step(sessions.open(), x)  # the same row

    for after in (0, 1, 2, 7):
        np.testing.assert_array_equal(asyncio.run(leave(after)), layer(x[None])[0])
        sessions.close(0)
    assert sessions.open_sessions == sessions.waiting == 0


def test_what_is_bounded(service: ModuleType, layer: rnncc.Layer) -> None:
    sessions = service.Sessions(layer, FEATURES, service.Limits(2, 10))

    async def crowd() -> None:
        one, two = sessions.open(), sessions.open()
        with pytest.raises(service.Full, match="2 sessions are open"):
            sessions.open()
        first = asyncio.create_task(sessions.step(one, numbers(0, 8)))
        await asyncio.sleep(0)
        with pytest.raises(service.Full, match=r"\d steps wait, 10 may"):
            await sessions.step(two, numbers(0, 10))
        await first
        assert (await sessions.step(two, numbers(0, 10))).shape == (10, 5)

    asyncio.run(crowd())
    assert sessions.counts.refused == 2


def test_cells_with_two_inputs_are_refused(service: ModuleType) -> None:
    with pytest.raises((TypeError, ValueError), match="input"):
        service.Sessions(rnncc.compile("gru_d")(units=4, return_sequences=True), FEATURES)


class Client:
    """A socket as Starlette has it, whose messages are given beforehand."""

    def __init__(self, *messages: Any) -> None:
        self.messages, self.said = [*messages], []

    async def accept(self) -> None:
        self.said.append("accepted")

    async def receive(self) -> dict[str, Any]:
        if not self.messages:
            await asyncio.sleep(60)
        return self.messages.pop(0)

    async def send_bytes(self, data: bytes) -> None:
        self.said.append(len(data))

    async def send_denial_response(self, response: Any) -> None:
        self.said.append(response.status_code)

    async def close(self, code: int, reason: str) -> None:
        self.said.append((code, reason))


STEP = np.zeros(FEATURES, "<f4").tobytes()


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        ({"text": "hello"}, 1003, "bytes"),
        ({"bytes": b""}, 1007, "0 bytes; a step is 12"),
        ({"bytes": STEP[1:]}, 1007, "11 bytes"),
        ({"bytes": STEP * 9}, 1007, "1 to 8 steps"),
        ({"bytes": np.full(3, np.nan, "<f4").tobytes()}, 1007, "finite"),
        ({"bytes": STEP * 7}, 1013, "try again later"),
        (None, 4408, "0.05 s"),
    ],
)
def test_why_a_session_is_closed(
    service: ModuleType, layer: rnncc.Layer, message: Any, code: int, words: str
) -> None:
    sessions = service.Sessions(layer, FEATURES, service.Limits(1, 6))
    room = service.Service(sessions, idle=0.05, most_steps=8)
    good = {"type": "websocket.receive", "bytes": STEP}
    client = Client(good, *([{"type": "websocket.receive", **message}] if message else []))
    asyncio.run(room.session(client))
    accepted, answer, (given, reason) = client.said
    assert (accepted, answer, given) == ("accepted", 20, code) and words in reason
    assert sessions.open_sessions == 0


def test_no_room_is_503(service: ModuleType, layer: rnncc.Layer) -> None:
    sessions = service.Sessions(layer, FEATURES, service.Limits(1))
    sessions.open()
    client = Client()
    asyncio.run(service.Service(sessions, idle=1, most_steps=1).session(client))
    assert client.said == [503] and sessions.open_sessions == 1


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_load(tmp_path: Path) -> None:
    """The server in a process of its own, twenty sessions; it fails if one answer is wrong."""
    done = run("load.py", "--quick", "--picture", str(tmp_path / "service.png"))
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    assert "0, largest difference 0" in done.stdout
    assert "20 let in, 50 refused with 503" in done.stdout
    assert (tmp_path / "service.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve.py", "--units", "0"], "from 1 to"),
        (["serve.py", "--cell", "nothing.rnn", "--port", "0"], "nothing.rnn"),
        (["serve.py", "--weights", "nothing.npz", "--port", "0"], "nothing.npz"),
        (["load.py", "--picture", "/nowhere/service.png"], "no .png in a folder"),
    ],
)
def test_what_is_given_wrong_is_told_in_a_line(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode in (1, 2) and words in done.stderr
    assert "Traceback" not in done.stderr
