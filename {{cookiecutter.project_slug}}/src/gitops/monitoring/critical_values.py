"""Values that a check of `make monitor` exceeds by chance alone in no more than a chosen fraction of the windows."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: How often a window without drift may fail a check, on average over references. It is so small because one reference
#: serves for all windows: at 0.01, a reference that happens to be unusual fails every twenty-fifth window.
FALSE_ALARM = 0.001


def critical_drift(dtype: str, reference: pd.Series[Any], current: pd.Series[Any], level: float) -> float:
    """Return the drift score that two samples without drift exceed with probability `level`, at most.

    Numbers: conditions.critical_value. Categories: chi² with one degree of freedom less than there are values,
    converted to a bias-corrected Cramér's V as Deepchecks does (Bergsma, 2013), which scales the larger sample down to
    the size of the smaller one. Deepchecks merges values rarer than a hundredth, which lowers the degrees of freedom.
    """
    from scipy.stats import chi2

    from gitops.validation import conditions

    counts = reference.count(), current.count()
    if dtype == "number":
        return conditions.critical_value(*counts, level)
    freedom = max(1, len({*reference.dropna(), *current.dropna()}) - 1)
    smaller = max(1, min(counts))
    return float(min(1.0, ((chi2.isf(level, freedom) - freedom) / (2 * smaller)) ** 0.5))


@functools.cache  # a tenth of a second for a window of many features
def critical_fraction(hits: int, known: int, rows: int, level: float) -> float:
    """Return the fraction of `rows` new rows that is exceeded with probability `level`, given `hits` in `known` rows.

    The quantile of the beta-binomial distribution, the predictive distribution for new rows under a uniform prior.
    """
    from scipy.stats import betabinom

    return float(betabinom.isf(level, rows, hits + 1, max(1, known - hits + 1)) / rows)
