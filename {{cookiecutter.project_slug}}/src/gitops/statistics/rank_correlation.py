"""Columns of numbers that order the rows in the same way, by Spearman's rank correlation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: Spearman's correlation from which two columns say the same, and rows that are enough to see it.
SAME, ROWS = 0.98, 5_000


def groups(frame: pd.DataFrame) -> list[list[str]]:
    """Return groups of columns whose rank correlation with the first of the group is SAME or more, of either sign."""
    names = [*frame.columns]
    if len(names) < 2:
        return []
    ranks = frame.rank().to_numpy(float)
    ranks -= np.nanmean(ranks, axis=0, keepdims=True) if len(frame) else 0
    ranks = np.nan_to_num(ranks)
    lengths = np.linalg.norm(ranks, axis=0)
    ranks /= np.where(lengths > 0, lengths, 1)
    alike = np.abs(ranks.T @ ranks) >= SAME
    left, found = [*range(len(names))], []
    while left:
        first, *others = left
        same = [at for at in others if alike[first, at]]
        if same:
            found.append([names[at] for at in (first, *same)])
        left = [at for at in others if at not in same]
    return found
