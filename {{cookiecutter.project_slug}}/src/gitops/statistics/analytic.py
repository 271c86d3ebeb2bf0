"""Intervals of large samples without resamples (jackknife.py says from which size on).

A metric's variance is DeLong's for a ROC AUC, the binomial one for a fraction of ungrouped rows, and the blocks' for
any other, the project's own too. The interval is that of the normal distribution, or of the t distribution where few
groups decide; of a metric that is a fraction it is Wilson's with the number of independent rows that would have this
variance (Korn and Graubard, 1998), which is nearly the same but stays between 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gitops.statistics import delong, fractions, jackknife
from gitops.statistics.fractions import Kind
from gitops.statistics.resampling import Array, Clusters

#: A metric of pairs that differs by more than this from the ROC AUC of the last class is another one.
ROUNDING = 1e-9

Score = Callable[[Array, Array, Array], float]


def interval(
    kind: Kind | None, value: float, score: Score, rows: tuple[Array, Array, Array], groups: Array, seed: int
) -> tuple[float, float]:
    """Return the 95 % interval of a metric whose `value` on `rows` is known; arguments as in intervals.of_metrics."""
    variance, quantile = _variance(kind, value, score, rows, groups, seed)
    if variance == 0:
        return value, value
    if kind is None or not 0 < value < 1:
        half = quantile * math.sqrt(variance)
        return value - half, value + half
    return fractions.wilson(value, value * (1 - value) / variance, quantile)


def _variance(
    kind: Kind | None, value: float, score: Score, rows: tuple[Array, Array, Array], groups: Array, seed: int
) -> tuple[float, float]:
    """Return the variance of a metric, and the quantile for an interval."""
    actual, outputs, _ = rows
    count = len(Clusters(groups))
    if kind == "rows" and count == len(groups):
        return value * (1 - value) / count, fractions.Z
    if kind == "pairs" and outputs.ndim == 2 and count > 1:
        area, variance, influence = delong.auc(actual == outputs.shape[1] - 1, outputs[:, -1], groups)
        if math.isfinite(variance) and abs(area - value) < ROUNDING:
            return variance, jackknife.quantile(influence)
    classes = None if kind in (None, "rows") else actual
    blocks = jackknife.influences(lambda part: [score(*(array[part] for array in rows))], classes, groups, seed)[:, 0]
    return jackknife.variance(blocks), jackknife.quantile(blocks)
