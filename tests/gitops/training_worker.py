"""One of several processes that fit a network, as the stage does, started by `processes.run` with this module.

Usage: MODE [RANK STEP]; with a rank and a step, that process is killed there, once.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from breast_cancer import train
from gitops.core import artifacts, params
from gitops.training import epochs, load, processes


def fit(mode: str) -> dict[str, Any]:
    """Return the weights and the learning curve of a training in memory, or streamed in blocks of a few steps."""
    load.MEMORY, epochs.BLOCK = (0, 100) if mode == "streamed" else (1 << 30, 1 << 20)
    settings = params.load()
    splits = train.load_splits(settings)  # type: ignore[arg-type]
    model, history = train.fit_model(settings, splits, Path(f"{mode}-checkpoint.pt"), None)  # type: ignore[arg-type]
    return {"weights": dict(model.network.named_parameters()), "history": history}


def die_at(rank: int, step: int) -> None:
    """Have the process `rank` killed at a step, the first time."""
    loss_of, steps = train.loss_of, iter(range(1, 1 << 30))

    def deadly(*arguments: Any) -> torch.Tensor:
        if next(steps) == step and processes.rank() == rank and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return loss_of(*arguments)

    train.loss_of = deadly


def work() -> None:
    modes, *death = sys.argv[1].split()
    if death:
        die_at(int(death[0]), int(death[1]))
    for mode in modes.split("+"):
        torch.save(fit(mode), f"{mode}-{processes.rank()}-of-{processes.world()}.pt")


def main() -> int:
    sys.argv[1:] = [os.environ["WORK"]]
    return processes.run(work, "training_worker", 2, torch.device("cpu"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    artifacts.run(main)
