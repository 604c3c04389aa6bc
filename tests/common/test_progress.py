"""A line on a terminal while something takes long; nothing anywhere else."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time

import pytest

from rnncc.common import progress
from rnncc.runtime.jit.progress import Progress

pty = pytest.importorskip("pty")

SCRIPT = """
import time
from rnncc.common import progress
from rnncc.runtime.jit.progress import Progress
progress.AFTER = {after}
with Progress("LSTM, forward", 5) as line:
    for _ in range(3):
        line.advance()
    time.sleep(0.4)
    line.advance()
    time.sleep(0.2)
"""


WORKS = """
import time
from rnncc.common import progress
progress.AFTER = {after}
def wait(work):
    while not work.takes_long:
        time.sleep(0.01)
    time.sleep(0.3)
with progress.working("outer") as outer:
    wait(outer)
    with progress.working("inner") as line:
        print("a result")
        wait(line)
        line.say("nearly")
"""


def shown(after: float, script: str = SCRIPT, **environment: str) -> str:
    """What a terminal gets to see of it."""
    return seen(after, script, **environment)[0]


def seen(after: float, script: str, **environment: str) -> tuple[str, str]:
    """What a terminal gets to see of it, and what goes to a file beside it."""
    master, slave = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", script.format(after=after)],
            stdout=subprocess.PIPE,
            stderr=slave,
            check=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment},
        )
        os.set_blocking(master, False)
        try:
            return os.read(master, 100_000).decode(), done.stdout.decode()
        except BlockingIOError:
            return "", done.stdout.decode()
    finally:
        os.close(slave)
        os.close(master)


def test_of_works_in_works_the_innermost_is_said() -> None:
    """What is printed meanwhile goes where it was to go."""
    text, printed = seen(0.1, WORKS)
    said = re.findall(r"outer|inner|nearly", text)
    assert [k for k, _ in itertools.groupby(said)] == ["outer", "inner", "nearly", "outer"]
    assert printed == "a result\n" and "result" not in text


def test_a_long_name_with_anything_in_it_is_one_line() -> None:
    hostile = WORKS.replace('"outer"', r'"[red]" + chr(27) + "[2J" + "long " * 40')
    text = shown(0.1, hostile)
    assert r"[red]\x1b[2Jlong" in text and "\x1b[2J" not in text
    frames = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text)
    assert max(map(len, re.split(r"[\r\n]+", frames))) <= 80 and "…" in frames


def test_a_commands_second_passes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [7.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_since", None)
    assert progress._patience() == progress.AFTER
    progress.command_begins()
    for seconds, left in ((0.0, 1.0), (0.25, 0.75), (0.9, progress.LEAST), (60.0, progress.LEAST)):
        now[0] = 7.0 + seconds
        assert progress._patience() == left


def test_a_terminal_is_told_what_is_ready() -> None:
    text = shown(0.0)
    assert "compiling LSTM, forward: 3 of 5 kernels" in text
    assert "compiling LSTM, forward: 4 of 5 kernels" in text
    assert text.rstrip().endswith("\x1b[2K"), "the line is gone in the end"


def test_what_is_quick_is_done_in_silence() -> None:
    assert shown(30.0) == ""


def test_a_switch_turns_it_off() -> None:
    assert shown(0.0, RNNCC_PROGRESS="0") == ""


def test_a_pipe_gets_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(after=0.0)], capture_output=True, check=True
    )
    assert done.stdout == done.stderr == b""


def test_one_is_no_plural_and_no_stderr_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Progress("LSTM", 1).text == "compiling LSTM: 0 of 1 kernel"
    for none in (None, open(os.devnull, "w")):  # noqa: SIM115
        if none is not None:
            none.close()
        monkeypatch.setattr(sys, "stderr", none)
        assert not progress.wanted()
