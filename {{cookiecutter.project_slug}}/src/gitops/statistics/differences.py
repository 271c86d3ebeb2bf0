"""One-sided bounds of the differences between one model and several others, from joint resamples of the rows.

The resamples are shared by all models, so that rows which are hard for two of them cancel out and the dependence
between the differences is known. A bound is the difference plus or minus a critical value times its standard error; the
critical value is a quantile of the studentized deviations of the resamples from the difference. For several differences
at once it is that of their largest deviation, which holds the error rate over all of them together (max-t; Romano and
Wolf, 2005, "Exact and approximate stepdown methods for multiple hypothesis testing", section 3).
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


def lower_bounds(values: Array, draws: Array, groups: int, level: float = 0.95) -> Array:
    """Return a lower bound of each difference, each by itself at `level`.

    `values` [differences] is what was measured, `draws` [resamples, differences] the same in each resample, NaN where
    it is not defined; `groups` is how many groups the resamples were drawn from. Raises ProjectError where there are
    too few resamples for the level, or fewer than two groups.
    """
    errors, factor = _errors(draws), expansion(groups, level)
    deviations = _studentized(draws - values, errors)
    critical = [quantile(column, level) for column in deviations.T]
    return np.asarray(values - factor * np.array(critical) * errors)


def upper_bounds(values: Array, draws: Array, groups: int, level: float = 0.95) -> Array:
    """Return upper bounds of the differences that hold for all of them together at `level`; the rest as above."""
    errors, factor = _errors(draws), expansion(groups, level)
    largest = _studentized(values - draws, errors).max(axis=1)  # NaN where one of them is
    return np.asarray(values + factor * quantile(largest, level) * errors)


def expansion(groups: int, level: float) -> float:
    """Return the factor by which a resampled deviation is too small for so few groups (Hesterberg, 2015, section 5.3).

    A resample's variance is that of a population with n - 1 in place of n, and the quantile that of the normal
    distribution in place of Student's t. Raises ProjectError for fewer than two groups.
    """
    if groups < 2:
        raise ProjectError("the test rows are a single group, of which nothing can be resampled: see data.id")
    return float(math.sqrt(groups / (groups - 1)) * stdtrit(groups - 1, level) / ndtri(level))


def _errors(draws: Array) -> Array:
    """Return the standard error of each difference, [differences]."""
    return np.asarray(np.nanstd(draws, axis=0, ddof=1))


def _studentized(deviations: Array, errors: Array) -> Array:
    """Return deviations / errors, and 0 where a difference is the same in all resamples."""
    return np.divide(deviations, errors, out=np.where(np.isnan(deviations), np.nan, 0.0), where=errors > 0)
