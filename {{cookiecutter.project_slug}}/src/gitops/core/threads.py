"""How many threads PyTorch computes with: one for a small table, as many as there are cores for a large one.

Threads of a small table mostly wait for each other. On cores that do other work too, as a runner's, two make a training
ten times slower than one (1.1 s and 11 s, the bundled table on two busy cores). And sums depend on their number: with
one, a small table gives the same model on each machine, however many cores that has.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Bytes of a split, as parquet, that is small: about a million numbers, of which one thread learns in two seconds.
SMALL = 8 << 20


def small(split: Path) -> bool:
    """Tell whether the split is small, or not there at all."""
    return not split.exists() or split.stat().st_size <= SMALL


def limit(split: Path) -> None:
    """Let this process compute with one thread if `split` is small. OMP_NUM_THREADS, where it is set, decides."""
    if "OMP_NUM_THREADS" not in os.environ and small(split):
        import torch

        torch.set_num_threads(1)


def share(split: Path, processes: int) -> int:
    """Return the threads of each of so many processes that learn from `split` on this machine."""
    return 1 if small(split) else max(1, cores() // processes)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
