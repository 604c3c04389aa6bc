"""A line on a terminal while kernels are compiled; nothing anywhere else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rnncc.runtime.jit import progress

pty = pytest.importorskip("pty")

SCRIPT = """
import time
from rnncc.runtime.jit import progress
progress.AFTER = {after}
with progress.Progress("LSTM, forward", 5) as line:
    for _ in range(3):
        line.advance()
    time.sleep(0.4)
    line.advance()
    time.sleep(0.2)
"""


def shown(after: float, **environment: str) -> str:
    """What a terminal gets to see of it."""
    master, slave = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", SCRIPT.format(after=after)],
            stderr=slave,
            check=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment},
        )
        os.set_blocking(master, False)
        try:
            return os.read(master, 100_000).decode()
        except BlockingIOError:
            return ""
    finally:
        os.close(slave)
        os.close(master)


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
    assert progress.Progress("LSTM", 1).text == "compiling LSTM: 0 of 1 kernel"
    for none in (None, open(os.devnull, "w")):  # noqa: SIM115
        if none is not None:
            none.close()
        monkeypatch.setattr(sys, "stderr", none)
        assert not progress.wanted()
