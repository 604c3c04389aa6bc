"""A T-maze, learned by actor and critic on one layer: what was seen at the start decides the end.

    python examples/episodes.py [--cell gru] [--corridor 10] [--quick] [--picture episodes.png]

An episode (Bakker 2002): at the start a light says left or right; then a corridor, in which every
place looks alike; at its end the way forks. The right turn gives 1, the wrong one -1, and walking
into a wall -0.1. Only a memory of the light tells the turns apart, so who has none is right half
of the time.

Mazes run side by side and episodes end when they end, so a stretch of steps holds parts of many:
`resets=` says where each begins, to the stream that acts and to the pullback that learns. Both have
the same bits, which is checked at every step. NumPy and rnncc alone; matplotlib for the picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import rnncc

MAZES, STRETCH, UNITS = 32, 40, 32
AHEAD, LEFT, RIGHT = range(3)
FEATURES = 4  # the light left, the light right, corridor, fork
DISCOUNT, SPREAD, ENTROPY, RATE = 0.98, 0.95, 0.02, 3e-3
Arrays = dict[str, np.ndarray]


class Mazes:
    """Many T-mazes, each with its own episode. corridor: steps from the start to the fork."""

    def __init__(self, count: int, corridor: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.corridor = corridor
        self.place = np.zeros(count, int)
        self.goal = self.rng.integers(LEFT, RIGHT + 1, count)
        self.steps = np.zeros(count, int)

    def seen(self) -> np.ndarray:
        """float32 [mazes, features]."""
        x = np.zeros((len(self.place), FEATURES), np.float32)
        start, fork = self.place == 0, self.place == self.corridor
        x[start, self.goal[start] - LEFT] = 1
        x[~start & ~fork, 2] = 1
        x[fork, 3] = 1
        return x

    def act(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rewards, float32 [mazes], and which episodes are over, bools: these begin anew."""
        fork, ahead = self.place == self.corridor, action == AHEAD
        reward = np.where(fork == ahead, -0.1, 0.0)
        turned = fork & ~ahead
        reward[turned] = np.where(action == self.goal, 1.0, -1.0)[turned]
        self.place += ahead & ~fork
        self.steps += 1
        over = turned | (self.steps >= 3 * self.corridor + 10)
        self.place[over] = self.steps[over] = 0
        self.goal[over] = self.rng.integers(LEFT, RIGHT + 1, over.sum())
        return reward.astype(np.float32), over


class Adam:
    """Kingma & Ba 2015, of gradients cut to a norm of 1."""

    def __init__(self, rate: float) -> None:
        self.rate, self.step = rate, 0
        self.mean: Arrays = {}
        self.power: Arrays = {}

    def update(self, weights: Arrays, gradients: Arrays) -> Arrays:
        """The weights after one step."""
        self.step += 1
        norm = np.sqrt(sum(float((g * g).sum()) for g in gradients.values()))
        rate = self.rate * np.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
        after = {}
        for name, g in gradients.items():
            g = g / max(1.0, norm)
            self.mean[name] = 0.9 * self.mean.get(name, 0) + 0.1 * g
            self.power[name] = 0.999 * self.power.get(name, 0) + 0.001 * g * g
            change = rate * self.mean[name] / (np.sqrt(self.power[name]) + 1e-7)
            after[name] = (weights[name] - change).astype(np.float32)
        return after


@dataclass
class Stretch:
    """Steps of all mazes, [mazes, steps]. resets: an episode begins before that step; over: one
    ends with it; h [mazes, steps, units]: what the acting stream put out; last [mazes]: the
    critic's opinion of what comes behind."""

    x: np.ndarray
    resets: np.ndarray
    h: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    over: np.ndarray
    last: np.ndarray


@dataclass
class Curve:
    """steps: of all mazes; right: the share of episodes, that ended since the point before, that
    ended with the right turn."""

    steps: list[int] = field(default_factory=list)
    right: list[float] = field(default_factory=list)


