"""What metrics.json says of each metric: its value, its interval, and how often such intervals hold the true value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from gitops.statistics import coverage, intervals
from gitops.statistics.intervals import Metric
from gitops.statistics.resampling import Array

#: `value`, `low` and `high`; `coverage` as a fraction where it was measured to be other than it says, None where it
#: was not measured.
Score = dict[str, float | None]


def of_metrics(
    task: str,
    metrics: Mapping[str, Metric],
    rows: tuple[Array, Array, Array],
    groups: Array,
    resamples: int,
    seed: int,
    on_resample: Callable[[], object] = lambda: None,
) -> dict[str, Score | None]:
    """Return the score of each metric with its 95 % interval, None where the rows do not define it.

    Arguments and errors as in intervals.of_metrics.
    """
    found = intervals.of_metrics(metrics, rows, groups, resamples, seed, on_resample)
    measured = coverage.measured(coverage.conditions(task, rows[0], rows[1], groups))
    return {name: _score(interval, measured.get(name)) for name, interval in found.items()}


def _score(interval: intervals.Interval, measured: float | None) -> Score | None:
    if math.isnan(interval.value):
        return None
    score: Score = {"value": interval.value, "low": interval.low, "high": interval.high}
    if interval.low == interval.high:  # every resample has this value: that is no interval
        return score | {"coverage": None}
    return score if measured is not None and coverage.good(measured) else score | {"coverage": measured}
