"""One-sided bounds of the differences between one model and several others, from joint resamples of the rows.

The resamples are shared by all models, so that rows which are hard for two of them cancel out and the dependence
between the differences is known. The bound of one difference is a percentile of its resamples (Efron, 1979), widened
for few groups. For several at once their deviations are divided by their standard errors, and the percentile is that of
the largest in each resample, which holds the error rate over all of them together (max-t; Romano and Wolf, 2005, "Exact
and approximate stepdown methods for multiple hypothesis testing", section 3). Deviations are those towards the bound:
of differences in ROC AUC, which are skewed, such bounds hold better than those by the opposite deviations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from gitops.core.artifacts import ProjectError
from gitops.statistics.resampling import quantile

Array = NDArray[Any]

#: A standard error below this comes from the rounding of sums: the difference is the same in all resamples.
ROUNDING = 1e-12


def lower_bounds(values: Array, draws: Array, groups: int, level: float = 0.95) -> Array:
    """Return a lower bound of each difference, each by itself at `level`.

    `values` [differences] is what was measured, `draws` [resamples, differences] the same in each resample, NaN where
    it is not defined; `groups` is how many groups the resamples were drawn from. Raises ProjectError where there are
    too few resamples for the level, or fewer than two groups.
    """
    factor = expansion(groups, level)
    return np.array(
        [value - factor * quantile(value - drawn, level) for value, drawn in zip(values, draws.T, strict=True)]
    )


def upper_bounds(values: Array, draws: Array, groups: int, level: float = 0.95) -> Array:
    """Return upper bounds of the differences that hold for all of them together at `level`; the rest as above."""
    factor, errors = expansion(groups, level), np.nanstd(draws, axis=0, ddof=1)
    # NaN in a resample that does not define one of them, which is then left out.
    deviations = np.where(np.isnan(draws), np.nan, 0.0)
    largest = np.divide(draws - values, errors, out=deviations, where=errors > ROUNDING).max(axis=1)
    return np.asarray(values + factor * quantile(largest, level) * errors)


def expansion(groups: int, level: float) -> float:
    """Return the factor by which a resampled deviation is too small for so few groups (Hesterberg, 2015, section 5.3).

    A resample's variance is that of a population with n - 1 in place of n, and the quantile that of the normal
    distribution in place of Student's t. Raises ProjectError for fewer than two groups.
    """
    if groups < 2:
        raise ProjectError("the test rows are a single group, of which nothing can be resampled: see data.id")
    return float(math.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, level) / ndtri(level))
