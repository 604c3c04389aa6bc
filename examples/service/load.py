"""Loads the service with sessions that come, stay a while and go, and checks all their answers.

    python examples/service/load.py [--sessions 200] [--seconds 300] [--rate 10] [--quick]

Starts serve.py in a process of its own. Each session sends steps of random numbers at its rate and
waits for each answer; when it ends, its answers are held against the layer run alone over all it
sent, bit for bit, and another session takes its place. Then more come than there is room for, one
sends and never reads, and the server's memory is looked at. Ends with a table and a picture.

Needs what serve.py needs, and matplotlib for the picture: pip install 'rnncc[examples]'.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from serve import layer_of, number
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

SERVER = Path(__file__).with_name("serve.py")
CELL, UNITS, FEATURES = "lstm", 64, 16
LIVES = 5.0, 30.0  # seconds that a session stays, from and to
MANY_MORE = 50  # who come when all sessions are taken
UPGRADE = (
    b"GET /session HTTP/1.1\r\nHost: load\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@dataclass
class Seen:
    """when, took, late: of each step, seconds: when it was sent, and how long the answer took from
    then and from when it was due. health: what the server said each second."""

    begun: float = field(default_factory=time.perf_counter)
    when: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    health: list[dict] = field(default_factory=list)
    sessions: int = 0
    waited: int = 0  # for a place that was still being cleared
    wrong: int = 0
    largest: float = 0.0  # difference of an answer from the layer alone

    def percentiles(self, values: Sequence[float]) -> tuple[float, float, float]:
        """p50, p99 and the largest, in milliseconds."""
        if not values:
            return 0.0, 0.0, 0.0
        p50, p99, most = np.percentile(values, (50, 99, 100)) * 1e3
        return float(p50), float(p99), float(most)


class Load:
    """Sessions against the server at `address` (host:port) for `seconds`."""

    def __init__(self, address: str, seconds: float, rate: float) -> None:
        self.address, self.seconds, self.rate = address, seconds, rate
        lives = [life * min(1.0, seconds / 30) for life in LIVES]  # short runs have short sessions
        self.steps = [max(2, round(life * rate)) for life in lives]
        self.alone = layer_of(CELL, UNITS, FEATURES, None)
        self.alone(np.zeros((1, self.steps[1], FEATURES), np.float32))  # compiled before it counts
        self.seen = Seen()

    def connect(self) -> connect:
        return connect(f"ws://{self.address}/session", compression=None, open_timeout=60)

    def health(self) -> dict:
        with urllib.request.urlopen(f"http://{self.address}/health", timeout=60) as answer:
            return json.load(answer)

    async def place(self, number: int) -> None:
        """One session after another, until the time is up."""
        rng = np.random.default_rng(number)
        await asyncio.sleep(rng.random() / self.rate)
        while time.perf_counter() - self.seen.begun < self.seconds:
            x = rng.standard_normal((rng.integers(*self.steps), FEATURES)).astype("<f4")
            try:
                async with self.connect() as socket:
                    y = await self.session(socket, x)
            except InvalidStatus:  # the one before isn't cleared away yet
                self.seen.waited += 1
                await asyncio.sleep(0.05)
                continue
            self.check(x[: len(y)], y)

    async def session(self, socket: ClientConnection, x: np.ndarray) -> np.ndarray:
        """The answers [steps, units] to as many of these steps as there was time for."""
        seen, y = self.seen, []
        begun = time.perf_counter()
        for step, sent_now in enumerate(x):
            due = begun + step / self.rate
            await asyncio.sleep(due - time.perf_counter())
            sent = time.perf_counter()
            if sent - seen.begun >= self.seconds:
                break
            await socket.send(sent_now.tobytes())
            y.append(np.frombuffer(await socket.recv(), "<f4"))
            now = time.perf_counter()
            seen.when.append(sent - seen.begun)
            seen.took.append(now - sent)
            seen.late.append(now - due)
        return np.array(y).reshape(-1, UNITS)

    def check(self, x: np.ndarray, y: np.ndarray) -> None:
        """A session's answers against the layer run alone over its input."""
        self.seen.sessions += 1
        padded = np.zeros((1, self.steps[1], FEATURES), np.float32)  # one shape: one plan
        padded[0, : len(x)] = x
        right = self.alone(padded)[0, : len(x)]
        if not np.array_equal(right, y):
            self.seen.wrong += 1
            self.seen.largest = max(self.seen.largest, float(np.abs(right - y).max()))

    async def watch(self, progress: Progress) -> None:
        """The server's health and the last second's percentiles, each second."""
        seen, task = self.seen, progress.add_task("", total=self.seconds, text="")
        before = 0
        while (now := time.perf_counter() - seen.begun) < self.seconds:
            await asyncio.sleep(min(1, self.seconds - now))
            health = await asyncio.to_thread(self.health)
            seen.health.append({**health, "second": time.perf_counter() - seen.begun})
            p50, p99, _ = seen.percentiles(seen.took[before:])
            text = f"{len(seen.took) - before} steps/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
            before = len(seen.took)
            progress.update(task, completed=time.perf_counter() - seen.begun, text=text)

    async def run(self, sessions: int, console: Console) -> None:
        """All places at once; raises what the first of them raises."""
        columns = BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn()
        with Progress(*columns, console=console) as progress:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.watch(progress))
                for place in range(sessions):
                    group.create_task(self.place(place))

    async def too_many(self, sessions: int) -> tuple[int, int]:
        """How many are let in, and how many refused with 503, of more than there is room for."""

        async def come() -> ClientConnection | None:
            try:
                return await self.connect()
            except InvalidStatus as status:
                assert status.response.status_code == 503, status
                return None

        came = await asyncio.gather(*(come() for _ in range(sessions + MANY_MORE)))
        inside = [socket for socket in came if socket]
        await asyncio.gather(*(socket.close() for socket in inside))
        return len(inside), len(came) - len(inside)

    async def never_reads(self, seconds: float) -> tuple[int, bool, float]:
        """Steps that one who doesn't read can send; whether nothing more goes through within a
        second then; megabytes that the server took meanwhile."""
        before = (await asyncio.to_thread(self.health))["megabytes"]
        reader, writer = await asyncio.open_connection(*self.address.split(":"))
        writer.write(UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        length = 4 * FEATURES
        frame = bytes([0x82, 0x80 | length, *bytes(4), *bytes(length)])  # masked by zeros
        sent, end = 0, time.perf_counter() + seconds
        held_up = False
        while not held_up and time.perf_counter() < end:
            writer.write(frame * 100)
            try:
                await asyncio.wait_for(writer.drain(), 1)
                sent += 100
            except TimeoutError:
                held_up = True
        after = (await asyncio.to_thread(self.health))["megabytes"]
        writer.transport.abort()
        return sent, held_up, after - before


def picture(seen: Seen, path: Path) -> None:
    """Percentiles of each second, and the server's memory."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: it needs matplotlib (pip install matplotlib)", file=sys.stderr)
        return
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    times, memory = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    second = np.floor(seen.when).astype(int)
    took = np.array(seen.took) * 1e3
    seconds = np.unique(second)
    for share, color in ((99, "tab:orange"), (50, "tab:blue")):
        line = [np.percentile(took[second == s], share) for s in seconds]
        times.plot(seconds, line, color=color, label=f"p{share}", linewidth=1)
    times.set_yscale("log")
    times.set_ylabel("round trip, ms")
    times.legend(loc="upper right", ncols=2, frameon=False)
    of_memory = ([h[name] for h in seen.health] for name in ("second", "megabytes"))
    memory.plot(*of_memory, color="black", linewidth=1)
    memory.set_ylim(0, 1.3 * max(h["megabytes"] for h in seen.health))
    memory.set_ylabel("server, MB")
    memory.set_xlabel("seconds")
    figure.savefig(path, dpi=90)
    print(f"picture: {path}")


def report(load: Load, door: tuple[int, int], flood: tuple[int, bool, float], end: dict) -> Table:
    """What was seen, a line each."""
    seen = load.seen
    table = Table(show_header=False)
    held_up = "held up" if flood[1] else "not held up"
    rows = {
        "sessions, steps": f"{seen.sessions}, {len(seen.took)}",
        "steps a second": f"{len(seen.took) / load.seconds:.0f}",
        "round trip, p50, p99, largest": "{:.2f}, {:.2f}, {:.0f} ms".format(
            *seen.percentiles(seen.took)
        ),
        "from when it was due": "{:.2f}, {:.2f}, {:.0f} ms".format(*seen.percentiles(seen.late)),
        "rows a turn": f"{end['steps'] / max(1, end['turns']):.1f}",
        "sessions with a wrong bit": f"{seen.wrong}, largest difference {seen.largest:g}",
        "more than there is room for": f"{door[0]} let in, {door[1]} refused with 503",
        "who never reads": f"{held_up} after {flood[0]} steps, {flood[2]:+.1f} MB",
        "server's memory": memory_of(seen),
        "left open": f"{end['sessions']} sessions, {end['waiting']} steps that wait",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def memory_of(seen: Seen) -> str:
    """Over the load: a tenth in, when all have come, and at its end."""
    values = [h["megabytes"] for h in seen.health]
    return f"{values[len(values) // 10]:.1f} -> {values[-1]:.1f} MB" if values else "?"


async def settled(load: Load) -> dict:
    """Health, once closed sessions are cleared away, or after five seconds."""
    for _ in range(50):
        health = await asyncio.to_thread(load.health)
        if not health["sessions"]:
            break
        await asyncio.sleep(0.1)
    return health


async def drive(load: Load, sessions: int, console: Console) -> bool:
    """Whether all of it went well."""
    await load.run(sessions, console)
    await settled(load)
    door = await load.too_many(sessions)
    await settled(load)
    flooded = await load.never_reads(20)
    end = await settled(load)
    console.print(report(load, door, flooded, end))
    fine = not load.seen.wrong and flooded[1] and not end["sessions"]
    return fine and door == (sessions, MANY_MORE)


@contextmanager
def serving(sessions: int) -> Iterator[str]:
    """serve.py in a process of its own: host:port. SystemExit if it ends: it has said why."""
    sizes = ["--cell", CELL, "--units", str(UNITS), "--features", str(FEATURES)]
    command = [sys.executable, str(SERVER), *sizes, "--sessions", str(sessions), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            line = server.stdout.readline().rstrip()
            if not line:
                raise SystemExit(1)
            print(line)
            yield line.split("//")[1].split("/")[0]
        finally:
            server.terminate()


def png(text: str) -> Path:
    """A path for a picture, in a folder that is there."""
    path = Path(text)
    if path.suffix != ".png" or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no .png in a folder that is there")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sessions", type=number(1, 10**4), default=200)
    seconds, rate = number(1, 10**6, float), number(0.1, 1000, float)
    parser.add_argument("--seconds", type=seconds, default=300.0)
    parser.add_argument("--rate", type=rate, default=10.0, help="steps a second")
    parser.add_argument("--picture", type=png, default=Path("service.png"))
    parser.add_argument("--quick", action="store_true", help="20 sessions for 3 seconds")
    given = parser.parse_args(argv)
    if given.quick:
        given.sessions, given.seconds = 20, 3.0
    try:
        with serving(given.sessions) as address:
            load = Load(address, given.seconds, given.rate)
            well = asyncio.run(drive(load, given.sessions, Console()))
    except KeyboardInterrupt:
        return 130
    except (ExceptionGroup, ConnectionClosed, OSError) as error:
        first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        if not isinstance(first, (ConnectionClosed, OSError)):
            raise
        print(f"the server was lost: {first}", file=sys.stderr)
        return 1
    picture(load.seen, given.picture)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
