"""Intervals of fractions that few rows decide, where resamples of these rows say too little.

With three positive rows, all ranked above the others, each resample has a ROC AUC of 1, whatever the true one is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from gitops.statistics.resampling import Array, Clusters

#: What a metric is a fraction of: pairs of a positive and a negative row (ROC AUC), positive rows (F1, average
#: precision), rows (accuracy), or rows of each class, averaged over the classes (macro F1).
Kind = Literal["pairs", "positives", "rows", "classes"]

#: The bootstrap is used where the rarest class (pairs, classes) or the positive one has so many rows, or where so many
#: rows are right and as many wrong.
FEW = {"pairs": 20, "positives": 10, "rows": 5, "classes": 20}

#: The normal distribution's quantile for an interval of 95 %.
Z = 1.959964


def interval(kind: Kind, value: float, actual: Array, groups: Array) -> tuple[float, float] | None:
    """Return the 95 % interval of a metric between 0 and 1, or None where enough rows decide it for the bootstrap.

    `actual` [rows] are class indices, `groups` [rows] as in Clusters. In the interval, rows that share a group count
    once.
    """
    classes, rows = np.unique(actual, return_counts=True)
    if len(classes) < 2 and kind != "rows":
        return 0.0, 1.0  # rows of one class say nothing about the other
    codes = Clusters(groups).codes
    counts = [len(np.unique(codes[actual == index])) for index in classes]
    size: float = len(np.unique(codes))
    deciding: float = min(rows)
    if kind == "positives":
        size, deciding = counts[-1], rows[-1]
    elif kind == "rows":
        deciding = len(actual) * min(value, 1 - value)
    elif kind == "classes":
        # A mean over classes is as uncertain as one over rows where each class has the harmonic mean of their sizes.
        size = len(counts) ** 2 / sum(1 / count for count in counts)
    if deciding >= FEW[kind] and 0 < value < 1:
        return None
    return auc(value, counts[-1], counts[0]) if kind == "pairs" else wilson(value, size)


def wilson(value: float, count: float, z: float = Z) -> tuple[float, float]:
    """Return the score interval of a fraction of `count` independent cases (Wilson, 1927); `z` is the quantile."""
    centre = (value + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(value * (1 - value) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))


def auc(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """Return the score interval of a ROC AUC (Newcombe, 2006, method 5).

    It holds the values that lie within Z standard errors of the one found, the error being that of Hanley and McNeil
    (1982) at the value held, so that an AUC of 1 has a lower bound too.
    """
    cases = (positives + negatives) / 2 - 1

    def rejected(candidate: float) -> bool:
        spread = 1 + cases * ((1 - candidate) / (2 - candidate) + candidate / (1 + candidate))
        variance = candidate * (1 - candidate) * spread / (positives * negatives)
        return (value - candidate) ** 2 > Z**2 * variance

    return _border(rejected, 0.0, value), _border(rejected, 1.0, value)


def _border(rejected: Callable[[float], bool], outside: float, inside: float) -> float:
    """Return by bisection where values from `outside` to `inside` stop being rejected."""
    if not rejected(outside):
        return outside
    for _ in range(60):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if rejected(middle) else (outside, middle)
    return inside