class Agent:
    """A stateful layer that learns, a stream of it that acts, and two heads on its outputs.

    forgetful: every step is an episode's first one to the layer: no memory.
    """

    def __init__(self, cell: str, mazes: Mazes, seed: int, forgetful: bool = False) -> None:
        self.mazes, self.forgetful = mazes, forgetful
        self.layer = rnncc.compile(cell)(
            units=UNITS, return_sequences=True, stateful=True, seed=seed
        )
        count = len(mazes.place)
        self.stream = self.layer.stream(np.zeros((count, 1, FEATURES), np.float32))
        shapes = [array.shape[2:] for array in self.stream.outputs.values()]
        if len(shapes) != 1 or len(shapes[0]) != 1:
            raise ValueError(f"{cell}: heads read one vector, this cell returns {shapes}")
        (self.width,) = shapes[0]
        self.rng = np.random.default_rng(seed)
        self.heads: Arrays = {
            "actor": self.rng.normal(0, 0.01, (self.width + 1, 3)).astype(np.float32),
            "critic": np.zeros((self.width + 1, 1), np.float32),
        }
        self.adam = Adam(RATE)
        self.begins = np.ones(count, bool)  # which mazes' next step is an episode's first

    def walk(self, steps: int) -> Stretch:
        """Acts for so many steps."""
        count = len(self.mazes.place)
        room = (count, steps)
        s = Stretch(
            np.empty((*room, FEATURES), np.float32),
            np.empty(room, bool),
            np.empty((*room, self.width), np.float32),
            np.empty(room, int),
            np.empty(room, np.float32),
            np.empty(room, bool),
            np.empty(count, np.float32),
        )
        for t in range(steps):
            s.x[:, t] = self.mazes.seen()
            s.resets[:, t] = self.begins | self.forgetful
            s.h[:, t] = self.stream(s.x[:, t : t + 1], resets=s.resets[:, t])[:, 0]
            likely = softmax(with_one(s.h[:, t]) @ self.heads["actor"])
            drawn = self.rng.random((count, 1), np.float32)
            s.actions[:, t] = np.minimum((likely.cumsum(axis=1) < drawn).sum(axis=1), 2)
            s.rewards[:, t], s.over[:, t] = self.mazes.act(s.actions[:, t])
            self.begins = s.over[:, t]
        # What the critic thinks of the next step, which the stream doesn't take yet.
        kept = self.stream.states
        h = self.stream(self.mazes.seen()[:, None], resets=self.begins | self.forgetful)[:, 0]
        self.stream.states = kept
        s.last = (with_one(h) @ self.heads["critic"])[:, 0]
        return s

    def learn(self, s: Stretch) -> None:
        """One step of advantage actor-critic, gradients through the whole stretch."""
        h, pullback = self.layer.vjp(s.x, resets=s.resets)
        if not np.array_equal(h, s.h):
            raise AssertionError("the stream that acts and the layer that learns differ")
        inputs = with_one(h)
        likely = softmax(inputs @ self.heads["actor"])
        value = (inputs @ self.heads["critic"])[..., 0]
        better = advantages(s, value)
        scale = 1 / better.size
        spread = (better - better.mean()) / (better.std() + 1e-6)
        d_logits = (likely - np.eye(3, dtype=np.float32)[s.actions]) * spread[..., None] * scale
        log = np.log(likely + 1e-9)
        entropy = -(likely * log).sum(axis=-1, keepdims=True)
        d_logits += ENTROPY * scale * likely * (log + entropy)
        d_value = (-0.5 * scale * better)[..., None]
        heads = self.heads
        slope = (d_logits @ heads["actor"].T + d_value @ heads["critic"].T)[..., :-1]
        gradients = {
            **pullback(np.ascontiguousarray(slope, np.float32), wrt=("weights",)).weights,
            "actor": np.einsum("btu,bta->ua", inputs, d_logits),
            "critic": np.einsum("btu,bta->ua", inputs, d_value),
        }
        after = self.adam.update({**self.layer.weights, **heads}, gradients)
        self.heads = {name: after.pop(name) for name in heads}
        for name, weight in after.items():
            self.layer.weights[name] = weight


