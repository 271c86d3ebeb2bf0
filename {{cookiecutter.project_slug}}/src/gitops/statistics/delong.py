"""The variance of a ROC AUC without resamples (DeLong, DeLong and Clarke-Pearson, 1988), also of rows in groups.

A positive row's placement is the fraction of the negative rows that it is ranked above, a negative one's the fraction
of the positive rows that it is ranked below, ties by half. They are read from sorted scores, in O(n log n) (Sun and Xu,
2014, "Fast implementation of DeLong's algorithm"). With groups their sums by group take the rows' place (Obuchowski,
1997, "Nonparametric analysis of clustered ROC curve data"); where each row is a group this is DeLong's variance.
"""

from __future__ import annotations

import math

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

    Arguments as in `placements`; `groups` [rows] are the numbers of the rows' groups. Both classes are there, and
    two groups at least. The variance is NaN where all rows of a class are in one group.
    """
    placed, clusters = placements(positive, scores), Clusters(groups)
    value, count = float(placed[positive == 1].mean()), len(clusters)
    variance, sums = 0.0, []
    for own in (1, 0):
        rows, codes = positive == own, clusters.codes[positive == own]
        its = np.bincount(codes, weights=placed[rows] - value, minlength=count) / len(codes)
        having = len(np.unique(codes))
        variance += float((its**2).sum()) * (having / (having - 1) if having > 1 else math.nan)
        sums.append(its)
    variance += 2 * float((sums[0] * sums[1]).sum()) * (count / (count - 1))
    return value, variance, sums[0] + sums[1]
