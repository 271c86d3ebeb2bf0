"""What makes a training that was killed end as an unbroken one: its epochs in blocks, and a checkpoint after each."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from gitops.core import artifacts, code
from gitops.training import processes
from gitops.training.rows import Rows, Step

#: Rows after which a block of an epoch ends; a smaller split has one block an epoch.
BLOCK = 1 << 20


def blocks(rows: Rows, batch_size: int) -> int:
    """Return the number of blocks of an epoch."""
    return -(-len(rows) // (batch_size * _steps(batch_size)))


def epoch(rows: Rows, batch_size: int, seed: int, number: int, first: int = 0) -> Iterator[Iterator[Step]]:
    """Yield the steps of each block of the epoch `number`, from the block `first` on.

    Each block seeds PyTorch with what depends on the seed, the epoch, the block and the process, so that a block which
    is done again is done in the same way, and dropout differs between processes.
    """
    torch.manual_seed(seed + number)
    steps = rows.steps(batch_size, seed + number, first * _steps(batch_size))
    for block in range(first, blocks(rows, batch_size)):
        if block or processes.rank():
            words = np.random.SeedSequence([seed % 2**64, number, block, processes.rank()])
            torch.manual_seed(int(words.generate_state(1, np.uint64)[0] >> 1))
        yield islice(steps, _steps(batch_size))


def _steps(batch_size: int) -> int:
    """Return the number of steps of a block."""
    return max(1, BLOCK // batch_size)


def folder(module: Path, *settings: BaseModel) -> Path:
    """Return a folder for checkpoints that only a run with the same data, settings and code of `module` shares."""
    key = hashlib.sha256()
    for section in settings:
        key.update(section.model_dump_json().encode())
    for path in (artifacts.TRAIN, artifacts.VAL, artifacts.SCHEMA, artifacts.NUMBERS, *code.computing(module)):
        key.update(artifacts.digest(path).encode())
    return artifacts.CHECKPOINTS / key.hexdigest()[:16]


class Checkpoint:
    """The file from which a training that was killed goes on: the weights, the optimiser's state, and `state`, what
    else the training keeps. The first process alone reads and writes it: those on other machines have another disk.
    """

    def __init__(self, path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self.path, self.model, self.optimiser = path, model, optimiser

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Restore model and optimiser, and return the state, in every process; None where there is no file."""
        content = self.path.read_bytes() if processes.first() and self.path.exists() else None
        content = processes.from_first(content)
        if content is None:
            return None
        saved = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        return saved["state"]  # type: ignore[no-any-return]

    def save(self, state: dict[str, Any]) -> None:
        """Write the file, whole or not at all."""
        if processes.first():
            content = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "state": state}
            with artifacts.replacing(self.path) as temporary:
                torch.save(content, temporary)
