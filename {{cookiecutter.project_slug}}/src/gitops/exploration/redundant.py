"""Numbers that order the rows in the same way, so that a model learns little from a second one."""

from __future__ import annotations

import numpy as np

from gitops.exploration.tables import Split

#: Rows that are compared, at most, and Spearman's correlation from which two columns say the same.
ROWS, SAME = 5_000, 0.98


def groups(split: Split, numbers: list[str]) -> list[list[str]]:
    """Return groups of columns whose rank correlation with the first of the group, in a sample, is SAME or more."""
    if len(numbers) < 2:
        return []
    frame = split.sample(numbers, ROWS)
    ranks = frame.rank().to_numpy(float)
    ranks -= np.nanmean(ranks, axis=0, keepdims=True) if len(frame) else 0
    ranks = np.nan_to_num(ranks)
    lengths = np.linalg.norm(ranks, axis=0)
    ranks /= np.where(lengths > 0, lengths, 1)
    alike = np.abs(ranks.T @ ranks) >= SAME
    left, found = [*range(len(numbers))], []
    while left:
        first, *others = left
        same = [at for at in others if alike[first, at]]
        if same:
            found.append([numbers[at] for at in (first, *same)])
        left = [at for at in others if at not in same]
    return found
