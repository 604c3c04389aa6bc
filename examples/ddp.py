"""A custom cell trained by several processes: torch's DistributedDataParallel over rnncc.

    torchrun --nproc-per-node 2 examples/ddp.py [--steps 40] [--checkpoint FILE]

Every process takes its rows of one global batch, so losses are those of one process with all rows
(python examples/ddp.py). With a checkpoint, a run that was killed goes on where it was saved:
torchrun --max-restarts 1 starts the workers again by itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from rnncc.torch import Recurrent

SPEC = Path(__file__).with_name("coupled_peephole.rnn")
BATCH, TIME, FEATURES, UNITS = 8, 12, 3, 16


class Model(torch.nn.Module):
    """Sums of a sequence's first feature, from the cell's last output."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Recurrent(SPEC, units=UNITS, input_size=FEATURES)
        self.head = torch.nn.Linear(UNITS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body(x))
        return y[:, 0]


def batch(step: int, rank: int, world: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One process's rows of a step's batch, the same whatever the number of processes."""
    draw = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, TIME, FEATURES, generator=draw)
    y = x[..., 0].sum(dim=1) / TIME**0.5
    rows = slice(rank, None, world)
    return x[rows], y[rows]


def train(steps: int, checkpoint: Path | None, die_at: int | None) -> list[float]:
    """The losses of the steps that this run made, over the global batch."""
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = DistributedDataParallel(Model())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    begin = 0
    if checkpoint and checkpoint.exists():
        saved = torch.load(checkpoint)
        model.module.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        begin = saved["step"]
    losses = []
    for step in range(begin, steps):
        if (
            step == die_at
            and rank == world - 1
            and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
        ):
            os._exit(1)  # as if it had been killed
        x, y = batch(step, rank, world)
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        losses.append(float(total) / world)
        if rank == 0:
            print(f"step {step}: loss {losses[-1]:.6f}", flush=True)
            if checkpoint:
                write(checkpoint, model.module, optimizer, step + 1)
    return losses


def join() -> None:
    """This process into the group torchrun started, else alone."""
    if "RANK" not in os.environ:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        return
    store, rank, world = next(dist.rendezvous("env://"))
    # A worker that is started again would find the addresses of those that are gone.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)


def write(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """The file is there whole or as it was before."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    fresh = path.with_name(f"{path.name}.new")
    torch.save(state, fresh)
    os.replace(fresh, path)


def main(argv: Sequence[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument(
        "--die-at", type=int, metavar="STEP", help="the last worker ends there, once"
    )
    arguments = parser.parse_args(argv)
    join()
    try:
        return train(arguments.steps, arguments.checkpoint, arguments.die_at)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads, where they outlive the interpreter, abort the process
