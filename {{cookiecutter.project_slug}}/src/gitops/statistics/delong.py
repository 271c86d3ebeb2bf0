"""The variance of a ROC AUC without resamples (DeLong, DeLong and Clarke-Pearson, 1988), also of rows in groups.

A positive row's placement is the fraction of the negative rows that it is ranked above, a negative one's the fraction
of the positive rows that it is ranked below, ties by half. They are read from sorted scores, in O(n log n) (Sun and Xu,
2014, "Fast implementation of DeLong's algorithm"). With groups their sums by group take the rows' place (Obuchowski,
1997, "Nonparametric analysis of clustered ROC curve data"); where each row is a group this is DeLong's variance.
"""

from __future__ import annotations

import numpy as np

from gitops.statistics.resampling import Array, Clusters


def placements(positive: Array, scores: Array) -> Array:
    """Return the placement of each row, [rows]; `positive` [rows] is 1 for the positive class and else 0."""
    found = np.empty(len(scores))
    for own in (1, 0):
        others = np.sort(scores[positive != own])
        rows = positive == own
        below = (np.searchsorted(others, scores[rows], "left") + np.searchsorted(others, scores[rows], "right")) / 2
        found[rows] = below / len(others) if own else 1 - below / len(others)
    return found


def auc(positive: Array, scores: Array, groups: Array) -> tuple[float, float, Array]:
    """Return the ROC AUC, its variance, and the influence of each group on it, [groups].

    Arguments as in `placements`; `groups` [rows] are the numbers of the rows' groups. Both classes are there. The
    variance is NaN where all rows of a class are in one group.
    """
    placed, codes = placements(positive, scores), Clusters(groups).codes
    value = float(placed[positive == 1].mean())
    sums, parts = [], 0.0
    for own in (1, 0):
        rows = positive == own
        count = int(rows.sum())
        of_class = np.bincount(codes[rows], weights=placed[rows] - value, minlength=codes.max() + 1) / count
        within = int((np.bincount(codes[rows], minlength=codes.max() + 1) > 0).sum())
        parts += float((of_class**2).sum()) * (within / (within - 1) if within > 1 else np.nan)
        sums.append(of_class)
    count = len(sums[0])
    parts += 2 * float((sums[0] * sums[1]).sum()) * count / (count - 1) if count > 1 else 0.0
    return value, parts, sums[0] + sums[1]
