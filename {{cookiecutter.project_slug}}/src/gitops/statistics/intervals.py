"""Confidence intervals of metrics: the bootstrap's, and where few rows decide, those of a fraction.

Of large samples they are analytic (analytic.py), which says the same in a fraction of the time. How often they hold the
true value, by metric and number of rows: docs/statistics.md, from benchmarks/intervals.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from gitops.statistics import analytic, fractions, jackknife
from gitops.statistics.fractions import Kind
from gitops.statistics.resampling import Array, Clusters, quantile, resamples

#: Parts into which the groups are divided for the jackknife, at most.
BLOCKS = 200

#: The furthest quantile of the resamples that a bound is read at; 999 resamples suffice for it.
FURTHEST = 0.001

#: Degrees of freedom below which the influence of groups has a heavy tail.
HEAVY = 20


class Metric(Protocol):
    """A metric, as in the project's metrics.py."""

    @property
    def score(self) -> Callable[[Array, Array, Array], float]: ...
    @property
    def fraction_of(self) -> Kind | None: ...


@runtime_checkable
class OwnInterval(Protocol):
    """A metric that knows its interval; arguments as in `of_metrics`. None: it has none for these rows."""

    def interval(
        self, rows: tuple[Array, Array, Array], groups: Array, count: int, seed: int
    ) -> tuple[float, float] | None: ...


@dataclass(frozen=True)
class Interval:
    """A metric's value and its interval; all NaN where the rows do not define the metric."""

    value: float
    low: float
    high: float


def of_metrics(
    metrics: Mapping[str, Metric],
    rows: tuple[Array, Array, Array],
    groups: Array,
    count: int,
    seed: int,
    on_resample: Callable[[], object] = lambda: None,
) -> dict[str, Interval]:
    """Return the 95 % interval of each metric.

    `rows` holds actual values, outputs and predictions as the project's metrics.py takes them, `groups` [rows] the
    number of each row's group. A metric may have its own interval (OwnInterval), and one that is a fraction has an
    interval for fractions where few rows decide it (fractions.py); any other has that of `count` resamples, and
    `on_resample` is called after each. From jackknife.LARGE rows on it has an analytic one instead, and nothing is
    resampled. Raises ProjectError as `quantile` does.
    """
    # A resample holds the rows in this order, and what is sorted already is sorted quickly in each.
    outputs = rows[1]
    order = np.argsort(-(outputs[:, -1] if outputs.ndim == 2 else outputs), kind="stable")
    actual, outputs, predicted, groups = (part[order] for part in (*rows, groups))
    values = {name: metric.score(actual, outputs, predicted) for name, metric in metrics.items()}
    found = {}
    for name, value in values.items():
        metric, bounds = metrics[name], None
        if math.isnan(value):
            bounds = value, value
        elif isinstance(metric, OwnInterval):
            bounds = metric.interval((actual, outputs, predicted), groups, count, seed)
        elif metric.fraction_of is not None:
            bounds = fractions.interval(metric.fraction_of, value, actual, groups)
        if bounds:
            found[name] = Interval(value, *bounds)
    drawn = {name: metrics[name].score for name in values if name not in found}
    if not from_resamples(len(actual)):
        arrays = actual, outputs, predicted
        for name, score_ in drawn.items():
            bounds = analytic.interval(metrics[name].fraction_of, values[name], score_, arrays, groups, seed)
            found[name] = Interval(values[name], *bounds)
        drawn = {}
    if not drawn:
        return {name: found[name] for name in values}

    def score(part: Array) -> list[float]:
        return [metric(actual[part], outputs[part], predicted[part]) for metric in drawn.values()]

    resampled, influence = draw(score, groups, count, seed, on_resample)
    for place, name in enumerate(drawn):
        found[name] = bca(values[name], resampled[:, place], influence[:, place])
    return {name: found[name] for name in values}


def from_resamples(rows: int) -> bool:
    """Tell whether the intervals of so many rows come from resamples."""
    return rows < jackknife.LARGE


def draw(
    score: Callable[[Array], list[float]], groups: Array, count: int, seed: int, on_resample: Callable[[], object]
) -> tuple[Array, Array]:
    """Return what `score(rows)` gives for resamples [count, scores], and each block's influence [blocks, scores]."""
    drawn = []
    for rows in resamples(groups, count, seed):
        drawn.append(score(rows))
        on_resample()
    whole = np.array(score(np.arange(len(groups))))
    left_out = np.array([score(rows) for rows in without_a_block(groups)])
    # A block without which a metric is not defined says nothing about its influence.
    left_out = np.where(np.isnan(left_out), whole, left_out)
    return np.array(drawn), left_out.mean(axis=0) - left_out


def without_a_block(groups: Array) -> Iterator[Array]:
    """Yield the rows without each block of groups in turn: a jackknife by groups, or by some of them at a time.

    Of one group alone, all of its rows: it has no influence that could be told.
    """
    clusters = Clusters(groups)
    blocks = min(len(clusters), BLOCKS)
    block = clusters.codes * blocks // len(clusters)
    for index in range(blocks):
        yield np.flatnonzero((block != index) | (blocks == 1))


def bca(value: float, resampled: Array, influence: Array) -> Interval:
    """Return the bias-corrected and accelerated 95 % interval (Efron, 1987), widened for small samples.

    In place of the normal distribution's quantile it takes the t distribution's, and undoes the bootstrap's narrowness
    by sqrt(n / (n - 1)) (Hesterberg, 2015). The degrees of freedom are those of the jackknife's variance
    (Satterthwaite, 1946): few, if few groups hold most of the influence. `resampled` [resamples], `influence` [blocks].

    Resamples do not reach beyond the rows that there are: where the influence has a heavy tail, the bound on its side
    is at least that of the formula without resamples (DiCiccio and Efron, 1992).
    """
    blocks, squares = len(influence), float((influence**2).sum())
    defined = resampled[~np.isnan(resampled)]
    if squares == 0 or (len(defined) and defined.min() == defined.max()):
        return Interval(value, value, value)
    acceleration = float((influence**3).sum()) / (6 * squares**1.5)
    kurtosis = blocks * float((influence**4).sum()) / squares**2
    freedom = max(1.0, min(blocks - 1, 2 * blocks / max(kurtosis - 1, 1e-9)))
    width = float(stdtrit(freedom, 0.975)) * math.sqrt(blocks / (blocks - 1))
    width = min(width, float(ndtri(1 - FURTHEST)))
    below = ((defined < value).sum() + 0.5 * (defined == value).sum()) / max(1, len(defined))
    bias = float(ndtri(np.clip(below, FURTHEST, 1 - FURTHEST)))
    bounds = [value]
    for side in (-width, width):
        shifted = bias + side
        slope = max(1 - acceleration * shifted, 0.05)  # at 0 the formula has a pole
        bounds.append(quantile(resampled, float(np.clip(ndtr(bias + shifted / slope), FURTHEST, 1 - FURTHEST))))
        if freedom < HEAVY and side * acceleration > 0:
            error = math.sqrt(squares * (blocks - 1) / blocks)
            bounds.append(value + error * shifted / slope**2)
    return Interval(value, min(bounds), max(bounds))
