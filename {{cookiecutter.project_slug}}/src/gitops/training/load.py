"""The rows of a split: held in memory where they fit, else read when they are needed."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import torch

from gitops.training.rows import Encode, InMemory, Rows
from gitops.training.streamed import Streamed

#: Bytes of the tensors of a split that is held in memory.
MEMORY = 256 << 20

#: Bytes of a number, of a category's code and of a target.
VALUE = 8


def rows(path: Path, columns: list[str], encode: Encode, width: int, device: torch.device) -> Rows:
    """Return the rows of the split `path`: `columns` are those that `encode` needs, `width` the values of a row in
    its tensors.

    Raises OSError or ValueError where the file cannot be read, and whatever `encode` raises.
    """
    found = Streamed(path, columns, encode, device)
    large = pq.read_metadata(str(path)).num_rows * width * VALUE > MEMORY
    return found if large else InMemory(found.whole().to(device), found.groups)
