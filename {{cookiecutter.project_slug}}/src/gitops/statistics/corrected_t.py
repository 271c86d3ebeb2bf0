"""The corrected resampled t-test: is one way to train better than another?

Each repeat trains both on one part of the rows and scores both on the rest, so that repeats share rows and their
differences are not independent: an ordinary t-test takes the luck of the rows for a difference (Nadeau and Bengio,
2003, "Inference for the generalization error", section 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

from scipy.special import stdtr, stdtrit


def standard_error(differences: Sequence[float], ratio: float) -> float:
    """Return the corrected standard error of the mean difference of at least two repeats.

    `ratio` is that of the rows which a repeat scores to those which it trains on.
    """
    return math.sqrt((1 / len(differences) + ratio) * variance(differences))


def p_value(differences: Sequence[float], ratio: float) -> float:
    """Return the probability of such a mean difference or a larger one where the first way is no better (above 0)."""
    mean, error = fmean(differences), standard_error(differences, ratio)
    if error == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(len(differences) - 1, -mean / error))


def lower_bound(differences: Sequence[float], ratio: float, level: float = 0.95) -> float:
    """Return the one-sided lower bound of the mean difference; above 0 where p_value is below 1 - level."""
    return fmean(differences) - float(stdtrit(len(differences) - 1, level)) * standard_error(differences, ratio)
