"""examples/episodes.py: a memory tells the turns apart, none doesn't; mazes are as described."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.support.pages.programs import example


@pytest.fixture(scope="module")
def episodes() -> ModuleType:
    return example("episodes")


def test_a_memory_is_what_tells_the_turns_apart(
    episodes: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = episodes.main(["--quick", "--picture", str(tmp_path / "episodes.png")])
    assert found["with its states"] > 0.95
    assert 0.35 < found["forgetting at each step"] < 0.65
    assert "of episodes end right" in capsys.readouterr().out
    assert (tmp_path / "episodes.png").read_bytes().startswith(b"\x89PNG")


def test_a_maze(episodes: ModuleType) -> None:
    """Ahead to the fork, a wall, the wrong turn and the right one; a new episode sees the light."""
    mazes = episodes.Mazes(2, 2, seed=0)
    mazes.goal[:] = episodes.LEFT, episodes.RIGHT
    seen = [mazes.seen().argmax(axis=1).tolist()]
    rewards, ends = [], []
    for action in (episodes.LEFT, 0, 0, 0, episodes.LEFT):
        reward, over = mazes.act(np.full(2, action))
        rewards.append(reward.round(1).tolist())
        ends.append(over.tolist())
        seen.append(mazes.seen().argmax(axis=1).tolist())
    assert seen[:5] == [[0, 1], [0, 1], [2, 2], [3, 3], [3, 3]] and {*seen[5]} <= {0, 1}
    wall = pytest.approx([-0.1, -0.1])
    assert rewards == [wall, [0, 0], [0, 0], wall, [1, -1]]
    assert ends == [[False] * 2] * 4 + [[True] * 2]


def test_an_episode_of_walls_ends(episodes: ModuleType) -> None:
    mazes = episodes.Mazes(1, 2, seed=0)
    over = [bool(mazes.act(np.array([episodes.LEFT]))[1][0]) for _ in range(32)]
    assert np.flatnonzero(over).tolist() == [15, 31]


def test_advantages(episodes: ModuleType) -> None:
    """Of two steps and one that an episode ends with, by hand."""
    zeros = np.zeros((1, 3))
    s = episodes.Stretch(
        zeros, zeros, zeros, zeros, np.array([[1.0, 2, 4]]), np.array([[0, 1, 0]], bool), np.ones(1)
    )
    better = episodes.advantages(s, np.array([[0.5, 0.25, 2]]))
    d, g = episodes.DISCOUNT, episodes.SPREAD
    assert better[0, 2] == pytest.approx(4 + d - 2)
    assert better[0, 1] == pytest.approx(2 - 0.25)
    assert better[0, 0] == pytest.approx(1 + d * 0.25 - 0.5 + d * g * better[0, 1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--corridor", "0"], "--corridor is at least 1"),
        (["--picture", "/nowhere/x.png"], "no .png in a folder"),
        (["--cell", "gru_d"], "3 arrays"),
        (["--cell", "nothing.rnn"], "nothing.rnn"),
    ],
)
def test_what_is_given_wrong_is_told(
    episodes: ModuleType,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        episodes.main(arguments)
    assert words in f"{end.value}{capsys.readouterr().err}"
