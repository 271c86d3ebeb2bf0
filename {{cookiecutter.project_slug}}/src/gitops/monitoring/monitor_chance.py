"""What chance makes of few rows: the values that the monitor's checks exceed where nothing has drifted.

Chance exceeds a limit in FALSE_ALARM of the windows, over all checks of a window together (Bonferroni): thirty
features, judged every day, must not raise a false alarm every week.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: How often a window without drift may fail a check by chance, on average over references. It is so small because one
#: reference serves for all windows: at a hundredth, one that is unlucky itself fails every twenty-fifth.
FALSE_ALARM = 0.001


def drift_by_chance(dtype: str, first: pd.Series[Any], second: pd.Series[Any], level: float) -> float:
    """Return the drift score that two samples without drift exceed with probability `level`, at most.

    Numbers: as conditions.critical_value. Texts: chi² with as many degrees of freedom as there are values less one,
    made a bias-corrected Cramér's V as Deepchecks does (Bergsma, 2013), which scales the larger sample down to the
    smaller one's size. Deepchecks joins values that make up under a hundredth, which takes degrees of freedom away.
    """
    from scipy.stats import chi2

    from gitops.validation import conditions

    counts = first.count(), second.count()
    if dtype == "number":
        return conditions.critical_value(*counts, round(conditions.FALSE_ALARM / level))
    freedom = max(1, len({*first.dropna(), *second.dropna()}) - 1)
    smaller = max(1, min(counts))
    return float(min(1.0, ((chi2.isf(level, freedom) - freedom) / (2 * smaller)) ** 0.5))


@functools.cache  # a tenth of a second for a window of many features
def share_by_chance(hits: int, known: int, rows: int, level: float) -> float:
    """Return the share of `rows` new rows that exceeds chance, where `hits` of `known` earlier rows were like that.

    The quantile of the beta-binomial distribution: what is foretold of new rows when nothing else is known.
    """
    from scipy.stats import betabinom

    return float(betabinom.isf(level, rows, hits + 1, max(1, known - hits + 1)) / rows)
