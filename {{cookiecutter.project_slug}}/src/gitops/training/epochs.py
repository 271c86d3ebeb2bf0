"""What makes a training that was killed end as an unbroken one: its epochs in blocks, and a checkpoint after each."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gitops.core import artifacts
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


def save(path: Path, contents: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all, in the first process; the others, which hold the same, do nothing."""
    if processes.first():
        with artifacts.replacing(path) as temporary:
            torch.save(contents, temporary)


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return what `save` has written, None where there is nothing. Only the first process, whose `path` it is, reads:
    those on other machines have another disk.
    """
    saved = path.read_bytes() if processes.first() and path.exists() else None
    saved = processes.from_first(saved)
    return torch.load(io.BytesIO(saved), map_location=device, weights_only=True) if saved else None
