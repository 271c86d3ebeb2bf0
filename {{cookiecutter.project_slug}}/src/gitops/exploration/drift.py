"""How far the distribution of a column in one split is from that in another, between 0, equal, and 1."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gitops.exploration.tables import Array

#: How often a page of splits without drift marks a column, over all of its columns and splits together (Bonferroni).
FALSE_ALARM = 0.01


def kolmogorov_smirnov(first: Array, second: Array) -> float:
    """Return the two-sample Kolmogorov-Smirnov statistic of numbers, both sorted and not empty.

    Between two values of the smaller sample its distribution is constant and the other's monotonic, so the largest
    difference is at one of these values, before it or at it.
    """
    large, small = (first, second) if len(first) >= len(second) else (second, first)
    differences = [
        np.abs(np.searchsorted(large, small, side) / len(large) - np.searchsorted(small, small, side) / len(small))
        for side in ("left", "right")
    ]
    return float(max(each.max() for each in differences))


def cramers_v(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """Return Cramér's V between split and category, without its bias (Bergsma, 2013), of counts that are not empty.

    As in `make monitor`, the larger sample is scaled down to the size of the smaller one.
    """
    names = sorted({*first, *second})
    counts = np.array([[each.get(name, 0) for name in names] for each in (first, second)], float)
    sizes = counts.sum(axis=1, keepdims=True)
    counts *= sizes.min() / sizes
    rows, categories = counts.sum(), len(names)
    if categories < 2 or rows < 3:
        return 0.0
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / rows
    phi = float(((counts - expected) ** 2 / expected).sum()) / rows
    corrected = max(0.0, phi - (categories - 1) / (rows - 1))
    dimension = min(categories - (categories - 1) ** 2 / (rows - 1), 2 - 1 / (rows - 1)) - 1
    return float(min(1.0, math.sqrt(corrected / dimension))) if dimension > 0 else 0.0


def by_chance(first: int, second: int, categories: int | None, level: float) -> float:
    """Return the drift that samples of so many values exceed with probability `level` where there is none.

    Numbers (`categories` None): the critical value of the Kolmogorov-Smirnov test. Categories: chi² with one degree of
    freedom less than there are, as a Cramér's V.
    """
    if min(first, second) < 1:
        return 1.0
    if categories is None:
        return min(1.0, math.sqrt(-math.log(level / 2) / 2 * (first + second) / (first * second)))
    from scipy.stats import chi2

    freedom = max(1, categories - 1)
    return float(min(1.0, math.sqrt(max(0.0, chi2.isf(level, freedom) - freedom) / (2 * min(first, second)))))