def advantages(s: Stretch, value: np.ndarray) -> np.ndarray:
    """How much better it went than the critic thought (Schulman et al. 2016), [mazes, steps]."""
    better = np.empty_like(value)
    behind, ahead = s.last, np.zeros_like(s.last)
    for t in range(value.shape[1] - 1, -1, -1):
        on = DISCOUNT * ~s.over[:, t]
        ahead = s.rewards[:, t] + on * behind - value[:, t] + on * SPREAD * ahead
        better[:, t], behind = ahead, value[:, t]
    return better


def with_one(h: np.ndarray) -> np.ndarray:
    """[..., units] -> [..., units + 1]: heads have a bias."""
    return np.concatenate([h, np.ones((*h.shape[:-1], 1), h.dtype)], axis=-1)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def train(agent: Agent, stretches: int, what: str, progress: Progress) -> Curve:
    """So many stretches, acted and learned; a point of the curve for each 10."""
    curve, ended, right = Curve(), 0, 0
    task = progress.add_task("", total=stretches, text=what)
    for stretch in range(1, stretches + 1):
        s = agent.walk(STRETCH)
        agent.learn(s)
        ended += int(s.over.sum())
        right += int((s.rewards == 1).sum())
        if stretch % 10 == 0:
            curve.steps.append(stretch * s.over.size)
            curve.right.append(right / max(1, ended))
            ended = right = 0
            progress.update(task, text=f"{what}: {curve.right[-1]:.0%} end right")
        progress.advance(task)
    return curve


def save_picture(curves: dict[str, Curve], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: it needs matplotlib (pip install matplotlib)", file=sys.stderr)
        return
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(np.array(curve.steps) / 1e3, 100 * np.array(curve.right), label=name)
    axes.axhline(50, color="black", linewidth=0.5, linestyle=":")
    axes.set_xlabel("thousand steps of all mazes")
    axes.set_ylabel("% of episodes that end right")
    axes.set_ylim(0, 102)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=90)
    print(f"picture: {path}")


def png(text: str) -> Path:
    """A path for a picture, in a folder that is there."""
    path = Path(text)
    if path.suffix != ".png" or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no .png in a folder that is there")
    return path


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains with and without a memory; the shares of right ends, of the last tenth of training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cell", default="gru", help="a .rnn file or a built-in's name")
    parser.add_argument("--corridor", type=int, default=10, help="steps to the fork")
    parser.add_argument("--stretches", type=int, default=1500, help="of 40 steps of 32 mazes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", type=png, default=Path("episodes.png"))
    parser.add_argument("--quick", action="store_true", help="a corridor of 3, 150 stretches")
    given = parser.parse_args(argv)
    if given.quick:
        given.corridor, given.stretches = 3, 150
    if given.corridor < 1 or given.stretches < 10 or given.seed < 0:
        parser.error("--corridor is at least 1, --stretches 10, --seed 0")
    curves = {}
    columns = BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn()
    with Progress(*columns) as progress:
        for what in ("with its states", "forgetting at each step"):
            mazes = Mazes(MAZES, given.corridor, given.seed)
            try:
                agent = Agent(given.cell, mazes, given.seed, what.startswith("forgetting"))
            except (OSError, TypeError, ValueError, rnncc.SpecError) as error:
                raise SystemExit(str(error)) from None
            curves[what] = train(agent, given.stretches, what, progress)
    found = {}
    for what, curve in curves.items():
        last = curve.right[-max(1, len(curve.right) // 10) :]
        found[what] = float(np.mean(last))
        print(f"{what}: {found[what]:.1%} of episodes end right")
    save_picture(curves, given.picture)
    return found


if __name__ == "__main__":
    main()
